from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2i.domain.allocation import AllocationSpec, SegmentResponse
from e2i.errors import ConfigError, SchemaMismatch
from e2i.ml.allocation.conflicts import conflict
from e2i.ml.allocation.limits import families, rows, violations
from e2i.ml.allocation.optimum import optimise
from e2i.ml.allocation.plan import allocate
from e2i.ml.allocation.problem import read

CURVES: dict[str, dict[str, Any]] = {
    "linear": {"curve": "linear", "coefficient": "a"},
    "saturating": {"curve": "saturating", "coefficient": "a", "scale": "b"},
    "hill": {"curve": "hill", "coefficient": "a", "scale": "b", "exponent": 0.7},
    "log": {"curve": "log", "coefficient": "a", "scale": "b"},
}


def table(n: int, *, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "entity_id": [f"h{i}" for i in range(n)],
            "a": rng.gamma(2, 5, n) + 0.1,
            "b": rng.uniform(2, 8, n),
            "cost": rng.uniform(1, 3, n),
            "current": rng.uniform(0, 5, n),
            "region": rng.choice(["north", "south", "west"], n),
        }
    ).with_columns(low=pl.col("a") * 0.6, high=pl.col("a") * 1.5)


def asked(**changes: Any) -> AllocationSpec:
    values = {
        "resource": "calls", "current": "current", "maximum": 10.0, "unit_cost": "cost", "response": CURVES["linear"], "budget": 60.0,
    }  # fmt: skip
    return AllocationSpec.model_validate(values | changes)


def knapsack(frame: pl.DataFrame, *, budget: float, most: float) -> float:
    rest, value = budget, 0.0
    for a, cost in sorted(zip(frame["a"], frame["cost"], strict=True), key=lambda pair: -pair[0] / pair[1]):
        x = min(most, rest / cost)
        rest, value = rest - x * cost, value + x * a
    return value


def test_linear_responses_give_the_fractional_knapsack_by_filling_and_by_the_program() -> None:
    frame = table(30)
    truth = knapsack(frame, budget=60, most=10)
    filled = optimise(read(frame, asked()), asked())
    assert filled is not None
    assert filled.value == pytest.approx(truth, rel=1e-9)
    solved = optimise(read(frame, asked(min_total=0.0)), asked(min_total=0.0))
    assert solved is not None
    assert "HiGHS" in solved.solver
    assert solved.value == pytest.approx(truth, rel=1e-9)
    assert solved.multipliers["budget"] == pytest.approx(filled.multipliers["budget"], rel=1e-6)


@pytest.mark.parametrize("min_total", [None, 0.0], ids=["filled", "programmed"])
def test_log_responses_give_the_water_filling_solution(min_total: float | None) -> None:
    """a/(b + x) = price · cost for whoever gets something, in closed form for a given set of takers."""
    frame = table(12)
    spec = asked(response=CURVES["log"], maximum=None, min_total=min_total, budget=200.0)
    a, b, cost = (frame[name].to_numpy() for name in ("a", "b", "cost"))
    takers = np.ones(12, dtype=bool)
    for _ in range(12):
        price = a[takers].sum() / (200.0 + (cost * b)[takers].sum())
        x = np.where(takers, a / (price * cost) - b, 0.0)
        if (x >= 0).all():
            break
        takers &= x > 0
    found = optimise(read(frame, spec), spec)
    assert found is not None
    assert found.value == pytest.approx(float((a * np.log1p(x / b)).sum()), rel=1e-6)
    assert found.bound >= found.value
    if min_total is None:
        np.testing.assert_allclose(found.x, x, rtol=1e-6, atol=1e-6)
        assert found.multipliers["budget"] == pytest.approx(price, rel=1e-6)


