from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import gamma
from statsmodels.stats.proportion import proportion_confint

from e2i.domain.evidence import CausalFinding, Effect, Verdict, VerdictName
from e2i.domain.gaps import GapReport, GapSpec, PerformanceGap
from e2i.errors import ConfigError, SchemaMismatch, TooFewRows
from e2i.ml import opportunities, roi
from e2i.ml.gaps import detect

MONTHS = [date(2024, month, 1) for month in (7, 8, 9, 10, 11, 12)]
REGIONS = ("east", "north", "south", "west")


def table(metric: str = "TRx", **columns: Any) -> pl.DataFrame:
    """Six months of four regions: east 100 a month, north 90, south 80, west 60; target 100; 50 people each."""
    rows = [
        {"metric_date": day, "metric_name": metric, "region": region, "value": value, "target": 100.0, "sample_size": 50}
        for day in MONTHS
        for region, value in zip(REGIONS, (100.0, 90.0, 80.0, 60.0), strict=True)
    ]
    return pl.DataFrame(rows).with_columns(**columns)


def found(frame: pl.DataFrame, **changes: Any) -> dict[tuple[str, str], PerformanceGap]:
    spec = GapSpec.model_validate({"gap_type": "vs_target"} | changes)
    return {(gap.segment_value, gap.gap_type): gap for gap in detect(frame, spec).gaps}


def finding(estimate: float = 2.0, error: float = 0.5, verdict: VerdictName = "proceed", **changes: Any) -> CausalFinding:
    values = {
        "estimand": "ATT", "design": "did", "estimator": "cs", "estimate": estimate, "standard_error": error, "n_treated": 100,
        "n_untreated": 100, "naive_difference": None, "outcome_mean_untreated": None,
    }  # fmt: skip
    return CausalFinding(
        effect=Effect(**(values | changes)), verdict=Verdict(name=verdict, reasons=()), overlap=None, balance=(), refutations=()
    )


def report(frame: pl.DataFrame, findings: dict[str, CausalFinding] | None = None, **changes: Any) -> GapReport:
    spec = GapSpec.model_validate({"gap_type": "vs_target"} | changes)
    seen = detect(frame, spec)
    estimates = roi.estimate(seen.gaps, spec, findings=findings or {}, seed=1)
    return opportunities.report(seen, opportunities.prioritise(seen.gaps, estimates), spec, findings=findings or {}, seed=1)


def test_gaps_against_the_target_are_those_of_the_formula() -> None:
    gaps = found(table())
    assert {key[0]: round(gap.gap_percent, 6) for key, gap in gaps.items()} == {"north": 10.0, "south": 20.0, "west": 40.0}
    assert gaps["west", "vs_target"].gap_size == 120.0
    assert gaps["west", "vs_target"].months == 3.0


def test_where_less_is_better_the_sign_turns() -> None:
    gaps = found(table("data_lag", target=pl.lit(75.0)), minimum_gap_percent=0)
    assert {key[0]: round(gap.gap_percent, 3) for key, gap in gaps.items()} == {"east": 33.333, "north": 20.0, "south": 6.667}
    assert set(found(table("wait", target=pl.lit(75.0)), lower_is_better=["wait"])) == set(found(table("data_lag", target=pl.lit(75.0))))


def test_a_missing_target_is_unknown_and_never_zero() -> None:
    frame = table(target=pl.when(pl.col("region") == "west").then(None).otherwise(pl.col("target")))
    seen = detect(frame, GapSpec(gap_type="vs_target"))
    assert {gap.segment_value for gap in seen.gaps} == {"north", "south"}
    assert [(item.segment_value, item.reason) for item in seen.unknown] == [("west", "no target is set")]
    partly = table(target=pl.when(pl.col("metric_date") == MONTHS[-1]).then(None).otherwise(pl.col("target")))
    gap = found(partly)["west", "vs_target"]
    assert gap.gap_percent == pytest.approx(40)
    assert gap.current_value.estimate == 120.0
    zero = detect(table(target=pl.lit(0.0)), GapSpec(gap_type="vs_target"))
    assert zero.gaps == ()
    assert len(zero.unknown) == 4


def test_the_benchmark_is_the_others_by_head_and_the_potential_the_best_tenth() -> None:
    frame = table(sample_size=pl.when(pl.col("region") == "west").then(30).otherwise(50))
    gaps = found(frame, gap_type="all", minimum_gap_percent=0)
    others = (300 + 270 + 180) / (150 + 150 + 90)
    assert gaps["south", "vs_benchmark"].reference_value == pytest.approx(others * 150)
    assert ("west", "vs_benchmark") not in gaps
    rates = [300 / 150, 270 / 150, 240 / 150, 180 / 90]
    assert gaps["south", "vs_potential"].reference_value == pytest.approx(float(np.quantile(rates, 0.9)) * 150)
    assert ("west", "vs_potential") not in gaps


