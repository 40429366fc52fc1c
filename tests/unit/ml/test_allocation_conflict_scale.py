"""A conflict among a thousand entities with curves is named, with amounts, in the time that the agent has."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
import pytest

from e2i.domain.allocation import AllocationSpec
from e2i.ml.allocation import conflicts
from e2i.ml.allocation.optimum import optimise
from e2i.ml.allocation.problem import Problem, read
from e2i.ml.allocation.sparse_program import solve

FAIR = {"fairness": [{"by": "region", "maximum_disparity": 1.5}]}


def asked(curve: str, **changes: Any) -> tuple[Problem, AllocationSpec]:
    rng = np.random.default_rng(1)
    n = 1000
    frame = pl.DataFrame(
        {
            "entity_id": [f"h{i}" for i in range(n)],
            "a": rng.gamma(2, 5, n) + 0.1,
            "b": rng.uniform(2, 8, n),
            "cost": rng.uniform(1, 3, n),
            "current": rng.integers(0, 6, n),
            "region": rng.choice([f"r{place}" for place in range(8)], n),
            "enough": rng.integers(1, 4, n),
        }
    )
    response = {"curve": curve, "coefficient": "a", "scale": "b"} | ({"exponent": 0.6} if curve == "hill" else {})
    given: dict[str, Any] = {"resource": "calls", "current": "current", "maximum": 10, "unit_cost": "cost", "budget": 2000}
    spec = AllocationSpec.model_validate(given | {"response": response} | changes)
    return read(frame, spec), spec


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({"objective": "minimize_cost", "required_outcome": 9000}, {"budget", "required_outcome"}),
        ({"objective": "minimize_cost", "required_outcome": 9000, **FAIR}, {"budget", "required_outcome"}),
        ({"objective": "minimize_cost", "required_outcome": 1e6}, {"required_outcome", "maximum"}),
        ({"min_total": 6000, "max_change_share": 0.2, "integer": True, "cardinality": 900}, {"min_total", "max_change"}),
        ({"budget": 1e5, "min_total": 3000, "cardinality": 200, "integer": True}, {"min_total", "cardinality", "maximum"}),
        (
            {"groups": [{"by": "region", "minimum": {"r0": 900, "r1": 900, "r2": 900}}], "integer": True, "cardinality": 700},
            {"budget", "minimum of region r0", "minimum of region r1", "minimum of region r2"},
        ),
    ],
)
@pytest.mark.parametrize("curve", ["log", "hill"])
def test_a_conflict_among_a_thousand_curves_is_named(curve: str, changes: dict[str, Any], members: set[str]) -> None:
    problem, spec = asked(curve, **changes)
    found = conflicts.conflict(problem, spec)
    assert {item.constraint for item in found} in (members, members - {"maximum"}, members - {"budget"} | {"maximum"})
    assert any(item.must_give is not None and item.must_give > 0 for item in found)


def test_the_outcome_that_is_missing_is_what_the_largest_outcome_lacks() -> None:
    problem, spec = asked("log", objective="minimize_cost", required_outcome=9000, **FAIR)
    largest = optimise(problem, asked("log", **FAIR)[1])
    assert largest is not None
    told = {item.constraint: item for item in conflicts.conflict(problem, spec)}
    assert told["required_outcome"].must_give == pytest.approx(9000 - largest.value, rel=1e-3)
    assert told["budget"].must_give is not None
    richer = spec.model_copy(update={"budget": 2000 + told["budget"].must_give * 1.001})
    assert optimise(problem, richer) is not None
    poorer = spec.model_copy(update={"budget": 2000 + told["budget"].must_give * 0.99})
    assert optimise(problem, poorer) is None


def test_where_the_time_is_up_no_amount_and_no_second_conflict_are_told() -> None:
    problem, spec = asked("log", objective="minimize_cost", required_outcome=9000)
    search = conflicts._Search(problem=problem, spec=spec)
    search.deadline = time.monotonic() - 1.0
    member = search.member(["budget", "required_outcome"], "budget")
    assert member.must_give is None
    assert member.is_enough


def test_a_column_that_takes_up_what_a_limit_misses_is_part_of_every_window() -> None:
    """Minimise what 6,000 bounded columns lack of a sum that they cannot reach."""
    from scipy import sparse

    size = 6000
    matrix = sparse.csr_array(np.ones((1, size + 1)))
    charges, upper = np.append(np.zeros(size), 1.0), np.append(np.ones(size), np.inf)
    limits = np.array([size + 50.0]), np.array([np.inf])
    found = solve(charges, matrix, limits, (np.zeros(size + 1), upper), time_limit_s=20.0)
    assert found.value == pytest.approx(50.0)
