"""A planted miscalibration is found and undone; a calibrated score is left alone; weighting is undone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.ml.calibration import expit, fit_calibration
from e2i.ml.evaluation import point_metrics
from e2i.ml.training import fit

SEEDS = 20


def scores(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n) * 1.3 - 0.5
    return z, (rng.random(n) < expit(z)).astype(float)


@pytest.mark.parametrize(("slope", "shift"), [(2.5, 0.0), (0.4, 0.0), (1.0, 1.5), (2.0, -1.0)])
def test_a_stretched_or_shifted_score_is_mapped_back(slope: float, shift: float) -> None:
    gain = []
    for seed in range(SEEDS):
        z, y = scores(3000, seed)
        fitted = fit_calibration(y, expit(slope * z + shift), seed=seed)
        assert fitted.method != "none"
        fresh, _ = scores(4000, seed + 1000)
        error = np.abs(fitted.apply(expit(slope * fresh + shift)) - expit(fresh)).mean()
        gain.append(error / np.abs(expit(slope * fresh + shift) - expit(fresh)).mean())
    assert np.mean(gain) < 0.25


def test_a_calibrated_score_is_mostly_left_alone_and_never_hurt() -> None:
    methods, harm = [], []
    for seed in range(SEEDS):
        z, y = scores(2000, seed)
        fitted = fit_calibration(y, expit(z), seed=seed)
        methods.append(fitted.method)
        fresh, _ = scores(4000, seed + 1000)
        harm.append(np.mean((fitted.apply(expit(fresh)) - expit(fresh)) ** 2))
    assert methods.count("none") >= 0.8 * SEEDS
    assert np.mean(harm) < 0.0005


def test_a_step_that_no_line_can_follow_becomes_isotonic() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(8000)
    truth = np.where(score < 0.45, 0.05, np.where(score < 0.55, 0.5, 0.6))
    y = (rng.random(8000) < truth).astype(float)
    fitted = fit_calibration(y, score, seed=0)
    assert fitted.method == "isotonic"
    assert np.abs(fitted.apply(score) - truth).mean() < 0.03


def test_weights_for_a_rare_class_are_undone_on_validation() -> None:
    def people(n: int, seed: int) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 3))
        return pl.DataFrame({f"x{index}": x[:, index] for index in range(3)} | {"y": (rng.random(n) < expit(x[:, 0] - 3.2)).astype(int)})

    train, validation, test = people(6000, 1), people(3000, 2), people(20_000, 3)
    model = fit("logistic_regression", train, "y", {}, problem_type="binary_classification", features=["x0", "x1", "x2"], seed=0)
    fitted = fit_calibration(validation["y"].to_numpy().astype(float), model.raw_score(validation), seed=0)
    y = test["y"].to_numpy().astype(float)
    raw = point_metrics(y, model.raw_score(test), problem_type="binary_classification")
    mapped = point_metrics(y, model.with_calibration(fitted).predict(test), problem_type="binary_classification")
    assert raw["calibration_intercept"] < -2.0
    assert abs(mapped["calibration_intercept"]) < 0.2
    assert mapped["brier"] < 0.5 * raw["brier"]
    assert mapped["roc_auc"] == pytest.approx(raw["roc_auc"], abs=0.005)
