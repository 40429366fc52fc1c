"""Following spans: each once, however it arrives."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from e2i.app.trace_tail import TraceTail
from span_doubles import SpansInMemory, failed, stored

T0 = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
T0_NS = int(T0.timestamp()) * 10**9


def span(number: int, *, begun_s: float, lasts_s: float, make=stored, **more):
    return make("step", number=number, started_ns=T0_NS + int(begun_s * 1e9), ms=lasts_s * 1000, **more)


async def followed(tail: TraceTail, records: SpansInMemory, arrivals, *, until_s: int) -> list[int]:
    """The numbers told, when each (second, span) of `arrivals` appears at its second and a look is taken each second."""
    waiting = sorted(arrivals, key=lambda each: each[0])
    told: list[int] = []
    for second in range(until_s + 1):
        while waiting and waiting[0][0] <= second:
            records.spans.append(waiting.pop(0)[1])
        told += [int(each.span.span_id, 16) for each in await tail.look(T0 + timedelta(seconds=second))]
    return told


async def test_spans_that_ended_before_are_not_told():
    records = SpansInMemory([span(1, begun_s=-5, lasts_s=1)])
    assert await followed(TraceTail(records, start=T0), records, [], until_s=30) == []


async def test_a_span_that_began_an_hour_before_and_ends_now_is_told_once():
    records = SpansInMemory()
    arrivals = [
        (20, span(1, begun_s=-3600, lasts_s=3619)),
        (20, span(2, begun_s=-80_000, lasts_s=80_019)),
        (20, span(3, begun_s=-20, lasts_s=39)),
    ]
    assert sorted(await followed(TraceTail(records, start=T0), records, arrivals, until_s=60)) == [1, 2, 3]


@pytest.mark.parametrize("seed", range(6))
async def test_spans_in_any_order_of_length_and_lateness_are_each_told_once(seed):
    chance = random.Random(seed)
    arrivals = []
    for number in range(1, 300):
        begun = chance.uniform(-100, 600)
        lasts = chance.choice([0.0, 0.01, 2, 30, 200]) * chance.random()
        if begun + lasts >= 0:
            late = chance.choice([0.0, 0.5, 5, 200])
            arrivals.append((begun + lasts + late, span(number, begun_s=begun, lasts_s=lasts)))
    records = SpansInMemory()
    told = await followed(TraceTail(records, start=T0), records, arrivals, until_s=1000)
    assert sorted(told) == sorted(int(each.span.span_id, 16) for _, each in arrivals)


async def test_more_spans_than_a_page_are_all_told_by_their_end():
    records = SpansInMemory([span(number, begun_s=1 + number / 1000, lasts_s=0.001) for number in range(1, 1800)])
    told = await followed(TraceTail(records, start=T0), records, [], until_s=3)
    assert told == list(range(1, 1800))


async def test_since_tells_what_was_before_however_long_ago():
    records = SpansInMemory(
        [span(1, begun_s=-30 * 3600, lasts_s=1), span(2, begun_s=-20 * 3600, lasts_s=1), span(3, begun_s=-1, lasts_s=1)]
    )
    tail = TraceTail(records, start=T0 - timedelta(hours=24))
    assert [int(each.span.span_id, 16) for each in await tail.look(T0)] == [2, 3]
    assert await tail.look(T0 + timedelta(seconds=1)) == []


async def test_filters_hold():
    records = SpansInMemory(
        [
            span(1, begun_s=1, lasts_s=1, attributes={"e2i.agent.name": "explainer"}),
            span(2, begun_s=1, lasts_s=1, attributes={"e2i.agent.name": "explainer"}, make=failed),
            span(3, begun_s=1, lasts_s=1, make=failed),
        ]
    )
    tail = TraceTail(records, start=T0, agent="explainer", status="error")
    assert await followed(tail, records, [], until_s=3) == [2]


async def test_what_was_told_is_forgotten_when_no_look_can_find_it_again():
    records = SpansInMemory([span(number, begun_s=1, lasts_s=0.1) for number in range(1, 50)])
    tail = TraceTail(records, start=T0)
    assert len(await tail.look(T0 + timedelta(seconds=3))) == 49
    assert await tail.look(T0 + timedelta(minutes=59)) == []
    assert await tail.look(T0 + timedelta(hours=2)) == []
    assert len(tail._told) == 0
    assert await tail.look(T0 + timedelta(hours=3)) == []
