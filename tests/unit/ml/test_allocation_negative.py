"""Entities whose response is negative and who must get something: plans and what is missing, against every plan of a grid."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest

from e2i.domain.allocation import AllocationSpec
from e2i.ml.allocation import limits
from e2i.ml.allocation.conflicts import conflict
from e2i.ml.allocation.optimum import optimise
from e2i.ml.allocation.problem import Problem, read

MOST = 6


def drawn(seed: int, *, whole: bool, **changes: object) -> tuple[Problem, AllocationSpec]:
    """Four entities, one to three of them with a negative response, and a limit that forces some of these."""
    rng = np.random.default_rng([seed, 5])
    curve = ["saturating", "log", "hill"][seed % 3]
    a = np.round(rng.normal(4, 2, 4), 2)
    a[: int(rng.integers(1, 4))] *= -1
    frame = pl.DataFrame({"e": ["a", "b", "c", "d"], "a": a, "b": np.round(rng.uniform(0.5, 5, 4), 2), "g": ["x", "x", "y", "y"]})
    forced: dict[str, Any] = (
        {"groups": [{"by": "g", "minimum": {"x": float(rng.uniform(1, 9))}}]},
        {"fairness": [{"by": "g", "minimum_share": 0.8}], "min_total": 6.0},
        {"min_total": float(rng.integers(8, 19))},
    )[seed // 3 % 3]
    response = {"coefficient": "a", "curve": curve, "scale": "b"} | ({"exponent": 0.7} if curve == "hill" else {})
    given: dict[str, Any] = {"resource": "v", "entity": "e", "maximum": MOST, "budget": 20, "response": response, "gap_tolerance": 1e-6}
    spec = AllocationSpec.model_validate(given | {"integer": whole} | forced | changes)
    return read(frame, spec), spec


def best_of_grid(problem: Problem, spec: AllocationSpec, *, step: float) -> float:
    grid = np.array(list(itertools.product(np.arange(0, MOST + step / 2, step), repeat=4)))
    fits = np.ones(len(grid), dtype=bool)
    for row in limits.rows(problem, spec):
        if row.coefficients is not None:
            fits &= (grid @ row.coefficients >= row.low - 1e-9) & (grid @ row.coefficients <= row.high + 1e-9)
    return float(max(problem.curves.value(x).sum() for x in grid[fits]))


@pytest.mark.parametrize("seed", [1, 3, 7, 15, 21])
def test_whole_units_for_harmful_entities_are_the_best_of_all_plans(seed: int) -> None:
    problem, spec = drawn(seed, whole=True)
    best = optimise(problem, spec)
    assert best is not None
    assert best.is_optimal
    assert best.value == pytest.approx(best_of_grid(problem, spec, step=1.0), abs=1e-6)
    assert not limits.violations(problem, spec, best.x)


@pytest.mark.parametrize("seed", [0, 4, 6, 18, 22])
def test_parts_of_units_for_harmful_entities_are_as_good_as_a_fine_grid_and_proven(seed: int) -> None:
    problem, spec = drawn(seed, whole=False)
    best = optimise(problem, spec)
    assert best is not None
    assert best.value >= best_of_grid(problem, spec, step=0.5) - 1e-9
    assert best.bound == pytest.approx(best.value, abs=2e-3)


@pytest.mark.parametrize("seed", [1, 3, 7, 15])
def test_what_an_outcome_lacks_where_harm_is_forced_is_what_the_best_plan_lacks(seed: int) -> None:
    problem, free = drawn(seed, whole=True)
    most = best_of_grid(problem, free, step=1.0)
    asked = max(most, 0.0) + 1.0
    _, spec = drawn(seed, whole=True, objective="minimize_cost", required_outcome=asked)
    assert optimise(problem, spec) is None
    members = {item.constraint: item for item in conflict(problem, spec)}
    assert members["required_outcome"].must_give == pytest.approx(asked - most, abs=1e-5)
    assert members["required_outcome"].is_enough
