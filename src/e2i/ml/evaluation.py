"""How good is a model, how sure are we of that, and is it good enough."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from e2i.domain.experiments import CriterionResult, MetricValue
from e2i.domain.nearest import suggestion
from e2i.domain.study import SuccessSpec
from e2i.errors import ConfigError, TooFewRows
from e2i.ml.bootstrap import BinaryMetrics, RegressionMetrics, count_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2i.domain.experiments import ProblemType
    from e2i.ml.columns import FloatArray, IntArray

RESAMPLES = 1_000
CALIBRATION_BINS = 10
PRIMARY: dict[ProblemType, str] = {"binary_classification": "roc_auc", "regression": "rmse"}
# Share of resamples in which a metric must be defined for its interval to be told.
_DEFINED = 0.95
_CRITERIA: dict[str, tuple[str, Literal["minimum", "maximum"]]] = {
    "minimum_auc": ("roc_auc", "minimum"),
    "minimum_precision_at_k": ("precision_at_decile", "minimum"),
    "maximum_fpr": ("false_positive_rate", "maximum"),
    "minimum_f1": ("f1", "minimum"),
    "maximum_brier": ("brier", "maximum"),
    "minimum_r2": ("r2", "minimum"),
    "maximum_rmse": ("rmse", "maximum"),
    "minimum_lift": ("lift", "minimum"),
}


def _metrics(y: FloatArray, p: FloatArray, problem_type: ProblemType, threshold: float | None) -> BinaryMetrics | RegressionMetrics:
    if len(y) == 0:
        raise TooFewRows("there are no rows to judge on.", where="evaluation", advice="Check the splits.")
    return RegressionMetrics(y, p) if problem_type == "regression" else BinaryMetrics(y, p, threshold)


def point_metrics(y: FloatArray, p: FloatArray, *, problem_type: ProblemType, threshold: float | None = None) -> dict[str, float]:
    """Metrics without intervals; one that is not defined on these rows is left out.

    Parameters
    ----------
    y : shape (n,), 0/1 or values
    p : shape (n,), probabilities or values
    """
    found = _metrics(y, p, problem_type, threshold)(np.ones((1, len(y))))
    return {name: float(values[0]) for name, values in found.items() if math.isfinite(values[0])}


def evaluate(
    y: FloatArray,
    p: FloatArray,
    *,
    problem_type: ProblemType,
    seed: int,
    threshold: float | None = None,
    groups: IntArray | None = None,
) -> dict[str, MetricValue]:
    """Metrics with 95 % percentile bootstrap intervals from 1,000 resamples.

    Binary: roc_auc, pr_auc, brier, log_loss, calibration_slope, calibration_intercept, precision_at_decile and precision_at_100,
    _500, _1000 where there are as many rows; with `threshold` also f1, precision, recall, accuracy, false_positive_rate.
    Regression: rmse, mae, r2, and mape where no target is zero.

    Parameters
    ----------
    y, p : shape (n,)
    groups : shape (n,), codes from 0
        Resample whole groups, for rows that are not independent.

    Returns
    -------
    Metrics that are defined on these rows. Bounds are None where more than 5 % of the resamples leave a metric undefined.

    Raises
    ------
    TooFewRows
        No rows.
    """
    judge_rows = _metrics(y, p, problem_type, threshold)
    points = {name: float(values[0]) for name, values in judge_rows(np.ones((1, len(y)))).items()}
    blocks = [judge_rows(weights) for weights in count_weights(len(y), resamples=RESAMPLES, seed=seed, groups=groups)]
    result = {}
    for name, point in points.items():
        if not math.isfinite(point):
            continue
        draws = np.concatenate([block[name] for block in blocks])
        draws = draws[np.isfinite(draws)]
        if len(draws) < _DEFINED * RESAMPLES:
            result[name] = MetricValue(value=point)
            continue
        low, high = np.quantile(draws, (0.025, 0.975))
        result[name] = MetricValue(value=point, low=float(low), high=float(high))
    return result


def choose_threshold(y: FloatArray, p: FloatArray, *, method: Literal["f1", "youden"] = "f1") -> float:
    """The probability from which on a row counts as an event, best on these (validation) rows.

    Parameters
    ----------
    y, p : shape (n,)
    method : f1 maximises F1, youden maximises recall minus false-positive rate

    Returns
    -------
    Half way between the last probability that is in and the first that is out.

    Raises
    ------
    TooFewRows
        One class only.
    """
    n_positive = float(y.sum())
    if n_positive == 0 or n_positive == len(y):
        raise TooFewRows("a threshold needs rows of both classes.", where="validation split", advice="Give more rows of the rare class.")
    order = np.argsort(-p, kind="stable")
    ordered = p[order]
    last = np.append(np.flatnonzero(ordered[:-1] != ordered[1:]), len(p) - 1)
    hits, picked = np.cumsum(y[order])[last], last + 1.0
    f1, youden = 2.0 * hits / (picked + n_positive), hits / n_positive - (picked - hits) / (len(y) - n_positive)
    best = int((f1 if method == "f1" else youden).argmax())
    inside = float(ordered[last[best]])
    if last[best] + 1 == len(p):
        return inside
    middle = (inside + float(ordered[last[best] + 1])) / 2.0
    return middle if middle > ordered[last[best] + 1] else inside


def confusion(y: FloatArray, p: FloatArray, *, threshold: float) -> dict[str, int]:
    """Rows by outcome and decision: true_positive, false_positive, true_negative, false_negative."""
    event, chosen = y > 0.5, p >= threshold
    return {
        "true_positive": int((event & chosen).sum()),
        "false_positive": int((~event & chosen).sum()),
        "true_negative": int((~event & ~chosen).sum()),
        "false_negative": int((event & ~chosen).sum()),
    }


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Points for plots. Calibration: mean predicted and observed share by tenth of the predictions, and rows in it."""

    fpr: list[float]
    tpr: list[float]
    recall: list[float]
    precision: list[float]
    predicted: list[float]
    observed: list[float]
    count: list[int]

    def to_dict(self) -> dict[str, list[float] | list[int]]:
        """Plain data for JSON."""
        return asdict(self)


