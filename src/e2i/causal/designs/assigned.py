"""A yes/no treatment that chance assigned: plain differences, with regression adjustment beside them."""

from __future__ import annotations

import numpy as np

from e2i.causal.design import Identification, Sample
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, told_reasons
from e2i.causal.estimators.unadjusted import DifferenceInMeans, RegressionAdjusted
from e2i.causal.hazards import concerns_about_rows
from e2i.causal.overlap import balance
from e2i.domain.evidence import Hazard, Refutation


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation:
    """The difference in means, or with covariates Lin's regression with the plain difference beside it."""
    has_covariates = sample.covariates.matrix.shape[1] > 0
    main = _fit(sample, identification, seed=seed)
    plain = DifferenceInMeans().fit(sample, identification, seed=seed)
    share = float(sample.treatment.mean())
    untreated = sample.treatment == 0
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=plain.estimate,
            outcome_mean_untreated=float(
                np.average(sample.outcome[untreated], weights=None if sample.weights is None else sample.weights[untreated])
            ),
            certificate=certificate_of_sample(main, sample),
        ),
        balance=balance(sample.covariates, sample.treatment, np.full(len(sample.treatment), share), "ATE") if has_covariates else (),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *sample.covariates.notes))),
        alternatives=(as_effect(plain, identification),) if has_covariates else (),
        concerns=concerns_about_rows(sample) if has_covariates else (),
    )


def refute(sample: Sample, identification: Identification, *, seed: int) -> tuple[Refutation, ...]:
    """Outcomes that the assignment cannot have moved."""
    return placebo_outcomes(sample, lambda part: _fit(part, identification, seed=seed))


def _fit(sample: Sample, identification: Identification, *, seed: int) -> Estimate:
    if sample.covariates.matrix.shape[1] > 0:
        return RegressionAdjusted().fit(sample, identification, seed=seed)
    return DifferenceInMeans().fit(sample, identification, seed=seed)
