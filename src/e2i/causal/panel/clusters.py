"""Contributions of units, summed by cluster, and the interval that follows from them."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.estimate import Estimate, from_influence
from e2i.errors import TooFewRows


def cluster_influence(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Influence per cluster from influence per unit, scaled so that the mean of G values is the mean of the N.

    Parameters
    ----------
    influence : shape (N,) or (N, m)
    cluster : shape (N,), 0 … G-1

    Returns
    -------
    shape (G,) or (G, m)
    """
    groups = int(cluster.max()) + 1
    scale = np.float64(groups / len(cluster))
    if groups == len(cluster):
        in_order = bool((cluster == np.arange(groups)).all())
        return influence if in_order else influence[np.argsort(cluster)]
    if influence.ndim == 1:
        sums: FloatArray = np.bincount(cluster, weights=influence, minlength=groups).astype(np.float64) * scale
        return sums
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    summed: FloatArray = scale * np.add.reduceat(influence[order], starts, axis=0)
    return summed


def covariance(influence: FloatArray) -> FloatArray:
    """Covariance matrix of m estimates from influence values per cluster, shape (G, m); factor G / (G - 1)."""
    groups = len(influence)
    centred = influence - influence.mean(axis=0)
    matrix: FloatArray = centred.T @ centred / (groups * max(groups - 1, 1))
    return matrix


def clustered_estimate(estimate: float, influence: FloatArray, *, estimator: str, estimand: str, **others: object) -> Estimate:
    """An `Estimate` from influence values per cluster, shape (G,): t with G - 1 degrees of freedom.

    Raises
    ------
    TooFewRows
        One cluster only: nothing shows how clusters vary.
    """
    if len(influence) < 2:
        raise TooFewRows("one cluster only.", where="effect.cluster", advice="Name a finer cluster, or leave it out: units are then used.")
    groups = np.arange(len(influence), dtype=np.int64)
    return from_influence(estimate, influence, estimator=estimator, estimand=estimand, clusters=groups, **others)


def uniform_critical_value(influence: FloatArray, *, seed: int, level: float = 0.95, draws: int = 999) -> float:
    """Critical value that holds for all m estimates at once: multiplier bootstrap of the largest |t| (Callaway & Sant'Anna 2021, alg. 1).

    Parameters
    ----------
    influence : shape (G, m), one row per cluster
    level : in (0, 1)
    """
    centred = influence - influence.mean(axis=0)
    groups = len(centred)
    error = np.sqrt(np.sum(centred**2, axis=0))
    used = error > 0
    if not used.any():
        return float("nan")
    standardised = (centred[:, used] / error[used]).astype(np.float32)
    rng = np.random.default_rng(seed)
    largest = np.empty(draws)
    step = max(20_000_000 // groups, 1)
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        signs = 2.0 * rng.integers(0, 2, size=(stop - start, groups), dtype=np.int8).astype(np.float32) - np.float32(1.0)
        largest[start:stop] = np.abs(signs @ standardised).max(axis=1)
    from scipy.stats import norm, t

    found = float(np.quantile(largest, level))
    # Few clusters: the bootstrap's normal scale is stretched as t(G - 1) is against the normal.
    stretch = float(t.ppf(0.5 + level / 2, max(groups - 1, 1)) / norm.ppf(0.5 + level / 2))
    return max(found * stretch, float(t.ppf(0.5 + level / 2, max(groups - 1, 1))))
