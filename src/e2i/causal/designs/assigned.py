"""A yes/no treatment that chance assigned: plain differences, with regression adjustment beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.balance import balance
from e2i.causal.cate.forest import MINIMUM_ROWS
from e2i.causal.design import Identification, Sample
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.designs.lottery import about_strata, concerns_about_the_lottery
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, told_reasons
from e2i.causal.estimators.cross_fit import fold_groups
from e2i.causal.estimators.doubly_robust import Fit, Propensity, doubly_robust, fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.unadjusted import DifferenceInMeans, RegressionAdjusted
from e2i.causal.estimators.within_strata import WithinStrata, shares_within
from e2i.causal.hazards import Concern, concerns_about_losses, concerns_about_rows
from e2i.domain.evidence import Hazard, Refutation
from e2i.errors import TooFewRows

_ALIKE = 1e-3
"""shares of the treated that differ no more are one share"""


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation:
    """The difference in means, or with covariates Lin's regression with the plain difference beside it; within strata where there are."""
    main = _fit(sample, identification, seed=seed)
    plain = _plain(sample, identification, seed=seed)
    naive = plain.estimate if sample.strata is None else DifferenceInMeans().fit(sample, identification, seed=seed).estimate
    each = np.ones(len(sample.treatment)) if sample.weights is None else sample.weights
    has_covariates = sample.covariates.matrix.shape[1] > 0
    untreated = sample.treatment == 0
    propensity, fit = _for_segments(sample, identification, seed=seed) or (None, None)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=float(np.average(sample.outcome[untreated], weights=each[untreated])),
            certificate=certificate_of_sample(main, sample),
        ),
        balance=balance(sample.covariates, sample.treatment, _as_compared(sample, each), base=sample.weights, cluster=sample.cluster)
        if has_covariates
        else (),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *sample.covariates.notes))),
        alternatives=(as_effect(plain, identification),) if main.estimator != plain.estimator else (),
        concerns=(*_concerns(sample, is_randomised=identification.is_randomised), *about_strata(main)),
        propensity=propensity,
        fit=fit,
    )


def refute(sample: Sample, identification: Identification, *, seed: int) -> tuple[Refutation, ...]:
    """Outcomes that the assignment cannot have moved."""
    return placebo_outcomes(sample, lambda part: _fit(part, identification, seed=seed))


def _for_segments(sample: Sample, identification: Identification, *, seed: int) -> tuple[Propensity, Fit] | None:
    """Cross-fitted nuisances, from which effects by segment start; None where nobody asked, or where rows or clusters are too few."""
    if not identification.modifiers or identification.design != "cross_section" or len(sample.outcome) < MINIMUM_ROWS:
        return None
    try:
        groups = fold_groups(sample)
    except TooFewRows:  # segments then say so; the average effect stands without them
        return None
    features, rounds = make_features(_with_chances(sample), sample.weights), repetitions_for(len(sample.outcome))
    propensity = fit_propensity(features, sample.treatment, groups, outcome=sample.outcome, repetitions=rounds, seed=seed)
    estimand = identification.average
    return propensity, doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand=estimand, seed=seed)


def _with_chances(sample: Sample) -> FloatArray:
    """Covariates, and the log odds of treatment in each stratum where they differ: a propensity without them would miss the draw."""
    matrix = sample.covariates.matrix
    if sample.strata is None:
        return matrix
    chance = shares_within(sample.strata, sample.treatment == 1, sample.weights)
    edge = 0.5 / np.bincount(sample.strata)[sample.strata]
    odds = np.log(np.clip(chance, edge, 1.0 - edge) / (1.0 - np.clip(chance, edge, 1.0 - edge)))
    return matrix if np.ptp(chance) < _ALIKE else np.column_stack([matrix, odds])


def _as_compared(sample: Sample, each: FloatArray) -> FloatArray:
    """What rows count in the comparison: in each stratum both arms stand for all of it; strata of one arm count nothing."""
    if sample.strata is None:
        return each
    chance = shares_within(sample.strata, sample.treatment == 1, sample.weights)
    own = np.where(sample.treatment == 1, chance, 1.0 - chance)
    return np.where((chance > 0) & (chance < 1), each / np.maximum(own, 1e-300), 0.0)


def _concerns(sample: Sample, *, is_randomised: bool) -> tuple[Concern, ...]:
    """Without covariates rows that agree are no copies: arm and outcome is all they have."""
    if sample.covariates.matrix.shape[1] == 0:
        return concerns_about_losses(sample)
    return (*concerns_about_rows(sample), *(concerns_about_the_lottery(sample) if is_randomised else ()))


def _plain(sample: Sample, identification: Identification, *, seed: int) -> Estimate:
    estimator = DifferenceInMeans() if sample.strata is None else WithinStrata(is_adjusted=False)
    return estimator.fit(sample, identification, seed=seed)


def _fit(sample: Sample, identification: Identification, *, seed: int) -> Estimate:
    """Covariates that the smaller arm cannot carry are left aside: chance assigned, so the plain difference needs none."""
    plain = _plain(sample, identification, seed=seed)
    if sample.covariates.matrix.shape[1] == 0:
        return plain
    try:
        estimator = RegressionAdjusted() if sample.strata is None else WithinStrata()
        return estimator.fit(sample, identification, seed=seed)
    except TooFewRows as error:
        return replace(plain, notes=(*plain.notes, f"covariates are left aside: {error.what}"))
