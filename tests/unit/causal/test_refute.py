"""Refuters must fail when they should: each is given an estimator or a world that is wrong in its own way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.doubly_robust import DoublyRobust, Fit, Propensity
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.refute import (
    Estimator,
    enough_for_control,
    negative_control,
    permute_within,
    placebo_treatment,
    random_common_cause,
    subset_stability,
)
from e2i.causal.sensitivity import e_value, hidden_confounder_bound, robustness_value, strongest_measured

N = 1_200
RNG = np.random.default_rng(8)
X = RNG.normal(size=(N, 3))
CHANCE = sigmoid(1.2 * X[:, 0])
T = (RNG.random(N) < CHANCE).astype(float)
UNTREATED = 2.0 * X[:, 0] + X[:, 1]
Y = UNTREATED + 1.0 * T + RNG.normal(size=N)
NAMES = ("a", "b", "c")
SAMPLE = Sample(
    outcome=Y,
    treatment=T,
    covariates=Covariates(matrix=X, names=NAMES, sources=NAMES, is_level=(False,) * 3, notes=()),
    negative_controls={},
    groups=np.arange(N),
    rows_given=N,
    missing_treatment=0,
    missing_outcome=0,
)
PROPENSITY = Propensity(raw=CHANCE[None], folds=np.zeros((1, N), dtype=np.int64), learners={})


def fit_of(estimate: float, error: float, *, untreated: FloatArray = UNTREATED, influence: FloatArray | None = None) -> Fit:
    values = np.zeros(N) if influence is None else influence
    return Fit(
        estimand="ATE",
        estimate=estimate,
        standard_error=error,
        estimates=np.array([estimate]),
        influence=values[None],
        untreated_mean=untreated[None],
        treated_mean=untreated[None] + 1.0,
        learners={},
    )


FIT = fit_of(1.0, 0.07, influence=RNG.normal(size=N))


def least_squares(outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
    design = np.column_stack([treatment, np.ones(len(outcome)), covariates])
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ outcome
    residual = outcome - design @ beta
    return fit_of(float(beta[0]), float(np.sqrt(residual @ residual / len(outcome) * inverse[0, 0])))


def difference_of_means(outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
    return least_squares(outcome, treatment, covariates[:, :0], groups=groups, seed=seed)


@dataclass(frozen=True)
class Overconfident:
    """Least squares that claims a tenth of its standard error."""

    def __call__(self, outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
        honest = least_squares(outcome, treatment, covariates, groups=groups, seed=seed)
        return replace(honest, standard_error=honest.standard_error / 10)


def starts_to_shake(outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
    """Each column beyond the third moves the estimate."""
    honest = least_squares(outcome, treatment, covariates, groups=groups, seed=seed)
    return replace(honest, estimate=honest.estimate + 0.1 * (covariates.shape[1] - 3))


def test_a_sound_estimator_passes_every_refuter() -> None:
    assert placebo_treatment(SAMPLE, FIT, PROPENSITY, estimator=least_squares, seed=1).passed
    assert random_common_cause(SAMPLE, FIT, estimator=least_squares, seed=1).passed
    halves = subset_stability(SAMPLE, FIT, estimator=least_squares, seed=1)
    assert halves is not None
    assert halves.passed


def test_the_doubly_robust_estimator_fits_the_refuters_protocol() -> None:
    assert placebo_treatment(SAMPLE, FIT, PROPENSITY, estimator=DoublyRobust(estimand="ATE"), seed=1).passed


def test_the_placebo_catches_an_estimator_that_does_not_adjust() -> None:
    result = placebo_treatment(SAMPLE, FIT, PROPENSITY, estimator=difference_of_means, seed=1)
    assert not result.passed
    assert result.p_value is not None
    assert result.p_value < 1e-6


def test_the_placebo_catches_nuisances_that_do_not_adjust() -> None:
    blind = Propensity(raw=np.where(X[:, 0] > 0, 0.501, 0.499)[None], folds=PROPENSITY.folds, learners={})
    lost = fit_of(2.0, 0.1, untreated=np.full(N, Y.mean()))
    assert not placebo_treatment(SAMPLE, lost, blind, estimator=least_squares, seed=1).passed


def test_halves_catch_a_standard_error_that_is_too_small() -> None:
    def failures(estimator: Estimator) -> int:
        results = [subset_stability(SAMPLE, FIT, estimator=estimator, seed=seed) for seed in range(20)]
        return sum(result is not None and not result.passed for result in results)

    assert failures(Overconfident()) >= 12
    assert failures(least_squares) <= 2


def test_halves_are_not_compared_when_an_arm_is_too_small() -> None:
    few = replace(SAMPLE, treatment=(np.arange(N) < 40).astype(float))
    assert subset_stability(few, FIT, estimator=least_squares, seed=1) is None


def test_large_samples_are_refitted_on_part_of_each_arm() -> None:
    rows = 16_000
    treatment = (np.arange(rows) % 8 == 0).astype(float)
    covariates = replace(SAMPLE.covariates, matrix=np.random.default_rng(0).normal(size=(rows, 3)))
    large = replace(SAMPLE, outcome=treatment, treatment=treatment, covariates=covariates, groups=np.arange(rows))
    seen: list[tuple[float, float]] = []

    def watch(outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
        seen.append((float((treatment == 0).sum()), float(treatment.sum())))
        return fit_of(1.0, 0.1)

    random_common_cause(large, FIT, estimator=watch, seed=1)
    assert seen == [(5_000, 2_000), (5_000, 2_000)]


def test_halves_keep_copies_together() -> None:
    copied = replace(SAMPLE, groups=np.arange(N) // 4)
    sizes: list[IntArray] = []

    def watch(outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
        sizes.append(np.unique(groups, return_counts=True)[1])
        return least_squares(outcome, treatment, covariates, groups=groups, seed=seed)

    subset_stability(copied, FIT, estimator=watch, seed=1)
    assert all((counts == 4).all() for counts in sizes)


def test_random_causes_catch_an_estimator_that_noise_can_move() -> None:
    assert not random_common_cause(SAMPLE, FIT, estimator=starts_to_shake, seed=1).passed


def test_a_negative_control_that_moves_fails_and_one_that_does_not_passes() -> None:
    values = RNG.normal(size=N)
    assert not negative_control("other", values, fit_of(0.3, 0.05), rows=N, level=0.05).passed
    assert negative_control("other", values, fit_of(0.05, 0.05), rows=N, level=0.05).passed


def test_a_control_with_too_few_records_is_not_tested() -> None:
    assert enough_for_control(RNG.normal(size=N), T)
    assert not enough_for_control(np.where(np.arange(N) < 150, 1.0 * np.arange(N), np.nan), T)
    assert not enough_for_control(np.where(T == 0, RNG.normal(size=N), np.nan), T)
    assert not enough_for_control(np.full(N, 3.0), T)


def test_permuting_within_strata_keeps_every_stratum_share() -> None:
    strata = RNG.integers(0, 7, N)
    placebo = permute_within(T, strata, np.random.default_rng(0))
    assert not np.array_equal(placebo, T)
    assert [placebo[strata == s].sum() for s in range(7)] == [T[strata == s].sum() for s in range(7)]


def test_the_robustness_value_solves_its_equation() -> None:
    for size in (0.0, 0.1, 1.0, 5.0):
        r = robustness_value(size)
        assert 0.0 <= r < 1.0
        assert r**2 == pytest.approx(size**2 * (1.0 - r))


def test_the_bound_grows_with_the_effect_and_is_no_criterion() -> None:
    small = hidden_confounder_bound(SAMPLE, fit_of(0.05, 0.07), PROPENSITY)
    large = hidden_confounder_bound(SAMPLE, fit_of(1.0, 0.07), PROPENSITY)
    assert small.statistic is not None
    assert large.statistic is not None
    assert small.statistic < large.statistic
    assert small.passed
    assert large.detail.startswith("Reported, not judged")


def test_the_strongest_measured_confounder_is_the_one_that_moves_both() -> None:
    name, of_outcome, of_treatment = strongest_measured(SAMPLE.covariates, Y, T)
    assert name == "a"
    assert of_outcome > 0.5
    assert of_treatment > 0.1


def test_the_e_value_is_the_published_one() -> None:
    # VanderWeele and Ding (2017): a risk ratio of 3.9 needs 7.2
    assert e_value(2.9 * 0.1, untreated_mean=0.1, outcome_sd=1.0, is_binary=True) == pytest.approx(7.26, abs=0.01)
    assert e_value(0.0, untreated_mean=0.1, outcome_sd=1.0, is_binary=False) == 1.0
