"""Is the predicted heterogeneity real? Best linear predictor and sorted group effects, on predictions that never saw the row.

Chernozhukov, Demirer, Duflo and Fernández-Val (2018), "Generic machine learning inference on heterogeneous treatment effects".
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.cate.dr_learner import Scores, least_squares
from e2i.causal.cate.forest import CateLearner
from e2i.causal.cate.sums import below, critical_value, freedom_of, numbered, stretched
from e2i.domain.segments import Calibration, GroupEffect, Interval

FOLDS = 5
_DRAWS = 2_000


def cross_fit(learner: CateLearner, modifiers: FloatArray, scores: Scores, *, seed: int) -> tuple[FloatArray, IntArray]:
    """Predicted effect of each row by a model that never saw it, and each row's fold, shape (n,) both. Clusters stay together."""
    folds = split(len(modifiers), scores.cluster, seed=seed)
    out = np.empty(len(modifiers))
    for fold in range(FOLDS):
        train, rows = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = learner.fit(modifiers[train], scores.part(train), seed=seed * 31 + fold)
        out[rows] = model.predict(modifiers[rows]).estimate
    return out, folds


def split(rows: int, cluster: IntArray | None, *, seed: int, folds: int = FOLDS) -> IntArray:
    """Fold of each row, shape (n,), as even as the clusters allow."""
    rng = np.random.default_rng(seed)
    codes, count = (np.arange(rows), rows) if cluster is None else numbered(cluster)
    out: IntArray = (rng.permutation(count) % folds)[codes]
    return out


def ranks(predicted: FloatArray, folds: IntArray, *, seed: int) -> FloatArray:
    """Rank share within the fold, in (0, 1), shape (n,); 1 is the largest predicted effect; ties by chance."""
    chance = np.random.default_rng(seed).random(len(predicted))
    out = np.empty(len(predicted))
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        order = np.lexsort((chance[rows], predicted[rows]))
        out[rows[order]] = (np.arange(len(rows)) + 0.5) / len(rows)
    return out


def calibrate(scores: Scores, predicted: FloatArray, folds: IntArray, *, seed: int, groups: int | None = None) -> Calibration:
    """Best linear predictor of the effect given its prediction, and effects of groups sorted by it.

    Parameters
    ----------
    predicted, folds : from `cross_fit`
    groups : quantile groups of the prediction; default 5, fewer below 1,000 rows
    """
    centred = predicted - _fold_means(predicted, folds, scores.weights)
    critical, method = critical_value(scores.cluster)
    slope, test = _slope(scores, centred, critical)
    mean, mean_error = least_squares(scores.effect, (predicted - centred)[:, None], weights=scores.weights, cluster=scores.cluster)
    half = critical * float(np.sqrt(mean_error[0, 0]))
    count = groups or (5 if len(predicted) >= 1_000 else 3)
    return Calibration(
        mean_prediction=Interval(estimate=float(mean[0]), low=float(mean[0]) - half, high=float(mean[0]) + half),
        differential_prediction=slope,
        p_value=test,
        groups=sorted_groups(scores, ranks(predicted, folds, seed=seed), groups=count, seed=seed),
        interval_method=f"{FOLDS} folds, {method}; groups: simultaneous, rearranged",
    )


def sorted_groups(scores: Scores, rank: FloatArray, *, groups: int, seed: int) -> tuple[GroupEffect, ...]:
    """Mean effect by quantile group of the prediction (GATES), least effect first.

    Intervals are simultaneous (Gaussian multiplier), and are rearranged to rise with the group, which can only shorten them
    (Chernozhukov, Fernández-Val and Galichon 2009).
    """
    code = np.minimum((rank * groups).astype(np.int64), groups - 1)
    design = (code[:, None] == np.arange(groups)).astype(np.float64)
    means, covariance = least_squares(scores.effect, design, weights=scores.weights, cluster=scores.cluster)
    error = np.sqrt(np.diag(covariance))
    draws = np.random.default_rng(seed).multivariate_normal(np.zeros(groups), covariance / np.outer(error, error), size=_DRAWS)
    critical = stretched(float(np.quantile(np.abs(draws).max(axis=1), 0.95)), freedom_of(scores.cluster))
    low, middle, high = np.sort(means - critical * error), np.sort(means), np.sort(means + critical * error)
    return tuple(
        GroupEffect(
            group=place + 1,
            of=groups,
            estimate=float(middle[place]),
            raw_estimate=float(means[place]),
            standard_error=float(error[place]),
            low=float(low[place]),
            high=float(high[place]),
            size=int((code == place).sum()),
        )
        for place in range(groups)
    )


def _slope(scores: Scores, centred: FloatArray, critical: float) -> tuple[Interval | None, float | None]:
    """Slope of the effect on its centred prediction, and the one-sided p-value of slope > 0; None where predictions do not vary."""
    if centred.std() <= 1e-9 * max(float(np.abs(scores.effect).mean()), 1e-300):
        return None, None
    design = np.column_stack([np.ones(len(centred)), centred])
    found, covariance = least_squares(scores.effect, design, weights=scores.weights, cluster=scores.cluster)
    error = float(np.sqrt(covariance[1, 1]))
    value = float(found[1])
    p_value = below(-value / error, freedom_of(scores.cluster))
    return Interval(estimate=value, low=value - critical * error, high=value + critical * error), p_value


def _fold_means(values: FloatArray, folds: IntArray, weights: FloatArray) -> FloatArray:
    codes = np.unique(folds, return_inverse=True)[1]
    out: FloatArray = (np.bincount(codes, weights=values * weights) / np.bincount(codes, weights=weights))[codes]
    return out
