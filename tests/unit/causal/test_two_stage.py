from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from e2i.causal.design import Sample
from e2i.causal.estimate import Estimate
from e2i.causal.iv.residuals import project_out
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.errors import NotIdentified, NoVariation
from instrument_rows import SPEC, confounded, instrument_rows

CLUSTERS = np.repeat(np.arange(40), 15)
WEIGHTS = np.random.default_rng(5).uniform(0.2, 3.0, 600)


def fitted(sample: Sample) -> Estimate:
    return TwoStageLeastSquares().fit(sample, SPEC, seed=0)


def by_linearmodels(sample: Sample, **options):
    from linearmodels.iv import IV2SLS

    exogenous = np.column_stack([np.ones(len(sample.outcome)), sample.covariates.matrix])
    model = IV2SLS(sample.outcome, exogenous, pd.Series(sample.treatment, name="d"), sample.instruments, weights=sample.weights)
    return model.fit(debiased=True, **options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("instruments", [1, 3])
def test_estimate_and_robust_error_are_those_of_linearmodels(instruments: int, weighted: bool) -> None:
    sample = replace(confounded(600, seed=1, instruments=instruments), weights=WEIGHTS if weighted else None)
    ours, theirs = fitted(sample), by_linearmodels(sample, cov_type="robust")
    assert ours.estimate == pytest.approx(theirs.params["d"], rel=1e-9)
    assert ours.standard_error == pytest.approx(theirs.std_errors["d"], rel=1e-9)
    assert ours.diagnostics["conventional_se"] == pytest.approx(by_linearmodels(sample, cov_type="unadjusted").std_errors["d"], rel=1e-9)
    half = 1.96 * ours.standard_error
    usual = (ours.diagnostics["wald_low"], ours.diagnostics["wald_high"])
    assert usual == pytest.approx((ours.estimate - half, ours.estimate + half), rel=1e-2)


def test_clustered_error_is_that_of_linearmodels() -> None:
    sample = confounded(600, seed=2, cluster=CLUSTERS)
    theirs = by_linearmodels(sample, cov_type="clustered", clusters=CLUSTERS)
    ours = fitted(sample)
    assert ours.standard_error == pytest.approx(theirs.std_errors["d"], rel=1e-9)
    half = float(t.ppf(0.975, 39)) * ours.standard_error
    assert ours.diagnostics["wald_high"] == pytest.approx(ours.estimate + half, rel=1e-9)


def test_tests_of_over_identification_are_those_of_linearmodels() -> None:
    from linearmodels.iv import IVGMM

    sample = confounded(600, seed=3, instruments=3)
    told = fitted(sample).diagnostics
    sargan = by_linearmodels(sample, cov_type="robust").sargan
    assert (told["sargan"], told["sargan_p"]) == pytest.approx((sargan.stat, sargan.pval), rel=1e-8)
    exogenous = np.column_stack([np.ones(600), sample.covariates.matrix])
    j = IVGMM(sample.outcome, exogenous, sample.treatment, sample.instruments, weight_type="robust").fit(iter_limit=2).j_stat
    assert (told["hansen_j"], told["hansen_j_p"]) == pytest.approx((j.stat, j.pval), rel=1e-6)


def test_the_first_stage_and_the_comparison_with_least_squares_are_regressions_that_statsmodels_repeats() -> None:
    import statsmodels.api as sm

    sample = confounded(600, seed=4)
    assert sample.instruments is not None
    told = fitted(sample).diagnostics
    exogenous = sm.add_constant(sample.covariates.matrix)
    stage = sm.OLS(sample.treatment, np.column_stack([exogenous, sample.instruments])).fit(cov_type="HC1", use_t=True)
    assert told["first_stage_f"] == pytest.approx(float(stage.f_test(np.eye(6)[4:]).fvalue), rel=1e-8)
    plain = sm.OLS(sample.outcome, np.column_stack([exogenous, sample.treatment])).fit(cov_type="HC1")
    assert (told["least_squares"], told["least_squares_se"]) == pytest.approx((plain.params[4], plain.bse[4]), rel=1e-8)
    control = sm.OLS(sample.outcome, np.column_stack([exogenous, sample.treatment, stage.resid])).fit(cov_type="HC1", use_t=True)
    assert (told["hausman_f"], told["hausman_p"]) == pytest.approx((control.tvalues[5] ** 2, control.pvalues[5]), rel=1e-6)
    without = sm.OLS(sample.treatment, exogenous).fit().ssr
    assert told["partial_r2"] == pytest.approx(1 - stage.ssr / without, rel=1e-8)


def test_neither_units_nor_coding_change_the_answer() -> None:
    sample = confounded(600, seed=5)
    assert sample.instruments is not None
    recoded = replace(
        sample,
        outcome=1e9 + 1e-6 * sample.outcome * 1e6,
        treatment=1e-4 * sample.treatment - 3.0,
        instruments=sample.instruments @ np.array([[1e5, 2.0], [0.0, 1e-2]]) + 1e6,
        covariates=replace(sample.covariates, matrix=sample.covariates.matrix * [1e8, 1e-8, 1.0] + [0.0, 0.0, 1e7]),
    )
    before, after = fitted(sample), fitted(recoded)
    assert after.estimate * 1e-4 == pytest.approx(before.estimate, rel=1e-5)
    assert np.array(after.interval) * 1e-4 == pytest.approx(before.interval, rel=1e-5)
    for name in ("effective_f", "hansen_j", "hausman_f", "partial_r2"):
        assert after.diagnostics[name] == pytest.approx(before.diagnostics[name], rel=1e-4)


def test_influence_values_carry_the_standard_error_and_predict_what_a_row_does() -> None:
    sample = confounded(600, seed=6)
    told = fitted(sample)
    assert told.influence is not None
    assert told.influence.mean() == pytest.approx(0.0, abs=1e-10)
    assert np.sqrt(np.mean(told.influence**2) / 600) == pytest.approx(told.standard_error, rel=0.01)
    row = int(np.argmax(np.abs(told.influence)))
    kept = np.arange(600) != row
    assert sample.instruments is not None
    rest = instrument_rows(sample.outcome[kept], sample.treatment[kept], sample.instruments[kept], sample.covariates.matrix[kept])
    assert told.estimate - fitted(rest).estimate == pytest.approx(told.influence[row] / 600, rel=0.1)


def test_columns_that_repeat_others_are_left_out_and_named() -> None:
    sample = confounded(600, seed=7)
    assert sample.instruments is not None
    doubled = replace(
        sample,
        instruments=np.column_stack([sample.instruments, sample.instruments.sum(axis=1), sample.covariates.matrix[:, 0] * 3]),
        instrument_names=("a", "b", "both", "old"),
        covariates=replace(sample.covariates, matrix=np.column_stack([sample.covariates.matrix, sample.covariates.matrix.sum(axis=1)])),
    )
    told = fitted(doubled)
    assert told.estimate == pytest.approx(fitted(sample).estimate, rel=1e-9)
    assert any("`both`" in note for note in told.notes)
    assert any("`old`" in note for note in told.notes)


def test_without_covariates_one_binary_instrument_gives_walds_ratio() -> None:
    rng = np.random.default_rng(8)
    offered = np.repeat([0.0, 1.0], 100)
    treated = (rng.random(200) < 0.2 + 0.5 * offered).astype(float)
    nrx = treated + rng.normal(size=200)
    told = fitted(instrument_rows(nrx, treated, offered))
    ratio = (nrx[100:].mean() - nrx[:100].mean()) / (treated[100:].mean() - treated[:100].mean())
    assert told.estimate == pytest.approx(ratio, rel=1e-10)
    assert (told.n_treated, told.n_untreated) == (int(treated.sum()), 200 - int(treated.sum()))


def test_an_outcome_made_from_the_treatment_is_refused() -> None:
    sample = confounded(600, seed=9)
    with pytest.raises(NoVariation, match="exact function"):
        fitted(replace(sample, outcome=2.0 * sample.treatment + sample.covariates.matrix[:, 0]))


def test_covariates_that_determine_the_treatment_are_refused() -> None:
    sample = confounded(600, seed=9)
    with pytest.raises(NotIdentified, match="determine the treatment"):
        project_out(sample.outcome, sample.treatment, sample.treatment[:, None] ** 2, covariates=sample.treatment[:, None])
