"""Brings what another system owes us to that system: durable first, in order per key, as often as it takes.

A message is appended to the outbox before anything is sent, and marked only after the other system has confirmed. A crash
between the two leads to a second delivery, so the deliverer must be idempotent. One lock per key, held by one process at a
time, keeps two deliverers from sending the same message at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from e2i.errors import BackendUnavailable, CircuitOpen, E2IError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from e2i.domain.runs import OutboxMessage
    from e2i.ports.records import Outbox

_log = logging.getLogger(__name__)
_SLOTS = 64


class DeliveryLock(Protocol):
    """At most one holder of a name among all processes that share the outbox; free again when the holder dies."""

    def hold(self, name: str) -> AbstractAsyncContextManager[None]:
        """Wait for `name` and hold it inside the `async with`."""
        ...


class FileLock:
    """A DeliveryLock for the processes of one machine; the kernel frees it when a holder is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """See DeliveryLock. Names share 64 files, so the folder does not grow; never hold two names at once."""
        slot = hashlib.sha256(name.encode()).digest()[0] % _SLOTS
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{slot:02d}.lock").open("ab") as file:
            while not _locked(file.fileno()):  # noqa: ASYNC110  # the kernel tells nobody when a file lock is free
                await asyncio.sleep(0.01)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Deliverer(Protocol):
    """The other system's side of one message."""

    async def deliver(self, message: OutboxMessage, results: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what the message asks, idempotently; `results` are those of earlier messages of the key.

        Raises BackendUnavailable when it may work later, any other E2IError when it never will.
        """
        ...


@dataclass(kw_only=True)
class Delivery:
    """What came of a round. `errors` are the latest by key, of messages that wait."""

    delivered: int = 0
    refused: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    circuit_open: bool = False

    def add(self, other: Delivery) -> None:
        """Take another round's counts."""
        self.delivered += other.delivered
        self.refused += other.refused
        self.errors |= other.errors
        self.circuit_open = other.circuit_open


@dataclass(frozen=True, kw_only=True)
class OutboxRelay:
    """The relay of one target.

    `holds` names refusals that are not the message's fault (wrong password, schema too old): the message waits.
    `on_delivered` is called after the mark is durable.
    """

    target: str
    outbox: Outbox
    deliverer: Deliverer
    lock: DeliveryLock
    holds: tuple[type[E2IError], ...] = ()
    on_delivered: Callable[[OutboxMessage], Awaitable[None]] | None = None

    async def send(self, message: OutboxMessage) -> dict[str, Any] | None:
        """Append `message`, then deliver whatever waits for its key.

        Returns
        -------
        dict or None
            The results of the key, this message's last; None while the message waits.

        Raises
        ------
        E2IError
            The other system refused this message; what it said.
        """
        (number,) = await self.outbox.append([message])
        own: dict[int, dict[str, Any] | E2IError] = {}
        await self._deliver_key(message.key, watch=number, seen=own)
        outcome = own.get(number)
        if isinstance(outcome, E2IError):
            raise outcome
        if outcome is None and not await self.outbox.pending(self.target, limit=1, key=message.key):
            return await self.outbox.results(self.target, message.key)  # somebody else has delivered it meanwhile
        return outcome

    async def drain(self) -> Delivery:
        """Deliver everything that waits, oldest first; a key that cannot be delivered does not hold up the others."""
        total = Delivery()
        stalled: set[str] = set()
        while True:
            batch = await self.outbox.pending(self.target, limit=100)
            keys = [key for key in dict.fromkeys(message.key for message in batch) if key not in stalled]
            if not keys:
                return total
            for key in keys:
                part = await self._deliver_key(key)
                total.add(part)
                if part.circuit_open:
                    return total
                if part.errors or not part.delivered + len(part.refused):
                    stalled.add(key)

    async def _deliver_key(
        self, key: str, *, watch: int | None = None, seen: dict[int, dict[str, Any] | E2IError] | None = None
    ) -> Delivery:
        part = Delivery()
        async with self.lock.hold(f"{self.target}:{key}"):
            results = await self.outbox.results(self.target, key)
            while batch := await self.outbox.pending(self.target, limit=100, key=key):
                for message in batch:
                    outcome = await self._attempt(message, results, part)
                    if outcome is None:
                        return part
                    if not isinstance(outcome, E2IError):
                        results = {**results, **outcome}
                    if seen is not None and message.message_id == watch:
                        seen[_number(message)] = outcome if isinstance(outcome, E2IError) else dict(results)
                    if isinstance(outcome, self.holds or ()):
                        return part
        return part

    async def _attempt(self, message: OutboxMessage, results: Mapping[str, Any], part: Delivery) -> Mapping[str, Any] | E2IError | None:
        """The message's results, the error that refuses it, or None when it must wait."""
        number = _number(message)
        try:
            outcome = await self.deliverer.deliver(message, results)
        except CircuitOpen as error:
            part.circuit_open = True
            part.errors[message.key] = str(error)
            return None
        except BackendUnavailable as error:
            part.errors[message.key] = str(error)
            await self.outbox.mark_failed(number, str(error), quarantine=False)
            return None
        except E2IError as error:
            waits = isinstance(error, self.holds)
            _log.warning("%s %s of %s: %s", message.operation, "waits" if waits else "was refused", message.key, error)
            await self.outbox.mark_failed(number, str(error), quarantine=not waits)
            if waits:
                part.errors[message.key] = str(error)
            else:
                part.refused.append(f"{message.operation} of {message.key}: {error}")
            return error
        await self.outbox.mark_delivered(number, outcome)
        part.delivered += 1
        if self.on_delivered is not None:
            await self.on_delivered(message)
        return outcome


def _number(message: OutboxMessage) -> int:
    if message.message_id is None:
        msg = "the outbox gave out a message without its number"
        raise TypeError(msg)
    return message.message_id
