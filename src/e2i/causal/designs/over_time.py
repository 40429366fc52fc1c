"""What every design over time shares: units seen before treatment, the raw comparison, bounds on a drift, negative controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Identification
from e2i.causal.designs.controls import told_placebo, untested
from e2i.causal.estimate import Estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.event_study import EventTimes
from e2i.causal.panel.honest import as_refutation, drift_robustness, relative_magnitudes, smoothness
from e2i.causal.panel.wild import as_estimate, wild_two_way
from e2i.domain.evidence import Refutation
from e2i.errors import CausalError, DataError

Fitter = Callable[[Panel], Estimate]
_LEVEL = 0.05


def seen_before(panel: Panel, identification: Identification) -> Panel:
    """Without units that are always treated: a treatment that lasts shows nothing of them, nor are they anybody's comparison."""
    if identification.treatment_kind in ("on_off", "continuous"):
        return panel
    return panel if not panel.is_always_treated.any() else panel.of_units(~panel.is_always_treated)


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


def bounds_on_drift(events: EventTimes, told: tuple[float, float]) -> list[Refutation]:
    """What a violation of parallel trends like those before treatment would do to the interval that is told."""
    try:
        study = events.for_bounds()
    except (CausalError, DataError) as error:  # a gap beside the reference, or fewer clusters than periods; the effect stands
        return [untested("drift_robustness:a drift before treatment", str(error))]
    return [
        as_refutation(relative_magnitudes(study)),
        as_refutation(smoothness(study)),
        drift_robustness(smoothness(study, grid=(0.0,)), told),
    ]


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
        found.append(told_placebo(test, told, level=level))
    return found
