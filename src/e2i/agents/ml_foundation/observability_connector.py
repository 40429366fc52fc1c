"""Summarise latency, errors and tokens of what really ran; nothing recorded, no summary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from e2i.domain.runs import Tier
from e2i.engine.spec import AgentSpec
from e2i.ports.records import RunRecords, StepSummary

_GOOD_P95_MS = 10_000.0
_BAD_P95_MS = 30_000.0


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Recorded steps."""

    runs: RunRecords


@dataclass(frozen=True, kw_only=True)
class State:
    """What to summarise, and the summary."""

    run_id: str
    agents: tuple[StepSummary, ...] = ()
    success_rate: float | None = None
    quality_score: float | None = None


async def aggregate_metrics(state: State, deps: Deps) -> State:
    """Latency, errors and tokens by agent, from the rows of this run."""
    return replace(state, agents=tuple(await deps.runs.summarize(run_id=state.run_id)))


async def score_quality(state: State, deps: Deps) -> State:  # noqa: ARG001
    """0.6 success rate + 0.3 latency + 0.1, none of it when nothing was recorded.

    Latency is 1 up to a p95 of 10 s and falls to 0 at 30 s; no agent here has a fallback, so that share counts in full.
    """
    steps = sum(summary.steps for summary in state.agents)
    if steps == 0:
        return state
    success = 1 - sum(summary.errors for summary in state.agents) / steps
    slowest = max(summary.p95_ms for summary in state.agents)
    latency = min(max((_BAD_P95_MS - slowest) / (_BAD_P95_MS - _GOOD_P95_MS), 0.0), 1.0)
    return replace(state, success_rate=success, quality_score=0.6 * success + 0.3 * latency + 0.1)


SPEC = AgentSpec(
    name="observability_connector", tier=Tier.ML_FOUNDATION, kind="standard", budget_s=30, steps=[aggregate_metrics, score_quality]
)
