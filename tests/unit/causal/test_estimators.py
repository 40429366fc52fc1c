from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2i.causal.estimators.doubly_robust import DoublyRobust, combine, doubly_robust, fit_propensity
from e2i.causal.estimators.features import Space, make_features, under
from e2i.causal.estimators.learners import Kind, boosting_learner
from e2i.causal.estimators.linear_models import logistic, moments, poisson, ridge, rough_ridge_of, sigmoid, sparse_linear, sparse_logistic
from e2i.causal.estimators.nuisances import FOLDS, kind_of, library, make_folds, out_of_fold, stack, used

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 8))
SCORE = X[:, 0] - 0.5 * X[:, 1]


def test_ridge_finds_a_linear_surface_and_chooses_little_shrinkage() -> None:
    fit = ridge(X, 3.0 + 2.0 * SCORE + 0.1 * RNG.normal(size=600))
    assert fit.intercept == pytest.approx(3.0, abs=0.02)
    assert fit.coefficients[:2] == pytest.approx([2.0, -1.0], abs=0.03)


def test_ridge_leave_one_out_error_is_exact() -> None:
    target = SCORE + RNG.normal(size=600)
    chosen = ridge(X, target)
    errors = []
    for share in np.logspace(-4, 1.5, 12):
        centred = X - X.mean(axis=0)
        hat = centred @ np.linalg.inv(centred.T @ centred + share * 600 * np.eye(8)) @ centred.T + 1 / 600
        errors.append((np.mean(((target - hat @ (target - target.mean()) - target.mean()) / (1 - np.diag(hat))) ** 2), share))
    best = min(errors)[1]
    centred = X - X.mean(axis=0)
    expected = np.linalg.solve(centred.T @ centred + best * 600 * np.eye(8), centred.T @ (target - target.mean()))
    assert chosen.coefficients == pytest.approx(expected, abs=1e-8)


def test_generalised_cross_validation_is_computed_from_moments_alone() -> None:
    target = SCORE + RNG.normal(size=600)
    centred, errors = X - X.mean(axis=0), []
    for share in np.logspace(-4, 1.5, 12):
        hat = centred @ np.linalg.inv(centred.T @ centred + share * 600 * np.eye(8)) @ centred.T + 1 / 600
        errors.append((np.mean((target - hat @ target) ** 2) / (1 - np.trace(hat) / 600) ** 2, share))
    best = min(errors)[1]
    expected = np.linalg.solve(centred.T @ centred + best * 600 * np.eye(8), centred.T @ (target - target.mean()))
    assert rough_ridge_of(moments(X, target)).coefficients == pytest.approx(expected, abs=1e-8)


def test_logistic_solves_its_score_equations() -> None:
    label = (RNG.random(600) < sigmoid(SCORE)).astype(float)
    fit = logistic(X, label, penalty=2.0)
    residual = label - fit.predict(X)
    assert X.T @ residual == pytest.approx(2.0 * fit.coefficients, abs=1e-3)
    assert residual.sum() == pytest.approx(0.0, abs=1e-3)


def test_logistic_survives_perfect_separation() -> None:
    fit = logistic(X, (X[:, 0] > 0).astype(float), penalty=1.0)
    assert np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_poisson_finds_a_rate_on_any_scale(scale: float) -> None:
    rate = np.exp(0.5 + 0.4 * X[:, 0])
    fit = poisson(X, scale * RNG.poisson(rate).astype(float), penalty=1.0)
    assert fit.coefficients[0] == pytest.approx(0.4, abs=0.08)
    assert fit.predict(X).mean() == pytest.approx(scale * rate.mean(), rel=0.1)


def test_sparse_regressions_keep_what_matters_and_drop_the_rest() -> None:
    kept = np.flatnonzero(sparse_linear(X, SCORE + RNG.normal(size=600), price=3.2).coefficients)
    assert set(kept) == {0, 1}
    label = (RNG.random(600) < sigmoid(2 * SCORE)).astype(float)
    assert set(np.flatnonzero(sparse_logistic(X, label, price=3.2).coefficients)) == {0, 1}


