"""The best plan where a response is negative and something forces it: the interval of its entity is split until the lines are near.

A curve with a negative response bends the other way, so one line over it lies above it. Split at the plan, both halves have lines
of their own, and the better half wins (spatial branch and bound, Falk and Soland 1969).
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import BackendUnavailable
from e2i.ml.allocation.program import limits_of
from e2i.ml.allocation.refining import Best, is_near, refined

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.limits import Row
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.allocation.program import Goal

NODES = 120
_NARROW = 1e-3
"""scales of a curve below which a line is near enough"""
_NEAR = 1e-7


@dataclass(frozen=True, kw_only=True)
class _Tree:
    """What every part of the search shares."""

    problem: Problem
    spec: AllocationSpec
    constraints: tuple[Row, ...]
    goal: Goal
    deadline: float
    held: frozenset[str]

    def plan(self, low: FloatArray, high: FloatArray) -> Best | None:
        """The best plan found between these bounds."""
        part = replace(self.problem, minimum=low, maximum=high)
        return refined(part, self.spec, self.constraints, self.goal, self.deadline, held=self.held | {"minimum", "maximum"})

    def split(self, x: FloatArray, low: FloatArray, high: FloatArray) -> tuple[int, float, float] | None:
        """The entity whose line is furthest from its curve, at the plan or else in the middle, and where its halves end; None where all
        lines are near."""  # noqa: D205, D209
        whole, curves = "integer" in self.held, self.problem.curves
        wide = (curves.coefficient < 0) & (high - low > (1.0 if whole else _NARROW * curves.scale))
        room = np.where(wide, high - low, 1.0)
        start, rise = curves.value(low), (curves.value(high) - curves.value(low)) / room
        for at in (x, (low + high) / 2):
            gap = np.where(wide, start + rise * (at - low) - curves.value(at), -np.inf)
            place = int(np.argmax(gap))
            if gap[place] > _NEAR * abs(float(curves.coefficient[place])):
                if not whole:
                    return place, float(at[place]), float(at[place])
                left = float(np.clip(np.floor(at[place]), low[place], high[place] - 1.0))
                return place, left, left + 1.0
        return None


def branched(
    problem: Problem, spec: AllocationSpec, constraints: tuple[Row, ...], goal: Goal, deadline: float, *, held: frozenset[str]
) -> Best | None:
    """As `refined`, and where a negative response gets something, the better half of its interval, until the bound is near."""
    first = refined(problem, spec, constraints, goal, deadline, held=held)
    if problem.curves.kind == "linear" or (goal.outcome == 0 and all(row.coefficients is not None for row in constraints)):
        return first
    low, high = limits_of(problem, spec, rows=constraints, families=held)
    tree = _Tree(problem=problem, spec=spec, constraints=constraints, goal=goal, deadline=deadline, held=held)
    if first is None or is_near(first.value, first.bound, spec) or tree.split(first.x, low, high) is None:
        return first
    return _searched(tree, first, low, high)


def _searched(tree: _Tree, first: Best, low: FloatArray, high: FloatArray) -> Best:
    """Best bound first. What is left open keeps its bound."""
    best, order = first, count()
    nodes = [(-first.bound, next(order), first, low, high)]
    done = -np.inf
    for _ in range(NODES):
        if not nodes or is_near(best.value, -nodes[0][0], tree.spec) or time.monotonic() > tree.deadline:
            break
        bound, _, at, low, high = heapq.heappop(nodes)
        halves = tree.split(at.x, low, high)
        if halves is None:
            done = max(done, -bound)
            continue
        place, left, right = halves
        for edge, value in ((high, left), (low, right)):
            ends = low.copy(), high.copy()
            ends[1 if edge is high else 0][place] = value
            try:
                found = tree.plan(*ends)
            except BackendUnavailable:
                done = max(done, -bound)
                continue
            if found is None:
                continue
            best = found if found.value > best.value else best
            heapq.heappush(nodes, (-min(found.bound, -bound), next(order), found, *ends))
    bound = max(best.value, done, *(-node[0] for node in nodes), best.value)
    return replace(best, bound=min(bound, first.bound), answer=replace(best.answer, is_optimal=is_near(best.value, bound, tree.spec)))
