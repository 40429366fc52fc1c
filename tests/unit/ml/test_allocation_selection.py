"""Who is selected in whole units, segments by groups of values, and plans that cannot be."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from allocation_targets import hcps
from e2i.domain.allocation import AllocationSpec, SegmentResponse
from e2i.errors import ConfigError, SchemaMismatch
from e2i.ml.allocation.conflicts import conflict
from e2i.ml.allocation.limits import violations
from e2i.ml.allocation.optimum import optimise
from e2i.ml.allocation.plan import allocate
from e2i.ml.allocation.problem import read
from e2i.ml.allocation.segment_match import match


def asked(n: int, **changes: Any) -> AllocationSpec:
    values = {
        "resource": "calls", "current": "calls", "maximum": 12, "unit_cost": "cost", "budget": 100.0 * n, "integer": True,
        "cardinality": n // 4, "response": {"curve": "log", "coefficient": "lift", "scale": "scale"},
    }  # fmt: skip
    return AllocationSpec.model_validate(values | changes)


@pytest.mark.parametrize(
    "more",
    [{}, {"minimum_if_selected": 2}, {"groups": [{"by": "region", "minimum": {"east": 300_000.0}}]}],
    ids=["plain", "least", "group"],
)
def test_ten_thousand_entities_get_whole_calls_for_a_quarter_of_them_near_a_proven_bound(more: dict[str, Any]) -> None:
    spec = asked(10_000, **more)
    problem = read(hcps(10_000), spec)
    found = optimise(problem, spec)
    assert found is not None
    assert violations(problem, spec, found.x) == ()
    assert found.bound - found.value <= 0.001 * found.value
    assert found.is_optimal


@pytest.mark.parametrize("curve", ["linear", "log"])
@pytest.mark.parametrize("seed", range(4))
def test_selected_whole_units_are_those_of_trying_everything(curve: str, seed: int) -> None:
    frame = hcps(5, seed=seed)
    response = {"curve": curve, "coefficient": "lift", "scale": "scale"}
    spec = asked(5, maximum=3, budget=500.0, cardinality=2, minimum_if_selected=2, response=response, gap_tolerance=0)
    tried = np.array(list(itertools.product(range(4), repeat=5)), dtype=float)
    kept = (tried @ frame["cost"].to_numpy() <= 500) & ((tried > 0).sum(axis=1) <= 2) & ((tried == 0) | (tried >= 2)).all(axis=1)
    problem = read(frame, spec)
    best = max(float(problem.curves.value(x).sum()) for x in tried[kept])
    found = optimise(problem, spec)
    assert found is not None
    assert found.value == pytest.approx(best, rel=1e-9)
    assert found.bound >= best - 1e-9


def test_uncertain_responses_of_selected_whole_units_do_not_end_the_plan() -> None:
    response = {"curve": "log", "coefficient": "lift", "low": "low", "high": "high", "scale": "scale"}
    plan = allocate(hcps(600), asked(600, response=response, draws=20), seed=1)
    assert plan.status == "optimal"
    assert plan.sensitivity is not None
    assert plan.sensitivity.plan_low < plan.outcome < plan.sensitivity.plan_high


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"maximum": 1.0, "max_change": 0.0, "cardinality": None}, {"maximum", "max_change"}),
        ({"minimum": 1.0, "cardinality": 2}, {"minimum", "cardinality"}),
    ],
    ids=["change and maximum", "minimum and count"],
)
def test_bounds_that_leave_no_room_are_a_conflict_and_never_a_plan(changes: dict[str, Any], names: set[str]) -> None:
    frame = hcps(5).with_columns(calls=pl.lit(3))
    spec = asked(5, budget=1e6, **changes)
    problem = read(frame, spec)
    assert optimise(problem, spec) is None
    assert {item.constraint for item in conflict(problem, spec)} == names


def test_a_return_on_nothing_but_harm_is_refused() -> None:
    spec = asked(
        5, objective="maximize_roi", value_per_unit=2, min_total=1, response={"curve": "linear", "coefficient": "lift"}, cardinality=None
    )
    with pytest.raises(ConfigError, match="no plan has an outcome above 0"):
        optimise(read(hcps(5).with_columns(lift=-pl.col("lift")), spec), spec)


def test_a_bound_that_is_far_is_not_called_optimal() -> None:
    """A harmful response bends the other way, and lines do not bound it well. Feasible are (1, 3), (2, 2) and (3, 1)."""
    frame = pl.DataFrame({"entity_id": ["a", "b"], "lift": [-5.9, 7.0], "scale": [1.7, 3.9], "calls": [0, 0], "cost": [1.7, 2.8]})
    spec = asked(2, maximum=3, budget=10.4, exact_total=4, cardinality=None)
    plan = allocate(frame, spec, seed=1)
    assert plan.outcome == pytest.approx(1.26434, abs=1e-4)
    assert plan.status == ("optimal" if (plan.error_bound or 0) <= 1e-3 * plan.outcome else "feasible")


def test_numbers_and_dates_find_the_group_that_holds_them() -> None:
    groups = ("1 to 3", "4 to 6", "7 to 10", "(missing)")
    places, notes = match(pl.Series("decile", [1, 3, 5, 10, None]), groups)
    assert places.tolist() == [0, 0, 1, 2, 3]
    assert notes == ()
    places, notes = match(pl.Series("decile", [3.2, 6.9, 10.3, float("nan")]), groups)
    assert places.tolist() == [0, 2, 2, 3]
    assert notes == ("fewer than 11 entities lie between or outside the measured groups of decile; the nearest group's effect was used.",)
    assert match(pl.Series("trx", [12353.0, 1.0]), ("0.5 to 1.235e+04", "1.236e+04 to 9e+04"))[0].tolist() == [0, 0]
    assert match(pl.Series("flag", [1.0, 0.0]), ("0", "1"))[0].tolist() == [1, 0]
    days = pl.Series("since", ["2024-02-01", "2024-05-20"]).str.to_date()
    assert match(days, ("2024-01-01 to 2024-03-05", "2024-03-06 to 2024-06-30"))[0].tolist() == [0, 1]
    assert match(pl.Series("zip3", ["021", "999"]), ("021", "(other levels)"))[0].tolist() == [0, 1]


@pytest.mark.parametrize("values", [[1, 40], [1, None]])
def test_a_value_far_from_every_group_and_an_unmeasured_gap_are_refused(values: list[int | None]) -> None:
    with pytest.raises(SchemaMismatch, match="no measured effect for decile"):
        match(pl.Series("decile", values), ("1 to 3", "4 to 6"))


def test_effects_by_groups_of_a_number_are_the_responses() -> None:
    frame = hcps(40).with_columns(decile=pl.int_range(40) % 10 + 1)
    spec = asked(40, response={"curve": "linear", "effect_by": "decile"}, cardinality=None)
    responses = [
        SegmentResponse(segment="1 to 5", estimate=1, low=0.5, high=1.5),
        SegmentResponse(segment="6 to 10", estimate=4, low=3, high=5),
    ]
    problem = read(frame, spec, responses=responses)
    assert problem.curves.coefficient.tolist() == [4.0 if decile > 5 else 1.0 for decile in frame["decile"]]


def test_a_plan_is_plain_data_without_infinities() -> None:
    response = {"curve": "hill", "coefficient": "lift", "scale": 3, "exponent": 0.5}
    plan = allocate(hcps(6), asked(6, cardinality=2, response=response), seed=1)
    assert any(np.isinf(item.marginal_outcome) for item in plan.allocations)  # the slope of such a curve at 0
    json.dumps(plan.to_dict(), allow_nan=False)