@pytest.mark.parametrize("curve", ["saturating", "hill", "log"])
def test_filling_and_the_program_agree_and_the_bound_holds(curve: str) -> None:
    frame = table(60)
    exact = optimise(read(frame, asked(response=CURVES[curve])), asked(response=CURVES[curve]))
    spec = asked(response=CURVES[curve], min_total=0.0)
    lines = optimise(read(frame, spec), spec)
    assert exact is not None
    assert lines is not None
    assert lines.value <= exact.value * (1 + 1e-9)
    assert lines.value == pytest.approx(exact.value, rel=2e-4)
    assert lines.bound >= exact.value * (1 - 1e-9)
    assert exact.bound == pytest.approx(exact.value, rel=1e-6)


@pytest.mark.parametrize("curve", ["linear", "log", "hill"])
@pytest.mark.parametrize("more", [{}, {"cardinality": 2}, {"minimum_if_selected": 2.0}], ids=["whole", "two", "at least two each"])
def test_small_integer_problems_are_solved_as_by_trying_everything(curve: str, more: dict[str, Any]) -> None:
    frame = table(4, seed=3)
    spec = asked(response=CURVES[curve], integer=True, maximum=4.0, budget=14.0, gap_tolerance=0.0, **more)
    problem = read(frame, spec)
    best = max(
        float(problem.curves.value(x).sum())
        for x in (np.array(way, dtype=float) for way in itertools.product(range(5), repeat=4))
        if not violations(problem, spec, x)
    )
    found = optimise(problem, spec)
    assert found is not None
    assert not violations(problem, spec, found.x)
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.bound >= best * (1 - 1e-9)


def test_the_best_return_is_that_of_trying_all_ratios() -> None:
    """Linear responses and a smallest total: the ratio is quasi-concave, so a fine search over the total finds it."""
    frame = table(8)
    spec = asked(objective="maximize_roi", value_per_unit=2.0, min_total=25.0, budget=None)
    found = optimise(read(frame, spec), spec)
    assert found is not None
    ratios = []
    for total in np.linspace(25, 80, 221):
        for ratio in np.linspace(0, 40, 81):
            score = 2 * frame["a"].to_numpy() - ratio * frame["cost"].to_numpy()
            x, rest = np.zeros(8), total
            for i in np.argsort(-score):
                x[i] = min(10.0, rest)
                rest -= x[i]
            ratios.append(2 * float(frame["a"].to_numpy() @ x) / float(frame["cost"].to_numpy() @ x) - 1)
    assert found.value >= max(ratios) - 1e-9
    assert found.value == pytest.approx(max(ratios), rel=2e-2)
    assert found.bound >= found.value - 1e-9


@pytest.mark.parametrize("curve", sorted(CURVES))
def test_the_cheapest_way_to_an_outcome_reaches_it_and_undercuts_the_way_back(curve: str) -> None:
    frame = table(25)
    most = optimise(read(frame, asked(response=CURVES[curve])), asked(response=CURVES[curve]))
    assert most is not None
    spec = asked(response=CURVES[curve], objective="minimize_cost", budget=None, required_outcome=most.value)
    problem = read(frame, spec)
    least = optimise(problem, spec)
    assert least is not None
    assert float(problem.curves.value(least.x).sum()) >= most.value * (1 - 1e-9)
    assert least.value == pytest.approx(60.0, rel=2e-3)
    assert least.bound <= 60.0 + 1e-6


def test_the_shadow_price_of_the_budget_is_what_a_little_more_of_it_brings() -> None:
    frame = table(40)
    response = CURVES["saturating"]
    values = {}
    for budget in (60.0, 60.1):
        spec = asked(response=response, budget=budget)
        found = optimise(read(frame, spec), spec)
        assert found is not None
        values[budget] = found
    slope = (values[60.1].value - values[60.0].value) / 0.1
    assert values[60.0].multipliers["budget"] == pytest.approx(slope, rel=1e-2)


