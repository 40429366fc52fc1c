"""Instrumental variables: two-stage least squares, with the cross-fitted estimator beside it."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.designs.controls import placebo_outcomes
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, refused_by, told_reasons
from e2i.causal.hazards import validate
from e2i.causal.iv.checks import estimate_hazards, instrument_hazards, raise_refused
from e2i.causal.iv.dml_iv import DMLIV
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.domain.evidence import CausalFinding, Effect, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, DataError

_OVERIDENTIFICATION = 0.01
_ORDER = frozenset(("dates_as_text", "outcome_before_treatment", "entry_after_treatment"))
"""checks of the table that instruments do not make themselves"""
_MOST_ROWS_CROSS_FITTED = 200_000


def estimate(
    frame: pl.DataFrame,
    *,
    effect: EffectSpec,
    identification: Identification,
    seed: int,
) -> Estimation | CausalFinding:
    """The effect that the instruments identify. Raises CausalError, and DataError when the table is unfit."""
    earlier = tuple(hazard for hazard in validate(frame, effect, unit=identification.unit) if hazard.code in _ORDER)
    if (refusal := refused_by(earlier, identification)) is not None:
        return refusal
    sample = prepare(frame, identification)
    hazards = (*earlier, *instrument_hazards(sample))
    raise_refused(hazards, override=identification.override)
    main = TwoStageLeastSquares().fit(sample, identification, seed=seed)
    others, notes = _others(sample, identification, main, seed=seed)
    is_binary = identification.treatment_kind == "binary"
    untreated = float(sample.outcome[sample.treatment == 0].mean()) if is_binary else None
    naive = float(sample.outcome[sample.treatment == 1].mean()) - untreated if untreated is not None else None
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certificate_of_sample(main, sample),
        ),
        reasons=told_reasons(identification),
        hazards=(*hazards, *estimate_hazards(main), *as_warnings((*main.notes, *notes, *sample.covariates.notes))),
        alternatives=others,
    )


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """Whether the instruments are strong, agree with one another, and leave alone what treatment cannot move."""
    sample = prepare(frame, identification)
    told = estimation.effect.diagnostics if estimation.effect is not None else {}
    placebos = placebo_outcomes(sample, lambda part: TwoStageLeastSquares().fit(part, identification, seed=seed))
    return (_strength(told), *_agreement(told), *placebos)


def _others(sample: Sample, identification: Identification, main: Estimate, *, seed: int) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Cross-fitted instrumental variables, and least squares without instruments; and what could not be had."""
    found: list[Effect] = []
    notes: list[str] = []
    if sample.covariates.matrix.shape[1] and len(sample.outcome) <= _MOST_ROWS_CROSS_FITTED:
        try:
            found.append(as_effect(DMLIV().fit(sample, identification, seed=seed), identification))
        except (CausalError, DataError) as error:  # the main estimate stands on its own
            notes.append(f"the cross-fitted estimator beside it is not to be had: {error}")
    if "least_squares" in main.diagnostics:
        slope, error_ = main.diagnostics["least_squares"], main.diagnostics["least_squares_se"]
        plain = replace(
            main,
            estimator="least squares without instruments (not the effect: shows what the instruments change)",
            estimand="association",
            estimate=slope,
            standard_error=error_,
            interval=(slope - 1.96 * error_, slope + 1.96 * error_),
            interval_method="normal, robust",
            p_value=None,
            diagnostics={},
        )
        found.append(as_effect(plain, identification, must_agree=False))
    return tuple(found), tuple(notes)


def _strength(told: dict[str, float]) -> Refutation:
    effective, critical = told["effective_f"], told["effective_f_critical"]
    passed = effective >= critical
    ending = "strong enough for the usual interval." if passed else "weak: the interval is Anderson and Rubin's, which stays valid."
    return Refutation(
        test="instrument_strength",
        passed=passed,
        detail=f"The effective first-stage F is {effective:.1f}, the critical value {critical:.1f}: {ending}",
        statistic=effective,
    )


def _agreement(told: dict[str, float]) -> list[Refutation]:
    if "hansen_j_p" not in told:
        return []
    p_value = told["hansen_j_p"]
    return [
        Refutation(
            test="overidentification",
            passed=p_value >= _OVERIDENTIFICATION,
            detail=f"Hansen's J tests whether all instruments tell the same effect: p = {p_value:.3f}.",
            statistic=told["hansen_j"],
            p_value=p_value,
        )
    ]
