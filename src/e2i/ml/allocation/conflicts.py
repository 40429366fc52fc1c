"""Why nothing is feasible: a smallest set of constraints that cannot hold together, and how much one of them must give."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.allocation import ConflictMember
from e2i.errors import BackendUnavailable
from e2i.ml.allocation.limits import Row, families, rows
from e2i.ml.allocation.program import Answer, Goal, Lines, Program, Relaxed, cut, limits_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem

NOTHING = Goal(outcome=0.0, cost=0.0)
_SECONDS = 5.0
_ROUNDS = 4
_ROUNDING = 1e-5


def conflict(problem: Problem, spec: AllocationSpec) -> tuple[ConflictMember, ...]:
    """The constraints that cannot hold together; empty where they can, or where the time was too short to tell which they are."""
    try:
        return _smallest(problem, spec)
    except BackendUnavailable:
        return ()


def _smallest(problem: Problem, spec: AllocationSpec) -> tuple[ConflictMember, ...]:
    """An irreducible infeasible set by the deletion filter (Chinneck and Dravnieks 1991): without any one of its members the rest of
    the set can hold. `must_give` is the smallest change of that member alone with which everything else can hold, or, where the
    constraints have more conflicts than this one, with which the rest of the set can.

    Empty when the constraints can hold together.
    """  # noqa: D205
    by_row = {row.name: row for row in rows(problem, spec)}
    words: dict[str, str] = {name: row.words for name, row in by_row.items()}
    words.update((str(name), text) for name, text in families(problem, spec).items())
    kept = list(words)
    if _holds(problem, spec, by_row, kept):
        return ()
    for name in list(words):
        rest = [other for other in kept if other != name]
        if not _holds(problem, spec, by_row, rest):
            kept = rest
    members = []
    for name in kept:
        member = _member(problem, spec, by_row, list(words), name, words=words[name])
        if member.must_give is None:  # another conflict stands beside this one
            member = replace(_member(problem, spec, by_row, kept, name, words=words[name]), is_enough=False)
        members.append(member)
    return tuple(members)


def _holds(problem: Problem, spec: AllocationSpec, by_row: dict[str, Row], names: list[str]) -> bool:
    asked = next((name for name in names if name in by_row and by_row[name].coefficients is None), None)
    if asked is None or problem.curves.kind == "linear":
        return _solve(problem, spec, tuple(by_row[name] for name in names if name in by_row), names).x is not None
    missing = _row_gives(problem, spec, by_row, names, asked)  # lines lie below the curves: what is missing is found with finer ones
    return missing is not None and missing <= _ROUNDING * (1 + by_row[asked].low)


def _solve(problem: Problem, spec: AllocationSpec, kept: tuple[Row, ...], names: list[str], *, relaxed: Relaxed | None = None) -> Answer:
    """Any plan, or the one with the smallest charge; curves are cut finer around the plan while that lowers the charge."""
    held = frozenset(families(problem, spec)) & set(names)
    implied = kept if relaxed is None else ()
    low, high = limits_of(problem, spec, rows=implied, families=frozenset(held))
    if held & {"cardinality", "minimum_if_selected"}:
        high = np.where(np.isinf(high), _enough(problem, spec), high)
    if np.any(high < low):
        return Answer(x=None, is_optimal=True, bound=-math.inf)

    def at(around: FloatArray | None, depth: int) -> Answer:
        lines = cut(problem, low, high, around=around, depth=depth, whole="integer" in held)
        program = Program(problem=problem, spec=spec, rows=kept, families=frozenset(held), lines=lines, goal=NOTHING, relaxed=relaxed)
        return program.solve(time_limit_s=_SECONDS)

    return _finer(at, is_exact=relaxed is None or _is_straight(problem, kept))


def _is_straight(problem: Problem, kept: tuple[Row, ...]) -> bool:
    return problem.curves.kind == "linear" or all(row.coefficients is not None for row in kept)


def _finer(at: Callable[[FloatArray | None, int], Answer], *, is_exact: bool) -> Answer:
    """The answer with the smallest charge over lines that get finer around the plan."""
    best = at(None, 0)
    for depth in range(1, 1 if is_exact else _ROUNDS):
        found = at(best.x, depth) if best.x is not None else best
        best = found if found.x is not None and found.extra < best.extra else best
    return best


def _enough(problem: Problem, spec: AllocationSpec) -> float:
    """More than any total that is asked for: a bound where the maximum is left out of a trial."""
    asked = [spec.min_total or 0.0, spec.exact_total or 0.0, float(problem.minimum.sum()), float(problem.current.sum()), 1.0]
    return 100.0 * max(asked)


def _member(problem: Problem, spec: AllocationSpec, by_row: dict[str, Row], names: list[str], name: str, *, words: str) -> ConflictMember:
    if name in by_row:
        give = _row_gives(problem, spec, by_row, names, name)
        return ConflictMember(constraint=name, words=words, must_give=give, unit=by_row[name].unit)
    if name == "cardinality":
        most = _count_gives(problem, spec, by_row, names)
        return ConflictMember(constraint=name, words=words, must_give=most, unit="entities")
    if name in ("minimum", "maximum", "max_change"):
        give = _bounds_give(problem, spec, by_row, names, name)
        return ConflictMember(constraint=name, words=words, must_give=give, unit=f"{spec.resource} over all entities")
    return ConflictMember(constraint=name, words=words, must_give=None, unit="")


def _row_gives(problem: Problem, spec: AllocationSpec, by_row: dict[str, Row], names: list[str], name: str) -> float | None:
    """The smallest shortfall or excess of one row, with the others of the set as they are."""
    kept = tuple(by_row[other] for other in names if other in by_row)
    place = [row.name for row in kept].index(name)
    slack = Relaxed(cost=np.ones(2), upper=np.full(2, np.inf), entries=((place, 0, 1.0), (place, 1, -1.0)))
    found = _solve(problem, spec, kept, names, relaxed=slack)
    return None if found.x is None else found.extra


def _count_gives(problem: Problem, spec: AllocationSpec, by_row: dict[str, Row], names: list[str]) -> float | None:
    kept = tuple(by_row[other] for other in names if other in by_row)
    more = Relaxed(cost=np.ones(1), upper=np.full(1, float(problem.n)), integer=True, entries=((-1, 0, -1.0),))
    found = _solve(problem, spec, kept, names, relaxed=more)
    return None if found.x is None else float(round(found.extra))


def _bounds_give(problem: Problem, spec: AllocationSpec, by_row: dict[str, Row], names: list[str], name: str) -> float | None:
    """Units by which entities must pass the bounds of one family, together: outside them a unit is charged 1, inside nothing."""
    kept = tuple(by_row[other] for other in names if other in by_row)
    held = frozenset(families(problem, spec)) & set(names)
    inner_low, inner_high = limits_of(problem, spec, rows=(), families=frozenset({name}))
    low, high = limits_of(problem, spec, rows=(), families=frozenset(held - {name}))
    high = np.where(np.isinf(high), np.maximum(_enough(problem, spec), np.ceil(2 * np.where(np.isinf(inner_high), 0.0, inner_high))), high)
    if np.any(high < low):
        return None
    ends, charges = _spans(inner_low, inner_high, (low, high), whole="integer" in held)

    def at(around: FloatArray | None, depth: int) -> Answer:
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
        return program.solve(time_limit_s=_SECONDS)

    found = _finer(at, is_exact=_is_straight(problem, kept))
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
