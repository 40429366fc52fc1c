from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pytest

from e2i.agents.ml_foundation import scope_definer
from e2i.agents.ml_foundation.data_preparer import SPEC, Deps, State, detect_leakage
from e2i.data.frame_store import RunFrames
from e2i.data.sources import LocalFrameSource
from e2i.domain.data_spec import DataSpec
from e2i.domain.quality import QCReport
from e2i.domain.scope import excluded_features
from e2i.domain.study import EffectSpec, PredictionSpec, Study
from e2i.engine.executor import LocalExecutor
from e2i.engine.graph import Engine
from e2i.errors import SchemaMismatch
from e2i.mlops.data_quality import DataQualityValidator
from e2i.mlops.quality_alerts import severity_of

T = TypeVar("T")
TODAY = date(2026, 1, 1)
ROWS = 1_500
STUDY = Study(
    name="lift",
    data=DataSpec(source="panel.parquet"),
    unit="npi",
    effect=EffectSpec(treatment="treated", outcome="change", confounders=("decile",)),
    prediction=PredictionSpec(target="converted", event_time="index_date", protected=("age_group",), after_event=("visits_after",)),
)


def good() -> pl.DataFrame:
    rng = np.random.default_rng(11)
    decile = rng.integers(1, 11, ROWS)
    converted = (rng.uniform(size=ROWS) < decile / 20).astype(int)
    return pl.DataFrame(
        {
            "npi": [f"n{row}" for row in range(ROWS)],
            "index_date": [date(2025, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 300, ROWS)],
            "decile": decile,
            "specialty": rng.choice(["oncology", "hematology"], ROWS),
            "calls": rng.poisson(3.0, ROWS).astype(float),
            "treated": rng.integers(0, 2, ROWS),
            "change": rng.normal(size=ROWS),
            "visits_after": converted + rng.poisson(1.0, ROWS),
            "converted": converted,
            "age_group": rng.choice(["18-34", "65+"], ROWS),
        }
    )


class Inline:
    """An Executor that runs where it is asked."""

    async def run(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return function(*args, **kwargs)


@dataclass
class Quality:
    """QualityRecords in memory."""

    saved: list[QCReport] = field(default_factory=list)

    async def save(self, report: QCReport, *, study: Study, split: str) -> str:
        assert (study.name, split) == ("lift", "unassigned")
        self.saved.append(report)
        return "uuid"


@dataclass
class Alerts:
    """QualityAlerter in memory."""

    sent: list[str] = field(default_factory=list)

    async def alert(self, report: QCReport) -> None:
        self.sent.append(severity_of(report))


@dataclass
class Bench:
    folder: Path
    quality: Quality = field(default_factory=Quality)
    alerts: Alerts = field(default_factory=Alerts)
    compute: Inline | LocalExecutor = field(default_factory=Inline)

    def deps(self) -> Deps:
        return Deps(
            source=LocalFrameSource(),
            frames=RunFrames(self.folder / "run"),
            validator=DataQualityValidator(today=TODAY),
            alerter=self.alerts,
            quality=self.quality,
            compute=self.compute,
        )

    async def prepare(self, frame: pl.DataFrame, study: Study = STUDY) -> State:
        frame.write_parquet(self.folder / "panel.parquet")
        source = LocalFrameSource()
        columns = source.columns(study.data, base=self.folder)
        state = scope_definer.State(study=study, columns=columns, experiment_id="exp_1", base=str(self.folder))
        for step in scope_definer.SPEC.steps[:-1]:
            state = await step(state, scope_definer.Deps(experiments=None, source=source))  # type: ignore[arg-type]
        assert state.scope is not None
        done = await Engine().run(SPEC, State(study=study, scope=state.scope, base=str(self.folder)), self.deps(), run_id="r")
        assert isinstance(done, State)
        return done


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path)


def blocking(state: State) -> set[tuple[str, str | None]]:
    assert state.qc is not None
    return {(issue.check, issue.column) for issue in state.qc.blocking}


async def test_good_data_are_judged_divided_and_measured_on_train_alone(bench: Bench) -> None:
    done = await bench.prepare(good())
    assert done.qc is not None
    assert done.qc.gate_passed
    assert done.table is not None
    assert (done.table.rows, done.table_name, done.is_synthetic) == (ROWS, "panel", False)
    assert done.data_sha256 == LocalFrameSource().load(STUDY.data, base=bench.folder).sha256
    assert done.plan is not None
    assert done.plan.strategy == "chronological"
    assert {split: ref.rows for split, ref in done.splits.items()} == done.plan.rows
    assert sum(done.plan.rows.values()) + done.plan.gap_rows == ROWS
    train = RunFrames(bench.folder / "run").read_split("train", reader="model_trainer", purpose="x")
    assert train["index_date"].max() < RunFrames(bench.folder / "run").load(done.splits["validation"])["index_date"].min()  # type: ignore[operator]
    assert done.baselines is not None
    assert done.baselines.training_samples == train.height
    assert done.baselines.target_rate == pytest.approx(train["converted"].mean())
    by_name = {feature.column: feature for feature in done.baselines.features}
    assert set(by_name) == set(done.scope.required_features) == {"decile", "specialty", "calls", "treated"}
    assert by_name["calls"].mean == pytest.approx(train["calls"].mean())
    assert by_name["calls"].p75 == pytest.approx(train["calls"].quantile(0.75, interpolation="linear"))
    assert by_name["specialty"].levels is not None
    assert by_name["specialty"].levels["oncology"] == pytest.approx((train["specialty"] == "oncology").mean())
    assert done.baselines.correlations["decile"]["converted"] == pytest.approx(train.select(pl.corr("decile", "converted")).item())


