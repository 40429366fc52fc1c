"""The worlds are what they claim: their truths hold, and what is hidden shows where it should and nowhere else."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.late_reports import late_reports
from e2i.causal.worlds import PANEL_WORLDS, WORLDS


def double_difference(frame: pl.DataFrame, column: str, *, first: int) -> float:
    """Treated ever against never, from `first` on against before."""
    ever = frame.group_by("unit").agg(pl.col("treatment").max().alias("ever"))
    means = (
        frame.join(ever, on="unit")
        .with_columns(late=pl.col("time") >= first)
        .group_by("ever", "late")
        .agg(pl.col(column).mean())
        .sort("ever", "late")[column]
    )
    return float(means[3] - means[2] - means[1] + means[0])


@pytest.mark.parametrize("name", ["panel_null", "panel_lift", "panel_strong_targeting"])
def test_a_double_difference_finds_the_truth_of_a_sound_panel(name: str) -> None:
    world = PANEL_WORLDS[name]
    assert world.is_sound
    frame = world.draw(3_000, seed=1)
    assert double_difference(frame, "outcome", first=10) == pytest.approx(world.truth(3_000, seed=1), abs=0.06)
    assert abs(double_difference(frame, "negative_control", first=10)) < 0.06


def test_targeting_by_growth_and_shocks_mislead_a_double_difference() -> None:
    for name in ("panel_trend_targeting", "panel_access_shock"):
        assert not PANEL_WORLDS[name].is_sound
        assert double_difference(PANEL_WORLDS[name].draw(3_000, seed=1), "outcome", first=10) > 0.2
    assert double_difference(PANEL_WORLDS["panel_access_shock"].draw(3_000, seed=1), "negative_control", first=10) > 0.25
    assert abs(double_difference(PANEL_WORLDS["panel_trend_targeting"].draw(3_000, seed=1), "negative_control", first=10)) < 0.08


def test_the_effect_fades_and_its_truth_is_the_average_over_treated_rows() -> None:
    world = PANEL_WORLDS["panel_fade_out"]
    assert 0.2 * world.lift < world.truth(500, seed=2) < 0.6 * world.lift
    assert PANEL_WORLDS["panel_lift"].truth(500, seed=2) == pytest.approx(1.0)


def test_carry_over_switches_off_and_on_and_leaves_something_behind() -> None:
    frame = PANEL_WORLDS["panel_carry_over"].draw(2_000, seed=1).sort("unit", "time")
    after = frame.with_columns(before=pl.col("treatment").shift(1).over("unit")).filter(
        pl.col("treatment") == 0, pl.col("before").is_not_null()
    )
    means = after.filter(pl.col("time") > 5).group_by("before").agg(pl.col("outcome").mean()).sort("before")["outcome"]
    assert means[1] - means[0] > 0.3


def test_spill_over_lifts_the_untreated() -> None:
    frame = PANEL_WORLDS["panel_spill_over"].draw(3_000, seed=1)
    assert double_difference(frame, "outcome", first=10) < 0.8 * PANEL_WORLDS["panel_spill_over"].lift


def test_late_reports_are_seen_and_complete_ones_are_not_accused() -> None:
    def found(name: str, seed: int) -> bool:
        frame = PANEL_WORLDS[name].draw(300, seed=seed)
        return late_reports(frame["time"].to_numpy().astype(np.int64) - 1, frame["outcome"].to_numpy()) is not None

    assert sum(found("panel_restatement", seed) for seed in range(40)) >= 36
    assert sum(found(name, seed) for name in ("panel_lift", "panel_fade_out", "panel_null") for seed in range(40)) <= 3


def volumes(growth: float, *, dip: float = 0.0, missing: float = 0.0, seed: int = 0) -> bool:
    """Whether 30 months of 100 units are accused: growth per month, a dip every December (the last month too), the last two unreported."""
    rng, t = np.random.default_rng(seed), np.arange(30)
    level = 50.0 * np.exp(growth * t + 0.02 * rng.normal(size=30).cumsum()) * np.where(t % 12 == 5, 1.0 - dip, 1.0)
    outcome = level * np.where(t >= 28, 1.0 - missing, 1.0) * np.exp(0.3 * rng.normal(size=(100, 30)))
    return late_reports(np.tile(t, 100), outcome.ravel()) is not None


@pytest.mark.parametrize("growth", [-0.03, 0.0, 0.03])
def test_late_reports_are_judged_against_growth(growth: float) -> None:
    assert sum(volumes(growth, seed=seed) for seed in range(40)) <= 2
    assert sum(volumes(growth, missing=0.3, seed=seed) for seed in range(40)) >= 28


def test_a_last_period_without_any_volume_is_not_complete() -> None:
    rng = np.random.default_rng(1)
    outcome = rng.poisson(20.0, size=(50, 12)) * (np.arange(12) < 11)
    assert late_reports(np.tile(np.arange(12), 50), outcome.ravel().astype(np.float64)) is not None


def test_a_dip_that_came_a_year_before_too_is_a_season() -> None:
    assert sum(volumes(0.0, dip=0.3, seed=seed) for seed in range(40)) <= 8


def test_a_short_panel_is_not_judged_for_late_reports() -> None:
    assert late_reports(np.arange(5), np.ones(5)) is None


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_draw_is_reproducible_and_has_its_columns(name: str) -> None:
    world = WORLDS[name]
    frame = world.draw(200, seed=3)
    assert frame.equals(world.draw(200, seed=3))
    spec = world.effect(earlier=True, negative_exposure=True)
    named = {spec.treatment, spec.outcome, *spec.confounders, *spec.negative_controls, *spec.negative_exposures, *spec.pre_outcomes}
    assert named <= set(frame.columns)
    assert not frame.null_count().sum_horizontal().item()


@pytest.mark.parametrize("name", ["hidden_50_null", "hidden_75_lift", "trend_targeting", "mediator"])
def test_in_an_unsound_world_least_squares_on_its_own_question_is_wrong(name: str) -> None:
    world = WORLDS[name]
    assert not world.is_sound
    frame = world.draw(20_000, seed=1)
    spec = world.effect()
    design = [frame["treatment"].to_numpy(), np.ones(20_000)]
    design += [frame[c].to_numpy() if c != "group" else (frame[c] == "c").to_numpy() for c in spec.confounders]
    found = np.linalg.lstsq(np.column_stack(design).astype(float), frame["outcome"].to_numpy(), rcond=None)[0][0]
    assert abs(found - world.truth("ATE")) > 0.15
