"""Effects per cohort and period without covariates: from cohort means alone, with the influence of every unit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.panel.data import NEVER, Panel

Control = Literal["never", "not_yet"]
Base = Literal["varying", "universal"]
_BLOCK = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which comparisons are made: K cells of cohort and period, each against a base period and a set of control cohorts."""

    cohorts: IntArray
    """shape (H,), first treated period per cohort, NEVER last where there is one"""
    treated: IntArray
    """shape (K,): number of the cohort"""
    time: IntArray
    """shape (K,)"""
    base: IntArray
    """shape (K,): the period that the cell is compared with"""
    controls: BoolArray
    """shape (K, H)"""

    def select(self, keep: BoolArray) -> Grid:
        """Some of the cells, shape (K,)."""
        return Grid(
            cohorts=self.cohorts, treated=self.treated[keep], time=self.time[keep], base=self.base[keep], controls=self.controls[keep]
        )

    @property
    def first(self) -> IntArray:
        """First treated period of each cell's cohort, shape (K,)."""
        return self.cohorts[self.treated]

    @property
    def event_time(self) -> IntArray:
        """Periods since treatment began, shape (K,)."""
        return self.time - self.first


def make_grid(cohort: IntArray, seen: BoolArray, *, control: Control, base: Base, anticipation: int) -> Grid:
    """Cells of Callaway & Sant'Anna (2021), section 2: base period g - 1 - anticipation after treatment.

    Before treatment the base is the period before (`varying`), or the same as after (`universal`), as in the R package did. Where
    nobody of the cohort is seen in the base period, the last period before it in which somebody is takes its place.

    Parameters
    ----------
    cohort : shape (N,)
    seen : shape (N, T), whether the unit has a row in the period
    """
    found = np.unique(cohort)
    cohorts = np.r_[found[found != NEVER], found[found == NEVER]].astype(np.int64)
    cells: list[tuple[int, int, int]] = []
    for number, first in enumerate(cohorts.tolist()):
        before = np.flatnonzero(seen[cohort == first, : max(first - anticipation, 0)].any(axis=0))
        if first == NEVER or len(before) == 0:
            continue
        long_base = int(before[-1])
        for period in range(seen.shape[1]):
            compared = long_base if base == "universal" or period >= first else period - 1
            if compared >= 0 and compared != period:
                cells.append((number, period, compared))
    table = np.array(cells, dtype=np.int64).reshape(-1, 3)
    treated, time, base_of = table.T
    never = cohorts == NEVER
    later = cohorts[None, :] > np.maximum(time, base_of)[:, None] + anticipation
    controls = np.broadcast_to(never, later.shape) | (later & (np.arange(len(cohorts)) != treated[:, None]) & (control == "not_yet"))
    return Grid(cohorts=cohorts, treated=treated, time=time, base=base_of, controls=controls)


