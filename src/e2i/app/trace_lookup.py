"""Find what a person means: a trace by its id, the beginning of its id, or the run that made it; a moment by `24h` or a date."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from e2i.domain.telemetry import SpanQuery
from e2i.errors import ConfigError, Conflict, NotFound
from e2i.observability.attributes import RUN_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from e2i.domain.telemetry import StoredSpan, TraceSummary
    from e2i.ports.telemetry import SpanRecords

LAST = "last"
PAGE = 500
_SHORTEST_PREFIX = 6
_LONGEST_LIST = 10
_LOOKED_THROUGH = 200
_SKEW = timedelta(minutes=5)
"""by which clocks of machines may differ"""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


async def find_trace(records: SpanRecords, wanted: str) -> list[StoredSpan]:
    """The spans of the trace that `wanted` names.

    Parameters
    ----------
    wanted : a trace id (dashes of a UUID may stay), its beginning, a run id as `e2i run` prints it, or `last`

    Raises
    ------
    NotFound
        Nothing has that name; names the nearest.
    Conflict
        Several traces do; lists them.
    """
    text = wanted.strip()
    if text.lower() == LAST:
        newest = await _last(records, datetime.now(UTC) + _SKEW)
        return await records.get_trace(newest.trace_id) if newest else _unknown(text, [])
    digits = text.replace("-", "").lower()
    if re.fullmatch(r"[0-9a-f]{1,32}", digits):
        spans = await _by_id(records, digits)
        if spans:
            return spans
    traces = await _traces_of_run(records, text)
    if len(traces) > 1:
        raise _several(text, traces)
    return await records.get_trace(traces[0]) if traces else _unknown(text, await records.recent_traces(limit=_LOOKED_THROUGH))


async def _last(records: SpanRecords, latest: datetime) -> TraceSummary | None:
    """The newest trace that has begun: one exporter whose clock is wrong would be the last for years."""
    for limit in (1, _LOOKED_THROUGH):
        newest = await records.recent_traces(limit=limit)
        begun = next((each for each in newest if each.started_at <= latest), None)
        if begun is not None or not newest:
            return begun
    return newest[0]


async def _by_id(records: SpanRecords, digits: str) -> list[StoredSpan]:
    ambiguous: Conflict | None = None
    if len(digits) >= _SHORTEST_PREFIX:
        try:
            return await records.get_trace(digits)
        except Conflict as error:
            ambiguous = error
    known = [each for each in await records.recent_traces(limit=_LOOKED_THROUGH) if each.trace_id.startswith(digits)]
    if len(known) > 1:
        raise _several(digits, [f"{each.trace_id}  {_told(each)}" for each in known])
    if ambiguous is not None:
        raise ambiguous
    return await records.get_trace(known[0].trace_id) if known else []


async def _traces_of_run(records: SpanRecords, run_id: str) -> list[str]:
    page = await records.search(SpanQuery(attributes={RUN_ID: run_id}, limit=PAGE))
    return list(dict.fromkeys(each.span.trace_id for each in page.spans))


def _several(wanted: str, traces: Sequence[str]) -> Conflict:
    shown = "\n    ".join(traces[:_LONGEST_LIST])
    more = f"\n    and {len(traces) - _LONGEST_LIST} more" if len(traces) > _LONGEST_LIST else ""
    return Conflict(f"{len(traces)} traces go by {wanted!r}.", where="traces", advice=f"Name one of them:\n    {shown}{more}")


def _unknown(wanted: str, recent: Sequence[TraceSummary]) -> list[StoredSpan]:
    places = {each.trace_id: each for each in recent}
    digits = wanted.replace("-", "").lower()
    # An id with one wrong digit is near as a whole; a short beginning is near to the beginnings.
    near = difflib.get_close_matches(digits, list(places), n=1, cutoff=0.75)
    near = near or [each for each in places if digits and difflib.SequenceMatcher(None, each[: len(digits)], digits).ratio() >= 0.75][:1]
    advice = "List what is there with `e2i trace ls`. Spans that were just made may still be on their way: see `e2i status`."
    if near:
        advice = f"The nearest is {near[0]}, {_told(places[near[0]])}. {advice}"
    raise NotFound(f"no trace and no run goes by {wanted!r}.", where="traces", advice=advice)


def _told(summary: TraceSummary) -> str:
    return f"{summary.root_name or 'root has not arrived'}, {summary.started_at:%Y-%m-%d %H:%M} UTC"


def moment(text: str, *, now: datetime, where: str = "--since") -> datetime:
    """`90s`, `15m`, `24h`, `7d`, `2w` before `now`, or a date or time in ISO 8601, in UTC when it names no zone.

    >>> moment("24h", now=datetime(2026, 1, 2, tzinfo=UTC)).isoformat(), moment("2026-01-02", now=datetime.now(UTC)).isoformat()
    ('2026-01-01T00:00:00+00:00', '2026-01-02T00:00:00+00:00')

    Raises
    ------
    ConfigError
        It is neither.
    """
    try:
        if found := re.fullmatch(r"\s*(\d{1,6})\s*([smhdw])\s*", text.lower()):
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        given = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is no length of time and no date.", where=where, advice="Write 15m, 24h, 7d, 2026-01-31 or 2026-01-31T08:00."
        ) from None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def check_period(since: datetime | None, until: datetime | None) -> None:
    """Raises ConfigError for a period that ends before it begins: it would find nothing, and look like an empty table."""
    if since is not None and until is not None and since > until:
        raise ConfigError(
            f"the period begins at {since:%Y-%m-%d %H:%M:%S} UTC, after its end at {until:%Y-%m-%d %H:%M:%S} UTC.",
            where="--since",
            advice="Give --since the earlier moment: --since 7d --until 24h is the time from seven days to one day ago.",
        )


async def pages(records: SpanRecords, query: SpanQuery) -> AsyncIterator[list[StoredSpan]]:
    """Everything that a query finds, page by page, newest first."""
    asked = query
    while True:
        page = await records.search(asked)
        if page.spans:
            yield list(page.spans)
        if page.next_cursor is None:
            return
        asked = replace(asked, cursor=page.next_cursor)


async def recent_traces(
    records: SpanRecords, *, since: datetime | None, agent: str | None, status: str | None, limit: int
) -> list[TraceSummary]:
    """The newest traces, also only those with (`error`) or without (`success`) errors."""
    asked = limit
    while True:
        found = await records.recent_traces(since=since, agent=agent, limit=asked)
        fitting = [each for each in found if status is None or (each.errors > 0) == (status == "error")]
        if len(fitting) >= limit or len(found) < asked:
            return fitting[:limit]
        asked *= 4
