"""The one process per spool that brings spans from the disk to the sinks, forces them to the disk, and keeps the spool small.

One task per sink: a sink that is down or hangs delays only itself. Nothing is held in memory but one batch per sink.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from e2i.errors import Conflict
from e2i.telemetry.delivery import Delivery, Round, Route, ShipperSettings, View
from e2i.telemetry.gather import Clock
from e2i.telemetry.housekeeping import Housekeeping
from e2i.telemetry.reader import SpoolReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from e2i.telemetry.reader import Stream

__all__ = ["Route", "Shipper", "ShipperSettings", "run_shipper", "shipper_pid"]

_log = logging.getLogger(__name__)
_LOCK = "shipper.lock"
_TEND_EVERY_S = 0.5
_SCAN_SHARE = 0.05
"""at most this share of the time goes into looking at the folder"""


class Shipper:
    """Use as `async with Shipper(…) as shipper`: it holds the spool's lock and closes its sinks.

    Raises
    ------
    Conflict
        At entry, when another shipper serves this spool.
    OSError
        At entry, when the folder cannot be made or read.
    """

    def __init__(
        self,
        folder: Path,
        routes: Sequence[Route],
        settings: ShipperSettings,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.folder = folder
        self._routes = tuple(routes)
        self._settings = settings
        self._clock = clock or Clock()
        self._chance = chance
        self._lock: IO[str] | None = None
        self._streams: Sequence[Stream] = ()
        self._seen = float("-inf")
        self._look_again_s = settings.poll_s

    async def __aenter__(self) -> Self:
        self._lock = _locked(self.folder)
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            self._house.write_status(is_final=True)
        except OSError as error:
            _log.warning("the status of the spool cannot be written: %s", error)
        for route in self._routes:
            await route.sink.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def delivery(self, sink: str) -> Delivery:
        """One sink's way through the spool. Raises KeyError."""
        return self._deliveries[sink]

    async def step(self, sink: str, *, is_hurried: bool = True) -> Round:
        """One round of one sink, from what the folder holds at this moment."""
        self._look()
        return await self._deliveries[sink].step(self._view, is_hurried=is_hurried)

    def tend(self) -> None:
        """One round of housekeeping: deletion, disk budget, status. Raises OSError."""
        self._look()
        try:
            self._house.tend(self._view())
        finally:  # what it deleted before it failed is gone
            self._look()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then, also when it was set before, at most `drain_s` seconds more for what is there."""
        while True:
            await self._run_until_replaced(stop)
            if stop.is_set():
                return
            _log.warning("the spool's folder was emptied or replaced; beginning anew")
            self._reopen()

    async def _run_until_replaced(self, stop: asyncio.Event) -> None:
        async with _tasks() as tasks:
            ships = [tasks.create_task(self._ship(delivery, stop)) for delivery in self._deliveries.values()]
            house = [tasks.create_task(self._keep_house()), tasks.create_task(self._keep_forced())]
            ending = tasks.create_task(stop.wait())
            await asyncio.wait([ending, *house], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set() and ships:
                await asyncio.wait(ships, timeout=self._settings.drain_s)
        if stop.is_set():
            self._tend_safely()

    async def _ship(self, delivery: Delivery, stop: asyncio.Event) -> None:
        is_last = False
        while True:
            is_last = stop.is_set()
            round_ = await self._step_safely(delivery, is_hurried=is_last)
            if not round_.wait_s:
                await asyncio.sleep(0)
            elif is_last:
                return
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), round_.wait_s)

    async def _step_safely(self, delivery: Delivery, *, is_hurried: bool) -> Round:
        """A fault of ours in one sink's way must not end the others'."""
        try:
            if is_hurried or self._clock.monotonic() - self._seen >= self._look_again_s:
                self._look()
            return await delivery.step(self._view, is_hurried=is_hurried)
        except Exception as error:  # noqa: BLE001 - the worker's loop: logged with its traceback, tried again
            _log.exception("%s: this round failed", delivery.name)
            return delivery.fail(error)

    async def _keep_house(self) -> None:
        while self._is_ours():
            self._tend_safely()
            await asyncio.sleep(_TEND_EVERY_S)

    def _tend_safely(self) -> None:
        try:
            self.tend()
        except OSError as error:
            _log.warning("the spool's folder cannot be tended: %s", error)

    async def _keep_forced(self) -> None:
        """Force what was written to the disk; in a thread, with a reader of its own, because a disk may take its time."""
        if not self._settings.fsync_interval_s:
            await asyncio.Event().wait()
        forcer = SpoolReader(self.folder)
        while True:
            try:
                await asyncio.to_thread(forcer.sync)
            except OSError as error:
                _log.warning("spans cannot be forced to the disk: %s", error)
            await asyncio.sleep(self._settings.fsync_interval_s)

    def _look(self) -> None:
        began = self._clock.monotonic()
        self._streams = self._reader.streams()
        self._seen = self._clock.monotonic()
        self._look_again_s = max(0.8 * self._settings.poll_s, (self._seen - began) / _SCAN_SHARE)

    def _view(self) -> View:
        """The streams of the last look. The floors of this moment: a segment is deleted right after they moved."""
        return View(streams=self._streams, floors=self._house.ledger.floors)

    def _open(self) -> None:
        self._reader = SpoolReader(self.folder)
        self._deliveries = {
            route.sink.name: Delivery(route, self._reader, self.folder, self._settings, clock=self._clock, chance=self._chance)
            for route in self._routes
        }
        self._house = Housekeeping(self.folder, self._reader, tuple(self._deliveries.values()), self._settings, clock=self._clock)
        self._house.drop_removed_sinks()
        self._look()

    def _reopen(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = _locked(self.folder)
        self._open()

    def _is_ours(self) -> bool:
        """Whether the folder is still the one that was opened and locked."""
        assert self._lock is not None
        try:
            same_lock = os.path.samestat(os.fstat(self._lock.fileno()), (self.folder / _LOCK).stat())
            return same_lock and (self.folder / "id").read_text().strip() == self._reader.spool_id
        except OSError:
            return False


@dataclass
class _Tasks:
    made: list[asyncio.Task[object]]

    def create_task(self, coroutine: Coroutine[None, None, object]) -> asyncio.Task[object]:
        task: asyncio.Task[object] = asyncio.create_task(coroutine)
        self.made.append(task)
        return task


@asynccontextmanager
async def _tasks() -> AsyncIterator[_Tasks]:
    """Tasks that are cancelled and waited for at the end; the first that failed tells."""
    tasks = _Tasks([])
    try:
        yield tasks
    finally:
        for task in tasks.made:
            task.cancel()
        results = await asyncio.gather(*tasks.made, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _locked(folder: Path) -> IO[str]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder / _LOCK).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise Conflict(
            f"process {pid} ships this spool already.", where=str(folder), advice="One shipper per spool is enough; stop that one first."
        ) from None
    file.truncate(0)
    with suppress(OSError):  # a full disk: who ships is then not told, and shipping is what empties it
        os.write(file.fileno(), str(os.getpid()).encode())
    return file


def shipper_pid(folder: Path) -> int | None:
    """The process that ships this spool now; None when there is none."""
    try:
        with (folder / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdecimal() else 0
            return None
    except OSError:
        return None


async def run_shipper(folder: Path, sinks: Sequence[Route], settings: ShipperSettings, stop: asyncio.Event) -> None:
    """Ship the spool in `folder` until `stop` is set, then drain for at most `drain_s` seconds.

    Raises
    ------
    Conflict
        Another shipper serves this spool.
    OSError
        The folder cannot be made or read.
    """
    async with Shipper(folder, sinks, settings) as shipper:
        await shipper.run(stop)