def test_time_is_compared_by_date_so_that_a_half_period_is_no_gap() -> None:
    frame = table(value=pl.col("value") * pl.when(pl.col("metric_date") < date(2024, 10, 1)).then(1.25).otherwise(1.0))
    half = frame.filter(pl.col("metric_date") != MONTHS[-1])
    for given in (frame, half):
        gaps = found(given, gap_type="temporal")
        assert {round(gap.gap_percent, 6) for gap in gaps.values()} == {20.0}
    assert any("2 dates" in text for text in detect(half, GapSpec(gap_type="temporal")).warnings)


def test_small_cells_and_those_that_betray_them_are_left_out() -> None:
    frame = table(sample_size=pl.when(pl.col("region") == "west").then(7).when(pl.col("region") == "south").then(40).otherwise(50))
    seen = detect(frame, GapSpec(gap_type="all", minimum_gap_percent=0))
    assert seen.suppressed_cells == 2
    shown = {gap.segment_value for gap in seen.gaps} | {item.segment_value for item in seen.unknown}
    assert not shown & {"west", "south"}


def test_a_share_has_wilson_bounds_and_a_gap_within_them_may_be_noise() -> None:
    frame = table("Conversion_Rate", value=pl.lit(0.2), target=pl.lit(0.22), sample_size=pl.lit(100))
    gap = found(frame)["west", "vs_target"]
    assert (gap.current_value.low, gap.current_value.high) == pytest.approx(proportion_confint(60, 300, method="wilson"))
    assert gap.is_beyond_noise is False
    large = found(frame.with_columns(sample_size=pl.lit(10_000)))["west", "vs_target"]
    assert large.is_beyond_noise is True


def test_rows_may_come_in_any_order_twice_and_with_dates_as_text() -> None:
    frame = table()
    other = pl.concat([frame, frame.head(3)]).sample(fraction=1.0, shuffle=True, seed=3).with_columns(pl.col("metric_date").cast(pl.String))
    assert detect(other, GapSpec()).gaps == detect(frame, GapSpec()).gaps
    assert any("3 repeated rows" in text for text in detect(other, GapSpec()).warnings)


