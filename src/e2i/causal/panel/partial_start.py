"""Treatment that begins on a day between two periods: the period which that day falls into is neither treated nor untreated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification
from e2i.causal.panel.data import NEVER, Panel
from e2i.domain.disclosure import counted, visible
from e2i.domain.evidence import Hazard

_FEWEST_BEFORE = 2
"""periods before treatment of every cohort, so that one is left"""


def without_partial_period(panel: Panel, spec: Identification) -> Identification:
    """The question with one period of anticipation where treatment begins on a day between two periods.

    Named by their first day, periods before the later one may hold days under treatment; a difference to such a period would be too
    small. The question stays as it is where it allows for anticipation already, or a cohort would have no period left before treatment.
    """
    if not panel.begun_between or spec.anticipation or spec.treatment_kind in ("on_off", "continuous"):
        return spec
    cohorts = panel.cohort[(panel.cohort != NEVER) & ~panel.is_treated_from_start]
    return replace(spec, anticipation=1) if len(cohorts) and int(cohorts.min()) >= _FEWEST_BEFORE else spec


def partial_start(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """Says which period was taken as the first, and what became of the one before it."""
    count = panel.begun_between
    if not count or spec.treatment_kind in ("on_off", "continuous"):
        return
    action, kept = ("warn", "is left out") if spec.anticipation else ("review", "counts as untreated and may be too high or too low by it")
    text = (
        f"treatment of {counted(count, 'units')} begins on a day between two periods: the later is taken as its first, and the one before, "
        f"which may hold days under treatment, {kept}."
    )
    remedy = f"Write in `{spec.cohort}` the first period that is treated as a whole, or add periods before treatment."
    measured = None if visible(count) is None else float(count)
    yield Hazard(code="starts_between_periods", action=action, text=text, remedy=remedy, measured=measured, threshold=0.0)  # type: ignore[arg-type]


def begins_between(starts: FloatArray, periods: FloatArray) -> int:
    """How many of the starts, NaN for never, lie after the first period, before the last, and on none of them."""
    inside = np.isfinite(starts) & (starts > periods[0]) & (starts < periods[-1])
    return int((~np.isin(starts[inside], periods)).sum())
