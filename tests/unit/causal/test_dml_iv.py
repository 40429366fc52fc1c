from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from e2i.causal.design import Sample
from e2i.causal.iv.checks import estimate_hazards
from e2i.causal.iv.dml_iv import DMLIV
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.errors import NotIdentified, TooFewRows
from instrument_rows import SPEC, confounded, encouraged, instrument_rows


def test_the_effect_on_compliers_is_found_with_the_shares_of_who_complies() -> None:
    told = DMLIV().fit(encouraged(2_000, seed=1), SPEC, seed=0)
    assert told.estimand == "LATE"
    assert "interactive" in told.estimator
    assert told.interval[0] < 1.5 < told.interval[1]
    assert told.diagnostics["complier_share_low"] < 0.5 < told.diagnostics["complier_share_high"]
    assert told.diagnostics["always_taker_share"] == pytest.approx(0.2, abs=0.04)
    assert told.diagnostics["never_taker_share"] == pytest.approx(0.3, abs=0.04)
    assert told.influence is not None
    assert np.sqrt(np.mean(told.influence**2) / 2_000) == pytest.approx(told.standard_error, rel=0.01)
    assert estimate_hazards(told) == ()


def test_without_covariates_the_interactive_model_is_walds_ratio_with_its_robust_error() -> None:
    sample = encouraged(800, seed=2)
    plain = instrument_rows(sample.outcome, sample.treatment, sample.instruments)
    wald, ours = TwoStageLeastSquares().fit(plain, SPEC, seed=0), DMLIV().fit(plain, SPEC, seed=0)
    assert ours.estimate == pytest.approx(wald.estimate, rel=1e-10)
    assert ours.standard_error == pytest.approx(wald.standard_error, rel=0.005)
    assert ours.diagnostics["anderson_rubin_low"] == pytest.approx(wald.diagnostics["anderson_rubin_low"], rel=0.01)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 800)
    weights /= weights.mean()
    weighted = replace(plain, weights=weights)
    wald, ours = TwoStageLeastSquares().fit(weighted, SPEC, seed=0), DMLIV().fit(weighted, SPEC, seed=0)
    assert ours.estimate == pytest.approx(wald.estimate, rel=1e-10)
    assert ours.standard_error == pytest.approx(wald.standard_error, rel=0.005)


def test_without_covariates_the_partially_linear_model_is_two_stage_least_squares() -> None:
    sample = confounded(400, seed=3)
    plain = instrument_rows(sample.outcome, sample.treatment, sample.instruments)
    wald, ours = TwoStageLeastSquares().fit(plain, SPEC, seed=0), DMLIV().fit(plain, SPEC, seed=0)
    assert (ours.estimate, ours.standard_error) == pytest.approx((wald.estimate, wald.standard_error), rel=1e-10)
    assert ours.interval == pytest.approx(wald.interval, rel=1e-9)


def test_in_a_linear_world_the_partially_linear_model_agrees_with_two_stage_least_squares() -> None:
    sample = confounded(1_000, seed=4)
    wald, ours = TwoStageLeastSquares().fit(sample, SPEC, seed=0), DMLIV().fit(sample, SPEC, seed=0)
    assert "partially linear" in ours.estimator
    assert ours.estimate == pytest.approx(wald.estimate, abs=0.5 * wald.standard_error)
    assert ours.standard_error == pytest.approx(wald.standard_error, rel=0.1)
    assert ours.diagnostics["fold_spread"] < 0.5


def test_one_sided_compliance_is_estimated_and_has_no_always_takers() -> None:
    sample = encouraged(1_000, seed=5)
    assert sample.instruments is not None
    only = sample.treatment * sample.instruments[:, 0]
    told = DMLIV().fit(replace(sample, treatment=only), SPEC, seed=0)
    assert told.diagnostics["always_taker_share"] == 0.0
    assert told.diagnostics["complier_share"] == pytest.approx(0.7, abs=0.05)


def test_turning_the_instrument_round_changes_nothing() -> None:
    sample = encouraged(1_000, seed=6)
    assert sample.instruments is not None
    turned = DMLIV().fit(replace(sample, instruments=7.0 - 2.0 * sample.instruments), SPEC, seed=0)
    straight = DMLIV().fit(sample, SPEC, seed=0)
    assert turned.estimate == pytest.approx(straight.estimate, abs=0.3 * straight.standard_error)
    for name in ("complier_share", "always_taker_share", "never_taker_share"):
        assert turned.diagnostics[name] == pytest.approx(straight.diagnostics[name], abs=0.02)


def test_an_instrument_that_nobody_follows_is_blocked_and_bounds_nothing() -> None:
    told = DMLIV().fit(encouraged(600, seed=7, compliers=0.0), SPEC, seed=0)
    found = {hazard.code: hazard.action for hazard in estimate_hazards(told)}
    assert found["no_compliers"] == "block"
    assert found["unbounded_interval"] == "block"
    assert told.interval == (-np.inf, np.inf)
    assert told.interval_method.startswith("Anderson-Rubin")


def test_defiers_in_one_half_of_the_covariates_are_noticed() -> None:
    rng = np.random.default_rng(8)
    covariates, offered, kind = rng.normal(size=(2_000, 2)), np.repeat([0.0, 1.0], 1_000), rng.random(2_000)
    follows = np.where(covariates[:, 0] > -0.5, offered, 1.0 - offered)
    treatment = np.where(kind < 0.6, follows, (kind < 0.8).astype(float))
    sample = instrument_rows(treatment + covariates[:, 0] + rng.normal(size=2_000), treatment, offered, covariates)
    told = DMLIV().fit(sample, SPEC, seed=0)
    assert "monotonicity" in {hazard.code for hazard in estimate_hazards(told)}


def test_the_interactive_model_is_refused_for_a_dose() -> None:
    with pytest.raises(NotIdentified, match="two values"):
        DMLIV(model="interactive").fit(confounded(400, seed=9), SPEC, seed=0)


def test_few_rows_with_one_value_of_the_instrument_are_refused() -> None:
    sample = encouraged(400, seed=10)
    rare: Sample = replace(sample, instruments=np.where(np.arange(400) < 20, sample.treatment, 0.0)[:, None])
    with pytest.raises(TooFewRows, match="one value of the instrument"):
        DMLIV().fit(rare, SPEC, seed=0)


def test_clusters_widen_the_interval_when_their_rows_repeat_each_other() -> None:
    sample = encouraged(300, seed=11)
    assert sample.instruments is not None
    five = np.tile(np.arange(300), 5)
    copied = instrument_rows(
        sample.outcome[five], sample.treatment[five], sample.instruments[five], sample.covariates.matrix[five], cluster=five
    )
    clustered = DMLIV().fit(copied, SPEC, seed=0)
    assert clustered.standard_error == pytest.approx(DMLIV().fit(sample, SPEC, seed=0).standard_error, rel=0.3)
    half = float(t.ppf(0.975, 299)) * clustered.standard_error
    assert clustered.diagnostics["wald_high"] == pytest.approx(clustered.estimate + half, rel=1e-9)


def test_the_same_seed_gives_the_same_numbers() -> None:
    sample = encouraged(400, seed=12)
    assert DMLIV().fit(sample, SPEC, seed=3).estimate == DMLIV().fit(sample, SPEC, seed=3).estimate
