"""A yes/no treatment whose common causes were not measured, and mediators that carry all of its effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.designs.instrument_placebos import Bound, bias_bound
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, told_reasons
from e2i.causal.hazards import concerns_about_rows, refuse_hopeless
from e2i.causal.iv.front_door import FrontDoor
from e2i.domain.disclosure import counted
from e2i.domain.evidence import Hazard, Refutation

_MANY_LOST = 0.05


def mediated(frame: pl.DataFrame, identification: Identification) -> Sample:
    """The sample with its mediators encoded where adjusted designs keep confounders. Raises as `design.prepare`.

    A missing mediator is no value that treatment brings about: its rows are left out.
    """
    known = [
        pl.col(name).is_not_null() & (pl.col(name).is_not_nan() if frame[name].dtype.is_float() else True)
        for name in identification.mediators
    ]
    sample = prepare(frame.filter(*known), replace(identification, adjustment=identification.mediators))
    return replace(sample, rows_given=frame.height)


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
        hazards=(*hazards, *_about_rows(sample), *as_warnings((*main.notes, *sample.covariates.notes))),
        concerns=concerns_about_rows(sample),
    )


def _about_rows(sample: Sample) -> tuple[Hazard, ...]:
    """Rows that a missing value left out; many of them may be unlike the others."""
    lost = sample.rows_given - len(sample.outcome)
    if lost == 0:
        return ()
    share = lost / sample.rows_given
    text = f"{counted(lost, 'rows')} lack treatment, outcome or a mediator and were left out."
    remedy = "Complete them at the source: rows that are left out may be unlike the others."
    action: Literal["review", "warn"] = "review" if share > _MANY_LOST else "warn"
    return (Hazard(code="incomplete_rows", action=action, text=text, remedy=remedy, measured=share, threshold=_MANY_LOST),)


def refute(sample: Sample, identification: Identification, *, seed: int, estimation: Estimation | None = None) -> tuple[Refutation, ...]:
    """Outcomes that the treatment cannot move by way of the mediators; with the estimation also how much bias they leave possible."""
    tests = placebo_outcomes(sample, lambda part: _fit(part, identification, seed=seed))
    if estimation is None or estimation.effect is None:
        return tests
    values = {**sample.negative_controls, **sample.pre_outcomes}
    bounds = [
        Bound(name=name, estimate=test.estimate, error=abs(test.estimate / test.statistic), scale=float(np.nanstd(values[name])))
        for test in tests
        if test.estimate is not None and test.statistic and (name := test.test.partition(":")[2]) in values
    ]
    return (*tests, *((bias_bound(bounds, sample, estimation.effect),) if bounds else ()))


def _fit(sample: Sample, identification: Identification, *, seed: int) -> Estimate:
    return FrontDoor(mediators=sample.covariates).fit(sample, identification, seed=seed)
