"""Why nothing is feasible: a smallest set of constraints that cannot hold together, and how much one of them must give."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.allocation import ConflictMember
from e2i.errors import BackendUnavailable, ConfigError
from e2i.ml.allocation.limits import DISCRETE, Row, families, part_of, rows
from e2i.ml.allocation.optimum import maximise
from e2i.ml.allocation.program import Answer, Goal, Lines, Program, Relaxed, cut, limits_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.allocation.refining import Best

NOTHING, OUTCOME = Goal(outcome=0.0, cost=0.0), Goal(outcome=1.0, cost=0.0)
SECONDS = 6.0
"""for the whole search; what is not tried by then stays in the set"""
_SECONDS = 3.0
"""for one trial"""
_ROUNDS = 4
_ROUNDING = 1e-5
_EXACT = 1e-6
_WITHOUT_AMOUNT = frozenset({"minimum_if_selected", "integer"})
_UNITS = {"cardinality": "entities", "minimum_if_selected": "", "integer": ""}


def conflict(problem: Problem, spec: AllocationSpec) -> tuple[ConflictMember, ...]:
    """The constraints that cannot hold together; empty where they can, or where the time was too short to tell.

    An irreducible infeasible set by the deletion filter (Chinneck and Dravnieks 1991): without any one of its members the rest of
    the set can hold. Whole groups of constraints are left out first: those over whole numbers and selections, and those without a
    price in the program that missed the outcome (the elastic filter, Chinneck 2008). Where the time is up the set may hold more
    constraints than it needs. `must_give` is the smallest change of that member alone with which everything else can hold, or, where
    the constraints have more conflicts than this one, with which the rest of the set can; None where it could not be found in time.
    """
    search = _Search(problem=problem, spec=spec)
    kept = list(search.words)
    if search.holds(kept) is not False:
        return ()
    kept = search.without(kept, [name for name in kept if name in DISCRETE])
    kept = search.without(kept, search.free_of_charge(kept))
    for name in list(kept):
        kept = search.without(kept, [name])
    return tuple(search.member(kept, name) for name in kept)


@dataclass(kw_only=True)
class _Search:
    """Trials of some of the constraints by name, until the time is up."""

    problem: Problem
    spec: AllocationSpec
    by_row: dict[str, Row] = field(init=False)
    words: dict[str, str] = field(init=False)
    deadline: float = field(init=False)
    charged: dict[str, float] = field(default_factory=dict)
    """prices of the last program that missed the outcome"""

    def __post_init__(self) -> None:
        self.by_row = {row.name: row for row in rows(self.problem, self.spec)}
        self.words = {name: row.words for name, row in self.by_row.items()}
        self.words.update((str(name), text) for name, text in families(self.problem, self.spec).items())
        self.deadline = time.monotonic() + SECONDS

    def without(self, kept: list[str], names: list[str]) -> list[str]:
        """The others where they alone cannot hold together; else all."""
        rest = [name for name in kept if name not in names]
        return rest if names and self.holds(rest) is False else kept

    def free_of_charge(self, kept: list[str]) -> list[str]:
        """Rows without a price in the program that missed the outcome."""
        return [name for name in kept if self.charged.get(name) == 0.0]

    def holds(self, names: list[str]) -> bool | None:
        """Whether these can hold together; None where it is not known in time."""
        asked = self._outcome(names)
        try:
            if asked is None:
                return _solve(self._plain(), self.spec, self._rows(names), names, time_limit_s=self._seconds()).x is not None
            return self._reaches(names, asked)
        except BackendUnavailable:
            return None

    def member(self, kept: list[str], name: str) -> ConflictMember:
        """With what it must give: beside all other constraints if that makes a plan possible, else beside the others of the set."""
        unit = self.by_row[name].unit if name in self.by_row else _UNITS.get(name, f"{self.spec.resource} over all entities")
        give, is_enough = None, True
        try:
            give = self._gives(list(self.words), name)
            if give is None and name not in _WITHOUT_AMOUNT:  # another conflict stands beside this one
                is_enough = False
                give = self._gives(kept, name)
        except BackendUnavailable:  # how much is not known in time
            pass
        return ConflictMember(constraint=name, words=self.words[name], must_give=give, unit=unit, is_enough=is_enough)

    def _gives(self, names: list[str], name: str) -> float | None:
        """None where no amount is enough. Raises BackendUnavailable where the time is up."""
        if time.monotonic() > self.deadline:
            raise BackendUnavailable("the time was not enough to tell by how much a limit must give.", where="allocation")
        if name in self.by_row:
            row = self.by_row[name]
            return self._outcome_gives(names, row) if row.coefficients is None else self._row_gives(names, name)
        if name == "cardinality":
            return self._count_gives(names)
        if name in _WITHOUT_AMOUNT:
            return None
        return _bounds_give(self._curved(names), self.spec, self._rows(names), names, name, time_limit_s=self._seconds())

    def _outcome(self, names: list[str]) -> Row | None:
        return next((self.by_row[name] for name in names if name in self.by_row and self.by_row[name].coefficients is None), None)

    def _rows(self, names: list[str]) -> tuple[Row, ...]:
        return tuple(self.by_row[name] for name in names if name in self.by_row)

    def _plain(self) -> Problem:
        """Without responses, which say nothing of limits on units and dollars."""
        line = replace(self.problem.curves, kind="linear", coefficient=np.zeros(self.problem.n))
        return replace(self.problem, curves=line)

    def _curved(self, names: list[str]) -> Problem:
        return self._plain() if self._outcome(names) is None else self.problem

    def _seconds(self) -> float:
        return max(min(_SECONDS, self.deadline - time.monotonic()), 0.1)

    def _most(self, names: list[str], *, tolerance: float) -> Best | None:
        """The plan with the largest outcome under the other constraints."""
        part, spec = part_of(self.problem, self.spec, names)
        others = tuple(row for row in self._rows(names) if row.coefficients is not None)
        spec = spec.model_copy(update={"gap_tolerance": tolerance})
        return maximise(part, spec, others, OUTCOME, time.monotonic() + self._seconds())

    def _reaches(self, names: list[str], asked: Row) -> bool | None:
        """Whether the other constraints admit the outcome: roughly first, as most trials are far from it."""
        least = asked.low - _ROUNDING * (1 + abs(asked.low))
        for tolerance in (0.02, _EXACT):
            try:
                found = self._most(names, tolerance=tolerance)
            except ConfigError:  # nothing bounds the outcome
                return True
            if found is None:
                return False
            if found.value >= least:
                return True
            if found.bound < least:
                self._remember(names, found)
                return False
        return None

    def _remember(self, names: list[str], found: Best) -> None:
        prices = found.answer.multipliers
        others = [row.name for row in self._rows(names) if row.coefficients is not None]
        self.charged = {} if prices is None else dict(zip(others, prices.tolist(), strict=True))

    def _outcome_gives(self, names: list[str], asked: Row) -> float | None:
        try:
            found = self._most(names, tolerance=_EXACT)
        except ConfigError:
            return None
        return None if found is None else max(asked.low - found.value, 0.0)

    def _row_gives(self, names: list[str], name: str) -> float | None:
        """The smallest shortfall or excess of one row, with the others as they are."""
        kept = self._rows(names)
        place = [row.name for row in kept].index(name)
        slack = Relaxed(cost=np.ones(2), upper=np.full(2, np.inf), entries=((place, 0, 1.0), (place, 1, -1.0)))
        found = _solve(self._curved(names), self.spec, kept, names, time_limit_s=self._seconds(), relaxed=slack)
        return None if found.x is None else found.extra

    def _count_gives(self, names: list[str]) -> float | None:
        more = Relaxed(cost=np.ones(1), upper=np.full(1, float(self.problem.n)), integer=True, entries=((-1, 0, -1.0),))
        found = _solve(self._curved(names), self.spec, self._rows(names), names, time_limit_s=self._seconds(), relaxed=more)
        return None if found.x is None else float(round(found.extra))


def _solve(
    problem: Problem, spec: AllocationSpec, kept: tuple[Row, ...], names: list[str], *, time_limit_s: float, relaxed: Relaxed | None = None
) -> Answer:
    """Any plan, or the one with the smallest charge; curves are cut finer around the plan while that lowers the charge."""
    held = frozenset(families(problem, spec)) & set(names)
    implied = kept if relaxed is None else ()
    low, high = limits_of(problem, spec, rows=implied, families=frozenset(held))
    if held & {"cardinality", "minimum_if_selected"}:
        high = np.where(np.isinf(high), _enough(problem, spec), high)
    if np.any(high < low):
        return Answer(x=None, is_optimal=True, bound=-math.inf)
    deadline = time.monotonic() + time_limit_s

    def at(around: FloatArray | None, depth: int, start: FloatArray | None) -> Answer:
        lines = cut(problem, low, high, around=around, depth=depth, whole="integer" in held)
        program = Program(problem=problem, spec=spec, rows=kept, families=frozenset(held), lines=lines, goal=NOTHING, relaxed=relaxed)
        return program.solve(time_limit_s=max(deadline - time.monotonic(), 0.1), start=start)

    return _finer(at, deadline, is_exact=relaxed is None or _is_straight(problem, kept))


def _is_straight(problem: Problem, kept: tuple[Row, ...]) -> bool:
    return problem.curves.kind == "linear" or all(row.coefficients is not None for row in kept)


def _finer(at: Callable[[FloatArray | None, int, FloatArray | None], Answer], deadline: float, *, is_exact: bool) -> Answer:
    """The answer with the smallest charge over lines that get finer around the plan, until the time is up."""
    best = at(None, 0, None)
    for depth in range(1, 1 if is_exact or best.x is None else _ROUNDS):
        if time.monotonic() > deadline:
            break
        try:
            found = at(best.x, depth, best.multipliers)
        except BackendUnavailable:
            break
        best = found if found.x is not None and found.extra < best.extra else best
    return best


def _enough(problem: Problem, spec: AllocationSpec) -> float:
    """More than any total that is asked for: a bound where the maximum is left out of a trial."""
    asked = [spec.min_total or 0.0, spec.exact_total or 0.0, float(problem.minimum.sum()), float(problem.current.sum()), 1.0]
    return 100.0 * max(asked)


def _bounds_give(
    problem: Problem, spec: AllocationSpec, kept: tuple[Row, ...], names: list[str], name: str, *, time_limit_s: float
) -> float | None:
    """Units by which entities must pass the bounds of one family, together: outside them a unit is charged 1, inside nothing."""
    held = frozenset(families(problem, spec)) & set(names)
    inner_low, inner_high = limits_of(problem, spec, rows=(), families=frozenset({name}))
    low, high = limits_of(problem, spec, rows=(), families=frozenset(held - {name}))
    high = np.where(np.isinf(high), np.maximum(_enough(problem, spec), np.ceil(2 * np.where(np.isinf(inner_high), 0.0, inner_high))), high)
    if np.any(high < low):
        return None
    ends, charges = _spans(inner_low, inner_high, (low, high), whole="integer" in held)

    deadline = time.monotonic() + time_limit_s

    def at(around: FloatArray | None, depth: int, start: FloatArray | None) -> Answer:
        parts = [cut(problem, *end, around=around, depth=depth, whole="integer" in held) for end in pairwise(ends)]
        lines = Lines(
            points=np.concatenate([low[:, None], *(part.points[:, 1:] for part in parts)], axis=1),
            widths=np.concatenate([part.widths for part in parts], axis=1),
            slopes=np.concatenate([part.slopes for part in parts], axis=1),
        )
        charge = [np.repeat(each[:, None], part.widths.shape[1], axis=1) for each, part in zip(charges, parts, strict=True)]
        program = Program(
            problem=problem,
            spec=spec.model_copy(update={"gap_tolerance": 0.0}),
            rows=kept,
            families=frozenset(held - {name}),
            lines=lines,
            goal=NOTHING,
            line_charge=np.concatenate(charge, axis=1),
        )
        return program.solve(time_limit_s=max(deadline - time.monotonic(), 0.1), start=start)

    found = _finer(at, deadline, is_exact=_is_straight(problem, kept))
    below, above = np.maximum(inner_low - low, 0.0), np.maximum(low - inner_high, 0.0)  # charged where an entity stays at its lower bound
    return None if found.x is None or not math.isfinite(found.extra) else found.extra + float(below.sum() + above.sum())


def _spans(
    inner_low: FloatArray, inner_high: FloatArray, limits: tuple[FloatArray, FloatArray], *, whole: bool
) -> tuple[list[FloatArray], list[FloatArray]]:
    """From the lower limit to the upper one: ends of the spans, and what a unit in each is charged; a whole unit that a bound cuts is
    charged the part outside.
    """  # noqa: D205
    left, right = inner_low, np.maximum(np.minimum(inner_high, limits[1]), inner_low)
    if not whole:
        inside = [np.clip(end, *limits) for end in (left, right)]
        return [limits[0], *inside, limits[1]], [np.full(len(left), charge) for charge in (-1.0, 0.0, 1.0)]
    near = [np.floor(left), np.ceil(left), np.maximum(np.floor(right), np.ceil(left)), np.maximum(np.ceil(right), np.ceil(left))]
    outside = [np.maximum(left - end, 0.0) + np.maximum(end - right, 0.0) for end in near]
    rises = [after - before for before, after in pairwise(outside)]
    return [limits[0], *(np.clip(end, *limits) for end in near), limits[1]], [np.full(len(left), -1.0), *rises, np.ones(len(left))]
