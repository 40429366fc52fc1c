"""The best plan for one goal where nobody is selected: curves cut into lines, finer and finer around the plan."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import BackendUnavailable
from e2i.ml.allocation.bounds import dual_bound, worth
from e2i.ml.allocation.program import Answer, Goal, Program, cut, limits_of
from e2i.ml.allocation.waterfill import fill

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.limits import Row
    from e2i.ml.allocation.problem import Problem

ROUNDS = 5
MANY = 400
"""entities above which a plan near its bound is not refined any more"""
_EXACT = 1e-7
SELECTING = frozenset({"cardinality", "minimum_if_selected"})


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best plan for one goal, judged on the curves."""

    x: FloatArray
    value: float
    bound: float
    answer: Answer


def is_near(value: float, bound: float, spec: AllocationSpec) -> bool:
    """The distance to the bound is within `gap_tolerance`."""
    return bool(bound - value <= max(spec.gap_tolerance, 1e-6) * abs(value) + 1e-9)


def refined(
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float, *, held: frozenset[str]
) -> Best | None:
    """Solve, then cut finer around the plan, until the bound is near or the rounds are used up."""
    low, high = limits_of(problem, spec, rows=constraints, families=held)
    if np.any(high < low):  # the largest change and a bound, or a maximum below a whole unit
        return None
    if [row.name for row in constraints] == ["budget"] and not held & {*SELECTING, "integer"} and np.all(np.isfinite(high)):
        return _filled(problem, constraints[0], goal, low, high)
    return _searched(problem, spec, constraints, goal, deadline, held=held, limits=(low, high))


def _searched(
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float, *,
    held: frozenset[str], limits: tuple[FloatArray, FloatArray],
) -> Best | None:  # fmt: skip
    (low, high), whole = limits, "integer" in held
    best: Best | None = None
    around: FloatArray | None = None
    for depth in range(ROUNDS):
        if best is not None and time.monotonic() > deadline:
            break
        lines = cut(problem, low, high, around=around, depth=depth, whole=whole)
        program = Program(problem=problem, spec=spec, rows=constraints, families=held, lines=lines, goal=goal)
        start = best.answer.multipliers if best is not None else None
        try:
            answer = program.solve(time_limit_s=max(deadline - time.monotonic(), 0.5), start=start)
        except BackendUnavailable:
            if best is None:
                raise
            break
        if answer.x is None or _misses(problem, constraints, answer.x):
            best = best or _richest(problem, spec, constraints, goal, deadline, held=held)
            if best is None or (answer.x is None and around is not None):
                return best
            around = best.x if answer.x is None else answer.x
            continue
        value = worth(problem, answer.x, goal)
        is_exact = whole and float(lines.widths.max(initial=0.0)) <= 1
        if answer.multipliers is not None:
            bound = dual_bound(problem, goal, constraints, answer.multipliers, limits=(low, high))
        else:
            bound = answer.bound + (0.0 if is_exact else goal.outcome * float(problem.curves.chord_error(lines.points).sum()))
            bound = math.inf if around is not None and np.any(problem.curves.coefficient < 0) else bound
        bound = min(bound, best.bound) if best is not None else bound
        if best is None or value >= best.value:
            best = Best(x=answer.x, value=value, bound=max(bound, value), answer=answer)
            around = best.x
        near = best.bound - best.value <= (spec.gap_tolerance if problem.n > MANY else 1e-6) * abs(best.value)
        if near or is_exact or problem.curves.kind == "linear":
            break
    return best


def _richest(
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float, *, held: frozenset[str]
) -> Best | None:
    """The plan with the largest outcome, where it reaches the outcome that the lines, which lie below the curves, missed; else None."""
    asked = max((row.low for row in constraints if row.coefficients is None), default=-np.inf)
    if problem.curves.kind == "linear" or np.isinf(asked):
        return None
    others = tuple(row for row in constraints if row.coefficients is not None)
    exact = spec.model_copy(update={"gap_tolerance": _EXACT})
    found = refined(problem, exact, others, Goal(outcome=1.0, cost=0.0), deadline, held=held)
    if found is None or found.value < asked - _EXACT * abs(asked):
        return None
    answer = replace(found.answer, is_optimal=False, bound=math.inf, multipliers=None)
    return Best(x=found.x, value=worth(problem, found.x, goal), bound=math.inf, answer=answer)


def _misses(problem: Problem, constraints: tuple[Row, ...], x: FloatArray) -> bool:
    """A plan lacks outcome on the curves that it has on the lines: those of a negative response, which bends the other way, lie above."""
    if problem.curves.kind == "linear" or not np.any(problem.curves.coefficient < 0):
        return False
    short = max((row.low - row.amount(problem, x) for row in constraints if row.coefficients is None), default=0.0)
    return short > _EXACT * (1 + float(np.abs(problem.curves.value(x)).sum()))


def _filled(problem: Problem, budget: Row, goal: Goal, low: FloatArray, high: FloatArray) -> Best | None:
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
    return Best(x=x, value=value, bound=max(bound, value), answer=answer)
