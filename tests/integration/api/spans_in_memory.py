"""Spans kept in memory behind the same ports as the table, where the table is not the point of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from e2i.domain.telemetry import LatencyStats, SpanPage, SpanQuery, SpanRecord, StoredSpan, TraceSummary
from e2i.errors import ConfigError
from e2i.observability.mapping import columns_of

_UNIT_S = {"h": 3600, "d": 86400}


@dataclass
class SpansInMemory:
    """`SpanRecords` and `SpanMerges`. `fault` is raised by every call while it is set; `hold` stops writes until it is set."""

    rows: dict[tuple[str, str], SpanRecord] = field(default_factory=dict)
    fault: Exception | None = None
    hold: asyncio.Event | None = None
    questions: int = 0

    async def insert_span(self, span: SpanRecord) -> bool:
        return await self.insert_spans_batch([span]) == 1

    async def insert_spans_batch(self, spans: Sequence[SpanRecord]) -> int:
        await self._work()
        new = {span.key: span for span in reversed(spans) if span.key not in self.rows}
        self.rows |= new
        return len(new)

    async def merge(self, spans: Sequence[SpanRecord]) -> int:
        await self._work()
        before = len(self.rows)
        for span in spans:
            old = self.rows.get(span.key)
            self.rows[span.key] = span if old is None else _united(old, span)
        return len(self.rows) - before

    async def get_latency_stats(self, window: str = "24h", agent: str | None = None, tier: str | None = None) -> list[LatencyStats]:
        if window[-1:] not in _UNIT_S or not window[:-1].isdigit():
            raise ConfigError(f"{window!r} is not a window.", where="window", advice="Give 24h, 7d …")
        await self._work()
        self.questions += 1
        zero = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "error_rate", "fallback_rate", "total_cost"), 0.0)
        return [LatencyStats(agent_name="a", agent_tier="t", calls=self.questions, avg_ms=1.0, input_tokens=0, output_tokens=0, **zero)]

    async def get_trace(self, trace_id: str) -> list[StoredSpan]:
        await self._work()
        found = [span for span in self.rows.values() if span.trace_id.startswith(trace_id)]
        return [stored(span) for span in sorted(found, key=lambda span: span.started_ns)]

    async def search(self, query: SpanQuery) -> SpanPage:
        await self._work()
        found = [span for span in self.rows.values() if all(span.attributes.get(k) == v for k, v in query.attributes.items())]
        found = [span for span in found if query.since is None or query.since.timestamp() <= span.started_ns / 1e9]
        found = [span for span in found if query.until is None or span.started_ns / 1e9 < query.until.timestamp()]
        found.sort(key=lambda span: (span.started_ns, span.span_id), reverse=True)
        first = int(query.cursor or 0)
        page = found[first : first + query.limit]
        after = first + query.limit
        return SpanPage(spans=tuple(map(stored, page)), next_cursor=str(after) if after < len(found) else None)

    async def recent_traces(self, *, since: datetime | None = None, agent: str | None = None, limit: int = 20) -> list[TraceSummary]:
        await self._work()
        traces: dict[str, list[SpanRecord]] = {}
        for span in self.rows.values():
            traces.setdefault(span.trace_id, []).append(span)
        lines = [_summary(spans) for spans in traces.values()]
        return sorted(lines, key=lambda line: line.started_at, reverse=True)[:limit]

    async def _work(self) -> None:
        if self.fault is not None:
            raise self.fault
        if self.hold is not None:
            await self.hold.wait()


def stored(span: SpanRecord) -> StoredSpan:
    return StoredSpan(span=span, columns=columns_of(span))


def _united(old: SpanRecord, new: SpanRecord) -> SpanRecord:
    told = {
        name: value
        for name in ("parent_span_id", "name", "started_ns", "ended_ns", "status_message", "service", "scope", "events", "links")
        if (value := getattr(new, name)) not in (None, "", 0, ()) and (name, value) != ("service", "e2i")
    }
    if new.status != "unset":
        told["status"] = new.status
    return replace(old, **told, attributes=old.attributes | new.attributes)


def _summary(spans: list[SpanRecord]) -> TraceSummary:
    start = min(span.started_ns for span in spans)
    return TraceSummary(
        trace_id=spans[0].trace_id,
        root_name=next((span.name for span in spans if span.parent_span_id is None), None),
        started_at=datetime.fromtimestamp(start / 1e9, UTC),
        duration_ms=max((span.ended_ns or start) - start for span in spans) / 1e6,
        spans=len(spans),
        errors=sum(span.status == "error" for span in spans),
        agents=(),
        input_tokens=0,
        output_tokens=0,
        total_cost=0.0,
    )
