"""A file that is not loaded gives the estimate of all its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import t

from e2i import config
from e2i.app.large_effect import LargeAnswer, answer_large, large_effect
from e2i.bootstrap.executors import make_executors
from e2i.bootstrap.large_files import large_tables
from e2i.causal.design import Identification
from e2i.causal.panel.event_study import event_times
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.two_way import TwoWayFixedEffects
from e2i.data.compress import LargeFile
from e2i.domain.evidence import Effect
from e2i.domain.study import Study
from e2i.errors import DataError, SchemaMismatch, TooFewRows
from e2i.ports.data import LargeTable

ROWS = 2_000_000
UNITS, PERIODS = 100_000, 20


def cross_section(*, rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Effect 2; access and region move treatment and outcome; noise grows with decile."""
    rng = np.random.default_rng(seed)
    access, decile = rng.normal(size=rows), rng.integers(1, 11, rows)
    region = rng.integers(0, 3, rows)
    program = rng.random(rows) < 1 / (1 + np.exp(0.5 - 0.4 * access - 0.3 * (region == 1)))
    other = 3 + access + rng.normal(size=rows)
    nrx = 100 + 2 * program + 0.3 * decile + 1.5 * (region == 1) + access + rng.normal(size=rows) * decile / 3
    return pl.DataFrame(
        {
            "program": program.astype(np.int8),
            "nrx": nrx,
            "decile": decile,
            "region": np.array(["east", "o'south", "west"])[region],
            "access": access,
            "other": other,
            "territory": rng.integers(0, 300, rows),
            "day": pl.Series(np.arange(rows) % 365).cast(pl.Date),
        }
    )


