"""The best plan for an objective, with a bound that no plan can pass."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import BackendUnavailable, ConfigError
from e2i.ml.allocation.limits import Row, families, rows
from e2i.ml.allocation.program import Answer, Goal, Program, cut, limits_of
from e2i.ml.allocation.waterfill import fill

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem

ROUNDS = 5
MANY = 400
"""entities above which a choice is not left to branch and bound alone"""
SELECTING = frozenset({"cardinality", "minimum_if_selected"})
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


@dataclass(frozen=True, kw_only=True)
class _Best:
    """The best plan for one goal, judged on the curves."""

    x: FloatArray
    value: float
    bound: float
    answer: Answer


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
    best = _maximise(problem, spec, constraints, goal, deadline) if goal is not None else None
    if best is None:
        return None
    sign = -1.0 if spec.objective == "minimize_cost" else 1.0
    prices = {} if spec.objective == "balance" or best.answer.multipliers is None else _prices(constraints, best.answer, sign)
    return Optimum(
        x=best.x,
        value=float(sign * best.value),
        bound=float(sign * best.bound),
        is_optimal=bool(best.answer.is_optimal),
        multipliers=prices,
        solver=best.answer.solver,
    )


def worth(problem: Problem, x: FloatArray, goal: Goal) -> float:
    """The goal's value on the curves."""
    return goal.outcome * float(problem.curves.value(x).sum()) - goal.cost * float(problem.cost @ x)


def _goal(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], deadline: float) -> Goal | None:
    if spec.objective == "maximize_outcome":
        return Goal(outcome=1.0, cost=0.0)
    if spec.objective == "minimize_cost":
        return Goal(outcome=0.0, cost=1.0)
    most = _maximise(problem, spec, constraints, Goal(outcome=1.0, cost=0.0), deadline)
    if most is None:
        return None
    if most.value <= 0 or not spec.budget:
        raise ConfigError("outcome and cost cannot be balanced where the best outcome or the budget is 0.", where="allocation.objective")
    return Goal(outcome=spec.balance_weight / most.value, cost=(1 - spec.balance_weight) / spec.budget)


def _maximise(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float) -> _Best | None:
    held = frozenset(families(problem, spec))
    if problem.n > MANY and held & SELECTING and "integer" not in held:
        found = _selected(problem, spec, constraints, goal, deadline)
        if found is not None:
            return found
    return _refined(problem, spec, constraints, goal, deadline, held=held)


def _refined(
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float, *, held: frozenset[str]
) -> _Best | None:
    """Solve, then cut finer around the plan, until the bound is near or the rounds are used up."""
    low, high = limits_of(problem, spec, rows=constraints, families=held)
    whole = "integer" in held
    if [row.name for row in constraints] == ["budget"] and not whole and not held & SELECTING and np.all(np.isfinite(high)):
        return _filled(problem, constraints[0], goal, low, high)
    best: _Best | None = None
    for depth in range(ROUNDS):
        if best is not None and time.monotonic() > deadline:
            break
        lines = cut(problem, low, high, around=best.x if best is not None else None, depth=depth, whole=whole)
        program = Program(problem=problem, spec=spec, rows=constraints, families=held, lines=lines, goal=goal)
        start = best.answer.multipliers if best is not None else None
        try:
            answer = program.solve(time_limit_s=max(deadline - time.monotonic(), 0.5), start=start)
        except BackendUnavailable:
            if best is None:
                raise
            break
        if answer.x is None:
            return best
        value = worth(problem, answer.x, goal)
        if answer.multipliers is not None:
            bound = dual_bound(problem, goal, constraints, answer.multipliers, limits=(low, high))
        else:
            is_exact = whole and float(lines.widths.max(initial=0.0)) <= 1
            bound = answer.bound + (0.0 if is_exact else goal.outcome * float(problem.curves.chord_error(lines.points).sum()))
        bound = min(bound, best.bound) if best is not None else bound
        if best is None or value >= best.value:
            best = _Best(x=answer.x, value=value, bound=max(bound, value), answer=answer)
        near = best.bound - best.value <= (spec.gap_tolerance if problem.n > MANY else 1e-6) * abs(best.value)
        if near or problem.curves.kind == "linear" or (whole and float(lines.widths.max(initial=0.0)) <= 1):
            break
    return best


def _filled(problem: Problem, budget: Row, goal: Goal, low: FloatArray, high: FloatArray) -> _Best | None:
    """One budget and bounds need no program."""
    if np.any(high < low):
        return None
    charge = goal.cost * problem.cost
    found = fill(problem.curves, weight=goal.outcome, charge=charge, cost=problem.cost, budget=budget.high, limits=(low, high))
    if found is None:
        return None
    x, price = found
    prices = np.array([price])
    bound = dual_bound(problem, goal, (budget,), prices, limits=(low, high))
    value = worth(problem, x, goal)
    answer = Answer(x=x, is_optimal=True, bound=bound, multipliers=prices, solver="water-filling (Karush-Kuhn-Tucker)")
    return _Best(x=x, value=value, bound=max(bound, value), answer=answer)


