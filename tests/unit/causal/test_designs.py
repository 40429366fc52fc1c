"""From a frame to a finding: what each design says beside its number, and what it leaves unsaid."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import columns_of
from e2i.causal.gate import Evidence, weigh
from e2i.causal.hazards import validate
from e2i.causal.router import identify
from e2i.domain.data_spec import DataSpec
from e2i.domain.effect_report import EffectSummary
from e2i.domain.evidence import CausalFinding, Effect, Refutation
from e2i.domain.study import EffectSpec, Study
from e2i.errors import SchemaMismatch

PANEL = EffectSpec(treatment="d", outcome="y")


def long(*, units: int = 60, periods: int = 12, start: int = 7, seed: int = 0) -> pl.DataFrame:
    """Half of the units treated from `start` on, by 1; a negative control with the same level and season."""
    rng = np.random.default_rng(seed)
    u, t = np.repeat(np.arange(units), periods), np.tile(np.arange(periods), units)
    level, season = 10.0 + rng.normal(size=units)[u], rng.normal(size=periods)[t]
    d = ((u % 2 == 0) & (t >= start)).astype(int)
    return pl.DataFrame(
        {"u": u, "t": t, "d": d, "y": level + season + d + rng.normal(size=len(u)), "nc": level + season + rng.normal(size=len(u))}
    )


def rows(n: int = 600, *, seed: int = 0) -> pl.DataFrame:
    """A dose, three levels and a lottery of one row per unit; `nc` moves with the covariate only."""
    rng = np.random.default_rng(seed)
    x, dose, level = rng.normal(size=n), rng.normal(size=n), rng.integers(0, 3, n)
    return pl.DataFrame(
        {
            "x": x,
            "dose": dose + 3.0,
            "level": np.array(["none", "low", "high"])[level],
            "chance": level % 2,
            "by_dose": 0.7 * dose + x + rng.normal(size=n),
            "by_level": np.array([0.0, 0.5, 2.0])[level] + x + rng.normal(size=n),
            "nc": x + rng.normal(size=n),
        }
    )


def told(finding: CausalFinding) -> Effect:
    assert finding.effect is not None, finding.refusal
    return finding.effect


def covers(effect: Effect, truth: float) -> bool:
    low, high = effect.interval()
    return low <= truth <= high


def test_periods_written_as_unpadded_numbers_keep_their_order_for_the_router_too() -> None:
    frame = long().with_columns(pl.col("t").cast(pl.String))
    assert identify(PANEL, frame, unit="u", time="t").treatment_kind == "binary"


def test_a_cohort_in_another_form_than_time_is_refused_and_one_in_the_same_form_is_read() -> None:
    frame = long().with_columns(month=pl.format("2023-{}", (pl.col("t") + 1).cast(pl.String).str.zfill(2)))
    cohort = pl.when(pl.col("u") % 2 == 0).then(pl.lit("2023-08")).otherwise(pl.lit(""))
    spec = PANEL.model_copy(update={"treatment": "promotion", "cohort": "g"})
    assert identify(spec, frame.with_columns(g=cohort), unit="u", time="month").treatment_kind == "binary"
    dated = pl.when(pl.col("u") % 2 == 0).then(pl.lit("2023-08-01")).otherwise(pl.lit(""))
    with pytest.raises(SchemaMismatch, match="same form"):
        identify(spec, frame.with_columns(g=dated), unit="u", time="month")


def test_missing_rows_do_not_make_a_common_start_staggered() -> None:
    frame = long().filter(~((pl.col("u") == 0) & (pl.col("t") == 7)))
    assert identify(PANEL, frame, unit="u", time="t").treatment_kind == "binary"
    gone = long().with_columns(y=pl.when((pl.col("t") + pl.col("u")) % 7 == 0).then(None).otherwise(pl.col("y")))
    finding = analyse(gone, effect=PANEL, unit="u", time="t", seed=1)
    assert covers(told(finding), 1.0)
    assert finding.event_study


@pytest.mark.parametrize("known", [pl.col("t") < 7, pl.col("u") < 2, pl.lit(value=False)])
def test_a_negative_control_of_a_panel_that_cannot_be_tested_is_named_and_proves_nothing(known: pl.Expr) -> None:
    frame = long().with_columns(nc=pl.when(known).then(pl.col("nc")).cast(pl.Float64))
    finding = analyse(frame, effect=PANEL.model_copy(update={"negative_controls": ("nc",)}), unit="u", time="t", seed=1)
    tests = {refutation.test: refutation for refutation in finding.refutations}
    assert "negative_control:nc" not in tests
    assert tests["untested_negative_control:nc"].is_reported_only


def test_a_last_period_that_falls_for_all_units_asks_whether_it_is_complete() -> None:
    late = long().with_columns(y=pl.when(pl.col("t") == 11).then(pl.col("y") * 0.1).otherwise(pl.col("y")))
    late = late.with_columns(y=pl.col("y") - late["y"].min())
    finding = analyse(late, effect=PANEL, unit="u", time="t", seed=1)
    assert "last_periods_incomplete" in {hazard.code for hazard in finding.hazards}
    assert finding.verdict.name != "proceed"
    assert "last_periods_incomplete" not in {hazard.code for hazard in analyse(long(), effect=PANEL, unit="u", time="t", seed=1).hazards}


def test_a_dose_has_no_smaller_arm_and_no_halves() -> None:
    spec = EffectSpec(treatment="dose", outcome="by_dose", confounders=("x",), negative_controls=("nc",))
    finding = analyse(rows(), effect=spec, seed=1)
    assert covers(told(finding), 0.7)
    assert finding.verdict.name == "proceed", finding.verdict.reasons


def test_a_dose_that_chance_assigned_needs_no_covariate() -> None:
    finding = analyse(rows(), effect=EffectSpec(treatment="dose", outcome="by_dose", randomised=True), seed=1)
    assert covers(told(finding), 0.7)
    assert (told(finding).estimand, finding.verdict.name) == ("APE", "proceed")


def test_levels_that_chance_assigned_are_compared_with_the_reference_without_a_covariate() -> None:
    spec = EffectSpec(treatment="level", outcome="by_level", randomised=True, reference="none")
    finding = analyse(rows(), effect=spec, seed=1)
    means = dict(rows().group_by("level").agg(pl.col("by_level").mean()).iter_rows())
    assert told(finding).estimate == pytest.approx(means["high"] - means["none"])
    assert finding.alternatives[0].estimate == pytest.approx(means["low"] - means["none"])
    assert "simultaneous" in told(finding).interval_method
    assert covers(told(finding), 2.0)


def test_a_lottery_with_chance_imbalance_is_not_blocked_for_it() -> None:
    frame = rows(120, seed=3)
    by_luck = frame["x"].to_numpy() + 6.0 * np.random.default_rng(7).normal(size=120)
    chance = pl.Series((by_luck > np.median(by_luck)).astype(int))
    spec = EffectSpec(treatment="t", outcome="by_dose", confounders=("x",), randomised=True)
    finding = analyse(frame.with_columns(t=chance), effect=spec, seed=1)
    assert max(abs(row.smd_before) for row in finding.balance) > 0.25
    assert finding.verdict.name != "block", finding.verdict.reasons


FRONT = ("u -> t", "u -> y", "t -> m", "m -> y")


def hidden(n: int = 800) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    u = rng.normal(size=n)
    t = (rng.random(n) < 1 / (1 + np.exp(-u))).astype(int)
    m = 0.8 * t + rng.normal(size=n)
    return pl.DataFrame({"t": t, "m": m, "y": m + 2 * u + rng.normal(size=n), "other": u + rng.normal(size=n)})


def test_where_the_graph_opens_the_front_door_the_effect_goes_through_it() -> None:
    spec = EffectSpec(treatment="t", outcome="y", edges=FRONT, negative_controls=("other",))
    finding = analyse(hidden(), effect=spec, seed=1)
    assert told(finding).estimator.startswith("Front door")
    assert covers(told(finding), 0.8)
    assert told(finding).naive_difference is not None
    assert not covers(told(finding), told(finding).naive_difference or 0.0)
    assert any("front door" in reason for reason in finding.reasons)
    assert "negative_control:other" in {refutation.test for refutation in finding.refutations}


def test_a_named_confounder_shuts_the_front_door_and_the_refusal_says_so() -> None:
    spec = EffectSpec(treatment="t", outcome="y", edges=(*FRONT, "other -> y"), confounders=("other",))
    finding = analyse(hidden(), effect=spec, seed=1)
    assert finding.effect is None
    assert "Leave `confounders`" in (finding.refusal or "")


def test_the_columns_of_a_graph_are_among_those_that_the_question_names() -> None:
    effect = EffectSpec(treatment="t", outcome="y", edges=("z -> t", "z → y", "t <-> w-1"))
    study = Study(name="s", data=DataSpec(source="s.csv"), effect=effect)
    assert columns_of(study) == ["t", "y", "z", "w-1"]


def beside(estimate: float, **changes: object) -> Effect:
    given: dict[str, object] = {
        "estimand": "ATT", "design": "did", "estimator": "other", "estimate": estimate, "standard_error": 0.1,
        "n_treated": 50, "n_untreated": 50, "naive_difference": None, "outcome_mean_untreated": None,
    }  # fmt: skip
    return Effect(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (beside(1.3), "proceed"),
        (beside(1.6), "block"),
        (beside(-0.3, standard_error=0.9), "proceed"),
        (beside(-0.3, bounds=(-0.5, -0.1), standard_error=0.01), "block"),
        (beside(3.0, must_agree=False), "proceed"),
        (beside(3.0, estimand="ATE"), "proceed"),
        (beside(3.0, scale="ratio"), "proceed"),
        (beside(3.0, bounds=(float("-inf"), float("inf"))), "proceed"),
        (beside(3.0, bounds=(3.0, 3.0)), "proceed"),
    ],
)
def test_estimators_of_one_effect_that_disagree_make_it_unreliable_in_any_design(other: Effect, name: str) -> None:
    flat = (Refutation(test="pre_trend", passed=True, detail="fine."),)
    verdict = weigh(beside(1.0, estimator="ours"), Evidence(refutations=flat, alternatives=(other,)))
    assert verdict.name == name
    assert (name == "block") == any("unreliable" in reason for reason in verdict.reasons)


def test_what_was_done_to_confounders_is_told_and_small_counts_are_not() -> None:
    frame = rows().with_columns(
        x=pl.when(pl.int_range(pl.len()) < 4).then(None).otherwise(pl.col("x")),
        t=pl.Series((rows()["x"].to_numpy() + np.random.default_rng(1).normal(size=600) > 0).astype(int)),
    )
    finding = analyse(frame, effect=EffectSpec(treatment="t", outcome="by_dose", confounders=("x", "nc")), seed=1)
    texts = [hazard.text for hazard in finding.hazards if hazard.code == "note"]
    assert "`x`: fewer than 11 missing values set to the median." in texts


def test_no_hazard_of_a_small_arm_measures_it() -> None:
    frame = rows().with_columns(t=pl.Series((np.arange(600) < 7).astype(int)))
    found = {hazard.code: hazard for hazard in validate(frame, EffectSpec(treatment="t", outcome="by_dose", confounders=("x",)))}
    assert found["few_per_arm"].measured is None


@pytest.mark.parametrize("design", ["did", "synthetic_did"])
def test_every_panel_design_says_what_is_known_about_its_interval(design: str) -> None:
    finding = analyse(long(), effect=PANEL.model_copy(update={"design": design}), unit="u", time="t", seed=1)
    assert "certified" in (told(finding).certificate or "")
    json.dumps(EffectSummary(treatment="d", outcome="y", finding=finding).to_dict(), allow_nan=False)


def test_an_instrument_design_refuses_an_outcome_that_was_measured_before_treatment() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=500)
    frame = pl.DataFrame({"z": z, "t": (z + rng.normal(size=500) > 0).astype(int), "y": rng.normal(size=500)})
    days = frame.with_columns(treated=pl.lit(20.0), measured=pl.when(pl.int_range(500) < 100).then(10.0).otherwise(30.0))
    spec = EffectSpec(treatment="t", outcome="y", instruments=("z",), treated_at="treated", measured_at="measured")
    assert "outcome_before_treatment" in (analyse(days, effect=spec, seed=1).refusal or "")
    assert analyse(days.with_columns(measured=pl.lit(30.0)), effect=spec, seed=1).effect is not None


def test_an_instrument_without_variation_is_refused_as_such() -> None:
    frame = rows().with_columns(z=pl.lit(1.0))
    spec = EffectSpec(treatment="dose", outcome="by_dose", instruments=("z",))
    assert "no instrument varies" in (analyse(frame, effect=spec, seed=1).refusal or "")


def test_people_alike_in_coarse_columns_are_no_copies_and_real_copies_are() -> None:
    rng = np.random.default_rng(2)
    n = 600
    earned = np.where(rng.random(n) < 0.6, 0.0, rng.normal(size=n) + 5.0)
    frame = pl.DataFrame({"age": rng.integers(30, 34, n), "before": np.where(earned > 0, earned + rng.normal(size=n), 0.0), "y": earned})
    frame = frame.with_columns(t=pl.Series(rng.integers(0, 2, n)))
    spec = EffectSpec(treatment="t", outcome="y", confounders=("age", "before"), randomised=True)
    assert not any("copies" in reason for reason in analyse(frame, effect=spec, seed=1).verdict.reasons)
    doubled = pl.concat([frame, frame.filter(pl.col("y") > 0).head(80)])
    assert any("copies" in reason for reason in analyse(doubled, effect=spec, seed=1).verdict.reasons)


def test_the_answer_stays_the_same_when_the_rows_come_in_another_order() -> None:
    one = told(analyse(long(), effect=PANEL, unit="u", time="t", seed=1))
    other = told(analyse(long().sample(fraction=1.0, shuffle=True, seed=3), effect=PANEL, unit="u", time="t", seed=1))
    assert replace(one, diagnostics={}) == replace(other, diagnostics={})


def lone_confounder(seed: int, *, after: bool = False) -> CausalFinding:
    """One strong covariate: a confounder, or something that treatment brings about; `nc` shares the confounder only."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=1500)
    t = (rng.random(1500) < 1 / (1 + np.exp(-z))).astype(float)
    m = 1.2 * t + rng.normal(size=1500)
    frame = pl.DataFrame({"t": t, "z": z, "m": m, "y": m + z + rng.normal(size=1500), "nc": z + rng.normal(size=1500)})
    spec = EffectSpec(treatment="t", outcome="y", confounders=("z", "m") if after else ("z",), negative_controls=("nc",))
    return analyse(frame, effect=spec, seed=seed)


