"""Fast refuters: each fails on the estimate or the world that is wrong in its own way, and passes on a sound one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.refute import refute_all
from e2i.causal.refute.controls import hidden_bias_tests
from e2i.causal.refute.ground import Ground, bent, quick_propensity
from e2i.causal.refute.simulations import bootstrap, dummy_outcomes, placebo_treatments, random_common_causes, subsets
from e2i.causal.worlds import WORLDS, World
from e2i.domain.evidence import Refutation


def sample_of(world: World, rows: int, *, seed: int, estimand: str = "ATE", earlier: bool = True) -> Sample:
    frame = world.draw(rows, seed=seed)
    spec = world.effect(estimand=estimand, earlier=earlier, negative_exposure=True)
    identification = Identification(
        design="cross_section",
        estimand=estimand,
        treatment=spec.treatment,
        outcome=spec.outcome,
        adjustment=spec.confounders,
        negative_controls=spec.negative_controls,
        negative_exposures=spec.negative_exposures,
        pre_outcomes=spec.pre_outcomes,
    )
    return prepare(frame, identification)


def quick_fit(sample: Sample, *, estimand: str = "ATE", blind: bool = False) -> tuple[Fit, Propensity]:
    """Doubly robust with a logistic and two least squares nuisances; `blind` forgets the covariates."""
    basis = bent(sample.covariates.matrix) if not blind else np.ones((len(sample.outcome), 1))
    treatment, outcome = sample.treatment, sample.outcome
    chance = quick_propensity(basis, treatment) if not blind else np.full(len(treatment), treatment.mean())
    means = [basis @ np.linalg.lstsq(basis[treatment == arm], outcome[treatment == arm], rcond=None)[0] for arm in (0, 1)]
    if estimand == "ATE":
        score = means[1] - means[0] + treatment / chance * (outcome - means[1]) - (1 - treatment) / (1 - chance) * (outcome - means[0])
        estimate, influence = float(score.mean()), score - score.mean()
    else:
        odds = (1 - treatment) * chance / (1 - chance)
        score = (treatment - odds) * (outcome - means[0]) / treatment.mean()
        estimate = float(score.mean())
        influence = score - treatment / treatment.mean() * estimate
    fit = Fit(
        estimand="ATE" if estimand == "ATE" else "ATT",
        estimate=estimate,
        standard_error=float(influence.std() / np.sqrt(len(outcome))),
        estimates=np.array([estimate]),
        influence=influence[None],
        untreated_mean=means[0][None],
        treated_mean=means[1 if estimand == "ATE" else 0][None],
        learners={},
    )
    return fit, Propensity(raw=chance[None], folds=np.zeros((1, len(outcome)), dtype=np.int64), learners={})


def ground_of(world: str, rows: int = 1_500, *, seed: int = 1, estimand: str = "ATE", blind: bool = False) -> Ground:
    sample = sample_of(WORLDS[world], rows, seed=seed, estimand=estimand)
    fit, propensity = quick_fit(sample, estimand=estimand, blind=blind)
    return Ground(sample=sample, fit=fit, propensity=propensity)


def influence(ground: Ground) -> FloatArray:
    return ground.full.influence(ground.sample.outcome[:, None])[:, 0]


def failed(found: tuple[Refutation, ...]) -> set[str]:
    return {refutation.test.split(":")[0] for refutation in found if not refutation.passed}


@pytest.mark.parametrize(
    ("world", "estimand"), [("linear", "ATE"), ("linear", "ATT"), ("count", "ATE"), ("binary", "ATT"), ("no_effect", "ATE")]
)
def test_a_sound_estimate_passes_every_refuter(world: str, estimand: str) -> None:
    ground = ground_of(world, seed=3, estimand=estimand)
    found = refute_all(ground.sample, ground.fit, ground.propensity, seed=1)
    assert failed(found) == set(), [refutation.detail for refutation in found if not refutation.passed]
    assert {refutation.test.split(":")[0] for refutation in found} >= {
        "placebo_treatment",
        "random_common_cause",
        "dummy_outcome",
        "subset_stability",
        "bootstrap",
        "negative_control",
        "pre_period_placebo",
        "pre_period_trend",
        "negative_exposure",
        "bias_bound",
        "covariate_timing",
        "confounder_benchmarks",
        "hidden_confounder_bound",
    }


@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_placebos_and_dummy_outcomes_catch_nuisances_that_forget_the_covariates(estimand: str) -> None:
    ground = ground_of("linear", estimand=estimand, blind=True)
    assert not placebo_treatments(ground, seed=1).passed
    assert placebo_treatments(ground_of("linear", estimand=estimand), seed=1).passed


def test_dummy_outcomes_catch_a_propensity_that_bends_where_no_line_can_follow() -> None:
    """True means and a true propensity that curve; the fitted propensity is a constant, the refit is linear in products."""
    ground = ground_of("curved", 4_000, blind=True)
    true_mean = WORLDS["curved"].untreated(ground.sample.covariates.matrix[:, [*range(9), 9]])
    bent_fit = replace(ground.fit, untreated_mean=true_mean[None], treated_mean=true_mean[None] + 1.0)
    assert not dummy_outcomes(replace(ground, fit=bent_fit), seed=1).passed


def test_halves_and_bootstrap_catch_a_standard_error_that_is_too_small() -> None:
    ground = ground_of("linear")
    bold = replace(ground, fit=replace(ground.fit, standard_error=ground.fit.standard_error / 2))
    for honest, wrong in (
        (subsets(ground, influence(ground), seed=1), subsets(bold, influence(ground), seed=1)),
        (bootstrap(ground, influence(ground), seed=1), bootstrap(bold, influence(ground), seed=1)),
    ):
        assert honest is not None
        assert wrong is not None
        assert honest.passed
        assert not wrong.passed


def test_halves_and_bootstrap_catch_clusters_that_the_standard_error_ignores() -> None:
    """Forty regions share treatment and a shock; rows of one region are not independent."""
    rng = np.random.default_rng(3)
    region = np.repeat(np.arange(40), 50)
    treatment = (rng.random(40) < 0.5).astype(float)[region]
    frame = pl.DataFrame({"x": rng.normal(size=2_000), "t": treatment, "y": rng.normal(size=40)[region] + rng.normal(size=2_000)})
    identification = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y", adjustment=("x",))
    sample = replace(prepare(frame, identification), cluster=region)
    fit, propensity = quick_fit(sample)
    ground = Ground(sample=sample, fit=fit, propensity=propensity)
    assert not bootstrap(ground, influence(ground), seed=1).passed
    known = replace(ground, sample=replace(sample, cluster=None))
    assert bootstrap(known, influence(known), seed=1).passed


def test_halves_are_not_compared_with_fewer_than_sixty_rows_in_an_arm() -> None:
    ground = ground_of("linear", 200)
    few = replace(ground.sample, treatment=(np.arange(200) < 59).astype(float))
    assert subsets(replace(ground, sample=few), influence(ground), seed=1) is None


def test_random_causes_catch_an_adjustment_that_is_too_wide() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{j}": rng.normal(size=160) for j in range(30)} | {"t": rng.integers(0, 2, 160), "y": rng.normal(size=160)})
    wide = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y", adjustment=tuple(f"x{j}" for j in range(30)))
    sample = prepare(frame, wide)
    fit, propensity = quick_fit(sample)
    assert not random_common_causes(Ground(sample=sample, fit=fit, propensity=propensity), seed=1).passed


@pytest.mark.parametrize("world", ["hidden_50_null", "hidden_75_lift"])
def test_a_hidden_trait_is_seen_by_each_kind_of_control_and_by_nothing_else(world: str) -> None:
    ground = ground_of(world, 3_000)
    found = refute_all(ground.sample, ground.fit, ground.propensity, seed=1, confirm=False)
    assert {"negative_control", "pre_period_placebo", "negative_exposure"} <= failed(found)
    assert not failed(found) & {"placebo_treatment", "random_common_cause", "dummy_outcome", "subset_stability", "bootstrap"}


def test_the_full_estimator_confirms_a_real_alarm() -> None:
    ground = ground_of("hidden_75_null", 800)
    assert "pre_period_placebo" in failed(hidden_bias_tests(ground, seed=1))


def test_targeting_by_growth_is_seen_in_the_earlier_outcomes() -> None:
    found = failed(hidden_bias_tests(ground_of("trend_targeting", 3_000), seed=1, confirm=False))
    assert found & {"pre_period_placebo", "pre_period_trend"}


def test_treatment_aimed_at_an_adjusted_outcome_is_no_hidden_trait() -> None:
    found = hidden_bias_tests(ground_of("aimed_at_the_last_outcome", 2_000), seed=1, confirm=False)
    own = next(refutation for refutation in found if refutation.test == "pre_period_placebo_adjusted:before_1")
    assert own.p_value is not None
    assert own.p_value < 1e-4
    assert own.passed
    assert "aimed at it" in own.detail


def test_an_adjusted_outcome_alone_cannot_tell_aim_from_hidden_trait() -> None:
    ground = ground_of("aimed_at_the_last_outcome", 2_000)
    only = replace(
        ground.sample, negative_controls={}, negative_exposures={}, pre_outcomes={"before_1": ground.sample.pre_outcomes["before_1"]}
    )
    found = hidden_bias_tests(replace(ground, sample=only), seed=1, confirm=False)
    assert "pre_period_placebo_adjusted" in failed(found)


def test_a_copy_of_the_earlier_outcome_among_the_covariates_does_not_make_the_placebo_blind() -> None:
    ground = ground_of("hidden_75_null", 3_000)
    values = ground.sample.pre_outcomes["before_1"]
    covariates = ground.sample.covariates
    wider = replace(
        covariates,
        matrix=np.column_stack([covariates.matrix, 3.0 * values + 1.0]),
        names=(*covariates.names, "nrx_log"),
        sources=(*covariates.sources, "nrx_log"),
        is_level=(*covariates.is_level, False),
    )
    only = replace(ground.sample, covariates=wider, negative_controls={}, negative_exposures={}, pre_outcomes={"before_1": values})
    assert failed(hidden_bias_tests(replace(ground, sample=only), seed=1, confirm=False)) >= {"pre_period_placebo_adjusted"}


def test_controls_with_gaps_are_judged_on_the_rows_they_have() -> None:
    ground = ground_of("hidden_75_null", 3_000)
    gaps = {"negative_control": np.where(np.arange(3_000) % 3 == 0, np.nan, ground.sample.negative_controls["negative_control"])}
    only = replace(ground.sample, negative_controls=gaps, negative_exposures={}, pre_outcomes={})
    found = hidden_bias_tests(replace(ground, sample=only), seed=1, confirm=False)
    assert "2000 rows" in found[0].detail
    assert not found[0].passed


def test_a_blunt_control_is_no_evidence() -> None:
    ground = ground_of("hidden_25_null", 400, seed=2)
    outcome = (ground.sample.outcome - ground.sample.outcome.mean()) / ground.sample.outcome.std()
    noisy = {"negative_control": 0.4 * outcome + np.random.default_rng(0).normal(size=400)}
    only = replace(ground.sample, negative_controls=noisy, negative_exposures={}, pre_outcomes={})
    small = replace(ground.fit, estimate=0.1, standard_error=0.04)
    found = hidden_bias_tests(replace(ground, sample=only, fit=small), seed=1, confirm=False)
    assert found[-1].test == "bias_bound"
    assert not found[-1].passed


@pytest.mark.parametrize("world", ["mediator", "collider"])
def test_what_was_measured_after_treatment_is_suspected(world: str) -> None:
    ground = ground_of(world, 2_000)
    found = refute_all(ground.sample, ground.fit, ground.propensity, seed=1, confirm=False)
    timing = next(refutation for refutation in found if refutation.test == "covariate_timing")
    assert not timing.passed
    assert "`visits`" in timing.detail


def test_the_same_seed_gives_the_same_refutations() -> None:
    ground = ground_of("linear", 600)
    once, again = (refute_all(ground.sample, ground.fit, ground.propensity, seed=5, confirm=False) for _ in range(2))
    assert once == again


def test_without_covariates_controls_still_speak() -> None:
    rng = np.random.default_rng(1)
    cause = rng.normal(size=400)
    frame = pl.DataFrame({"t": rng.integers(0, 2, 400), "y": cause + rng.normal(size=400), "other": cause + rng.normal(size=400)})
    identification = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y", negative_controls=("other",))
    sample = prepare(frame, identification)
    fit, propensity = quick_fit(sample, blind=True)
    found = refute_all(sample, fit, propensity, seed=1, confirm=False)
    assert failed(found) <= {"bias_bound"}, "400 rows leave a quarter of a standard deviation possible"
    assert found[5].test == "negative_control:other"
    assert "confounder_benchmarks" not in {refutation.test for refutation in found}


def test_a_claim_of_a_tenth_of_the_spread_cannot_vouch_for_itself() -> None:
    ground = ground_of("linear", 800)
    bold = replace(ground.fit, influence=0.1 * ground.fit.influence, standard_error=0.1 * ground.fit.standard_error)
    found = refute_all(ground.sample, bold, ground.propensity, seed=1, confirm=False)
    assert {"bootstrap", "subset_stability"} <= failed(found)
    assert not {"bootstrap", "subset_stability"} & failed(refute_all(ground.sample, ground.fit, ground.propensity, seed=1, confirm=False))
