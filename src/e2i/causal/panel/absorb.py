"""Residuals on unit and period effects, exact for any pattern of gaps, without a column per unit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray

_BLOCK = 20_000_000
"""cells of the table of units and periods that are held at a time"""


def sum_by(number: IntArray, values: FloatArray, groups: int) -> FloatArray:
    """Sums of values, shape (n,) or (n, k), over rows of equal number, shape (groups,) or (groups, k)."""
    if values.ndim == 1:
        return np.bincount(number, weights=values, minlength=groups).astype(np.float64, copy=False)
    sums = np.zeros((groups, values.shape[1]))
    for place, column in enumerate(values.T):
        sums[:, place] = np.bincount(number, weights=column, minlength=groups)
    return sums


def inverse_of(gram: FloatArray) -> FloatArray:
    """Pseudo-inverse of a symmetric cross product, shape (k, k); directions without variation are left out."""
    if gram.size == 0:
        return gram
    return np.linalg.pinv(gram, rcond=1e-10, hermitian=True).astype(np.float64, copy=False)


@dataclass(frozen=True, kw_only=True)
class TwoWay:
    """Projection off unit and period effects (Frisch, Waugh & Lovell): units by means, periods by their normal equations."""

    unit: IntArray
    """shape (n,), 0 … N-1"""
    time: IntArray
    """shape (n,), 0 … T-1"""
    weights: FloatArray
    """shape (n,), positive; ones for none"""

    @property
    def n_units(self) -> int:
        """N."""
        return int(self.unit.max()) + 1

    @property
    def n_periods(self) -> int:
        """T."""
        return int(self.time.max()) + 1

    @cached_property
    def unit_mass(self) -> FloatArray:
        """Weight per unit, shape (N,); 1 for a number without rows."""
        mass = sum_by(self.unit, self.weights, self.n_units)
        return np.where(mass > 0, mass, 1.0)

    @cached_property
    def period_gram(self) -> FloatArray:
        """Cross products of period indicators after unit means, shape (T, T)."""
        gram: FloatArray = np.diag(sum_by(self.time, self.weights, self.n_periods))
        step = max(_BLOCK // self.n_periods, 1)
        order = np.argsort(self.unit, kind="stable")
        edges = np.searchsorted(self.unit[order], np.arange(0, self.n_units + step, step))
        for start, stop in pairwise(edges.tolist()):
            rows = order[start:stop]
            if len(rows) == 0:
                continue
            local = self.unit[rows] - self.unit[rows[0]]
            height = int(local[-1]) + 1
            cells = sum_by(local * self.n_periods + self.time[rows], self.weights[rows], height * self.n_periods)
            table = cells.reshape(height, self.n_periods)
            table /= np.sqrt(self.unit_mass[self.unit[rows[0]] : self.unit[rows[-1]] + 1])[:, None]
            gram -= table.T @ table
        return gram

    @cached_property
    def period_inverse(self) -> FloatArray:
        """Pseudo-inverse of `period_gram`, shape (T, T)."""
        return inverse_of(self.period_gram)

    @cached_property
    def period_rank(self) -> int:
        """Period effects that are identified beside unit effects: T minus the number of unconnected parts."""
        return int(np.linalg.matrix_rank(self.period_gram, tol=1e-10 * float(np.abs(self.period_gram).max()), hermitian=True))

    def within(self, values: FloatArray) -> FloatArray:
        """Values minus their weighted unit mean, shape (n,)."""
        means: FloatArray = sum_by(self.unit, self.weights * values, self.n_units) / self.unit_mass
        return values - means[self.unit]

    def residual(self, values: FloatArray) -> FloatArray:
        """Values, shape (n,) or (n, k), minus unit and period effects."""
        if values.ndim == 2:
            return np.column_stack([self.residual(column) for column in values.T]) if values.shape[1] else values.copy()
        inside = self.within(values)
        periods: FloatArray = self.period_inverse @ sum_by(self.time, self.weights * inside, self.n_periods)
        return inside - self.within(periods[self.time])