def curves(y: FloatArray, p: FloatArray, *, points: int = 200) -> Curves:
    """ROC, precision-recall and calibration points, the first two thinned to about `points`. Arrays of shape (n,), both classes."""
    order = np.argsort(-p, kind="stable")
    ordered, outcome = p[order], y[order]
    last = np.append(np.flatnonzero(ordered[:-1] != ordered[1:]), len(p) - 1)
    hits, picked = np.cumsum(outcome)[last], last + 1.0
    keep = np.unique(np.linspace(0, len(last) - 1, min(points, len(last))).round().astype(int))
    n_positive = hits[-1]
    tpr, fpr = hits / n_positive, (picked - hits) / (len(y) - n_positive)
    bins = [part for part in np.array_split(np.arange(len(p))[::-1], CALIBRATION_BINS) if len(part)]
    return Curves(
        fpr=[0.0, *fpr[keep].tolist()],
        tpr=[0.0, *tpr[keep].tolist()],
        recall=tpr[keep].tolist(),
        precision=(hits / picked)[keep].tolist(),
        predicted=[float(ordered[part].mean()) for part in bins],
        observed=[float(outcome[part].mean()) for part in bins],
        count=[len(part) for part in bins],
    )


def judge(
    success_criteria: Mapping[str, float],
    metrics: Mapping[str, MetricValue],
    *,
    baseline: Mapping[str, float] | None = None,
) -> dict[str, CriterionResult]:
    """Each criterion against the metrics. A metric that is missing or not a number never meets one.

    Parameters
    ----------
    success_criteria : names as in SuccessSpec
        `minimum_precision_at_k` is judged at the top tenth, `minimum_lift` as the relative gain of the primary metric (ROC-AUC, or
        RMSE for regression) over `baseline`.
    baseline : metrics of the rule to beat, on the same rows

    Raises
    ------
    ConfigError
        An unknown criterion.
    """
    result = {}
    for name, required in success_criteria.items():
        if name not in _CRITERIA:
            advice = suggestion(name, SuccessSpec.model_fields, otherwise="The criteria are")
            raise ConfigError(f"'{name}' is no success criterion.", where="success", advice=advice)
        metric, sense = _CRITERIA[name]
        value = _lift(metrics, baseline or {}) if metric == "lift" else _value(metrics, metric)
        met = value is not None and (value >= required if sense == "minimum" else value <= required)
        result[name] = CriterionResult(required=required, value=value, met=met)
    return result


def _value(metrics: Mapping[str, MetricValue], name: str) -> float | None:
    if name not in metrics or not math.isfinite(metrics[name].value):
        return None
    return metrics[name].value


def _lift(metrics: Mapping[str, MetricValue], baseline: Mapping[str, float]) -> float | None:
    for name in PRIMARY.values():
        value, reference = _value(metrics, name), baseline.get(name)
        if value is not None and reference is not None and math.isfinite(reference) and reference > 0:
            return (value - reference) / reference if name == "roc_auc" else (reference - value) / reference
    return None
