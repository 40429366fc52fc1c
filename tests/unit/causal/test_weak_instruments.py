from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import f, ncx2

from e2i.causal.design import Sample
from e2i.causal.iv.checks import estimate_hazards, instrument_hazards
from e2i.causal.iv.residuals import Residuals, project_out
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.causal.iv.weak import ConfidenceSet, anderson_rubin, anderson_rubin_p, strength
from e2i.errors import NotIdentified, TooFewRows
from instrument_rows import SPEC, confounded, instrument_rows

CLUSTERS = np.repeat(np.arange(40), 15)


def reduced(sample: Sample) -> Residuals:
    assert sample.instruments is not None
    return project_out(sample.outcome, sample.treatment, sample.instruments, covariates=sample.covariates.matrix, clusters=sample.cluster)


def codes(sample: Sample) -> dict[str, str]:
    return {hazard.code: hazard.action for hazard in instrument_hazards(sample)}


def test_the_set_is_exactly_the_effects_that_a_regression_on_the_instruments_does_not_reject() -> None:
    """Anderson and Rubin's test by its definition: regress y - b d on covariates and instruments, test the instruments (HC1)."""
    import statsmodels.api as sm

    sample = confounded(600, seed=1, strength=0.1)
    residuals = reduced(sample)
    found = anderson_rubin(*residuals.reduced_form, degrees=594).times(residuals.unit)
    design = np.column_stack([np.ones(600), sample.covariates.matrix, sample.instruments])
    for effect in np.linspace(found.hull[0] - 2.0, found.hull[1] + 2.0, 40):
        test = sm.OLS(sample.outcome - effect * sample.treatment, design).fit(cov_type="HC1", use_t=True).f_test(np.eye(6)[4:])
        inside = any(low <= effect <= high for low, high in found.segments)
        assert inside == (float(test.pvalue) > 0.05)