def test_sparse_logistic_solves_the_score_equations_of_its_own_penalty() -> None:
    label = (RNG.random(600) < sigmoid(2 * SCORE)).astype(float)
    fit = sparse_logistic(X, label, price=3.2)
    kept = np.flatnonzero(fit.coefficients)
    beta = fit.coefficients[kept]
    assert X[:, kept].T @ (label - fit.predict(X)) == pytest.approx(2 * 3.2 * beta / (beta**2 + 1e-6), rel=0.06)


def test_sparse_regressions_on_pure_noise_predict_the_mean() -> None:
    noise = RNG.normal(size=600)
    assert sparse_linear(X, noise, price=20.0).predict(X) == pytest.approx(np.full(600, noise.mean()), abs=1e-9)


def test_copies_stay_in_one_fold_and_arms_are_spread_evenly() -> None:
    groups = np.repeat(np.arange(100), 3)
    strata = np.repeat(RNG.integers(0, 2, 100), 3)
    folds = make_folds(groups, strata, seed=4)
    assert all(len(np.unique(folds[groups == g])) == 1 for g in range(100))
    counts = np.array([[((folds == k) & (strata == s)).sum() for k in range(FOLDS)] for s in (0, 1)])
    assert (np.ptp(counts, axis=1) <= 3).all()


def test_predictions_never_use_the_rows_own_fold() -> None:
    features = make_features(X)
    target = RNG.normal(size=600)
    folds = make_folds(np.arange(600), np.zeros(600, dtype=np.int64), seed=1)
    candidates = library("continuous", seed=0)
    before = out_of_fold(features, target, folds=folds, candidates=candidates)[0]
    changed = np.where(folds == 2, target + 100.0, target)
    after = out_of_fold(features, changed, folds=folds, candidates=candidates)[0]
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.array_equal(before[folds == 1], after[folds == 1])


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_boosting_tells_its_stages_as_lightgbm_does_whether_bins_are_shared_or_not(kind: Kind) -> None:
    label = (RNG.random(600) < sigmoid(SCORE)).astype(float)
    features, train, rows = make_features(X), np.arange(500), np.arange(500, 600)
    learner = boosting_learner(kind, 0)
    alone = learner(features, train, label[train])(features, rows)
    shared = learner(replace(features, memo={}, binned={}), train, label[train])(features, rows)
    assert alone.shape == (100, 3)
    errors = np.mean((alone - label[rows][:, None]) ** 2, axis=0)
    assert (errors < 0.95 * label[rows].var()).all()
    assert np.abs(alone - shared).mean() < 0.05
    if kind == "binary":
        assert ((alone > 0) & (alone < 1)).all()


def test_the_stack_is_convex_and_puts_its_weight_on_the_better_predictions() -> None:
    candidates = library("binary", seed=0)
    width = sum(candidate.columns for candidate in candidates)
    target = RNG.random(500)
    predictions = np.column_stack([target + 0.1 * RNG.normal(size=500), *(RNG.random(500) for _ in range(width - 1))])
    weights = stack(predictions, target, candidates=candidates)
    assert weights.weights.sum() == pytest.approx(1.0)
    assert (weights.weights >= 0).all()
    assert weights.weights[0] > 0.9
    kept, columns = used(candidates, weights)
    assert "linear" in {candidate.name for candidate in kept}
    assert columns.sum() == sum(candidate.columns for candidate in kept)


@pytest.mark.parametrize(("values", "kind"), [([0, 1, 1], "binary"), ([0, 2, 5], "nonnegative"), ([-1, 0, 1], "continuous")])
def test_the_kind_of_a_target_is_read_from_its_values(values: list[float], kind: str) -> None:
    assert kind_of(np.array(values, dtype=float)) == kind


def test_views_under_an_arm_differ_only_in_what_depends_on_treatment() -> None:
    features = make_features(X)
    treatment = (RNG.random(600) < 0.3).astype(float)
    observed, treated = under(features, treatment), under(features, treatment, arm=1.0)
    rows = treatment == 1
    assert np.array_equal(observed.basis[rows], treated.basis[rows])
    assert np.array_equal(observed.basis[:, : features.basis.shape[1]], treated.basis[:, : features.basis.shape[1]])
    assert not np.array_equal(observed.raw[~rows], treated.raw[~rows])