async def test_the_report_is_written_down_and_told(bench: Bench) -> None:
    done = await bench.prepare(good())
    assert bench.quality.saved == [done.qc]
    assert bench.alerts.sent == ["info"]


async def test_a_blocked_study_stops_before_it_is_divided(bench: Bench) -> None:
    done = await bench.prepare(good().with_columns(calls=pl.when(pl.col("decile") > 5).then(float("inf")).otherwise("calls")))
    assert blocking(done) == {("infinite_values", "calls")}
    assert (done.plan, done.splits, done.baselines) == (None, {}, None)
    assert bench.quality.saved == [done.qc]
    assert bench.alerts.sent == ["error"]
    assert not (bench.folder / "run" / "splits").exists()


LEAKS: dict[str, tuple[pl.Expr, str]] = {
    "copy": (pl.col("converted").alias("won"), "target_copy"),
    "opposite": ((1 - pl.col("converted")).alias("won"), "target_copy"),
    "noise": ((pl.col("converted") + 0.25 * pl.Series(np.random.default_rng(1).normal(size=ROWS))).alias("won"), "target_near_copy"),
}


@pytest.mark.parametrize("kind", sorted(LEAKS))
async def test_a_leaked_target_closes_the_gate_before_a_split_is_written(bench: Bench, kind: str) -> None:
    expression, check = LEAKS[kind]
    done = await bench.prepare(good().with_columns(expression))
    assert blocking(done) == {(check, "won")}
    assert done.qc is not None
    assert (done.qc.status, done.qc.gate_passed) == ("failed", False)
    assert done.splits == {}
    assert bench.alerts.sent == ["critical"]


async def test_a_column_from_after_the_event_leaks_unless_the_study_says_so(bench: Bench) -> None:
    late = good().with_columns((pl.col("index_date") + pl.duration(days=3)).alias("decided_on"))
    assert blocking(await bench.prepare(late)) == {("date_after_event", "decided_on")}
    prediction = STUDY.prediction
    assert prediction is not None
    told = STUDY.model_copy(update={"prediction": prediction.model_copy(update={"after_event": ("visits_after", "decided_on")})})
    done = await bench.prepare(late, told)
    assert done.qc is not None
    assert done.qc.gate_passed
    assert "decided_on" not in done.splits["train"].columns


async def test_findings_of_the_gate_survive_the_later_steps(bench: Bench) -> None:
    done = await bench.prepare(
        good().with_columns(pl.col("converted").alias("won"), pl.col("index_date").dt.strftime("%d.%m.%Y").alias("seen"))
    )
    assert done.qc is not None
    assert ("date_as_text", "seen") in {(issue.check, issue.column) for issue in done.qc.issues}
    assert ("target_copy", "won") in blocking(done)


async def test_columns_that_cannot_be_features_leave_the_scope_with_their_reason(bench: Bench) -> None:
    done = await bench.prepare(good().with_columns(pl.col("index_date").dt.strftime("%d.%m.%Y").alias("seen")))
    assert done.qc is not None
    assert done.qc.gate_passed
    assert "seen" not in done.scope.required_features
    assert "dates as text" in done.scope.excluded_features["seen"]


async def test_a_study_without_a_usable_feature_blocks(bench: Bench) -> None:
    study = STUDY.model_copy(update={"effect": None, "prediction": PredictionSpec(target="converted", features=("seen",))})
    done = await bench.prepare(good().with_columns(pl.col("index_date").dt.strftime("%d.%m.%Y").alias("seen")).drop("change"), study)
    assert ("no_features", None) in blocking(done)


async def test_data_that_cannot_be_divided_block(bench: Bench) -> None:
    study = STUDY.model_copy(update={"effect": None, "prediction": PredictionSpec(target="converted", group="specialty")})
    done = await bench.prepare(good().drop("index_date", "visits_after"), study)
    assert {check for check, _ in blocking(done)} == {"splits_impossible"}
    assert done.splits == {}


async def test_a_study_that_asks_only_for_an_effect_is_judged_and_not_divided(bench: Bench) -> None:
    done = await bench.prepare(good(), STUDY.model_copy(update={"prediction": None}))
    assert done.qc is not None
    assert done.qc.gate_passed
    assert done.table is not None
    assert (done.plan, done.splits, done.baselines) == (None, {}, None)


async def test_a_crash_inside_the_leakage_checks_blocks(bench: Bench) -> None:
    done = await bench.prepare(good())
    # A feature that the table does not hold: the detector cannot go on.
    broken = replace(done, scope=replace(done.scope, required_features=("decile", "gone")))
    after = await detect_leakage(broken, bench.deps())
    assert blocking(after) == {("check_crashed", None)}
    assert after.qc is not None
    assert after.qc.score is None
    assert not after.qc.gate_passed


async def test_a_table_that_was_changed_behind_our_back_is_refused(bench: Bench) -> None:
    done = await bench.prepare(good())
    assert done.table is not None
    good().head(3).write_parquet(bench.folder / "run" / done.table.path)
    with pytest.raises(SchemaMismatch, match="not what was saved"):
        await detect_leakage(done, bench.deps())


async def test_the_work_runs_in_a_worker_process(tmp_path: Path) -> None:
    compute = LocalExecutor()
    try:
        done = await Bench(folder=tmp_path, compute=compute).prepare(good())
    finally:
        compute.close()
    assert done.qc is not None
    assert done.qc.gate_passed
    assert done.baselines is not None


def test_identifiers_by_name_never_reach_the_features() -> None:
    names = ["npi_id", "first_name", "e-mail", "phone_number", "zip_code", "patient_hash", "decile"]
    assert set(excluded_features(STUDY, names)) == set(names) - {"decile"}