def panel(*, units: int = UNITS, periods: int = PERIODS, starts: tuple[int, ...] = (12,), seed: int = 1) -> pl.DataFrame:
    """Effect 3 from the unit's start on; half of the units are never treated; rows in no order."""
    rng = np.random.default_rng(seed)
    unit, week = np.repeat(np.arange(units), periods), np.tile(np.arange(periods), units)
    start = np.where(np.arange(units) % 2 == 0, 999, np.array(starts)[np.arange(units) // 2 % len(starts)])
    program = (week >= start[unit]).astype(np.int8)
    nrx = 50 + rng.normal(size=units)[unit] * 3 + np.sin(week) + 3 * program + rng.normal(size=len(unit))
    frame = pl.DataFrame({"npi": unit, "week": week, "program": program, "nrx": nrx, "territory": unit // 250, "other": nrx - 3 * program})
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


def study_of(path: Path, *, unit: str | None = None, time: str | None = None, **effect: object) -> Study:
    return Study.model_validate(
        {
            "name": "large",
            "data": {"source": str(path)},
            "unit": unit,
            "time": time,
            "effect": {"treatment": "program", "outcome": "nrx", **effect},
        }
    )


def answered(path: Path, **roles: object) -> LargeAnswer:
    return answer_large(LargeFile(path=path, memory_gb=0.5), study_of(path, **roles))  # type: ignore[arg-type]


def effect_of(answer: LargeAnswer) -> Effect:
    assert answer.finding.effect is not None
    return answer.finding.effect


def robust(design: np.ndarray, outcome: np.ndarray) -> tuple[float, float]:
    """Coefficient of the first column and its HC1 error, from every row."""
    design = np.column_stack([design, np.ones(len(outcome))])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ (design.T @ outcome)
    scores = design * (outcome - design @ coefficients)[:, None]
    covariance = inverse @ (scores.T @ scores) @ inverse * len(outcome) / (len(outcome) - design.shape[1])
    return float(coefficients[0]), float(np.sqrt(covariance[0, 0]))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, Path]:
    frame, path = cross_section(), tmp_path_factory.mktemp("large") / "rows.parquet"
    frame.write_parquet(path)
    return frame, path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, Path]:
    frame, path = panel(), tmp_path_factory.mktemp("large") / "panel.parquet"
    frame.write_parquet(path)
    return frame, path


@pytest.mark.parametrize("confounders", [("access", "region"), ("decile", "region")], ids=["cross products", "equal rows once"])
def test_a_cross_section_of_two_million_rows_has_the_robust_fit_of_all_of_them(
    wide: tuple[pl.DataFrame, Path], confounders: tuple[str, ...]
) -> None:
    frame, path = wide
    answer = answered(path, confounders=confounders)
    found = effect_of(answer)
    region = frame["region"].to_numpy()
    design = np.column_stack([frame["program"], frame[confounders[0]], region == "o'south", region == "west"]).astype(float)
    estimate, error = robust(design, frame["nrx"].to_numpy())
    assert found.estimate == pytest.approx(estimate, rel=1e-8)
    assert found.standard_error == pytest.approx(error, rel=1e-8)
    assert "HC1" in found.interval_method
    assert found.n_treated == frame["program"].sum()
    assert found.naive_difference is not None
    assert found.naive_difference > found.estimate
    assert (answer.rows, answer.columns, answer.is_synthetic) == (ROWS, tuple(frame.columns), False)
    assert answer.finding.verdict.name == "review"
    assert "one straight line per confounder" in " ".join(answer.finding.verdict.reasons)


def test_a_panel_of_two_million_rows_has_the_two_way_estimate_of_all_of_them(long: tuple[pl.DataFrame, Path]) -> None:
    frame, path = long
    answer = answered(path, unit="npi", time="week")
    found = effect_of(answer)
    spec = Identification(design="did", estimand="ATT", treatment="program", outcome="nrx", unit="npi", time="week")
    whole = make_panel(frame, spec)
    expected = TwoWayFixedEffects().fit(whole, spec, seed=0)
    assert found.estimate == pytest.approx(expected.estimate, rel=1e-8)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-8)
    assert found.interval() == pytest.approx(expected.interval, rel=1e-8)
    assert (found.n_treated, found.n_untreated) == (UNITS // 2, UNITS // 2)
    assert [point.period for point in answer.finding.event_study] == list(range(-12, 8))
    assert answer.finding.verdict.name == "review"
    assert [(test.test, test.passed) for test in answer.finding.refutations] == [("pre_trend", True)]


@pytest.mark.parametrize("cluster", [None, "territory"])
def test_the_event_study_is_the_regression_with_unit_and_period_effects(tmp_path: Path, cluster: str | None) -> None:
    frame = panel(units=2_000, periods=8, starts=(4,)).with_columns(territory=pl.col("npi") // 20)
    shocks = np.random.default_rng(4).normal(size=(100, 8))
    frame = frame.with_columns(nrx=frame["nrx"] + shocks[frame["territory"].to_numpy(), frame["week"].to_numpy()])
    frame.write_parquet(tmp_path / "panel.parquet")
    answer = answered(tmp_path / "panel.parquet", unit="npi", time="week", cluster=cluster)
    spec = Identification(design="did", estimand="ATT", treatment="program", outcome="nrx", unit="npi", time="week", cluster=cluster)
    times = event_times(make_panel(frame, spec), spec, source="two_way")
    points = {point.period: point for point in answer.finding.event_study}
    assert [points[int(time)].estimate for time in times.event_time] == pytest.approx(times.estimate.tolist(), abs=1e-8)
    critical = t.ppf(1 - 0.025 / 7, (2_000 if cluster is None else 100) - 1)
    errors = [(points[int(time)].high - points[int(time)].estimate) / critical for time in times.event_time]
    assert errors == pytest.approx(np.sqrt(np.diag(times.covariance)).tolist(), rel=1e-8)
    assert points[-1].is_reference
    assert points[0].n_treated == 1_000


def codes(answer: LargeAnswer) -> set[str]:
    return {hazard.code for hazard in answer.finding.hazards}


def test_controls_that_treatment_cannot_move_are_tested_in_the_same_way(tmp_path: Path) -> None:
    frame = cross_section(rows=20_000)
    moved = frame.with_columns(moved=pl.col("other") + 0.5 * pl.col("program"), empty=pl.lit(None, dtype=pl.Float64))
    moved.write_parquet(tmp_path / "rows.parquet")
    good = answered(tmp_path / "rows.parquet", confounders=("access", "region"), negative_controls=("other",))
    assert [(test.test, test.passed) for test in good.finding.refutations] == [("negative_control:other", True)]
    assert good.finding.verdict.name == "review"
    bad = answered(tmp_path / "rows.parquet", confounders=("access", "region"), negative_controls=("moved", "empty"))
    assert (bad.finding.refutations[0].test, bad.finding.refutations[0].passed) == ("negative_control:moved", False)
    assert "could not be tested" in bad.finding.refutations[1].detail
    assert bad.finding.verdict.name == "block"


def test_treated_that_drift_before_treatment_are_blocked(tmp_path: Path) -> None:
    frame = panel(units=1_000, periods=8, starts=(4,))
    drifting = frame.with_columns(nrx=pl.col("nrx") + pl.when(pl.col("npi") % 2 == 1).then(0.5 * pl.col("week")).otherwise(0.0))
    drifting.write_parquet(tmp_path / "panel.parquet")
    answer = answered(tmp_path / "panel.parquet", unit="npi", time="week", negative_controls=("other",))
    assert answer.finding.verdict.name == "block"
    failed = {test.test: test.passed for test in answer.finding.refutations}
    assert failed == {"pre_trend": False, "negative_control:other": True}


def test_a_staggered_a_switching_and_a_dosed_panel_say_what_two_way_effects_assume(tmp_path: Path) -> None:
    path = tmp_path / "panel.parquet"
    panel(units=1_000, periods=8, starts=(3, 5)).write_parquet(path)
    staggered = answered(path, unit="npi", time="week")
    assert codes(staggered) == {"two_way_only", "staggered_two_way"}
    assert staggered.finding.event_study == ()
    frame = panel(units=1_000, periods=8, starts=(3,))
    frame.with_columns(program=pl.col("program") * (pl.col("week") < 6)).write_parquet(path)
    assert codes(answered(path, unit="npi", time="week")) == {"two_way_only", "switching_two_way"}
    frame.with_columns(program=pl.col("program") * (1 + pl.col("npi") % 3)).write_parquet(path)
    dosed = answered(path, unit="npi", time="week")
    assert (effect_of(dosed).estimand, effect_of(dosed).naive_difference) == ("APE", None)


@pytest.mark.parametrize(("always", "action"), [(0.1, "warn"), (0.5, "review")])
def test_units_treated_from_their_first_period_on_are_left_out_as_in_memory(tmp_path: Path, always: float, action: str) -> None:
    frame = panel(units=1_000, periods=8, starts=(4,))
    is_always = (pl.col("npi") % 2 == 1) & (pl.col("npi") < 1_000 * always)
    frame = frame.with_columns(
        program=pl.when(is_always).then(1).otherwise("program"),
        nrx=pl.when(is_always).then(pl.col("nrx") + 2.0 * pl.col("week")).otherwise("nrx"),
    )
    path, rest = tmp_path / "panel.parquet", tmp_path / "rest.parquet"
    frame.write_parquet(path)
    frame.filter(~is_always).write_parquet(rest)
    answer = answered(path, unit="npi", time="week", negative_controls=("other",), place="territory")
    expected = answered(rest, unit="npi", time="week")
    (told,) = (hazard for hazard in answer.finding.hazards if hazard.code == "always_treated")
    assert (told.action, told.measured) == (action, 500.0 * always)
    assert effect_of(answer).estimate == pytest.approx(effect_of(expected).estimate, rel=1e-9)
    assert effect_of(answer).n_treated == effect_of(expected).n_treated == 500 * (1 - always)
    assert [point.estimate for point in answer.finding.event_study] == pytest.approx(
        [point.estimate for point in expected.finding.event_study]
    )
    (control,) = (test for test in answer.finding.refutations if test.test == "negative_control:other")
    assert control.passed
    assert "untested_spill_over:territory" in {test.test for test in answer.finding.refutations}


def test_dates_as_periods_and_a_cross_section_with_a_date_are_understood_in_csv_too(tmp_path: Path) -> None:
    frame = panel(units=400, periods=8, starts=(4,))
    dated = frame.with_columns(week=pl.date(2024, 1, 5) + pl.duration(weeks=pl.col("week")))
    dated.write_csv(tmp_path / "panel.csv")
    frame.write_parquet(tmp_path / "panel.parquet")
    by_date = answered(tmp_path / "panel.csv", unit="npi", time="week")
    assert effect_of(by_date).estimate == pytest.approx(effect_of(answered(tmp_path / "panel.parquet", unit="npi", time="week")).estimate)
    assert len(by_date.finding.event_study) == 8
    rows = cross_section(rows=20_000)
    rows.write_csv(tmp_path / "rows.csv")
    found = effect_of(answered(tmp_path / "rows.csv", confounders=("day", "access", "region")))
    days = (rows["day"] - date(1970, 1, 1)).dt.total_days().to_numpy()
    region = rows["region"].to_numpy()
    design = np.column_stack([rows["program"], days, rows["access"], region == "o'south", region == "west"]).astype(float)
    expected = robust(design, rows["nrx"].to_numpy())
    assert (found.estimate, found.standard_error) == pytest.approx(expected, rel=1e-7)


def test_a_dose_is_a_slope_and_clusters_are_kept(tmp_path: Path) -> None:
    frame = cross_section(rows=20_000)
    frame.write_parquet(tmp_path / "rows.parquet")
    dose = effect_of(
        answer_large(
            LargeFile(path=tmp_path / "rows.parquet"),
            study_of(tmp_path / "rows.parquet", confounders=("region", "program"), treatment="access", cluster="territory"),
        )
    )
    assert (dose.estimand, dose.naive_difference) == ("APE", None)
    assert "300 clusters" in dose.interval_method
    assert dose.estimate == pytest.approx(1.0, abs=0.08)


def test_rows_with_gaps_are_left_out_and_counted(tmp_path: Path) -> None:
    frame = cross_section(rows=20_000).with_columns(access=pl.when(pl.int_range(20_000) % 10 == 0).then(None).otherwise("access"))
    frame.write_parquet(tmp_path / "rows.parquet")
    (gaps,) = (hazard for hazard in answered(tmp_path / "rows.parquet", confounders=("access",)).finding.hazards if hazard.measured)
    assert (gaps.code, gaps.action, gaps.measured) == ("incomplete_rows", "review", pytest.approx(0.1))


@pytest.mark.parametrize(
    ("roles", "why"),
    [
        ({"design": "synthetic_control", "unit": "npi", "time": "week"}, "design `synthetic_control` needs its rows"),
        ({"cohort": "week", "unit": "npi", "time": "week"}, "`cohort`"),
        ({"weights": "nrx"}, "sampling weights"),
        ({"instruments": ("other",), "unit": "npi", "time": "week"}, "an instrument"),
        ({"unit": "npi", "time": "week", "estimand": "ATE"}, "estimates ATT, not ATE"),
        ({"unit": "npi", "time": "week", "design": "cross_section"}, "several rows"),
        ({"unit": "npi", "time": "week", "confounders": ("territory",)}, "trends that differ by `territory` need its rows"),
        ({}, "no confounders"),
        ({"confounders": ("program",)}, "cannot be adjusted for"),
    ],
)
def test_questions_that_need_the_rows_are_refused_in_words(tmp_path: Path, roles: dict[str, object], why: str) -> None:
    frame = panel(units=200, periods=6, starts=(3,))
    frame.write_parquet(tmp_path / "panel.parquet")
    answer = answered(tmp_path / "panel.parquet", **roles)
    assert answer.finding.effect is None
    assert answer.finding.verdict.name == "block"
    assert why in str(answer.finding.refusal)
    assert answer.rows == 1_200


def test_data_that_show_no_effect_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame = cross_section(rows=1_000)
    frame.with_columns(program=pl.lit(1)).write_parquet(path)
    assert "in every row" in str(answered(path, confounders=("access",)).finding.refusal)
    frame.with_columns(access=pl.lit(1.0)).write_parquet(path)
    assert "explain `access`" in str(answered(path, confounders=("access",)).finding.refusal)
    panel(units=200, periods=6, starts=(0,)).write_parquet(path)
    assert answered(path, unit="npi", time="week").finding.effect is None
    frame.with_columns(program=pl.col("program") + 1).write_parquet(path)
    with pytest.raises(SchemaMismatch, match="the values 1 and 2, not 0/1"):
        answered(path, confounders=("access",))
    frame.with_columns(npi=pl.int_range(1_000) // 2).write_parquet(path)
    with pytest.raises(SchemaMismatch, match="one row per unit"):
        answered(path, unit="npi", confounders=("access",))
    frame.with_columns(program=(pl.int_range(1_000) < 10).cast(pl.Int8)).write_parquet(path)
    with pytest.raises(TooFewRows, match="each arm needs 30"):
        answered(path, confounders=("access",))
    panel(units=200, periods=6, starts=(3,)).slice(1).write_parquet(path)
    with pytest.raises(DataError, match="not balanced"):
        answered(path, unit="npi", time="week")


@pytest.mark.parametrize("engine", ["process", "local"])
async def test_a_file_beyond_the_threshold_is_streamed_in_any_executor(tmp_path: Path, engine: str) -> None:
    frame = cross_section(rows=50_000)
    frame.write_parquet(tmp_path / "rows.parquet")
    study = study_of(Path("rows.parquet"), confounders=("access", "region"))
    small = config.load(home=tmp_path)
    assert large_tables(small)(study.data, base=tmp_path) is None
    settings = config.load(home=tmp_path, large_files={"threshold_gb": 0.0005, "memory_gb": 0.3})
    table: LargeTable | None = large_tables(settings)(study.data, base=tmp_path)
    assert isinstance(table, LargeFile)
    assert (table.memory_gb, table.threads) == (0.3, 2)
    (compute,) = make_executors(engine, settings, preloads=[()], initialize=int)  # type: ignore[arg-type]
    compute.start()
    try:
        answer = await large_effect(study, table, compute=compute)
    finally:
        compute.close()
    assert effect_of(answer).estimate == pytest.approx(effect_of(answer_large(table, study)).estimate, rel=1e-12)
    synthetic = Study.model_validate({**study.model_dump(), "data": {"source": "synthetic"}})
    assert large_tables(settings)(synthetic.data, base=tmp_path) is None


def test_memory_stays_within_the_tables_limit(long: tuple[pl.DataFrame, Path]) -> None:
    """The peak of a process of its own: libraries, DuckDB's limit, and a row of sums per unit."""
    code = (
        "import sys, json, resource\n"
        "from pathlib import Path\n"
        "from e2i.app.large_effect import answer_large\n"
        "from e2i.data.compress import LargeFile\n"
        "from e2i.domain.study import Study\n"
        "study = Study.model_validate(json.loads(sys.argv[1]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "answer_large(LargeFile(path=Path(study.data.source), memory_gb=0.2), study)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6)"
    )
    _, path = long
    text = study_of(path, unit="npi", time="week").model_dump_json()
    told = subprocess.run([sys.executable, "-c", code, text], check=True, capture_output=True, text=True).stdout
    assert json.loads(told) < 0.5