@pytest.mark.parametrize("space", ["raw", "plain", "basis", "steps"])
@pytest.mark.parametrize("arm", [None, 1.0])
@pytest.mark.parametrize("rows", [600, 25_000])
def test_products_with_coefficients_are_those_of_the_matrix(space: Space, arm: float | None, rows: int) -> None:
    rng = np.random.default_rng(rows)
    covariates = np.column_stack([rng.normal(size=(rows, 3)), np.exp(2.0 * rng.normal(size=rows))])
    views = make_features(covariates)
    if arm is not None:
        views = under(views, (rng.random(rows) < 0.3).astype(float), arm=arm)
    some, columns = rng.choice(rows, 50, replace=False), np.array([0, 3])
    matrix = views.matrix(space, some)
    coefficients = rng.normal(size=(matrix.shape[1],))
    assert views.products(space, some, coefficients) == pytest.approx(matrix @ coefficients, abs=1e-4)
    assert np.array_equal(views.matrix(space, some, columns), matrix[:, columns])
    last = np.array([matrix.shape[1] - 1])
    assert np.array_equal(views.matrix(space, some, last), matrix[:, last])


def test_single_precision_above_20_000_rows_and_views_in_parts_above_100_000_say_the_same() -> None:
    covariates = np.random.default_rng(3).normal(size=(100_001, 2)).round(1)
    many = make_features(covariates)
    exact = many.recipe.build(covariates, "steps")
    rows = np.arange(0, 100_001, 1000)
    assert np.array_equal(many.steps[rows], exact[rows])
    assert not many.kept
    fewer = many.part(np.arange(25_000))
    assert fewer.steps == pytest.approx(exact[:25_000], abs=1e-6)
    assert fewer.kept["steps"].dtype == np.float32


def test_long_tails_are_shortened() -> None:
    amounts = np.exp(2.0 * RNG.normal(size=(600, 1)))
    plain = make_features(np.column_stack([amounts, X[:, 0]])).plain
    assert plain.shape[1] == 3
    assert np.abs(plain[:, 2]).max() < 5 < np.abs(plain[:, 0]).max()


def test_repetitions_are_joined_by_the_median_rule() -> None:
    influence = np.stack([RNG.normal(size=400), 2 * RNG.normal(size=400), RNG.normal(size=400)])
    estimates = np.array([1.0, 5.0, 1.2])
    middle, error = combine(estimates, influence)
    variances = influence.var(axis=1, ddof=1) / 400 + (estimates - 1.2) ** 2
    assert middle == 1.2
    assert error == pytest.approx(np.sqrt(np.median(variances)))


def test_the_estimate_is_the_same_for_the_same_seed_and_moves_little_with_another() -> None:
    treatment = (RNG.random(600) < sigmoid(SCORE)).astype(float)
    outcome = treatment + SCORE + RNG.normal(size=600)
    call = DoublyRobust(estimand="ATE")
    first, again, other = (call(outcome, treatment, X, groups=np.arange(600), seed=seed) for seed in (1, 1, 2))
    assert (first.estimate, first.standard_error) == (again.estimate, again.standard_error)
    assert other.estimate != first.estimate
    assert abs(other.estimate - first.estimate) < first.standard_error


@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_influence_values_average_to_zero_and_the_effect_scales_with_the_outcome(estimand: str) -> None:
    treatment = (RNG.random(600) < sigmoid(SCORE)).astype(float)
    outcome = treatment + SCORE + RNG.normal(size=600)
    features = make_features(X)
    propensity = fit_propensity(features, treatment, np.arange(600), repetitions=1, seed=3)
    one = doubly_robust(features, outcome, treatment, propensity=propensity, estimand=estimand, seed=3)  # type: ignore[arg-type]
    thousand = doubly_robust(features, 1000 * outcome + 7, treatment, propensity=propensity, estimand=estimand, seed=3)  # type: ignore[arg-type]
    assert one.influence.mean(axis=1) == pytest.approx([0.0], abs=1e-9)
    assert thousand.estimate == pytest.approx(1000 * one.estimate, rel=0.02)
    assert thousand.standard_error == pytest.approx(1000 * one.standard_error, rel=0.02)
