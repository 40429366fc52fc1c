"""Finding a trace by what a person has in hand, and reading a moment."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from e2i.app.trace_lookup import check_period, find_trace, moment, recent_traces
from e2i.errors import ConfigError, Conflict, NotFound
from span_doubles import DAY_NS, START_NS, TRACE, SpansInMemory, failed, stored, study_trace

OTHER = "4bf92f00000000000000000000000001"
OPIK = "0198a2f3c4d57e6f8a9b0c1d2e3f4a5b"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def records() -> SpansInMemory:
    older = stored("ask", number=1, trace_id=OTHER, started_ns=START_NS - DAY_NS)
    opik = stored("their agent", trace_id=OPIK, span_id=OPIK, started_ns=START_NS - 2 * DAY_NS)
    return SpansInMemory([*study_trace(), older, opik])


@pytest.mark.parametrize("wanted", [TRACE, TRACE.upper(), TRACE[:8], f" {TRACE[:6]}3 ", "run_20261121T100000_4f2a1c", "last", "LAST"])
async def test_a_run_is_found_by_its_id_its_trace_and_the_beginning_of_it(wanted):
    assert {each.span.trace_id for each in await find_trace(records(), wanted)} == {TRACE}


async def test_the_uuid_of_an_opik_trace_may_keep_its_dashes():
    found = await find_trace(records(), "0198a2f3-c4d5-7e6f-8a9b-0c1d2e3f4a5b")
    assert [each.span.trace_id for each in found] == [OPIK]


async def test_a_short_beginning_is_enough_among_recent_traces():
    assert (await find_trace(records(), "019"))[0].span.trace_id == OPIK


@pytest.mark.parametrize("wanted", ["4bf92f", "4bf"])
async def test_several_traces_of_one_beginning_are_listed(wanted):
    with pytest.raises(Conflict) as raised:
        await find_trace(records(), wanted)
    assert TRACE in str(raised.value)
    assert OTHER in str(raised.value)
    assert "run speaker_program" in str(raised.value)


async def test_several_traces_of_one_run_are_listed():
    known = records()
    known.spans.append(stored("resumed", trace_id=OTHER, number=7, attributes={"e2i.run.id": "run_20261121T100000_4f2a1c"}))
    with pytest.raises(Conflict, match="2 traces"):
        await find_trace(known, "run_20261121T100000_4f2a1c")


@pytest.mark.parametrize("wanted", [TRACE[:-1] + "7", "4bf92f36", "run_20261121T100000_aaaaaa", "nothing like it", "", "%"])
async def test_an_unknown_id_is_named_with_what_to_do(wanted):
    with pytest.raises(NotFound) as raised:
        await find_trace(records(), wanted)
    assert repr(wanted) in raised.value.what
    assert "e2i trace ls" in (raised.value.advice or "")


async def test_an_id_with_a_wrong_digit_is_answered_with_the_nearest():
    for wanted in (TRACE[:-1] + "7", "4bf92f36"):
        with pytest.raises(NotFound) as raised:
            await find_trace(records(), wanted)
        assert TRACE in (raised.value.advice or "")


async def test_last_is_the_newest_that_has_begun_whatever_a_wrong_clock_says():
    ahead = stored("wrong clock", number=1, trace_id="e" * 32, started_ns=time.time_ns() + 400 * DAY_NS)
    assert (await find_trace(SpansInMemory([*study_trace(), ahead]), "last"))[0].span.trace_id == TRACE
    assert (await find_trace(SpansInMemory([ahead]), "last"))[0].span.trace_id == "e" * 32


async def test_nothing_is_near_to_no_name():
    with pytest.raises(NotFound) as raised:
        await find_trace(records(), " ")
    assert "nearest" not in str(raised.value)


async def test_last_without_traces_is_not_found():
    with pytest.raises(NotFound):
        await find_trace(SpansInMemory(), "last")


async def test_traces_with_errors_are_found_behind_many_without():
    known = SpansInMemory([stored("fine", trace_id=f"{number:032x}", started_ns=START_NS + number) for number in range(300)])
    known.spans.append(failed("broken", trace_id="f" * 32, started_ns=START_NS - 10**9))
    found = await recent_traces(known, since=None, agent=None, status="error", limit=2)
    assert [each.trace_id for each in found] == ["f" * 32]
    assert len(await recent_traces(known, since=None, agent=None, status="success", limit=7)) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", NOW - timedelta(minutes=15)),
        (" 7D ", NOW - timedelta(days=7)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30+02:00", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
        ("2026-11-20T08:30:00Z", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_length_of_time_or_a_date(text, expected):
    assert moment(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "24", "h", "-3h", "2026-13-01", "999999w", "1e9h"])
def test_what_is_neither_is_refused_with_examples(text):
    with pytest.raises(ConfigError, match="15m"):
        moment(text, now=NOW)


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    for since, until in ((early, late), (early, early), (None, early), (late, None), (None, None)):
        check_period(since, until)
    with pytest.raises(ConfigError, match=r"--since: the period begins at 2026-01-02 .*after its end at 2026-01-01"):
        check_period(late, early)


def test_a_moment_that_is_none_is_told_by_its_option() -> None:
    with pytest.raises(ConfigError, match="--until: 'soon' is no length"):
        moment("soon", now=datetime.now(UTC), where="--until")
