"""Units, codes for missing and single rows in every role: found where they are, and not found where they are not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.hazard_checks import mixed_units, two_scales
from e2i.causal.hazard_scale import missing_codes
from e2i.causal.hazards import validate
from e2i.domain.study import EffectSpec

ROWS = 600
ROW = pl.int_range(pl.len())
SPEC = EffectSpec(treatment="t", outcome="y", confounders=("a", "segment"), negative_controls=("other",), pre_outcomes=("before",))


def table(seed: int = 5) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=ROWS)
    dose = 2.0 + 0.5 * a + rng.normal(size=ROWS)
    columns = {"a": a, "t": dose, "y": 50 + 2 * dose + a + rng.normal(size=ROWS), "other": a + rng.normal(size=ROWS)}
    segment = rng.choice(["north", "south"], ROWS)
    return pl.DataFrame({**columns, "before": a + rng.normal(size=ROWS), "segment": segment})


def binary() -> pl.DataFrame:
    return table().with_columns(t=(pl.col("t") > 2 + pl.Series(np.random.default_rng(1).normal(size=ROWS))).cast(pl.Int64))


def found(frame: pl.DataFrame, spec: EffectSpec = SPEC) -> dict[str, str]:
    return {hazard.code: hazard.action for hazard in validate(frame, spec) if hazard.action != "warn"}


def every(step: int, changed: pl.Expr, name: str) -> pl.Expr:
    return pl.when(ROW % step == 0).then(changed).otherwise(pl.col(name)).alias(name)


def test_tables_without_a_fault_have_no_hazard() -> None:
    assert found(table()) == found(binary()) == {}


@pytest.mark.parametrize("column", ["t", "y"])
def test_a_dose_or_an_outcome_in_two_units_is_refused(column: str) -> None:
    assert found(table().with_columns(every(10, 1000 * pl.col(column), column)))["units_mixed"] == "refuse"


@pytest.mark.parametrize("column", ["a", "other", "before"])
def test_other_columns_in_two_units_are_looked_at_by_a_person(column: str) -> None:
    assert found(table().with_columns(every(7, 1000 * pl.col(column), column)))["units_mixed"] == "review"


def test_an_outcome_partly_in_thousandths_is_seen_though_it_lies_near_the_rest() -> None:
    assert found(table().with_columns(every(10, pl.col("y") / 1000, "y"))) == {"two_scales": "review"}


def test_units_are_found_among_the_values_that_are_not_zero() -> None:
    rng = np.random.default_rng(2)
    spend = np.where(rng.random(2_000) < 0.6, 0.0, rng.normal(50.0, 5.0, 2_000))
    assert mixed_units(spend) is None
    assert mixed_units(np.where(np.arange(2_000) % 20 == 0, 1000 * spend, spend)) is not None


@pytest.mark.parametrize("seed", range(10))
def test_heavy_tails_counts_and_dose_levels_are_one_unit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = (
        rng.lognormal(3, 2, 1_000),
        np.where(rng.random(1_000) < 0.7, 0, rng.lognormal(3, 2, 1_000)),
        rng.poisson(rng.gamma(0.5, 6, 1_000)).astype(np.float64),
        rng.choice([0.0, 1.0, 20.0, 500.0], 1_000),
        rng.standard_t(2, 1_000),
        rng.integers(18, 100, 1_000).astype(np.float64),
    )
    for values in clean:
        assert (mixed_units(values), two_scales(values), missing_codes(values).tolist()) == (None, None, [])


@pytest.mark.parametrize(("name", "code", "action"), [("t", 9, "override"), ("y", 9, "override"), ("flag", -9, "review")])
def test_a_code_for_missing_in_a_yes_or_no_column_is_no_number(name: str, code: int, action: str) -> None:
    frame = binary().with_columns(y=(pl.col("y") > 54).cast(pl.Int64), flag=(ROW % 3 == 0).cast(pl.Int64))
    spec = SPEC.model_copy(update={"confounders": ("a", "flag")})
    assert "missing_code" not in found(frame, spec)
    assert found(frame.with_columns(every(12, pl.lit(code), name)), spec)["missing_code"] == action


@pytest.mark.parametrize("doses", [(0, 3, 6, 9), (3, 6, 9), (49, 79, 99)])
def test_the_highest_of_evenly_spaced_doses_stands_for_itself(doses: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    assert missing_codes(rng.choice(doses, 600).astype(float)).size == 0
    assert missing_codes(np.where(rng.random(600) < 0.05, -99.0, rng.choice(doses, 600))).tolist() == [-99.0]


def test_a_few_stray_values_in_a_yes_or_no_treatment_are_told() -> None:
    assert found(binary().with_columns(every(100, pl.lit(2), "t")))["stray_treatment_value"] == "review"


@pytest.mark.parametrize(("value", "action"), [(60.0, "review"), (1e6, "block")])
def test_a_single_row_does_not_decide_the_slope_of_a_dose_in_silence(value: float, action: str) -> None:
    assert found(table().with_columns(pl.when(ROW == 5).then(value).otherwise(pl.col("t")).alias("t")))["one_row_decides"] == action


def test_numbers_that_a_word_has_turned_into_text_are_not_adjusted_for_as_groups() -> None:
    age = (20 + ROW % 60).cast(pl.String)
    frame = binary().with_columns(a=pl.when(ROW == 7).then(pl.lit("unknown")).otherwise(age))
    assert found(frame)["numbers_as_text"] == "override"
    assert "numbers_as_text" not in found(frame.with_columns(a=pl.format("0{}", age)))  # a code such as ZIP 02139
    assert "numbers_as_text" not in found(frame.with_columns(a=(101 + ROW % 40).cast(pl.String)))  # territories 101 to 140
    assert "numbers_as_text" not in found(frame.with_columns(a=pl.format("dept {}", age)))


def test_a_treatment_in_words_is_answered_when_its_reference_is_named() -> None:
    words = binary().with_columns(t=pl.when(pl.col("t") == 1).then(pl.lit("test")).otherwise(pl.lit("control")))
    hazard = next(each for each in validate(words, SPEC) if each.code == "treatment_as_text")
    assert "reference: control" in hazard.remedy
    assert found(words, SPEC.model_copy(update={"reference": "control"})) == {}
    assert found(words.with_columns(t=pl.lit("test")))["constant_treatment"] == "refuse"


def test_the_share_measured_too_early_is_of_the_treated() -> None:
    frame = binary().with_columns(begun=pl.lit("2024-05-01").str.to_date(), seen=pl.lit("2024-04-01").str.to_date())
    spec = SPEC.model_copy(update={"treated_at": "begun", "measured_at": "seen"})
    hazard = next(each for each in validate(frame, spec) if each.code == "outcome_before_treatment")
    assert hazard.measured == 1.0


def test_rows_without_a_cluster_are_refused_with_a_code() -> None:
    frame = binary().with_columns(every(9, pl.lit(None), "segment")).rename({"segment": "office"})
    spec = SPEC.model_copy(update={"confounders": ("a",), "cluster": "office"})
    assert found(frame, spec)["cluster_missing"] == "refuse"
