"""Spans as they are kept, shipped, stored and asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

SpanStatus = Literal["unset", "ok", "error"]
Origin = Literal["e2i", "otlp", "opik"]
"""who made the span: our processes, another team's OpenTelemetry exporter, another team's Opik SDK"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened at one moment of a span; an exception is the event named `exception`."""

    name: str
    at_ns: int
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLink:
    """A span that this one has to do with."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    """One ended span, redacted and bounded: what the spool holds and every sink is given.

    Times are nanoseconds since 1970 in UTC. `trace_id` has 32 and `span_id` 16 hexadecimal digits; both have 32 when the span
    came from an Opik SDK, whose ids are UUIDs.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    started_ns: int
    ended_ns: int | None
    status: SpanStatus = "unset"
    status_message: str | None = None
    kind: str = "internal"
    """`internal`, `server`, `client`, `producer`, `consumer`"""
    service: str = "e2i"
    scope: str = ""
    origin: Origin = "e2i"
    attributes: dict[str, Any] = field(default_factory=dict)
    """OpenTelemetry attribute values; see `observability.attributes` for the names"""
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What is unique: (trace_id, span_id)."""
        return self.trace_id, self.span_id

    @property
    def duration_ms(self) -> float | None:
        """None while the span has not ended; never negative."""
        return None if self.ended_ns is None else max(0, self.ended_ns - self.started_ns) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanColumns:
    """The columns of ml_observability_spans that are read out of a span's attributes; see `observability.mapping`."""

    agent_name: str | None
    agent_tier: str | None
    operation_type: str
    model_name: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_cost: float | None
    """US dollars"""
    status: Literal["success", "error"]
    error_type: str | None
    error_message: str | None
    fallback_chain: tuple[str, ...]
    """models or methods in the order tried; a fallback was used when there is more than one"""
    experiment_id: str | None
    run_id: str | None
    user_id: str | None
    session_id: str | None


@dataclass(frozen=True, kw_only=True)
class StoredSpan:
    """A row of ml_observability_spans: the span and the columns read out of it."""

    span: SpanRecord
    columns: SpanColumns


@dataclass(frozen=True, kw_only=True)
class LatencyStats:
    """One line of v_agent_latency_summary. Latencies in ms, rates as shares in 0-1, cost in US dollars.

    Calls, latency and rates are of the agent's calls, tokens and cost of everything below them. An agent of whose calls only parts have
    ended has 0 calls, and latencies and rates of 0.
    """

    agent_name: str
    agent_tier: str
    calls: int
    avg_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    error_rate: float
    fallback_rate: float
    input_tokens: int
    output_tokens: int
    total_cost: float | None
    """None while no cost is known"""


@dataclass(frozen=True, kw_only=True)
class SpanQuery:
    """What to search for; every field that is set must hold. `attributes` match exactly."""

    agent: str | None = None
    tier: str | None = None
    operation: str | None = None
    status: Literal["success", "error"] | None = None
    trace_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    minimum_ms: float | None = None
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)
    limit: int = 50
    cursor: str | None = None
    """`SpanPage.next_cursor` of the page before"""


@dataclass(frozen=True, kw_only=True)
class SpanPage:
    """Newest first."""

    spans: tuple[StoredSpan, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """One trace in `e2i trace ls`. Only what has arrived is counted; `root_name` is None while the root has not."""

    trace_id: str
    root_name: str | None
    started_at: datetime
    duration_ms: float
    spans: int
    errors: int
    agents: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    total_cost: float | None
    """None while no cost is known"""


@dataclass(frozen=True, kw_only=True)
class Received:
    """Spans that another team's exporter brought; they go straight to the table, so no sink's account knows them."""

    origin: Origin
    spans: int
    newest: datetime
    """when the latest of them began"""


@dataclass(frozen=True, kw_only=True)
class SinkAccount:
    """Where every span went, for one sink: emitted = delivered + in_spool + sampled_out + the sum of dropped."""

    sink: str
    emitted: int
    delivered: int
    in_spool: int
    sampled_out: int
    dropped: dict[str, int]
    """reason -> spans: `disk_budget` (no room), `corrupt` (damaged on disk), `quarantined` (refused one by one), `rejected` (refused by a
    partial success), `restored` (the database was put back in time), `write_failed` and `not_serialisable` (never reached the spool)"""
    breaker: Literal["closed", "open", "half_open"]
    lag_s: float
    """age of the oldest span that this sink has not been given; 0 when there is none"""
    last_error: str | None = None

    @property
    def unexplained(self) -> int:
        """Spans that nothing accounts for; anything but 0 is a fault of E2I."""
        return self.emitted - self.delivered - self.in_spool - self.sampled_out - sum(self.dropped.values())
