from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from e2i.domain.allocation import AllocationPlan, AllocationSpec, SegmentResponse
from e2i.domain.gaps import GapSpec
from e2i.errors import ConfigError, TooFewRows
from e2i.ml.allocation import limits
from e2i.ml.allocation.conflicts import conflict
from e2i.ml.allocation.optimum import optimise
from e2i.ml.allocation.plan import allocate
from e2i.ml.allocation.problem import Problem, read

BIGGEST = 8
"""whole units that an entity of the grid may get"""
DOCTORS = pl.DataFrame(
    {
        "arzt": ["a", "b", "c", "d", "e", "f"],
        "wirkung": [5.0, 4.0, 3.0, 2.0, 1.0, 0.5],
        "mindestens": [3, 0, 0, 0, 0, 0],
        "hoechstens": [2, 9, 9, 9, 9, 9],
        "gebiet": ["N", "N", "N", "S", "S", "S"],
    }
)


def planned(frame: pl.DataFrame = DOCTORS, **changes: object) -> AllocationPlan:
    return allocate(frame, asked(**changes), seed=1)


def asked(**changes: object) -> AllocationSpec:
    given = {"resource": "Besuche", "entity": "arzt", "response": {"coefficient": "wirkung"}, "maximum": 9, "budget": 20}
    return AllocationSpec.model_validate(given | changes)


def drawn(seed: int) -> tuple[pl.DataFrame, AllocationSpec]:
    """A small problem with whole units and any mixture of constraints."""
    rng = np.random.default_rng(seed)
    n, most = int(rng.integers(2, 4)), int(rng.integers(1, 6))
    frame = pl.DataFrame(
        {
            "arzt": [f"e{place}" for place in range(n)],
            "wirkung": np.round(rng.normal(4, 3, n), 2),
            "cost": np.round(rng.uniform(0.5, 4, n), 1),
            "current": rng.integers(0, most + 1, n),
            "most": rng.integers(0, most + 1, n),
            "least": rng.choice([0, 0, 1, 2], n),
            "enough": rng.integers(0, 4, n),
            "gebiet": rng.choice(["x", "y", "z"], n),
        }
    )
    options: tuple[tuple[float, dict[str, object]], ...] = (
        (0.4, {"minimum": "least"}),
        (0.3, {"minimum_if_selected": "enough"}),
        (0.3, {"cardinality": int(rng.integers(0, n + 1))}),
        (0.4, {"min_total": float(rng.integers(0, n * most))}),
        (0.3, {"max_change": float(rng.integers(0, 3))}),
        (0.2, {"max_change_share": float(rng.choice([0.25, 0.5, 1.0]))}),
        (0.3, {"fairness": [{"by": "gebiet", "minimum_share": 0.7}]}),
        (0.3, {"fairness": [{"by": "gebiet", "maximum_disparity": 1.5}]}),
        (0.4, {"groups": [{"by": "gebiet", "minimum": {str(frame["gebiet"][0]): float(rng.integers(0, 12))}}]}),
    )
    changes: dict[str, object] = {}
    for chance, option in options:
        changes |= option if rng.random() < chance else {}
    budget = float(np.round(rng.uniform(0, n * most * 1.5), 1))
    spec = asked(maximum="most", unit_cost="cost", current="current", integer=True, budget=budget, gap_tolerance=0.0, **changes)
    return frame, spec


def violation(problem: Problem, spec: AllocationSpec, x: np.ndarray, name: str) -> float:
    """By how much one constraint is broken, in the unit that a conflict is told in."""
    by_row = {row.name: row for row in limits.rows(problem, spec)}
    if name in by_row:
        amount = by_row[name].amount(problem, x)
        return max(by_row[name].low - amount, amount - by_row[name].high, 0.0)
    low, high = limits.change_bounds(problem, spec)
    enough = np.zeros(len(x)) if problem.minimum_if_selected is None else problem.minimum_if_selected
    return {
        "minimum": float(np.maximum(problem.minimum - x, 0).sum()),
        "maximum": float(np.maximum(x - problem.maximum, 0).sum()),
        "max_change": float(np.maximum(low - x, 0).sum() + np.maximum(x - high, 0).sum()),
        "cardinality": float(max((x > 0).sum() - (spec.cardinality if spec.cardinality is not None else len(x)), 0)),
        "minimum_if_selected": float(((x > 0) & (x < enough)).sum()),
        "integer": 0.0,
    }[name]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_what_is_feasible_and_what_must_give_agree_with_every_plan_tried(first: int) -> None:
    conflicts = 0
    for seed in range(first, first + 20):
        frame, spec = drawn(seed)
        problem = read(frame, spec)
        names = [row.name for row in limits.rows(problem, spec)] + [str(name) for name in limits.families(problem, spec)]
        grid = np.array(list(itertools.product(range(BIGGEST + 1), repeat=problem.n)), dtype=float)
        broken = {name: np.array([violation(problem, spec, x, name) for x in grid]) for name in names}
        fits = {name: broken[name] <= 1e-7 for name in names}
        possible = np.all(list(fits.values()), axis=0)
        best = optimise(problem, spec)
        assert (best is not None) == possible.any(), seed
        if best is not None:
            assert best.value == pytest.approx(max(problem.curves.value(x).sum() for x in grid[possible]), abs=1e-6), seed
            continue
        members = conflict(problem, spec)
        told = [item.constraint for item in members]
        conflicts += 1
        assert not np.all([fits[name] for name in told], axis=0).any(), (seed, told)
        for item in members:
            others = [name for name in names if name != item.constraint]
            rest = np.all([fits[name] for name in others], axis=0)
            if item.must_give is not None and rest.any():
                assert item.must_give == pytest.approx(broken[item.constraint][rest].min(), abs=1e-5), (seed, item)
    assert conflicts >= 5


