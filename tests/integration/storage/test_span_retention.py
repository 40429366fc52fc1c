"""Old days of spans, on real servers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta

import pytest

from e2i.errors import BackendUnavailable, ConfigError, Conflict, NotFound
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository, SpanRetentionRepository
from span_samples import DAY, a_span, hour_ago


def day(ago: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=ago)


@pytest.fixture
def retention(database: Database) -> SpanRetentionRepository:
    return SpanRetentionRepository(database)


@pytest.fixture
async def filled(database: Database) -> ObservabilitySpanRepository:
    """Three spans on each of the last days but today, and two strays of long ago."""
    repository = ObservabilitySpanRepository(database)
    noon = hour_ago(0) // DAY * DAY + DAY // 2
    await repository.insert_spans_batch([a_span(n, started_ns=noon - (1 + n // 3) * DAY + n % 3 * 999) for n in range(12)])
    await repository.insert_spans_batch([a_span(100 + n, started_ns=noon - 600 * DAY + n) for n in range(2)])
    return repository


@pytest.mark.usefixtures("filled")
async def test_days_are_listed_with_size_and_holds_and_read_by_start(retention: SpanRetentionRepository) -> None:
    await retention.hold("case 7", first=day(3), last=day(2), reason="litigation", actor="legal")
    found = await retention.partitions()
    assert [(part.day, part.spans, part.held_by) for part in found] == [
        (day(4), 3, ()), (day(3), 3, ("case 7",)), (day(2), 3, ("case 7",)), (day(1), 3, ()),
    ]  # fmt: skip
    assert found[0].name == f"ml_observability_spans_{day(4):%Y%m%d}"
    assert all(part.bytes > 8192 for part in found)
    batches = [batch async for batch in retention.read_day(day(2), batch=2)]
    assert [[row.span.attributes["number"] for row in batch] for batch in batches] == [[3, 4], [5]]
    assert [batch async for batch in retention.read_day(day(50))] == []


async def test_a_dropped_day_takes_its_spans_and_leaves_the_rollups(
    retention: SpanRetentionRepository, filled: ObservabilitySpanRepository
) -> None:
    before = await filled.get_latency_stats("7d")
    await retention.drop_day(day(4))
    assert [part.day for part in await retention.partitions()] == [day(3), day(2), day(1)]
    assert await filled.get_latency_stats("7d") == before
    with pytest.raises(NotFound, match="no spans of"):
        await retention.drop_day(day(4))
    assert await filled.insert_span(a_span(9, started_ns=hour_ago(24 * 4))) is True, "a late span makes the day again"


@pytest.mark.usefixtures("filled")
async def test_a_legal_hold_keeps_its_days_until_it_is_released(retention: SpanRetentionRepository) -> None:
    await retention.hold("case 7", first=day(3), last=day(2), reason="litigation", actor="legal")
    await retention.hold("one day", first=day(3), last=day(3), reason="audit", actor="legal")
    with pytest.raises(Conflict, match=r"under legal hold: case 7, one day.*Release"):
        await retention.drop_day(day(3))
    with pytest.raises(Conflict, match="case 7 already"):
        await retention.hold("case 7", first=day(9), last=day(9), reason="again", actor="legal")
    with pytest.raises(ConfigError, match="is no legal hold"):
        await retention.hold("backwards", first=day(1), last=day(2), reason="x", actor="legal")
    await retention.drop_day(day(1))
    await retention.release("case 7")
    await retention.drop_day(day(2))
    with pytest.raises(Conflict, match="one day"):
        await retention.drop_day(day(3))
    with pytest.raises(NotFound, match="no legal hold case 7"):
        await retention.release("case 7")


async def test_strays_are_listed_read_held_and_dropped_like_days(
    retention: SpanRetentionRepository, filled: ObservabilitySpanRepository
) -> None:
    (stray,) = await retention.strays()
    assert (stray.day, stray.spans, stray.name) == (day(600), 2, "ml_observability_spans_stray")
    assert stray.bytes > 200
    assert [len(batch) async for batch in retention.read_day(day(600))] == [2]
    await retention.hold("old", first=day(700), last=day(500), reason="audit", actor="legal")
    assert (await retention.strays())[0].held_by == ("old",)
    with pytest.raises(Conflict, match="old"):
        await retention.drop_day(day(600))
    await retention.release("old")
    await retention.drop_day(day(600))
    assert await retention.strays() == []
    assert len(await filled.get_trace(a_span(100).trace_id)) == 0


async def test_a_day_that_was_ahead_when_its_spans_came_ages_from_their_receipt(
    retention: SpanRetentionRepository, database: Database
) -> None:
    repository = ObservabilitySpanRepository(database)
    noon = hour_ago(0) // DAY * DAY + DAY // 2
    dates = {1: 1, 2: 2, 3: 3, 4: 40_000, 5: -600}
    await repository.insert_spans_batch([a_span(number, started_ns=noon + ahead * DAY) for number, ahead in dates.items()])
    by_day = {part.day: part.counts_from for part in (*await retention.partitions(), *await retention.strays())}
    assert by_day == {day(-1): day(-1), day(-2): day(-2), day(-3): day(0), day(-40_000): day(0), day(600): day(600)}
    await database.rows("update telemetry_future_days set received_on = received_on - 31 returning day")
    (far,) = [part for part in await retention.strays() if part.day == day(-40_000)]
    assert far.counts_from == day(31)
    await repository.insert_span(a_span(6, started_ns=noon + 40_000 * DAY))
    assert [part.counts_from for part in await retention.strays() if part.day == day(-40_000)] == [day(0)], "one more came today"
    await retention.drop_day(day(-40_000))
    await retention.drop_day(day(-3))
    assert [part.day for part in await retention.strays()] == [day(600)]
    assert await database.rows("select * from telemetry_future_days") == []


async def test_a_late_span_keeps_its_day_from_being_dropped_behind_the_archive(
    retention: SpanRetentionRepository, filled: ObservabilitySpanRepository
) -> None:
    """Day 1 has three spans, the stray day two."""
    await filled.insert_span(a_span(50, started_ns=hour_ago(0) // DAY * DAY - DAY // 2 + 5))
    with pytest.raises(Conflict, match=r"has 4 spans and 3 are safe.*Run again"):
        await retention.drop_day(day(1), most=3)
    assert day(1) in [part.day for part in await retention.partitions()]
    with pytest.raises(Conflict, match="has 2 spans and 1 are safe"):
        await retention.drop_day(day(600), most=1)
    await retention.drop_day(day(1), most=4)
    await retention.drop_day(day(600), most=2)
    assert day(1) not in [part.day for part in await retention.partitions()]


async def test_a_span_that_is_being_written_when_its_day_goes_is_waited_for(
    database: Database, retention: SpanRetentionRepository, filled: ObservabilitySpanRepository
) -> None:
    (before,) = [part.spans for part in await retention.partitions() if part.day == day(1)]
    await filled.insert_span(a_span(50, started_ns=hour_ago(0) // DAY * DAY - DAY // 2 + 5))
    async with database.transaction() as connection:
        await connection.execute("update ml_observability_spans set name = 'late' where name = 'late'")  # a writer's lock
        drop = asyncio.create_task(retention.drop_day(day(1), most=before))
        await asyncio.sleep(0.2)
        assert not drop.done()
    with pytest.raises(Conflict, match="safe"):
        await drop


async def test_a_day_that_somebody_reads_is_not_dropped_and_writers_do_not_wait_for_long(
    retention: SpanRetentionRepository, filled: ObservabilitySpanRepository
) -> None:
    async with aclosing(retention.read_day(day(1), batch=1)) as batches:
        await anext(batches)
        drop = asyncio.create_task(retention.drop_day(day(1)))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(8):
            assert await filled.insert_span(a_span(50)) is True
        with pytest.raises(BackendUnavailable):
            await drop
    assert day(1) in [part.day for part in await retention.partitions()]
    await retention.drop_day(day(1))


@pytest.mark.usefixtures("filled")
async def test_a_hold_and_a_drop_at_once_never_lose_a_held_day(database: Database, retention: SpanRetentionRepository) -> None:
    for ago in (4, 3, 2):
        results = await asyncio.gather(
            retention.drop_day(day(ago)),
            SpanRetentionRepository(database).hold(f"hold {ago}", first=day(ago), last=day(ago), reason="x", actor="y"),
            return_exceptions=True,
        )
        is_there = day(ago) in [part.day for part in await retention.partitions()]
        assert is_there is isinstance(results[0], Conflict)
