"""Likeness of two arms in the comparison that an estimator makes."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.encoding import Covariates
from e2i.domain.evidence import BalanceRow


def balance(
    covariates: Covariates,
    treatment: FloatArray,
    weight: FloatArray,
    *,
    base: FloatArray | None = None,
    cluster: IntArray | None = None,
) -> tuple[BalanceRow, ...]:
    """Standardised mean differences before and after weighting, in encoded columns' order.

    Both are over the pooled standard deviation before weighting (Austin and Stuart 2015). The error of the difference after is that
    of two weighted means, weights held, linearised as ratios: a difference that one far row or one large cluster makes has a large one.
    Columns that single out 1-10 people are left out.

    Parameters
    ----------
    treatment : shape (n,), 0 or 1
    weight : shape (n,), not negative
        What a row counts in the comparison; rows that it leaves out have 0.
    base : shape (n,)
        Sampling weights, which count before weighting too.
    cluster : shape (n,)
        Equal for rows that are not independent; default: all are.
    """
    matrix = covariates.matrix
    arms = treatment == 1, treatment == 0
    pooled = np.sqrt(sum(matrix[arm].var(axis=0, ddof=1) for arm in arms) / 2.0)
    pooled = np.where(pooled > 0, pooled, np.inf)
    given = np.ones(len(treatment)) if base is None else base
    up, down = (np.average(matrix[arm], axis=0, weights=given[arm]) for arm in arms)
    share = weight / np.where(arms[0], weight[arms[0]].sum(), weight[arms[1]].sum())
    up_after, down_after = (share[arm] @ matrix[arm] for arm in arms)
    before, after = (up - down) / pooled, (up_after - down_after) / pooled
    parts = np.where(arms[0], share, -share)[:, None] * (matrix - np.where(arms[0][:, None], up_after, down_after))
    error = np.sqrt(np.sum(_together(parts, cluster) ** 2, axis=0)) / pooled
    return tuple(
        BalanceRow(covariate=name, smd_before=float(b), smd_after=float(a), error_after=float(e))
        for name, b, a, e, few in zip(covariates.names, before, after, error, covariates.singles_out_few, strict=True)
        if not few
    )


def _together(parts: FloatArray, cluster: IntArray | None) -> FloatArray:
    """Rows (n, k) summed within clusters."""
    if cluster is None:
        return parts
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=cluster[order][0] - 1))
    out: FloatArray = np.add.reduceat(parts[order], starts, axis=0)
    return out
