"""ml_observability_spans and v_agent_latency_summary."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from psycopg.types.json import set_json_loads

from e2i.domain.telemetry import LatencyStats, SpanPage, TraceSummary
from e2i.errors import ConfigError, Conflict
from e2i.storage.postgres import as_json
from e2i.storage.span_cursor import after, cursor_behind
from e2i.storage.span_rows import stored_span
from e2i.storage.span_writer import Arrivals, SpanWriter
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import LiteralString

    from e2i.domain.telemetry import SpanQuery, SpanRecord, StoredSpan
    from e2i.storage.postgres import Database, Row

_SQL = load("spans")
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([hd])")
_DIGITS = re.compile(r"[0-9a-f]+")
_SHORTEST_PREFIX, _WHOLE_ID = 6, 32
_LARGEST_PAGE = 10_000
_FIRST_SCAN, _LARGEST_SCAN = 2_000, 2_000_000


class ObservabilitySpanRepository:
    """`SpanRecords` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._writer = SpanWriter(db)

    async def insert_span(self, span: SpanRecord) -> bool:
        """Whether it is new; a span that is there already changes nothing."""
        return await self.insert_spans_batch([span]) == 1

    async def insert_spans_batch(self, spans: Sequence[SpanRecord]) -> int:
        """How many are new. One transaction: rows and rollups, all or nothing.

        Raises
        ------
        BackendRejected
            A span is no span; nothing is written.
        """
        arrivals = Arrivals(spans)
        return await self._writer.transact(arrivals.days, lambda connection: self._writer.insert(connection, arrivals))

    async def get_latency_stats(self, window: str = "24h", agent: str | None = None, tier: str | None = None) -> list[LatencyStats]:
        """One line per agent and tier, from the rollups; percentiles within 1 % of the exact ones.

        The window begins at the full hour. A tier that no span told is `unknown`.

        Raises
        ------
        ConfigError
            `window` is not a number of hours or days.
        """
        rows = await self._db.rows(_SQL["latency_stats"], window=_window(window), agent=agent, tier=tier)
        return [LatencyStats(**row | {name: int(row[name]) for name in ("input_tokens", "output_tokens")}) for row in rows]

    async def get_trace(self, trace_id: str) -> list[StoredSpan]:
        """All spans of a trace, by start; empty when there is none. A prefix of at least 6 digits is enough when it is unique.

        Raises
        ------
        Conflict
            Several traces begin so; the message names them.
        ConfigError
            Fewer than 6 digits.
        """
        wanted = trace_id.strip()
        digits = wanted.replace("-", "").lower()  # a trace of an Opik SDK is known to its users as a UUID
        if _DIGITS.fullmatch(digits):
            wanted = digits
        if len(wanted) < _SHORTEST_PREFIX:
            raise ConfigError(
                f"{trace_id!r} is too short for a trace.", where="trace id", advice=f"Give at least {_SHORTEST_PREFIX} of its digits."
            )
        if len(wanted) < _WHOLE_ID:
            found = [row["trace_id"] for row in await self._db.rows(_SQL["traces_of_prefix"], prefix=wanted)]
            if len(found) > 1:
                raise _ambiguous(wanted, found)
            wanted = found[0] if found else wanted
        return [stored_span(row) for row in await self._fetched(_SQL["spans_of_trace"], {"trace_id": wanted})]

    async def search(self, query: SpanQuery) -> SpanPage:
        """Newest first, one page. A page that begins at a cursor misses nothing and repeats nothing while new spans arrive.

        Raises
        ------
        ConfigError
            The cursor, the limit or a moment is wrong.
        """
        if not 1 <= query.limit <= _LARGEST_PAGE:
            raise ConfigError(f"a page has 1 to {_LARGEST_PAGE} spans, not {query.limit}.", where="limit", advice="Give another limit.")
        parameters = {
            "agent": query.agent,
            "tier": query.tier,
            "operation": query.operation,
            "status": query.status,
            "trace_id": query.trace_id,
            "since": _aware(query.since, "since"),
            "until": _aware(query.until, "until"),
            "minimum_ms": query.minimum_ms,
            "attributes": as_json(query.attributes) if query.attributes else None,
            "limit": query.limit + 1,
            **after(query.cursor),
        }
        rows = await self._fetched(_SQL["search"], parameters, prepare=False)  # planned for these very parameters: most are None
        page = tuple(stored_span(row) for row in rows[: query.limit])
        return SpanPage(spans=page, next_cursor=cursor_behind(page[-1].span) if len(rows) > query.limit else None)

    async def recent_traces(self, *, since: datetime | None = None, agent: str | None = None, limit: int = 20) -> list[TraceSummary]:
        """Newest first by the start of what has arrived of them; with `since`, those that began since.

        The newest spans tell which traces may be among them, and no trace of which only older spans are there can be.
        """
        begin, scan = _aware(since, "since"), _FIRST_SCAN
        while True:
            rows = await self._fetched(_SQL["newest_of_traces"], {"since": begin, "agent": agent, "scan": scan}, prepare=False)
            is_everything = not rows or rows[0]["scanned"] < scan
            found = await self._newest({row["trace_id"]: row["seen_at"] for row in rows}, begin, limit)
            if is_everything or scan >= _LARGEST_SCAN or (len(found) == limit and found[-1].started_at >= rows[0]["reach"]):
                return found
            scan *= 8

    async def _newest(self, seen: Mapping[str, datetime], since: datetime | None, limit: int) -> list[TraceSummary]:
        """The newest of these traces. `seen` is when some span of each began: its start is then or earlier."""
        starts, known = dict(seen), dict[str, TraceSummary]()
        while True:
            best = sorted(starts, key=lambda trace: (starts[trace], trace), reverse=True)[:limit]
            unknown = [trace for trace in best if trace not in known]
            if not unknown:
                return [known[trace] for trace in best]
            for row in await self._fetched(_SQL["trace_summaries"], {"trace_ids": unknown}):
                known[row["trace_id"]] = TraceSummary(**row | {"agents": tuple(row["agents"])})
            for trace in unknown:
                if trace not in known or (since is not None and known[trace].started_at < since):
                    del starts[trace]  # gone meanwhile, or begun before
                else:
                    starts[trace] = known[trace].started_at

    async def _fetched(self, statement: LiteralString, parameters: Mapping[str, Any], *, prepare: bool | None = None) -> list[Row]:
        async with self._db.transaction() as connection, connection.cursor() as cursor:
            set_json_loads(orjson.loads, cursor)
            return await (await cursor.execute(statement, parameters, prepare=prepare)).fetchall()


def _window(text: str) -> timedelta:
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no window.", where="window", advice="Give hours or days, for instance 1h, 24h, 7d or 30d.")
    return timedelta(**{{"h": "hours", "d": "days"}[match[2]]: int(match[1])})


def _aware(moment: datetime | None, name: str) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise ConfigError(f"{moment} has no time zone.", where=name, advice="Give one, for instance UTC.")
    return moment


def _ambiguous(prefix: str, found: Sequence[str]) -> Conflict:
    more = " and others" if len(found) > 10 else ""
    return Conflict(
        f"{prefix} is the beginning of {', '.join(found[:10])}{more}.", where="ml_observability_spans", advice="Give more digits."
    )
