"""Average effects by cross-fitted, doubly robust scores.

Chernozhukov, Chetverikov, Demirer, Duflo, Hansen, Newey and Robins (2018), "Double/debiased machine learning for treatment and
structural parameters"; several partitions are joined by the median rule of their section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Average
from e2i.causal.estimators.features import Features, make_features, under
from e2i.causal.estimators.linear_models import logistic
from e2i.causal.estimators.nuisances import (
    kind_of,
    library,
    make_folds,
    out_of_fold,
    stack,
    used,
)

REPETITIONS = 3
_REPETITIONS_MANY_ROWS = 2
_MANY_ROWS = 20_000
CLIP = 0.01


@dataclass(frozen=True, kw_only=True)
class Propensity:
    """Cross-fitted probability of treatment; `raw` is calibrated but not clipped. Shapes (repetitions, n)."""

    raw: FloatArray
    folds: IntArray
    learners: dict[str, float]
    """weight by learner"""

    @property
    def clipped(self) -> FloatArray:
        """Kept within [0.01, 0.99] for use in weights."""
        out: FloatArray = np.clip(self.raw, CLIP, 1.0 - CLIP)
        return out

    @property
    def mean(self) -> FloatArray:
        """Average over repetitions, shape (n,)."""
        out: FloatArray = self.raw.mean(axis=0)
        return out


@dataclass(frozen=True, kw_only=True)
class Fit:
    """An estimate with what refuters need: influence values and nuisances; arrays of shape (repetitions, n)."""

    estimand: Average
    estimate: float
    standard_error: float
    estimates: FloatArray
    """one per repetition, shape (repetitions,)"""
    influence: FloatArray
    untreated_mean: FloatArray
    treated_mean: FloatArray
    learners: dict[str, float]
    """weight by learner of the untreated arm's outcome model"""


def repetitions_for(rows: int) -> int:
    """Partitions to fit: 3, and 2 above 20,000 rows, where they hardly differ and time counts."""
    return REPETITIONS if rows <= _MANY_ROWS else _REPETITIONS_MANY_ROWS


def fit_propensity(features: Features, treatment: FloatArray, groups: IntArray, *, repetitions: int = REPETITIONS, seed: int) -> Propensity:
    """Cross-fitted, stacked, logistic-calibrated propensity.

    Parameters
    ----------
    features : of n rows
    treatment : shape (n,), 0 or 1
    groups : shape (n,), equal for rows that are copies of one another
    """
    candidates = library("binary", seed=seed)
    folds = np.stack([make_folds(groups, treatment.astype(np.int64), seed=seed * 1009 + r) for r in range(repetitions)])
    first = out_of_fold(features, treatment, folds=folds[0], candidates=candidates)[0]
    weights = stack(first, treatment, candidates=candidates)
    kept, columns = used(candidates, weights)
    others = [out_of_fold(features, treatment, folds=again, candidates=kept)[0] @ weights.weights[columns] for again in folds[1:]]
    scores = [first @ weights.weights, *others]
    return Propensity(
        raw=np.stack([_calibrate(score, treatment, features.plain) for score in scores]), folds=folds, learners=weights.describe()
    )


def _calibrate(score: FloatArray, treatment: FloatArray, plain: FloatArray) -> FloatArray:
    """Logistic calibration of out-of-fold probabilities, with the covariates themselves: their means then balance after weighting.

    The few parameters are learned on all rows; that keeps the estimate's distribution (a finite-dimensional update, as in
    targeted learning) and spares it the noise of imbalance by chance.
    """
    bounded = np.clip(score, 1e-4, 1.0 - 1e-4)
    design = np.column_stack([np.log(bounded / (1.0 - bounded)), plain])
    fit = logistic(design, treatment, penalty=np.append(1e-3, np.full(plain.shape[1], 1.0)))
    return fit.predict(design)


