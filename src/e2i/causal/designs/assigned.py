"""A yes/no treatment that chance assigned: plain differences, with regression adjustment beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.balance import balance
from e2i.causal.cate.forest import MINIMUM_ROWS
from e2i.causal.design import Identification, Sample
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.designs.lottery import concerns_about_the_lottery
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, told_reasons
from e2i.causal.estimators.cross_fit import fold_groups
from e2i.causal.estimators.doubly_robust import Fit, Propensity, doubly_robust, fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.unadjusted import DifferenceInMeans, RegressionAdjusted
from e2i.causal.hazards import Concern, concerns_about_losses, concerns_about_rows
from e2i.domain.evidence import Hazard, Refutation
from e2i.errors import TooFewRows


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation:
    """The difference in means, or with covariates Lin's regression with the plain difference beside it."""
    main = _fit(sample, identification, seed=seed)
    plain = DifferenceInMeans().fit(sample, identification, seed=seed)
    each = np.ones(len(sample.treatment)) if sample.weights is None else sample.weights
    has_covariates = sample.covariates.matrix.shape[1] > 0
    untreated = sample.treatment == 0
    propensity, fit = _for_segments(sample, identification, seed=seed) or (None, None)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=plain.estimate,
            outcome_mean_untreated=float(np.average(sample.outcome[untreated], weights=each[untreated])),
            certificate=certificate_of_sample(main, sample),
        ),
        balance=balance(sample.covariates, sample.treatment, each, base=sample.weights) if has_covariates else (),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *sample.covariates.notes))),
        alternatives=(as_effect(plain, identification),) if main.estimator != plain.estimator else (),
        concerns=_concerns(sample, is_randomised=identification.is_randomised),
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
    features, rounds = make_features(sample.covariates.matrix, sample.weights), repetitions_for(len(sample.outcome))
    propensity = fit_propensity(features, sample.treatment, groups, outcome=sample.outcome, repetitions=rounds, seed=seed)
    estimand = identification.average
    return propensity, doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand=estimand, seed=seed)


def _concerns(sample: Sample, *, is_randomised: bool) -> tuple[Concern, ...]:
    """Without covariates rows that agree are no copies: arm and outcome is all they have."""
    if sample.covariates.matrix.shape[1] == 0:
        return concerns_about_losses(sample)
    return (*concerns_about_rows(sample), *(concerns_about_the_lottery(sample) if is_randomised else ()))


def _fit(sample: Sample, identification: Identification, *, seed: int) -> Estimate:
    """Covariates that the smaller arm cannot carry are left aside: chance assigned, so the plain difference needs none."""
    plain = DifferenceInMeans().fit(sample, identification, seed=seed)
    if sample.covariates.matrix.shape[1] == 0:
        return plain
    try:
        return RegressionAdjusted().fit(sample, identification, seed=seed)
    except TooFewRows as error:
        return replace(plain, notes=(*plain.notes, f"covariates are left aside: {error.what}"))
