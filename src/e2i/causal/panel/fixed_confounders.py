"""Confounders that stay the same within units: unit effects swallow their levels, not what they do to trends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.panel.data import NEVER, Panel

_ROUNDING = 1e-8
_MOST_CELLS = 40_000_000
"""numbers in the columns of all periods, above which a confounder's trend is taken as a line"""


def is_fixed(panel: Panel) -> BoolArray:
    """Which covariates never change within a unit, shape (k,)."""
    first = np.flatnonzero(np.diff(panel.unit, prepend=-1))
    same: BoolArray = (panel.covariates == panel.covariates[first][panel.unit]).all(axis=0)
    return same


def unseen_among_untreated(panel: Panel) -> tuple[str, ...]:
    """Fixed covariates that differ between units, but not among those that are never treated: what they do to trends is unknown."""
    first = np.flatnonzero(np.diff(panel.unit, prepend=-1))
    never = panel.cohort == NEVER
    if not never.any() or panel.covariates.shape[1] == 0:
        return ()
    values = panel.covariates[first]
    unseen = is_fixed(panel) & (np.ptp(values, axis=0) > 0) & (np.ptp(values[never], axis=0) == 0)
    return tuple(name for name, found in zip(panel.covariate_names, unseen, strict=True) if found)


def by_period(panel: Panel) -> Panel:
    """The panel for a regression: each fixed covariate has its own slope in every period but the first.

    So trends may differ by the confounder (Heckman, Ichimura & Todd 1997; Borusyak, Jaravel & Spiess 2024, section 2). In very large
    tables the slopes lie on a line in time, and a note says so. Covariates that vary stay as they are.
    """
    fixed = is_fixed(panel)
    if not fixed.any():
        return panel
    usable = _told_apart(panel, np.flatnonzero(fixed))
    columns, names = panel.covariates[:, usable], [panel.covariate_names[number] for number in usable]
    columns = columns - columns.mean(axis=0)
    rows, later = len(panel.unit), panel.n_periods - 1
    is_line = rows * columns.shape[1] * later > _MOST_CELLS
    blocks = [panel.covariates[:, ~fixed]]
    told = [name for name, kept in zip(panel.covariate_names, fixed, strict=True) if not kept]
    if is_line:
        blocks.append(columns * panel.time[:, None])
        told += [f"{name} by time" for name in names]
    else:
        own = np.zeros((rows, columns.shape[1], later))
        after = np.flatnonzero(panel.time > 0)
        own[after, :, panel.time[after] - 1] = columns[after]
        blocks.append(own.reshape(rows, -1))
        told += [f"{name} in {period}" for name in names for period in panel.period_names[1:]]
    matrix: FloatArray = np.column_stack(blocks)
    notes = ["confounders that stay the same within units have a trend that is a line in time"] if is_line else []
    if lost := [panel.covariate_names[number] for number in np.flatnonzero(fixed) if number not in usable]:
        named = ", ".join(f"`{name}`" for name in lost)
        notes.append(f"trends by {named} are not adjusted for: untreated units do not show them beside the other confounders")
    return replace(panel, covariates=matrix, covariate_names=tuple(told), notes=(*panel.notes, *notes))


def _told_apart(panel: Panel, chosen: IntArray) -> list[int]:
    """Those that differ among untreated units beyond a constant and the ones before them."""
    first = np.flatnonzero(np.diff(panel.unit, prepend=-1))
    never = panel.cohort == NEVER
    rows = first[never] if never.any() else first
    basis = [np.full(len(rows), 1.0 / np.sqrt(len(rows)))]
    kept = []
    for number in chosen:
        column = panel.covariates[rows, number]
        left = column.copy()
        for _ in range(2):  # twice is enough for orthogonality to rounding (Giraud, Langou & Rozloznik 2005)
            left = left - np.column_stack(basis) @ (np.column_stack(basis).T @ left)
        size = float(np.linalg.norm(left))
        if size > _ROUNDING * max(float(np.linalg.norm(column)), 1e-300):
            basis.append(left / size)
            kept.append(int(number))
    return kept
