"""One budget and bounds: the exact optimum of concave curves, by the price at which the budget is just used up.

The Karush-Kuhn-Tucker conditions: every entity that is not at a bound has the same return on its last dollar (Everett 1963).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from e2i.ml.allocation.curves import Curves, FloatArray

_HALVINGS = 80


def fill(
    curves: Curves, *, weight: float, charge: FloatArray, cost: FloatArray, budget: float, limits: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, float] | None:
    """Maximise weight · f(x) - charge · x subject to cost · x <= budget and finite bounds.

    Parameters
    ----------
    charge, cost : shape (n,), 0 or more
    limits : lower and upper bounds, shape (n,) each, finite

    Returns
    -------
    (FloatArray, float) | None
        The plan, and what another dollar of budget gives; None when the lower bounds alone cost more than the budget.
    """
    low, high = limits
    if float(cost @ low) > budget * (1 + 1e-12) + 1e-12:
        return None
    plan = curves.best(charge, weight, low, high)
    if float(cost @ plan) <= budget:
        return plan, 0.0
    cheap, dear = 0.0, _too_dear(curves, weight, cost, low)
    rich, poor = plan, curves.best(charge + dear * cost, weight, low, high)
    while float(cost @ poor) > budget and dear < 1e300:
        cheap, rich, dear = dear, poor, dear * 16
        poor = curves.best(charge + dear * cost, weight, low, high)
    for _ in range(_HALVINGS):
        middle = (cheap + dear) / 2
        x = curves.best(charge + middle * cost, weight, low, high)
        if float(cost @ x) > budget:
            cheap, rich = middle, x
        else:
            dear, poor = middle, x
    # At the price itself both ends are best (lines have ties); their mixture that uses up the budget is too.
    spread = float(cost @ (rich - poor))
    share = 0.0 if spread <= 0 else (budget - float(cost @ poor)) / spread
    return np.clip(poor + share * (rich - poor), low, high), dear


def _too_dear(curves: Curves, weight: float, cost: FloatArray, low: FloatArray) -> float:
    """A price to start from: the steepest finite return at the lower bounds."""
    slopes = weight * curves.slope(np.maximum(low, 1e-9))[cost > 0] / cost[cost > 0]
    finite = slopes[np.isfinite(slopes)]
    return float(max(finite.max(initial=0.0) * 1.01, 1e-12))
