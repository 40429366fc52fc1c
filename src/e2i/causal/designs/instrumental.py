"""Instrumental variables: two-stage least squares, with the cross-fitted estimator beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.designs.dosed import about_bend
from e2i.causal.designs.instrument_placebos import placebos
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, certificate_of_sample, refused_by, told_reasons
from e2i.causal.estimators.dose_bend import bend_through
from e2i.causal.estimators.within_strata import centred_within
from e2i.causal.hazards import concerns_about_filled, concerns_about_rows, validate
from e2i.causal.iv.checks import estimate_hazards, examine, imbalance, raise_refused
from e2i.causal.iv.curvature import about_curvature
from e2i.causal.iv.dml_iv import DMLIV
from e2i.causal.iv.levels import Spread, every_level
from e2i.causal.iv.lost_rows import about_missing_instruments
from e2i.causal.iv.monotonicity import about_direction
from e2i.causal.iv.two_stage import TwoStageLeastSquares
from e2i.causal.iv.validity import kitagawa
from e2i.domain.disclosure import counted
from e2i.domain.evidence import CausalFinding, Effect, Hazard, Refutation
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, DataError

_OVERIDENTIFICATION = 0.01
_NOT_ASKED = frozenset(("perfect_separation", "segment_with_one_arm", "treatment_determined", "few_clusters"))
"""checks of the table that concern overlap between the arms, or that instruments make in their own way; all others hold here too"""
_MOST_ROWS_CROSS_FITTED = 200_000
_MOST_COLUMNS_CROSS_FITTED = 60
_MOST_INSTRUMENTS_CROSS_FITTED = 30
"""each is learned like an outcome: the cost grows with their number"""
_LOTTERY_Z = 3.5
_MOST_LEVELS_CROSS_FITTED = 30
"""learners that shrink coefficients towards zero are biased with many level columns; the linear estimator is not"""
_ASSUMED = "Assumed, and only partly tested: the instrument reaches the outcome through treatment alone, and moves nobody's the other way."


def estimate(
    frame: pl.DataFrame,
    *,
    effect: EffectSpec,
    identification: Identification,
    seed: int,
) -> Estimation | CausalFinding:
    """The effect that the instruments identify. Raises CausalError, and DataError when the table is unfit."""
    earlier = tuple(hazard for hazard in validate(frame, effect, unit=identification.unit) if hazard.code not in _NOT_ASKED)
    if (refusal := refused_by(earlier, identification)) is not None:
        return refusal
    spread = _spread(frame, identification)
    sample = prepare(spread.frame, spread.identification)
    found, residuals = examine(sample)
    raise_refused(found, override=identification.override)
    assert residuals is not None, "what has no residuals was refused"
    main = TwoStageLeastSquares().fit(sample, identification, seed=seed)
    others, notes, beside = _others(sample, identification, main, seed=seed)
    direction = about_direction(sample, residuals, seed=seed)
    curved = about_curvature(sample, seed=seed)
    late = (*estimate_hazards(main), *_from_beside(beside, direction))
    told = (*main.notes, *notes, *_about_rows(sample, identification), *_about_levels(spread), *sample.covariates.notes)
    lost = about_missing_instruments(frame, effect)
    bent = about_bend(bend_through(sample)) if identification.treatment_kind == "continuous" else ()
    hazards = (*found, *lost, *direction, *curved, *bent, *late, *_about_lottery(sample, identification), *_grouped(spread, sample))
    naive, untreated = _raw_means(sample, identification)
    return Estimation(
        effect=as_effect(
            main,
            identification,
            naive_difference=naive,
            outcome_mean_untreated=untreated,
            certificate=certificate_of_sample(main, sample),
        ),
        reasons=(*told_reasons(identification), _ASSUMED),
        hazards=(*earlier, *hazards, *as_warnings(told)),
        alternatives=others,
        concerns=(*concerns_about_rows(sample), *(() if identification.is_randomised else concerns_about_filled(sample))),
    )


def refute(frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, seed: int) -> tuple[Refutation, ...]:
    """Whether the instruments are strong, agree with one another, and leave alone what treatment cannot move."""
    assert estimation.effect is not None
    spread = _spread(frame, identification)
    sample = prepare(spread.frame, spread.identification)
    told = estimation.effect.diagnostics
    tests = placebos(sample, identification, estimation.effect)
    return (_strength(told), *_agreement(told), *kitagawa(sample, seed=seed), *tests)


def _spread(frame: pl.DataFrame, identification: Identification) -> Spread:
    """Strata of the lottery, whatever their type, have a level each."""
    return every_level(frame.with_columns(pl.col(name).cast(pl.String) for name in identification.drawn_within), identification)


def _from_beside(beside: Estimate | None, direction: tuple[Hazard, ...]) -> tuple[Hazard, ...]:
    """What only the cross-fitted estimator sees; its interval is not the one told."""
    said = {"unbounded_interval", *(hazard.code for hazard in direction)}
    return tuple(hazard for hazard in estimate_hazards(beside) if hazard.code not in said) if beside is not None else ()


def _raw_means(sample: Sample, identification: Identification) -> tuple[float | None, float | None]:
    """Difference of the arms without instruments, and the untreated mean; None for a dose."""
    if identification.treatment_kind != "binary":
        return None, None
    treated = sample.treatment == 1
    weights = np.ones(len(treated)) if sample.weights is None else sample.weights
    means = [float(np.average(sample.outcome[arm], weights=weights[arm])) for arm in (~treated, treated)]
    return means[1] - means[0], means[0]


def _about_rows(sample: Sample, identification: Identification) -> tuple[str, ...]:
    """Rows that a missing value left out."""
    lost = sample.rows_given - len(sample.outcome)
    if lost == 0:
        return ()
    names = ", ".join(f"`{name}`" for name in identification.instruments)
    return (f"{counted(lost, 'rows')} lack treatment, outcome, {names} or a confounder and were left out",)


def _about_levels(spread: Spread) -> tuple[str, ...]:
    return (f"categories among the confounders are adjusted for level by level, {spread.columns} columns",) if spread.columns else ()


def _grouped(spread: Spread, sample: Sample) -> tuple[Hazard, ...]:
    """Categories too large to be taken level by level."""
    notes = " ".join(note for note in sample.covariates.notes if "rare levels" in note)
    if not spread.too_large:
        return ()
    text = f"{', '.join(f'`{name}`' for name in spread.too_large)} has too many levels for these rows to take one by one. {notes}".strip()
    remedy = "Draw a random sample of rows, or group its levels in the source: an instrument assigned within levels needs them all."
    return (Hazard(code="levels_grouped", action="review", text=text, remedy=remedy),)


def _about_lottery(sample: Sample, identification: Identification) -> tuple[Hazard, ...]:
    """Where the study says that chance drew the instrument: the largest correlation with a covariate against what chance allows."""
    matrix = sample.covariates.matrix
    if not identification.is_randomised or sample.instruments is None or matrix.shape[1] == 0:
        return ()
    instruments = sample.instruments
    if sample.strata is not None:
        matrix, instruments = (centred_within(sample.strata, values) for values in (matrix, instruments))
    z = imbalance(matrix, instruments, clusters=sample.cluster)
    worst = int(np.argmax(z))
    if z[worst] <= _LOTTERY_Z + np.sqrt(2.0 * np.log(len(z))):
        return ()
    text = (
        f"the study says that chance assigned, but the instrument goes with `{sample.covariates.names[worst]}` "
        f"({z[worst]:.1f} standard errors)."
    )
    remedy = "If it was drawn within the levels of a column, name that under `randomised_within`; else leave `randomised` out."
    return (Hazard(code="instrument_unbalanced", action="review", text=text, remedy=remedy, measured=float(z[worst])),)


def _others(
    sample: Sample, identification: Identification, main: Estimate, *, seed: int
) -> tuple[tuple[Effect, ...], tuple[str, ...], Estimate | None]:
    """Cross-fitted instrumental variables, and least squares without instruments; what could not be had; the first as estimated."""
    found: list[Effect] = []
    notes: list[str] = []
    beside = None
    columns, levels = sample.covariates.matrix.shape[1], sum(sample.covariates.is_level)
    instruments = 0 if sample.instruments is None else sample.instruments.shape[1]
    if columns > _MOST_COLUMNS_CROSS_FITTED or levels > _MOST_LEVELS_CROSS_FITTED or instruments > _MOST_INSTRUMENTS_CROSS_FITTED:
        notes.append(
            f"the cross-fitted estimator beside it was left out: it takes up to {_MOST_COLUMNS_CROSS_FITTED} adjusted columns, "
            f"{_MOST_LEVELS_CROSS_FITTED} of them levels, and {_MOST_INSTRUMENTS_CROSS_FITTED} instruments (a category has one per level)"
        )
    elif columns and len(sample.outcome) <= _MOST_ROWS_CROSS_FITTED:
        try:
            beside = DMLIV().fit(sample, identification, seed=seed)
            found.append(as_effect(beside, identification))
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
    return tuple(found), tuple(notes), beside


def _strength(told: dict[str, float]) -> Refutation:
    effective, critical = told["effective_f"], told["effective_f_critical"]
    passed = effective >= critical
    ending = "strong enough for the estimate." if passed else "weak: the interval is Anderson and Rubin's, which stays valid."
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