@pytest.mark.parametrize("seed", range(12))
def test_roots_agree_with_a_search_over_a_grid_for_any_number_of_instruments(seed: int) -> None:
    sample = confounded(300, seed=seed, strength=0.08, instruments=1 + seed % 4, cluster=np.arange(300) // 3 if seed % 2 else None)
    residuals = reduced(sample)
    delta, pi, joint = residuals.reduced_form
    found = anderson_rubin(delta, pi, joint, degrees=residuals.degrees)
    grid = np.concatenate([-np.logspace(3, -3, 300), np.logspace(-3, 3, 300)])
    accepted = np.array([anderson_rubin_p(delta, pi, joint, effect=b, degrees=residuals.degrees) >= 0.05 for b in grid])
    inside = np.array([any(low <= b <= high for low, high in found.segments) for b in grid])
    assert np.array_equal(accepted, inside)


def test_one_instrument_gives_an_interval_two_half_lines_or_the_whole_line() -> None:
    joint = np.array([[1.0, 0.3], [0.3, 1.0]])
    critical = f.ppf(0.95, 1, 500)
    for delta, pi in ((1.0, 5.0), (5.0, 1.0), (0.1, 0.1), (-2.0, 3.0)):
        found = anderson_rubin(np.array([delta]), np.array([pi]), joint, degrees=500)
        roots = np.roots([pi**2 - critical, -2 * (delta * pi - 0.3 * critical), delta**2 - critical])
        if not np.isreal(roots).all():
            assert found.segments == ((-np.inf, np.inf),)
            assert "whole line" in found.describe()
        elif pi**2 > critical:
            assert found.segments[0] == pytest.approx(tuple(sorted(roots.real)))
        else:
            low, high = sorted(roots.real)
            assert found.segments == (pytest.approx((-np.inf, low)), pytest.approx((high, np.inf)))
            assert found.hull == (-np.inf, np.inf)
            assert "union of 2 intervals" in found.describe()


def test_instruments_that_contradict_each_other_leave_an_empty_set() -> None:
    found = anderson_rubin(np.array([5.0, -5.0]), np.array([5.0, 5.0]), np.eye(4) * 0.01, degrees=500)
    assert found.segments == ()
    assert np.isnan(found.hull).all()
    assert "empty" in found.describe()


def test_a_set_in_other_units_is_scaled_end_by_end() -> None:
    assert ConfidenceSet(segments=((-np.inf, 1.0), (2.0, np.inf))).times(10.0).segments == ((-np.inf, 10.0), (20.0, np.inf))


def test_with_one_instrument_the_effective_f_is_the_robust_f_and_its_critical_value_is_published() -> None:
    """Montiel Olea and Pflueger (2013), table 1: 23.1 for one instrument and a tolerance of 10 %."""
    told = strength(reduced(confounded(600, seed=2, instruments=1)))
    assert told.effective_f == pytest.approx(told.first_stage_f, rel=1e-10)
    assert told.critical_value == pytest.approx(23.1, abs=0.05)


def test_with_many_instruments_the_effective_f_follows_its_definition() -> None:
    sample = confounded(600, seed=3, instruments=3)
    residuals = reduced(sample)
    told = strength(residuals)
    z, n = residuals.instruments, 600
    pi = z.T @ residuals.treatment / n
    rest = residuals.treatment - z @ pi
    w = (z * rest[:, None]).T @ (z * rest[:, None]) / (n - 7)
    assert told.effective_f == pytest.approx(n * pi @ pi / np.trace(w), rel=1e-10)
    k = np.trace(w) ** 2 * 21 / (np.trace(w.T @ w) + 20 * np.trace(w) * np.linalg.eigvalsh(w).max())
    assert told.critical_value == pytest.approx(ncx2.ppf(0.95, k, 10 * k) / k, rel=1e-8)
    assert 1.0 <= k <= 3.0


def test_a_weak_instrument_switches_to_the_robust_interval_and_both_are_told() -> None:
    weak = TwoStageLeastSquares().fit(confounded(600, seed=4, strength=0.15, instruments=1), SPEC, seed=0)
    strong = TwoStageLeastSquares().fit(confounded(600, seed=4, strength=1.0, instruments=1), SPEC, seed=0)
    assert weak.diagnostics["effective_f"] < 23.1 < strong.diagnostics["effective_f"]
    assert weak.interval_method.startswith("Anderson-Rubin")
    assert weak.interval == (weak.diagnostics["anderson_rubin_low"], weak.diagnostics["anderson_rubin_high"])
    assert strong.interval == (strong.diagnostics["wald_low"], strong.diagnostics["wald_high"])
    assert strong.interval != (strong.diagnostics["anderson_rubin_low"], strong.diagnostics["anderson_rubin_high"])
    assert any("Anderson-Rubin 95 % set" in note for note in strong.notes)


def test_an_instrument_that_moves_nothing_bounds_nothing_and_blocks() -> None:
    sample = confounded(600, seed=14, strength=0.0, instruments=1)
    assert codes(sample) == {"no_first_stage": "block"}
    told = TwoStageLeastSquares().fit(sample, SPEC, seed=0)
    assert told.interval == (-np.inf, np.inf)
    assert {hazard.code for hazard in estimate_hazards(told)} == {"unbounded_interval"}


def test_weak_instruments_that_contradict_each_other_are_refused() -> None:
    rng = np.random.default_rng(3)
    z, hidden = rng.normal(size=(400, 2)), rng.normal(size=400)
    dose = 0.25 * z.sum(axis=1) + hidden + rng.normal(size=400)
    sample = instrument_rows(z[:, 0] - z[:, 1] + hidden + rng.normal(size=400), dose, z)
    assert codes(sample)["instruments_disagree"] == "block"
    with pytest.raises(NotIdentified, match="no effect agrees with all of them"):
        TwoStageLeastSquares().fit(sample, SPEC, seed=0)


def changed(what: str) -> Sample:
    sample = confounded(600, seed=5, instruments=1)
    assert sample.instruments is not None
    z = sample.instruments
    match what:
        case "no_instrument":
            return replace(sample, instruments=None)
        case "instrument_not_finite":
            return replace(sample, instruments=np.where(np.arange(600)[:, None] == 3, np.nan, z))
        case "constant_instrument":
            return replace(sample, instruments=np.full((600, 1), 7.1))
        case "instrument_is_treatment":
            return replace(sample, instruments=1e3 - 4.0 * sample.treatment[:, None])
        case "instrument_is_outcome":
            return replace(sample, instruments=sample.outcome[:, None])
        case "collinear_instrument":
            return replace(sample, instruments=sample.covariates.matrix @ [[1.0], [2.0], [-1.0]] + 4.0)
        case "covariates_determine":
            return replace(sample, covariates=replace(sample.covariates, matrix=sample.treatment[:, None]))
        case "too_few_rows":
            few = slice(0, 29)
            return instrument_rows(sample.outcome[few], sample.treatment[few], z[few])
        case _:
            return replace(sample, cluster=np.repeat([0, 1], 300))


@pytest.mark.parametrize(
    "code",
    [
        "no_instrument",
        "instrument_not_finite",
        "constant_instrument",
        "instrument_is_treatment",
        "instrument_is_outcome",
        "collinear_instrument",
        "covariates_determine",
        "too_few_rows",
        "too_few_clusters",
    ],
)
def test_hopeless_instruments_are_refused_in_words(code: str) -> None:
    sample = changed(code)
    assert codes(sample) == {code: "refuse"}
    with pytest.raises(TooFewRows if code.startswith("too_few") else NotIdentified) as caught:
        TwoStageLeastSquares().fit(sample, SPEC, seed=0)
    assert caught.value.where == "effect.instruments"


def test_a_treatment_that_covariates_and_instruments_determine_is_refused() -> None:
    sample = confounded(600, seed=6, instruments=1)
    assert sample.instruments is not None
    made = replace(sample, treatment=sample.instruments[:, 0] + sample.covariates.matrix[:, 0])
    assert codes(made) == {"instrument_is_treatment": "refuse"}


def test_instruments_that_explain_exactly_nothing_or_everything_are_refused() -> None:
    offered, also = np.tile([0.0, 0.0, 1.0, 1.0], 50), np.tile([0.0, 1.0, 0.0, 1.0], 50)
    nrx = np.random.default_rng(1).normal(size=200)
    assert codes(instrument_rows(nrx, also, offered)) == {"no_first_stage": "refuse"}
    assert codes(instrument_rows(nrx, offered + also, np.column_stack([offered, also]))) == {"instrument_is_treatment": "refuse"}


def test_small_and_coarse_rows_give_a_finite_answer_or_a_refusal_and_never_a_warning() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(30, 60)), int(rng.integers(1, 4))
        z, x = rng.integers(0, 2, (n, m)), rng.integers(0, 3, (n, 2))
        dose = rng.integers(0, 2, n) | (z[:, 0] & rng.integers(0, 2, n))
        cluster = rng.integers(0, 6, n) if seed % 3 == 0 else None
        sample = instrument_rows(rng.integers(0, 2, n) + dose, dose, z, np.column_stack([x, x[:, 0], np.ones(n)]), cluster=cluster)
        try:
            told = TwoStageLeastSquares().fit(sample, SPEC, seed=0)
        except (NotIdentified, TooFewRows):
            continue
        assert np.isfinite([told.estimate, told.standard_error]).all()
        assert told.interval[0] < told.interval[1]
        assert not np.isnan(told.interval).any()