@settings(max_examples=25)
@given(
    n=st.integers(2, 12), seed=st.integers(0, 99), curve=st.sampled_from(sorted(CURVES)), budget=st.floats(0, 80), whole=st.booleans(),
    cardinality=st.none() | st.integers(0, 5), share=st.none() | st.floats(0.1, 1.0), minimum=st.sampled_from([0.0, 0.5, 1.0]),
    change=st.none() | st.floats(0.2, 2.0), disparity=st.none() | st.floats(1.0, 3.0),
)  # fmt: skip
def test_whatever_is_asked_a_plan_keeps_every_constraint_and_a_refusal_names_a_smallest_conflict(
    n: int, seed: int, curve: str, budget: float, whole: bool, cardinality: int | None, share: float | None, minimum: float,
    change: float | None, disparity: float | None,
) -> None:  # fmt: skip
    fairness = [{"by": "region", "minimum_share": share, "maximum_disparity": disparity}] if share or disparity else []
    spec = asked(
        response=CURVES[curve], budget=budget, integer=whole, cardinality=cardinality, minimum=minimum, max_change=change, fairness=fairness
    )
    problem = read(table(n, seed=seed), spec)
    found = optimise(problem, spec)
    if found is not None:
        assert violations(problem, spec, found.x) == ()
        assert found.value <= found.bound + 1e-9 * abs(found.bound)
        return
    members = conflict(problem, spec)
    assert members
    assert {item.constraint for item in members} <= {row.name for row in rows(problem, spec)} | set(families(problem, spec))


IMPOSSIBLE = {
    "budget and total": ({"min_total": 50.0, "budget": 40.0}, {"budget", "min_total"}),
    "total and maximum": ({"exact_total": 200.0, "budget": 1e6}, {"exact_total", "maximum"}),
    "minimum and budget": ({"minimum": 4.0, "budget": 20.0}, {"minimum", "budget"}),
    "outcome and budget": ({"objective": "minimize_cost", "required_outcome": 1e4, "budget": 30.0}, None),
    "count and total": ({"cardinality": 2, "min_total": 30.0, "budget": 1e6}, {"cardinality", "min_total", "maximum"}),
    "group and minimum": ({"minimum": 2.0, "budget": 1e6, "groups": [{"by": "region", "maximum": {"north": 1.0}}]}, None),
    "group floor and budget": ({"budget": 5.0, "groups": [{"by": "region", "minimum": {"north": 9.0}}]}, None),
}


@pytest.mark.parametrize("name", sorted(IMPOSSIBLE))
def test_a_conflict_is_irreducible_and_giving_way_by_what_it_says_is_enough(name: str) -> None:
    changes, expected = IMPOSSIBLE[name]
    frame = table(12)
    spec = asked(**changes)
    plan = allocate(frame, spec, seed=1)
    assert plan.status == "infeasible"
    assert plan.allocations == ()
    names = {item.constraint for item in plan.conflict}
    if expected is not None:
        assert names == expected
    assert all(item.words in plan.summary() for item in plan.conflict)
    for item in plan.conflict:
        assert item.must_give is not None
        assert item.must_give > 0
        if item.constraint in ("budget", "min_total", "exact_total", "required_outcome"):
            limit = getattr(spec, item.constraint)
            way = 1 if item.constraint == "budget" else -1
            enough = spec.model_copy(update={item.constraint: limit + way * item.must_give * (1 + 1e-6)})
            assert optimise(read(frame, enough), enough) is not None
            little = spec.model_copy(update={item.constraint: limit + way * item.must_give * 0.98})
            assert optimise(read(frame, little), little) is None
            without = spec.model_copy(update={item.constraint: None})
            assert optimise(read(frame, without), without) is not None


def test_many_entities_are_divided_in_seconds_and_near_the_bound() -> None:
    frame = table(10_000)
    for changes in ({}, {"cardinality": 1500}, {"fairness": [{"by": "region", "minimum_share": 0.95}]}):
        spec = asked(response=CURVES["saturating"], budget=20_000.0, **changes)
        problem = read(frame, spec)
        found = optimise(problem, spec)
        assert found is not None
        assert violations(problem, spec, found.x) == ()
        assert found.bound - found.value <= 0.002 * found.value


