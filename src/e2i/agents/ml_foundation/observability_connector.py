"""Write spans that others hand in, and summarise latency, errors and tokens of what really ran; nothing recorded, no summary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from e2i.domain.runs import Tier
from e2i.domain.telemetry import LatencyStats, SinkAccount, SpanRecord
from e2i.engine.spec import AgentSpec
from e2i.ports.records import RunRecords, StepSummary
from e2i.ports.telemetry import SinkAccounts, SpanRecords

_GOOD_P95_MS = 10_000.0
_BAD_P95_MS = 30_000.0
_LIMITS_MS = {"emit": (100.0, 500.0), "database": (50.0, 200.0)}
"""milliseconds from which the agent's own work is worth a warning, and critical"""
_LAG_LIMITS_S = (10.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Recorded steps, the span table, and the account of every sink."""

    runs: RunRecords
    spans: SpanRecords
    sinks: SinkAccounts


@dataclass(frozen=True, kw_only=True)
class SelfMeasure:
    """How one part of the observing itself did; `unit` is ms, or s for the lag of a sink."""

    part: str
    value: float
    unit: Literal["ms", "s"]
    level: Literal["ok", "warning", "critical"]


@dataclass(frozen=True, kw_only=True)
class State:
    """What to write and to summarise, and the summary.

    With `run_id` the score comes from the steps of that run, otherwise from all agents of `time_window`.
    """

    run_id: str | None = None
    events_to_log: tuple[SpanRecord, ...] = ()
    time_window: str = "24h"
    agent_name_filter: str | None = None
    events_logged: int = 0
    span_ids_logged: tuple[str, ...] = ()
    trace_ids_logged: tuple[str, ...] = ()
    agents: tuple[StepSummary, ...] = ()
    latency_by_agent: tuple[LatencyStats, ...] = ()
    sinks: tuple[SinkAccount, ...] = ()
    success_rate: float | None = None
    fallback_rate: float | None = None
    quality_score: float | None = None
    self_monitoring: tuple[SelfMeasure, ...] = ()


async def emit_spans(state: State, deps: Deps) -> State:
    """Write the spans handed in; one that is there already is not counted again."""
    if not state.events_to_log:
        return state
    started = time.perf_counter()
    new = await deps.spans.insert_spans_batch(state.events_to_log)
    return replace(
        state,
        events_logged=new,
        span_ids_logged=tuple(event.span_id for event in state.events_to_log),
        trace_ids_logged=tuple(dict.fromkeys(event.trace_id for event in state.events_to_log)),
        self_monitoring=(*state.self_monitoring, _measured("emit", started)),
    )


async def aggregate_metrics(state: State, deps: Deps) -> State:
    """Latency, errors and tokens: of the steps of this run, and of all agents in the window."""
    steps = await deps.runs.summarize(state.run_id) if state.run_id is not None else []
    started = time.perf_counter()
    stats = await deps.spans.get_latency_stats(state.time_window, state.agent_name_filter)
    return replace(
        state,
        agents=tuple(item for item in steps if item.agent != SPEC.name),  # it has not finished itself
        latency_by_agent=tuple(stats),
        self_monitoring=(*state.self_monitoring, _measured("database", started)),
    )


async def score_quality(state: State, deps: Deps) -> State:  # noqa: ARG001
    """0.6 success rate + 0.3 latency + 0.1 share without fallback; none of it when nothing was recorded.

    Latency is 1 up to a p95 of 10 s and falls to 0 at 30 s; the slowest agent counts.
    """
    if state.run_id is not None:
        counts = [(item.steps, item.errors / item.steps, 0.0, item.p95_ms) for item in state.agents]
    else:
        counts = [(item.calls, item.error_rate, item.fallback_rate, item.p95_ms) for item in state.latency_by_agent]
    calls = sum(count for count, *_ in counts)
    if calls == 0:
        return state
    success = 1 - sum(count * errors for count, errors, _, _ in counts) / calls
    fallback = sum(count * share for count, _, share, _ in counts) / calls
    slowest = max(p95 for *_, p95 in counts)
    latency = min(max((_BAD_P95_MS - slowest) / (_BAD_P95_MS - _GOOD_P95_MS), 0.0), 1.0)
    score = 0.6 * success + 0.3 * latency + 0.1 * (1 - fallback)
    return replace(state, success_rate=success, fallback_rate=fallback, quality_score=score)


async def monitor_itself(state: State, deps: Deps) -> State:
    """How far each sink is behind, and what the observing itself cost."""
    sinks = await deps.sinks.accounts()
    return replace(state, sinks=tuple(sinks), self_monitoring=(*state.self_monitoring, *_lags(sinks)))


def _measured(part: str, started: float) -> SelfMeasure:
    spent = (time.perf_counter() - started) * 1e3
    return SelfMeasure(part=part, value=spent, unit="ms", level=_level(spent, *_LIMITS_MS[part]))


def _lags(sinks: Sequence[SinkAccount]) -> list[SelfMeasure]:
    return [SelfMeasure(part=f"lag of {sink.sink}", value=sink.lag_s, unit="s", level=_level(sink.lag_s, *_LAG_LIMITS_S)) for sink in sinks]


def _level(value: float, warn: float, critical: float) -> Literal["ok", "warning", "critical"]:
    if value >= critical:
        return "critical"
    return "warning" if value >= warn else "ok"


SPEC = AgentSpec(
    name="observability_connector",
    tier=Tier.ML_FOUNDATION,
    kind="standard",
    budget_s=30,
    steps=[emit_spans, aggregate_metrics, score_quality, monitor_itself],
)
