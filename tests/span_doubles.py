"""Spans to test with, and the ports of `e2i.ports.telemetry` in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from e2i.domain.runs import AuditEntry
from e2i.domain.telemetry import SpanEvent, SpanPage, SpanQuery, SpanRecord, StoredSpan, TraceSummary
from e2i.errors import ConfigError, Conflict, NotFound
from e2i.observability.mapping import columns_of
from e2i.ports.telemetry import Partition

DAY_NS = 86_400 * 10**9
START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
START_NS = int(START.timestamp()) * 10**9
MS = 10**6
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def stored(
    name: str = "step", *, number: int = 1, parent: int | str | None = None, at_ms: float = 0.0, ms: float | None = 1.0, **changes: Any
) -> StoredSpan:
    """One span; `number` is its id, `parent` the number (or id) of its parent, `at_ms` its start after START."""
    begun = changes.pop("started_ns", START_NS + int(at_ms * MS))
    span = SpanRecord(
        trace_id=changes.pop("trace_id", TRACE),
        span_id=changes.pop("span_id", f"{number:016x}"),
        parent_span_id=f"{parent:016x}" if isinstance(parent, int) else parent,
        name=name,
        started_ns=begun,
        ended_ns=None if ms is None else begun + int(ms * MS),
        **changes,
    )
    return StoredSpan(span=span, columns=columns_of(span))


def failed(name: str, *, error: str = "ValueError", message: str = "no such column", **more: Any) -> StoredSpan:
    """A span with an exception."""
    moment = START_NS + int(more.get("at_ms", 0.0) * MS)
    event = SpanEvent(
        name="exception",
        at_ns=moment,
        attributes={"exception.type": error, "exception.message": message, "exception.stacktrace": f"Traceback …\n{error}: {message}"},
    )
    return stored(name, status="error", status_message=message, events=(event,), **more)


def study_trace(trace_id: str = TRACE, run_id: str = "run_20261121T100000_4f2a1c") -> list[StoredSpan]:
    """A small run: agents, steps, two calls of a model (one failed and tried again)."""
    common = {"e2i.run.id": run_id}

    def agent(name: str, tier: str) -> dict[str, Any]:
        return {
            "attributes": {**common, "e2i.agent.name": name, "e2i.agent.tier": tier, "e2i.operation.type": "agent"},
            "trace_id": trace_id,
        }

    def call(answer: str, tokens: tuple[int, int]) -> dict[str, Any]:
        found = {
            **common,
            "e2i.agent.name": "causal_impact",
            "e2i.agent.tier": "causal_analytics",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "claude-sonnet-5",
            "gen_ai.usage.input_tokens": tokens[0],
            "gen_ai.usage.output_tokens": tokens[1],
            "e2i.cost.usd": (tokens[0] * 3 + tokens[1] * 15) / 1e6,
            "input.value": '{"messages": [{"role": "user", "content": "Did the speaker program lift NRx for Kisqali?"}]}',
            "output.value": answer,
        }
        return {"attributes": found, "trace_id": trace_id, "kind": "client"}

    return [
        stored("run speaker_program", number=1, ms=62_000, attributes={**common, "e2i.brand": "Kisqali"}, trace_id=trace_id),
        stored("invoke_agent scope_definer", number=2, parent=1, at_ms=3, ms=420, **agent("scope_definer", "ml_foundation")),
        stored("invoke_agent data_preparer", number=3, parent=1, at_ms=430, ms=12_100, **agent("data_preparer", "ml_foundation")),
        stored("data_preparer.load", number=4, parent=3, at_ms=440, ms=2_150, **agent("data_preparer", "ml_foundation")),
        stored("data_preparer.check", number=5, parent=3, at_ms=2_600, ms=9_900, **agent("data_preparer", "ml_foundation")),
        stored("invoke_agent causal_impact", number=6, parent=1, at_ms=12_540, ms=48_000, **agent("causal_impact", "causal_analytics")),
        stored("causal_impact.estimate", number=7, parent=6, at_ms=12_600, ms=30_000, **agent("causal_impact", "causal_analytics")),
        failed("chat claude-sonnet-5", number=8, parent=6, at_ms=42_700, ms=5_000, error="RateLimitError", message="429: try again in 5 s",
               **call("", (812, 0))),
        stored("chat claude-sonnet-5", number=9, parent=6, at_ms=47_800, ms=11_500, **call("About 0.8 NRx per HCP.", (812, 354))),
        stored("invoke_agent model_selector", number=10, parent=1, at_ms=12_540, ms=9_000, **agent("model_selector", "ml_foundation")),
    ]  # fmt: skip


def large_trace(spans: int = 30_000, *, text: int = 0, width: int = 100) -> list[StoredSpan]:
    """A run with many calls: a root, `width` agents below it, steps below those; every 997th fails; `text` characters in and out."""
    words = ("trx nrx hcp decile call sample speaker program lift estimate interval overlap propensity region " * (text // 96 + 1))[:text]
    found = [stored("run large", number=1, ms=spans * 1.0)]
    for number in range(2, spans + 1):
        at = number * 0.9
        if number <= width + 1:
            lasts = spans / width * 0.95
            agent = {"e2i.agent.name": f"agent_{number % 18:02d}", "e2i.agent.tier": "causal_analytics"}
            found.append(
                stored(
                    f"invoke_agent {number % 18:02d}",
                    number=number,
                    parent=1,
                    at_ms=(number - 2) * spans / width,
                    ms=lasts,
                    attributes=agent,
                )
            )
            continue
        parent = 2 + number % width
        at = (parent - 2) * spans / width + (number // width) * 0.9 * spans / width / (spans / width + 1)
        attributes: dict[str, Any] = {"e2i.agent.name": f"agent_{parent % 18:02d}", "e2i.agent.tier": "causal_analytics"}
        if number % 2:
            attributes |= {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 100 + number % 7, "gen_ai.usage.output_tokens": 20}
            attributes |= {"gen_ai.request.model": "claude-sonnet-5", "e2i.cost.usd": 0.0004}
            if text:
                attributes |= {"input.value": f"{number} {words}", "output.value": f"{words} {number}"}
        make = failed if number % 997 == 0 else stored
        found.append(
            make("chat" if number % 2 else f"step_{number % 10}", number=number, parent=parent, at_ms=at, ms=0.7, attributes=attributes)
        )
    return found


@dataclass
class SpansInMemory:
    """`SpanRecords` over a list, newest first by start; `spans` may grow between calls."""

    spans: list[StoredSpan] = field(default_factory=list)
    searches: int = 0

    async def insert_span(self, span: SpanRecord) -> bool:
        return await self.insert_spans_batch([span]) == 1

    async def insert_spans_batch(self, spans: Sequence[SpanRecord]) -> int:
        known = {each.span.key for each in self.spans}
        new = {span.key: StoredSpan(span=span, columns=columns_of(span)) for span in spans if span.key not in known}
        self.spans += new.values()
        return len(new)

    async def get_latency_stats(self, window: str = "24h", agent: str | None = None, tier: str | None = None) -> list[Any]:
        raise NotImplementedError

    async def get_trace(self, trace_id: str) -> list[StoredSpan]:
        traces = {each.span.trace_id for each in self.spans if each.span.trace_id.startswith(trace_id)}
        if len(trace_id) < 6:
            raise ConfigError(f"{trace_id!r} is too short for a trace.", where="trace id")
        if len(traces) > 1:
            raise Conflict(f"{trace_id} is the beginning of several.", where="spans")
        return sorted((each for each in self.spans if each.span.trace_id in traces), key=lambda each: each.span.started_ns)

    async def search(self, query: SpanQuery) -> SpanPage:
        self.searches += 1
        found = sorted((each for each in self.spans if _fits(each, query)), key=_place, reverse=True)
        if query.cursor is not None:
            at = tuple(query.cursor.split("/"))
            found = [each for each in found if _cursor(each) < at]
        page = found[: query.limit]
        more = len(found) > len(page)
        return SpanPage(spans=tuple(page), next_cursor="/".join(_cursor(page[-1])) if more else None)

    async def recent_traces(self, *, since: datetime | None = None, agent: str | None = None, limit: int = 20) -> list[TraceSummary]:
        traces: dict[str, list[StoredSpan]] = {}
        for each in self.spans:
            traces.setdefault(each.span.trace_id, []).append(each)
        found = [_summary(spans) for spans in traces.values() if agent is None or any(each.columns.agent_name == agent for each in spans)]
        fitting = [each for each in found if since is None or each.started_at >= since]
        return sorted(fitting, key=lambda each: each.started_at, reverse=True)[:limit]


def _place(each: StoredSpan) -> tuple[int, str]:
    return each.span.started_ns, each.span.span_id


def _cursor(each: StoredSpan) -> tuple[str, str]:
    return f"{each.span.started_ns:020d}", each.span.span_id


def _fits(each: StoredSpan, query: SpanQuery) -> bool:
    span, columns = each.span, each.columns
    at = datetime.fromtimestamp(span.started_ns / 1e9, UTC)
    return (
        (query.agent is None or columns.agent_name == query.agent)
        and (query.status is None or columns.status == query.status)
        and (query.operation is None or columns.operation_type == query.operation)
        and (query.trace_id is None or span.trace_id == query.trace_id)
        and (query.since is None or at >= query.since)
        and (query.until is None or at < query.until)
        and (query.minimum_ms is None or (span.duration_ms or 0) >= query.minimum_ms)
        and all(span.attributes.get(key) == value for key, value in query.attributes.items())
    )


def _summary(spans: list[StoredSpan]) -> TraceSummary:
    first = min(each.span.started_ns for each in spans)
    last = max(each.span.ended_ns or each.span.started_ns for each in spans)
    roots = [each.span.name for each in spans if each.span.parent_span_id is None]
    return TraceSummary(
        trace_id=spans[0].span.trace_id,
        root_name=roots[0] if roots else None,
        started_at=datetime.fromtimestamp(first / 1e9, UTC),
        duration_ms=(last - first) / 1e6,
        spans=len(spans),
        errors=sum(each.columns.status == "error" for each in spans),
        agents=tuple(sorted({each.columns.agent_name for each in spans if each.columns.agent_name})),
        input_tokens=sum(each.columns.input_tokens or 0 for each in spans),
        output_tokens=sum(each.columns.output_tokens or 0 for each in spans),
        total_cost=sum(known) if (known := [cost for each in spans if (cost := each.columns.total_cost) is not None]) else None,
    )


@dataclass
class RetentionInMemory:
    """`SpanRetention` over a dict of days."""

    days: dict[date, list[StoredSpan]] = field(default_factory=dict)
    holds: dict[str, tuple[date, date]] = field(default_factory=dict)
    dropped: list[date] = field(default_factory=list)
    read: list[date] = field(default_factory=list)
    ahead: dict[date, date] = field(default_factory=dict)
    """strays among the days: when the last span of each was received"""

    async def partitions(self) -> list[Partition]:
        return [self._partition(day) for day in sorted(self.days) if day not in self.ahead]

    def _partition(self, day: date) -> Partition:
        spans = len(self.days[day])
        return Partition(
            name=f"spans_{day:%Y%m%d}", day=day, spans=spans, bytes=1000 * spans, held_by=self._held(day), received_on=self.ahead.get(day)
        )

    def _held(self, day: date) -> tuple[str, ...]:
        return tuple(name for name, (first, last) in self.holds.items() if first <= day <= last)

    async def strays(self) -> list[Partition]:
        return [self._partition(day) for day in sorted(self.days) if day in self.ahead]

    async def read_day(self, day: date, *, batch: int = 5000) -> AsyncIterator[list[StoredSpan]]:
        self.read.append(day)
        spans = self.days[day]
        for start in range(0, len(spans), batch):
            yield spans[start : start + batch]

    async def drop_day(self, day: date, *, most: int | None = None) -> None:
        if day not in self.days:
            raise NotFound("no spans of that day.", where=str(day))
        if most is not None and len(self.days[day]) > most:
            raise Conflict(f"{day} has {len(self.days[day])} spans, of which {most} are safe.", where=str(day))
        if held := self._held(day):
            raise Conflict(f"the legal hold {held[0]!r} keeps {day}.", where=str(day))
        del self.days[day]
        self.dropped.append(day)

    async def hold(self, name: str, *, first: date, last: date, reason: str, actor: str) -> None:
        if name in self.holds:
            raise Conflict(f"a legal hold is called {name!r} already.", where="legal holds")
        self.holds[name] = (first, last)

    async def release(self, name: str) -> None:
        if self.holds.pop(name, None) is None:
            raise NotFound(f"no legal hold is called {name!r}.", where="legal holds")


@dataclass
class AuditInMemory:
    """`AuditTrail` as a list."""

    entries: list[AuditEntry] = field(default_factory=list)

    async def append(self, entry: AuditEntry) -> AuditEntry:
        self.entries.append(entry)
        return replace(entry, sequence=len(self.entries))


def spans_of(day: date, count: int) -> list[StoredSpan]:
    """Spans spread over a day."""
    begun = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9
    gap = int(timedelta(days=1).total_seconds()) * 10**9 // (count + 1)
    return [
        stored(
            "step",
            number=number + 1,
            trace_id=f"{day:%Y%m%d}{number // 10:024x}",
            started_ns=begun + number * gap,
            attributes={"n": number},
        )
        for number in range(count)
    ]
