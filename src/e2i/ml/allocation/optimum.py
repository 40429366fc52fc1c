"""The best plan for an objective, with a bound that no plan can pass."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import BackendUnavailable, ConfigError
from e2i.ml.allocation.branching import branched
from e2i.ml.allocation.limits import Row, families, rows
from e2i.ml.allocation.program import PIECES, Answer, Goal
from e2i.ml.allocation.refining import SELECTING, Best, is_near
from e2i.ml.allocation.selecting import selected

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem

SEARCHED = 6000
"""lines among which branch and bound selects in seconds"""
_SAME = 1e-9
_DINKELBACH_STEPS = 30


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """A feasible plan. `value` and `bound` are in the objective's own terms: more is better, except for `minimize_cost`."""

    x: FloatArray
    value: float
    bound: float
    is_optimal: bool
    multipliers: dict[str, float]
    """constraint -> change of the value when its limit is raised by 1; empty for integer programs, ROI and balance"""
    solver: str


def optimise(problem: Problem, spec: AllocationSpec) -> Optimum | None:
    """Solve `spec.objective`; None when no plan is feasible.

    Concave curves are cut into lines and cut finer around the first plan; the bound comes from Lagrangian duality over the curves
    themselves (linear programs), or from the search's bound plus the largest error of the lines (integer ones). ROI is a ratio and
    is solved by Dinkelbach's method (1967).

    Raises
    ------
    ConfigError
        Nothing bounds the plan, or the ratio has no cost.
    BackendUnavailable
        The time limit ended the search before any plan was found.
    """
    deadline = time.monotonic() + spec.time_limit_s
    constraints = rows(problem, spec)
    if spec.objective == "maximize_roi":
        return _ratio(problem, spec, constraints, deadline)
    goal = _goal(problem, spec, constraints, deadline)
    best = maximise(problem, spec, constraints, goal, deadline) if goal is not None else None
    if best is None:
        return None
    sign = -1.0 if spec.objective == "minimize_cost" else 1.0
    prices = {} if spec.objective == "balance" or best.answer.multipliers is None else _prices(constraints, best.answer, sign)
    return Optimum(
        x=best.x,
        value=float(sign * best.value),
        bound=float(sign * best.bound),
        is_optimal=best.answer.is_optimal and is_near(best.value, best.bound, spec),
        multipliers=prices,
        solver=best.answer.solver,
    )


def _goal(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], deadline: float) -> Goal | None:
    if spec.objective == "maximize_outcome":
        return Goal(outcome=1.0, cost=0.0)
    if spec.objective == "minimize_cost":
        return Goal(outcome=0.0, cost=1.0)
    most = maximise(problem, spec, constraints, Goal(outcome=1.0, cost=0.0), deadline)
    if most is None:
        return None
    if most.value <= 0 or not spec.budget:
        raise ConfigError("outcome and cost cannot be balanced where the best outcome or the budget is 0.", where="allocation.objective")
    return Goal(outcome=spec.balance_weight / most.value, cost=(1 - spec.balance_weight) / spec.budget)


def maximise(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float) -> Best | None:
    """Prices choose first where entities are selected; branch and bound closes what gap they leave, where it can do so in time."""
    held = frozenset(families(problem, spec))
    if not held & SELECTING:
        return branched(problem, spec, constraints, goal, deadline, held=held)
    found = selected(problem, spec, constraints, goal, deadline)
    lines = problem.n if problem.curves.kind == "linear" else problem.n * PIECES
    if found is not None and (found.answer.is_optimal or lines > SEARCHED):
        return found
    try:
        searched = branched(problem, spec, constraints, goal, deadline, held=held)
    except BackendUnavailable:
        if found is None:
            raise
        return found
    if searched is None or found is None:
        return searched or found
    better = max(searched, found, key=lambda item: item.value)
    bound = max(min(searched.bound, found.bound), better.value)
    return replace(better, bound=bound, answer=replace(better.answer, is_optimal=is_near(better.value, bound, spec)))


def _ratio(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], deadline: float) -> Optimum | None:
    """Maximise (value · outcome - cost) / cost: for the right ratio the best of value · outcome - ratio · cost is 0."""
    value = spec.value_per_unit or 1.0
    ratio, best = 0.0, None
    for _ in range(_DINKELBACH_STEPS):
        if best is not None and time.monotonic() > deadline:
            break
        try:
            step = maximise(problem, spec, constraints, Goal(outcome=value, cost=ratio), deadline)
        except BackendUnavailable:
            if best is None:
                raise
            break
        if step is None:
            return None
        cost = float(problem.cost @ step.x)
        if cost <= 0:
            advice = "Give `unit_cost`, or maximise the outcome."
            raise ConfigError("the best plan costs nothing: it has no return on cost.", where="allocation.unit_cost", advice=advice)
        found = value * float(problem.curves.value(step.x).sum()) / cost
        if best is None and step.bound <= 0:
            advice = "Leave out entities with a negative response, or the smallest total."
            raise ConfigError("no plan has an outcome above 0: there is no return.", where="allocation.objective", advice=advice)
        best = step
        if found - ratio <= _SAME * max(1.0, abs(found)):
            ratio = max(found, ratio)
            break
        ratio = found
    if best is None:
        return None
    return Optimum(
        x=best.x,
        value=ratio - 1,
        bound=_ratio_bound(problem, spec, constraints, deadline, best=best, ratio=ratio),
        is_optimal=best.answer.is_optimal,
        multipliers={},
        solver=f"{best.answer.solver}, Dinkelbach",
    )


def _ratio_bound(
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], deadline: float, *, best: Best, ratio: float
) -> float:
    """No ratio passes ratio + rest / smallest cost, as value · f <= ratio · cost + rest for every plan."""
    rest = max(best.bound, 0.0)
    cheapest = maximise(problem, spec, constraints, Goal(outcome=0.0, cost=1.0), deadline)
    least = -cheapest.bound if cheapest is not None else 0.0
    return ratio + rest / least - 1 if least > 0 else math.inf


def _prices(constraints: tuple[Row, ...], answer: Answer, sign: float) -> dict[str, float]:
    multipliers = answer.multipliers if answer.multipliers is not None else np.zeros(len(constraints))
    return {row.name: sign * float(y) for row, y in zip(constraints, multipliers, strict=True)}