def test_a_strong_confounder_that_a_negative_control_shares_is_not_taken_for_a_consequence_and_a_mediator_is() -> None:
    timing = {refutation.test: refutation.passed for refutation in lone_confounder(1).refutations}["covariate_timing"]
    assert timing
    late = {refutation.test: refutation for refutation in lone_confounder(1, after=True).refutations}["covariate_timing"]
    assert not late.passed
    assert "`m`" in late.detail


def test_a_treatment_that_goes_on_and_off_needs_no_never_treated_units() -> None:
    rng = np.random.default_rng(4)
    frame = long().with_columns(d=pl.Series((rng.random(60 * 12) < 0.3).astype(int)))
    frame = frame.with_columns(d=pl.when(pl.col("u") < 2).then(0).otherwise(pl.col("d")))
    finding = analyse(frame, effect=PANEL, unit="u", time="t", seed=1)
    assert "few_controls" not in {hazard.code for hazard in finding.hazards}


def test_confounders_that_do_not_vary_are_refused_in_words() -> None:
    frame = rows().with_columns(t=pl.col("chance"), x=pl.lit(3.0))
    finding = analyse(frame, effect=EffectSpec(treatment="t", outcome="by_dose", confounders=("x",)), seed=1)
    assert "no covariate is left" in (finding.refusal or "")


