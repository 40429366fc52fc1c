"""Units over time as arrays: what every panel estimator takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    place: IntArray | None = None
    """shape (N,): within which treatment of one unit may reach another; None where the study names none"""
    weights: FloatArray | None = None
    """shape (n,), positive"""
    negative_controls: dict[str, FloatArray] = field(default_factory=dict)
    """name -> shape (n,), NaN where missing"""
    row_cluster: IntArray | None = None
    """shape (n,): in repeated cross-sections, whose rows are different people, the rows that are not independent; else None"""
    cohort_given: IntArray | None = None
    """shape (N,): the first treated period where the study names it; it may lie in a gap of the unit's rows"""
    begun_between: int = 0
    """treated units whose first day of treatment, as the study names it, lies between two periods"""
    rows_given: int = 0
    """rows before those without outcome or treatment were left out"""
    notes: tuple[str, ...] = ()
    """what was done to the rows and columns"""

    @property
    def n_units(self) -> int:
        """N."""
        return len(self.unit_names)

    @property
    def n_periods(self) -> int:
        """T."""
        return len(self.period_names)

    @cached_property
    def cluster_of_rows(self) -> IntArray:
        """Shape (n,): equal for rows that are not independent."""
        return self.cluster[self.unit] if self.row_cluster is None else self.row_cluster

    @cached_property
    def cohort(self) -> IntArray:
        """First period with treatment per unit, shape (N,); NEVER where there is none.

        Where all units can have started in one period, they did: a unit whose row is missing then did not start later. Of several
        starts a unit with a gap before its first treated row takes the one in that gap that most units without one have: no row is
        affected, and cohorts of single units, whose spread nothing shows, do not arise from gaps.
        """
        if self.cohort_given is not None:
            return self.cohort_given
        first = np.full(self.n_units, NEVER, dtype=np.int64)
        rows = np.flatnonzero(self.treatment > 0)[::-1]  # backwards, so that the earliest row of a unit is written last
        first[self.unit[rows]] = self.time[rows]
        begun = first != NEVER
        untreated_before = self.time[(self.treatment <= 0) & begun[self.unit]]
        if len(untreated_before) and untreated_before.max() < first[begun].min():
            first[begun] = first[begun].min()
            return first
        return self._without_gaps(first)

    def _without_gaps(self, first: IntArray) -> IntArray:
        """First treated rows, shape (N,), moved to the usual start within the gap before them."""
        at = np.flatnonzero((self.treatment > 0) & (self.time == first[self.unit]))
        at = at[(at > 0) & (self.unit[at] == self.unit[at - 1])]
        earlier = self.time[at - 1]
        usual = np.bincount(self.time[at][earlier == self.time[at] - 1], minlength=self.n_periods)
        out = first.copy()
        for row, last in zip(at[earlier < self.time[at] - 1], earlier[earlier < self.time[at] - 1], strict=True):
            inside = usual[last + 1 : self.time[row] + 1]
            if inside.any():
                out[self.unit[row]] = last + 1 + int(inside.argmax())
        return out

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

    @cached_property
    def is_treated_from_start(self) -> BoolArray:
        """Whether the unit's first row is a treated one, shape (N,): nothing is seen of it before treatment."""
        first = np.flatnonzero(np.diff(self.unit, prepend=-1))
        out = np.zeros(self.n_units, dtype=np.bool_)
        out[self.unit[first]] = self.treatment[first] > 0
        return out

    @cached_property
    def is_always_treated(self) -> BoolArray:
        """Whether nothing is seen of the unit without treatment, shape (N,), also where it entered after its treatment began."""
        always: BoolArray = self.is_treated_from_start | ((self.cohort != NEVER) & (self.cohort <= 0))
        return always

    def of_units(self, keep: BoolArray) -> Panel:
        """The panel of some units; the periods stay. `keep` has shape (N,)."""
        rows = keep[self.unit]
        number = np.cumsum(keep) - 1
        return replace(
            self.of_rows(rows),
            unit=number[self.unit[rows]],
            unit_names=tuple(name for name, kept in zip(self.unit_names, keep, strict=True) if kept),
            cluster=np.unique(self.cluster[keep], return_inverse=True)[1].astype(np.int64),
            place=None if self.place is None else self.place[keep],
            cohort_given=None if self.cohort_given is None else self.cohort_given[keep],
        )

    def of_rows(self, rows: BoolArray) -> Panel:
        """The panel with some rows, shape (n,); units and periods stay, also those that lose every row."""
        return replace(
            self,
            unit=self.unit[rows],
            time=self.time[rows],
            outcome=self.outcome[rows],
            treatment=self.treatment[rows],
            covariates=self.covariates[rows],
            weights=None if self.weights is None else self.weights[rows],
            row_cluster=None if self.row_cluster is None else self.row_cluster[rows],
            negative_controls={name: values[rows] for name, values in self.negative_controls.items()},
        )

    def without_anticipation(self, periods: int) -> Panel:
        """Without the rows of treated units that may already react, `periods` before their treatment that lasts."""
        if periods == 0 or not self.is_absorbing:
            return self
        begun = self.cohort[self.unit]
        ahead = (begun != NEVER) & (self.time < begun) & (self.time >= begun - periods)
        return replace(self.of_rows(~ahead), cohort_given=self.cohort)

    def matrix(self, values: FloatArray | None = None) -> FloatArray:
        """Row values (default the outcome) as shape (N, T), NaN where there is no row."""
        out: FloatArray = np.full((self.n_units, self.n_periods), np.nan)
        out[self.unit, self.time] = self.outcome if values is None else values
        return out
