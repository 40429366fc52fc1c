"""Metrics equal their definitions; thresholds, curves and verdicts follow from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from e2i.domain.experiments import MetricValue
from e2i.errors import ConfigError, TooFewRows
from e2i.ml.association import rank_auc
from e2i.ml.bootstrap import BinaryMetrics, count_weights
from e2i.ml.calibration import Calibration, expit, fit_calibration, logit
from e2i.ml.evaluation import choose_threshold, confusion, curves, evaluate, judge, point_metrics


def sample(n: int = 800, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n) * 1.5 - 0.5
    return (rng.random(n) < expit(z)).astype(float), np.round(expit(z + rng.normal(size=n) * 0.5), digits)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), n=st.integers(20, 400), digits=st.integers(1, 6))
def test_metrics_equal_scikit_learns_also_with_ties(seed: int, n: int, digits: int) -> None:
    y, p = sample(n, seed, digits)
    if y.min() == y.max():
        return
    found = point_metrics(y, p, problem_type="binary_classification", threshold=0.5)
    decided = p >= 0.5
    expected = {
        "roc_auc": reference.roc_auc_score(y, p),
        "pr_auc": reference.average_precision_score(y, p),
        "brier": reference.brier_score_loss(y, p),
        "f1": reference.f1_score(y, decided, zero_division=0),
        "precision": reference.precision_score(y, decided, zero_division=0),
        "recall": reference.recall_score(y, decided),
        "accuracy": reference.accuracy_score(y, decided),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert rank_auc(p, y > 0.5) == pytest.approx(expected["roc_auc"], abs=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), n=st.integers(30, 300))
def test_a_resample_by_counts_equals_the_resample_itself(seed: int, n: int) -> None:
    y, p = sample(n, seed)
    weights = next(count_weights(n, resamples=3, seed=seed))
    assert (weights.sum(axis=1) == n).all()
    blocks = BinaryMetrics(y, p, 0.4)(weights)
    for index, counts in enumerate(weights.astype(int)):
        ys, ps = np.repeat(y, counts), np.repeat(p, counts)
        if ys.min() == ys.max():
            continue
        alone = BinaryMetrics(ys, ps, 0.4)(np.ones((1, len(ys))))
        for name in set(blocks) - {"calibration_slope"}:
            assert blocks[name][index] == pytest.approx(alone[name][0], rel=1e-5, abs=1e-7), name


def test_regression_metrics_equal_scikit_learns_and_mape_needs_targets_off_zero() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200) + 5
    p = y + rng.normal(size=200)
    found = point_metrics(y, p, problem_type="regression")
    assert found == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(y, p),
            "mae": reference.mean_absolute_error(y, p),
            "r2": reference.r2_score(y, p),
            "mape": reference.mean_absolute_percentage_error(y, p),
        }
    )
    y[0] = 0.0
    assert "mape" not in point_metrics(y, p, problem_type="regression")
    assert "mape" not in evaluate(y, p, problem_type="regression", seed=0)


def test_calibration_slope_and_intercept_are_those_of_the_logistic_regressions() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=200_000)
    y = (rng.random(len(z)) < expit(z)).astype(float)
    found = point_metrics(y, expit(2 * z), problem_type="binary_classification")
    assert found["calibration_slope"] == pytest.approx(0.5, abs=0.02)
    shifted = point_metrics(y, expit(z - 0.7), problem_type="binary_classification")
    assert shifted["calibration_intercept"] == pytest.approx(0.7, abs=0.02)
    assert shifted["calibration_slope"] == pytest.approx(1.0, abs=0.02)


def test_precision_at_k_counts_the_first_k_and_shares_ties() -> None:
    y = np.zeros(1000)
    y[:60] = 1.0
    p = np.linspace(1, 0, 1000)
    found = point_metrics(y, p, problem_type="binary_classification")
    assert found["precision_at_100"] == pytest.approx(0.6)
    assert found["precision_at_decile"] == pytest.approx(0.6)
    assert found["precision_at_1000"] == pytest.approx(0.06)
    tied = point_metrics(y, np.full(1000, 0.3), problem_type="binary_classification")
    assert tied["precision_at_100"] == pytest.approx(0.06)
    assert "precision_at_500" not in point_metrics(y[:400], p[:400], problem_type="binary_classification")


def test_intervals_hold_the_value_repeat_for_a_seed_and_narrow_with_rows() -> None:
    y, p = sample(2000)
    first = evaluate(y, p, problem_type="binary_classification", seed=1, threshold=0.5)
    assert first == evaluate(y, p, problem_type="binary_classification", seed=1, threshold=0.5)
    wide = evaluate(y[:200], p[:200], problem_type="binary_classification", seed=1, threshold=0.5)
    for metric in first.values():
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= metric.value <= metric.high
    for name in ("roc_auc", "brier", "f1"):
        assert wide[name].high - wide[name].low > 2 * (first[name].high - first[name].low)


def test_rows_of_one_group_widen_the_interval() -> None:
    y, p = sample(300)
    repeated, groups = (np.repeat(y, 8), np.repeat(p, 8)), np.repeat(np.arange(300), 8)
    by_row = evaluate(*repeated, problem_type="binary_classification", seed=1)["roc_auc"]
    by_group = evaluate(*repeated, problem_type="binary_classification", seed=1, groups=groups)["roc_auc"]
    single = evaluate(y, p, problem_type="binary_classification", seed=1)["roc_auc"]
    assert by_group.high - by_group.low > 2 * (by_row.high - by_row.low)
    assert by_group.high - by_group.low == pytest.approx(single.high - single.low, rel=0.15)


def test_what_is_not_defined_is_left_out() -> None:
    found = evaluate(np.zeros(50), np.linspace(0.1, 0.4, 50), problem_type="binary_classification", seed=0, threshold=0.3)
    assert "brier" in found
    assert not {"roc_auc", "pr_auc", "recall", "calibration_slope", "calibration_intercept"} & set(found)
    separated = evaluate(np.repeat([0.0, 1.0], 50), np.repeat([0.2, 0.8], 50), problem_type="binary_classification", seed=0)
    assert separated["roc_auc"].value == 1.0
    assert "calibration_slope" not in separated
    with pytest.raises(TooFewRows):
        evaluate(np.array([]), np.array([]), problem_type="regression", seed=0)


def test_an_interval_is_not_told_when_resamples_often_lack_the_metric() -> None:
    y = np.zeros(60)
    y[0] = 1.0
    found = evaluate(y, np.linspace(0, 1, 60), problem_type="binary_classification", seed=0)
    assert found["roc_auc"].low is None


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["f1", "youden"]))
def test_no_other_threshold_is_better(seed: int, method: str) -> None:
    y, p = sample(120, seed)

    def gain(threshold: float) -> float:
        found = point_metrics(y, p, problem_type="binary_classification", threshold=threshold)
        return found["f1"] if method == "f1" else found["recall"] - found["false_positive_rate"]

    chosen = choose_threshold(y, p, method=method)  # type: ignore[arg-type]
    assert gain(chosen) == pytest.approx(max(gain(other) for other in np.unique(p)))


def test_a_threshold_needs_both_classes() -> None:
    with pytest.raises(TooFewRows):
        choose_threshold(np.ones(20), np.linspace(0, 1, 20))


def test_confusion_counts_every_row_once() -> None:
    y, p = sample()
    table = confusion(y, p, threshold=0.4)
    assert sum(table.values()) == len(y)
    assert table["true_positive"] + table["false_negative"] == y.sum()
    assert table["true_positive"] + table["false_positive"] == (p >= 0.4).sum()


def test_curves_give_the_area_and_every_row() -> None:
    y, p = sample(5000, digits=6)
    drawn = curves(y, p, points=400)
    assert (drawn.fpr[0], drawn.tpr[0], drawn.fpr[-1], drawn.tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(drawn.tpr, drawn.fpr) == pytest.approx(reference.roc_auc_score(y, p), abs=0.002)
    assert len(drawn.fpr) <= 401
    assert sum(drawn.count) == 5000
    assert drawn.predicted == sorted(drawn.predicted)
    assert np.average(drawn.observed, weights=drawn.count) == pytest.approx(y.mean())
    assert len(drawn.recall) == len(drawn.precision)


def test_criteria_are_met_at_the_bound_and_never_without_a_metric() -> None:
    metrics = {"roc_auc": MetricValue(value=0.75), "brier": MetricValue(value=0.2), "f1": MetricValue(value=math.nan)}
    verdict = judge({"minimum_auc": 0.75, "maximum_brier": 0.19, "minimum_f1": 0.0, "maximum_fpr": 1.0, "maximum_rmse": 10.0}, metrics)
    assert {name: result.met for name, result in verdict.items()} == {
        "minimum_auc": True,
        "maximum_brier": False,
        "minimum_f1": False,
        "maximum_fpr": False,
        "maximum_rmse": False,
    }
    assert verdict["maximum_fpr"].value is None


def test_lift_is_the_relative_gain_over_the_baseline() -> None:
    better = judge({"minimum_lift": 0.1}, {"roc_auc": MetricValue(value=0.77)}, baseline={"roc_auc": 0.7})
    assert better["minimum_lift"].value == pytest.approx(0.1)
    errors = judge({"minimum_lift": 0.1}, {"rmse": MetricValue(value=8.0)}, baseline={"rmse": 10.0})
    assert (errors["minimum_lift"].met, errors["minimum_lift"].value) == (True, pytest.approx(0.2))
    assert not judge({"minimum_lift": 0.0}, {"roc_auc": MetricValue(value=0.9)})["minimum_lift"].met


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean `minimum_auc`"):
        judge({"minimum_aucc": 0.7}, {})


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.sampled_from([300, 1500]))
def test_calibration_never_turns_the_order_round_and_survives_json(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    y = (rng.random(n) < expit(z)).astype(float)
    score = expit(rng.choice([0.3, 3.0]) * z + rng.normal())
    fitted = fit_calibration(y, score, seed=seed)
    mapped = fitted.apply(np.linspace(0, 1, 200))
    assert (np.diff(mapped) >= 0).all()
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert Calibration.from_dict(fitted.to_dict()) == fitted
    assert fitted.method != "isotonic" or n >= 1000


def test_logit_and_expit_undo_each_other_and_bear_certainty() -> None:
    p = np.linspace(0.001, 0.999, 50)
    assert expit(logit(p)) == pytest.approx(p)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
