"""What every design over time shares: units seen before treatment, the raw comparison, bounds on a drift, negative controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Identification
from e2i.causal.designs.controls import told_placebo, untested
from e2i.causal.estimate import Estimate
from e2i.causal.hazard_checks import order_in_time
from e2i.causal.hazard_table import Table
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.event_study import EventTimes
from e2i.causal.panel.honest import as_refutation, drift_robustness, relative_magnitudes, smoothness
from e2i.causal.panel.wild import as_estimate, wild_two_way
from e2i.domain.evidence import Hazard, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, DataError, NoVariation

Fitter = Callable[[Panel], Estimate]
_LEVEL = 0.05
_ROUNDING = 1e-9
"""of the outcome's size: an interval no wider than that is rounding"""


def seen_before(panel: Panel, identification: Identification) -> Panel:
    """Without units that are always treated: a treatment that lasts shows nothing of them, nor are they anybody's comparison."""
    if identification.treatment_kind in ("on_off", "continuous"):
        return panel
    return panel if not panel.is_always_treated.any() else panel.of_units(~panel.is_always_treated)


def about_days(frame: pl.DataFrame, effect: EffectSpec) -> tuple[Hazard, ...]:
    """Entry, treatment and measurement in order, of the rows under treatment, where the study names the columns of these days."""
    named = [name for name in (effect.treated_at, effect.measured_at, effect.entered_at) if name is not None]
    if effect.treated_at is None or len(named) < 2 or effect.treatment not in frame.columns:
        return ()
    return tuple(order_in_time(Table(frame=frame, spec=effect, unit=None)))


def leaves_nothing_to_chance(found: Estimate, outcome: FloatArray) -> bool:
    """The outcome is explained without rest: what is left is rounding, of which no interval and no test can be made."""
    low, high = found.interval
    return bool(high - low <= _ROUNDING * float(np.abs(outcome).max()))


def require_chance(found: Estimate, panel: Panel) -> None:
    """Raises NoVariation where unit effects, period effects and treatment explain the outcome without rest."""
    if leaves_nothing_to_chance(found, panel.outcome):
        raise NoVariation(
            "unit, period and treatment explain the outcome without rest, so nothing shows how sure the effect is.",
            where="outcome",
            advice="Check how the outcome was built: measured outcomes vary by chance.",
        )


def raw_difference(panel: Panel, identification: Identification) -> tuple[float | None, float | None]:
    """Plain difference of rows under treatment and rows that are not, and the mean of the latter; nothing for a dose."""
    if identification.treatment_kind == "continuous":
        return None, None
    on = panel.treatment > 0
    treated, untreated = (float(np.average(panel.outcome[rows], weights=_weights(panel, rows))) for rows in (on, ~on))
    return treated - untreated, untreated


def _weights(panel: Panel, rows: BoolArray) -> FloatArray | None:
    return None if panel.weights is None else panel.weights[rows]


def by_bootstrap(panel: Panel, identification: Identification, *, estimator: str, seed: int) -> Estimate:
    """The wild cluster bootstrap of the regression beside the design's own estimator."""
    panel = panel.without_anticipation(identification.anticipation)
    treated = panel.cohort != NEVER
    return as_estimate(
        wild_two_way(panel, seed=seed),
        estimator=f"{estimator}, wild cluster bootstrap",
        estimand="ATT",
        n_treated=int(treated.sum()),
        n_untreated=int((~treated).sum()),
    )


def bounds_on_drift(events: EventTimes, told: tuple[float, float], panel: Panel, *, is_randomised: bool = False) -> list[Refutation]:
    """What a violation of parallel trends like those before treatment would do to the interval that is told.

    After a lottery nothing but chance sets the trends of the two apart, which the interval holds already: it is told and decides nothing.
    """
    try:
        study = events.for_bounds()
    except (CausalError, DataError) as error:  # a gap beside the reference, or fewer clusters than periods; the effect stands
        return [untested("drift_robustness:a drift before treatment", str(error))]
    drift = drift_robustness(smoothness(study, grid=(0.0,)), told, spread=_spread_of_units(panel))
    return [
        as_refutation(relative_magnitudes(study)),
        as_refutation(smoothness(study)),
        replace(drift, is_reported_only=drift.is_reported_only or is_randomised),
    ]


def _spread_of_units(panel: Panel) -> float:
    """Standard deviation of the outcome within periods, as a cross-section of the units would show it."""
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    means = np.bincount(panel.time, weights=weights * panel.outcome) / np.maximum(np.bincount(panel.time, weights=weights), 1e-300)
    return float(np.sqrt(np.average((panel.outcome - means[panel.time]) ** 2, weights=weights)))


def negative_controls(panel: Panel, fit: Fitter, *, is_enough: Callable[[BoolArray], bool]) -> list[Refutation]:
    """The same estimator on outcomes that treatment cannot move; together they raise a false alarm in 5 % of sound studies at most.

    Parameters
    ----------
    is_enough : whether the rows, shape (n,), in which a control is known are enough to test it
    """
    level = _LEVEL / max(len(panel.negative_controls), 1)
    found = []
    for name, values in panel.negative_controls.items():
        test, known = f"negative_control:{name}", ~np.isnan(values)
        if not is_enough(known) or len(np.unique(values[known])) < 2:
            found.append(untested(test, "it hardly varies or has hardly any values."))
            continue
        try:
            told = fit(replace(panel, outcome=np.where(known, values, 0.0)).of_rows(known))
        except (CausalError, DataError) as error:
            found.append(untested(test, str(error)))
            continue
        if leaves_nothing_to_chance(told, values[known]):
            found.append(untested(test, "unit, period and treatment explain it without rest."))
            continue
        found.append(told_placebo(test, told, level=level))
    return found
