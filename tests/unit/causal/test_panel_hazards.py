"""Each fault of a panel has its code, its measure and its action; a sound panel has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import Identification
from e2i.causal.panel.hazards import panel_hazards
from e2i.causal.panel.prepare import make_panel
from e2i.domain.evidence import Hazard

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t")
N, T = 60, 8


def sound(treated: int = 20, start: int = 5, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    u, t = np.repeat(np.arange(N), T), np.tile(np.arange(T), N)
    d = ((u < treated) & (t >= start)).astype(int)
    return pl.DataFrame(
        {"u": u, "t": t, "d": d, "y": d + rng.normal(size=N)[u] + 0.2 * t + rng.normal(size=N * T), "x": rng.normal(size=N * T)}
    )


def hazards(frame: pl.DataFrame, spec: Identification = SPEC) -> dict[str, Hazard]:
    return {hazard.code: hazard for hazard in panel_hazards(make_panel(frame, spec), spec)}


def test_units_that_leave_by_chance_before_anybody_starts_are_no_differential_attrition() -> None:
    """A unit that left is never seen treated: counted as untreated it would make the untreated leave more often."""
    kept = np.random.default_rng(3).random(N) > 0.3
    frame = sound(treated=30).filter(pl.Series(kept[np.repeat(np.arange(N), T)]) | (pl.col("t") < 2))
    assert "differential_attrition" not in hazards(frame)
    leaving = sound(treated=30).filter(~((pl.col("d") == 1) & (pl.col("t") > 5) & (pl.col("u") % 2 == 0)))
    assert hazards(leaving)["differential_attrition"].action == "review"


def test_units_that_leave_at_random_are_no_differential_attrition_however_few() -> None:
    """The arms' shares of lost rows differ by chance, and by more the fewer units there are."""
    alarms = 0
    for seed in range(30):
        last = np.random.default_rng(seed).integers(3, 12, N)
        frame = sound(treated=25).filter(pl.col("t") < pl.Series(np.repeat(last, T)))
        alarms += "differential_attrition" in hazards(frame)
    assert alarms <= 2


def test_a_sound_panel_has_no_hazard() -> None:
    assert hazards(sound()) == {}
    assert hazards(sound(), replace(SPEC, adjustment=("x",))) == {}


