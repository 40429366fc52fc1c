"""Bootstrap intervals cover the population's metric at about the nominal rate."""

from __future__ import annotations

import numpy as np
import pytest

from e2i.ml.bootstrap import BinaryMetrics, RegressionMetrics
from e2i.ml.calibration import expit
from e2i.ml.evaluation import evaluate

SAMPLES = 120
POPULATION = 400_000


def draw(n: int, *, seed: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and probabilities of a model that is somewhat off."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n) * 1.2 + shift
    return (rng.random(n) < expit(z)).astype(float), expit(0.8 * z - 0.2)


@pytest.mark.parametrize("shift", [-0.3, -2.2], ids=["half are events", "one in seven is an event"])
def test_intervals_of_auc_brier_and_calibration_cover_the_truth(shift: float) -> None:
    y, p = draw(POPULATION, seed=10**6, shift=shift)
    truth = {name: float(value[0]) for name, value in BinaryMetrics(y, p, 0.3)(np.ones((1, POPULATION))).items()}
    names = ("roc_auc", "brier", "log_loss", "pr_auc", "calibration_slope", "calibration_intercept", "recall", "precision_at_decile")
    covered = dict.fromkeys(names, 0)
    for seed in range(SAMPLES):
        found = evaluate(*draw(300, seed=seed, shift=shift), problem_type="binary_classification", seed=seed, threshold=0.3)
        for name in names:
            low, high = found[name].low, found[name].high
            assert low is not None
            assert high is not None
            covered[name] += low <= truth[name] <= high
    # 95 % nominal; 120 samples have a standard error of 2 points, and a percentile interval of 300 rows may lose 2 more.
    assert {name: count / SAMPLES for name, count in covered.items() if not 0.88 <= count / SAMPLES <= 0.995} == {}


def test_intervals_of_regression_errors_cover_the_truth() -> None:
    def pairs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        p = rng.normal(size=n) * 2 + 10
        return p + rng.normal(size=n) * (0.5 + np.abs(p) / 10), p

    y, p = pairs(POPULATION, 10**6)
    truth = {name: float(value[0]) for name, value in RegressionMetrics(y, p)(np.ones((1, POPULATION))).items()}
    covered = dict.fromkeys(("rmse", "mae", "r2"), 0)
    for seed in range(SAMPLES):
        found = evaluate(*pairs(300, seed), problem_type="regression", seed=seed)
        for name in covered:
            covered[name] += found[name].low <= truth[name] <= found[name].high
    assert {name: count / SAMPLES for name, count in covered.items() if not 0.88 <= count / SAMPLES <= 0.995} == {}


def test_a_metric_that_is_off_is_not_covered() -> None:
    y, p = draw(POPULATION, seed=10**6, shift=-0.3)
    truth = float(BinaryMetrics(y, p, None)(np.ones((1, POPULATION)))["roc_auc"][0])
    covered = 0
    for seed in range(20):
        found = evaluate(*draw(300, seed=seed, shift=-0.3), problem_type="binary_classification", seed=seed)
        covered += found["roc_auc"].low <= truth + 0.08 <= found["roc_auc"].high
    assert covered / 20 < 0.4
