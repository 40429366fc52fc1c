"""observability_connector: what really ran, and nothing where nothing ran."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from e2i.agents.ml_foundation.observability_connector import SPEC, Deps, State
from e2i.domain.runs import StepRecord, StudyRun, Tier
from e2i.domain.telemetry import SinkAccount, SpanRecord
from e2i.engine.graph import Engine
from e2i.observability import attributes as names
from e2i.storage.postgres import Database
from e2i.storage.repositories.runs import RunRepository
from e2i.storage.repositories.spans import ObservabilitySpanRepository
from workshop import Chain


@pytest_asyncio.fixture
async def runs(database: Database) -> Any:
    """A repository with two runs that have begun."""
    repository = RunRepository(database)
    claimed = [
        await repository.claim(
            StudyRun(
                run_id=name, study="s", fingerprint=name, status="running", experiment_id=None, trace_id=None, started_at=datetime.now(UTC)
            )
        )
        for name in ("run_1", "run_2")
    ]
    yield repository
    for run in claimed:
        await repository.finish(replace(run, status="completed", finished_at=datetime.now(UTC)))


@dataclass(frozen=True)
class Sinks:
    """SinkAccounts that are what they are."""

    found: tuple[SinkAccount, ...] = ()

    async def accounts(self) -> list[SinkAccount]:
        return list(self.found)


def deps(runs: RunRepository, *sinks: SinkAccount) -> Deps:
    return Deps(runs=runs, spans=ObservabilitySpanRepository(runs._db), sinks=Sinks(sinks))


def event(number: int, milliseconds: float, **attributes: Any) -> SpanRecord:
    started = time.time_ns() - 60_000_000_000
    return SpanRecord(
        trace_id=f"{number + 1:032x}",
        span_id=f"{number + 1:016x}",
        parent_span_id=None,
        name="invoke_agent",
        started_ns=started,
        ended_ns=started + int(milliseconds * 1e6),
        attributes={names.AGENT: "gap_analyzer", names.TIER: "causal_analytics", names.OPERATION: "agent", **attributes},
    )


def step(milliseconds: float, **changes: Any) -> StepRecord:
    record = StepRecord(
        run_id="run_1",
        agent="model_trainer",
        tier=Tier.ML_FOUNDATION,
        step="train_model",
        attempt=1,
        status="success",
        started_at=datetime.now(UTC),
        duration_ms=milliseconds,
    )
    return replace(record, **changes)


async def observe(runs: RunRepository, *records: StepRecord) -> State:
    for record in records:
        await runs.record_step(record)
    done = await Engine().run(SPEC, State(run_id="run_1"), deps(runs), run_id="run_1")
    assert isinstance(done, State)
    return done


async def test_without_recorded_steps_there_is_no_summary_and_no_score(runs: RunRepository) -> None:
    done = await observe(runs)
    assert (done.agents, done.success_rate, done.quality_score) == ((), None, None)


async def test_steps_of_another_run_are_not_counted(runs: RunRepository) -> None:
    done = await observe(runs, step(5, run_id="run_2"))
    assert (done.agents, done.quality_score) == ((), None)


async def test_numbers_are_those_of_the_rows(runs: RunRepository) -> None:
    times = [3.0, 10.0, 40.0, 1_000.0, 12_000.0]
    records = [step(value, status="error" if value == 40 else "success", input_tokens=7, output_tokens=2) for value in times]
    done = await observe(runs, *records, step(8, agent="causal_impact", tier=Tier.CAUSAL_ANALYTICS))
    by_name = {item.agent: item for item in done.agents}
    assert set(by_name) == {"model_trainer", "causal_impact"}
    trainer = by_name["model_trainer"]
    assert (trainer.steps, trainer.errors, trainer.input_tokens, trainer.output_tokens) == (5, 1, 35, 10)
    assert trainer.avg_ms == pytest.approx(np.mean(times))
    assert [trainer.p50_ms, trainer.p95_ms, trainer.p99_ms] == pytest.approx(np.percentile(times, [50, 95, 99]).tolist())
    assert (by_name["causal_impact"].steps, by_name["causal_impact"].p99_ms, by_name["causal_impact"].input_tokens) == (1, 8.0, 0)
    assert done.success_rate == pytest.approx(5 / 6)
    assert done.quality_score == pytest.approx(0.6 * 5 / 6 + 0.3 + 0.1)


async def test_each_recorded_error_lowers_the_score(runs: RunRepository) -> None:
    scores = [(await observe(runs, step(5, status=status))).quality_score for status in ("success", "error", "timeout", "cancelled")]
    assert scores == pytest.approx([1.0, 0.6 / 2 + 0.4, 0.6 / 3 + 0.4, 0.6 / 4 + 0.4])


@pytest.mark.parametrize(("milliseconds", "score"), [(10_000, 1.0), (20_000, 0.85), (30_000, 0.7), (90_000, 0.7)])
async def test_slow_steps_lower_the_score(runs: RunRepository, milliseconds: float, score: float) -> None:
    assert (await observe(runs, step(milliseconds))).quality_score == pytest.approx(score)


def test_a_chain_is_summarised_from_its_own_rows(chain: Chain) -> None:
    rows = chain.rows("select agent, duration_ms, status from agent_steps where agent <> 'observability_connector'")
    assert {item.agent: item.steps for item in chain.observed.agents} == {
        agent: sum(row["agent"] == agent for row in rows) for agent in {row["agent"] for row in rows}
    }
    slowest = max(item.p95_ms for item in chain.observed.agents)
    times = [row["duration_ms"] for row in rows if row["agent"] == "model_trainer"]
    assert {item.agent: item.p95_ms for item in chain.observed.agents}["model_trainer"] == pytest.approx(np.percentile(times, 95))
    assert slowest >= max(np.percentile(times, 95), 0) - 1e-6
    assert chain.observed.success_rate == 1.0


async def test_spans_handed_in_are_written_once_and_the_window_is_summarised_from_the_rollups(runs: RunRepository) -> None:
    events = tuple(
        event(number, 100.0 * (number + 1), **({names.FALLBACK_CHAIN: ["a", "b"]} if number == 0 else {})) for number in range(4)
    )
    first = await Engine().run(SPEC, State(events_to_log=events), deps(runs), run_id="run_1")
    assert (first.events_logged, first.span_ids_logged) == (4, tuple(item.span_id for item in events))
    assert first.trace_ids_logged == tuple(item.trace_id for item in events)
    again = await Engine().run(SPEC, State(events_to_log=events), deps(runs), run_id="run_2")
    assert again.events_logged == 0
    (stats,) = again.latency_by_agent
    assert (stats.agent_name, stats.agent_tier, stats.calls, stats.fallback_rate) == ("gap_analyzer", "causal_analytics", 4, 0.25)
    assert stats.p50_ms == pytest.approx(250, rel=0.01)
    assert again.success_rate == 1.0
    assert again.quality_score == pytest.approx(0.6 + 0.3 + 0.1 * 0.75)
    assert {item.part for item in again.self_monitoring} == {"emit", "database"}


async def test_a_sink_that_is_behind_is_reported_by_how_far(runs: RunRepository) -> None:
    behind = [
        SinkAccount(sink=name, emitted=9, delivered=4, in_spool=5, sampled_out=0, dropped={}, breaker="open", lag_s=lag)
        for name, lag in (("postgres", 0.1), ("opik", 12.0), ("otlp", 600.0))
    ]
    done = await Engine().run(SPEC, State(), deps(runs, *behind), run_id="run_1")
    assert done.sinks == tuple(behind)
    levels = {item.part: (item.level, item.unit) for item in done.self_monitoring if item.part.startswith("lag")}
    assert levels == {"lag of postgres": ("ok", "s"), "lag of opik": ("warning", "s"), "lag of otlp": ("critical", "s")}
