"""A yes/no treatment that people chose: cross-fitted doubly robust scores on the measured common causes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.certificate import Shape, certify
from e2i.causal.design import Average, Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, refused, told_reasons
from e2i.causal.estimators.aipw import AIPW
from e2i.causal.estimators.cross_fit import Nuisances, fold_groups, require_covariates
from e2i.causal.estimators.doubly_robust import Fit, Propensity, doubly_robust, fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.matched import Matched
from e2i.causal.estimators.nuisances import kind_of
from e2i.causal.estimators.overlap_weighted import OverlapWeighted
from e2i.causal.estimators.ratio import RateRatio
from e2i.causal.hazards import Concern, concerns_about_rows, copied_share, refuse_hopeless
from e2i.causal.overlap import balance, measure_overlap, require_both_arms_in_levels, require_overlap, weights
from e2i.causal.refute.suite import refute_all
from e2i.causal.sensitivity import e_value
from e2i.causal.specification import specification_curve
from e2i.domain.evidence import CausalFinding, Effect, Hazard, Refutation
from e2i.errors import PositivityViolated

_MOST_ROWS_MATCHED = 50_000


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation | CausalFinding:
    """The effect with overlap, balance, specification curve and other estimators. Raises CausalError and DataError."""
    require_covariates(sample)
    refuse_hopeless(sample)
    estimand = identification.average
    require_both_arms_in_levels(sample.covariates, sample.treatment, estimand)
    features = make_features(sample.covariates.matrix, sample.weights)
    rounds = repetitions_for(len(sample.outcome))
    propensity = fit_propensity(features, sample.treatment, fold_groups(sample), repetitions=rounds, seed=seed)
    overlap = measure_overlap(sample.treatment, propensity.mean, estimand)
    table = balance(sample.covariates, sample.treatment, propensity.mean, estimand)
    try:
        require_overlap(overlap, propensity=propensity.mean, estimand=estimand)
    except PositivityViolated as error:
        return replace(refused(error, hazards=hazards, reasons=told_reasons(identification)), overlap=overlap, balance=table)
    fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand=estimand, seed=seed)
    nuisances = Nuisances(
        features=features, propensity=propensity, untreated=fit.untreated_mean, treated=fit.treated_mean, learners=fit.learners
    )
    ours = AIPW().estimate(sample, replace(identification, estimand=estimand), nuisances)
    main = _main(sample, identification, ours, nuisances, seed=seed)
    others, missed = _others(sample, identification, (ours, main), nuisances, seed=seed)
    notes = tuple(Concern(severity="review", text=note) for note in sample.covariates.notes if "rare levels" in note)
    notes += tuple(Concern(severity="review", text=note) for note in main.notes if "still differs" in note)
    told = tuple(note for note in sample.covariates.notes if "rare levels" not in note)
    return Estimation(
        effect=_effect(sample, main, (fit, propensity), identification, effective_share=overlap.effective_share),
        overlap=overlap,
        balance=table,
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *missed, *told))),
        alternatives=others,
        specifications=specification_curve(sample, fit, propensity),
        concerns=(*concerns_about_rows(sample), *notes),
        propensity=propensity,
        fit=fit,
    )


def refute(sample: Sample, estimation: Estimation, *, seed: int) -> tuple[Refutation, ...]:
    """The whole suite on one estimation."""
    assert estimation.fit is not None
    assert estimation.propensity is not None
    return refute_all(sample, estimation.fit, estimation.propensity, seed=seed)


def _main(sample: Sample, identification: Identification, ours: Estimate, nuisances: Nuisances, *, seed: int) -> Estimate:
    """What the study asked for."""
    if identification.design == "matched":
        return Matched().fit(sample, identification, seed=seed)
    if identification.estimand == "ATO":
        return OverlapWeighted().estimate(sample, identification, nuisances)
    return ours


def _others(
    sample: Sample, identification: Identification, had: tuple[Estimate, Estimate], nuisances: Nuisances, *, seed: int
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Other estimators of the same question; those that these data do not allow are named."""
    ours, main = had
    spec = replace(identification, estimand=identification.average)
    candidates: dict[str, Callable[[], Estimate]] = {}
    if main is not ours:
        candidates["doubly robust"] = lambda: ours
    if identification.average == "ATE" and identification.estimand != "ATO":
        candidates["overlap weighting"] = lambda: OverlapWeighted().estimate(sample, spec, nuisances)
    if identification.design != "matched" and len(sample.outcome) <= _MOST_ROWS_MATCHED and sample.weights is None:
        candidates["matching"] = lambda: Matched().fit(sample, spec, seed=seed)
    if identification.outcome_kind in ("binary", "count") and identification.average == "ATE":
        candidates["the ratio"] = lambda: RateRatio().estimate(sample, spec, nuisances)
    # Pairs of nearest neighbours keep a bias of their own (Abadie and Imbens 2006): they stand beside it for the field's formula.
    return beside(candidates, identification, apart=("matching",))


def _effect(
    sample: Sample, main: Estimate, fitted: tuple[Fit, Propensity], identification: Identification, *, effective_share: float
) -> Effect:
    treated = sample.treatment == 1
    untreated_mean = float(np.average(sample.outcome[~treated], weights=None if sample.weights is None else sample.weights[~treated]))
    treated_mean = float(np.average(sample.outcome[treated], weights=None if sample.weights is None else sample.weights[treated]))
    fit, propensity = fitted
    shape = Shape(
        rows=len(sample.outcome),
        effective_share=effective_share,
        zero_share=float((sample.outcome == 0).mean()),
        clusters=0 if sample.cluster is None else len(np.unique(sample.cluster)),
    )
    effect = as_effect(
        main,
        identification,
        naive_difference=treated_mean - untreated_mean,
        outcome_mean_untreated=untreated_mean,
        certificate=certify(main.estimator, shape),
    )
    return replace(effect, diagnostics=_diagnostics(sample, fit, propensity, untreated_mean) | main.diagnostics)


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
