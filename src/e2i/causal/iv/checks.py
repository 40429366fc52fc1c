"""What is wrong with instruments before an effect rests on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.correlation import squared_correlations
from e2i.causal.design import Sample
from e2i.causal.estimate import Estimate
from e2i.causal.iv.residuals import Residuals, project_out
from e2i.causal.iv.weak import Strength, strength
from e2i.domain.evidence import Hazard
from e2i.errors import CausalError, DataError, NotIdentified, TooFewRows

MINIMUM_ROWS = 30
ROWS_PER_COLUMN = 5
ROWS_PER_LEVEL = 2
"""a level needs two rows to say anything at all; the variance counts every level"""
FEW_CLUSTERS = 20
_COPY_R2 = 1.0 - 1e-6
_NEAR_COPY_R2 = 0.98
_NO_FIRST_STAGE = 0.05
_NOTHING_R2 = 1e-20
_DISAGREE_REVIEW, _DISAGREE_BLOCK = 0.05, 0.001
_WRONG_SIGN, _WRONG_SIGN_P = 0.10, 0.01
_OUTSIDE = 0.02


def instrument_hazards(sample: Sample) -> tuple[Hazard, ...]:
    """Everything that speaks against these instruments, worst first; empty where nothing does.

    Codes: `no_instrument`, `instrument_not_finite`, `too_few_rows`, `too_few_clusters`, `constant_instrument`, `instrument_is_treatment`,
    `instrument_is_outcome`, `collinear_instrument`, `covariates_determine`, `no_first_stage`, `weak_instrument`, `instruments_disagree`.

    Parameters
    ----------
    sample : with `instruments`; covariates may have no column
    """
    return examine(sample)[0]


def examine(sample: Sample) -> tuple[tuple[Hazard, ...], Residuals | None]:
    """The hazards, and the residuals that were looked at; None where the rows were refused before."""
    checks: tuple[Callable[[Sample], list[Hazard]], ...] = (_presence, _size, _constants, _copies)
    found: list[Hazard] = []
    for check in checks:
        found += check(sample)
        if any(hazard.action == "refuse" for hazard in found):
            return tuple(found), None
    try:
        residuals = residuals_of(sample)
    except NotIdentified as error:
        code = "collinear_instrument" if error.where == "effect.instruments" else "covariates_determine"
        return (_refuse(code, error.what, error.advice or ""), *found), None
    hopeless = _hopeless_first_stage(residuals)
    found += hopeless or [*_dropped(sample, residuals), *_about_strength(strength(residuals)), *_about_agreement(residuals)]
    order = ("refuse", "override", "block", "review", "warn")
    return tuple(sorted(found, key=lambda hazard: order.index(hazard.action))), residuals


def residuals_of(sample: Sample) -> Residuals:
    """Outcome, treatment and instruments with the covariates projected out. Raises NotIdentified where nothing is left of one."""
    assert sample.instruments is not None
    return project_out(
        sample.outcome,
        sample.treatment,
        sample.instruments,
        covariates=sample.covariates.matrix,
        weights=sample.weights,
        clusters=sample.cluster,
        names=_names(sample),
    )


def estimate_hazards(estimate: Estimate) -> tuple[Hazard, ...]:
    """What an estimate by instruments tells against itself: nobody complies, no bound, wrong signs, no overlap of the instrument.

    Codes: `no_compliers`, `unbounded_interval`, `monotonicity`, `instrument_overlap`.
    """
    told, found = estimate.diagnostics, []
    if told.get("complier_share_low", 1.0) <= 0.0:
        text = f"the share of compliers may be 0: 95 % interval {told['complier_share_low']:.1%} to {told['complier_share_high']:.1%}."
        remedy = "Find an instrument that moves more units."
        found.append(Hazard(code="no_compliers", action="block", text=text, remedy=remedy, measured=told["complier_share"], threshold=0.0))
    if not np.isfinite(estimate.interval).all():
        text = "the data do not bound the effect: its interval is infinite."
        found.append(Hazard(code="unbounded_interval", action="block", text=text, remedy="Find a stronger instrument or more rows."))
    if (wrong := told.get("wrong_sign_share", 0.0)) > _WRONG_SIGN and told.get("wrong_sign_p", 1.0) < _WRONG_SIGN_P:
        text = f"for {wrong:.0%} of rows the instrument is predicted to move treatment the other way: defiers may be among them."
        remedy = "Look at the groups where it does; without monotonicity the estimate is no effect on compliers."
        found.append(Hazard(code="monotonicity", action="review", text=text, remedy=remedy, measured=wrong, threshold=_WRONG_SIGN))
    if (outside := told.get("share_outside", 0.0)) > _OUTSIDE:
        text = f"for {outside:.1%} of rows the covariates all but determine the instrument."
        remedy = "Leave out rows in which the instrument could not vary."
        found.append(Hazard(code="instrument_overlap", action="review", text=text, remedy=remedy, measured=outside, threshold=_OUTSIDE))
    return tuple(found)


def imbalance(covariates: FloatArray, instruments: FloatArray, *, clusters: IntArray | None) -> FloatArray:
    """Largest absolute z-value of each covariate's correlation with an instrument, shape (k,).

    Parameters
    ----------
    covariates : shape (n, k)
    instruments : shape (n, m)
    clusters : shape (n,), equal for rows that are not independent
    """
    left = covariates - covariates.mean(axis=0)
    out = np.zeros(covariates.shape[1])
    for column in (instruments - instruments.mean(axis=0)).T:
        products = left * column[:, None]
        if clusters is not None:
            groups = np.unique(clusters, return_inverse=True)[1]
            products = np.column_stack([np.bincount(groups, weights=each) for each in products.T])
        error = np.sqrt(np.sum(products**2, axis=0))
        out = np.maximum(out, np.abs(np.divide(products.sum(axis=0), error, out=np.zeros_like(error), where=error > 0)))
    return out


def raise_refused(hazards: Iterable[Hazard], *, override: tuple[str, ...] = ()) -> None:
    """Raise the first hazard that ends the analysis.

    Parameters
    ----------
    override : codes that a person lets pass; a `refuse` is never overridden

    Raises
    ------
    NotIdentified, TooFewRows
        With the hazard's text and remedy.
    """
    for hazard in hazards:
        if hazard.action == "refuse" or (hazard.action == "override" and hazard.code not in override):
            kind: type[CausalError | DataError] = TooFewRows if hazard.code.startswith("too_few") else NotIdentified
            raise kind(hazard.text, where="effect.instruments", advice=hazard.remedy)


def _presence(sample: Sample) -> list[Hazard]:
    if sample.instruments is not None and sample.instruments.shape[1] == 0:
        return [_refuse("constant_instrument", "no instrument varies.", "Name what moves the treatment in these rows.")]
    if sample.instruments is None:
        return [
            _refuse("no_instrument", "no instrument is named.", "Name what moves the treatment and touches the outcome only through it.")
        ]
    if not np.isfinite(sample.instruments).all():
        return [_refuse("instrument_not_finite", "an instrument is missing or infinite in some rows.", "Correct or drop them.")]
    return []


def _size(sample: Sample) -> list[Hazard]:
    assert sample.instruments is not None
    rows, m = sample.instruments.shape
    levels = sum(sample.covariates.is_level)
    needed = max(MINIMUM_ROWS, ROWS_PER_COLUMN * (sample.covariates.matrix.shape[1] - levels + m) + ROWS_PER_LEVEL * levels)
    if rows < needed:
        columns = sample.covariates.matrix.shape[1]
        text = f"{needed} rows are needed for {columns} adjusted columns and {m} instruments; there are fewer."
        return [_refuse("too_few_rows", text, "Collect more rows or name fewer columns.", threshold=needed)]
    if sample.cluster is None:
        return []
    clusters = len(np.unique(sample.cluster))
    if clusters <= max(m, 2):
        text = f"{clusters} clusters for {m} instruments; at least {max(m, 2) + 1} are needed for a variance."
        return [_refuse("too_few_clusters", text, "Cluster on a finer unit.", measured=clusters, threshold=max(m, 2) + 1)]
    if clusters < FEW_CLUSTERS:
        text = f"{clusters} clusters: clustered intervals are too short with fewer than {FEW_CLUSTERS}."
        return [Hazard(code="few_clusters", action="review", text=text, measured=clusters, threshold=FEW_CLUSTERS)]
    return []


def _constants(sample: Sample) -> list[Hazard]:
    assert sample.instruments is not None
    spread = np.ptp(sample.instruments, axis=0) <= 1e-12 * np.abs(sample.instruments).max(axis=0)
    constant = [name for name, flat in zip(_names(sample), spread, strict=True) if flat]
    if len(constant) == len(spread):
        return [_refuse("constant_instrument", f"{_listed(constant)} is constant in these rows.", "Name an instrument that varies.")]
    if constant:
        return [Hazard(code="constant_instrument", action="warn", text=f"{_listed(constant)} is constant and was left out.")]
    return []


def _copies(sample: Sample) -> list[Hazard]:
    """An instrument that repeats treatment or outcome, raw; the covariates' part is looked at later."""
    assert sample.instruments is not None
    found = []
    for role, values, code in (
        ("treatment", sample.treatment, "instrument_is_treatment"),
        ("outcome", sample.outcome, "instrument_is_outcome"),
    ):
        for name, r2 in zip(_names(sample), squared_correlations(sample.instruments, values), strict=True):
            if r2 >= _COPY_R2:
                text = f"instrument `{name}` repeats the {role}, so it shares all that confounds it."
                found.append(_refuse(code, text, "Name an instrument that is not made from it.", measured=r2, threshold=_COPY_R2))
    return found


