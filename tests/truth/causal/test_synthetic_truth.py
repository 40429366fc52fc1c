"""Worlds with known effects: bias, coverage of the 95 % intervals, size of the placebo tests.

A coverage of 95 % gives at least 89 of 100 with probability 0.996, a false-alarm rate of 5 % at most 12 of 100 with 0.998.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.interrupted import InterruptedSeries
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.synthetic_control import SyntheticControl
from e2i.causal.panel.synthetic_did import SyntheticDiD
from e2i.domain.evidence import Refutation

SEEDS = 100
FEWEST_COVERED, MOST_ALARMS = 89, 12
EFFECT = 2.0
SPEC = Identification(design="synthetic_control", estimand="ATT", treatment="treated", outcome="y", unit="unit", time="period")

Study = tuple[Estimate, tuple[Refutation, ...]]


def factor_world(seed: int, *, units: int = 30, periods: int = 60, start: int = 45, treated: int = 1, serial: float = 0.0) -> pl.DataFrame:
    """Three autocorrelated factors, unit levels and noise; units are alike, so that those treated could have been any."""
    rng = np.random.default_rng(seed)
    factors, noise = rng.normal(size=(3, periods)), rng.normal(size=(units, periods))
    for period in range(1, periods):
        factors[:, period] += 0.5 * factors[:, period - 1]
        noise[:, period] += serial * noise[:, period - 1]
    paths = 10 + 0.8 * rng.normal(size=(units, 3)) @ factors + rng.normal(size=(units, 1)) + noise
    return frame_of(paths, np.where(np.arange(units) < treated, start, periods))


def frame_of(paths: np.ndarray, starts: np.ndarray, effect: float = EFFECT) -> pl.DataFrame:
    unit, period = np.meshgrid(np.arange(len(paths)), np.arange(paths.shape[1]), indexing="ij")
    treated = period >= starts[:, None]
    outcome = paths + effect * treated
    return pl.DataFrame({"unit": unit.ravel(), "period": period.ravel(), "y": outcome.ravel(), "treated": treated.ravel().astype(int)})


def summary(studies: list[Study], effect: float = EFFECT) -> tuple[float, int, int]:
    """Mean error in standard deviations of its mean, intervals that cover, placebos in time that fail."""
    errors = np.array([estimate.estimate - effect for estimate, _ in studies])
    covered = sum(estimate.interval[0] <= effect <= estimate.interval[1] for estimate, _ in studies)
    alarms = sum(test.test == "placebo_in_time" and not test.passed for _, tests in studies for test in tests)
    return float(errors.mean() / (errors.std(ddof=1) / np.sqrt(len(errors)))), covered, alarms


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "estimator", "method"),
    [
        ({}, SyntheticControl(), "conformal"),
        ({"serial": 0.5}, SyntheticControl(), "conformal"),
        ({"periods": 24, "start": 16}, SyntheticControl(), "placebo in space"),
        ({"periods": 24, "start": 16, "treated": 3, "units": 40}, SyntheticControl(), "placebo in space"),
        ({}, SyntheticDiD(replications=60), "placebo in space"),
        ({"treated": 15, "units": 60}, SyntheticDiD(), "jackknife"),
    ],
)
def test_a_planted_effect_is_found_without_bias_and_covered_at_the_nominal_rate(
    world: dict[str, float], estimator: SyntheticControl | SyntheticDiD, method: str
) -> None:
    studies = []
    for seed in range(SEEDS):
        fit = estimator.study(make_panel(factor_world(seed, **world), SPEC), SPEC, seed=seed)  # type: ignore[arg-type]
        studies.append((fit.estimate, fit.refutations))
    bias, covered, alarms = summary(studies)
    assert studies[0][0].interval_method.startswith(method)
    assert abs(bias) < 3.3
    assert covered >= FEWEST_COVERED
    assert alarms <= MOST_ALARMS


def test_under_the_null_the_placebo_p_value_rejects_at_its_level() -> None:
    rejected = 0
    for seed in range(SEEDS):
        panel = make_panel(factor_world(seed, periods=24, start=16).with_columns(y=pl.col("y") - EFFECT * pl.col("treated")), SPEC)
        estimate = SyntheticControl().fit(panel, SPEC, seed=seed)
        rejected += estimate.diagnostics["placebo_p_value"] <= 0.1
    assert 2 <= rejected <= 20


def test_synthetic_did_removes_most_of_the_bias_that_another_trend_gives_a_plain_double_difference() -> None:
    naive, ours = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        slopes = rng.uniform(0, 1, size=(40, 1))
        slopes[:8] = 0.6 + 0.3 * rng.uniform(size=(8, 1))
        paths = slopes * np.arange(24) * 0.3 + rng.normal(size=(40, 1)) + 0.5 * rng.normal(size=(40, 24))
        starts = np.where(np.arange(40) < 4, 12, np.where(np.arange(40) < 8, 18, 24))
        panel = make_panel(frame_of(paths, starts), SPEC)
        ours.append(SyntheticDiD(replications=20).fit(panel, SPEC, seed=seed).estimate - EFFECT)
        change = panel.matrix()[:, 12:].mean(axis=1) - panel.matrix()[:, :12].mean(axis=1)
        naive.append(change[:4].mean() - change[8:].mean() - EFFECT)
    assert np.mean(naive) > 0.5
    assert abs(np.mean(ours)) < 0.45 * np.mean(naive)


@pytest.mark.slow
def test_effects_at_several_starts_are_covered() -> None:
    studies = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        factors = rng.normal(size=(2, 30)).cumsum(axis=1) * 0.3
        paths = rng.normal(size=(40, 2)) @ factors + rng.normal(size=(40, 1)) + rng.normal(size=(40, 30))
        starts = np.where(np.arange(40) < 2, 18, np.where(np.arange(40) < 4, 23, 30))
        fit = SyntheticDiD(replications=40).study(make_panel(frame_of(paths, starts), SPEC), SPEC, seed=seed)
        studies.append((fit.estimate, fit.refutations))
    bias, covered, alarms = summary(studies)
    assert abs(bias) < 3.3
    assert covered >= 52
    assert alarms <= 8


@pytest.mark.slow
@pytest.mark.parametrize("serial", [0.0, 0.6])
def test_an_interrupted_series_covers_with_serial_correlation_where_newey_west_does_not(serial: float) -> None:
    studies, newey_west = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=98)
        for period in range(1, 98):
            noise[period] += serial * noise[period - 1]
        path = 10 + 0.1 * np.arange(48) + noise[50:]
        panel = make_panel(frame_of(path[None], np.array([32])), interrupted())
        fit = InterruptedSeries().study(panel, interrupted(), seed=seed)
        studies.append((fit.estimate, fit.refutations))
        newey_west.append((InterruptedSeries(errors="hac").fit(panel, interrupted(), seed=seed), ()))
    bias, covered, alarms = summary(studies)
    assert abs(bias) < 3.3
    assert covered >= 52
    assert alarms <= 8
    assert summary(newey_west)[1] < covered


def interrupted() -> Identification:
    return Identification(design="interrupted_time_series", estimand="ATT", treatment="treated", outcome="y", unit="unit", time="period")
