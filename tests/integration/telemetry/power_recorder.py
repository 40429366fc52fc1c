"""A process that emits and ships while every change of a file, and every forcing to the disk, is written down.

python power_recorder.py FOLDER JOURNAL SEED writer|reader: who forces, `SpoolWriter.sync` or the shipper's `SpoolReader.sync`.

The system calls are wrapped before anything of E2I is imported, so that nothing of E2I knows of it.
"""

from __future__ import annotations

import itertools
import os
import pickle
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Entry = tuple[Any, ...]
_SYNC_S = 0.001
_LIVES, _TRACES = 4, 45


class Recorder:
    """A journal of `make`, `create`, `write`, `cut`, `move`, `remove`, `force`, `forced` and what the program adds itself."""

    def __init__(self, root: Path) -> None:
        self.journal: list[Entry] = []
        self._root = str(root.parent)
        self._ids: dict[int, int] = {}
        """inode -> our number, which is not used again"""
        self._next = itertools.count(1)
        self._real = {name: getattr(os, name) for name in ("open", "write", "pwrite", "ftruncate", "rename", "replace", "link", "unlink")}

    def begin(self) -> None:
        """Watch from now on."""
        for name in ("open", "write", "pwrite", "ftruncate", "rename", "link", "unlink", "mkdir"):
            setattr(os, name, self._watched(getattr(os, name), getattr(self, f"_after_{name}")))
        os.replace = os.rename
        os.fsync = os.fdatasync = self._force  # type: ignore[assignment]

    def tell(self, *entry: Any) -> None:
        """Something that the program knows."""
        self.journal.append(entry)

    def _watched(self, call: Callable[..., Any], after: Callable[..., None]) -> Callable[..., Any]:
        def watched(*arguments: Any, **more: Any) -> Any:
            is_new = call is self._real["open"] and not os.path.lexists(arguments[0])
            result = call(*arguments, **more)
            after(result, *arguments, *([is_new] if call is self._real["open"] else []))
            return result

        return watched

    def _is_ours(self, path: Any) -> bool:
        return str(path).startswith(self._root)

    def _after_open(self, fd: int, path: Any, *rest: Any) -> None:
        if self._is_ours(path) and rest[-1]:
            number = self._ids[os.fstat(fd).st_ino] = next(self._next)
            self.tell("create", str(path), number)
        elif self._is_ours(path) and rest[0] & os.O_TRUNC:
            self._after_ftruncate(None, fd, 0)

    def _after_write(self, written: int, fd: int, data: bytes) -> None:
        if (number := self._number(fd)) is not None:
            self.tell("write", number, os.fstat(fd).st_size - written, bytes(data[:written]))

    def _after_pwrite(self, written: int, fd: int, data: bytes, offset: int) -> None:
        if (number := self._number(fd)) is not None:
            self.tell("write", number, offset, bytes(data[:written]))

    def _after_ftruncate(self, _: None, fd: int, size: int) -> None:
        if (number := self._number(fd)) is not None:
            self.tell("cut", number, size)

    def _after_rename(self, _: None, old: Any, new: Any) -> None:
        if self._is_ours(new):
            self._look_into(new)
            self.tell("move", str(old), str(new))

    def _after_link(self, _: None, old: Any, new: Any) -> None:
        self.tell("link", str(old), str(new))

    def _after_unlink(self, _: None, path: Any) -> None:
        if self._is_ours(path):
            self.tell("remove", str(path))

    def _after_mkdir(self, _: None, path: Any, *__: Any) -> None:
        if self._is_ours(path):
            self.tell("make", str(path))

    def _look_into(self, path: Any) -> None:
        """What a buffered file wrote past us, as a whole."""
        fd = self._real["open"](path, os.O_RDONLY)
        if (number := self._number(fd)) is not None:
            data = os.pread(fd, os.fstat(fd).st_size, 0)
            self.tell("whole", number, data)
        os.close(fd)

    def _number(self, fd: int) -> int | None:
        return self._ids.get(os.fstat(fd).st_ino)

    def _force(self, fd: int) -> None:
        """Nobody waits for the medium: what counts is what was there when it was asked."""
        status, path = os.fstat(fd), str(Path(f"/proc/self/fd/{fd}").readlink())
        is_folder = stat.S_ISDIR(status.st_mode)
        if not is_folder and Path(path).suffix == ".new":
            self._look_into(f"/proc/self/fd/{fd}")
        key = path if is_folder else self._ids.get(status.st_ino)
        self.tell("force", threading.get_ident(), key)
        time.sleep(_SYNC_S)
        self.tell("forced", threading.get_ident(), key)