def test_a_minimum_above_a_maximum_must_give_by_their_distance() -> None:
    plan = planned(minimum="mindestens", maximum="hoechstens")
    assert {item.constraint: item.must_give for item in plan.conflict} == pytest.approx({"minimum": 1.0, "maximum": 1.0})
    assert "Any one of these would do" in plan.summary()


def test_where_two_conflicts_stand_no_single_change_is_said_to_do() -> None:
    plan = planned(minimum="mindestens", maximum="hoechstens", budget=10, min_total=15)
    assert not any(item.is_enough for item in plan.conflict)
    assert "Any one of these would do" not in plan.summary()
    assert "Another conflict stands beside this one" in plan.summary()


def test_a_cap_of_a_group_against_its_fair_share_is_told_and_every_member_is_needed() -> None:
    limit: dict[str, object] = {
        "min_total": 1,
        "groups": [{"by": "gebiet", "maximum": {"N": 0}}],
        "fairness": [{"by": "gebiet", "minimum_share": 0.5}],
    }
    plan = planned(DOCTORS, **limit)
    assert {item.constraint for item in plan.conflict} == {"min_total", "maximum of gebiet N", "fair share of gebiet N"}
    for left_out in limit:
        assert planned(DOCTORS, **{key: value for key, value in limit.items() if key != left_out}).status == "optimal"


CURVES = [("saturating", {}), ("log", {}), ("hill", {"exponent": 0.5}), ("hill", {"exponent": 1.0})]


@pytest.mark.parametrize(("curve", "shape"), CURVES)
@pytest.mark.parametrize("share", [0.99, 0.9999])
def test_an_outcome_that_the_budget_can_just_bring_is_no_conflict(curve: str, shape: dict[str, float], share: float) -> None:
    response = {"curve": curve, "coefficient": "wirkung", "scale": 2.5, **shape}
    most = planned(response=response)
    spent = planned(response=response, objective="minimize_cost", required_outcome=share * most.outcome)
    assert spent.status != "infeasible"
    assert spent.outcome >= share * most.outcome - 1e-6
    assert spent.cost <= most.cost + 1e-6
    asked_for = most.outcome * 1.02
    over = planned(response=response, objective="minimize_cost", required_outcome=asked_for)
    given = {item.constraint: item.must_give for item in over.conflict}
    assert given["required_outcome"] == pytest.approx(asked_for - most.outcome, rel=0.02)


def test_a_harmful_response_that_fairness_forces_does_not_hide_a_missing_outcome() -> None:
    frame = DOCTORS.with_columns(wirkung=pl.Series([5.0, 4.0, 3.0, -2.0, -1.0, -3.0]))
    response = {"curve": "saturating", "coefficient": "wirkung", "scale": 2.5}
    fair = [{"by": "gebiet", "minimum_share": 0.5}]
    most = planned(frame, response=response, fairness=fair)
    plan = planned(frame, response=response, fairness=fair, objective="minimize_cost", required_outcome=0.99 * most.outcome)
    assert plan.outcome >= 0.99 * most.outcome - 1e-5


def test_a_limit_on_a_group_that_opted_out_as_a_whole_is_no_misspelling() -> None:
    frame = DOCTORS.with_columns(pdrp_opt_out=pl.col("gebiet") == "N")
    assert planned(frame, groups=[{"by": "gebiet", "maximum": {"N": 2}}]).status == "optimal"
    plan = planned(frame, groups=[{"by": "gebiet", "minimum": {"N": 2}}])
    assert [item.constraint for item in plan.conflict] == ["minimum of gebiet N"]
    assert plan.conflict[0].must_give == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="no eligible entity has gebiet = `Nord`"):
        planned(frame, groups=[{"by": "gebiet", "maximum": {"Nord": 2}}])


def test_entities_of_a_segment_whose_effect_could_not_be_told_get_nothing_and_are_not_counted() -> None:
    frame = pl.concat([DOCTORS.with_columns(pl.col("arzt") + str(copy)) for copy in range(4)]).with_columns(pdrp_opt_out=pl.lit(0))
    rare = frame.with_columns(gebiet=pl.when(pl.int_range(24) < 7).then(pl.lit("selten")).otherwise("gebiet"))
    effects = [SegmentResponse(segment=name, estimate=2.0, low=1.0, high=3.0) for name in ("N", "S")]
    hidden = SegmentResponse(segment="selten", estimate=None, low=None, high=None)
    plan = allocate(rare, asked(response={"effect_by": "gebiet"}), responses=[*effects, hidden], seed=1)
    assert plan.eligible == 17
    assert plan.excluded is None
    assert "selten" not in {item.entity for item in plan.allocations}
    assert any("fewer than 11 entities get nothing" in text and "selten" in text for text in plan.warnings)
    with pytest.raises(TooFewRows, match="could be told"):
        allocate(rare.head(7), asked(response={"effect_by": "gebiet"}), responses=[*effects, hidden], seed=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_no_limit(value: float) -> None:
    for wrong in ({"budget": value}, {"unit_cost": value}, {"groups": [{"by": "gebiet", "maximum": {"N": value}}]}):
        with pytest.raises(ValidationError, match="finite"):
            asked(**wrong)
    with pytest.raises(ValidationError, match="finite"):
        GapSpec.model_validate({"costs": {"TRx": value}})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        asked(groups=[{"by": "gebiet", "maximum": {"N": -1}}])
