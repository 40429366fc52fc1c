"""Whether rows that lack an instrument are like the others."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.hazard_table import Table, numbers
from e2i.domain.evidence import Hazard
from e2i.domain.study import EffectSpec

_FEWEST, _Z, _GAP = 11, 3.5, 0.10


def about_missing_instruments(frame: pl.DataFrame, effect: EffectSpec) -> tuple[Hazard, ...]:
    """Rows without an instrument differ from the others in outcome or treatment, beyond what confounders explain.

    An instrument that is missing because of what came of treatment makes the rows that stay a selection by the outcome.
    """
    table = Table(frame=frame, spec=effect, unit=None)
    if table.treatment is None or table.outcome is None:
        return ()
    lacks = np.zeros(frame.height, dtype=np.bool_)
    for name in effect.instruments:
        values = numbers(frame[name])
        lacks |= frame[name].is_null().to_numpy() if values is None else np.isnan(values)
    lost = lacks[table.complete]
    if min(int(lost.sum()), int((~lost).sum())) < _FEWEST:
        return ()
    matrix = np.column_stack([np.ones(len(lost)), table.matrix()[1]])
    found = []
    for name, values in ((effect.outcome, table.outcome), (effect.treatment, table.treatment)):
        z, gap = _difference(values[table.complete], matrix, lost)
        if abs(z) > _Z and abs(gap) > _GAP:
            text = f"rows without an instrument differ in `{name}` by {gap:+.2f} standard deviations ({z:+.1f} standard errors)."
            remedy = "Find out why it is missing; if treatment or outcome decides it, the rows that are left are selected."
            found.append(
                Hazard(code="instrument_missing_selectively", action="review", text=text, remedy=remedy, measured=abs(gap), threshold=_GAP)
            )
    return tuple(found)


def _difference(values: FloatArray, matrix: FloatArray, lost: BoolArray) -> tuple[float, float]:
    """Welch's z-value of lost rows against the others, and their distance in standard deviations, both after least squares."""
    left = values - matrix @ np.linalg.lstsq(matrix, values, rcond=None)[0]
    spread = float(left.std())
    if spread <= 1e-9 * float(np.abs(values).max()):
        return 0.0, 0.0
    gap = float(left[lost].mean() - left[~lost].mean())
    error = float(np.sqrt(left[lost].var(ddof=1) / lost.sum() + left[~lost].var(ddof=1) / (~lost).sum()))
    return gap / max(error, 1e-300), gap / spread
