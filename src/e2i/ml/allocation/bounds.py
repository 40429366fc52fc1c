"""What no plan can pass: Lagrangian duality over the curves themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.limits import Row
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.allocation.program import Goal


def worth(problem: Problem, x: FloatArray, goal: Goal) -> float:
    """The goal's value on the curves."""
    return goal.outcome * float(problem.curves.value(x).sum()) - goal.cost * float(problem.cost @ x)


def dual_bound(
    problem: Problem, goal: Goal, constraints: tuple[Row, ...], multipliers: FloatArray, *, limits: tuple[FloatArray, FloatArray]
) -> float:
    """An upper bound of the goal over the curves themselves, for any multipliers of the right sign (weak duality).

    Every entity is maximised on its own against the prices that the multipliers put on its units.
    """
    gains, constant = gains_of(problem, goal, constraints, multipliers, limits=limits)
    return constant + float(gains.sum())


def gains_of(
    problem: Problem, goal: Goal, constraints: tuple[Row, ...], multipliers: FloatArray, *, limits: tuple[FloatArray, FloatArray],
    whole: bool = False,
) -> tuple[FloatArray, float]:  # fmt: skip
    """What every entity gains at best against the prices of its units, in whole units if asked, and what the prices are worth."""
    weight, price, constant = goal.outcome, goal.cost * problem.cost, 0.0
    for row, y in zip(constraints, multipliers, strict=True):
        if y == 0:
            continue
        constant += y * (row.high if y > 0 else row.low)
        if row.coefficients is None:
            weight -= y
        else:
            price = price + y * row.coefficients
    low, high = limits
    if problem.curves.kind == "linear":
        gain = weight * problem.curves.coefficient - price
        scale = 1e-9 * (np.abs(weight * problem.curves.coefficient) + np.abs(price))
        x = np.where(gain > np.where(np.isinf(high), scale, 0.0), high, low)
    else:
        x = problem.curves.best(price, weight, low, high)
    tried = [np.clip(np.floor(x), low, high), np.clip(np.ceil(x), low, high)] if whole else [x]
    return np.max([weight * problem.curves.value(at) - price * at for at in tried], axis=0), constant
