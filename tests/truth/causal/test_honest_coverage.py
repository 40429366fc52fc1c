"""Robust intervals hold the truth when trends fail in the worst way that the bound allows; the usual interval does not."""

from __future__ import annotations

import numpy as np
import pytest

from e2i.causal.panel.honest import EventStudy, smoothness
from e2i.causal.panel.honest_relative import RelativeTest

SEEDS = 200
LAG = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
COVARIANCE = 0.02 * 0.5**LAG + 0.01


def studies(mean: np.ndarray):
    root = np.linalg.cholesky(COVARIANCE)
    for seed in range(SEEDS):
        noise = root @ np.random.default_rng(seed).normal(size=6)
        yield EventStudy(periods=(-4, -3, -2, 0, 1, 2), estimates=mean + noise, covariance=COVARIANCE)


@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_relative_magnitudes_cover_at_the_edge_of_the_bound(bound: float) -> None:
    """Steps of 3 before treatment, of 3 Mbar after it, no effect: the set must hold 0 in 95 % of draws; 91 % is 3 errors away."""
    drift = np.r_[3.0, 3.0, 3.0, -bound * 3.0 * np.arange(1, 4)]
    covered = []
    for study in studies(drift):
        test = RelativeTest(estimates=study.estimates, covariance=study.covariance, n_pre=3, target=np.full(3, 1 / 3))
        low, high = test.interval(bound)
        covered.append(low <= 0 <= high)
    assert 0.905 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("bound", [0.0, 0.3])
def test_smooth_intervals_cover_under_a_bending_trend(bound: float) -> None:
    period = np.array([-3, -2, -1, 1, 2, 3])
    covered, usual = [], []
    for study in studies(0.3 * period + 0.5 * bound * period**2):
        found = smoothness(study, grid=[bound])
        covered.append(found.points[0].low <= 0 <= found.points[0].high)
        usual.append(found.original[0] <= 0 <= found.original[1])
    assert 0.905 <= np.mean(covered) <= 0.99
    assert np.mean(usual) < 0.2
