"""How much one column alone says about the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from e2i.ml.columns import BoolArray, FloatArray, IntArray


def mid_ranks(values: FloatArray) -> FloatArray:
    """Ranks 1 to n, ties share their mean rank. Shape (n,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (lengths + 1) / 2, lengths)
    return ranks


def rank_auc(score: FloatArray, positive: BoolArray) -> float:
    """Area under the ROC curve by ranks, ties count one half (Mann and Whitney 1947).

    Parameters
    ----------
    score : shape (n,), finite
    positive : shape (n,)

    Returns
    -------
    In [0, 1]; NaN where one class is absent.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = float(mid_ranks(score)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def correlation(left: FloatArray, right: FloatArray) -> float:
    """Pearson's correlation, 0 where one of them is constant. Shape (n,) each, finite."""
    if len(left) < 3:
        return 0.0
    a, b = left - left.mean(), right - right.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    floor = 1e-12 * max(float(np.abs(left).max(initial=0)), 1e-300) * max(float(np.abs(right).max(initial=0)), 1e-300) * len(left)
    return float(a @ b) / scale if scale > floor else 0.0


def neighbour_r2(values: FloatArray, target: FloatArray) -> float:
    """Share of the target's variance that any function of `values` could explain.

    One minus the noise variance over the variance, the noise estimated from differences of neighbours in the order of `values`
    (Rice 1984). Rows must come in random order, so that ties carry no order of the target. About 0 for unrelated columns, 1 for
    a copy under any recoding with few levels or a smooth one.
    """
    if len(values) < 3:
        return 0.0
    ordered = target[np.argsort(values, kind="stable")]
    variance = float(ordered.var())
    if variance == 0.0:
        return 0.0
    steps = np.diff(ordered)
    return 1.0 - float(steps @ steps) / (2.0 * len(steps)) / variance


def level_scores(codes: IntArray, n_levels: int, target: FloatArray) -> FloatArray:
    """Target means of the levels, each row's taken from the other half of the rows, so that rare levels tell nothing.

    Rows must come in random order. Shape (n,).
    """
    scores = np.full(len(codes), target.mean())
    halves = np.arange(len(codes)) % 2 == 0
    for half in (halves, ~halves):
        counts = np.bincount(codes[~half], minlength=n_levels)
        sums = np.bincount(codes[~half], weights=target[~half], minlength=n_levels)
        means = np.divide(sums, counts, out=np.full(n_levels, target.mean()), where=counts > 0)
        scores[half] = means[codes[half]]
    return scores