def test_a_graph_without_an_open_back_door_needs_no_adjustment() -> None:
    frame = rows().with_columns(t=pl.col("chance"), y=pl.col("x") + 2.0 * pl.col("chance"))
    spec = EffectSpec(treatment="t", outcome="y", edges=("t -> y", "x -> y"), negative_controls=("nc",))
    finding = analyse(frame, effect=spec, seed=1)
    assert covers(told(finding), 2.0)
    assert told(finding).estimator == "difference in means"


def test_a_panel_of_few_clusters_keeps_its_effect_though_its_past_cannot_be_tested_jointly() -> None:
    spec = PANEL.model_copy(update={"cluster": "c"})
    finding = analyse(long(periods=14).with_columns(c=pl.col("u") % 10), effect=spec, unit="u", time="t", seed=1)
    assert covers(told(finding), 1.0)
    tests = {refutation.test.split(":")[0]: refutation for refutation in finding.refutations}
    assert tests["untested_drift_robustness"].is_reported_only
    assert finding.verdict.name != "block"


def test_placebos_that_fit_perfectly_leave_the_interval_without_an_end() -> None:
    frame = long(units=99, periods=12).with_columns(d=((pl.col("u") < 2) & (pl.col("t") >= 7)).cast(pl.Int64))
    finding = analyse(frame, effect=PANEL, unit="u", time="t", seed=1)
    width = np.diff(told(finding).interval())[0]
    assert told(finding).design == "synthetic_control"
    assert np.isinf(width) or width < 1e3
    assert finding.verdict.name != "proceed"


def test_matched_units_that_stay_unlike_ask_for_a_person() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=900)
    t = (rng.random(900) < 1 / (1 + np.exp(-0.9 * x))).astype(int)
    frame = pl.DataFrame({"x": x, "t": t, "y": x + t + rng.normal(size=900), "nc": x + rng.normal(size=900)})
    spec = EffectSpec(treatment="t", outcome="y", confounders=("x",), negative_controls=("nc",), design="matched")
    finding = analyse(frame, effect=spec, seed=1)
    assert any("still differs" in reason for reason in finding.verdict.reasons)


def test_a_role_that_the_design_leaves_alone_is_named() -> None:
    effect = PANEL.model_copy(update={"treated_at": "t", "negative_exposures": ("nc",)})
    notes = identify(effect, long(), unit="u", time="t").notes
    assert "`t` is not used: a panel has its own clock" in notes
    assert any(note.startswith("`nc` is not tested") for note in notes)
