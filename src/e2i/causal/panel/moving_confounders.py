"""Confounders that change within units: what they do to the outcome is learned where treatment is not, and taken off everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.panel.absorb import TwoWay, inverse_of, sum_by
from e2i.causal.panel.data import NEVER, Panel


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The outcome without what moving confounders do, and how sure their k slopes are."""

    outcome: FloatArray
    """shape (n,)"""
    columns: FloatArray
    """shape (n, k)"""
    influence: FloatArray
    """shape (N, k): of each unit on each slope, sum zero, N times its part"""


def untreated_rows(panel: Panel, anticipation: int) -> BoolArray:
    """Rows that treatment cannot have moved yet, shape (n,)."""
    begun = panel.cohort[panel.unit]
    free: BoolArray = (begun == NEVER) | (panel.time < begun - anticipation)
    return free


def varying_while(panel: Panel, free: BoolArray) -> FloatArray:
    """Covariates that vary within units over the rows `free`, shape (n,); the unit's level stands for the rest. Shape (n, k)."""
    if panel.covariates.shape[1] == 0:
        return panel.covariates
    start: IntArray = np.flatnonzero(np.diff(panel.unit[free], prepend=-1))
    position = np.searchsorted(start, np.arange(int(free.sum())), side="right") - 1
    rows = panel.covariates[free]
    return panel.covariates[:, (rows != rows[start[position]]).any(axis=0)]


def without_moving(panel: Panel, anticipation: int) -> Taken | None:
    """Slopes from untreated rows beside unit and period effects, as imputation has them (Borusyak, Jaravel & Spiess 2024, section 2).

    A comparison of changes alone knows a confounder's value before treatment and not what it did since, such as another campaign that
    began meanwhile. None where no confounder moves within untreated rows. Directions that do not vary there are left as they are.
    """
    free = untreated_rows(panel, anticipation)
    columns = varying_while(panel, free)
    if columns.shape[1] == 0:
        return None
    weights = np.ones(int(free.sum())) if panel.weights is None else panel.weights[free]
    effects = TwoWay(unit=panel.unit[free], time=panel.time[free], weights=weights)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    inside, outcome = effects.residual(columns[free] / scale), effects.residual(panel.outcome[free])
    inverse = inverse_of(inside.T @ (weights[:, None] * inside))
    slopes = inverse @ (inside.T @ (weights * outcome))
    scores = inside * (weights * (outcome - inside @ slopes))[:, None]
    by_unit = sum_by(effects.unit, scores @ inverse, panel.n_units)
    return Taken(outcome=panel.outcome - (columns / scale) @ slopes, columns=columns / scale, influence=panel.n_units * by_unit)
