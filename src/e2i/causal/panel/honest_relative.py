"""Relative magnitudes: the conditional test with a least-favourable first stage (Andrews, Roth & Pakes 2023), in closed form.

For one period and sign of the largest step v before treatment, the moments are ±(step after) - Mbar v <= 0. The dual of the linear
program behind the test has, here, one vertex per step after treatment and two for the target, so no program is solved: every
candidate effect is tested at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray

_ALPHA = 0.05
_KAPPA = _ALPHA / 10
"""size of the first stage, as the paper advises"""
_POINTS = 401
_ROUNDS = 3
_BEYOND = 101
_ANGLES = 1_024
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class RelativeTest:
    """Event study, target, and what does not change with the bound."""

    estimates: FloatArray
    """shape (p + q,)"""
    covariance: FloatArray
    n_pre: int
    target: FloatArray
    """shape (q,)"""

    @property
    def estimate(self) -> float:
        """The target under parallel trends."""
        return float(self.target @ self.estimates[self.n_pre :])

    @property
    def standard_error(self) -> float:
        """Of `estimate`."""
        return float(np.sqrt(self.target @ self.covariance[self.n_pre :, self.n_pre :] @ self.target))

    @property
    def steps(self) -> FloatArray:
        """Rows that turn estimates into steps, shape (p + q, p + q): p before the reference period, then q after it."""
        size, rows = len(self.estimates), np.zeros((len(self.estimates) + 1, len(self.estimates)))
        rows[: self.n_pre, : self.n_pre] = np.eye(self.n_pre)
        rows[self.n_pre + 1 :, self.n_pre :] = np.eye(size - self.n_pre)
        return np.diff(rows, axis=0)

    @property
    def reach(self) -> float:
        """How far the target moves when every step after treatment is off by 1 in the worst direction."""
        return float(np.abs(self._tails).sum())

    @property
    def _tails(self) -> FloatArray:
        tails: FloatArray = np.cumsum(self.target[::-1])[::-1]
        return tails

    def identified(self, bound: float) -> tuple[float, float]:
        """Effects that the estimates themselves allow at Mbar = `bound`."""
        largest = float(np.abs(self.steps[: self.n_pre] @ self.estimates).max())
        return self.estimate - bound * self.reach * largest, self.estimate + bound * self.reach * largest

    def interval(self, bound: float) -> tuple[float, float]:
        """Smallest and largest effect that the test does not reject at 5 % for some period and sign of the largest step."""
        stages, half = self._stages(bound), self._half(bound)
        ends = []
        for side in (-1.0, 1.0):
            near, far = 0.0, half
            while _accepted(stages, np.array([self.estimate + side * far]))[0]:
                near, far = far, 2 * far
            for _ in range(_ROUNDS):
                distance = np.linspace(near, far, _POINTS)
                kept = np.flatnonzero(_accepted(stages, self.estimate + side * distance))
                last = int(kept[-1]) if len(kept) else 0
                near, far = distance[last], distance[min(last + 1, _POINTS - 1)]
            ends.append(self.estimate + side * float(far))
        return ends[0], ends[1]

    def excludes_zero(self, bound: float) -> bool:
        """Whether zero and the effects beyond it are all rejected at Mbar = `bound`; cheaper than the interval."""
        beyond = -np.sign(self.estimate) * np.linspace(0.0, self._half(bound), _BEYOND)
        return not _accepted(self._stages(bound), beyond).any()

    def _stages(self, bound: float) -> list[_Stage]:
        """Large steps first: they accept most."""
        likely = np.argsort(-np.abs(self._estimated_steps[: self.n_pre]))
        return [self._stage(bound, int(place), sign) for place in likely for sign in (1.0, -1.0)]

    def _half(self, bound: float) -> float:
        """A distance from the estimate that the set seldom exceeds."""
        before = self.steps[: self.n_pre]
        spread = np.sqrt(np.diag(before @ self.covariance @ before.T))
        return bound * self.reach * float((np.abs(before @ self.estimates) + 4 * spread).max()) + 5 * self.standard_error

    def _stage(self, bound: float, place: int, sign: float) -> _Stage:
        """Vertices of the dual for one period and sign of the largest step, each scaled to the spread of its moments.

        All of them are combinations of two figures, the target and the largest step: only these need the covariance of the estimates.
        """
        moves = self._covariance_of_steps
        after = slice(self.n_pre, None)
        own, with_largest = np.diag(moves)[after], 2.0 * bound * sign * moves[place, after]
        lasting = bound**2 * moves[place, place]
        spread_up, spread_down = (np.sqrt(np.maximum(own + lasting + side * with_largest, 0.0)) for side in (-1.0, 1.0))
        rise, fall = np.maximum(self._tails, 0), np.maximum(-self._tails, 0)
        parts = [(1.0, -bound * self.reach), (-1.0, -bound * self.reach)]
        scale = [rise @ spread_up + fall @ spread_down, rise @ spread_down + fall @ spread_up]
        slope = [-1.0, 1.0]
        if bound > 0:
            parts += [(0.0, -2.0 * bound)] * len(own)
            scale += list(spread_up + spread_down)
            slope += [0.0] * len(own)
        size = np.array(scale)
        vertices = np.array(parts) / size[:, None]
        pair = np.zeros((2, len(moves)))
        pair[0, after], pair[1, place] = self._tails, sign
        level = vertices @ (pair @ self._estimated_steps)
        axes = vertices @ _root(pair @ moves @ pair.T)
        # Of vertices that are multiples of one another the longest has the largest value.
        apart = axes[[0, 1, 2 + int(size[2:].argmin())]] if bound > 0 else axes
        return _Stage(level=level, slope=np.array(slope) / size, covariance=axes @ axes.T, least_favourable=_least_favourable(apart))

    @cached_property
    def _estimated_steps(self) -> FloatArray:
        return self.steps @ self.estimates

    @cached_property
    def _covariance_of_steps(self) -> FloatArray:
        """Shape (p + q, p + q)."""
        found: FloatArray = self.steps @ self.covariance @ self.steps.T
        return found


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """Statistics at the vertices: `level + slope theta`, with their covariance; the test takes the largest."""

    level: FloatArray
    slope: FloatArray
    covariance: FloatArray
    least_favourable: float

    def accepts(self, effects: FloatArray) -> BoolArray:
        """Which effects, shape (m,), the hybrid test does not reject."""
        from scipy.special import ndtr, ndtri

        values = self.level[:, None] + self.slope[:, None] * effects
        best = values.argmax(axis=0)
        largest = values[best, np.arange(len(effects))]
        variance = np.diag(self.covariance)[best]
        ratio = self.covariance[:, best] / variance
        free = values - ratio * largest  # independent of the largest value
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = free / (1 - ratio)
        below = np.where(ratio < 1 - _TINY, crossing, -np.inf).max(axis=0)
        above = np.minimum(np.where(ratio > 1 + _TINY, crossing, np.inf).min(axis=0), self.least_favourable)
        error = np.sqrt(variance)
        floor, ceiling = ndtr(below / error), ndtr(above / error)
        size = (_ALPHA - _KAPPA) / (1 - _KAPPA)
        # in the upper tail, where 1 - Phi keeps its digits
        tail = size * ndtr(-below / error) + (1 - size) * ndtr(-above / error)
        critical = np.where(ceiling > floor, -ndtri(np.clip(tail, 1e-300, 1.0)) * error, np.inf)
        rejected = (largest > self.least_favourable) | (largest > np.maximum(critical, 0.0))
        accepted: BoolArray = ~rejected
        return accepted


def _accepted(stages: list[_Stage], effects: FloatArray) -> BoolArray:
    accepted = np.zeros(len(effects), dtype=np.bool_)
    for stage in stages:
        left = np.flatnonzero(~accepted)
        if not len(left):
            break
        accepted[left] = stage.accepts(effects[left])
    return accepted


def _root(square: FloatArray) -> FloatArray:
    """A root of a positive semidefinite matrix, which may be singular."""
    values, vectors = np.linalg.eigh(square)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _least_favourable(axes: FloatArray) -> float:
    """Quantile at 1 - kappa of the largest of normal variables with loadings `axes`, shape (m, 2), by integration over the angle.

    In direction phi the radius at which a variable reaches c is c / m(phi), and a radius r is left inside with probability
    1 - exp(-r² / 2).
    """
    from scipy.optimize import brentq

    angle = 2 * np.pi * (np.arange(_ANGLES) + 0.5) / _ANGLES
    reach = (axes @ np.stack([np.cos(angle), np.sin(angle)])).max(axis=0)
    reach = reach[reach > 0]

    def beyond(critical: float) -> float:
        return float(np.exp(-0.5 * (critical / reach) ** 2).sum()) / _ANGLES - _KAPPA

    top = float(reach.max())
    return float(brentq(beyond, 0.0, 10 * top, xtol=1e-10 * top))
