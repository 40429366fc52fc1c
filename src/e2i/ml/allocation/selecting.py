"""Who is selected: from selection to selection, each ranked by the prices of the plan for the one before."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import BackendUnavailable
from e2i.ml.allocation.bounds import gains_of
from e2i.ml.allocation.limits import Row, families
from e2i.ml.allocation.program import limits_of
from e2i.ml.allocation.refining import SELECTING, Best, is_near, refined

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.allocation.program import Goal
    from e2i.ml.columns import BoolArray, IntArray

WHOLE_TRIES = 3
"""selections that are planned with whole units"""
_SAME = 1e-9


def selected(problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float) -> Best | None:
    """Who is selected: a plan for a selection puts prices on the constraints, the prices rank the entities, and the best ranked are the
    next selection. Duality bounds every selection, so the plan says how far from the best it may be. Whole units are planned last, for
    the best selections alone.

    None when no selection on the way is feasible.
    """  # noqa: D205
    held = frozenset(families(problem, spec)) - SELECTING
    low, high = limits_of(problem, spec, rows=constraints, families=held)
    floor = low if problem.minimum_if_selected is None else np.maximum(low, problem.minimum_if_selected)
    floor = np.ceil(floor - _SAME) if "integer" in held else floor
    if spec.cardinality is not None and int((low > 0).sum()) > spec.cardinality:
        return None
    start = refined(problem, spec, constraints, goal, deadline, held=held - {"integer"})
    if start is None:
        return None
    walk = _Walk(
        problem=problem, spec=spec, constraints=constraints, goal=goal, deadline=deadline, low=low, floor=floor, high=high, held=held
    )
    bound = walk.follow(start.answer.multipliers, start.bound)
    if not walk.plans and spec.cardinality is not None and np.all(np.isfinite(high)):
        # A selection that breaks a group's minimum says nothing of the next: the count as a linear row prices it among the others.
        count = Row(name="", words="", unit="", coefficients=1 / np.maximum(high, _SAME), high=float(spec.cardinality))
        other = refined(problem, spec, (*constraints, count), goal, deadline, held=held - {"integer"})
        if other is None:
            return None
        bound = min(bound, other.bound)
        walk.visit(np.sort(np.argsort(-problem.curves.value(other.x), kind="stable")[: spec.cardinality]))
        bound = walk.follow(None if other.answer.multipliers is None else other.answer.multipliers[:-1], bound)
    best = walk.best()
    if best is None:
        return None
    bound = max(bound, best.value)
    answer = replace(
        best.answer, multipliers=None, is_optimal=is_near(best.value, bound, spec), solver="HiGHS linear programs over selections"
    )
    return replace(best, bound=bound, answer=answer)


@dataclass(kw_only=True)
class _Walk:
    """From selection to selection, each ranked by the prices of the plan for the one before."""

    problem: Problem
    spec: AllocationSpec
    constraints: tuple[Row, ...]
    goal: Goal
    deadline: float
    low: FloatArray
    floor: FloatArray
    high: FloatArray
    held: frozenset[str]
    plans: dict[bytes, tuple[IntArray, Best]] = field(default_factory=dict)

    def follow(self, multipliers: FloatArray | None, bound: float) -> float:
        """Visit selections until one comes back, is not feasible, or is near the bound; returns the best bound on the way."""
        while multipliers is not None and time.monotonic() < self.deadline:
            ends = self.floor, self.high
            gains, constant = gains_of(self.problem, self.goal, self.constraints, multipliers, limits=ends, whole="integer" in self.held)
            chosen, most = _ranked(gains, fixed=self.low > 0, possible=self.floor <= self.high, spec=self.spec)
            bound = min(bound, constant + most)
            found = self.visit(chosen)
            if found is None or is_near(found.value, bound, self.spec):
                break
            multipliers = found.answer.multipliers
        return bound

    def visit(self, chosen: IntArray) -> Best | None:
        """The plan for a selection without whole units; None where it is not feasible or has been seen."""
        if chosen.tobytes() in self.plans or not len(chosen):
            return None
        found = self._planned(chosen, held=self.held - {"integer"})
        if found is not None:
            self.plans[chosen.tobytes()] = chosen, found
        return found

    def best(self) -> Best | None:
        """The best of the plans; where units are whole, of the best plans' selections with whole units."""
        ranked = sorted(self.plans.values(), key=lambda item: -item[1].value)
        if "integer" not in self.held:
            return ranked[0][1] if ranked else None
        whole: list[Best] = []
        for chosen, _ in ranked[:WHOLE_TRIES]:
            if whole and time.monotonic() > self.deadline:
                break
            try:
                found = self._planned(chosen, held=self.held)
            except BackendUnavailable:
                continue
            whole += [] if found is None else [found]
        return max(whole, key=lambda item: item.value, default=None)

    def _planned(self, chosen: IntArray, *, held: frozenset[str]) -> Best | None:
        part = self.problem.take(chosen, minimum=self.floor[chosen])
        inside = tuple(row.take(chosen) for row in self.constraints)
        found = refined(part, self.spec, inside, self.goal, self.deadline, held=held | {"minimum"})
        if found is None:
            return None
        x = np.zeros(self.problem.n)
        x[chosen] = found.x
        return replace(found, x=x)


def _ranked(gains: FloatArray, *, fixed: BoolArray, possible: BoolArray, spec: AllocationSpec) -> tuple[IntArray, float]:
    """Who is selected at these gains, and the largest sum of gains that any selection has."""
    most = len(gains) if spec.cardinality is None else spec.cardinality
    free = np.where(possible & ~fixed, np.maximum(gains, 0.0), 0.0)
    room = max(most - int(fixed.sum()), 0)
    order = np.argsort(-free, kind="stable")[:room]
    order = order[free[order] > 0]
    return np.sort(np.concatenate([np.flatnonzero(fixed), order])), float(gains[fixed].sum() + free[order].sum())