def test_instruments_that_are_nearly_the_treatment_weak_or_few_in_clusters_want_review() -> None:
    sample = confounded(600, seed=7, instruments=1)
    near = replace(sample, instruments=sample.treatment[:, None] + 0.1 * np.random.default_rng(1).normal(size=(600, 1)))
    assert codes(near) == {"instrument_is_treatment": "review"}
    assert codes(confounded(600, seed=4, strength=0.35, instruments=1)) == {"weak_instrument": "review"}
    assert codes(replace(sample, cluster=np.arange(600) % 12)) == {"few_clusters": "review"}


def test_sound_instruments_raise_no_hazard() -> None:
    assert codes(confounded(600, seed=8)) == {}
    assert codes(confounded(600, seed=9, cluster=CLUSTERS)) == {}


def test_a_constant_instrument_beside_a_good_one_is_told_and_left_out() -> None:
    sample = confounded(600, seed=10, instruments=1)
    assert sample.instruments is not None
    two = replace(sample, instruments=np.column_stack([sample.instruments, np.ones(600)]), instrument_names=("z", "flat"))
    assert codes(two) == {"constant_instrument": "warn"}
    assert TwoStageLeastSquares().fit(two, SPEC, seed=0).estimate == pytest.approx(
        TwoStageLeastSquares().fit(sample, SPEC, seed=0).estimate, rel=1e-10
    )
