"""Every hazard has its code, a measured value and a remedy, and nothing about the data is raised."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.hazards import validate
from e2i.causal.worlds import WORLDS
from e2i.domain.evidence import Hazard
from e2i.domain.study import EffectSpec

ROWS = 600
SPEC = EffectSpec(treatment="t", outcome="y", confounders=("a", "b", "segment"), negative_controls=("other",), pre_outcomes=("before",))
DAY = date(2026, 1, 1)


def clean(rows: int = ROWS, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=rows), rng.normal(size=rows)
    segment = rng.choice(["north", "south", "west"], rows)
    t = (rng.random(rows) < sigmoid(0.5 * a - 0.3 * b)).astype(int)
    y = 2.0 * t + a + 0.5 * b + rng.normal(size=rows)
    return pl.DataFrame(
        {
            "npi": np.arange(rows),
            "a": a,
            "b": b,
            "segment": segment,
            "t": t,
            "y": y,
            "other": a + rng.normal(size=rows),
            "before": a + rng.normal(size=rows),
            "weight": rng.uniform(0.5, 2.0, rows),
            "region": rng.integers(0, 20, rows),
            "treated_at": [DAY + timedelta(days=int(k)) for k in rng.integers(0, 30, rows)],
            "measured_at": [DAY + timedelta(days=90)] * rows,
            "entered_at": [DAY - timedelta(days=30)] * rows,
        }
    )


FULL = SPEC.model_copy(
    update={
        "weights": "weight",
        "cluster": "region",
        "treated_at": "treated_at",
        "measured_at": "measured_at",
        "entered_at": "entered_at",
    }
)


def codes(frame: pl.DataFrame, spec: EffectSpec = FULL) -> list[str]:
    return [hazard.code for hazard in validate(frame, spec, unit="npi")]


def setting(column: str, value: object, every: int = 50) -> pl.DataFrame:
    return clean().with_columns(pl.when(pl.int_range(pl.len()) % every == 0).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


def put(**columns: pl.Expr) -> pl.DataFrame:
    return clean().with_columns(**columns)


ROW = pl.int_range(pl.len())
HAZARDS: dict[str, tuple[Callable[[], pl.DataFrame], str, str]] = {
    "constant treatment": (lambda: put(t=pl.lit(1)), "constant_treatment", "refuse"),
    "few treated": (lambda: put(t=(ROW < 20).cast(pl.Int64)), "few_per_arm", "refuse"),
    "3 rows": (lambda: clean().head(3), "too_few_rows", "refuse"),
    "constant outcome": (lambda: put(y=pl.lit(3.5)), "constant_outcome", "refuse"),
    "outcome repeats treatment": (lambda: put(y=2.0 * pl.col("t")), "outcome_repeats_treatment", "refuse"),
    "treatment coded 1/2": (lambda: put(t=pl.col("t") + 1), "treatment_coding", "refuse"),
    "treatment as text": (lambda: put(t=pl.col("t").cast(pl.String)), "treatment_as_text", "refuse"),
    "outcome 0/1 as text": (lambda: put(y=pl.when(pl.col("y") > 0).then(pl.lit("1")).otherwise(pl.lit("0"))), "outcome_as_text", "refuse"),
    "outcome yes/no": (lambda: put(y=pl.when(pl.col("y") > 0).then(pl.lit("yes")).otherwise(pl.lit("no"))), "outcome_as_text", "refuse"),
    "outcome numbers as text": (lambda: put(y=pl.col("y").cast(pl.String)), "outcome_as_text", "refuse"),
    "infinite outcome": (lambda: setting("y", float("inf"), 500), "infinite_values", "refuse"),
    "infinite confounder": (lambda: setting("a", float("-inf"), 500), "infinite_values", "refuse"),
    "infinite control": (lambda: setting("other", float("inf"), 500), "infinite_values", "refuse"),
    "infinite weight": (lambda: setting("weight", float("inf"), 500), "infinite_values", "refuse"),
    "1e308 in the outcome": (lambda: setting("y", 1e308, 500), "extreme_value", "refuse"),
    "1e200 in a confounder": (lambda: setting("b", 1e200, 500), "extreme_value", "refuse"),
    "two units": (lambda: put(y=pl.when(ROW % 10 == 0).then(pl.col("y") * 1000).otherwise(pl.col("y"))), "units_mixed", "refuse"),
    "empty confounder": (lambda: put(a=pl.lit(None, dtype=pl.Float64)), "confounder_without_values", "refuse"),
    "NaN confounder": (lambda: put(a=pl.lit(float("nan"))), "confounder_without_values", "refuse"),
    "confounder mostly missing": (
        lambda: put(a=pl.when(ROW % 3 == 0).then(pl.col("a")).otherwise(None)),
        "confounder_mostly_missing",
        "review",
    ),
    "duplicate units": (lambda: put(npi=ROW // 2), "duplicate_units", "refuse"),
    "negative weights": (lambda: put(weight=-pl.col("weight")), "weights_not_positive", "refuse"),
    "missing weights": (lambda: setting("weight", None), "weights_not_positive", "refuse"),
    "weights as text": (lambda: put(weight=pl.lit("heavy")), "weights_as_text", "refuse"),
    "outcome before treatment": (lambda: put(measured_at=pl.lit(DAY)), "outcome_before_treatment", "override"),
    "entry after treatment": (lambda: put(entered_at=pl.lit(DAY + timedelta(days=10))), "entry_after_treatment", "override"),
    "dates as text": (lambda: put(treated_at=pl.lit("spring")), "dates_as_text", "refuse"),
    "outcome among the confounders": (lambda: put(a=3 * pl.col("y") - 1), "confounder_is_outcome", "refuse"),
    "treatment among the confounders": (lambda: put(a=1.0 - pl.col("t")), "confounder_is_treatment", "refuse"),
    "leak": (lambda: put(a=pl.col("y") + 0.2 * pl.col("b")), "leak", "review"),
    "control is the outcome": (lambda: put(other=2 * pl.col("y")), "control_is_outcome", "refuse"),
    "earlier outcome is the outcome": (lambda: put(before=pl.col("y")), "control_is_outcome", "refuse"),
    "no overlap": (lambda: put(t=(pl.col("a") > 0).cast(pl.Int64)), "perfect_separation", "refuse"),
    "treatment by formula": (
        lambda: put(a=pl.col("t") + pl.col("b")),
        "treatment_determined",
        "refuse",
    ),
    "collinear": (lambda: put(b=2 * pl.col("a") + 1), "collinear_confounders", "warn"),
    "all treated in a segment": (
        lambda: put(t=pl.when(pl.col("segment") == "west").then(1).otherwise(pl.col("t"))),
        "segment_with_one_arm",
        "refuse",
    ),
    "one cluster": (lambda: put(region=pl.lit(1)), "one_cluster", "refuse"),
    "five clusters": (lambda: put(region=ROW % 5), "few_clusters", "review"),
}


def test_a_clean_table_has_no_hazard() -> None:
    assert codes(clean()) == []


@pytest.mark.parametrize("hazard", HAZARDS)
def test_each_hazard_has_its_code_and_its_remedy(hazard: str) -> None:
    build, code, action = HAZARDS[hazard]
    found = [one for one in validate(build(), FULL, unit="npi") if one.code == code]
    assert found, codes(build())
    assert found[0].action == action
    assert found[0].remedy
    assert found[0].text[0] != " "


def test_a_recode_is_named() -> None:
    found = validate(HAZARDS["outcome yes/no"][0](), FULL, unit="npi")[0]
    assert '"no", "yes"' in found.text
    assert "1 for yes" in found.remedy
    assert "cast `y` to a number" in validate(HAZARDS["outcome numbers as text"][0](), FULL, unit="npi")[0].remedy


def test_a_name_that_sounds_late_is_asked_about_and_a_post_code_is_not() -> None:
    spec = SPEC.model_copy(update={"confounders": ("a", "calls_post", "post_code")})
    found = validate(put(calls_post=pl.col("b"), post_code=ROW % 7), spec)
    assert [one.text.split("`")[1] for one in found if one.code == "confounder_after_treatment"] == ["calls_post"]


def test_a_missing_column_is_a_hazard_not_an_error() -> None:
    assert [one.code for one in validate(clean().drop("y", "b"), SPEC)] == ["column_missing"]


def test_the_worst_stands_first() -> None:
    found = validate(
        put(t=pl.lit(1), calls_post=pl.col("b"), b=2 * pl.col("a")), FULL.model_copy(update={"confounders": ("calls_post", "a", "b")})
    )
    order = ["refuse", "override", "block", "review", "warn"]
    assert [order.index(one.action) for one in found] == sorted(order.index(one.action) for one in found)


def test_counts_of_a_few_people_are_not_told() -> None:
    found = validate(put(t=(ROW < 7).cast(pl.Int64)), FULL, unit="npi")
    assert any("fewer than 11 rows" in one.text for one in found)
    assert not any(" 7 rows" in one.text for one in found)


def test_several_levels_and_doses_are_not_called_miscoded() -> None:
    for treatment in (pl.col("segment"), pl.col("other") + pl.col("before"), ROW % 4):
        assert not [code for code in codes(put(t=treatment)) if code.startswith("treatment_")]


@pytest.mark.parametrize("name", ["linear", "curved", "heterogeneous", "binary", "count", "no_effect"])
def test_clean_worlds_are_hardly_ever_refused(name: str) -> None:
    spec = WORLDS[name].effect(earlier=True, negative_exposure=True)
    refused = sum(bool(stops(validate(WORLDS[name].draw(500, seed=seed), spec))) for seed in range(35))
    assert refused == 0


def stops(found: tuple[Hazard, ...]) -> list[Hazard]:
    return [one for one in found if one.action in ("refuse", "override", "block")]


VALUES = st.one_of(st.none(), st.floats(), st.integers(-3, 3).map(float))


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=0, max_size=80))
def test_whatever_the_numbers_are_nothing_is_raised(rows: list[tuple[float | None, ...]]) -> None:
    schema = dict.fromkeys(("t", "y", "a", "other"), pl.Float64)
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    spec = EffectSpec(treatment="t", outcome="y", confounders=("a",), negative_controls=("other",), weights="a", cluster="other")
    assert all(isinstance(one, Hazard) for one in validate(frame, spec))
