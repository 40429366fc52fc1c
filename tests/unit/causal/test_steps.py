"""Thresholds are found where they are, and a propensity balances those that the outcome shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2i.causal.arrays import FloatArray
from e2i.causal.estimators.doubly_robust import fit_propensity
from e2i.causal.estimators.features import make_features, under
from e2i.causal.estimators.learners import Kind
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.estimators.steps import outcome_terms, sparse_steps_learner

ROWS = 1_000


def covariates(seed: int, rows: int = ROWS) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(rows, 5))


@pytest.mark.parametrize("kind", ["continuous", "binary"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_jump_between_two_deciles_is_found_where_it_is(kind: Kind, weighted: bool) -> None:
    x, rng = covariates(1), np.random.default_rng(2)
    high = x[:, 1] > 0.39  # the 65th of 100 percentiles
    target = (rng.random(ROWS) < np.where(high, 0.9, 0.1)).astype(float) if kind == "binary" else 2.0 * high + 0.5 * rng.normal(size=ROWS)
    views = make_features(x, rng.uniform(0.5, 1.5, ROWS) if weighted else None)
    predict = sparse_steps_learner(kind)(views, np.arange(ROWS), target)
    line = np.zeros((601, 5))
    line[:, 1] = np.linspace(0.1, 0.7, 601)
    seen = predict(replace(views, covariates=line, kept={}), np.arange(601))[:, 0]
    jump = line[int(np.argmax(np.diff(seen))), 1]
    assert jump == pytest.approx(0.39, abs=0.03)
    assert np.diff(seen).max() > 0.6


def test_an_outcome_without_any_pattern_has_a_learner_and_hardly_any_terms() -> None:
    x, noise = covariates(4), np.random.default_rng(5).normal(size=ROWS)
    views, treatment = make_features(x), (covariates(6)[:, 0] > 0).astype(float)
    predicted = sparse_steps_learner("continuous")(under(views, treatment), np.arange(ROWS), noise)(
        under(views, treatment), np.arange(ROWS)
    )
    assert predicted.shape == (ROWS, 1)
    assert outcome_terms(views, noise, treatment).shape[1] <= 4


def confounded(seed: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Covariates, treatment, outcome and the trait (two thresholds at once) that moves both."""
    x, rng = covariates(seed), np.random.default_rng((seed, 1))
    trait = ((x[:, 0] > 0.2) & (x[:, 1] < 0.5)).astype(float)
    treatment = (rng.random(ROWS) < sigmoid(0.8 * trait - 0.2)).astype(float)
    return x, treatment, treatment + 1.5 * trait + 0.5 * x[:, 2] + rng.normal(size=ROWS), trait


def test_terms_are_thresholds_and_products_that_the_outcome_follows_but_not_treatment_nor_what_is_linear() -> None:
    x, treatment, outcome, trait = confounded(7)
    terms = outcome_terms(make_features(x), outcome, treatment)
    assert terms == pytest.approx((terms - terms.mean(axis=0)) / terms.std(axis=0))
    with_one = np.column_stack([np.ones(ROWS), terms, x])
    explained = with_one @ np.linalg.lstsq(with_one, trait, rcond=None)[0]
    assert np.corrcoef(explained, trait)[0, 1] > 0.9
    for column in (x[:, 2], treatment):
        assert max(abs(np.corrcoef(term, column)[0, 1]) for term in terms.T) < 0.5


def test_a_propensity_that_knows_the_outcome_balances_what_it_follows() -> None:
    gaps = []
    for seed in range(2):
        x, treatment, outcome, trait = confounded(10 + seed)
        pair = []
        for known in (None, outcome):
            chance = fit_propensity(make_features(x), treatment, np.arange(ROWS), outcome=known, repetitions=1, seed=seed).clipped[0]
            up, down = treatment / chance, (1.0 - treatment) / (1.0 - chance)
            pair.append(abs(np.average(trait, weights=up) - np.average(trait, weights=down)))
        gaps.append(pair)
    without, knowing = np.mean(gaps, axis=0)
    assert knowing < 0.02
    assert knowing < 0.5 * without


@pytest.mark.parametrize("outcome", ["constant", "the treatment itself", "an exact line", "an exact step", "one in a hundred"])
def test_outcomes_without_noise_leave_finite_terms(outcome: str) -> None:
    x, rng = covariates(20, 200), np.random.default_rng(21)
    treatment = (rng.random(200) < 0.5).astype(float)
    step = (x[:, 0] > 0.3).astype(float)
    rare = (np.arange(200) % 100 == 0).astype(float)
    values = {"constant": np.ones(200), "the treatment itself": treatment, "an exact line": x[:, 0], "an exact step": step}
    terms = outcome_terms(make_features(x), values.get(outcome, rare), treatment)
    assert len(terms) == 200
    assert np.isfinite(terms).all()
    assert terms.shape[1] >= (outcome == "an exact step")
