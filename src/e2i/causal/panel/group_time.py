"""Staggered adoption: effects per cohort and period, and their averages (Callaway & Sant'Anna 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.cells import Base, Control, Grid, make_grid, make_means, member_of
from e2i.causal.panel.clusters import cluster_influence, clustered_estimate
from e2i.causal.panel.conditional import Method, refuse_separation, weighted_or_regressed
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.moving_confounders import Taken, without_moving
from e2i.domain.disclosure import counted
from e2i.errors import NotIdentified

Summary = Literal["simple", "dynamic", "group", "calendar"]
EXTRAPOLATED = "extrapolated_cells"


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """m averages of cells, and their overall average."""

    kind: Summary
    labels: IntArray
    """shape (m,): periods since treatment (dynamic), cohorts (group) or periods (calendar); empty for simple"""
    estimate: FloatArray
    """shape (m,)"""
    influence: FloatArray
    """shape (G, m), one row per cluster"""
    overall: float
    overall_influence: FloatArray
    """shape (G,)"""

    @property
    def standard_error(self) -> FloatArray:
        """Shape (m,), clustered, with the factor G / (G - 1)."""
        groups = len(self.influence)
        error: FloatArray = np.sqrt(np.sum((self.influence - self.influence.mean(axis=0)) ** 2, axis=0) / (groups * max(groups - 1, 1)))
        return error


@dataclass(frozen=True, kw_only=True)
class GroupTimeEffects:
    """ATT(g, t) of K cells, and what is needed to average them with honest intervals."""

    grid: Grid
    estimate: FloatArray
    """shape (K,)"""
    n_treated: IntArray
    """shape (K,)"""
    combine: Callable[[FloatArray], FloatArray]
    """cell weights, shape (K, m) -> influence per unit, shape (N, m)"""
    member: IntArray
    """shape (N,): number of the unit's cohort"""
    weights: FloatArray
    """shape (N,), mean 1"""
    cluster: IntArray
    """shape (N,)"""
    effective_controls: float
    """of the treated cell that has fewest, under weights that make controls resemble the treated"""
    extrapolated: int = 0
    """cells whose controls do not resemble the treated: the outcome's regression on the confounders carries them"""
    notes: tuple[str, ...] = ()

    @cached_property
    def share(self) -> FloatArray:
        """Share of each cohort in all units, shape (H,)."""
        return np.bincount(self.member, weights=self.weights, minlength=len(self.grid.cohorts)) / len(self.member)

    def standard_errors(self) -> FloatArray:
        """Of each cell, shape (K,), clustered."""
        errors = np.empty(len(self.estimate))
        for start in range(0, len(errors), 64):
            part = np.arange(start, min(start + 64, len(errors)))
            picked = np.zeros((len(errors), len(part)))
            picked[part, np.arange(len(part))] = 1.0
            values = cluster_influence(self.combine(picked), self.cluster)
            groups, centred = len(values), values - values.mean(axis=0)
            errors[part] = np.sqrt(np.einsum("ij,ij->j", centred, centred) / (groups * max(groups - 1, 1)))
        return errors

    def aggregate(self, kind: Summary, *, cells: BoolArray | None = None) -> Aggregation:
        """Averages of section 3.1: cells of a cohort count by the cohort's share, which is estimated too.

        `dynamic` averages over event times from 0 on, `group` over cohorts, `calendar` over periods, `simple` over treated cells.

        Parameters
        ----------
        cells : shape (K,), those that count; default all

        Raises
        ------
        NotIdentified
            No cell after treatment has both treated and control units.
        """
        after = self.grid.event_time >= 0
        if not after.any():
            raise NotIdentified("no treated period has a control.", where="panel", advice="Add units that are treated later or never.")
        if kind == "simple":
            return self._finish(kind, np.zeros(0, dtype=np.int64), self._averages(after[:, None]), np.ones(1))
        key = {"dynamic": self.grid.event_time, "group": self.grid.first, "calendar": self.grid.time}[kind]
        chosen = np.ones_like(after) if kind == "dynamic" else after
        chosen = chosen if cells is None else chosen & cells
        labels = np.unique(key[chosen])
        averages = self._averages((key[:, None] == labels) & chosen[:, None])
        return self._finish(kind, labels, averages, self._importance(kind, labels))

    def _averages(self, chosen: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Averages (m,) and influence per unit (N, m) of chosen cells, shape (K, m)."""
        raw = chosen * self.share[self.grid.treated][:, None]
        total = raw.sum(axis=0)
        cell_weights = raw / total
        average = self.estimate @ cell_weights
        influence = self.combine(cell_weights)
        by_cohort = np.zeros((len(self.grid.cohorts), chosen.shape[1]))
        np.add.at(by_cohort, self.grid.treated, chosen * (self.estimate[:, None] - average))
        influence += self.weights[:, None] * (by_cohort / total)[self.member]
        return average, influence

    def _importance(self, kind: Summary, labels: IntArray) -> FloatArray:
        """Weights of the overall average, shape (m,), sum 1."""
        if kind == "group":
            share = self.share[np.searchsorted(self.grid.cohorts[: self._n_treated_cohorts], labels)]
            return share / float(share.sum())
        used = labels >= 0
        return used / float(used.sum())

    @property
    def _n_treated_cohorts(self) -> int:
        return int((self.grid.cohorts != NEVER).sum())

    def _finish(self, kind: Summary, labels: IntArray, found: tuple[FloatArray, FloatArray], importance: FloatArray) -> Aggregation:
        average, influence = found
        overall = float(average @ importance)
        total = influence @ importance
        if kind == "group":
            cohorts = np.zeros(len(self.grid.cohorts))
            at = np.searchsorted(self.grid.cohorts[: self._n_treated_cohorts], labels)
            cohorts[at] = (average - overall) / float(self.share[at].sum())
            total = total + self.weights * cohorts[self.member]
        return Aggregation(
            kind=kind,
            labels=labels,
            estimate=average,
            influence=cluster_influence(influence, self.cluster),
            overall=overall,
            overall_influence=cluster_influence(total, self.cluster),
        )


@dataclass(frozen=True, kw_only=True)
class GroupTime:
    """Callaway & Sant'Anna (2021) with covariates before treatment as in Sant'Anna & Zhao (2020).

    What covariates that change within units do to the outcome is taken off first; see `moving_confounders`.
    """

    control: Control = "not_yet"
    method: Method = "doubly_robust"
    """used where the study names confounders"""
    base: Base = "varying"
    summary: Summary = "simple"

    def fit(self, panel: Panel, spec: Identification, *, seed: int) -> Estimate:
        """The average effect on the treated; `summary` says over what.

        Raises
        ------
        NotIdentified
            No control units, no pre-period, or treatment is switched off.
        PositivityViolated
            Confounders separate every cohort from its controls, or one that has too few controls for a regression.
        """
        del seed
        effects = self.effects(panel, spec)
        found = effects.aggregate(self.summary)
        cells = effects.grid.event_time >= 0
        return clustered_estimate(
            found.overall,
            found.overall_influence,
            estimator=self._name(bool(panel.covariates.shape[1])),
            estimand="ATT",
            n_treated=int(np.isin(panel.cohort, effects.grid.first[cells]).sum()),
            n_untreated=int((panel.cohort == NEVER).sum()),
            diagnostics={
                "cells": float(len(cells)),
                "clusters": float(len(found.overall_influence)),
                "effective_controls": effects.effective_controls,
                **({EXTRAPOLATED: float(effects.extrapolated)} if effects.extrapolated else {}),
            },
            notes=effects.notes,
        )

    def effects(self, panel: Panel, spec: Identification) -> GroupTimeEffects:
        """ATT(g, t) of every cell that has treated and control units."""
        panel, notes = absorbing(panel)
        if self.control == "never" and not (panel.cohort == NEVER).any():
            raise NotIdentified("no never-treated unit.", where="panel", advice="Compare with units that are not yet treated.")
        grid = make_grid(panel.cohort, panel.observed, control=self.control, base=self.base, anticipation=spec.anticipation)
        weights = unit_weights(panel)
        means = make_means(panel, grid, weights)
        keep = np.isfinite(means.estimate)
        if not keep.any():
            raise NotIdentified("no cell of cohort and period has both treated and control units.", where="panel", advice="Add controls.")
        if int((~keep).sum()):
            notes = (*notes, f"{int((~keep).sum())} of {len(keep)} cells of cohort and period have no control unit and were left out")
        grid = grid.select(keep)
        if panel.covariates.shape[1]:
            moving = without_moving(panel, spec.anticipation)
            panel = panel if moving is None else replace(panel, outcome=moving.outcome)
            estimate, influence, effective, extrapolated = self._conditional(panel, grid, weights)
            influence = influence if moving is None else influence - moving.influence @ _gradient(panel, grid, weights, moving=moving)
            combine: Callable[[FloatArray], FloatArray] = influence.__matmul__
        else:
            plain = means if keep.all() else replace(means, grid=grid)
            estimate, combine, effective, extrapolated = plain.estimate, plain.combine, plain.n_controls, 0
        after = grid.event_time >= 0
        return GroupTimeEffects(
            grid=grid,
            estimate=estimate,
            n_treated=means.n_treated[keep],
            combine=combine,
            member=means.member,
            weights=weights,
            cluster=panel.cluster,
            effective_controls=float(effective[after].min()) if after.any() else 0.0,
            extrapolated=extrapolated,
            notes=notes,
        )

    def _name(self, has_covariates: bool) -> str:
        compared = "never treated" if self.control == "never" else "not-yet treated"
        return f"Callaway-Sant'Anna group-time, {compared}" + (f", {self.method.replace('_', ' ')}" if has_covariates else "")

    def _conditional(self, panel: Panel, grid: Grid, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, int]:
        """Estimates (K,), influence (N, K), effective controls (K,), cells without weights; cells alike are solved together."""
        outcome = np.ascontiguousarray(panel.matrix().T)
        covariates, fixed = _baseline(panel)
        member = member_of(panel.cohort, grid)
        estimate, effective, influence = np.empty(len(grid.time)), np.empty(len(grid.time)), np.zeros((len(grid.time), panel.n_units))
        extrapolated = 0
        for cells in self._batches(panel, grid, fixed=fixed):
            first = cells[0]
            in_arm = (member == grid.treated[first]) | grid.controls[first][member]
            if not panel.is_balanced:
                in_arm &= panel.observed[:, grid.time[cells]].all(axis=1) & panel.observed[:, grid.base[first]]
            rows = np.flatnonzero(in_arm)
            (estimate[cells], inside, effective[cells]), is_weighted = weighted_or_regressed(
                (outcome[np.ix_(grid.time[cells], rows)] - outcome[np.ix_(grid.base[cells], rows)]).T,
                member[rows] == grid.treated[first],
                covariates[0 if fixed else grid.base[first]][rows],
                weights=weights[rows],
                method=self.method,
            )
            extrapolated += 0 if is_weighted else len(cells)
            influence[np.ix_(cells, rows)] = inside.T * (panel.n_units / len(rows))
        if extrapolated == len(grid.time) and self.method != "regression":
            refuse_separation()
        return estimate, influence.T, effective, extrapolated

    def _batches(self, panel: Panel, grid: Grid, *, fixed: bool) -> list[IntArray]:
        if not panel.is_balanced:
            return [np.array([cell]) for cell in range(len(grid.time))]
        key = np.column_stack([grid.treated, np.zeros_like(grid.base) if fixed else grid.base, grid.controls])
        group = np.unique(key, axis=0, return_inverse=True)[1].ravel()
        return [np.flatnonzero(group == number) for number in range(int(group.max()) + 1)]


def _gradient(panel: Panel, grid: Grid, weights: FloatArray, *, moving: Taken) -> FloatArray:
    """Plain difference of each moving confounder in each cell, shape (k, K): what an error of its slope does there."""
    return np.stack([make_means(replace(panel, outcome=column), grid, weights).estimate for column in moving.columns.T])


def _baseline(panel: Panel) -> tuple[FloatArray, bool]:
    """Covariates per period, shape (T, N, k), and whether no unit's ever change: one period stands for all then."""
    rows = panel.covariates
    same_unit = np.diff(panel.unit) == 0
    if not (rows[1:] != rows[:-1])[same_unit].any():
        fixed = np.zeros((1, panel.n_units, rows.shape[1]))
        fixed[0, panel.unit] = rows
        return fixed, True
    return np.stack([panel.matrix(column).T for column in rows.T], axis=2), False


def absorbing(panel: Panel) -> tuple[Panel, tuple[str, ...]]:
    """The panel without units that were treated from the start, which have no pre-period, and a note that says so.

    Raises
    ------
    NotIdentified
        Treatment is switched off somewhere, or nobody is left who was seen before treatment.
    """
    if not panel.is_absorbing:
        raise NotIdentified(
            "treatment_switched_off: treatment ends while units are still seen, and this design takes it as lasting.",
            where="panel",
            advice="Use the design for treatments that go on and off, or end the rows of a unit when its treatment ends.",
        )
    always = panel.is_always_treated
    notes = panel.notes
    if always.any():
        panel = panel.of_units(~always)
        notes = (*notes, f"{counted(int(always.sum()), 'units')} treated from the first period on were left out: nothing shows them before")
    if not (panel.cohort != NEVER).any():
        raise NotIdentified("no pre-period: no treated unit is seen before its treatment.", where="panel", advice="Add earlier periods.")
    return panel, notes


def unit_weights(panel: Panel) -> FloatArray:
    """Mean weight of each unit over its rows, mean 1, shape (N,)."""
    if panel.weights is None:
        return np.ones(panel.n_units)
    count = np.maximum(np.bincount(panel.unit, minlength=panel.n_units), 1)
    mean = np.bincount(panel.unit, weights=panel.weights, minlength=panel.n_units) / count
    return mean / float(mean.mean())