def _selected(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float) -> _Best | None:
    """Who is selected, for many entities: a plan for a selection puts prices on the constraints, the prices rank the entities, and the
    best ranked are the next selection. A selection that comes back is proven best by duality; else the bound tells how far it may be.

    None when no selection on the way is feasible.
    """  # noqa: D205
    held = frozenset(families(problem, spec)) - SELECTING
    low, high = limits_of(problem, spec, rows=constraints, families=held)
    floor = low if problem.minimum_if_selected is None else np.maximum(low, problem.minimum_if_selected)
    most = spec.cardinality if spec.cardinality is not None else problem.n
    start = _refined(problem, spec, constraints, goal, deadline, held=held)
    if start is None:
        return None
    best, bound, multipliers = None, start.bound, start.answer.multipliers
    seen: set[bytes] = set()
    while multipliers is not None and time.monotonic() < deadline:
        gains, constant = _gains(problem, goal, constraints, multipliers, limits=(floor, high))
        gains = np.where(floor <= high, gains, -np.inf)
        gains = np.where(low > 0, np.inf, gains)
        chosen = np.sort(np.argsort(-gains, kind="stable")[:most])
        chosen = chosen[gains[chosen] > 0]
        ranked = np.where(low > 0, _gains(problem, goal, constraints, multipliers, limits=(floor, high))[0], np.maximum(gains, 0.0))
        cut_off = 0.0 if most >= problem.n else max(float(np.sort(np.maximum(gains, 0.0))[::-1][most]), 0.0)
        over = np.where(low > 0, ranked - cut_off, np.maximum(ranked - cut_off, 0.0))
        bound = min(bound, constant + cut_off * most + float(over.sum()))
        part = problem.take(chosen, minimum=floor[chosen])
        inside = tuple(row.take(chosen) for row in constraints)
        found = _refined(part, spec, inside, goal, deadline, held=held | {"minimum"}) if len(chosen) else None
        if found is None:
            break
        x = np.zeros(problem.n)
        x[chosen] = found.x
        if best is None or found.value > best.value:
            best = _Best(x=x, value=found.value, bound=bound, answer=found.answer)
        multipliers = found.answer.multipliers
        if bound - best.value <= spec.gap_tolerance * abs(best.value) or chosen.tobytes() in seen:
            break
        seen.add(chosen.tobytes())
    if best is None:
        return None
    is_near = bool(bound - best.value <= max(spec.gap_tolerance, 1e-6) * abs(best.value))
    answer = replace(best.answer, multipliers=None, is_optimal=is_near, solver="HiGHS linear programs over selections")
    return replace(best, bound=max(bound, best.value), answer=answer)


def dual_bound(
    problem: Problem, goal: Goal, constraints: tuple[Row, ...], multipliers: FloatArray, *, limits: tuple[FloatArray, FloatArray]
) -> float:
    """An upper bound of the goal over the curves themselves, for any multipliers of the right sign (weak duality).

    Every entity is maximised on its own against the prices that the multipliers put on its units.
    """
    gains, constant = _gains(problem, goal, constraints, multipliers, limits=limits)
    return constant + float(gains.sum())


def _gains(
    problem: Problem, goal: Goal, constraints: tuple[Row, ...], multipliers: FloatArray, *, limits: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, float]:
    """What every entity gains at best against the prices of its units, and what the prices themselves are worth."""
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
    return np.asarray(weight * problem.curves.value(x) - price * x), constant


def _ratio(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], deadline: float) -> Optimum | None:
    """Maximise (value · outcome - cost) / cost: for the right ratio the best of value · outcome - ratio · cost is 0."""
    value = spec.value_per_unit or 1.0
    ratio, best = 0.0, None
    for _ in range(_DINKELBACH_STEPS):
        if best is not None and time.monotonic() > deadline:
            break
        try:
            step = _maximise(problem, spec, constraints, Goal(outcome=value, cost=ratio), deadline)
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
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], deadline: float, *, best: _Best, ratio: float
) -> float:
    """No ratio passes ratio + rest / smallest cost, as value · f <= ratio · cost + rest for every plan."""
    rest = max(best.bound, 0.0)
    cheapest = _maximise(problem, spec, constraints, Goal(outcome=0.0, cost=1.0), deadline)
    least = -cheapest.bound if cheapest is not None else 0.0
    return ratio + rest / least - 1 if least > 0 else math.inf


def _prices(constraints: tuple[Row, ...], answer: Answer, sign: float) -> dict[str, float]:
    multipliers = answer.multipliers if answer.multipliers is not None else np.zeros(len(constraints))
    return {row.name: sign * float(y) for row, y in zip(constraints, multipliers, strict=True)}
