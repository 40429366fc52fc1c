"""Smooth differences in trends: the shortest fixed-length interval (Rambachan & Roth 2023; Armstrong & Kolesár 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray

_ALPHA = 0.05
_Z95 = 1.959963984540054
_NEWTON_STEPS = 8
"""the share inside is concave in the quantile: the steps close in from one side"""
_BETWEEN = 40
"""points looked at between two knots of the frontier"""


@dataclass(frozen=True, kw_only=True)
class SmoothFrontier:
    """Affine estimators that no other beats in both bias and variance, as knots of a piecewise linear path.

    An estimator is v'beta with v = l after treatment and free before it. It must be free of bias under a linear difference in
    trends; a change of slope by 1 at period s < 0 then adds u_s, and after treatment a constant. So bias = M (constant + sum |u|),
    the variance is quadratic in u, and the frontier is a lasso path.
    """

    estimates: FloatArray
    covariance: FloatArray
    n_pre: int
    knots: FloatArray
    """shape (m, p + q): v at the knots, from most biased and precise to unbiased before treatment"""
    bends: FloatArray
    """shape (m,): sum |u| at the knots"""
    constant: float
    """bias per M that no estimator avoids"""
    target: FloatArray

    @classmethod
    def trace(cls, estimates: FloatArray, covariance: FloatArray, *, n_pre: int, target: FloatArray) -> SmoothFrontier:
        """Follow the frontier; p - 1 free directions."""
        after = np.arange(1, len(target) + 1)
        late = np.maximum(after[:, None] - np.arange(len(target))[None, :], 0)  # slope changes at 0, 1, …
        before = np.arange(-n_pre, 0)
        early = np.maximum(np.arange(-1, -n_pre, -1)[None, :] - before[:, None], 0)  # slope changes at -1, -2, …
        back = np.linalg.inv(np.column_stack([before, early]).T.astype(np.float64))  # weights before from (slope, u)
        start = np.concatenate([back[:, 0] * -float(target @ after), target])
        moves = np.vstack([back[:, 1:], np.zeros((len(target), n_pre - 1))])
        path = _lasso_path(moves.T @ covariance @ moves, moves.T @ covariance @ start)
        return cls(
            estimates=estimates,
            covariance=covariance,
            n_pre=n_pre,
            knots=start + path @ moves.T,
            bends=np.abs(path).sum(axis=1),
            constant=float(np.abs(target @ late).sum()),
            target=target,
        )

    def interval(self, bound: float) -> tuple[float, float]:
        """The shortest fixed-length 95 % interval over the frontier at M = `bound`."""
        half, estimate = self._best(self.knots, self.bends, bound)
        return estimate - half, estimate + half

    def excludes_zero(self, bound: float) -> bool:
        """Whether the interval at M = `bound` leaves zero out."""
        half, estimate = self._best(self.knots, self.bends, bound)
        return abs(estimate) > half

    def _best(self, knots: FloatArray, bends: FloatArray, bound: float) -> tuple[float, float]:
        """Half length and centre; the length is convex along the path, so two rounds of looking closely find its lowest point."""
        for _ in range(3):
            place = np.unique(np.concatenate([np.linspace(k, k + 1, _BETWEEN) for k in range(max(len(knots) - 1, 1))]))
            place = place[place <= len(knots) - 1]
            low = np.minimum(place.astype(np.int64), max(len(knots) - 2, 0))
            high = np.minimum(low + 1, len(knots) - 1)
            share = (place - low)[:, None]
            candidates = (1 - share) * knots[low] + share * knots[high]
            bent = (1 - share[:, 0]) * bends[low] + share[:, 0] * bends[high]
            error = np.sqrt(np.sum((candidates @ self.covariance) * candidates, axis=1))
            half = error * folded_quantile(bound * (self.constant + bent) / error)
            best = int(np.argmin(half))
            near = slice(max(best - 1, 0), best + 2)
            found = float(half[best]), float(candidates[best] @ self.estimates)
            knots, bends = candidates[near], bent[near]
        return found

    def identified(self, bound: float) -> tuple[float, float]:
        """Effects that the estimates themselves allow at M = `bound`; NaN when they bend more than that before treatment."""
        before = np.append(self.estimates[: self.n_pre], 0.0)
        if self.n_pre > 1 and np.abs(np.diff(before, n=2)).max() > bound:
            return float("nan"), float("nan")
        after = np.arange(1, len(self.target) + 1)
        centre = float(self.target @ (self.estimates[self.n_pre :] + before[-2] * after))
        return centre - bound * self.constant, centre + bound * self.constant


def folded_quantile(bias: FloatArray) -> FloatArray:
    """95 % quantile of |N(bias, 1)|, the critical value for an estimator with that bias in standard errors."""
    from scipy.special import ndtr

    size = np.abs(bias)
    quantile = size + _Z95
    for _ in range(_NEWTON_STEPS):
        excess = ndtr(quantile - size) - ndtr(-quantile - size) - (1 - _ALPHA)
        density = np.exp(-0.5 * (quantile - size) ** 2) + np.exp(-0.5 * (quantile + size) ** 2)
        quantile = quantile - excess * np.sqrt(2 * np.pi) / density
    return quantile


def _lasso_path(square: FloatArray, slope: FloatArray) -> FloatArray:
    """Knots u, shape (m, p - 1), of min u'Su/2 + slope'u + penalty |u|, the penalty falling from where u = 0 to 0."""
    if len(slope) == 0:
        return np.zeros((1, 0))
    from sklearn.linear_model import lars_path_gram

    scale = float(np.trace(square)) / len(slope)
    _, _, path = lars_path_gram(-slope / scale, square / scale, n_samples=1, method="lasso")
    knots: FloatArray = path.T
    return knots
