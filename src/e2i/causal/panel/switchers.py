"""Effect of switching treatment on or off, on those who switch (de Chaisemartin & D'Haultfoeuille 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimate import Estimate
from e2i.causal.panel.absorb import inverse_of, sum_by
from e2i.causal.panel.clusters import cluster_influence, clustered_estimate
from e2i.causal.panel.data import Panel
from e2i.domain.evidence import Refutation
from e2i.errors import NotIdentified, NoVariation

ESTIMATOR = "DID_M, switchers against stayers of the same status"
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Steps:
    """One row per unit and pair of consecutive periods in which it has rows."""

    row: IntArray
    """the panel's row of the later period"""
    unit: IntArray
    time: IntArray
    """the later period"""
    change: FloatArray
    """of the outcome, shape (m,)"""
    covariate_change: FloatArray
    """shape (m, k)"""
    before: BoolArray
    """treated in the earlier period"""
    after: BoolArray
    weights: FloatArray


@dataclass(frozen=True, kw_only=True)
class _Average:
    """An average over switchers with one influence value per unit (sum zero, in units of the estimate)."""

    estimate: float
    influence: FloatArray
    switchers: int
    stayers: int
    unmatched: int
    """switchers without a stayer of their status in that period"""


def switchers(panel: Panel) -> Estimate:
    """DID_M: joiners against those untreated in both periods, leavers against those treated in both.

    The effect in the period of the switch, averaged over switchers. It needs no equal effects over units or time, but an outcome
    without carry-over: who was treated before and is not now must be like who never was. Covariates enter through their changes.

    Raises
    ------
    NoVariation
        Nobody switches.
    NotIdentified
        The treatment is a dose, or no switcher has a stayer of the same status in the same period.
    """
    found = _average(_steps(panel), panel.n_units)
    joined, left = (_average(_steps(panel), panel.n_units, only=status) for status in (False, True))
    if found is None:
        raise NotIdentified(
            "no switcher has a unit of the same status that stays, in the same period.",
            where="on/off treatment",
            advice="Add units that do not switch, or use coarser periods.",
        )
    left_out = round(found.unmatched / (found.switchers + found.unmatched), 2)
    diagnostics = {"share_unmatched_switches": left_out}
    diagnostics |= {name: part.estimate for name, part in (("effect_joiners", joined), ("effect_leavers", left)) if part is not None}
    note = f"{max(left_out, 0.01):.0%} of switches have no stayer of the same status in their period and are left out."
    return clustered_estimate(
        found.estimate,
        cluster_influence(found.influence * panel.n_units, panel.cluster),
        estimator=ESTIMATOR,
        estimand="ATT",
        n_treated=found.switchers,
        n_untreated=found.stayers,
        diagnostics=diagnostics,
        notes=(note,) if found.unmatched else (),
    )


def switchers_placebo(panel: Panel) -> Refutation | None:
    """DID_M one period before the switch, among units whose status was the same in both periods before: it must be zero.

    None when nobody has three consecutive periods of that kind.
    """
    steps = _steps(panel)
    later = neighbour(panel, -1)[steps.row]
    stable = (steps.before == steps.after) & (later >= 0)
    status = panel.treatment[later] > 0
    past = Steps(
        row=steps.row[stable],
        unit=steps.unit[stable],
        time=steps.time[stable],
        change=steps.change[stable],
        covariate_change=steps.covariate_change[stable],
        before=steps.after[stable],
        after=status[stable],
        weights=steps.weights[stable],
    )
    if not (past.before != past.after).any():
        return None
    found = _average(past, panel.n_units)
    if found is None:
        return None
    influence = cluster_influence(found.influence * panel.n_units, panel.cluster)
    fit = clustered_estimate(found.estimate, influence, estimator=ESTIMATOR, estimand="ATT")
    p_value = 1.0 if fit.p_value is None else fit.p_value
    return Refutation(
        test="placebo_previous_period",
        passed=p_value >= _LEVEL,
        detail=(
            f"One period before they switch, the outcome of switchers moves by {found.estimate:.3g} more than that of stayers "
            f"(p = {p_value:.2g}); it should not move."
        ),
        statistic=found.estimate / fit.standard_error if fit.standard_error > 0 else None,
        p_value=p_value,
        estimate=found.estimate,
    )


