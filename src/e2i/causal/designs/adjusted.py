"""A yes/no treatment that people chose: cross-fitted doubly robust scores on the measured common causes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.balance import balance
from e2i.causal.certificate import certify, shape_of_sample
from e2i.causal.design import Average, Identification, Sample
from e2i.causal.estimate import Estimate
from e2i.causal.estimation import Estimation, as_effect, as_warnings, beside, refused, told_reasons
from e2i.causal.estimators.aipw import AIPW
from e2i.causal.estimators.cross_fit import Nuisances, fold_groups, joined, require_covariates
from e2i.causal.estimators.doubly_robust import Fit, Propensity, doubly_robust, fit_propensity, repetitions_for
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.matched import Matched
from e2i.causal.estimators.matching import balance_of_pairs
from e2i.causal.estimators.nuisances import kind_of
from e2i.causal.estimators.overlap_weighted import OverlapWeighted, balance_under_overlap
from e2i.causal.estimators.ratio import PoissonRegression, RateRatio
from e2i.causal.hazards import Concern, concerns_about_rows, copied_share, refuse_hopeless
from e2i.causal.imputation import DRAWS, Spread, completed, spread, spread_of_controls
from e2i.causal.overlap import measure_overlap, require_both_arms_in_levels, require_overlap, weights
from e2i.causal.refute.ground import Ground
from e2i.causal.refute.normal import two_sided
from e2i.causal.refute.suite import refute_ground
from e2i.causal.sensitivity import e_value
from e2i.causal.specification import doubts, halves, specification_curve
from e2i.domain.evidence import BalanceRow, CausalFinding, Effect, Hazard, Refutation
from e2i.errors import PositivityViolated

_MOST_ROWS_MATCHED = 50_000


def estimate(sample: Sample, identification: Identification, hazards: tuple[Hazard, ...], *, seed: int) -> Estimation | CausalFinding:
    """The effect with overlap, balance, specification curve and other estimators. Raises CausalError and DataError."""
    given, sample = sample, completed(sample, seed=seed)
    require_covariates(sample)
    refuse_hopeless(sample)
    estimand, is_ato = identification.average, identification.estimand == "ATO"
    if not is_ato:
        require_both_arms_in_levels(sample.covariates, sample.treatment, estimand)
    features = make_features(sample.covariates.matrix, sample.weights)
    rounds = repetitions_for(len(sample.outcome))
    groups = fold_groups(sample)
    propensity = fit_propensity(features, sample.treatment, groups, outcome=sample.outcome, repetitions=rounds, seed=seed)
    overlap = measure_overlap(sample.treatment, propensity.mean, estimand)
    try:
        if not is_ato:  # overlap weights ask less of the data, and refuse by themselves
            require_overlap(overlap, propensity=propensity.mean, estimand=estimand)
    except PositivityViolated as error:
        table = _under_inverse_weights(sample, propensity.mean, estimand)
        return replace(refused(error, hazards=hazards, reasons=told_reasons(identification)), overlap=overlap, balance=table)
    fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand=estimand, seed=seed)
    means = {"untreated": fit.untreated_mean, "treated": fit.treated_mean}
    nuisances = Nuisances(features=features, propensity=propensity, learners=fit.learners, **means)
    draws = spread(given, estimand="ATO" if is_ato else estimand, seed=seed)
    chosen = _main(sample, identification, nuisances, seed=seed)
    main = _over_draws(chosen, draws)
    if sample.cluster is not None:  # rows of a cluster are no evidence of their own to the refuters either
        clustered = joined(sample, fit.estimates, fit.influence, estimator=main.estimator, estimand=estimand)
        fit = replace(fit, standard_error=clustered.standard_error)
    if is_ato:  # what is told is what is refuted
        fit = _as_fit(fit, chosen)
    others, missed = _others(sample, identification, nuisances, seed=seed)
    drawn = tuple(f"`{name}`" for name, _ in sample.covariates.gaps)
    told = tuple(note for note in sample.covariates.notes if "rare levels" not in note and not note.startswith(drawn))
    return Estimation(
        effect=_effect(sample, main, (fit, propensity), identification, effective_share=overlap.effective_share),
        overlap=overlap,
        balance=_likeness(sample, identification, nuisances, seed=seed),
        reasons=told_reasons(identification),
        hazards=(*hazards, *as_warnings((*main.notes, *missed, *told))),
        alternatives=others,
        specifications=() if is_ato else specification_curve(sample, fit, propensity),
        concerns=(*_concerns(sample, main), *(() if is_ato else doubts(halves(sample, fit, propensity))), *_about_gaps(main, draws)),
        propensity=propensity,
        fit=fit,
    )


def refute(sample: Sample, estimation: Estimation, *, seed: int) -> tuple[Refutation, ...]:
    """The whole suite on one estimation."""
    assert estimation.fit is not None
    assert estimation.propensity is not None
    between = spread_of_controls(sample, estimand=estimation.fit.estimand, seed=seed)
    whole = completed(sample, seed=seed)
    return refute_ground(Ground(sample=whole, fit=estimation.fit, propensity=estimation.propensity, between=between), seed=seed)


def _main(sample: Sample, identification: Identification, nuisances: Nuisances, *, seed: int) -> Estimate:
    """What the study asked for."""
    if identification.design == "matched":
        return Matched().fit(sample, identification, seed=seed)
    if identification.estimand == "ATO":
        return OverlapWeighted().estimate(sample, identification, nuisances)
    return AIPW().estimate(sample, identification, nuisances)


def _as_fit(fit: Fit, chosen: Estimate) -> Fit:
    """The overlap-weighted estimate as refuters see one; nuisances stay."""
    assert chosen.influence is not None
    return replace(
        fit,
        estimand="ATO",
        estimate=chosen.estimate,
        standard_error=chosen.standard_error,
        estimates=np.array([chosen.estimate]),
        influence=chosen.influence[None],
    )


def _over_draws(main: Estimate, draws: Spread | None) -> Estimate:
    """The mean over completed tables, with the variance between them added (Rubin 1987)."""
    if draws is None:
        return main
    error = float(np.hypot(main.standard_error, np.sqrt(draws.variance)))
    wider = error / main.standard_error
    low, high = (main.estimate + draws.shift + (end - main.estimate) * wider for end in main.interval)
    moved = replace(main, estimate=main.estimate + draws.shift, standard_error=error, interval=(low, high))
    note = f"missing confounders were drawn {DRAWS} times from the rest of their rows, which widens the standard error {wider:.2f} times"
    p_value = two_sided(moved.estimate / error)
    return replace(moved, p_value=None if main.p_value is None else max(p_value, np.finfo(float).tiny), notes=(*main.notes, note))


def _about_gaps(main: Estimate, draws: Spread | None) -> tuple[Concern, ...]:
    """Where the answer hangs on how missing values are understood, a person has to say how they came about."""
    if draws is None or abs(draws.indicator_gap) <= main.standard_error:
        return ()
    apart = abs(draws.indicator_gap) / main.standard_error
    text = (
        f"missing confounders carry part of the estimate: whether their values, unseen, worked as the seen ones do or nobody could act on "
        f"them moves it by {apart:.1f} standard errors. Find out why they are missing."
    )
    return (Concern(severity="review", text=text),)


def _likeness(sample: Sample, identification: Identification, nuisances: Nuisances, *, seed: int) -> tuple[BalanceRow, ...]:
    """How alike the arms are in the comparison that the main estimate makes: within pairs, by overlap weights, by inverse weights."""
    if identification.design == "matched":
        return balance_of_pairs(sample.covariates, sample.treatment, Matched().pair(sample, seed=seed)[0])
    if identification.estimand == "ATO":
        return balance_under_overlap(sample, nuisances)
    return _under_inverse_weights(sample, nuisances.propensity.mean, identification.average)


def _under_inverse_weights(sample: Sample, chance: FloatArray, estimand: Average) -> tuple[BalanceRow, ...]:
    weight = weights(sample.treatment, chance, estimand, base=sample.weights)
    return balance(sample.covariates, sample.treatment, weight, base=sample.weights, cluster=sample.cluster)


def _concerns(sample: Sample, main: Estimate) -> tuple[Concern, ...]:
    """About rows, about what was grouped or stays unlike, and about what matched pairs leave."""
    notes = [note for note in sample.covariates.notes if "rare levels" in note] + [note for note in main.notes if "still differs" in note]
    return (*concerns_about_rows(sample), *(Concern(severity="review", text=note) for note in notes), *_pairs_apart(main))


def _pairs_apart(main: Estimate) -> tuple[Concern, ...]:
    """Matched pairs whose remaining differences carry more than a standard error of the estimate (Abadie and Imbens 2011)."""
    adjusted, plain = main.diagnostics.get("bias_adjusted_estimate"), main.diagnostics.get("unadjusted_estimate")
    if adjusted is None or plain is None or abs(adjusted - plain) <= main.standard_error:
        return ()
    text = (
        f"what still differs within pairs carries part of the estimate: taking it off moves it by "
        f"{abs(adjusted - plain) / main.standard_error:.1f} standard errors (Abadie and Imbens 2011)."
    )
    return (Concern(severity="review", text=text),)


def _others(
    sample: Sample, identification: Identification, nuisances: Nuisances, *, seed: int
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """Other estimators of the same question; those that these data do not allow are named."""
    spec = replace(identification, estimand=identification.average)
    candidates: dict[str, Callable[[], Estimate]] = {}
    if identification.design == "matched" or identification.estimand == "ATO":
        candidates["doubly robust"] = lambda: AIPW().estimate(sample, spec, nuisances)
    if identification.average == "ATE" and identification.estimand != "ATO":
        candidates["overlap weighting"] = lambda: OverlapWeighted().estimate(sample, spec, nuisances)
    if identification.design != "matched" and len(sample.outcome) <= _MOST_ROWS_MATCHED and sample.weights is None:
        candidates["matching"] = lambda: Matched().fit(sample, spec, seed=seed)
    if identification.outcome_kind in ("binary", "count") and identification.average == "ATE":
        candidates["the ratio"] = lambda: RateRatio().estimate(sample, spec, nuisances)
    if identification.outcome_kind == "count":
        candidates["the Poisson ratio"] = lambda: PoissonRegression(effect="ratio").fit(sample, spec, seed=seed)
    # Pairs of nearest neighbours keep a bias of their own (Abadie and Imbens 2006): they stand beside it for the field's formula.
    return beside(candidates, identification, apart=("matching",))


def _effect(
    sample: Sample, main: Estimate, fitted: tuple[Fit, Propensity], identification: Identification, *, effective_share: float
) -> Effect:
    treated = sample.treatment == 1
    untreated_mean = float(np.average(sample.outcome[~treated], weights=None if sample.weights is None else sample.weights[~treated]))
    treated_mean = float(np.average(sample.outcome[treated], weights=None if sample.weights is None else sample.weights[treated]))
    fit, propensity = fitted
    effect = as_effect(
        main,
        identification,
        naive_difference=treated_mean - untreated_mean,
        outcome_mean_untreated=untreated_mean,
        certificate=certify(main.estimator, shape_of_sample(sample, effective_share=effective_share), estimand=main.estimand),
    )
    diagnostics = _diagnostics(sample, fit, propensity, untreated_mean)
    if identification.design != "matched" and identification.estimand != "ATO":
        diagnostics |= _of_weighting(sample, fit, propensity, identification.average)
    if main.influence is not None:
        squares = main.influence**2
        diagnostics["largest_row_share"] = float(squares.max() / squares.sum())
    return replace(effect, diagnostics=diagnostics | main.diagnostics)


def _diagnostics(sample: Sample, fit: Fit, propensity: Propensity, untreated_mean: float) -> dict[str, float]:
    outcome = sample.outcome
    values = {
        "rows_given": float(sample.rows_given),
        "rows_used": float(len(outcome)),
        "missing_treatment": float(sample.missing_treatment),
        "missing_outcome": float(sample.missing_outcome),
        "copied_share": copied_share(sample),
        "adjusted_columns": float(sample.covariates.matrix.shape[1]),
    }
    ratio = e_value(fit.estimate, untreated_mean=untreated_mean, outcome_sd=float(outcome.std()), is_binary=kind_of(outcome) == "binary")
    if ratio is not None:
        values["e_value"] = ratio
    values |= {f"propensity_{name}": weight for name, weight in propensity.learners.items()}
    values |= {f"outcome_{name}": weight for name, weight in fit.learners.items()}
    return values


def _of_weighting(sample: Sample, fit: Fit, propensity: Propensity, estimand: Average) -> dict[str, float]:
    """What judges an estimate by inverse weights, and no other: how it moves with the folds (several fits), and weighting alone."""
    weighted, error = _weighting(sample, propensity.mean, estimand)
    gap = float((weighted - fit.estimate) / np.hypot(error, fit.standard_error))
    spread = {"fold_spread": float(fit.estimates.std() / fit.standard_error)} if len(fit.estimates) > 1 else {}
    return spread | {"weighting_estimate": weighted, "weighting_gap": gap}


def _weighting(sample: Sample, propensity: FloatArray, estimand: Average) -> tuple[float, float]:
    """The estimate by weighting alone, with its standard error given the weights."""
    outcome, treated = sample.outcome, sample.treatment == 1
    weight = weights(sample.treatment, propensity, estimand, base=sample.weights)
    up, down = float(weight[treated] @ outcome[treated]), float(weight[~treated] @ outcome[~treated])
    residual = outcome - np.where(treated, up, down)
    return up - down, float(np.sqrt(np.sum((weight * residual) ** 2)))
