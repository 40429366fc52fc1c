"""Average effects by cross-fitted, doubly robust scores.

Chernozhukov, Chetverikov, Demirer, Duflo, Hansen, Newey and Robins (2018), "Double/debiased machine learning for treatment and
structural parameters"; several partitions are joined by the median rule of their section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.estimators.features import Features, make_features, under
from e2i.causal.estimators.linear_models import logistic
from e2i.causal.estimators.nuisances import (
    kind_of,
    library,
    make_folds,
    out_of_fold,
    screen,
    stack,
    used,
)
from e2i.causal.estimators.steps import outcome_terms

Target = Literal["ATE", "ATT", "ATO"]
"""over whom an effect is averaged: everybody, the treated, or units by their overlap e (1 - e)"""
REPETITIONS = 3
_REPETITIONS_MANY_ROWS = 1
_MANY_ROWS = 5_000
CLIP = 0.01
_RARER = 10.0


def support(share: float) -> tuple[float, float]:
    """Propensities between which units count as having had a choice: [0.01, 0.99], and below where few are treated at all.

    A propensity of 0.005 is no lack of overlap where one in a hundred is treated: the smaller arm's share over ten bounds it.

    Parameters
    ----------
    share : of treated rows, in 0-1
    """
    return min(CLIP, share / _RARER), 1.0 - min(CLIP, (1.0 - share) / _RARER)


@dataclass(frozen=True, kw_only=True)
class Propensity:
    """Cross-fitted probability of treatment; `raw` is calibrated but not clipped. Shapes (repetitions, n)."""

    raw: FloatArray
    folds: IntArray
    learners: dict[str, float]
    """weight by learner"""
    treated_share: float | None = None
    """in 0-1; None: the mean of `raw`"""

    @property
    def bounds(self) -> tuple[float, float]:
        """The `support` of a treatment as frequent as this one."""
        return support(float(self.raw.mean()) if self.treated_share is None else self.treated_share)

    @property
    def clipped(self) -> FloatArray:
        """Kept within the bounds for use in weights."""
        out: FloatArray = np.clip(self.raw, *self.bounds)
        return out

    @property
    def mean(self) -> FloatArray:
        """Average over repetitions, shape (n,)."""
        out: FloatArray = self.raw.mean(axis=0)
        return out


@dataclass(frozen=True, kw_only=True)
class Fit:
    """An estimate with what refuters need: influence values and nuisances; arrays of shape (repetitions, n)."""

    estimand: Target
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
    """Partitions to fit: 3, and 1 above 5,000 rows, where they hardly differ and time counts."""
    return REPETITIONS if rows <= _MANY_ROWS else _REPETITIONS_MANY_ROWS


def fit_propensity(
    features: Features,
    treatment: FloatArray,
    groups: IntArray,
    *,
    outcome: FloatArray | None = None,
    repetitions: int = REPETITIONS,
    seed: int,
) -> Propensity:
    """Cross-fitted, stacked, logistic-calibrated propensity.

    Parameters
    ----------
    features : of n rows
    treatment : shape (n,), 0 or 1
    groups : shape (n,), equal for rows that are copies of one another
    outcome : shape (n,); the calibration then also balances the thresholds and products that it follows, see `outcome_terms`
    """
    folds = np.stack([make_folds(groups, treatment.astype(np.int64), seed=seed * 1009 + r) for r in range(repetitions)])
    candidates = screen(features, treatment, folds=folds[0], candidates=library("binary", seed=seed))
    first = out_of_fold(features, treatment, folds=folds[0], candidates=candidates)[0]
    weights = stack(first, treatment, candidates=candidates, row_weights=features.weights)
    kept, columns = used(candidates, weights)
    others = [out_of_fold(features, treatment, folds=again, candidates=kept)[0] @ weights.weights[columns] for again in folds[1:]]
    scores = [first @ weights.weights, *others]
    balanced = features.plain if outcome is None else np.column_stack([features.plain, outcome_terms(features, outcome, treatment)])
    raw = np.stack([_calibrate(score, treatment, balanced, weights=features.weights) for score in scores])
    return Propensity(raw=raw, folds=folds, learners=weights.describe(), treated_share=float(treatment.mean()))


def _calibrate(score: FloatArray, treatment: FloatArray, balanced: FloatArray, *, weights: FloatArray | None) -> FloatArray:
    """Logistic calibration of out-of-fold probabilities together with `balanced`, whose means then balance after weighting.

    The few parameters are learned on all rows; that keeps the estimate's distribution (a finite-dimensional update, as in
    targeted learning) and spares it the noise of imbalance by chance.
    """
    bounded = np.clip(score, 1e-4, 1.0 - 1e-4)
    design = np.column_stack([np.log(bounded / (1.0 - bounded)), balanced])
    fit = logistic(design, treatment, penalty=np.append(1e-3, np.full(design.shape[1] - 1, 1.0)), weights=weights)
    return fit.predict(design)


def doubly_robust(
    features: Features, outcome: FloatArray, treatment: FloatArray, *, propensity: Propensity, estimand: Target, seed: int
) -> Fit:
    """Average treatment effect (ATE), effect on the treated (ATT) or in the overlap population (ATO).

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
    means, learners = outcome_means(
        features, outcome, treatment, arms=(0.0, 1.0)[: 1 if estimand == "ATT" else 2], folds=propensity.folds, seed=seed
    )
    untreated, treated = means[0], means[-1]
    estimates, influence = [], []
    for r in range(len(propensity.folds)):
        pair = (untreated[r], treated[r])
        chance = np.clip(propensity.raw[r], 0.0, 1.0) if estimand == "ATO" else propensity.clipped[r]
        down, up = arm_means(outcome, treatment, chance, pair, estimand=estimand, weights=features.weights)
        estimates.append(up[0] - down[0])
        influence.append(up[1] - down[1])
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


