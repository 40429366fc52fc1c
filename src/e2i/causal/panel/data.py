"""Units over time as arrays: what every panel estimator takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray

NEVER = -1
"""cohort of a unit that is not treated within the panel"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """n rows of N units in T periods, ordered by unit, then time. Rows without outcome or treatment are not in it."""

    unit: IntArray
    """shape (n,), 0 … N-1"""
    time: IntArray
    """shape (n,), 0 … T-1: rank of the period among those in the data"""
    outcome: FloatArray
    """shape (n,), finite"""
    treatment: FloatArray
    """shape (n,): 0/1 in that period; for a cohort study 1 from the first treated period on"""
    unit_names: tuple[str, ...]
    period_names: tuple[str, ...]
    """as people read them, for instance 2004 or 2024-01-05"""
    period_values: FloatArray
    """shape (T,), increasing: the numbers or days behind the periods, for gaps and for axes"""
    cluster: IntArray
    """shape (N,), 0 … G-1; the units themselves unless the study names coarser ones"""
    covariates: FloatArray
    """shape (n, k), numbers per row, k may be 0; time-varying or repeated per unit"""
    covariate_names: tuple[str, ...] = ()
    weights: FloatArray | None = None
    """shape (n,), positive"""
    negative_controls: dict[str, FloatArray] = field(default_factory=dict)
    """name -> shape (n,), NaN where missing"""

    @property
    def n_units(self) -> int:
        """N."""
        return len(self.unit_names)

    @property
    def n_periods(self) -> int:
        """T."""
        return len(self.period_names)

    @cached_property
    def cohort(self) -> IntArray:
        """First period with treatment per unit, shape (N,); NEVER where there is none."""
        first = np.full(self.n_units, NEVER, dtype=np.int64)
        rows = np.flatnonzero(self.treatment > 0)[::-1]  # backwards, so that the earliest row of a unit is written last
        first[self.unit[rows]] = self.time[rows]
        return first

    @cached_property
    def is_absorbing(self) -> bool:
        """Once treated, treated in every later row."""
        begun = self.cohort[self.unit]
        return bool(np.all((self.treatment > 0) == ((begun != NEVER) & (self.time >= begun))))

    @cached_property
    def is_balanced(self) -> bool:
        """Every unit has a row in every period."""
        return len(self.unit) == self.n_units * self.n_periods

    @cached_property
    def observed(self) -> BoolArray:
        """Whether the unit has a row in the period, shape (N, T)."""
        out = np.zeros((self.n_units, self.n_periods), dtype=np.bool_)
        out[self.unit, self.time] = True
        return out

    def matrix(self, values: FloatArray | None = None) -> FloatArray:
        """Row values (default the outcome) as shape (N, T), NaN where there is no row."""
        out: FloatArray = np.full((self.n_units, self.n_periods), np.nan)
        out[self.unit, self.time] = self.outcome if values is None else values
        return out
