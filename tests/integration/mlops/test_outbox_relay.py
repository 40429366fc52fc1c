"""Durable first, in order per key, again after every failure; with a backend that does what the test says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from e2i.domain.runs import OutboxMessage
from e2i.errors import BackendRejected, BackendUnavailable, CircuitOpen
from e2i.mlops.mlflow_errors import AccessRefused
from e2i.mlops.outbox_relay import FileLock, OutboxRelay

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from contracts.sqlite_outbox import SqliteOutbox


class Backend:
    """Keeps what was delivered; `faults` are raised in turn for a key, before anything is kept."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []
        self.seen: list[dict[str, Any]] = []
        self.faults: dict[str, list[Exception]] = defaultdict(list)

    async def deliver(self, message: OutboxMessage, results: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.faults[message.key]:
            raise self.faults[message.key].pop(0)
        self.kept.append((message.key, message.operation))
        self.seen.append(dict(results))
        return {message.operation: f"done for {message.key}"}


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def relay(outbox: SqliteOutbox, backend: Backend, tmp_path: Path) -> OutboxRelay:
    return OutboxRelay(target="there", outbox=outbox, deliverer=backend, lock=FileLock(tmp_path / "locks"), holds=(AccessRefused,))


def message(key: str, operation: str) -> OutboxMessage:
    return OutboxMessage(target="there", key=key, operation=operation, payload={})


async def test_a_message_is_delivered_at_once_with_the_results_of_those_before(relay: OutboxRelay, backend: Backend) -> None:
    assert await relay.send(message("a", "start")) == {"start": "done for a"}
    assert await relay.send(message("a", "log")) == {"start": "done for a", "log": "done for a"}
    assert backend.seen == [{}, {"start": "done for a"}]


async def test_messages_of_a_key_wait_in_order_behind_the_first_that_failed(
    relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox
) -> None:
    backend.faults["a"] = [BackendUnavailable("down")] * 3
    assert [await relay.send(message("a", operation)) for operation in ("start", "log", "finish")] == [None] * 3
    assert await relay.send(message("b", "start")) == {"start": "done for b"}
    assert backend.kept == [("b", "start")]
    assert (await outbox.pending("there"))[0].attempts == 3
    delivery = await relay.drain()
    assert (delivery.delivered, delivery.refused, delivery.errors) == (3, [], {})
    assert backend.kept[1:] == [("a", "start"), ("a", "log"), ("a", "finish")]


async def test_a_key_that_cannot_be_delivered_does_not_hold_up_the_others(
    relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox
) -> None:
    await outbox.append([message(key, "start") for key in ("a", "b", "c")])
    backend.faults["a"] = [BackendUnavailable("down")] * 9
    delivery = await relay.drain()
    assert (delivery.delivered, list(delivery.errors)) == (2, ["a"])
    assert [found.key for found in await outbox.pending("there")] == ["a"]


async def test_a_refused_message_is_put_aside_and_raised_to_its_sender_only(
    relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox
) -> None:
    await outbox.append([message("a", "start")])
    backend.faults["a"] = [BackendRejected("no")]
    assert await relay.send(message("a", "log")) == {"log": "done for a"}
    backend.faults["a"] = [BackendRejected("never")]
    with pytest.raises(BackendRejected, match="never"):
        await relay.send(message("a", "log"))
    assert await relay.send(message("a", "finish")) == {"log": "done for a", "finish": "done for a"}
    assert await outbox.counts("there") == {"pending": 0, "delivered": 2, "quarantined": 2}


async def test_refused_access_is_raised_and_the_message_waits(relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox) -> None:
    backend.faults["a"] = [AccessRefused("wrong password")]
    with pytest.raises(AccessRefused, match="wrong password"):
        await relay.send(message("a", "start"))
    assert await outbox.counts("there") == {"pending": 1, "delivered": 0, "quarantined": 0}
    assert (await relay.drain()).delivered == 1


async def test_an_open_circuit_costs_one_look_and_no_attempt(relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox) -> None:
    await outbox.append([message(key, "start") for key in "abcdef"])
    for key in "abcdef":
        backend.faults[key] = [CircuitOpen("held back")]
    delivery = await relay.drain()
    assert delivery.circuit_open
    assert [len(backend.faults[key]) for key in "abcdef"] == [0, 1, 1, 1, 1, 1]
    assert {found.attempts for found in await outbox.pending("there")} == {0}


async def test_what_was_delivered_but_not_marked_is_delivered_again(relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox) -> None:
    class Killed(BaseException):
        pass

    class Dying(type(outbox)):  # type: ignore[misc]  # the class of the fixture
        async def mark_delivered(self, message_id: int, result: Mapping[str, Any]) -> None:
            raise Killed

    dying = OutboxRelay(target="there", outbox=Dying(outbox._path), deliverer=backend, lock=relay.lock)
    with pytest.raises(Killed):
        await dying.send(message("a", "start"))
    assert (await relay.drain()).delivered == 1
    assert backend.kept == [("a", "start")] * 2


async def test_more_messages_than_one_page_are_drained(relay: OutboxRelay, backend: Backend, outbox: SqliteOutbox) -> None:
    await outbox.append([message(f"k{number % 7}", str(number)) for number in range(230)])
    assert (await relay.drain()).delivered == 230
    for key in range(7):
        operations = [int(operation) for name, operation in backend.kept if name == f"k{key}"]
        assert operations == sorted(operations)


async def test_a_lock_has_one_holder_and_is_free_when_the_holder_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, time\nfrom pathlib import Path\nfrom e2i.mlops.outbox_relay import FileLock\n"
        "async def hold():\n    async with FileLock(Path(sys.argv[1])).hold('x'):\n        print('held', flush=True)\n        input()\n"
        "asyncio.run(hold())"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:  # noqa: ASYNC220
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), FileLock(tmp_path).hold("x"):
                pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        began = time.perf_counter()
        async with FileLock(tmp_path).hold("x"):
            pass
        assert time.perf_counter() - began < 1
