from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from doubles import Inline
from e2i.agents.causal_analytics import gap_analyzer
from e2i.agents.ml_predictions import resource_optimizer
from e2i.data.frame_store import RunFrames
from e2i.data.sources import LocalFrameSource
from e2i.domain.allocation import AllocationSpec
from e2i.domain.data_spec import DataSpec
from e2i.domain.gaps import GapSpec
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import ConfigError
from e2i.ml.allocation.plan import allocate

ROWS = tuple({"entity_id": f"h{i}", "a": 1.0 + i, "low": 0.5 + i, "high": 2.0 + i, "pdrp_opt_out": i == 3} for i in range(5))


def asked(**changes: object) -> AllocationSpec:
    response = {"coefficient": "a", "low": "low", "high": "high", "curve": "log", "scale": 2.0}
    values = {"resource": "calls", "entities": ROWS, "maximum": 5.0, "budget": 8.0, "response": response}
    return AllocationSpec.model_validate(values | changes)


async def test_gaps_of_the_synthetic_world_become_a_report_and_every_state_survives_a_checkpoint(tmp_path: Path) -> None:
    spec = GapSpec(data=DataSpec(source="synthetic", table="business_metrics", size=400), segments=("region", ("brand", "region")))
    deps = gap_analyzer.Deps(source=LocalFrameSource(), frames=RunFrames(tmp_path), compute=Inline())
    state = gap_analyzer.State(spec=spec, seed=3)
    codec = StateCodec(gap_analyzer.State)
    for step in gap_analyzer.SPEC.steps:
        state = await step(state, deps)
        assert codec.load(codec.dump(state)) == state
        state = codec.load(codec.dump(state))
    done = await Engine().run(gap_analyzer.SPEC, gap_analyzer.State(spec=spec, seed=3), deps, run_id="r")
    assert done.report == state.report
    assert state.report is not None
    assert len(state.report.opportunities) == 10
    assert all(item.roi.basis == "associational" for item in state.report.opportunities)
    assert state.report.to_dict()["executive_summary"] == state.report.summary()


async def test_a_section_without_data_takes_the_study_table_and_without_both_is_refused(tmp_path: Path) -> None:
    frames = RunFrames(tmp_path)
    deps = gap_analyzer.Deps(source=LocalFrameSource(), frames=frames, compute=Inline())
    table = pl.DataFrame({"metric_date": ["2024-01-01"], "metric_name": ["TRx"], "region": ["south"], "value": [80.0], "target": [100.0]})
    state = gap_analyzer.State(spec=GapSpec(), seed=1, table=frames.save("table", table))
    done = await Engine().run(gap_analyzer.SPEC, state, deps, run_id="r")
    assert done.report.opportunities[0].gap.gap_percent == pytest.approx(20)
    with pytest.raises(ConfigError, match="no KPI table"):
        await Engine().run(gap_analyzer.SPEC, gap_analyzer.State(spec=GapSpec(), seed=1), deps, run_id="r2")


async def test_the_optimizer_finds_what_the_numerics_find_and_every_state_survives_a_checkpoint(tmp_path: Path) -> None:
    deps = resource_optimizer.Deps(source=LocalFrameSource(), frames=RunFrames(tmp_path), compute=Inline())
    state = resource_optimizer.State(spec=asked(), seed=5)
    codec = StateCodec(resource_optimizer.State)
    for step in resource_optimizer.SPEC.steps:
        state = codec.load(codec.dump(await step(state, deps)))
    assert state.plan == allocate(pl.DataFrame(list(ROWS)), asked(), seed=5)
    assert state.plan is not None
    assert "h3" not in {item.entity for item in state.plan.allocations}
    assert len(state.plan.scenarios) == 4


async def test_an_impossible_allocation_ends_without_scenarios_and_names_the_conflict(tmp_path: Path) -> None:
    deps = resource_optimizer.Deps(source=LocalFrameSource(), frames=RunFrames(tmp_path), compute=Inline())
    state = resource_optimizer.State(spec=asked(min_total=9.0), seed=5)
    done = await Engine().run(resource_optimizer.SPEC, state, deps, run_id="r")
    assert done.plan.status == "infeasible"
    assert {item.constraint for item in done.plan.conflict} == {"budget", "min_total"}
    assert [item.must_give for item in done.plan.conflict] == pytest.approx([1.0, 1.0])
    assert done.scenarios == ()


def test_the_agent_outlasts_every_time_limit_that_a_study_may_set() -> None:
    for limit_s, extra_s in ((1, 0), (10, 0), (25, 25), (60, 60)):
        assert resource_optimizer.asked_for(resource_optimizer.State(spec=asked(time_limit_s=limit_s), seed=1)) == extra_s
    assert resource_optimizer.SPEC.asked_for is resource_optimizer.asked_for
