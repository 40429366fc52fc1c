"""A dose, or a treatment with several levels, one row per unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from e2i.causal.design import Identification, Sample
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.designs.lottery import about_strata, concerns_about_the_lottery
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, told_reasons
from e2i.causal.estimators.multi_level import MultiLevel
from e2i.causal.estimators.partially_linear import PartiallyLinear
from e2i.causal.estimators.random_dose import plain_contrasts, slope, slope_within
from e2i.causal.estimators.within_strata import contrasts_within
from e2i.causal.hazards import concerns_about_filled, concerns_about_rows, refuse_hopeless
from e2i.domain.evidence import Hazard, Refutation
from e2i.errors import TooFewRows

_BENT, _CLEAR = 0.001, 3.0


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation:
    """The average slope of a dose, or every level against the reference. Raises CausalError and DataError."""
    refuse_hopeless(sample)
    found = _fit(sample, identification, seed=seed)
    main = found[0]
    effect = as_effect(main, identification, certificate=certificate_of_sample(main, sample))
    if identification.treatment_kind == "multi_level":
        effect = replace(effect, outcome_mean_untreated=float(sample.outcome[sample.treatment == 0].mean()))
        others = tuple(as_effect(other, identification, must_agree=False) for other in found[1:])
    else:
        others = ()
    return Estimation(
        effect=effect,
        reasons=told_reasons(identification),
        hazards=(*hazards, *about_bend(main.diagnostics), *as_warnings((*main.notes, *sample.covariates.notes))),
        alternatives=others,
        concerns=(
            *concerns_about_rows(sample),
            *(
                (*concerns_about_the_lottery(sample), *about_strata(main))
                if identification.is_randomised
                else concerns_about_filled(sample)
            ),
        ),
    )


def refute(sample: Sample, identification: Identification, *, seed: int) -> tuple[Refutation, ...]:
    """Outcomes that the treatment cannot move."""
    return placebo_outcomes(sample, lambda part: _fit(part, identification, seed=seed)[0])


def about_bend(told: Mapping[str, float]) -> tuple[Hazard, ...]:
    """One slope told for a dose whose effect is not the same at low and high doses; a person looks where it turns round.

    Parameters
    ----------
    told : as `dose_bend.bend` gives it
    """
    p_value = told.get("bend_p", 1.0)
    if p_value >= _BENT:
        return ()
    low, high = told["slope_low"], told["slope_high"]
    text = f"one unit more brings about {low:.3g} at low doses and {high:.3g} at high ones (beyond chance): "
    remedy = "Cut the dose into levels (`data.derive`, then `reference`) and compare them."
    if low * high < 0 and all(abs(told[side]) > _CLEAR * told[f"{side}_se"] for side in ("slope_low", "slope_high")):
        text += "the effect turns round, which the average slope hides."
        return (Hazard(code="dose_turns", action="review", text=text, remedy=remedy, measured=p_value, threshold=_BENT),)
    text += "the slope that is told is an average over doses."
    return (Hazard(code="dose_bends", action="warn", text=text, remedy=remedy, measured=p_value, threshold=_BENT),)


def _fit(sample: Sample, identification: Identification, *, seed: int) -> tuple[Estimate, ...]:
    """For levels first the contrast that stands out most, then the others; their intervals hold jointly."""
    is_plain = identification.is_randomised and sample.covariates.matrix.shape[1] == 0
    if identification.treatment_kind == "continuous":
        if sample.strata is not None:
            return (slope_within(sample),)
        return (slope(sample) if is_plain else PartiallyLinear().fit(sample, identification, seed=seed),)
    if sample.strata is not None:
        found = _contrasts_within(sample, identification, seed=seed)
    else:
        found = plain_contrasts(sample, identification, seed=seed) if is_plain else MultiLevel().fit_many(sample, identification, seed=seed)
    order = np.argsort([-abs(each.estimate) / each.standard_error for each in found], kind="stable")
    return tuple(found[place] for place in order)


def _contrasts_within(sample: Sample, identification: Identification, *, seed: int) -> tuple[Estimate, ...]:
    """Covariates that the rows cannot carry are left aside, as after a lottery without strata."""
    try:
        return contrasts_within(sample, identification, is_adjusted=sample.covariates.matrix.shape[1] > 0, seed=seed)
    except TooFewRows as error:
        note = f"covariates are left aside: {error.what}"
        plain = contrasts_within(sample, identification, is_adjusted=False, seed=seed)
        return tuple(replace(each, notes=(*each.notes, note)) for each in plain)
