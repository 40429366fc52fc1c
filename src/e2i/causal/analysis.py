"""A causal question from frame to finding: estimate, refute, judge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Average, Identification, Sample, identify, prepare
from e2i.causal.estimators.doubly_robust import DoublyRobust, Fit, Propensity, doubly_robust, fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.nuisances import kind_of
from e2i.causal.gate import judge
from e2i.causal.hazards import Concern, concerns_about_rows, copied_share, refuse_hopeless
from e2i.causal.overlap import balance, measure_overlap, require_both_arms_in_levels, require_overlap, weights
from e2i.causal.refute import enough_for_control, negative_control, placebo_treatment, random_common_cause, subset_stability
from e2i.causal.sensitivity import e_value, hidden_confounder_bound
from e2i.domain.evidence import BalanceRow, CausalFinding, Effect, Overlap, Refutation, Verdict
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, PositivityViolated

ESTIMATOR = "cross-fitted doubly robust (AIPW), stacked nuisances"
_FAMILY_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """An effect with its diagnostics, and the fitted nuisances that refuters reuse."""

    effect: Effect
    overlap: Overlap
    balance: tuple[BalanceRow, ...]
    concerns: tuple[Concern, ...]
    propensity: Propensity
    fit: Fit


def analyse(frame: pl.DataFrame, *, effect: EffectSpec, unit: str | None = None, seed: int) -> CausalFinding:
    """Estimate, refute and judge an average effect.

    Parameters
    ----------
    frame : one row per unit
    effect : roles of columns
    unit : identifier column, checked to be unique
    seed : decides folds and random draws; the same seed gives the same finding

    Returns
    -------
    CausalFinding
        When the effect cannot be estimated from these data, `effect` is None, `refusal` says why and the verdict is `block`.

    Raises
    ------
    SchemaMismatch, TooFewRows, DataError, LeakageFound
        The table itself is unfit; see `design.prepare`, `hazards.refuse_hopeless`.
    """
    try:
        identification = identify(effect, columns=frame.columns, unit=unit)
    except CausalError as error:
        return refused(error)
    estimation = estimate(frame, identification=identification, unit=unit, seed=seed)
    if isinstance(estimation, CausalFinding):
        return estimation
    refutations = refute(frame, estimation, identification=identification, unit=unit, seed=seed)
    return conclude(estimation, refutations)


def estimate(frame: pl.DataFrame, *, identification: Identification, unit: str | None = None, seed: int) -> Estimation | CausalFinding:
    """The effect with overlap and balance, or the finding that says why there is none. Raises as `analyse` does."""
    try:
        sample = prepare(frame, identification, unit=unit)
        refuse_hopeless(sample)
        require_both_arms_in_levels(sample.covariates, sample.treatment, identification.average)
    except CausalError as error:
        return refused(error)
    features = make_features(sample.covariates.matrix)
    propensity = fit_propensity(features, sample.treatment, sample.groups, repetitions=repetitions_for(len(sample.outcome)), seed=seed)
    chance = propensity.mean
    overlap = measure_overlap(sample.treatment, chance, identification.average)
    table = balance(sample.covariates, sample.treatment, chance, identification.average)
    try:
        require_overlap(overlap, propensity=chance, estimand=identification.average)
    except PositivityViolated as error:
        return replace(refused(error), overlap=overlap, balance=table)
    fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand=identification.average, seed=seed)
    notes = tuple(Concern(severity="review", text=note) for note in sample.covariates.notes if "rare levels" in note)
    return Estimation(
        effect=_effect(sample, fit, propensity, identification),
        overlap=overlap,
        balance=table,
        concerns=(*concerns_about_rows(sample), *notes),
        propensity=propensity,
        fit=fit,
    )


def refute(
    frame: pl.DataFrame, estimation: Estimation, *, identification: Identification, unit: str | None = None, seed: int
) -> tuple[Refutation, ...]:
    """All refuters on one estimation; `frame`, `identification` and `seed` as given to `estimate`."""
    sample = prepare(frame, identification, unit=unit)
    fit, propensity = estimation.fit, estimation.propensity
    estimator = DoublyRobust(estimand=fit.estimand)
    halves = subset_stability(sample, fit, estimator=estimator, seed=seed)
    return (
        placebo_treatment(sample, fit, propensity, estimator=estimator, seed=seed),
        *(() if halves is None else (halves,)),
        random_common_cause(sample, fit, estimator=estimator, seed=seed),
        *_negative_controls(sample, propensity, fit.estimand, seed=seed),
        hidden_confounder_bound(sample, fit, propensity),
    )


def conclude(estimation: Estimation, refutations: tuple[Refutation, ...]) -> CausalFinding:
    """The finding with its verdict."""
    verdict = judge(
        estimation.effect,
        overlap=estimation.overlap,
        balance=estimation.balance,
        refutations=refutations,
        concerns=estimation.concerns,
    )
    return CausalFinding(
        effect=estimation.effect, verdict=verdict, overlap=estimation.overlap, balance=estimation.balance, refutations=refutations
    )


def refused(error: CausalError) -> CausalFinding:
    """The finding that there is no estimate, and why."""
    return CausalFinding(
        effect=None, verdict=Verdict(name="block", reasons=(str(error),)), overlap=None, balance=(), refutations=(), refusal=str(error)
    )


def _negative_controls(sample: Sample, propensity: Propensity, estimand: Average, *, seed: int) -> list[Refutation]:
    """Each control with the same adjustment and the same propensity, on the rows where it was recorded."""
    usable = {name: values for name, values in sample.negative_controls.items() if enough_for_control(values, sample.treatment)}
    results = []
    for name, values in usable.items():
        known = ~np.isnan(values)
        matrix = sample.covariates.matrix[known]
        features = make_features(matrix[:, matrix.std(axis=0) > 0])
        part = replace(propensity, raw=propensity.raw[:, known], folds=propensity.folds[:, known])
        fit = doubly_robust(features, values[known], sample.treatment[known], propensity=part, estimand=estimand, seed=seed)
        results.append(negative_control(name, values, fit, rows=int(known.sum()), level=_FAMILY_LEVEL / len(usable)))
    return results


def _effect(sample: Sample, fit: Fit, propensity: Propensity, identification: Identification) -> Effect:
    treated = sample.treatment == 1
    untreated_mean = float(sample.outcome[~treated].mean())
    return Effect(
        estimand=identification.estimand,
        design=identification.design,
        estimator=ESTIMATOR,
        estimate=fit.estimate,
        standard_error=fit.standard_error,
        n_treated=int(treated.sum()),
        n_untreated=int((~treated).sum()),
        naive_difference=float(sample.outcome[treated].mean()) - untreated_mean,
        outcome_mean_untreated=untreated_mean,
        diagnostics=_diagnostics(sample, fit, propensity, untreated_mean),
    )


def _diagnostics(sample: Sample, fit: Fit, propensity: Propensity, untreated_mean: float) -> dict[str, float]:
    outcome, treatment = sample.outcome, sample.treatment
    weighted, weighted_error = _weighting(outcome, treatment, propensity.mean, fit.estimand)
    variance = (fit.influence**2).mean(axis=0)
    values = {
        "rows_given": float(sample.rows_given),
        "rows_used": float(len(outcome)),
        "missing_treatment": float(sample.missing_treatment),
        "missing_outcome": float(sample.missing_outcome),
        "copied_share": copied_share(sample),
        "adjusted_columns": float(sample.covariates.matrix.shape[1]),
        "fold_spread": float(fit.estimates.std() / fit.standard_error),
        "largest_row_share": float(variance.max() / variance.sum()),
        "weighting_estimate": weighted,
        "weighting_gap": float((weighted - fit.estimate) / np.hypot(weighted_error, fit.standard_error)),
    }
    ratio = e_value(fit.estimate, untreated_mean=untreated_mean, outcome_sd=float(outcome.std()), is_binary=kind_of(outcome) == "binary")
    if ratio is not None:
        values["e_value"] = ratio
    values |= {f"propensity_{name}": weight for name, weight in propensity.learners.items()}
    values |= {f"outcome_{name}": weight for name, weight in fit.learners.items()}
    return values


def _weighting(outcome: FloatArray, treatment: FloatArray, propensity: FloatArray, estimand: Average) -> tuple[float, float]:
    """The estimate by weighting alone, with its standard error given the weights."""
    weight = weights(treatment, propensity, estimand)
    treated = treatment == 1
    up, down = float(weight[treated] @ outcome[treated]), float(weight[~treated] @ outcome[~treated])
    residual = outcome - np.where(treated, up, down)
    return up - down, float(np.sqrt(np.sum((weight * residual) ** 2)))
