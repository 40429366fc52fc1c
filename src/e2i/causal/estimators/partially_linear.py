"""Partially linear model: the slope of the outcome in a dose, once both are freed from what the covariates predict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import MINIMUM_PER_ARM, Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.cross_fit import arm_counts, fold_groups, joined, require_covariates, require_finite
from e2i.causal.estimators.dose_bend import bend
from e2i.causal.estimators.doubly_robust import repetitions_for
from e2i.causal.estimators.features import Features, make_features
from e2i.causal.estimators.nuisances import kind_of, library, make_folds, out_of_fold, screen, stack, used
from e2i.errors import NoVariation, PositivityViolated, TooFewRows

_MINIMUM_ROWS = 2 * MINIMUM_PER_ARM
_MINIMUM_UNEXPLAINED = 0.01


@dataclass(frozen=True, kw_only=True)
class PartiallyLinear:
    """Y = θ D + g(X) + ε by double machine learning, partialling out (Robinson 1988; Chernozhukov et al. 2018, section 4.1).

    For a dose the estimand is the average slope (APE); where slopes differ, rows whose dose is less predictable count more.
    For a 0/1 treatment those weights are the overlap weights, so the estimand is the ATO.
    """

    repetitions: int | None = None

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG002 - the protocol's spec
        """Estimate per unit of dose, with a normal interval, or Student's t over clusters.

        Raises
        ------
        NotIdentified
            Nothing is adjusted for, or a value is missing.
        NoVariation, TooFewRows
            The dose or outcome is constant, fewer than 60 rows, or fewer than 10 clusters.
        PositivityViolated
            The covariates predict more than 99 % of the dose.
        """
        require_finite(data)
        require_covariates(data)
        _require_dose(data)
        groups = fold_groups(data)
        features = make_features(data.covariates.matrix, data.weights)
        strata = data.treatment.astype(np.int64) if kind_of(data.treatment) == "binary" else np.zeros(len(groups), dtype=np.int64)
        rounds = repetitions_for(len(groups)) if self.repetitions is None else self.repetitions
        folds = np.stack([make_folds(groups, strata, seed=seed * 1009 + r) for r in range(rounds)])
        dose, dose_learners = conditional_mean(features, data.treatment, folds=folds, seed=seed)
        outcome, outcome_learners = conditional_mean(features, data.outcome, folds=folds, seed=seed)
        named = {f"dose_{name}": weight for name, weight in dose_learners.items()}
        named |= {f"outcome_{name}": weight for name, weight in outcome_learners.items()}
        return _slope(data, dose, outcome, diagnostics=named)


def conditional_mean(features: Features, target: FloatArray, *, folds: IntArray, seed: int) -> tuple[FloatArray, dict[str, float]]:
    """Cross-fitted, stacked E[target | covariates], shape (repetitions, n), and the weight by learner.

    Parameters
    ----------
    folds : shape (repetitions, n)
    """
    candidates = screen(features, target, folds=folds[0], candidates=library(kind_of(target), seed=seed))
    first = out_of_fold(features, target, folds=folds[0], candidates=candidates)[0]
    weights = stack(first, target, candidates=candidates, row_weights=features.weights)
    kept, columns = used(candidates, weights)
    others = [out_of_fold(features, target, folds=again, candidates=kept)[0] @ weights.weights[columns] for again in folds[1:]]
    return np.stack([first @ weights.weights, *others]), weights.describe()


def _slope(data: Sample, dose: FloatArray, outcome: FloatArray, *, diagnostics: dict[str, float]) -> Estimate:
    given = np.ones(len(data.outcome)) if data.weights is None else data.weights
    freed, rest = data.treatment - dose, data.outcome - outcome
    unexplained = float((given * freed**2).mean() / (given * (data.treatment - np.average(data.treatment, weights=given)) ** 2).mean())
    if unexplained < _MINIMUM_UNEXPLAINED:
        raise PositivityViolated(
            f"the confounders predict {1.0 - unexplained:.1%} of the treatment's variance; what is left carries no comparison.",
            where="treatment",
            advice="Drop confounders that decide treatment without moving the outcome, or change the question.",
        )
    bread = (given * freed**2).mean(axis=1)
    slopes = (given * freed * rest).mean(axis=1) / bread
    influence = given * freed * (rest - slopes[:, None] * freed) / bread[:, None]
    is_binary = kind_of(data.treatment) == "binary"
    bent = {} if is_binary else bend(freed.mean(axis=0), rest.mean(axis=0), data, expected=dose.mean(axis=0))
    weighting = "units that could have gone either way" if is_binary else "units whose dose is less predictable"
    return joined(
        data,
        slopes,
        influence,
        estimator="double machine learning, partially linear, stacked nuisances",
        estimand="ATO" if is_binary else "APE",
        diagnostics=diagnostics | {"unexplained_share": unexplained} | bent,
        notes=(f"where effects differ between units, {weighting} count more",),
        **arm_counts(data),
    )


def _require_dose(data: Sample) -> None:
    if np.ptp(data.treatment) == 0:
        raise NoVariation(f"the treatment is {data.treatment[0]:g} in every row.", where="treatment", advice="A slope needs several doses.")
    if len(data.outcome) < _MINIMUM_ROWS:
        raise TooFewRows(f"fewer than {_MINIMUM_ROWS} rows.", where="outcome", advice="Collect more rows.")