@pytest.mark.parametrize(
    ("change", "spec", "error", "match"),
    [
        (lambda f: f.drop("value"), {}, SchemaMismatch, "no column `value`"),
        (lambda f: f.with_columns(value=pl.lit(float("inf"))), {}, SchemaMismatch, "no finite number"),
        (lambda f: f.with_columns(metric_date=pl.lit("soon")), {}, SchemaMismatch, "no date"),
        (lambda f: f, {"metrics": ["Trx"]}, ConfigError, "no row is of metric"),
        (lambda f: f, {"filters": {"region": "mars"}}, ConfigError, "no row has region"),
        (lambda f: f, {"period": "2020-Q1"}, TooFewRows, "no row lies"),
        (lambda f: f, {"period": "2024-02-30..2024-03-01"}, ConfigError, "no period"),
        (lambda f: f, {"values": {"TRx": {"driver": "gold"}}}, ConfigError, "no value driver"),
        (lambda f: f, {"proven": [{"metric": "TRx", "reach": 5, "cost_per_treated": 1, "outcome_months": 3}]}, ConfigError, "no finding"),
    ],
)
def test_unfit_input_is_refused_in_words(change: Any, spec: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        report(change(table()), **spec)


def test_a_return_is_value_times_attribution_times_what_risk_leaves_over_the_cost() -> None:
    item = report(table(), costs={"TRx": 100_000}, risks={"organisational": "high", "data": "low", "timeline": "low"}).opportunities[0]
    assert item.gap.segment_value == "west"
    revenue = 120 * 4 * 850 * 1.0 * (1 - 0.4)
    assert item.roi.revenue.estimate == pytest.approx(revenue)
    assert item.roi.roi.estimate == pytest.approx(revenue / 100_000 - 1)
    assert item.roi.revenue.low == pytest.approx(revenue * (1 - 1.96 * 0.15), rel=0.05)
    assert item.roi.payback_months.estimate == pytest.approx(100_000 / (revenue / 12))
    rate = np.log(1.1) / 12
    assert item.roi.npv.estimate == pytest.approx(revenue / 12 * (1 - np.exp(-36 * rate)) / rate - 100_000)
    assert item.roi.basis == "associational"


def test_a_proven_effect_values_the_gap_through_its_interval() -> None:
    """A gap of 120 in 3 months, 2 scripts more per treated HCP: 60 HCPs at $500."""
    proven = [{"metric": "TRx", "reach": 1000, "cost_per_treated": 500, "outcome_months": 3}]
    item = report(table(), {"effect": finding()}, proven=proven).opportunities[0]
    assert item.roi.basis == "causal"
    west = next(o for o in report(table(), {"effect": finding()}, proven=proven).opportunities if o.gap.segment_value == "west")
    assert west.roi.cost.estimate == 30_000
    assert west.roi.revenue.estimate == pytest.approx(120 * 850)
    assert west.roi.revenue.low == pytest.approx(120 * 850 * 0.47, rel=0.1)
    few = report(table(), {"effect": finding()}, proven=[proven[0] | {"reach": 10}]).opportunities[0]
    assert few.roi.revenue.estimate == pytest.approx(20 * 850)


@pytest.mark.parametrize(
    "given", [finding(verdict="review"), finding(estimate=-2.0), finding(scale="log"), finding(bounds=(-np.inf, 3.0))],
    ids=["not proven", "wrong way", "other scale", "unbounded"],
)  # fmt: skip
def test_an_effect_that_does_not_fit_is_not_used_and_the_row_says_why(given: CausalFinding) -> None:
    proven = [{"metric": "TRx", "reach": 1000, "cost_per_treated": 500, "outcome_months": 3}]
    item = report(table(), {"effect": given}, proven=proven).opportunities[0]
    assert item.roi.basis == "associational"
    assert "is not" in item.roi.assumptions[0]


def test_the_total_counts_every_metric_and_cell_once() -> None:
    frame = pl.concat([table().with_columns(brand=pl.lit("a")), table("NRx").with_columns(brand=pl.lit("a"))])
    alone = report(table(), costs={"TRx": 1e5})
    both = report(frame, segments=["region", ["brand", "region"], "brand"], costs={"TRx": 1e5}, gap_type="all", maximum_opportunities=50)
    assert both.gaps_found > alone.gaps_found
    assert both.total_addressable_value.estimate == pytest.approx(alone.total_addressable_value.estimate)
    assert both.total_gap_value == pytest.approx((30 + 60 + 120) * 4 * 850)


def test_a_metric_without_a_worth_is_told_without_a_return_and_stands_last() -> None:
    frame = pl.concat([table(), table("mood", target=pl.lit(300.0))])
    result = report(frame)
    assert [item.gap.metric for item in result.opportunities] == ["TRx"] * 3 + ["mood"] * 4
    last = result.opportunities[-1]
    assert last.roi.roi.estimate is None
    assert last.roi.reason is not None
    assert "gaps.values.mood" in last.roi.reason


def test_quick_wins_and_strategic_bets_follow_the_rules() -> None:
    wins = report(table(target=pl.lit(97.0)), costs={"TRx": 9000.0}).quick_wins
    assert {item.gap.segment_value for item in wins} >= {"north"}
    bets = report(table(value=pl.col("value") * 20, target=pl.lit(3000.0)), costs={"TRx": 60_000.0}).strategic_bets
    assert bets
    assert all(item.difficulty == "high" and item.time_to_impact == "6-12 months" for item in bets)


def test_the_draws_of_a_gap_do_not_hang_on_the_other_gaps_and_the_seed_decides() -> None:
    spec = GapSpec(gap_type="vs_target")
    gaps = detect(table(), spec).gaps
    together = roi.estimate(gaps, spec, findings={}, seed=1)
    assert together[1] == roi.estimate(gaps[1:2], spec, findings={}, seed=1)[0]
    assert together != roi.estimate(gaps, spec, findings={}, seed=2)


def test_rows_that_contradict_each_other_are_told_as_restatements() -> None:
    again = table().with_columns(value=pl.col("value") + 5, loaded=pl.lit(date(2024, 12, 31)))
    twice = pl.concat([table().with_columns(loaded=pl.lit(date(2024, 11, 30))), again])
    told = [text for text in report(twice).warnings if "restatements" in text]
    assert len(told) == 1
    assert told[0].startswith("24 rows")
    assert not any("restatements" in text for text in report(table()).warnings)


@pytest.mark.parametrize("kind", ["vs_benchmark", "vs_potential"])
def test_a_cell_with_late_data_is_not_behind_for_that_alone(kind: str) -> None:
    late = table().drop("sample_size").filter(~((pl.col("region") == "east") & (pl.col("metric_date") == MONTHS[-1])))
    assert ("east", kind) not in found(late, gap_type=kind)
    told = "TRx by region: 1 of 4 cells have fewer than 3 dates of the period; they are judged by the dates that they have."
    assert told in report(late, gap_type=kind).warnings


def test_a_report_is_plain_data_without_infinities() -> None:
    plain = report(table()).to_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["quick_wins"] == [item.rank for item in report(table()).quick_wins]
    assert report(table(), findings=None).total_gap_value is not None
    endless = replace(report(table()), total_gap_value=math.inf)
    assert endless.to_dict()["total_gap_value"] is None


def test_every_cell_has_the_reach_of_the_effect_that_was_measured_in_it() -> None:
    linked = {"metric": "TRx", "cost_per_treated": 500, "outcome_months": 3}
    proven = [
        linked | {"finding": "a", "reach": 3, "where": {"region": "west"}},
        linked | {"finding": "b", "reach": 7, "where": {"region": "south"}},
    ]
    items = {item.gap.segment_value: item for item in report(table(), {"a": finding(), "b": finding()}, proven=proven).opportunities}
    assert {name: item.gap.reach for name, item in items.items()} == {"north": None, "south": 7.0, "west": 3.0}
    assert items["south"].roi.cost.estimate == 7 * 500
    assert items["west"].roi.cost.estimate == 3 * 500
    assert items["north"].roi.basis == "associational"


def test_amounts_in_several_currencies_are_neither_added_up_nor_compared() -> None:
    mixed = table("revenue").with_columns(Currency=pl.when(pl.col("region") == "west").then(pl.lit("EUR")).otherwise(pl.lit("USD")))
    asked = {"aggregate": {"revenue": "sum"}, "gap_type": "vs_benchmark"}
    with pytest.raises(SchemaMismatch, match="`revenue` is in several: EUR, USD"):
        found(mixed, **asked)
    assert {name for name, _ in found(mixed, **asked, filters={"Currency": "USD"})} == {"south"}
    apart = found(mixed, **asked, segments=[["Currency", "region"]], peers=["Currency"])
    assert {name for name, _ in apart} == {"USD x south"}  # the one cell in euros has no peer
    with pytest.raises(SchemaMismatch, match="several"):
        found(mixed, **asked, segments=[["Currency", "region"], "region"], peers=["Currency"])


def test_a_table_in_another_shape_and_amounts_with_signs_are_told_how_they_become_one() -> None:
    with pytest.raises(SchemaMismatch, match="no column `metric_date`, `metric_name`, `value`") as caught:
        found(pl.DataFrame({"week": ["2024-01-05"], "region": ["east"], "trx": [5]}))
    assert "gaps.columns" in str(caught.value.advice)
    with pytest.raises(SchemaMismatch, match=r"`\$1,000` is no finite number") as caught:
        found(table().with_columns(target=pl.lit("$1,000")))
    assert "REPLACE(target, '$', '')" in str(caught.value.advice)
    assert "gaps.columns.target" in str(caught.value.advice)


def test_the_interval_of_a_return_is_that_of_a_normal_worth_over_a_gamma_cost() -> None:
    spec = GapSpec.model_validate({"gap_type": "vs_target", "costs": {"TRx": 40_000}, "draws": 50_000})
    gap = next(gap for gap in detect(table(), spec).gaps if gap.segment_value == "west")
    (told,) = roi.estimate([gap], spec, findings={}, seed=1)
    assert told.revenue.estimate is not None
    worth = np.random.default_rng(5).normal(1.0, 0.15, 400_000)
    for end, share in ((told.roi.low, 0.025), (told.roi.high, 0.975)):
        assert end is not None
        # (revenue x worth - cost) / cost is at most `end` where the cost is at least revenue x worth / (end + 1).
        below = gamma.sf(told.revenue.estimate * worth / (end + 1), 2.0, scale=20_000).mean()
        assert below == pytest.approx(share, abs=0.003)
    assert told.probability_of_profit == pytest.approx(gamma.cdf(told.revenue.estimate * worth, 2.0, scale=20_000).mean(), abs=0.01)


def test_one_gap_is_told_in_the_singular() -> None:
    text = report(table().filter(pl.col("region") == "west")).summary()
    assert "1 gap of" in text
    assert "Closing it is worth" in text
    assert "None rests on a proven effect" in text
