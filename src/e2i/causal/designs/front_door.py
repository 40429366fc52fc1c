"""A yes/no treatment whose common causes were not measured, and mediators that carry all of its effect."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, told_reasons
from e2i.causal.hazards import concerns_about_rows, refuse_hopeless
from e2i.causal.iv.front_door import FrontDoor
from e2i.domain.evidence import Hazard, Refutation


def mediated(frame: pl.DataFrame, identification: Identification) -> Sample:
    """The sample with its mediators encoded where adjusted designs keep confounders. Raises as `design.prepare`."""
    return prepare(frame, replace(identification, adjustment=identification.mediators))


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation:
    """The effect by way of the mediators. Raises CausalError and DataError."""
    refuse_hopeless(sample)
    main = _fit(sample, identification, seed=seed)
    untreated = sample.treatment == 0
    mean = float(sample.outcome[untreated].mean())
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=float(sample.outcome[~untreated].mean()) - mean,
            outcome_mean_untreated=mean,
            certificate=certificate_of_sample(main, sample),
        ),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *sample.covariates.notes))),
        concerns=concerns_about_rows(sample),
    )


def refute(sample: Sample, identification: Identification, *, seed: int) -> tuple[Refutation, ...]:
    """Outcomes that the treatment cannot move by way of the mediators."""
    return placebo_outcomes(sample, lambda part: _fit(part, identification, seed=seed))


def _fit(sample: Sample, identification: Identification, *, seed: int) -> Estimate:
    return FrontDoor(mediators=sample.covariates).fit(sample, identification, seed=seed)