def doubly_robust(
    features: Features, outcome: FloatArray, treatment: FloatArray, *, propensity: Propensity, estimand: Average, seed: int
) -> Fit:
    """Average treatment effect (ATE) or effect on the treated (ATT).

    Parameters
    ----------
    features : of n rows
    outcome : shape (n,), finite, on its own scale
    treatment : shape (n,), 0 or 1
    propensity : from `fit_propensity` on the same rows

    Returns
    -------
    Fit
        `estimate` on the outcome's scale; `standard_error` from influence values, joined over repetitions.
    """
    means, learners = _outcome_means(
        features, outcome, treatment, arms=(0.0, 1.0)[: 2 if estimand == "ATE" else 1], folds=propensity.folds, seed=seed
    )
    untreated, treated = means[0], means[-1]
    estimates, influence = [], []
    for r in range(len(propensity.folds)):
        scores = _ate_scores if estimand == "ATE" else _att_scores
        estimate, values = scores(outcome, treatment, propensity.clipped[r], untreated[r], treated[r])
        estimates.append(estimate)
        influence.append(values)
    middle, error = combine(np.array(estimates), np.stack(influence))
    return Fit(
        estimand=estimand,
        estimate=middle,
        standard_error=error,
        estimates=np.array(estimates),
        influence=np.stack(influence),
        untreated_mean=untreated,
        treated_mean=treated,
        learners=learners,
    )


def combine(estimates: FloatArray, influence: FloatArray) -> tuple[float, float]:
    """Median estimate and the median rule's standard error: median of se² + (estimate - median)²."""
    n = influence.shape[1]
    middle = float(np.median(estimates))
    variances = influence.var(axis=1, ddof=1) / n
    return middle, float(np.sqrt(np.median(variances + (estimates - middle) ** 2)))


def _outcome_means(
    features: Features, outcome: FloatArray, treatment: FloatArray, *, arms: tuple[float, ...], folds: IntArray, seed: int
) -> tuple[FloatArray, dict[str, float]]:
    """Cross-fitted conditional means of everyone in each arm, shape (arms, repetitions, n), and the first arm's learners.

    Both arms share their models (treatment is a feature); each arm has its own stack, judged on its own rows.
    """
    candidates = library(kind_of(outcome), seed=seed, by_arm=True)
    observed = under(features, treatment)
    asked = tuple(under(features, treatment, arm=arm) for arm in arms)
    first = out_of_fold(observed, outcome, folds=folds[0], candidates=candidates, asked=asked)
    stacks = [
        stack(predictions[treatment == arm], outcome[treatment == arm], candidates=candidates)
        for arm, predictions in zip(arms, first, strict=True)
    ]
    kept, columns = used(candidates, *stacks)
    rounds = [first[:, :, columns]]
    rounds += [out_of_fold(observed, outcome, folds=again, candidates=kept, asked=asked) for again in folds[1:]]
    means = [[predictions[place] @ weights.weights[columns] for predictions in rounds] for place, weights in enumerate(stacks)]
    return np.array(means), stacks[0].describe()


def _ate_scores(
    outcome: FloatArray, treatment: FloatArray, propensity: FloatArray, untreated: FloatArray, treated: FloatArray
) -> tuple[float, FloatArray]:
    """Augmented inverse propensity scores with normalised weights (Robins, Rotnitzky and Zhao 1994)."""
    up = treatment / propensity
    down = (1.0 - treatment) / (1.0 - propensity)
    scores = treated - untreated + up / up.mean() * (outcome - treated) - down / down.mean() * (outcome - untreated)
    estimate = float(scores.mean())
    return estimate, scores - estimate


def _att_scores(
    outcome: FloatArray, treatment: FloatArray, propensity: FloatArray, untreated: FloatArray, _treated: FloatArray
) -> tuple[float, FloatArray]:
    """Doubly robust scores of the effect on the treated; control weights are the odds, normalised to the treated share."""
    share = treatment.mean()
    odds = (1.0 - treatment) * propensity / (1.0 - propensity)
    weights = treatment - odds / odds.mean() * share
    scores = weights * (outcome - untreated) / share
    estimate = float(scores.mean())
    return estimate, scores - treatment / share * estimate


@dataclass(frozen=True, kw_only=True)
class DoublyRobust:
    """The whole estimator as one call, from arrays to `Fit`; what refuters fit again."""

    estimand: Average
    repetitions: int = 1

    def __call__(self, outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
        """Fit from scratch.

        Parameters
        ----------
        outcome, treatment, groups : shape (n,)
        covariates : shape (n, k), finite, no constant column
        """
        features = make_features(covariates)
        propensity = fit_propensity(features, treatment, groups, repetitions=self.repetitions, seed=seed)
        return doubly_robust(features, outcome, treatment, propensity=propensity, estimand=self.estimand, seed=seed)