def emit(recorder: Recorder, folder: Path, seed: int, name: int, *, forces: bool) -> None:
    """Traces of three spans; a writer that was closed begins anew, as another one."""
    import random

    import kill_emitter

    from e2i.telemetry.spool import SpoolSettings, SpoolWriter

    chance = random.Random(seed * 10 + name)
    number = name * 1_000_000
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 26, segment_bytes=4_000))
    tracer = kill_emitter.provider(writer).get_tracer("power")
    for _ in range(_LIVES):
        for _ in range(_TRACES):
            trace(recorder, tracer, chance, number)
            number += 3
            time.sleep(0.004)
            if forces and chance.random() < 0.2:
                recorder.tell("asked", name)
                writer.sync()
                recorder.tell("safe", name)
        writer.close()


def trace(recorder: Recorder, tracer: Any, chance: Any, number: int) -> None:
    """Three spans; the last to end may fail, which keeps the others."""
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    root = tracer.start_span("run", attributes={"n": number})
    for step in (1, 2):
        child = tracer.start_span("step", set_span_in_context(root), attributes={"n": number + step, "text": "x" * chance.randrange(700)})
        is_failed = step == 2 and chance.random() < 0.3
        if is_failed:
            child.set_status(Status(StatusCode.ERROR))
        child.end()
        recorder.tell("ended", number // 1_000_000, number + step, f"{child.context.trace_id:032x}", is_failed)
    root.end()
    recorder.tell("ended", number // 1_000_000, number, f"{root.context.trace_id:032x}", False)


def force(recorder: Recorder, folder: Path, stop: threading.Event) -> None:
    """As the shipper does, which does not say when it is done."""
    from e2i.telemetry.reader import SpoolReader

    forcer = SpoolReader(folder)
    while not stop.is_set():
        recorder.tell("asked", None)
        forcer.sync()
        recorder.tell("safe", None)
        time.sleep(0.05)


def ship(recorder: Recorder, folder: Path, stop: threading.Event) -> None:
    """A real shipper: a table that keeps its place with the rows, and a collector whose place is a file."""
    import asyncio

    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[2] / "unit" / "telemetry")]
    from spool_world import Collector

    from contracts.memory_shipments import MemoryShipments
    from e2i.mlops.circuit_breaker import CircuitBreaker
    from e2i.telemetry.cursor import CursorFile
    from e2i.telemetry.shipper import Route, ShipperSettings, run_shipper
    from e2i.telemetry.sink import ForeignSink
    from e2i.telemetry.sinks.postgres import PostgresSink

    class Table(MemoryShipments):
        async def ship(self, spans: Any, *, spool_id: str, state: Any, left_out: Any = ()) -> int:
            new = await super().ship(spans, spool_id=spool_id, state=state, left_out=left_out)
            recorder.tell("commit", list(spans), spool_id, dict(state), list(left_out))
            return new

    class Told(Collector):
        async def send(self, spans: Any) -> int:
            recorder.tell("sent", list(spans))
            return await super().send(spans)

    async def main() -> None:
        ending = asyncio.Event()
        collector = Told(batch_size=20)
        sinks = [PostgresSink(Table(), CursorFile(folder, "postgres"), batch_size=30), ForeignSink(collector, CursorFile(folder, "otlp"))]
        routes = [Route(sink=sink, breaker=CircuitBreaker(sink.name)) for sink in sinks]
        settings = ShipperSettings(max_bytes=1 << 26, fsync_interval_s=0, decision_wait_s=3.0, max_wait_s=0.02, poll_s=0.02, drain_s=1.0)
        work = asyncio.create_task(run_shipper(folder, routes, settings, ending))
        await asyncio.to_thread(stop.wait)
        ending.set()
        await work

    asyncio.run(main())


def run(folder: Path, journal: Path, seed: int, who: str) -> None:
    """Two threads that emit, one that ships, and one that forces."""
    recorder = Recorder(folder)
    recorder.begin()
    stop = threading.Event()
    ships = [threading.Thread(target=ship, args=(recorder, folder, stop))]
    ships += [threading.Thread(target=force, args=(recorder, folder, stop))] if who == "reader" else []
    emits = [threading.Thread(target=emit, args=(recorder, folder, seed, name), kwargs={"forces": who == "writer"}) for name in (1, 2)]
    for thread in (*ships, *emits):
        thread.start()
    for thread in emits:
        thread.join()
    time.sleep(5.0)  # what waits for a decision is delivered, and what is done with is deleted
    stop.set()
    for thread in ships:
        thread.join()
    with journal.open("wb") as file:
        pickle.dump(recorder.journal, file)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
