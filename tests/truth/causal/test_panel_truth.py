"""Planted staggered effects: group-time and imputation find them and their intervals cover, two-way fixed effects does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import Identification
from e2i.causal.panel.event_study import event_times
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.pre_trend import placebo_in_time, pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.two_way import TwoWayFixedEffects

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t", cohort="g", treatment_kind="staggered")
SEEDS = 120
FEWEST = 107
"""95 % of 120 is 114; fewer than 107 has probability 0.003"""
UNITS, PERIODS = 150, 10


def draw(
    seed: int, *, growth: float = 0.5, drift: float = 0.0, confounded: bool = False, missing: float = 0.0
) -> tuple[pl.DataFrame, float]:
    """Early cohorts gain more, effects grow by `growth` per period; noise is serially correlated. Returns the true average too."""
    rng = np.random.default_rng(10_000 + seed)
    x = rng.normal(size=UNITS)
    g = np.array([0, 3, 5, 8])[rng.integers(0, 4, UNITS)]
    if confounded:
        g = np.where(rng.random(UNITS) < 1 / (1 + np.exp(-0.8 * x)), np.where(rng.random(UNITS) < 0.5, 3, 5), 0)
    t = np.arange(1, PERIODS + 1)
    treated = (g[:, None] > 0) & (t >= g[:, None])
    effect = treated * ((1.5 * (g == 3) + 0.5 * (g > 3))[:, None] + growth * (t - g[:, None]))
    noise = rng.normal(size=(UNITS, PERIODS))
    for period in range(1, PERIODS):
        noise[:, period] += 0.5 * noise[:, period - 1]
    trend = 0.3 * np.sin(t) + (0.3 * x[:, None] * t if confounded else 0.0) + drift * (g > 0)[:, None] * t
    y = rng.normal(size=UNITS)[:, None] + trend + effect + noise
    frame = pl.DataFrame(
        {
            "u": np.repeat(np.arange(UNITS), PERIODS),
            "t": np.tile(t, UNITS),
            "g": np.repeat(g, PERIODS),
            "y": y.ravel(),
            "x": np.repeat(x, PERIODS),
        }
    )
    keep = rng.random(UNITS * PERIODS) >= missing
    kept = treated.ravel() & keep
    return frame.filter(pl.Series(keep)), float(effect.ravel()[kept].mean())


def test_group_time_and_imputation_are_unbiased_and_cover_where_two_way_fixed_effects_is_wrong() -> None:
    found: dict[str, list[tuple[float, float, bool]]] = {"group": [], "imputation": [], "two way": []}
    for seed in range(SEEDS):
        frame, truth = draw(seed)
        panel = make_panel(frame, SPEC)
        for name, estimator in (("group", GroupTime()), ("imputation", Imputation()), ("two way", TwoWayFixedEffects())):
            one = estimator.fit(panel, SPEC, seed=seed)
            found[name].append((one.estimate - truth, one.standard_error, one.interval[0] < truth < one.interval[1]))
    for name in ("group", "imputation"):
        error, spread, covered = np.array(found[name]).T
        assert abs(error.mean()) < 3.3 * error.std() / np.sqrt(SEEDS), name
        assert covered.sum() >= FEWEST, name
        # Shares of cohorts vary from draw to draw and so does the truth; the errors here are about this draw's truth.
        assert 0.85 < spread.mean() / error.std() < 1.5, name
    error, _, covered = np.array(found["two way"]).T
    assert error.mean() < -1.0
    assert covered.sum() < 20


def test_a_fading_effect_is_followed_period_by_period() -> None:
    hits, seeds = np.zeros(7), 60
    for seed in range(seeds):
        frame, _ = draw(seed, growth=-0.2)
        study = event_times(make_panel(frame.filter(pl.col("g").is_in([0, 5])), SPEC), SPEC)
        error = np.sqrt(np.diag(study.covariance))
        after = study.event_time >= 0
        truth = 0.5 - 0.2 * study.event_time[after]
        hits[: int(after.sum())] += np.abs(study.estimate[after] - truth) < 1.98 * error[after]
    assert (hits[:6] >= 51).all()  # 51 of 60: probability 0.002 under 95 %


def test_a_uniform_band_holds_for_all_periods_at_once() -> None:
    inside = 0
    for seed in range(100):
        frame, _ = draw(seed, growth=0.0)
        points = event_times(make_panel(frame.filter(pl.col("g").is_in([0, 5])), SPEC), SPEC).points(seed=seed)
        truth = [0.5 if point.period >= 0 else 0.0 for point in points]
        inside += all(point.low <= value <= point.high for point, value in zip(points, truth, strict=True))
    assert inside >= 88


@pytest.mark.parametrize("method", ["doubly_robust", "regression", "weighting"])
def test_covariates_that_shift_trends_and_timing_are_taken_out(method: str) -> None:
    spec = replace(SPEC, adjustment=("x",))
    raw, adjusted, covered = [], [], 0
    for seed in range(60):
        frame, truth = draw(seed, confounded=True)
        raw.append(GroupTime().fit(make_panel(frame, SPEC), SPEC, seed=seed).estimate - truth)
        one = GroupTime(control="never", method=method).fit(make_panel(frame, spec), spec, seed=seed)
        adjusted.append(one.estimate - truth)
        covered += one.interval[0] < truth < one.interval[1]
    assert np.mean(raw) > 0.5
    assert abs(np.mean(adjusted)) < 3.3 * np.std(adjusted) / np.sqrt(60) + 0.03  # weights of a finite sample leave a trace
    assert covered >= 51


def test_gaps_at_random_change_nothing_but_precision() -> None:
    errors, covered = [], 0
    for seed in range(60):
        frame, truth = draw(seed, missing=0.25)
        panel = make_panel(frame, SPEC)
        one = Imputation().fit(panel, SPEC, seed=seed)
        errors.append(one.estimate - truth)
        covered += one.interval[0] < truth < one.interval[1]
    assert abs(np.mean(errors)) < 3.3 * np.std(errors) / np.sqrt(60)
    assert covered >= 51


def test_tests_before_treatment_fail_a_sound_panel_in_at_most_5_percent_and_find_a_drift() -> None:
    failed, found = 0, 0
    for seed in range(100):
        for drift in (0.0, 0.25):
            panel = make_panel(draw(seed, drift=drift)[0], SPEC)
            placebo = placebo_in_time(panel, SPEC, seed=seed)
            tests = [*pre_trend_tests(event_times(panel, SPEC)), *([placebo] if placebo is not None else [])]
            assert len(tests) == 3
            fails = any(not test.passed for test in tests)
            failed, found = failed + (fails and drift == 0), found + (fails and drift > 0)
    assert failed <= 11  # 12 or more of 100 has probability 0.004 under 5 %
    assert found >= 80
