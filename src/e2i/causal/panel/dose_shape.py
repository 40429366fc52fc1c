"""Is one slope enough for a dose? Where low doses do more, or less, than high ones, an average slope belongs to no dose."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from e2i.causal.design import Identification
from e2i.causal.panel.data import Panel
from e2i.causal.panel.fixed_confounders import by_period
from e2i.causal.panel.on_off import fixed_effects
from e2i.domain.evidence import Hazard
from e2i.errors import NoVariation, TooFewRows

_LEVEL = 0.01
_MATERIAL = 0.25
"""of the steeper slope: a smaller change is no reason to distrust one slope, however sure it is"""
_FEWEST_DOSES, _FEWEST_CLUSTERS = 4, 10


def curved_dose(panel: Panel, spec: Identification) -> Iterator[Hazard]:
    """A slope that changes at the median dose given: a linear spline with one knot (Harrell 2015, section 2.4.4), clustered.

    A regression of unlike slopes weighs units by the spread of their doses; with units of larger doses that gain more from each, it lies
    beyond the average slope (de Chaisemartin & D'Haultfœuille 2020).
    """
    if spec.treatment_kind != "continuous":
        return
    doses = np.unique(panel.treatment)
    if len(doses) < _FEWEST_DOSES or len(np.unique(panel.cluster_of_rows)) < _FEWEST_CLUSTERS:
        return
    given = panel.treatment[panel.treatment != 0]
    knot = float(np.median(given))
    beyond = np.maximum(panel.treatment - knot, 0.0)
    try:
        found = fixed_effects(by_period(panel), np.column_stack([panel.treatment, beyond]), ("dose", "dose beyond the median"))
    except (NoVariation, TooFewRows):  # the slopes cannot be told apart; the estimator itself says what it cannot do
        return
    low, change = (float(value) for value in found.coefficients)
    p_value = found.wald((1,))[1]
    if p_value < _LEVEL and abs(change) > _MATERIAL * max(abs(low), abs(low + change)):
        text = f"one unit more does not do the same at doses below and above {knot:.3g} (p = {p_value:.2g}): one slope fits neither."
        remedy = "Name a dose on the scale on which its effect is straight (its logarithm, its square), or study low and high doses apart."
        yield Hazard(code="dose_bends", action="review", text=text, remedy=remedy, measured=p_value, threshold=_LEVEL)