def test_who_opted_out_gets_nothing_and_is_not_listed() -> None:
    flags = ["1", "0", "0", "", None, "true", "no", "0", "0", "0", "N", "f"]
    frame = table(12).with_columns(pdrp_opt_out=pl.Series(flags))
    plan = allocate(frame, asked(minimum=1.0), seed=1)
    listed = {item.entity for item in plan.allocations}
    assert listed == {"h1", "h2", "h6", "h7", "h8", "h9", "h10", "h11"}
    assert plan.excluded is None
    assert any("unknown" in text for text in plan.warnings)


def test_an_optimum_over_noise_promises_too_much_and_the_correction_says_about_how_much() -> None:
    """All true responses are equal, so every plan brings the same; what the best looking ones promise beyond that is luck."""
    rng = np.random.default_rng(5)
    promised, corrected = [], []
    for seed in range(12):
        estimates = 10 + rng.normal(0, 2, 60)
        frame = table(60).with_columns(a=pl.Series(estimates), low=pl.Series(estimates - 3.92), high=pl.Series(estimates + 3.92))
        spec = asked(
            response={"coefficient": "a", "low": "low", "high": "high"}, unit_cost=1.0, maximum=1.0, budget=10.0, minimum=0.0, draws=60
        )
        result = allocate(frame, spec, seed=seed).sensitivity
        assert result is not None
        promised.append(result.corrected_outcome + result.optimism)
        corrected.append(result.corrected_outcome)
    truth = 100.0
    assert np.mean(promised) > truth + 15
    assert abs(np.mean(corrected) - truth) < 0.75 * abs(np.mean(promised) - truth)


def test_draws_keep_the_strong_and_not_the_weak_and_the_robust_plan_is_best_at_the_lower_ends() -> None:
    frame = pl.DataFrame(
        {"entity_id": ["sure", "wide", "weak"], "a": [10.0, 11.0, 1.0], "low": [9.5, 2.0, 0.9], "high": [10.5, 20.0, 1.1], "current": 0.0}
    )
    spec = asked(response={"coefficient": "a", "low": "low", "high": "high"}, unit_cost=1.0, maximum=5.0, budget=5.0, draws=200)
    plan = allocate(frame, spec, seed=3)
    rows_ = {item.entity: item for item in plan.allocations}
    assert rows_["wide"].allocated == pytest.approx(5.0)
    assert 0.4 < rows_["wide"].kept_share < 0.8  # type: ignore[operator]
    assert rows_["weak"].kept_share == 0.0
    assert rows_["sure"].robust == pytest.approx(5.0)
    assert plan.sensitivity is not None
    assert plan.sensitivity.robust_outcome_at_low == pytest.approx(47.5)
    assert plan.sensitivity.plan_outcome_at_low == pytest.approx(10.0)


def test_scenarios_name_what_they_break_and_none_beats_the_plan_at_its_cost() -> None:
    spec = asked(response=CURVES["saturating"], value_per_unit=3.0, budget=30.0)
    plan = allocate(table(20), spec, seed=1)
    by_name = {item.name: item for item in plan.scenarios}
    assert set(by_name) == {"baseline", "optimised", "equal", "focus_top"}
    assert by_name["optimised"].violations == ()
    assert by_name["baseline"].violations
    assert "budget" in by_name["baseline"].violations[0]
    assert by_name["equal"].cost == pytest.approx(30.0, rel=1e-6)
    assert by_name["equal"].outcome < by_name["optimised"].outcome
    assert by_name["focus_top"].outcome < by_name["optimised"].outcome
    assert plan.roi == pytest.approx((3 * plan.outcome - plan.cost) / plan.cost)
    inner = [item for item in plan.allocations if 1e-6 < item.allocated < 10 - 1e-6]
    assert all(item.marginal_roi == pytest.approx(plan.marginal_roi, rel=1e-4) for item in inner)