def outcome_means(
    features: Features, outcome: FloatArray, treatment: FloatArray, *, arms: tuple[float, ...], folds: IntArray, seed: int
) -> tuple[FloatArray, dict[str, float]]:
    """Cross-fitted conditional means of everyone in each arm, shape (arms, repetitions, n), and the first arm's learners.

    Both arms share their models (treatment is a feature); each arm has its own stack, judged on its own rows.
    """
    observed = under(features, treatment)
    candidates = library(kind_of(outcome), seed=seed, by_arm=True)
    candidates = screen(observed, outcome, folds=folds[0], candidates=candidates, arms=treatment)
    asked = tuple(under(features, treatment, arm=arm) for arm in arms)
    first = out_of_fold(observed, outcome, folds=folds[0], candidates=candidates, asked=asked)
    stacks = [
        stack(
            predictions[treatment == arm],
            outcome[treatment == arm],
            candidates=candidates,
            row_weights=None if features.weights is None else features.weights[treatment == arm],
        )
        for arm, predictions in zip(arms, first, strict=True)
    ]
    kept, columns = used(candidates, *stacks)
    rounds = [first[:, :, columns]]
    rounds += [out_of_fold(observed, outcome, folds=again, candidates=kept, asked=asked) for again in folds[1:]]
    means = [[predictions[place] @ weights.weights[columns] for predictions in rounds] for place, weights in enumerate(stacks)]
    return np.array(means), stacks[0].describe()


def augmented_mean(
    outcome: FloatArray, inside: FloatArray, chance: FloatArray, predicted: FloatArray, *, weights: FloatArray | None = None
) -> tuple[float, FloatArray]:
    """Mean outcome if everybody were in one arm, with influence values (Robins, Rotnitzky and Zhao 1994; normalised weights).

    Parameters
    ----------
    inside : shape (n,), 1 for rows in the arm
    chance : shape (n,), probability of the arm, away from 0
    predicted : shape (n,), conditional mean of the outcome in the arm
    weights : shape (n,), sampling weights with mean 1
    """
    given = 1.0 if weights is None else weights
    up = given * inside / chance
    scores = given * predicted + up / up.mean() * (outcome - predicted)
    mean = float(scores.mean())
    return mean, scores - given * mean