def _dropped(sample: Sample, residuals: Residuals) -> list[Hazard]:
    assert sample.instruments is not None
    varying = [name for name, column in zip(_names(sample), sample.instruments.T, strict=True) if np.ptp(column) > 0]
    gone = [name for name in residuals.dropped if name in varying]
    if not gone:
        return []
    return [
        Hazard(
            code="collinear_instrument",
            action="warn",
            text=f"{_listed(gone)} follows from the covariates and the other instruments; left out.",
        )
    ]


def _hopeless_first_stage(residuals: Residuals) -> list[Hazard]:
    """Instruments that explain nothing of the treatment, to rounding, or all of it: no statistic can be formed."""
    pi = residuals.reduced_form[1]
    r2 = float(pi @ pi)
    if r2 >= _COPY_R2:
        text = "the instruments determine the treatment once the covariates are held fixed, so they share all that confounds it."
        return [_refuse("instrument_is_treatment", text, "Name an instrument that is not made from the treatment.", measured=r2)]
    if r2 <= _NOTHING_R2:
        return [
            _refuse("no_first_stage", "the instruments do not move the treatment at all.", "Find an instrument that moves it.", measured=r2)
        ]
    return []


def _about_strength(first: Strength) -> list[Hazard]:
    found = []
    if first.partial_r2 > _NEAR_COPY_R2:
        text = f"the instruments explain {first.partial_r2:.1%} of the treatment: whatever confounds it confounds them."
        found.append(Hazard(code="instrument_is_treatment", action="review", text=text, measured=first.partial_r2, threshold=_NEAR_COPY_R2))
    if first.first_stage_p > _NO_FIRST_STAGE:
        text = f"the instruments do not move the treatment (first-stage F {first.first_stage_f:.2f}, p = {first.first_stage_p:.2f})."
        remedy = "Find an instrument that moves it; until then the data do not bound the effect."
        found.append(
            Hazard(code="no_first_stage", action="block", text=text, remedy=remedy, measured=first.first_stage_p, threshold=_NO_FIRST_STAGE)
        )
    elif first.is_weak:
        text = (
            f"the instruments are weak (effective F {first.effective_f:.1f}, {first.critical_value:.1f} is needed for the usual interval)."
        )
        remedy = "The interval is Anderson and Rubin's; do not quote the point estimate alone."
        found.append(
            Hazard(
                code="weak_instrument",
                action="review",
                text=text,
                remedy=remedy,
                measured=first.effective_f,
                threshold=first.critical_value,
            )
        )
    return found


def _about_agreement(residuals: Residuals) -> list[Hazard]:
    from e2i.causal.iv.two_stage import overidentification, two_stage

    p_value = overidentification(residuals, two_stage(residuals)).get("hansen_j_p", 1.0)
    if p_value > _DISAGREE_REVIEW:
        return []
    text = f"the instruments disagree about the effect (Hansen J, p = {p_value:.2g}): one is invalid, or they move different units."
    action: Literal["block", "review"] = "block" if p_value < _DISAGREE_BLOCK else "review"
    remedy = "Estimate with each instrument alone and keep those whose exclusion you can defend."
    return [Hazard(code="instruments_disagree", action=action, text=text, remedy=remedy, measured=p_value, threshold=_DISAGREE_REVIEW)]


def _names(sample: Sample) -> tuple[str, ...]:
    assert sample.instruments is not None
    return sample.instrument_names or tuple(f"instrument {j + 1}" for j in range(sample.instruments.shape[1]))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _refuse(code: str, text: str, remedy: str, *, measured: float | None = None, threshold: float | None = None) -> Hazard:
    return Hazard(code=code, action="refuse", text=text, remedy=remedy, measured=measured, threshold=threshold)
