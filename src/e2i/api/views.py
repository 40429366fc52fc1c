"""What the query routes answer: the domain's records as JSON, times as text, numbers only where there are any."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from e2i.domain.telemetry import LatencyStats, StoredSpan, TraceSummary


class TracePage(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    traces: list[TraceSummary]
    next_cursor: str | None


class EventView(BaseModel):
    """Something that happened at one moment of a span."""

    name: str
    at: datetime
    attributes: dict[str, Any]


class LinkView(BaseModel):
    """A span that this one has to do with."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class SpanView(BaseModel):
    """One span. Nanoseconds stand as text: they are larger than what JavaScript counts exactly."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    service: str
    scope: str
    origin: str
    started_at: datetime
    started_ns: str
    ended_ns: str | None
    duration_ms: float | None
    status: str
    error_type: str | None
    error_message: str | None
    agent_name: str | None
    agent_tier: str | None
    operation_type: str
    model_name: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_cost: float | None
    fallback_chain: list[str]
    attributes: dict[str, Any]
    events: list[EventView]
    links: list[LinkView]

    @classmethod
    def of(cls, stored: StoredSpan) -> SpanView:
        """A view of the row."""
        span, columns = stored.span, stored.columns
        return cls(
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            name=span.name,
            kind=span.kind,
            service=span.service,
            scope=span.scope,
            origin=span.origin,
            started_at=_moment(span.started_ns),
            started_ns=str(span.started_ns),
            ended_ns=None if span.ended_ns is None else str(span.ended_ns),
            duration_ms=span.duration_ms,
            status=columns.status,
            error_type=columns.error_type,
            error_message=columns.error_message,
            agent_name=columns.agent_name,
            agent_tier=columns.agent_tier,
            operation_type=columns.operation_type,
            model_name=columns.model_name,
            input_tokens=columns.input_tokens,
            output_tokens=columns.output_tokens,
            total_cost=columns.total_cost,
            fallback_chain=list(columns.fallback_chain),
            attributes=span.attributes,
            events=[EventView(name=event.name, at=_moment(event.at_ns), attributes=event.attributes) for event in span.events],
            links=[LinkView(trace_id=link.trace_id, span_id=link.span_id, attributes=link.attributes) for link in span.links],
        )


class TraceView(BaseModel):
    """Spans of one trace by start, a page of them."""

    trace_id: str
    total_spans: int
    spans: list[SpanView]
    next_cursor: str | None


class SpanPageView(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    spans: list[SpanView]
    next_cursor: str | None


class LatencyView(BaseModel):
    """By agent and tier. `window` begins at the full hour; `as_of` is when the table was asked, for answers are kept a while."""

    window: str
    as_of: datetime
    agents: list[LatencyStats]


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds % 10**9 // 1000)
