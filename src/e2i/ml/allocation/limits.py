"""The constraints of an allocation by name and in words, so that a plan can be checked and a conflict can be told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from e2i.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from e2i.domain.allocation import AllocationSpec
    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.allocation.problem import Problem
    from e2i.ml.columns import IntArray

Family = Literal["minimum", "maximum", "max_change", "cardinality", "minimum_if_selected", "integer"]
DISCRETE = frozenset({"cardinality", "minimum_if_selected", "integer"})
"""families that need whole numbers"""
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Row:
    """low <= coefficients · x <= high, or the same for the total outcome where `coefficients` is None."""

    name: str
    words: str
    unit: str
    coefficients: FloatArray | None
    low: float = -np.inf
    high: float = np.inf

    def take(self, index: IntArray) -> Row:
        """The same limit over some of the entities, where the others get nothing."""
        return self if self.coefficients is None else replace(self, coefficients=self.coefficients[index])

    def amount(self, problem: Problem, x: FloatArray) -> float:
        """The left side at `x`."""
        if self.coefficients is None:
            return float(problem.curves.value(x).sum())
        return float(self.coefficients @ x)


def rows(problem: Problem, spec: AllocationSpec) -> tuple[Row, ...]:
    """Every linear constraint. Raises ConfigError for a group that no entity is in."""
    ones, unit = np.ones(problem.n), spec.resource
    found: list[Row] = []
    if spec.budget is not None:
        words = f"the budget of {spec.budget:g} dollars"
        found.append(Row(name="budget", words=words, unit="dollars", coefficients=problem.cost, high=spec.budget))
    if spec.min_total is not None:
        words = f"at least {spec.min_total:g} {unit} in total"
        found.append(Row(name="min_total", words=words, unit=unit, coefficients=ones, low=spec.min_total))
    if spec.exact_total is not None:
        words = f"exactly {spec.exact_total:g} {unit} in total"
        found.append(Row(name="exact_total", words=words, unit=unit, coefficients=ones, low=spec.exact_total, high=spec.exact_total))
    if spec.required_outcome is not None:
        words = f"an outcome of at least {spec.required_outcome:g}"
        found.append(Row(name="required_outcome", words=words, unit="outcome", coefficients=None, low=spec.required_outcome))
    for limits in spec.groups:
        for group, most in limits.maximum.items():
            words = f"at most {most:g} dollars for {limits.by} {group}"
            inside = problem.cost * _members(problem, limits.by, group)
            found.append(Row(name=f"maximum of {limits.by} {group}", words=words, unit="dollars", coefficients=inside, high=most))
        for group, least in limits.minimum.items():
            words = f"at least {least:g} dollars for {limits.by} {group}"
            inside = problem.cost * _members(problem, limits.by, group)
            found.append(Row(name=f"minimum of {limits.by} {group}", words=words, unit="dollars", coefficients=inside, low=least))
    return (*found, *_fairness(problem, spec))


def families(problem: Problem, spec: AllocationSpec) -> dict[Family, str]:
    """Constraints of every single entity, and those that need whole numbers: name -> words."""
    unit = spec.resource
    found: dict[Family, str] = {}
    if np.any(problem.minimum > 0):
        found["minimum"] = f"the minimum of every entity, {problem.minimum.sum():g} {unit} together"
    if np.any(np.isfinite(problem.maximum)):
        found["maximum"] = "the maximum of every entity"
    if spec.max_change is not None or spec.max_change_share is not None:
        found["max_change"] = "the largest change against the current allocation"
    if spec.cardinality is not None:
        found["cardinality"] = f"at most {spec.cardinality} entities"
    if problem.minimum_if_selected is not None:
        found["minimum_if_selected"] = "the smallest allocation of an entity that is selected"
    if spec.integer:
        found["integer"] = f"whole {unit}"
    return found


def part_of(problem: Problem, spec: AllocationSpec, names: Collection[str]) -> tuple[Problem, AllocationSpec]:
    """Problem and section without the families that are not among `names`; rows stand in neither."""
    part = replace(
        problem,
        minimum=problem.minimum if "minimum" in names else np.zeros(problem.n),
        maximum=problem.maximum if "maximum" in names else np.full(problem.n, np.inf),
        minimum_if_selected=problem.minimum_if_selected if "minimum_if_selected" in names else None,
    )
    dropped: dict[str, object] = {} if "max_change" in names else {"max_change": None, "max_change_share": None}
    dropped |= {} if "cardinality" in names else {"cardinality": None}
    dropped |= {} if "integer" in names else {"integer": False}
    return part, spec.model_copy(update=dropped)


def change_bounds(problem: Problem, spec: AllocationSpec) -> tuple[FloatArray, FloatArray]:
    """How far every entity may move from its current allocation."""
    room = np.full(problem.n, np.inf)
    if spec.max_change_share is not None:
        room = np.minimum(room, spec.max_change_share * problem.current)
    if spec.max_change is not None:
        room = np.minimum(room, spec.max_change)
    return np.maximum(problem.current - room, 0.0), problem.current + room


def violations(problem: Problem, spec: AllocationSpec, x: FloatArray, *, tolerance: float = _ROUNDING) -> tuple[str, ...]:
    """Constraints that `x` breaks, in words, beyond rounding (relative to the limit)."""
    broken = []
    for row in rows(problem, spec):
        amount = row.amount(problem, x)
        limit = row.low if amount < row.low else row.high
        size = 1 + (0.0 if np.isinf(limit) else abs(limit)) + (0.0 if row.coefficients is None else float(np.abs(row.coefficients) @ x))
        if amount < row.low - tolerance * size or amount > row.high + tolerance * size:
            broken.append(f"{row.words}: it is {amount:.6g}")
    least, most = change_bounds(problem, spec)
    slack = tolerance * (1 + np.abs(x))
    wrong = {
        "minimum": x < problem.minimum - slack,
        "maximum": x > problem.maximum + slack,
        "max_change": (x < least - slack) | (x > most + slack),
        "integer": np.abs(x - np.round(x)) > slack,
        "minimum_if_selected": (x > slack) & (x < (0 if problem.minimum_if_selected is None else problem.minimum_if_selected) - slack),
    }
    for family, words in families(problem, spec).items():
        if family == "cardinality":
            count = int(np.sum(x > slack))
            broken += [f"{words}: there are {count}"] if count > (spec.cardinality or 0) else []
        elif wrong[family].any():
            broken.append(f"{words}: {int(wrong[family].sum())} entities break it")
    return tuple(broken)


def _fairness(problem: Problem, spec: AllocationSpec) -> list[Row]:
    found = []
    for rule in spec.fairness:
        groups = sorted(set(problem.groups[rule.by]))
        inside = {group: _members(problem, rule.by, group) for group in groups}
        if rule.minimum_share is not None:
            for group in groups:
                share = rule.minimum_share * inside[group].mean()
                words = f"at least {share:.1%} of the total for {rule.by} {group}"
                name = f"fair share of {rule.by} {group}"
                found.append(Row(name=name, words=words, unit=spec.resource, coefficients=inside[group] - share, low=0.0))
        if rule.maximum_disparity is not None:
            for more in groups:
                for less in groups:
                    if more != less:
                        ratio = inside[more] / inside[more].sum() - rule.maximum_disparity * inside[less] / inside[less].sum()
                        words = f"{rule.by} {more} gets per entity at most {rule.maximum_disparity:g} times what {less} gets"
                        name = f"disparity of {rule.by} {more} over {less}"
                        found.append(Row(name=name, words=words, unit=f"{spec.resource} per entity", coefficients=ratio, high=0.0))
    return found


def _members(problem: Problem, by: str, group: str) -> FloatArray:
    labels = problem.groups[by]
    inside = np.array([label == group for label in labels], dtype=float)
    if not inside.any() and group not in problem.gone[by]:
        known = ", ".join(sorted(set(labels))[:12])
        raise ConfigError(f"no eligible entity has {by} = `{group}`.", where="allocation.groups", advice=f"The groups are: {known}.")
    return inside
