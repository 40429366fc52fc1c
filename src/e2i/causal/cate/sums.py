"""Sums over clusters, and the critical value that goes with their number."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray

LEVEL = 0.95
NORMAL = NormalDist().inv_cdf(0.5 + LEVEL / 2)


def numbered(cluster: IntArray) -> tuple[IntArray, int]:
    """Clusters numbered from 0, shape (n,), and how many there are."""
    values, codes = np.unique(cluster, return_inverse=True)
    return codes.astype(np.int64), len(values)


def cluster_sums(values: FloatArray, cluster: IntArray | None) -> FloatArray:
    """Sum per cluster, shape (clusters, k), for values of shape (n, k); without clusters the values themselves."""
    if cluster is None:
        return values
    codes, groups = numbered(cluster)
    return np.column_stack([np.bincount(codes, weights=column, minlength=groups) for column in values.T])


def freedom_of(cluster: IntArray | None) -> float:
    """Degrees of freedom of a standard error: infinite over rows, G - 1 over G clusters."""
    return math.inf if cluster is None else float(max(numbered(cluster)[1] - 1, 1))


def critical_value(cluster: IntArray | None) -> tuple[float, str]:
    """Two-sided 95 % critical value and its name: normal over rows, t with G - 1 degrees over G clusters."""
    freedom = freedom_of(cluster)
    return stretched(NORMAL, freedom), "normal" if cluster is None else f"t with {freedom:.0f} degrees of freedom, clustered"


def stretched(critical: float, freedom: float) -> float:
    """The t's critical value of the same probability as a normal one."""
    from scipy.stats import norm, t

    return critical if math.isinf(freedom) else float(t.isf(norm.sf(critical), freedom))


def standard_error(influence: FloatArray, cluster: IntArray | None) -> FloatArray:
    """Of sums, shape (k,), from each row's contribution, shape (n, k), centred."""
    sums = cluster_sums(influence, cluster)
    count = len(sums)
    out: FloatArray = np.sqrt(count / max(count - 1, 1) * (sums**2).sum(axis=0))
    return out


def below(ratio: float, freedom: float) -> float:
    """Probability that a t is smaller; normal where the degrees of freedom are infinite."""
    from scipy.stats import t

    return NormalDist().cdf(ratio) if math.isinf(freedom) else float(t.cdf(ratio, freedom))


def two_sided(ratio: float, freedom: float) -> float:
    """p-value of an estimate over its standard error."""
    return 2.0 * below(-abs(ratio), freedom)


def halves(rows: int, cluster: IntArray | None, *, draws: int, rng: np.random.Generator) -> BoolArray:
    """Random halves of the units (clusters, or rows), shape (draws, rows)."""
    codes, count = (np.arange(rows), rows) if cluster is None else numbered(cluster)
    out = np.zeros((draws, count), dtype=bool)
    for draw in out:
        draw[rng.permutation(count)[: count // 2]] = True
    drawn: BoolArray = out[:, codes]
    return drawn