CASES: dict[str, tuple[Callable[[], pl.DataFrame], Identification, str, str]] = {
    "a tenth of the rows missing": (lambda: sound().sample(fraction=0.9, seed=1), SPEC, "unbalanced_panel", "warn"),
    "a third of the rows missing": (lambda: sound().sample(fraction=0.66, seed=1), SPEC, "unbalanced_panel", "review"),
    "the treated leave": (lambda: sound().filter((pl.col("d") == 0) | (pl.col("u") % 2 == 0)), SPEC, "differential_attrition", "review"),
    "a skipped period": (lambda: sound().filter(pl.col("t") != 3), SPEC, "gaps", "warn"),
    "holes within units": (lambda: sound().filter((pl.col("u") > 10) | (pl.col("t") != 3)), SPEC, "gaps_in_units", "warn"),
    "one cluster": (lambda: sound().with_columns(c=pl.lit(1)), replace(SPEC, cluster="c"), "one_cluster", "refuse"),
    "six clusters": (lambda: sound().with_columns(c=pl.col("u") % 6), replace(SPEC, cluster="c"), "few_clusters", "review"),
    "treated from the start": (
        lambda: sound().with_columns(d=pl.when(pl.col("u") < 3).then(1).otherwise("d")), SPEC, "always_treated", "warn"
    ),
    "treated before entry": (
        lambda: sound().filter(~pl.col("u").is_in([0, 1]) | (pl.col("t") > 5)), SPEC, "treated_before_entry", "warn"
    ),
    "switched off": (
        lambda: sound().with_columns(d=pl.when(pl.col("t") == 7).then(0).otherwise("d")), SPEC, "treatment_switched_off", "refuse"
    ),
    "three treated": (lambda: sound(treated=3), SPEC, "few_treated", "review"),
    "three controls": (lambda: sound(treated=57), SPEC, "few_controls", "review"),
    "one pre-period": (lambda: sound(start=1), SPEC, "short_pre_period", "review"),
    "anticipation eats the pre-periods": (lambda: sound(start=2), replace(SPEC, anticipation=2), "no_pre_period", "refuse"),
    "constant outcome": (lambda: sound().with_columns(y=pl.lit(1.0)), SPEC, "outcome_constant", "refuse"),
    "absurd outcome": (
        lambda: sound().with_columns(y=pl.when(pl.int_range(pl.len()) == 9).then(1e15).otherwise("y")), SPEC, "extreme_outcome", "refuse"
    ),
    "two units of measure": (
        lambda: sound().with_columns(y=pl.when(pl.col("t") * pl.col("u") % 50 == 9).then(1e4).otherwise("y")),
        SPEC, "units_mixed", "refuse",
    ),
    "a mediator": (
        lambda: sound().with_columns(x=pl.col("x") * 0.3 + pl.col("d")),
        replace(SPEC, adjustment=("x",)), "confounder_after_treatment", "review",
    ),
    "a copy of the treatment": (
        lambda: sound().with_columns(x=2.0 * pl.col("d")), replace(SPEC, adjustment=("x",)), "copies_treatment", "refuse"
    ),
    "a copy of the outcome": (
        lambda: sound().with_columns(x=2.0 * pl.col("y")), replace(SPEC, adjustment=("x",)), "copies_outcome", "refuse"
    ),
    "outcomes missing": (
        lambda: sound().with_columns(y=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("y")),
        SPEC, "missing_outcome", "review",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_has_its_code_and_action(fault: str) -> None:
    make, spec, code, action = CASES[fault]
    found = hazards(make(), spec)
    assert code in found, found
    assert found[code].action == action
    assert found[code].text
    assert found[code].remedy


def test_the_measure_is_what_was_measured() -> None:
    frame = sound().filter((pl.col("u") < 58) | (pl.col("t") < 2))
    assert hazards(frame)["unbalanced_panel"].measured == pytest.approx(12 / (N * T))


def test_a_handful_of_missing_rows_is_not_counted_out() -> None:
    lacking = sound().with_columns(y=pl.when((pl.col("u") == 59) & (pl.col("t").is_in([3, 4]))).then(None).otherwise("y"))
    found = hazards(lacking)
    for code in ("unbalanced_panel", "missing_outcome", "gaps_in_units"):
        assert found[code].measured is None
        assert "fewer than 11" in found[code].text
        assert "%" not in found[code].text


def scaled(column: str, rows: pl.Expr) -> pl.DataFrame:
    frame = sound().with_columns(x=pl.col("x") + 5.0, n=pl.col("x") + 5.0)
    return frame.with_columns(pl.when(rows).then(pl.col(column) * 1_000.0).otherwise(pl.col(column)).alias(column))


TENTH = (pl.col("u") + 3 * pl.col("t")) % 10 == 0


def test_a_dose_in_two_units_of_measure_ends_the_analysis() -> None:
    spec = replace(SPEC, treatment="x", treatment_kind="continuous")
    assert "units_mixed" not in hazards(scaled("x", pl.lit(value=False)), spec)
    assert hazards(scaled("x", TENTH), spec)["units_mixed"].action == "refuse"
    larger = sound().with_columns(x=pl.col("x") + pl.when(pl.col("u") < 6).then(5_000.0).otherwise(0.0))
    assert hazards(larger, spec)["units_mixed"].action == "review", "a few units may be that large"


def test_confounders_and_controls_in_two_units_of_measure_want_review() -> None:
    adjusted, controlled = replace(SPEC, adjustment=("x",)), replace(SPEC, negative_controls=("n",))
    assert hazards(scaled("x", TENTH), adjusted)["units_mixed"].action == "review"
    assert hazards(scaled("n", TENTH), controlled)["units_mixed"].action == "review"


def test_a_code_for_missing_among_outcomes_needs_a_person_and_among_controls_a_look() -> None:
    coded = scaled("n", pl.lit(value=False)).with_columns(pl.when(TENTH).then(-999.0).otherwise(pl.col("y", "n")).name.keep())
    assert hazards(coded)["missing_code"].action == "override"
    sane = coded.with_columns(y=sound()["y"])
    assert hazards(sane, replace(SPEC, negative_controls=("n",)))["missing_code"].action == "review"


def test_a_value_beyond_all_measure_in_a_confounder_ends_the_analysis() -> None:
    frame = sound().with_columns(x=pl.when((pl.col("u") == 1) & (pl.col("t") == 1)).then(9.99e14).otherwise("x"))
    assert hazards(frame, replace(SPEC, adjustment=("x",)))["extreme_value"].action == "refuse"


def test_counts_of_one_to_ten_units_are_not_told() -> None:
    few = hazards(sound(treated=3))["few_treated"]
    assert few.measured is None
    assert "3" not in few.text


def test_a_design_for_on_and_off_lets_treatment_end() -> None:
    frame = sound().with_columns(d=pl.when(pl.col("t") == 7).then(0).otherwise("d"))
    assert "treatment_switched_off" not in hazards(frame, replace(SPEC, treatment_kind="on_off"))


def test_what_cannot_be_tested_is_not_an_error() -> None:
    spec = replace(SPEC, cluster="c", adjustment=("x",))
    assert "one_cluster" in hazards(sound().with_columns(c=pl.lit(1)), spec)
    alone = replace(SPEC, design="interrupted_time_series", adjustment=("x",))
    assert hazards(sound().filter(pl.col("u") == 1), alone) == {}


def test_the_worst_comes_first() -> None:
    frame = sound(treated=3).with_columns(d=pl.when(pl.col("t") == 7).then(0).otherwise("d")).sample(fraction=0.95, seed=1)
    order = [hazard.action for hazard in panel_hazards(make_panel(frame, SPEC), SPEC)]
    assert order[0] == "refuse"
    assert order == sorted(order, key=("refuse", "override", "block", "review", "warn").index)
