"""The plan in records: who gets what, what it is worth, what the next dollar buys, or why nothing is possible."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.allocation import AllocationPlan, EntityAllocation
from e2i.ml.allocation.conflicts import conflict
from e2i.ml.allocation.optimum import Optimum, optimise
from e2i.ml.allocation.problem import read
from e2i.ml.allocation.scenarios import Uncertainty, compare, roi_of, sensitivity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from e2i.domain.allocation import AllocationSpec, ConflictMember, ScenarioResult, SegmentResponse, Status
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem


def allocate(frame: pl.DataFrame, spec: AllocationSpec, *, responses: Sequence[SegmentResponse] = (), seed: int) -> AllocationPlan:
    """Read, optimise, compare and project in one call; see `problem.read` and `optimum.optimise` for what it raises."""
    problem = read(frame, spec, responses=responses)
    best = optimise(problem, spec)
    if best is None:
        return infeasible(problem, spec, conflict(problem, spec))
    scenarios = compare(problem, spec, best.x, seed=seed)
    return project(problem, spec, best, scenarios=scenarios, uncertainty=sensitivity(problem, spec, best.x, seed=seed))


def infeasible(problem: Problem, spec: AllocationSpec, members: Sequence[ConflictMember]) -> AllocationPlan:
    """The answer when the constraints cannot hold together."""
    named = "; ".join(item.words for item in members)
    text = (
        f"No plan is possible: these cannot hold together: {named}."
        if members
        else "No plan was found, and the time was too short to name the limits that stand against it."
    )
    leads = {True: "Any one of these would do", False: "Another conflict stands beside this one; against this one alone would do"}
    for is_enough, lead in leads.items():
        told = [item for item in members if item.must_give and item.is_enough == is_enough]
        ways = [f"{item.words} gives by {item.must_give:.6g} {item.unit}" for item in told]
        text += f" {lead}: {'; '.join(ways)}." if ways else ""
    empty = _without_plan(spec, text, status="infeasible", solver="HiGHS", eligible=problem.n)
    return replace(empty, conflict=tuple(members), excluded=problem.excluded, warnings=problem.warnings)


def refused(spec: AllocationSpec, reason: str) -> AllocationPlan:
    """The answer when the responses would come from an effect that may not be told."""
    return _without_plan(spec, f"No plan is made: {reason}", status="refused", solver="", eligible=0)


def _without_plan(spec: AllocationSpec, text: str, *, status: Status, solver: str, eligible: int) -> AllocationPlan:
    return AllocationPlan(
        resource=spec.resource, objective=spec.objective, status=status, solver=solver, allocations=(), objective_value=None,
        upper_bound=None, error_bound=None, total=0.0, cost=0.0, outcome=0.0, outcome_change=0.0, roi=None, shadow_prices={},
        marginal_roi=None, outcome_by_group={}, scenarios=(), sensitivity=None, conflict=(), eligible=eligible, excluded=None,
        summary_text=text, warnings=(),
    )  # fmt: skip


def project(
    problem: Problem, spec: AllocationSpec, best: Optimum, *, scenarios: tuple[ScenarioResult, ...], uncertainty: Uncertainty | None
) -> AllocationPlan:
    """What the plan brings, by entity and group, against the current allocation."""
    x = best.x
    outcomes, before = problem.curves.value(x), problem.curves.value(problem.current)
    outcome, cost = float(outcomes.sum()), float(problem.cost @ x)
    price = best.multipliers.get("budget")
    marginal = spec.value_per_unit * price - 1 if spec.value_per_unit is not None and price else None
    distance = abs(best.bound - best.value)
    warnings = list(problem.warnings)
    if uncertainty is None:
        warnings.append("The responses have no interval: how far the plan can be trusted is unknown.")
    if not best.is_optimal:
        warnings.append("The search was ended by its limits; the bound tells how much better a plan could be.")
    return AllocationPlan(
        resource=spec.resource,
        objective=spec.objective,
        status="optimal" if best.is_optimal else "feasible",
        solver=best.solver,
        allocations=_entities(problem, spec, x, uncertainty),
        objective_value=best.value,
        upper_bound=best.bound,
        error_bound=distance,
        total=float(x.sum()),
        cost=cost,
        outcome=outcome,
        outcome_change=outcome - float(before.sum()),
        roi=roi_of(spec, outcome, cost),
        shadow_prices=dict(best.multipliers),
        marginal_roi=marginal,
        outcome_by_group={by: _by_group(labels, outcomes) for by, labels in problem.groups.items()},
        scenarios=scenarios,
        sensitivity=None if uncertainty is None else uncertainty.result,
        conflict=(),
        eligible=problem.n,
        excluded=problem.excluded,
        summary_text=_summary(problem, spec, best, outcome=outcome, change=outcome - float(before.sum()), cost=cost),
        warnings=tuple(warnings),
    )


def _entities(problem: Problem, spec: AllocationSpec, x: FloatArray, uncertainty: Uncertainty | None) -> tuple[EntityAllocation, ...]:
    """Every eligible entity, largest allocation first."""
    outcomes, before, slopes = problem.curves.value(x), problem.curves.value(problem.current), problem.curves.slope(x)
    kept = None if uncertainty is None else uncertainty.kept
    robust = None if uncertainty is None else uncertainty.robust
    found = []
    for i in np.argsort(-x, kind="stable"):
        cost = float(problem.cost[i])
        returns = spec.value_per_unit * float(slopes[i]) / cost - 1 if spec.value_per_unit is not None and cost > 0 else None
        found.append(
            EntityAllocation(
                entity=problem.names[i],
                current=float(problem.current[i]),
                allocated=float(x[i]),
                change=float(x[i] - problem.current[i]),
                expected_outcome=float(outcomes[i]),
                expected_change=float(outcomes[i] - before[i]),
                marginal_outcome=float(slopes[i]),
                marginal_roi=returns if returns is not None and np.isfinite(returns) else None,
                kept_share=None if kept is None else float(kept[i]),
                robust=None if robust is None else float(robust[i]),
            )
        )
    return tuple(found)


def _by_group(labels: Sequence[str], outcomes: FloatArray) -> dict[str, float]:
    names = np.array(labels)
    return {name: float(outcomes[names == name].sum()) for name in sorted(set(labels))}


def _summary(problem: Problem, spec: AllocationSpec, best: Optimum, *, outcome: float, change: float, cost: float) -> str:
    words = {
        "maximize_outcome": "the largest outcome",
        "maximize_roi": "the best return",
        "minimize_cost": "the smallest cost",
        "balance": "the best balance",
    }
    chosen = int(np.sum(best.x > 1e-9))
    text = f"{words[spec.objective]}: {best.x.sum():,.6g} {spec.resource} for {chosen:,} of {problem.n:,} entities, at ${cost:,.0f}."
    text += f" Expected outcome {outcome:,.4g}, {change:+,.4g} against the current allocation"
    distance = abs(best.bound - best.value)
    rest = "proven best" if distance <= 1e-6 * abs(best.value) else f"no plan is better by more than {distance:.3g}"
    return f"{text[0].upper()}{text[1:]}; {rest}."