def _steps(panel: Panel) -> Steps:
    values = np.unique(panel.treatment)
    if not np.isin(values, (0.0, 1.0)).all():
        raise NotIdentified(
            f"the treatment takes {len(values)} values and not only 0 and 1.",
            where="on/off treatment",
            advice="Use the slope of a dose, or say from which dose on a unit counts as treated.",
        )
    rows = np.flatnonzero((np.diff(panel.unit) == 0) & (np.diff(panel.time) == 1)) + 1
    treated = panel.treatment > 0
    if not (treated[rows] != treated[rows - 1]).any():
        raise NoVariation(
            "no unit switches treatment on or off between consecutive periods.",
            where="on/off treatment",
            advice="Use a design that compares units, or coarser periods.",
        )
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    return Steps(
        row=rows,
        unit=panel.unit[rows],
        time=panel.time[rows],
        change=panel.outcome[rows] - panel.outcome[rows - 1],
        covariate_change=panel.covariates[rows] - panel.covariates[rows - 1],
        before=treated[rows - 1],
        after=treated[rows],
        weights=weights[rows],
    )


def _average(steps: Steps, n_units: int, *, only: bool | None = None) -> _Average | None:
    """The average over switchers, of both kinds or of those with status `only` before."""
    cell = steps.time * 2 + steps.before
    cells = int(cell.max()) + 1
    switches = steps.before != steps.after
    weight = steps.weights
    stay_mass = sum_by(cell, weight * ~switches, cells)
    matched = switches & (stay_mass[cell] > 0)
    if only is not None:
        matched &= steps.before == only
    if not matched.any():
        return None
    switch_mass = sum_by(cell, weight * matched, cells)
    stayed = ~switches & (switch_mass[cell] > 0)
    # rows' weights in the contrast: switchers count once, stayers stand in for the switchers of their cell; leavers turn the sign
    share = switch_mass[cell] / np.where(stay_mass[cell] > 0, stay_mass[cell], 1.0)
    sign = np.where(steps.before, -1.0, 1.0)
    contrast = weight * sign * (matched - stayed * share) / float(weight[matched].sum())
    change, adjustment = _adjusted(steps, cell, stay_mass, ~switches, contrast)
    estimate = float(contrast @ change)
    stay_mean = sum_by(cell, weight * ~switches * change, cells) / np.where(stay_mass > 0, stay_mass, 1.0)
    own = contrast * (change - stay_mean[cell]) - weight * matched * estimate / float(weight[matched].sum())
    return _Average(
        estimate=estimate,
        influence=sum_by(steps.unit, own - adjustment, n_units),
        switchers=int(matched.sum()),
        stayers=int(stayed.sum()),
        unmatched=int((switches & ~matched).sum()) if only is None else 0,
    )


def _adjusted(steps: Steps, cell: IntArray, stay_mass: FloatArray, stays: BoolArray, contrast: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Outcome changes less what covariate changes explain of them among stayers, and what estimating that adds to the influence."""
    columns = steps.covariate_change
    moving = columns.std(axis=0) > 0 if len(columns) else np.zeros(columns.shape[1], dtype=np.bool_)
    if not moving.any():
        return steps.change, np.zeros(len(steps.change))
    mass, weight = np.where(stay_mass > 0, stay_mass, 1.0), steps.weights * stays

    def centred(values: FloatArray) -> FloatArray:
        inside: FloatArray = values - (sum_by(cell, weight * values, len(mass)) / mass)[cell]
        return inside

    inside = np.column_stack([centred(column) for column in columns.T[moving]])
    inverse = inverse_of(inside.T @ (weight[:, None] * inside))
    slope = inverse @ (inside.T @ (weight * steps.change))
    error = weight * (centred(steps.change) - inside @ slope)
    return steps.change - columns[:, moving] @ slope, (inside * error[:, None]) @ (inverse @ (contrast @ columns[:, moving]))


def neighbour(panel: Panel, shift: int) -> IntArray:
    """Row of the same unit `shift` periods before each row, shape (n,); -1 where there is none."""
    key = panel.unit * panel.n_periods + panel.time
    time = panel.time - shift
    place = np.clip(np.searchsorted(key, key - shift), 0, len(key) - 1)
    is_there = (time >= 0) & (time < panel.n_periods) & (key[place] == key - shift)
    return np.where(is_there, place, -1)
