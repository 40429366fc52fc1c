"""Other ways to spend, side by side, and what the plan is worth when the responses are not exactly what they seem."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.allocation import ScenarioResult, Sensitivity
from e2i.errors import BackendUnavailable
from e2i.ml.allocation.limits import families, rows, violations
from e2i.ml.allocation.optimum import optimise
from e2i.ml.allocation.program import limits_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.optimum import Optimum
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.columns import IntArray

Z95 = 1.959963984540054
PIECES_OF_WORK = 400_000
"""entities times draws of a sensitivity analysis, at most; fewer draws for more entities"""
SECONDS = 6.0
"""for all draws together"""
FEWEST_DRAWS = 5
"""draws that are made even where the time is up"""
ROUGH = 0.005
"""relative distance to the bound at which the search for a draw may end"""
_KEPT = 1e-9
_OUTCOMES, _FEWEST_OUTCOMES, _NORMALS = 10_000, 1_000, 40_000_000
"""draws for the interval of an outcome: usually, at least, and random numbers for all entities together"""
_AT_ONCE = 500
"""measured effects that are drawn at once"""


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """The analysis, and per entity the share of draws that keep it and its robust allocation."""

    result: Sensitivity
    kept: FloatArray
    robust: FloatArray | None


def compare(problem: Problem, spec: AllocationSpec, plan: FloatArray, *, seed: int) -> tuple[ScenarioResult, ...]:
    """Current, optimised, equal and focused on the strongest; each with the constraints that it breaks.

    `equal` and `focus_top` spend what the plan spends, within minimum and maximum of every entity.
    """
    low, high = limits_of(problem, spec, rows=(), families=frozenset(families(problem, spec)) & {"minimum", "maximum"})
    money = float(problem.cost @ plan)
    top = spec.top or spec.cardinality or max(1, math.ceil(problem.n / 10))
    strongest = np.argsort(-_first_return(problem), kind="stable")[:top]
    ways = {
        "baseline": problem.current,
        "optimised": plan,
        "equal": _spread(problem, low, high, money),
        "focus_top": _focused(problem, low, high, money, strongest),
    }
    ends = outcome_ends(problem, list(ways.values()), seed=seed)
    return tuple(_scenario(problem, spec, name, x, end) for (name, x), end in zip(ways.items(), ends, strict=True))


def sensitivity(problem: Problem, spec: AllocationSpec, plan: FloatArray, *, seed: int) -> Uncertainty | None:
    """Solve again for draws of the responses; None where they have no interval.

    An optimum over estimates picks those that were lucky: the plan's promise is corrected by the parametric bootstrap of that optimism
    (the optimiser's curse, Smith and Winkler 2006), without the plan's own error, which is 0 on average. The robust plan is the
    optimum when every response is at its lower bound.
    """
    is_simple = len(rows(problem, spec)) == 1 and not set(families(problem, spec)) & {"integer", "cardinality", "minimum_if_selected"}
    number = min(spec.draws, max(20, PIECES_OF_WORK // max(1, problem.n)) if is_simple else 20)
    drawn = _draws(problem, number, seed=seed)
    if drawn is None or problem.coefficient_low is None:
        return None
    limits = {"time_limit_s": min(spec.time_limit_s, SECONDS / number), "gap_tolerance": max(spec.gap_tolerance, ROUGH)}
    quick = spec.model_copy(update=limits)
    kept, gains, overlaps, unsolved = np.zeros(problem.n), [], [], 0
    begun = time.monotonic()
    for done, coefficient in enumerate(drawn):
        if done >= FEWEST_DRAWS and time.monotonic() - begun > SECONDS:
            break
        other = replace(problem, curves=problem.curves.scaled(coefficient))
        found = _solved(other, quick)
        if found is None:
            unsolved += 1
            continue
        kept += found.x > _KEPT
        better = float(other.curves.value(found.x).sum() - other.curves.value(plan).sum())
        gains.append(better + float(problem.curves.value(plan).sum() - problem.curves.value(found.x).sum()))
        overlaps.append(float(np.minimum(found.x, plan).sum()) / max(float(plan.sum()), _KEPT))
    lowest = replace(problem, curves=problem.curves.scaled(problem.coefficient_low))
    robust = _solved(lowest, quick)
    if not gains:
        return None
    low, high = outcome_ends(problem, [plan], seed=seed)[0] or (np.nan, np.nan)
    optimism = float(np.mean(gains))
    promised, at_low = float(problem.curves.value(plan).sum()), float(lowest.curves.value(plan).sum())
    result = Sensitivity(
        draws=len(gains),
        plan_low=float(low),
        plan_high=float(high),
        optimism=optimism,
        corrected_outcome=promised - optimism,
        robust_outcome_at_low=at_low if robust is None else float(lowest.curves.value(robust.x).sum()),
        plan_outcome_at_low=at_low,
        overlap=float(np.mean(overlaps)),
        note=_note(promised, optimism, unsolved=unsolved),
    )
    return Uncertainty(result=result, kept=kept / len(gains), robust=None if robust is None else robust.x)


def _solved(problem: Problem, spec: AllocationSpec) -> Optimum | None:
    """None where nothing is feasible, or was not found in the time of one draw."""
    try:
        return optimise(problem, spec)
    except BackendUnavailable:
        return None


def _note(promised: float, optimism: float, *, unsolved: int) -> str:
    share = f"{optimism / promised:.1%} of the promised outcome" if promised > 0 else f"{optimism:.4g}"
    text = f"Winner's curse: entities are partly chosen because their estimates were lucky; {share} is expected not to come."
    return text if not unsolved else f"{text} In {unsolved} draws no plan was feasible, or none was found in time."


def _draws(problem: Problem, number: int, *, seed: int) -> FloatArray | None:
    """Coefficients, shape (number, n), whose 95 % intervals are the responses'; entities that share an effect share its error."""
    low, high, middle = problem.coefficient_low, problem.coefficient_high, problem.curves.coefficient
    if low is None or high is None:
        return None
    z: FloatArray = np.random.default_rng(seed).standard_normal((number, int(problem.shared.max()) + 1))[:, problem.shared]
    return np.asarray(middle + z * np.where(z < 0, middle - low, high - middle) / Z95)


def outcome_ends(problem: Problem, plans: Sequence[FloatArray], *, seed: int) -> list[tuple[float, float] | None]:
    """95 % interval of the outcome of every plan, over draws of the responses; None where these have no interval.

    Every curve is its coefficient times a shape, so a plan's outcome is a sum over the measured effects: many draws cost little, and
    entities that share an effect share its error.
    """
    low, high, middle = problem.coefficient_low, problem.coefficient_high, problem.curves.coefficient
    if low is None or high is None:
        return [None] * len(plans)
    shapes = np.column_stack([problem.curves.scaled(np.ones(problem.n)).value(x) for x in plans])
    effects = int(problem.shared.max()) + 1
    below, above = np.zeros((effects, len(plans))), np.zeros((effects, len(plans)))
    np.add.at(below, problem.shared, shapes * ((middle - low) / Z95)[:, None])
    np.add.at(above, problem.shared, shapes * ((high - middle) / Z95)[:, None])
    number = max(_FEWEST_OUTCOMES, min(_OUTCOMES, _NORMALS // effects))
    rng, moved = np.random.default_rng(seed), np.zeros((number, len(plans)))
    for start in range(0, effects, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        z = rng.standard_normal((number, len(below[part])))
        moved += np.minimum(z, 0.0) @ below[part] + np.maximum(z, 0.0) @ above[part]
    ends = middle @ shapes + np.quantile(moved, (0.025, 0.975), axis=0)
    return [(float(first), float(last)) for first, last in ends.T]


def _scenario(problem: Problem, spec: AllocationSpec, name: str, x: FloatArray, ends: tuple[float, float] | None) -> ScenarioResult:
    outcome, cost = float(problem.curves.value(x).sum()), float(problem.cost @ x)
    low, high = ends or (None, None)
    return ScenarioResult(
        name=name,
        total=float(x.sum()),
        cost=cost,
        outcome=outcome,
        outcome_low=low,
        outcome_high=high,
        roi=roi_of(spec, outcome, cost),
        violations=violations(problem, spec, x),
    )


def roi_of(spec: AllocationSpec, outcome: float, cost: float) -> float | None:
    """(value - cost) / cost; None without a value per unit, or at no cost."""
    return None if spec.value_per_unit is None or cost <= 0 else (spec.value_per_unit * outcome - cost) / cost


def _first_return(problem: Problem) -> FloatArray:
    """Outcome per dollar of the first unit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = problem.curves.value(np.ones(problem.n)) / problem.cost
    return np.asarray(np.where(np.isnan(returns), 0.0, returns), dtype=np.float64)


def _spread(problem: Problem, low: FloatArray, high: FloatArray, money: float) -> FloatArray:
    """The same units for all, within their bounds, for this money."""
    least, most = 0.0, max(float(money / problem.cost[problem.cost > 0].min(initial=1.0)), 1.0)
    for _ in range(80):
        level = (least + most) / 2
        least, most = (level, most) if float(problem.cost @ np.clip(level, low, high)) <= money else (least, level)
    return np.asarray(np.clip(least, low, high), dtype=np.float64)


def _focused(problem: Problem, low: FloatArray, high: FloatArray, money: float, strongest: IntArray) -> FloatArray:
    """The strongest first, each to its maximum, until the money is gone."""
    x = low.copy()
    rest = money - float(problem.cost @ x)
    for place in strongest:
        price = problem.cost[place]
        room = high[place] - x[place]
        more = room if price == 0 else min(room, max(rest, 0.0) / price)
        x[place] += more if np.isfinite(more) else 0.0
        rest -= more * price if np.isfinite(more) else 0.0
    return x