def augmented_mean_of_treated(
    outcome: FloatArray, treatment: FloatArray, propensity: FloatArray, untreated: FloatArray, *, weights: FloatArray | None = None
) -> tuple[float, FloatArray]:
    """Mean outcome that the treated would have had untreated, with influence values; control weights are normalised odds."""
    given = np.ones(len(outcome)) if weights is None else weights
    treated = given * treatment
    share = treated.mean()
    odds = given * (1.0 - treatment) * propensity / (1.0 - propensity)
    scores = (treated * untreated + odds / odds.mean() * share * (outcome - untreated)) / share
    mean = float(scores.mean())
    return mean, scores - treated / share * mean


def _augmented_by_overlap(outcome: FloatArray, inside: FloatArray, tilt: FloatArray, mean: FloatArray) -> tuple[float, FloatArray]:
    """Mean outcome of one arm over the overlap population (Mao, Li and Greene 2019), with influence values.

    Parameters
    ----------
    inside : shape (n,), overlap weight of the arm's rows, 0 for others
    tilt : shape (n,), e (1 - e) times sampling weights
    """
    scores = tilt / tilt.mean() * mean + inside / inside.mean() * (outcome - mean)
    estimate = float(scores.mean())
    return estimate, scores - tilt / tilt.mean() * estimate


def arm_means(
    outcome: FloatArray,
    treatment: FloatArray,
    propensity: FloatArray,
    means: tuple[FloatArray, FloatArray],
    *,
    estimand: Target,
    weights: FloatArray | None = None,
) -> tuple[tuple[float, FloatArray], tuple[float, FloatArray]]:
    """(mean, influence values) untreated and treated, over everybody (ATE), the treated (ATT) or by overlap (ATO).

    Parameters
    ----------
    means : conditional means untreated and treated, shape (n,) each; the second is not used for the ATT
    """
    if estimand == "ATE":
        down = augmented_mean(outcome, 1.0 - treatment, 1.0 - propensity, means[0], weights=weights)
        return down, augmented_mean(outcome, treatment, propensity, means[1], weights=weights)
    if estimand == "ATO":
        given = np.ones(len(outcome)) if weights is None else weights
        tilt = given * propensity * (1.0 - propensity)
        down = _augmented_by_overlap(outcome, given * (1.0 - treatment) * propensity, tilt, means[0])
        return down, _augmented_by_overlap(outcome, given * treatment * (1.0 - propensity), tilt, means[1])
    down = augmented_mean_of_treated(outcome, treatment, propensity, means[0], weights=weights)
    treated = treatment if weights is None else weights * treatment
    mean = float(treated @ outcome / treated.sum())
    return down, (mean, treated / treated.mean() * (outcome - mean))


@dataclass(frozen=True, kw_only=True)
class DoublyRobust:
    """The whole estimator as one call, from arrays to `Fit`; what refuters fit again."""

    estimand: Target
    repetitions: int = 1

    def __call__(self, outcome: FloatArray, treatment: FloatArray, covariates: FloatArray, *, groups: IntArray, seed: int) -> Fit:
        """Fit from scratch.

        Parameters
        ----------
        outcome, treatment, groups : shape (n,)
        covariates : shape (n, k), finite, no constant column
        """
        features = make_features(covariates)
        propensity = fit_propensity(features, treatment, groups, outcome=outcome, repetitions=self.repetitions, seed=seed)
        return doubly_robust(features, outcome, treatment, propensity=propensity, estimand=self.estimand, seed=seed)
