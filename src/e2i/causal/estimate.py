"""What every estimator returns: a number, its interval with the method that gave it, and influence values."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Protocol, TypeVar

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)

Data_contra = TypeVar("Data_contra", contravariant=True)
Spec_contra = TypeVar("Spec_contra", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An effect on the outcome's own scale, unless `scale` says otherwise."""

    estimator: str
    """as people know it, for instance "Callaway-Sant'Anna group-time, not-yet treated" """
    estimand: str
    """ATE, ATT, ATO (overlap), LATE, APE (average slope of a dose)"""
    estimate: float
    standard_error: float
    """NaN where the method has none (permutation, set-valued intervals)"""
    interval: tuple[float, float]
    """95 %; may be infinite where the data cannot bound the effect (weak instruments)"""
    interval_method: str
    """for instance "normal, influence values", "t with G - 1, clustered by state", "Anderson-Rubin", "placebo in space" """
    p_value: float | None = None
    scale: str = "outcome"
    """"outcome", "ratio" or "log"; on "ratio" and "log" no effect is 1 and 0"""
    influence: FloatArray | None = None
    """shape (n,), mean 0, one value per independent unit (row, or cluster): se² = mean(influence²) / n"""
    n_treated: int = 0
    n_untreated: int = 0
    diagnostics: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Estimator(Protocol[Data_contra, Spec_contra]):
    """One estimator behind one call. The data are a `Sample` (one row per unit) or a `Panel`; the spec is its identification."""

    def fit(self, data: Data_contra, spec: Spec_contra, *, seed: int) -> Estimate:
        """The effect with its interval. Raises CausalError when these data do not allow it."""
        ...


def from_influence(
    estimate: float, influence: FloatArray, *, estimator: str, estimand: str, clusters: IntArray | None = None, **others: object
) -> Estimate:
    """Interval from influence values: normal over independent rows, t with G - 1 degrees over G clusters.

    Parameters
    ----------
    influence : shape (n,), one per row; centred here
    clusters : shape (n,), equal for rows that are not independent; small-sample factor G / (G - 1)
    others : further fields of `Estimate`
    """
    values = influence - influence.mean()
    n = len(values)
    if clusters is None:
        error = float(np.sqrt(np.sum(values**2) / (n * (n - 1))))
        critical, method = _Z, "normal, influence values"
        p_value = 2.0 * NormalDist().cdf(-abs(estimate) / error) if error > 0 else None
    else:
        from scipy.stats import t

        sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=values)
        groups = len(sums)
        error = float(np.sqrt(groups / max(groups - 1, 1) * np.sum(sums**2)) / n)
        critical = float(t.ppf(0.5 + LEVEL / 2, max(groups - 1, 1)))
        method = f"t with {groups - 1} degrees of freedom, clustered"
        p_value = float(2.0 * t.sf(abs(estimate) / error, max(groups - 1, 1))) if error > 0 else None
    return Estimate(
        estimator=estimator,
        estimand=estimand,
        estimate=estimate,
        standard_error=error,
        interval=(estimate - critical * error, estimate + critical * error),
        interval_method=method,
        p_value=p_value,
        influence=values,
        **others,  # type: ignore[arg-type]
    )
