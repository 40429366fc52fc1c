"""Categories of many levels: their levels' means stand for them, so what the levels have of their own is adjusted for."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.arrays import FloatArray
from e2i.causal.design import Sample, prepare
from e2i.causal.designs.level_means import prepare_with_level_means
from e2i.causal.estimators.least_squares import independent_columns, least_squares
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec
from e2i.errors import SchemaMismatch

EFFECT = 0.5


def world(seed: int, *, rows: int = 2_000, places: int = 90) -> pl.DataFrame:
    """Each place has a level of its own that moves treatment and outcome; none of 30 rows."""
    rng = np.random.default_rng(seed)
    place, level = rng.integers(0, places, rows), rng.normal(size=places)
    a = rng.normal(size=rows) + 0.5 * level[place]
    chance = 1.0 / (1.0 + np.exp(-0.5 * a - 0.7 * level[place]))
    t = (rng.random(rows) < chance).astype(int)
    base = a + 0.7 * level[place]
    columns = {"a": a, "zip": [f"{10_000 + 7 * p}" for p in place], "t": t, "y": base + EFFECT * t + rng.normal(size=rows)}
    return pl.DataFrame(columns | {name: base + rng.normal(size=rows) for name in ("y2", "y1")})


def spec(**more: object) -> EffectSpec:
    return EffectSpec(treatment="t", outcome="y", confounders=("a", "zip"), **more)  # type: ignore[arg-type]


def samples(frame: pl.DataFrame, effect: EffectSpec | None = None) -> tuple[Sample, Sample]:
    identification = identify(effect or spec(), frame)
    return prepare(frame, identification), prepare_with_level_means(frame, identification)


def slope(sample: Sample) -> float:
    design = np.column_stack([np.ones(len(sample.outcome)), sample.treatment, sample.covariates.matrix])
    return float(least_squares(design[:, independent_columns(design)], sample.outcome).coefficients[1])


def within(frame: pl.DataFrame) -> float:
    """The fixed effects estimate: every column less its place's mean."""
    left = frame.select((pl.col(name) - pl.col(name).mean().over("zip")).alias(name) for name in ("t", "a", "y")).to_numpy()
    solved: FloatArray = np.linalg.lstsq(left[:, :2], left[:, 2], rcond=None)[0]
    return float(solved[0])


def whole(frame: pl.DataFrame) -> pl.DataFrame:
    """Places with five rows or more and both arms."""
    both = (pl.col("t").n_unique().over("zip") == 2) & (pl.len().over("zip") >= 5)
    return frame.filter(both)


@pytest.mark.parametrize("seed", range(5))
def test_by_least_squares_they_give_the_fixed_effects_estimate(seed: int) -> None:
    frame = whole(world(seed))
    before, after = samples(frame)
    assert slope(after) == pytest.approx(within(frame), abs=1e-9)
    assert abs(slope(before) - within(frame)) > 0.005


def test_the_told_effect_is_right_and_is_not_blocked() -> None:
    for seed in (1, 2):
        finding = analyse(world(seed), effect=spec(pre_outcomes=("y2", "y1")), seed=seed)
        assert finding.effect is not None
        assert abs(finding.effect.estimate - EFFECT) < 3 * finding.effect.standard_error
        assert finding.verdict.name != "block"


def test_whole_numbers_are_names_only_where_the_column_says_so() -> None:
    frame = world(1).with_columns(pl.col("zip").cast(pl.Int64))
    added = [name for name in samples(frame)[1].covariates.names if name.startswith("zip: ")]
    assert added == ["zip: share treated", "zip: mean a"]
    other = frame.rename({"zip": "age_in_days"})
    effect = EffectSpec(treatment="t", outcome="y", confounders=("a", "age_in_days"))
    before, after = samples(other, effect)
    assert after.covariates.names == before.covariates.names


def test_levels_of_one_arm_are_taken_as_one_so_none_decides_treatment() -> None:
    after = samples(world(3, rows=1_500, places=120))[1]
    share = after.covariates.matrix[:, after.covariates.names.index("zip: share treated")]
    assert share.min() > 0
    assert share.max() < 1


def test_few_rows_for_most_levels_leave_the_column_as_it_is() -> None:
    wide = world(1, rows=900, places=300).with_columns(
        zip=pl.when(pl.int_range(pl.len()) < 300).then(pl.lit("home")).otherwise(pl.col("zip"))
    )
    before, after = samples(wide)
    assert after.covariates.names == before.covariates.names


def test_levels_too_small_for_columns_of_their_own_are_adjusted_for_and_identifiers_refused() -> None:
    small = world(1, places=200)
    identification = identify(spec(), small)
    with pytest.raises(SchemaMismatch, match="200 levels, none held by at least 20 rows"):
        prepare(small, identification)
    assert slope(prepare_with_level_means(whole(small), identification)) == pytest.approx(within(whole(small)), abs=1e-9)
    own = small.with_columns(zip=pl.int_range(pl.len()).cast(pl.String))
    with pytest.raises(SchemaMismatch, match="if it is an identifier"):
        prepare_with_level_means(own, identification)


def test_rows_without_outcome_or_treatment_are_left_out_alike() -> None:
    gaps = world(1).with_columns(
        pl.when(pl.int_range(pl.len()) % 11 == 0).then(None).otherwise(pl.col("y")).alias("y"),
        pl.when(pl.int_range(pl.len()) % 13 == 0).then(float("nan")).otherwise(pl.col("t").cast(pl.Float64)).alias("t"),
    )
    before, after = samples(gaps)
    assert len(after.covariates.matrix) == len(before.outcome)
    assert np.isfinite(after.covariates.matrix).all()


@pytest.mark.parametrize("kind", ["dose", "levels"])
def test_doses_and_levels_have_their_own_means(kind: str) -> None:
    rng = np.random.default_rng(8)
    treatment = pl.Series("t", rng.gamma(2.0, size=2_000) if kind == "dose" else rng.choice(["none", "email", "rep"], 2_000))
    effect = spec(reference="none") if kind == "levels" else spec()
    names = samples(world(1).with_columns(treatment), effect)[1].covariates.names
    expected = {"zip: mean treatment"} if kind == "dose" else {"zip: share of email", "zip: share of rep"}
    assert expected <= set(names)