def test_measured_effects_by_segment_are_the_responses_and_share_their_error() -> None:
    frame = table(9).with_columns(segment=pl.Series(["x", "y", "z"] * 3))
    spec = asked(response={"effect_by": "segment"}, unit_cost=1.0, maximum=1.0, budget=3.0)
    effects = [SegmentResponse(segment=s, estimate=e, low=e - 1, high=e + 1) for s, e in (("x", 5.0), ("y", 2.0), ("z", 1.0))]
    plan = allocate(frame, spec, responses=effects, seed=1)
    assert {item.entity for item in plan.allocations if item.allocated > 0.5} == {"h0", "h3", "h6"}
    assert plan.sensitivity is not None
    # One shared error: three entities at 5 ± 1 are 15 ± 3, not 15 ± 1.7.
    assert plan.sensitivity.plan_high - plan.sensitivity.plan_low == pytest.approx(6.0, rel=0.03)
    with pytest.raises(SchemaMismatch, match="no measured effect for segment"):
        allocate(frame, spec, responses=effects[:2], seed=1)


def test_the_interval_of_a_plan_is_the_closed_form_and_the_same_wherever_it_stands_however_few_plans_were_drawn_anew() -> None:
    rng = np.random.default_rng(2)
    frame = table(60).with_columns(a=pl.Series(rng.uniform(3, 20, 60))).with_columns(low=pl.col("a") - 2, high=pl.col("a") + 2)
    fair = [{"by": "region", "minimum_share": 0.8}]  # with a second limit only 20 plans are drawn anew
    spec = asked(response={"coefficient": "a", "low": "low", "high": "high"}, fairness=fair, draws=20)
    plan = allocate(frame, spec, seed=1)
    assert plan.sensitivity is not None
    half = 2.0 * math.sqrt(sum(item.allocated**2 for item in plan.allocations))
    ends = plan.sensitivity.plan_low, plan.sensitivity.plan_high
    assert ends == pytest.approx((plan.outcome - half, plan.outcome + half), abs=0.08 * half)
    (told,) = (item for item in plan.scenarios if item.name == "optimised")
    assert (told.outcome_low, told.outcome_high) == ends


def test_the_order_of_rows_does_not_matter() -> None:
    frame = table(50)
    spec = asked(response=CURVES["hill"], cardinality=10)
    one, two = allocate(frame, spec, seed=1), allocate(frame.reverse(), spec, seed=1)
    assert one.outcome == pytest.approx(two.outcome, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.with_columns(a=pl.lit(None, dtype=pl.Float64)), "no number"),
        (lambda f: f.with_columns(a=pl.lit(math.inf)), "no number"),
        (lambda f: pl.concat([f, f.head(1)]), "several rows"),
        (lambda f: f.drop("a"), "column 'a' is missing"),
        (lambda f: f.with_columns(pdrp_opt_out=pl.lit("maybe")), "neither yes nor no"),
    ],
)
def test_unfit_tables_are_refused_in_words(change: Any, match: str) -> None:
    with pytest.raises(SchemaMismatch, match=match):
        allocate(change(table(5)), asked(), seed=1)


def test_what_cannot_be_solved_is_refused_before_it_is_tried() -> None:
    for changes in ({"budget": None}, {"objective": "minimize_cost"}, {"objective": "maximize_roi", "value_per_unit": 2.0}):
        with pytest.raises(ValueError, match="needs"):
            asked(**changes)
    with pytest.raises(ConfigError, match="above 0"):
        allocate(table(3), asked(response={"curve": "log", "coefficient": "a", "scale": 0.0}), seed=1)
    free = asked(unit_cost=0.0, maximum=None, min_total=1.0)
    with pytest.raises(ConfigError, match="finite"):
        allocate(table(3), free, seed=1)
