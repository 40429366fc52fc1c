from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from doubles import Inline
from e2i.agents.causal_analytics import gap_analyzer
from e2i.agents.ml_predictions import resource_optimizer
from e2i.agents.monitoring import experiment_designer
from e2i.causal.panel.period_dates import dated
from e2i.data.frame_store import RunFrames
from e2i.data.sources import LocalFrameSource
from e2i.domain.allocation import AllocationSpec
from e2i.domain.gaps import GapReport, GapSpec
from e2i.domain.trials import ExperimentPlan, ExperimentSpec
from e2i.engine.checkpoint import StateCodec
from e2i.engine.graph import Engine
from e2i.errors import SchemaMismatch

MONTHS = 48


def as_text(form: str) -> list[object]:
    """Four years of months from January 2020, as a table may write them."""
    written: dict[str, Callable[[int], object]] = {
        "counted": lambda month: f"M{month + 1}",
        "iso": lambda month: f"{2020 + month // 12}-{month % 12 + 1:02d}",
        "compact": lambda month: (2020 + month // 12) * 100 + month % 12 + 1,
        "quarters": lambda month: f"{2008 + month // 4}Q{month % 4 + 1}",
        "month first": lambda month: f"{month % 12 + 1:02d}.{2020 + month // 12}",
        "number": lambda month: month,
    }
    return [written[form](month) for month in range(MONTHS)]


def areas(form: str) -> pl.DataFrame:
    rng = np.random.default_rng(4)
    factor = np.cumsum(rng.normal(size=(2, MONTHS)), axis=1)
    volume = 200 + rng.uniform(0.5, 1.5, size=(8, 2)) @ factor + rng.normal(size=(8, MONTHS))
    names = np.repeat([f"G{place}" for place in range(8)], MONTHS)
    return pl.DataFrame({"gebiet": names, "monat": as_text(form) * 8, "absatz": volume.ravel()}).sample(fraction=1.0, shuffle=True, seed=1)


async def planned(folder: Path, frame: pl.DataFrame, **changes: object) -> ExperimentPlan:
    frames = RunFrames(folder)
    asked = {"question": "Does it work?", "outcome": "absatz", "unit": "gebiet", "time": "monat", "geo": {"weeks": 3}} | changes
    state = experiment_designer.State(spec=ExperimentSpec.model_validate(asked), name="test", seed=7, table=frames.save("t", frame))
    deps = experiment_designer.Deps(source=LocalFrameSource(), frames=frames, compute=Inline(), language=None)
    done = await Engine().run(experiment_designer.SPEC, state, deps, run_id="r")
    assert isinstance(done.plan, ExperimentPlan)
    return done.plan


@pytest.mark.parametrize(("form", "weeks"), [("counted", 3), ("iso", 14), ("compact", 14), ("quarters", 39)])
async def test_periods_in_text_are_planned_in_the_order_of_time(tmp_path: Path, form: str, weeks: int) -> None:
    told = await planned(tmp_path / "text", areas(form))
    plain = await planned(tmp_path / "numbers", areas("number"))
    assert told.markets == plain.markets
    assert told.estimated_duration_weeks == weeks


async def test_periods_whose_order_is_not_sure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="order is not sure"):
        await planned(tmp_path, areas("month first"))


async def test_test_markets_are_read_at_the_end_alone(tmp_path: Path) -> None:
    plan = await planned(tmp_path, areas("number"), interim_looks=2)
    assert [look.information for look in plan.monitoring.looks] == [1.0]
    assert all(rule.name != "efficacy" for rule in plan.monitoring.rules)
    assert any("interim looks were asked for and are not planned" in text for text in plan.statistical_concerns)


def test_months_quarters_and_weeks_begin_on_their_first_day() -> None:
    assert [str(day) for day in dated(pl.Series("t", ["Q4 24", "Q1 25"]))] == ["2024-10-01", "2025-01-01"]
    assert [str(day) for day in dated(pl.Series("t", [202412, 202501]))] == ["2024-12-01", "2025-01-01"]
    assert [str(day) for day in dated(pl.Series("t", ["2024-W01", "2024-W52"]))] == ["2024-01-01", "2024-12-23"]
    assert [str(day) for day in dated(pl.Series("t", ["31.01.2024", "01.02.2024"]))] == ["2024-01-31", "2024-02-01"]
    assert dated(pl.Series("t", ["M1", "M10", "M2"])).to_list() == [1.0, 10.0, 2.0]
    assert dated(pl.Series("t", [2019, 2020])).to_list() == [2019, 2020]


async def reported(folder: Path, frame: pl.DataFrame) -> GapReport:
    frames = RunFrames(folder)
    columns = {"date": "zeit", "metric": "kennzahl", "value": "wert", "target": "ziel"}
    spec = GapSpec.model_validate({"columns": columns, "segments": ["gebiet"]})
    deps = gap_analyzer.Deps(source=LocalFrameSource(), frames=frames, compute=Inline())
    done = await Engine().run(gap_analyzer.SPEC, gap_analyzer.State(spec=spec, seed=3, table=frames.save("t", frame)), deps, run_id="r")
    assert isinstance(done.report, GapReport)
    return done.report


def kpis(times: list[object]) -> pl.DataFrame:
    rows = [
        {"zeit": time, "kennzahl": "TRx", "gebiet": name, "wert": 60.0 + 10 * i, "ziel": 100.0}
        for time in times
        for i, name in enumerate("NSOW")
    ]
    return pl.DataFrame(rows)


async def test_a_table_of_months_or_quarters_in_text_has_the_gaps_of_its_dates(tmp_path: Path) -> None:
    months = [f"2024-{month:02d}" for month in range(1, 13)]
    plain = await reported(tmp_path / "dates", kpis([f"{month}-01" for month in months]))
    assert plain.period == ("2024-10-01", "2024-12-31")
    written: tuple[list[object], ...] = ([*months], [int(month.replace("-", "")) for month in months])
    for place, times in enumerate(written):
        assert await reported(tmp_path / str(place), kpis(times)) == plain
    quarters = await reported(tmp_path / "quarters", kpis(["2024Q1", "2024Q2", "2024Q3", "2024Q4"]))
    assert quarters.period == plain.period
    with pytest.raises(SchemaMismatch, match="`M1` is no date"):
        await reported(tmp_path / "counted", kpis(["M1", "M2"]))


async def test_an_effect_that_may_not_be_told_leaves_a_refusal_and_no_plan(tmp_path: Path) -> None:
    spec = AllocationSpec.model_validate({"resource": "calls", "budget": 10, "response": {"effect_by": "segment"}})
    deps = resource_optimizer.Deps(source=LocalFrameSource(), frames=RunFrames(tmp_path), compute=Inline())
    state = resource_optimizer.State(spec=spec, seed=5, refusal="the effect has the verdict block.")
    done = await Engine().run(resource_optimizer.SPEC, state, deps, run_id="r")
    assert done.plan.status == "refused"
    assert done.plan.allocations == ()
    assert done.plan.summary() == "No plan is made: the effect has the verdict block."
    codec = StateCodec(resource_optimizer.State)
    assert codec.load(codec.dump(done)) == done
