"""Pooling effects of groups: how much they differ beyond chance, and what each is after borrowing strength.

Cochran (1954); DerSimonian and Laird (1986); REML as in Viechtbauer (2005); I² of Higgins and Thompson (2002); intervals of
shrunken effects after Morris (1983).
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.cate.sums import NORMAL
from e2i.domain.segments import Interval, Pooling

_ROUNDS = 200
_CLOSE = 1e-10


def pool(estimates: FloatArray, standard_errors: FloatArray) -> Pooling:
    """Variance-weighted mean of independent groups with its spread between them.

    Parameters
    ----------
    estimates, standard_errors : shape (g,), g >= 1, errors above 0
    """
    from scipy.stats import chi2

    weights = 1.0 / standard_errors**2
    fixed = float(weights @ estimates / weights.sum())
    freedom = len(estimates) - 1
    q = float(weights @ (estimates - fixed) ** 2)
    tau2 = between_variance(estimates, standard_errors)
    total = 1.0 / (standard_errors**2 + tau2)
    mean, error = float(total @ estimates / total.sum()), float(total.sum() ** -0.5)
    return Pooling(
        pooled=Interval(estimate=mean, low=mean - NORMAL * error, high=mean + NORMAL * error),
        standard_error=error,
        tau2=tau2,
        tau2_dersimonian_laird=moment_variance(estimates, standard_errors),
        i2=max(0.0, 1.0 - freedom / q) if q > 0 else 0.0,
        q=q,
        q_p_value=float(chi2.sf(q, freedom)) if freedom else None,
        groups=len(estimates),
    )


def moment_variance(estimates: FloatArray, standard_errors: FloatArray) -> float:
    """Variance between groups by the method of moments (DerSimonian and Laird 1986), at least 0."""
    weights = 1.0 / standard_errors**2
    if len(estimates) < 2:
        return 0.0
    fixed = weights @ estimates / weights.sum()
    q = weights @ (estimates - fixed) ** 2
    scale = weights.sum() - (weights**2).sum() / weights.sum()
    return max(0.0, float((q - (len(estimates) - 1)) / scale))


def between_variance(estimates: FloatArray, standard_errors: FloatArray) -> float:
    """Variance between groups by restricted maximum likelihood (Fisher scoring from the moment estimate), at least 0."""
    tau2 = moment_variance(estimates, standard_errors)
    if len(estimates) < 2:
        return 0.0
    for _ in range(_ROUNDS):
        weights = 1.0 / (standard_errors**2 + tau2)
        mean = weights @ estimates / weights.sum()
        again = weights**2 @ ((estimates - mean) ** 2 - standard_errors**2) / (weights**2).sum() + 1.0 / weights.sum()
        again = max(0.0, float(again))
        if abs(again - tau2) <= _CLOSE * (tau2 + float((standard_errors**2).mean())):
            return again
        tau2 = again
    return tau2


def shrink(estimates: FloatArray, standard_errors: FloatArray, pooling: Pooling) -> tuple[FloatArray, FloatArray]:
    """Each group drawn towards the pooled effect by its own noise, and its posterior standard deviation, shape (g,) each."""
    own = pooling.tau2 / (pooling.tau2 + standard_errors**2)
    middle = own * estimates + (1.0 - own) * pooling.pooled.estimate
    spread = np.sqrt(own * standard_errors**2 + ((1.0 - own) * pooling.standard_error) ** 2)
    return middle, spread