@dataclass(frozen=True, kw_only=True)
class Means:
    """Cell effects as differences of cohort means over the units seen in both periods of the cell."""

    grid: Grid
    outcome: FloatArray
    """shape (N, T), minus the unit's mean; 0 where there is no row"""
    observed: BoolArray
    """shape (N, T)"""
    member: IntArray
    """shape (N,): number of the unit's cohort"""
    weights: FloatArray
    """shape (N,), mean 1"""

    @cached_property
    def _cohorts(self) -> tuple[tuple[IntArray, FloatArray, bool], ...]:
        """Per cohort: its units, their outcomes, and whether all of them are seen in all periods."""
        parts = (np.flatnonzero(self.member == number) for number in range(len(self.grid.cohorts)))
        complete = bool(self.observed.all())
        return tuple((rows, self.outcome[rows], complete or bool(self.observed[rows].all())) for rows in parts)

    @cached_property
    def _tables(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Per cohort and cell, each (H, K): weight, units, and sum of changes over units seen in both periods."""
        grid = self.grid
        shape = (len(grid.cohorts), len(grid.time))
        mass, units, change = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for number, (rows, outcome, complete) in enumerate(self._cohorts):
            if complete:
                total = self.weights[rows] @ outcome
                mass[number], units[number] = self.weights[rows].sum(), len(rows)
                change[number] = total[grid.time] - total[grid.base]
                continue
            seen = self.observed[rows].astype(np.float64)
            weighted = seen * self.weights[rows, None]
            sums = (outcome * self.weights[rows, None]).T @ seen
            pairs = weighted.T @ seen
            mass[number] = pairs[grid.time, grid.base]
            units[number] = (seen.T @ seen)[grid.time, grid.base]
            change[number] = sums[grid.time, grid.base] - sums[grid.base, grid.time]
        return mass, units, change

    @cached_property
    def _arms(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Weight and mean change of the treated and of the controls, each (K,)."""
        mass, _, change = self._tables
        cell = np.arange(len(self.grid.time))
        treated_mass = mass[self.grid.treated, cell]
        control_mass = np.sum(mass * self.grid.controls.T, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            treated = change[self.grid.treated, cell] / treated_mass
            control = np.sum(change * self.grid.controls.T, axis=0) / control_mass
        return treated_mass, treated, control_mass, control

    @property
    def estimate(self) -> FloatArray:
        """ATT(g, t), shape (K,); NaN where a cell has no treated or no control unit."""
        _, treated, _, control = self._arms
        return treated - control

    @property
    def n_treated(self) -> IntArray:
        """Treated units per cell, shape (K,)."""
        return self._tables[1][self.grid.treated, np.arange(len(self.grid.time))].astype(np.int64)

    @property
    def n_controls(self) -> FloatArray:
        """Control units per cell, shape (K,)."""
        counted: FloatArray = np.sum(self._tables[1] * self.grid.controls.T, axis=0)
        return counted

    def combine(self, weights: FloatArray) -> FloatArray:
        """Influence per unit, shape (N, m), of m weighted sums of cells; `weights` has shape (K, m), 0 for NaN cells."""
        treated_mass, treated, control_mass, control = self._arms
        used = np.isfinite(treated - control) & (weights != 0).any(axis=1)
        as_treated = weights * (len(self.member) / np.where(used, treated_mass, 1.0))[:, None]
        as_control = weights * (-len(self.member) / np.where(used, control_mass, 1.0))[:, None]
        out = np.zeros((len(self.member), weights.shape[1]))
        for number, (rows, outcome, complete) in enumerate(self._cohorts):
            own = np.flatnonzero(used & (self.grid.treated == number))
            other = np.flatnonzero(used & self.grid.controls[:, number])
            cells, scaled = np.r_[own, other], np.vstack([as_treated[own], as_control[other]])
            centre = np.r_[treated[own], control[other]]
            if not len(cells):
                continue
            if complete:
                sums = self._sums(outcome, cells, scaled) - centre @ scaled
            else:
                sums = self._sums_with_gaps(rows, cells, scaled, centre=centre)
            out[rows] = sums if self.is_unweighted else self.weights[rows, None] * sums
        return out

    @cached_property
    def is_unweighted(self) -> bool:
        """All units count the same."""
        return bool((self.weights == 1.0).all())

    def _sums(self, outcome: FloatArray, cells: IntArray, scaled: FloatArray) -> FloatArray:
        """Weighted sums of the changes of some cells, per row of `outcome`, which has no gaps."""
        loading = np.zeros((outcome.shape[1], scaled.shape[1]))
        np.add.at(loading, self.grid.time[cells], scaled)
        np.subtract.at(loading, self.grid.base[cells], scaled)
        return outcome @ loading

    def _sums_with_gaps(self, rows: IntArray, cells: IntArray, scaled: FloatArray, *, centre: FloatArray) -> FloatArray:
        """The same around the cells' means, over the cells in which a row is seen."""
        time, base = self.grid.time[cells], self.grid.base[cells]
        out = np.empty((len(rows), scaled.shape[1]))
        step = max(_BLOCK // len(cells), 1)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            both = self.observed[np.ix_(part, time)] & self.observed[np.ix_(part, base)]
            change = (self.outcome[np.ix_(part, time)] - self.outcome[np.ix_(part, base)] - centre) * both
            out[start : start + step] = change @ scaled
        return out


def make_means(panel: Panel, grid: Grid, weights: FloatArray) -> Means:
    """The panel as matrices, the outcome around each unit's mean so that large levels cost no digits."""
    total = np.bincount(panel.unit, weights=panel.outcome, minlength=panel.n_units)
    centre = total / np.maximum(np.bincount(panel.unit, minlength=panel.n_units), 1)
    outcome = np.zeros((panel.n_units, panel.n_periods))
    outcome[panel.unit, panel.time] = panel.outcome - centre[panel.unit]
    return Means(grid=grid, outcome=outcome, observed=panel.observed, member=member_of(panel.cohort, grid), weights=weights)


def member_of(cohort: IntArray, grid: Grid) -> IntArray:
    """Number of each unit's cohort in the grid, shape (N,)."""
    order = np.argsort(grid.cohorts)
    return order[np.searchsorted(grid.cohorts, cohort, sorter=order)].astype(np.int64)
