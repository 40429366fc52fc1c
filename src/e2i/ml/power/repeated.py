"""Repeated measures: what a pre-period and longer follow-up do to the variance of a comparison.

Frison & Pocock (1992): with means over p periods before and r after, the variance per unit is var(post) for a plain comparison,
var(post - pre) for the double difference, and var(post) (1 - corr²) for ANCOVA. The covariance over time is the user's own: measured
where the panel holds the windows, else from a fitted unit effect plus first-order autoregression plus noise (compound symmetry is the
case without autoregression; Diggle et al. 2002, chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from e2i.domain.trials import Analysis
    from e2i.ml.columns import FloatArray

_MOST_LAGS = 60


@dataclass(frozen=True, kw_only=True)
class TimeCovariance:
    """cov(y_t, y_s) = between + serial x rho^|t - s| + noise x [t = s]."""

    between: float
    serial: float
    rho: float
    noise: float

    def matrix(self, periods: int) -> FloatArray:
        """Covariance over consecutive periods; shape (periods, periods)."""
        lag = np.abs(np.subtract.outer(np.arange(periods), np.arange(periods)))
        return np.asarray(self.between + self.serial * self.rho**lag + self.noise * (lag == 0), dtype=np.float64)

    def windows(self, *, pre: int, post: int) -> Windows:
        """Variances of the means over `pre` periods and the `post` ones right after."""
        return windows(self.matrix(pre + post), pre=pre)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Per unit: variance of the pre and post means, and their covariance."""

    var_pre: float
    var_post: float
    covariance: float

    @property
    def correlation(self) -> float:
        """Of pre and post means; 0 where one does not vary."""
        return self.covariance / (self.var_pre * self.var_post) ** 0.5 if self.var_pre > 0 and self.var_post > 0 else 0.0

    def variance(self, analysis: Analysis) -> float:
        """Variance per unit that an analysis leaves."""
        if analysis == "double_difference":
            return self.var_post + self.var_pre - 2.0 * self.covariance
        if analysis == "ancova" and self.var_pre > 0:
            return self.var_post - self.covariance**2 / self.var_pre
        return self.var_post


def windows(covariance: FloatArray, *, pre: int) -> Windows:
    """From a covariance matrix over time, shape (T, T), whose first `pre` periods lie before the start.

    >>> equal = np.full((2, 2), 0.5) + 0.5 * np.eye(2)
    >>> w = windows(equal, pre=1)
    >>> (w.variance("difference"), w.variance("double_difference"), w.variance("ancova"))
    (1.0, 1.0, 0.75)
    """
    before = np.zeros(len(covariance))
    before[:pre] = 1.0 / pre
    after = np.zeros(len(covariance))
    after[pre:] = 1.0 / (len(covariance) - pre)
    return Windows(
        var_pre=float(before @ covariance @ before),
        var_post=float(after @ covariance @ after),
        covariance=float(before @ covariance @ after),
    )


def fit_time_covariance(wide: FloatArray) -> TimeCovariance:
    """Fit to the autocovariances of units x periods (NaN where absent), period means removed; least squares weighted by pairs."""
    from scipy import optimize

    gamma, pairs = _autocovariances(wide)
    lags = np.arange(len(gamma))
    weight = np.sqrt(pairs / pairs.sum())
    best: tuple[float, float, FloatArray] | None = None
    for rho in np.concatenate([[0.0], np.linspace(0.05, 0.95, 19)]) if len(gamma) > 3 else (0.0,):
        basis = np.column_stack([np.ones(len(lags)), rho**lags if rho > 0 else np.zeros(len(lags)), lags == 0]).astype(np.float64)
        found, error = optimize.nnls(basis * weight[:, None], gamma * weight)
        if best is None or error < best[0] - 1e-12:
            best = (error, float(rho), found)
    assert best is not None
    _, rho, (between, serial, noise) = best
    return TimeCovariance(between=float(between), serial=float(serial), rho=rho, noise=float(noise))


def _autocovariances(wide: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = np.isfinite(wide)
    count = known.sum(axis=0)
    centred = np.where(known, wide - np.where(known, wide, 0.0).sum(axis=0) / np.maximum(count, 1), 0.0)
    most = min(wide.shape[1], _MOST_LAGS)
    sums, pairs = np.zeros(most), np.zeros(most)
    for lag in range(most):
        left, right = slice(0, wide.shape[1] - lag), slice(lag, None)
        sums[lag] = np.sum(centred[:, left] * centred[:, right])
        pairs[lag] = np.sum(known[:, left] & known[:, right])
    use = pairs > 1
    correction = len(wide) / max(len(wide) - 1, 1)
    return sums[use] / pairs[use] * correction, pairs[use]
