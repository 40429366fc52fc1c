"""Why nothing is feasible: a smallest set of constraints that cannot hold together, and how much one of them must give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.allocation import ConflictMember
from e2i.ml.allocation.limits import Row, families, rows
from e2i.ml.allocation.program import Answer, Goal, Lines, Program, Relaxed, cut, limits_of

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.problem import Problem

NOTHING = Goal(outcome=0.0, cost=0.0)
_SECONDS = 5.0


def conflict(problem: Problem, spec: AllocationSpec) -> tuple[ConflictMember, ...]:
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
            member = _member(problem, spec, by_row, kept, name, words=words[name])
        members.append(member)
    return tuple(members)


def _holds(problem: Problem, spec: AllocationSpec, by_row: dict[str, Row], names: list[str]) -> bool:
    return _solve(problem, spec, tuple(by_row[name] for name in names if name in by_row), names).x is not None


def _solve(problem: Problem, spec: AllocationSpec, kept: tuple[Row, ...], names: list[str], *, relaxed: Relaxed | None = None) -> Answer:
    """Any plan, or the one with the smallest charge."""
    held = frozenset(families(problem, spec)) & set(names)
    implied = kept if relaxed is None else ()
    low, high = limits_of(problem, spec, rows=implied, families=frozenset(held))
    if held & {"cardinality", "minimum_if_selected"}:
        high = np.where(np.isinf(high), _enough(problem, spec), high)
    if np.any(high < low):
        return Answer(x=None, is_optimal=True, bound=-math.inf)
    lines = cut(problem, low, high, whole="integer" in held)
    program = Program(problem=problem, spec=spec, rows=kept, families=frozenset(held), lines=lines, goal=NOTHING, relaxed=relaxed)
    return program.solve(time_limit_s=_SECONDS)


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
    inner_low, inner_high = limits_of(problem, spec, rows=(), families=frozenset({name}) | (held & {"integer"}))
    low, high = limits_of(problem, spec, rows=(), families=frozenset(held - {name}))
    high = np.where(np.isinf(high), np.maximum(_enough(problem, spec), 2 * np.where(np.isinf(inner_high), 0.0, inner_high)), high)
    if np.any(high < low):
        return None
    left, right = np.clip(inner_low, low, high), np.clip(inner_high, low, high)
    spans = ((low, left), (left, right), (right, high))
    parts = [cut(problem, start, np.maximum(end, start), whole="integer" in held) for start, end in spans]
    pieces = [part.widths.shape[1] for part in parts]
    lines = Lines(
        points=np.concatenate([low[:, None], *(part.points[:, 1:] for part in parts)], axis=1),
        widths=np.concatenate([part.widths for part in parts], axis=1),
        slopes=np.concatenate([part.slopes for part in parts], axis=1),
    )
    charge = np.concatenate([np.full(pieces[0], -1.0), np.zeros(pieces[1]), np.ones(pieces[2])])
    program = Program(
        problem=problem,
        spec=spec.model_copy(update={"gap_tolerance": 0.0}),
        rows=kept,
        families=frozenset(held - {name}),
        lines=lines,
        goal=NOTHING,
        line_charge=np.tile(charge, (problem.n, 1)),
    )
    found = program.solve(time_limit_s=_SECONDS)
    missing = float(np.maximum(left - low, 0.0).sum())
    return None if found.x is None or not math.isfinite(found.extra) else found.extra + missing
