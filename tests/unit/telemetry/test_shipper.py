"""The shipper against sinks that are down, slow, picky or put back in time; every test counts every span at the end."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from spool_world import Collector, Hands, World, settle

from contracts.memory_shipments import MemoryShipments
from e2i.errors import BackendRejected, BackendUnavailable, Conflict, E2IError, MigrationNeeded, StorageError
from e2i.telemetry.account import accounts, metrics_text, spool_bytes
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.layout import SpanClass
from e2i.telemetry.quarantine import Quarantine
from e2i.telemetry.shipper import Route, Shipper, run_shipper, shipper_pid
from e2i.telemetry.sink import Busy, Faulty, ForeignSink
from e2i.telemetry.sinks.postgres import PostgresSink

if TYPE_CHECKING:
    from pathlib import Path

    from e2i.domain.telemetry import SinkAccount


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "spool")


def refuse(what: str = "connection refused") -> None:
    raise BackendUnavailable(what, where="otlp")


def explained(account: SinkAccount, emitted: int) -> SinkAccount:
    assert account.unexplained == 0, account
    assert account.emitted == emitted, account
    return account


async def test_every_span_reaches_every_sink_once_and_the_spool_is_empty_afterwards(world: World) -> None:
    first, second = world.writer(), world.writer()
    world.emit(first, 1500)
    world.emit(second, 700, kind=SpanClass.ERROR)
    async with world.shipper() as shipper:
        await settle(world, shipper)
        world.emit(first, 10)
        await settle(world, shipper)
        first.close()
        second.close()
        await settle(world, shipper)
        shipper.tend()
        shipper.tend()
    assert len(world.table.rows) == len(world.collector.got) == len(world.collector.distinct) == 2210
    for name in ("postgres", "otlp"):
        account = explained(await world.account(name), 2210)
        assert (account.delivered, account.in_spool, account.lag_s) == (2210, 0, 0.0)
    assert spool_bytes(world.folder) == 0
    assert list((world.folder / "writers").iterdir()) == []


async def test_a_sink_dead_for_72_hours_delays_nobody_and_gets_everything_when_it_is_back(world: World) -> None:
    world.collector.fault = refuse
    async with world.shipper() as shipper:
        end = world.hands.ticks + 72 * 3600
        while world.hands.ticks < end:
            writer = world.writer()
            world.emit(writer, 40)
            writer.close()
            await settle(world, shipper, "postgres")
            assert len(world.table.rows) == world.emitted
            for _ in range(8):
                round_ = await shipper.step("otlp")
                world.hands.advance(round_.wait_s)
            world.hands.advance(1500)
            shipper.tend()
        assert shipper.delivery("otlp").health().breaker in ("open", "half_open")
        assert "connection refused" in str(shipper.delivery("otlp").last_error)
        waiting = explained(await world.account("otlp"), world.emitted)
        assert (waiting.delivered, waiting.in_spool) == (0, world.emitted)
        assert waiting.lag_s > 71 * 3600
        world.collector.fault = lambda: None
        world.hands.advance(600)
        await settle(world, shipper, "otlp")
        shipper.tend()
        shipper.tend()
    assert world.emitted > 5000
    assert len(world.collector.got) == len(world.collector.distinct) == world.emitted
    assert explained(await world.account("otlp"), world.emitted).delivered == world.emitted
    assert spool_bytes(world.folder) == 0


async def test_a_flapping_sink_gets_everything_and_no_record_is_taken_for_bad(world: World) -> None:
    chance = random.Random(7)

    def flap() -> None:
        if chance.random() < 0.6:
            raise chance.choice([BackendUnavailable("reset"), Busy("slow down"), Faulty("broke down"), BackendRejected("strange")])

    world.collector.fault = flap
    writer = world.writer()
    async with world.shipper() as shipper:
        for _ in range(20):
            world.emit(writer, 150)
            for _ in range(15):
                world.hands.advance((await shipper.step("otlp")).wait_s)
        world.collector.fault = lambda: None
        world.hands.advance(400)
        await settle(world, shipper, "otlp")
    account = explained(await world.account("otlp"), 3000)
    assert account.delivered + account.dropped.get("quarantined", 0) == 3000
    assert len(world.collector.distinct) >= 3000 - account.dropped.get("quarantined", 0)


@pytest.mark.parametrize("places", [[0], [1], [99], [100], [57, 58, 59], [0, 250, 499], list(range(200, 230))])
@pytest.mark.parametrize("error", [BackendRejected, Faulty])
async def test_bad_records_are_put_aside_with_the_reason_and_hold_nobody_up(
    world: World, places: list[int], error: type[Exception]
) -> None:
    world.collector.rejects = error
    spans = world.emit(world.writer(), 500)
    world.collector.poison = {spans[place].span_id for place in places}
    async with world.shipper() as shipper:
        await settle(world, shipper, "otlp")
        account = explained(await world.account("otlp"), 500)
        assert account.dropped == {"quarantined": len(places)}
        assert account.in_spool == 0
    assert world.collector.distinct == {span.key for span in spans if span.span_id not in world.collector.poison}
    lines = [json.loads(line) for line in (world.folder / "quarantine" / "otlp.jsonl").read_text().splitlines()]
    assert len(lines) == len(places)
    assert all("a bad record" in line["reason"] for line in lines)
    assert {json.loads(line["record"])[1] for line in lines} == world.collector.poison


async def test_a_row_that_the_database_refuses_is_put_aside_and_the_others_are_there_once(world: World) -> None:
    spans = world.emit(world.writer(), 900)
    world.table.poison = {spans[0].span_id, spans[450].span_id, spans[899].span_id}
    async with world.shipper() as shipper:
        await settle(world, shipper, "postgres")
    account = explained(await world.account("postgres"), 900)
    assert account.dropped == {"quarantined": 3}
    assert account.delivered == len(world.table.rows) == 897


async def test_a_lone_record_that_is_refused_is_put_aside_too(world: World) -> None:
    (bad,) = world.emit(world.writer(), 1)
    world.collector.poison = {bad.span_id}
    world.collector.rejects = BackendRejected
    async with world.shipper() as shipper:
        await settle(world, shipper, "otlp")
    assert explained(await world.account("otlp"), 1).dropped == {"quarantined": 1}


@pytest.mark.parametrize("error", [BackendRejected, Faulty])
async def test_a_sink_that_refuses_everything_is_taken_for_misconfigured_and_the_spool_is_kept_for_it(
    world: World, error: type[BackendRejected]
) -> None:
    def refuse_all() -> None:
        raise error("everything is wrong")

    world.collector.fault = refuse_all
    writer = world.writer()
    world.emit(writer, 1000)
    async with world.shipper() as shipper:
        for _ in range(300):
            world.hands.advance((await shipper.step("otlp")).wait_s)
        account = explained(await world.account("otlp"), 1000)
        assert account.dropped == {}
        assert account.in_spool == 1000
        assert "everything is wrong" in str(shipper.delivery("otlp").last_error)
        world.collector.fault = lambda: None
        world.hands.advance(400)
        await settle(world, shipper, "otlp")
    assert explained(await world.account("otlp"), 1000).delivered == 1000


async def test_a_sink_that_refuses_every_lone_record_loses_three_at_most(world: World) -> None:
    def refuse_all() -> None:
        raise BackendRejected("everything is wrong")

    world.collector.fault = refuse_all
    writer = world.writer()
    async with world.shipper() as shipper:
        for _ in range(20):
            world.emit(writer, 1)
            for _ in range(20):
                world.hands.advance((await shipper.step("otlp")).wait_s)
    account = explained(await world.account("otlp"), 20)
    assert account.dropped == {"quarantined": 3}
    assert account.in_spool == 17


class LoginFailed(Exception):
    """As psycopg raises it: there is no SQLSTATE when nobody was let in."""

    sqlstate = None


class DiskFull(Exception):
    """As psycopg raises it."""

    sqlstate = "53100"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MigrationNeeded("no such table"), None),
        (BackendRejected("password authentication failed"), LoginFailed()),
        (StorageError("could not extend file"), DiskFull()),
    ],
)
async def test_a_missing_table_a_wrong_password_or_a_full_disk_is_no_rows_fault(
    world: World, error: E2IError, cause: Exception | None
) -> None:
    def fail() -> None:
        raise error from cause

    world.emit(world.writer(), 300)
    async with world.shipper() as shipper:
        await shipper.step("postgres")
        world.emit(world.writer(), 10)
        world.table.before = fail
        for _ in range(30):
            world.hands.advance((await shipper.step("postgres")).wait_s)
        assert error.what in str(shipper.delivery("postgres").last_error)
        account = explained(await world.account("postgres", live=False), 310)
        assert (account.dropped, account.in_spool) == ({}, 110)
        world.table.before = lambda: None
        world.hands.advance(600)
        await settle(world, shipper, "postgres")
    assert len(world.table.rows) == 310


async def test_retry_after_is_honoured_and_the_back_off_grows_to_its_limit(world: World) -> None:
    def busy() -> None:
        error = Busy("429")
        error.retry_after_s = 17.0
        raise error

    world.emit(world.writer(), 10)
    world.collector.fault = busy
    async with world.shipper() as shipper:
        assert (await shipper.step("otlp")).wait_s == 17.0
        calls = world.collector.calls
        world.hands.advance(16.9)
        assert (await shipper.step("otlp")).wait_s == pytest.approx(0.1)
        assert world.collector.calls == calls
    world.collector.fault = refuse
    waits = []
    async with world.shipper() as shipper:
        for _ in range(40):
            round_ = await shipper.step("otlp")
            waits.append(round_.wait_s)
            world.hands.advance(round_.wait_s)
    assert waits[:4] == pytest.approx([0.75, 1.5, 3.0, 6.0])
    assert max(waits) <= 30.0


async def test_an_error_that_is_over_is_not_told_any_more(world: World) -> None:
    world.table.before = refuse
    async with world.shipper() as shipper:
        await shipper.step("postgres")
        assert "connection refused" in str(shipper.delivery("postgres").last_error)
        world.table.before = lambda: None
        world.hands.advance(5)
        await shipper.step("postgres")
        assert shipper.delivery("postgres").last_error is None


@pytest.mark.parametrize(("error", "spans"), [(BackendRejected, 2), (BackendRejected, 7), (Faulty, 1), (Faulty, 2), (Faulty, 7)])
async def test_a_sink_that_gets_well_at_any_moment_puts_nothing_aside(tmp_path: Path, spans: int, error: type[BackendRejected]) -> None:
    """The moment between the last refusal of one record and the first time that another is taken is the delicate one."""
    for calls in range(1, 26):
        world = World(tmp_path / str(calls))

        def sick(world: World = world, calls: int = calls) -> None:
            if world.collector.calls <= calls:
                raise error("sick")

        world.collector.fault = sick
        world.emit(world.writer(), spans)
        async with world.shipper() as shipper:
            await settle(world, shipper, "otlp")
            world.hands.advance(300)
            await settle(world, shipper, "otlp")
        account = explained(await world.account("otlp"), spans)
        assert (account.dropped, account.delivered) == ({}, spans)


async def test_an_open_breaker_spares_the_sink_and_a_probe_finds_it_again(world: World) -> None:
    world.emit(world.writer(), 50)
    world.collector.fault = refuse
    async with world.shipper() as shipper:
        while shipper.delivery("otlp").health().breaker != "open":
            world.hands.advance((await shipper.step("otlp")).wait_s)
        assert world.collector.calls == 5
        world.collector.fault = lambda: None
        await settle(world, shipper, "otlp")
        assert world.collector.calls == 6
        assert shipper.delivery("otlp").last_error is None
    assert explained(await world.account("otlp"), 50).delivered == 50


class Killed(BaseException):
    """The process ends here; nothing behind this line happens."""


class MortalCursor(CursorFile):
    """Dies before, or right after, its Nth write."""

    def __init__(self, folder: Path, sink: str, *, at: int, is_after: bool) -> None:
        super().__init__(folder, sink)
        self._left, self._is_after = at, is_after

    async def write(self, state: object) -> None:
        self._left -= 1
        if not self._left and not self._is_after:
            raise Killed
        await super().write(state)  # type: ignore[arg-type]
        if not self._left:
            raise Killed


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_death_between_sending_and_saving_repeats_a_batch_abroad_and_none_in_the_table(world: World, at: int, is_after: bool) -> None:
    world.emit(world.writer(), 450)
    deaths = 0
    for _ in range(3):
        sinks = [
            PostgresSink(world.table, MortalCursor(world.folder, "postgres", at=at, is_after=is_after), batch_size=100),
            ForeignSink(world.collector, MortalCursor(world.folder, "otlp", at=at, is_after=is_after)),
        ]
        async with world.shipper(sinks) as shipper:
            for name in ("postgres", "otlp"):
                try:
                    await settle(world, shipper, name)
                except Killed:
                    deaths += 1
        for name in ("postgres", "otlp"):
            explained(await world.account(name), 450)
            explained(await world.account(name, live=False), 450)
    assert deaths == 6 if at * 3 <= 5 else deaths > 1
    async with world.shipper() as shipper:
        await settle(world, shipper)
    assert len(world.table.rows) == 450
    assert explained(await world.account("postgres"), 450).delivered == 450
    assert len(world.collector.distinct) == 450
    most = max(Counter(span.key for span in world.collector.got).values())
    assert most == 1 if is_after else most > 1


async def test_a_commit_whose_answer_was_lost_counts_once(world: World) -> None:
    lost = iter([True, False, True, True] + [False] * 1000)

    def lose_the_answer() -> None:
        if next(lost):
            raise BackendUnavailable("the connection broke after the commit", where="postgres")

    writer = world.writer()
    world.emit(writer, 450)
    world.table.after = lose_the_answer
    async with world.shipper() as shipper:
        for _ in range(10):
            world.hands.advance((await shipper.step("postgres")).wait_s)
            world.emit(writer, 5)
        await settle(world, shipper, "postgres")
    account = explained(await world.account("postgres"), world.emitted)
    assert account.delivered == len(world.table.rows) == world.emitted


async def test_spans_outside_the_sample_wait_for_an_error_in_their_trace(world: World) -> None:
    writer = world.writer()
    world.emit(writer, 60, kind=SpanClass.MAYBE, trace_id="a" * 32)
    world.emit(writer, 40, kind=SpanClass.MAYBE, trace_id="b" * 32)
    world.emit(writer, 5, kind=SpanClass.KEPT, trace_id="c" * 32)
    async with world.shipper() as shipper:
        await settle(world, shipper)
        assert len(world.table.rows) == 5
        assert explained(await world.account("postgres"), 105).in_spool == 100
        world.hands.advance(100)
        world.emit(writer, 1, kind=SpanClass.ERROR, trace_id="b" * 32)
        writer.note_kept("b" * 32)
        await settle(world, shipper)
        assert len(world.table.rows) == 6
        world.hands.advance(51)
        await settle(world, shipper)
        late = world.emit(writer, 3, kind=SpanClass.MAYBE, trace_id="b" * 32)
        world.hands.advance(151)
        await settle(world, shipper)
    for name in ("postgres", "otlp"):
        account = explained(await world.account(name), 109)
        assert (account.delivered, account.sampled_out, account.in_spool, account.dropped) == (49, 60, 0, {})
    assert all(span.key in world.table.rows for span in late)
    assert world.collector.distinct == set(world.table.rows)
    assert {span.trace_id for span in world.table.left_out} == {"a" * 32}
    assert len(world.table.left_out) == 60


@pytest.mark.parametrize("kept", [0, 2, 250])
async def test_what_sampling_leaves_out_is_counted_once_whatever_is_refused_or_lost(world: World, kept: int) -> None:
    lost = iter([True, False, True, True] + [False] * 10_000)

    def lose_the_answer() -> None:
        if next(lost):
            raise BackendUnavailable("the connection broke after the commit", where="postgres")

    writer = world.writer()
    world.table.after = lose_the_answer
    for _ in range(3):
        world.emit(writer, 100, kind=SpanClass.MAYBE)
        found = world.emit(writer, kept)
        world.table.poison |= {span.span_id for span in found[:1]}
    world.hands.advance(151)
    async with world.shipper() as shipper:
        await settle(world, shipper, "postgres")
    account = explained(await world.account("postgres"), world.emitted)
    assert (account.sampled_out, account.in_spool) == (300, 0)
    assert len(world.table.left_out) == len({span.key for span in world.table.left_out}) == 300
    assert account.delivered == len(world.table.rows)


@pytest.mark.parametrize("jump", [-86_400.0, -30.0, 86_400.0, 3600.0])
async def test_a_wall_clock_that_jumps_neither_decides_too_early_nor_never(world: World, jump: float) -> None:
    writer = world.writer()
    world.emit(writer, 10, kind=SpanClass.MAYBE, trace_id="a" * 32)
    async with world.shipper() as shipper:
        await settle(world, shipper, "postgres")
        world.hands.advance(20)
        await shipper.step("postgres")
        world.hands.jump(jump)
        for _ in range(60):  # the error comes a minute later: it must still find the others
            await shipper.step("postgres")
            world.hands.advance(1)
        writer.note_kept("a" * 32)
        world.emit(writer, 10, kind=SpanClass.MAYBE, trace_id="b" * 32)
        for _ in range(400):
            await shipper.step("postgres")
            world.hands.advance(1)
    account = explained(await world.account("postgres"), 20)
    assert (account.delivered, account.sampled_out) == (10, 10)
    assert account.lag_s == 0


async def test_a_backlog_of_one_process_does_not_keep_the_spans_of_another_waiting(world: World) -> None:
    busy, quiet = world.writer(segment_bytes=1 << 20), world.writer()
    world.emit(busy, 5000)
    (urgent,) = world.emit(quiet, 1)
    async with world.shipper() as shipper:
        for _ in range(3):
            await shipper.step("postgres")
        assert urgent.key in world.table.rows
        assert len(world.table.rows) <= 600


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 99}', b"\x00" * 4000])
async def test_a_damaged_cursor_file_repeats_spans_and_loses_none(world: World, damage: bytes) -> None:
    writer = world.writer(segment_bytes=65_536)
    world.emit(writer, 2000)
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
    (world.folder / "sinks" / "otlp.json").write_bytes(damage)
    world.emit(writer, 100)
    assert (await world.account("otlp")).unexplained == 0
    async with world.shipper() as shipper:
        await settle(world, shipper)
    assert len(world.collector.distinct) == 2100
    assert (await world.account("otlp")).unexplained == 0
    assert (world.folder / "sinks" / "otlp.corrupt").exists() == (b"format" not in damage)  # that one is whole, and of another spool
    assert explained(await world.account("postgres"), 2100).delivered == 2100


async def test_a_damaged_ledger_stops_nothing(world: World) -> None:
    writer = world.writer()
    world.emit(writer, 2000)
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
        assert (world.folder / "ledger.json").exists()
    (world.folder / "ledger.json").write_bytes(b"\xff\xfe")
    world.emit(writer, 100)
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
    for name in ("postgres", "otlp"):
        assert explained(await world.account(name), 2100).delivered == 2100


async def test_a_new_sink_on_an_old_spool_begins_with_what_is_there(world: World) -> None:
    writer = world.writer(segment_bytes=65_536)
    world.emit(writer, 3000)
    async with world.shipper(world.sinks()[:1]) as shipper:
        await settle(world, shipper)
        shipper.tend()
    world.emit(writer, 50)
    async with world.shipper() as shipper:
        await settle(world, shipper)
    account = await world.account("otlp")
    assert account.unexplained == 0
    assert account.dropped == {}
    assert 50 <= account.delivered == account.emitted == len(world.collector.distinct) < 1000
    assert explained(await world.account("postgres"), 3050).delivered == 3050


async def test_a_sink_that_was_removed_keeps_no_segment_and_may_come_back(world: World) -> None:
    writer = world.writer(segment_bytes=65_536)
    world.collector.fault = refuse
    async with world.shipper() as shipper:
        world.emit(writer, 3000)
        await settle(world, shipper, "postgres")
        await shipper.step("otlp")
        shipper.tend()
        before = spool_bytes(world.folder)
    async with world.shipper(world.sinks()[:1]) as shipper:
        await settle(world, shipper)
        shipper.tend()
    assert spool_bytes(world.folder) < before / 4
    world.collector.fault = lambda: None
    world.emit(writer, 50)
    world.hands.advance(600)
    async with world.shipper() as shipper:
        await settle(world, shipper)
    account = await world.account("otlp")
    assert (account.unexplained, account.dropped, account.in_spool) == (0, {}, 0)
    assert explained(await world.account("postgres"), 3050).delivered == 3050


async def test_what_a_restored_database_lost_is_counted_and_what_the_spool_still_has_comes_again(world: World) -> None:
    old, writer = world.writer(), world.writer(segment_bytes=65_536)
    world.emit(old, 300)
    world.emit(writer, 200)
    async with world.shipper() as shipper:
        await settle(world, shipper)
    backup = world.table.backup()
    world.emit(old, 100)
    world.emit(writer, 3000)
    young = world.writer()
    world.emit(young, 70)
    old.close()
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
        shipper.tend()
    world.table = backup
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
    account = explained(await world.account("postgres"), 3670)
    assert account.in_spool == 0
    assert account.delivered == len(world.table.rows)
    assert account.dropped == {"restored": 3670 - len(world.table.rows)}
    assert 500 < len(world.table.rows) < 3670
    world.emit(writer, 30)
    async with world.shipper() as shipper:
        await settle(world, shipper)
    assert explained(await world.account("postgres"), 3700).delivered == len(world.table.rows)
    assert explained(await world.account("otlp"), 3700).delivered == 3700


async def test_a_database_that_is_restored_under_a_running_shipper_is_noticed_at_the_next_contact(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 20)
    async with world.shipper() as shipper:
        world.emit(writer, 300)
        await settle(world, shipper, "postgres")
        backup = world.table.backup()
        world.emit(writer, 400)
        await settle(world, shipper, "postgres")
        world.table.before = refuse
        world.emit(writer, 1)
        await shipper.step("postgres")
        world.table.rows, world.table.states, world.table.before = backup.rows, backup.states, lambda: None
        world.hands.advance(600)
        await settle(world, shipper, "postgres")
    assert len(world.table.rows) == 701
    assert explained(await world.account("postgres"), 701).delivered == 701


async def test_another_database_begins_with_what_the_spool_holds(world: World) -> None:
    writer = world.writer()
    world.emit(writer, 100)
    async with world.shipper() as shipper:
        await settle(world, shipper)
    world.table = MemoryShipments()
    async with world.shipper() as shipper:
        await settle(world, shipper)
    assert explained(await world.account("postgres"), 100).delivered == len(world.table.rows) == 100


async def test_a_second_shipper_says_who_was_first_and_leaves(world: World) -> None:
    async with world.shipper():
        assert shipper_pid(world.folder) is not None
        with pytest.raises(Conflict, match=r"process \d+ ships this spool already"):
            async with world.shipper():
                pass
    assert shipper_pid(world.folder) is None
    async with world.shipper():
        pass


async def test_frames_that_are_no_spans_are_put_aside_and_counted(world: World) -> None:
    writer = world.writer()
    world.emit(writer, 10)
    for payload in (b"[1,2,3]", b"{}", b"not json at all"):
        assert writer.write(payload, SpanClass.KEPT)
    world.emit(writer, 10)
    async with world.shipper() as shipper:
        await settle(world, shipper)
    for name in ("postgres", "otlp"):
        account = explained(await world.account(name), 23)
        assert (account.delivered, account.dropped) == (20, {"quarantined": 3})
    assert len((world.folder / "quarantine" / "postgres.jsonl").read_text().splitlines()) == 3


async def test_damaged_bytes_in_a_segment_are_counted_and_the_rest_arrives(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 20)
    world.emit(writer, 500)
    (segment,) = (world.folder / "segments").glob("*.seg")
    data = bytearray(segment.read_bytes())
    for place in range(5000, 5300):
        data[place] ^= 0x55
    segment.write_bytes(bytes(data))
    writer.close()
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
    for name in ("postgres", "otlp"):
        account = explained(await world.account(name), 500)
        assert 1 <= account.dropped["corrupt"] <= 4
        assert account.delivered == 500 - account.dropped["corrupt"]
    assert len(world.table.rows) == len(world.collector.distinct)


async def test_a_segment_that_cannot_be_read_is_told_and_holds_up_only_itself(world: World) -> None:
    first, second = world.writer(), world.writer()
    world.emit(first, 20)
    (segment,) = (world.folder / "segments").glob("*.seg")
    aside = segment.rename(segment.with_suffix(".aside"))
    segment.mkdir()
    spans = world.emit(second, 30)
    async with world.shipper() as shipper:
        for _ in range(20):
            world.hands.advance((await shipper.step("postgres")).wait_s)
        assert {span.key for span in spans} == set(world.table.rows)
        assert "cannot be read" in str(shipper.delivery("postgres").last_error)
        assert explained(await world.account("postgres"), 50).in_spool == 20
        segment.rmdir()
        aside.rename(segment)
        world.hands.advance(5)
        await settle(world, shipper, "postgres")
        assert shipper.delivery("postgres").last_error is None
    assert explained(await world.account("postgres"), 50).delivered == 50


async def test_when_the_disk_budget_is_full_only_the_sink_that_lags_loses_and_errors_go_last(world: World) -> None:
    world.settings = replace(world.settings, max_bytes=300_000)
    world.collector.fault = refuse
    writer = world.writer(segment_bytes=65_536)
    async with world.shipper() as shipper:
        errors = world.emit(writer, 100, kind=SpanClass.ERROR)
        for _ in range(20):
            world.emit(writer, 400)
            await settle(world, shipper, "postgres")
            world.hands.advance((await shipper.step("otlp")).wait_s)
            shipper.tend()
        assert spool_bytes(world.folder) <= 300_000 + 2 * 65_536
        meanwhile = explained(await world.account("otlp"), 8100)
        assert meanwhile.dropped["disk_budget"] > 0
        world.collector.fault = lambda: None
        world.hands.advance(600)
        await settle(world, shipper)
        shipper.tend()
    lagged = explained(await world.account("otlp"), 8100)
    assert lagged.dropped["disk_budget"] == 8100 - lagged.delivered == meanwhile.dropped["disk_budget"]
    assert lagged.delivered == len(world.collector.distinct)
    assert {span.key for span in errors} <= world.collector.distinct
    assert explained(await world.account("postgres"), 8100).dropped == {}
    assert len(world.table.rows) == 8100


async def test_losses_of_writers_stay_in_the_account_when_their_counters_are_deleted(world: World) -> None:
    writer, silent = world.writer(), world.writer()
    world.emit(writer, 10)
    for _ in range(3):
        writer.count_drop("not_serialisable")
    silent.count_drop("write_failed")
    async with world.shipper() as shipper:
        await settle(world, shipper)
        for name in ("postgres", "otlp"):
            assert explained(await world.account(name), 14).dropped == {"not_serialisable": 3, "write_failed": 1}
        writer.close()
        silent.close()
        await settle(world, shipper)
        for _ in range(3):
            shipper.tend()
            for name in ("postgres", "otlp"):
                assert explained(await world.account(name), 14).dropped == {"not_serialisable": 3, "write_failed": 1}
    assert list((world.folder / "writers").iterdir()) == []


def test_the_quarantine_file_is_bounded(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, "opik", limit=2000)
    for number in range(100):
        quarantine.add(b'["x"]', f"reason {number}")
    files = sorted((tmp_path / "quarantine").iterdir())
    assert [path.name for path in files] == ["opik.jsonl", "opik.old.jsonl"]
    assert all(path.stat().st_size <= 2000 for path in files)
    assert "reason 99" in files[0].read_text()


async def test_the_account_can_be_asked_without_a_shipper_and_without_a_spool(world: World) -> None:
    assert await accounts(world.folder) == []
    (none,) = await accounts(world.folder, ["opik"])
    assert (none.emitted, none.unexplained, none.lag_s) == (0, 0, 0.0)
    world.emit(world.writer(), 7)
    world.hands.advance(12)
    account = explained(await world.account("opik"), 7)
    assert (account.in_spool, account.breaker, account.last_error) == (7, "closed", None)
    assert account.lag_s == pytest.approx(12)


async def test_another_process_sees_the_breaker_and_the_last_error(world: World) -> None:
    world.collector.fault = refuse
    world.emit(world.writer(), 5)
    async with world.shipper() as shipper:
        while shipper.delivery("otlp").health().breaker != "open":
            world.hands.advance((await shipper.step("otlp")).wait_s)
        shipper.tend()
        account = await world.account("otlp")
    assert account.breaker == "open"
    assert "connection refused" in str(account.last_error)
    assert (await world.account("postgres")).breaker == "closed"


async def test_metrics_are_in_prometheus_text_format(world: World) -> None:
    world.emit(world.writer(), 3)
    found = [replace(await world.account("postgres"), sink='post"gres', breaker="open", dropped={"disk_budget": 2}, emitted=5, lag_s=1.5)]
    text = metrics_text(found, bytes_on_disk=spool_bytes(world.folder))
    lines = text.splitlines()
    assert 'e2i_spool_emitted_total{sink="post\\"gres"} 5' in lines
    assert 'e2i_spool_in_spool{sink="post\\"gres"} 3' in lines
    assert 'e2i_spool_dropped_total{sink="post\\"gres",reason="disk_budget"} 2' in lines
    assert 'e2i_spool_unexplained{sink="post\\"gres"} 0' in lines
    assert 'e2i_spool_lag_seconds{sink="post\\"gres"} 1.5' in lines
    assert 'e2i_circuit_state{connector="post\\"gres"} 2' in lines
    assert f"e2i_spool_bytes {spool_bytes(world.folder)}" in lines
    names = [line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")]
    assert all(f"# TYPE {name} " in text for name in names)
    assert text.endswith("\n")


async def test_a_shipper_that_is_told_to_stop_delivers_what_is_there_and_leaves_a_hanging_sink_behind(tmp_path: Path) -> None:
    world = World(tmp_path / "spool", hands=Hands(), settings=replace(World(tmp_path).settings, drain_s=0.4))

    class Hole(Collector):
        async def send(self, spans: object) -> int:
            await asyncio.Event().wait()
            return 0

    world.collector = Hole()
    writer = world.writer()
    routes = [Route(sink=sink, breaker=world._breaker(sink.name)) for sink in world.sinks()]
    stop = asyncio.Event()
    running = asyncio.create_task(run_shipper(world.folder, routes, world.settings, stop))
    world.emit(writer, 50)
    await asyncio.sleep(0.3)
    assert len(world.table.rows) == 50
    world.emit(writer, 50)
    stop.set()
    await asyncio.wait_for(running, 2)
    assert len(world.table.rows) == 100
    assert explained(await world.account("otlp"), 100).in_spool == 100


async def test_a_span_is_in_the_table_well_under_a_second_after_its_end(tmp_path: Path) -> None:
    world = World(tmp_path / "spool")
    writer = world.writer()
    stop = asyncio.Event()
    routes = [Route(sink=sink, breaker=world._breaker(sink.name)) for sink in world.sinks()]
    running = asyncio.create_task(run_shipper(world.folder, routes, world.settings, stop))
    await asyncio.sleep(0.2)
    waits = []
    for _ in range(4):
        (span,) = world.emit(writer, 1)
        began = asyncio.get_running_loop().time()
        while span.key not in world.table.rows:  # noqa: ASYNC110 - as a user who looks again
            await asyncio.sleep(0.01)
        waits.append(asyncio.get_running_loop().time() - began)
    stop.set()
    await running
    assert max(waits) < 0.9, waits
    assert waits[0] < 0.3, waits


async def test_a_folder_that_is_emptied_by_hand_under_a_running_shipper_is_begun_anew(tmp_path: Path) -> None:
    import shutil

    world = World(tmp_path / "spool")
    first = world.writer()
    world.emit(first, 20)
    stop = asyncio.Event()
    routes = [Route(sink=sink, breaker=world._breaker(sink.name)) for sink in world.sinks()]
    running = asyncio.create_task(run_shipper(world.folder, routes, world.settings, stop))
    await asyncio.sleep(0.3)
    shutil.rmtree(world.folder)
    await asyncio.sleep(0.8)
    second = world.writer()
    late = world.emit(second, 30)
    await asyncio.sleep(1.5)
    stop.set()
    await running
    assert {span.key for span in late} <= set(world.table.rows)
    for name in ("postgres", "otlp"):
        assert (await world.account(name)).unexplained == 0


class Campaign:
    """Everything that can happen to a spool, in an order that the seed decides."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(folder)
        self.world.collector.rejects = BackendRejected
        self.world.collector.fault = self.world.table.before = self.world.table.after = self.fault
        self.writers = [self.world.writer(segment_bytes=65_536)]
        self.bad: set[str] = set()
        self.shipper: Shipper | None = None

    def fault(self) -> None:
        if self.chance.random() < 0.25:
            raise self.chance.choice([BackendUnavailable("away"), Busy("429"), Faulty("500")])

    def emit(self) -> None:
        kind = self.chance.choice(list(SpanClass))
        spans = self.world.emit(self.chance.choice(self.writers), self.chance.randrange(1, 120), kind=kind)
        if self.chance.random() < 0.1:
            self.bad |= {self.chance.choice(spans).span_id}
            self.world.collector.poison = self.world.table.poison = self.bad
        if kind is SpanClass.ERROR:
            self.writers[0].note_kept(spans[0].trace_id)

    async def ship(self) -> None:
        self.shipper = self.shipper or await self.world.shipper().__aenter__()
        round_ = await self.shipper.step(self.chance.choice(["postgres", "otlp"]))
        self.world.hands.advance(self.chance.choice([round_.wait_s, 0.1, 40.0]))

    async def tend(self) -> None:
        if self.shipper is not None:
            self.shipper.tend()

    async def leave(self) -> None:
        if self.shipper is not None:
            await self.shipper.__aexit__(None, None, None)
        self.shipper = None

    async def renew_a_writer(self) -> None:
        self.writers.append(self.world.writer(segment_bytes=65_536))
        if len(self.writers) > 3:
            self.writers.pop(0).close()

    async def happen(self) -> None:
        what = self.chance.choices([self.ship, self.tend, self.renew_a_writer, self.leave, None], [40, 10, 7, 5, 35])[0]
        if what is None:
            self.emit()
        else:
            await what()

    async def end(self) -> None:
        """Faults are over, writers gone, everything is delivered."""
        self.world.collector.fault = self.world.table.before = self.world.table.after = lambda: None
        for writer in self.writers:
            writer.close()
        self.world.hands.advance(1000)
        self.shipper = self.shipper or await self.world.shipper().__aenter__()
        for _ in range(3):
            await settle(self.world, self.shipper)
            self.shipper.tend()
        await self.leave()


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_unexplained_whatever_happens_in_whatever_order(tmp_path: Path, seed: int) -> None:
    campaign = Campaign(tmp_path / "spool", seed)
    world = campaign.world
    for _ in range(120):
        await campaign.happen()
        for name in ("postgres", "otlp"):
            explained(await world.account(name, live=False), world.emitted)
    await campaign.end()
    for name in ("postgres", "otlp"):
        account = explained(await world.account(name), world.emitted)
        assert account.in_spool == 0
        assert set(account.dropped) <= {"quarantined"}
        assert account.dropped.get("quarantined", 0) <= len(campaign.bad)
    assert (await world.account("postgres")).delivered == len(world.table.rows)
    assert (await world.account("otlp")).delivered == len(world.collector.distinct)
    assert spool_bytes(world.folder) == 0
