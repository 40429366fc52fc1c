"""Event studies, their bands, and what the periods before treatment tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from panel_worlds import SPEC, staggered

from e2i.causal.panel.clusters import uniform_critical_value
from e2i.causal.panel.event_study import event_study, event_times
from e2i.causal.panel.pre_trend import detectable, placebo_in_time, pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.errors import NotIdentified


def test_effects_are_counted_from_the_first_treated_period_and_grow_as_planted() -> None:
    spec = replace(SPEC, adjustment=("x",))  # x shifts trends and decides who is treated early
    points = event_study(make_panel(staggered(2_000), spec), spec, seed=1)
    assert [point.period for point in points] == list(range(-7, 7))
    assert [point.period for point in points if point.is_reference] == [-1]
    for point in points:
        truth = 1.0 + 0.3 * point.period if point.period >= 0 else 0.0
        assert point.estimate == pytest.approx(truth, abs=0.3)
        assert point.low <= truth <= point.high


def test_under_one_start_the_regression_and_the_group_time_event_study_agree() -> None:
    panel = make_panel(staggered(cohorts=(0, 5)), SPEC)
    one, other = (event_times(panel, SPEC, source=source) for source in ("two_way", "group_time"))
    assert one.event_time.tolist() == other.event_time.tolist()
    assert one.estimate == pytest.approx(other.estimate, abs=1e-9)
    assert np.sqrt(np.diag(one.covariance)) == pytest.approx(np.sqrt(np.diag(other.covariance)), rel=0.01)


def test_a_regression_event_study_refuses_staggered_adoption() -> None:
    with pytest.raises(NotIdentified, match="one start"):
        event_times(make_panel(staggered(), SPEC), SPEC, source="two_way")


def test_anticipation_moves_the_reference() -> None:
    spec = replace(SPEC, anticipation=1)
    points = event_study(make_panel(staggered(), spec), spec, seed=1)
    assert [point.period for point in points if point.is_reference] == [-2]


def test_the_uniform_critical_value_is_the_normal_maximum_for_independent_effects() -> None:
    """Five independent normals: the largest stays below 2.569 in 95 % of draws."""
    influence = np.random.default_rng(1).normal(size=(4_000, 5))
    assert uniform_critical_value(influence, seed=2, draws=20_000) == pytest.approx(2.569, abs=0.03)
    assert uniform_critical_value(influence[:, :1], seed=2) == pytest.approx(1.96, abs=0.08)
    repeated = np.repeat(influence[:, :1], 5, axis=1)
    assert uniform_critical_value(repeated, seed=2) == pytest.approx(1.96, abs=0.08)


def test_the_stretch_for_bounds_leaves_out_the_reference() -> None:
    study = event_times(make_panel(staggered(), SPEC), SPEC).for_bounds()
    assert -1 not in study.periods
    assert study.n_pre == 6
    assert study.covariance.shape == (len(study.periods),) * 2


@pytest.mark.parametrize("source", ["two_way", "group_time"])
def test_a_drift_before_treatment_is_found_and_measured(source: str) -> None:
    panel = make_panel(staggered(cohorts=(0, 6), drift=0.3).with_columns(y=pl.col("y") - 0.2 * pl.col("x") * pl.col("t")), SPEC)
    joint, line = pre_trend_tests(event_times(panel, SPEC, source=source))
    assert (joint.test, joint.passed) == ("pre_trend", False)
    assert (line.test, line.passed) == ("pre_period_trend", False)
    assert line.estimate == pytest.approx(0.3, abs=0.06)
    placebo = placebo_in_time(panel, SPEC, seed=1)
    assert placebo is not None
    assert not placebo.passed
    assert placebo.estimate == pytest.approx(0.3 * 1.5 + 0.15, abs=0.25)


def test_a_sound_panel_passes_and_the_power_is_told() -> None:
    panel = make_panel(staggered(cohorts=(0, 6)).with_columns(y=pl.col("y") - 0.2 * pl.col("x") * pl.col("t")), SPEC)
    tests = [*pre_trend_tests(event_times(panel, SPEC)), placebo_in_time(panel, SPEC, seed=1)]
    assert all(test.passed for test in tests)
    assert "80 % power" in tests[1].detail
    assert "80 % power" in tests[2].detail


def test_the_detectable_violation_is_found_in_four_of_five_draws() -> None:
    from scipy.stats import t

    violation = detectable(1.0, 500, 0.05)
    draws = np.random.default_rng(0).normal(violation, 1.0, 100_000)
    assert (np.abs(draws) > t.ppf(0.975, 500)).mean() == pytest.approx(0.8, abs=0.01)


def test_one_period_before_treatment_gives_no_test() -> None:
    panel = make_panel(staggered(cohorts=(0, 2)), SPEC)
    assert pre_trend_tests(event_times(panel, SPEC)) == ()
    assert placebo_in_time(panel, SPEC, seed=1) is None


def test_one_treated_cluster_gives_no_test() -> None:
    frame = staggered(100, cohorts=(0, 6)).with_columns(g=pl.when(pl.col("u") == 3).then(6).otherwise(0))
    assert pre_trend_tests(event_times(make_panel(frame, SPEC), SPEC)) == ()
