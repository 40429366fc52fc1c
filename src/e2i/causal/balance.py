"""Likeness of two arms in the comparison that an estimator makes."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.encoding import Covariates
from e2i.domain.evidence import BalanceRow


def balance(covariates: Covariates, treatment: FloatArray, weight: FloatArray, *, base: FloatArray | None = None) -> tuple[BalanceRow, ...]:
    """Standardised mean differences before and after weighting, in encoded columns' order.

    Both are over the pooled standard deviation before weighting (Austin and Stuart 2015). The error of the difference after is that
    of two weighted means of independent rows, weights held: a difference that one far row makes has a large one. Columns that single
    out 1-10 people are left out.

    Parameters
    ----------
    treatment : shape (n,), 0 or 1
    weight : shape (n,), not negative
        What a row counts in the comparison; rows that it leaves out have 0.
    base : shape (n,)
        Sampling weights, which count before weighting too.
    """
    matrix = covariates.matrix
    arms = treatment == 1, treatment == 0
    pooled = np.sqrt(sum(matrix[arm].var(axis=0, ddof=1) for arm in arms) / 2.0)
    pooled = np.where(pooled > 0, pooled, np.inf)
    given = np.ones(len(treatment)) if base is None else base
    up, down = (np.average(matrix[arm], axis=0, weights=given[arm]) for arm in arms)
    (up_after, up_variance), (down_after, down_variance) = (_weighted_mean(matrix[arm], weight[arm]) for arm in arms)
    before, after = (up - down) / pooled, (up_after - down_after) / pooled
    error = np.sqrt(up_variance + down_variance) / pooled
    return tuple(
        BalanceRow(covariate=name, smd_before=float(b), smd_after=float(a), error_after=float(e))
        for name, b, a, e, few in zip(covariates.names, before, after, error, covariates.singles_out_few, strict=True)
        if not few
    )


def _weighted_mean(matrix: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean of each column and its variance, linearised as a ratio."""
    share = weight / weight.sum()
    mean: FloatArray = share @ matrix
    return mean, share**2 @ (matrix - mean) ** 2
