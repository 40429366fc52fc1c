"""What treatment cannot have moved: earlier outcomes, negative control outcomes, negative control exposures.

These are the tests that see a hidden confounder (Lipsitch, Tchetgen Tchetgen and Cohen 2010; Imbens 2015, section on the
assessment of unconfoundedness by lagged outcomes). All of them make one family: p-values are those of the largest |z|.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.estimators.doubly_robust import DoublyRobust
from e2i.causal.hazards import dependent_rows
from e2i.causal.refute.ground import Functional, Ground, bent, functional, quick_propensity, sums_by
from e2i.causal.refute.normal import adjusted_p_values, two_sided
from e2i.causal.refute.refits import MINIMUM_CONTROL_ROWS, enough_for_control
from e2i.causal.refute.witness import (
    FOLLOWS,
    NO_TIE,
    NO_WITNESS,
    TOO_FEW,
    copies_of,
    decided_by_treatment,
    follows,
    goes_with,
    is_treatment,
    untested,
)
from e2i.domain.evidence import Refutation

FAMILY_LEVEL = 0.05
_CLAIM_SHARE = 0.5
_QUIET_SD = 0.25
_SMALL = 1e-4
_Z90 = 1.6448536269514722
_Z95 = 1.959963984540054

_LEVELS = ("negative_control", "pre_period_placebo", "pre_period_placebo_adjusted")
_CLEAN = ("negative_control", "pre_period_placebo", "negative_exposure")
Kind = Literal["negative_control", "pre_period_placebo", "pre_period_placebo_adjusted", "pre_period_trend", "negative_exposure"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """An effect that must be zero, with its influence values."""

    kind: Kind
    name: str
    estimate: float
    influence: FloatArray
    """shape (n,), zero where the value is missing; se² = sum(influence²) / n²"""
    scale: float
    """standard deviation of the values"""
    rows: int
    values: FloatArray
    left_out: frozenset[str] = frozenset()
    """covariates' source columns that the contrast does not adjust for"""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A contrast with its standard error and p-values."""

    contrast: Contrast
    error: float
    p_value: float
    """adjusted for the family"""

    @property
    def z(self) -> float:
        """Estimate over standard error."""
        return self.contrast.estimate / self.error


def hidden_bias_tests(ground: Ground, *, seed: int, confirm: bool = True) -> tuple[Refutation, ...]:
    """Every pre-period placebo, negative control outcome and negative control exposure, and how much bias they leave possible.

    An earlier outcome that is itself adjusted for is left out of its own adjustment; a failure may then only say that treatment
    was aimed at it, which the adjustment repairs. Such a test is named `pre_period_placebo_adjusted`; it fails only where no
    other test stands in for it (one that is not adjusted for, and passes: a hidden trait would move that one too). An alarm of the fast
    estimator counts only when the full one (stacked learners) confirms it.

    Parameters
    ----------
    confirm : fit the full estimator on the strongest alarms (seconds each); without it alarms count as they are
    """
    family = _judge([*_outcome_contrasts(ground), *_exposure_contrasts(ground)], ground, seed=seed)
    silent = _silent(ground)
    if not family:
        return silent
    alarms = {member.contrast.name for member in family if member.p_value < FAMILY_LEVEL}
    real = _confirmed(family, ground, seed=seed) if confirm and alarms else alarms
    clean = [member for member in family if member.contrast.kind in _CLEAN]
    is_explained = bool(clean) and not any(member.contrast.name in real for member in clean)
    levels = [member for member in clean or family if member.contrast.kind in _LEVELS]
    bounds = (_bias_bound(levels, ground),) if levels else ()
    return (*(_told(member, is_real=member.contrast.name in real, is_explained=is_explained) for member in family), *bounds, *silent)


def _outcome_contrasts(ground: Ground) -> list[Contrast]:
    sample = ground.sample
    found = [
        _contrast(ground, "negative_control", name, values)
        for name, values in sample.negative_controls.items()
        if _why_silent(ground, values) is None
    ]
    earlier = {name: values for name, values in sample.pre_outcomes.items() if _why_silent(ground, values, own=name) is None}
    found += [_contrast(ground, "pre_period_placebo", name, values) for name, values in earlier.items()]
    names = list(earlier)
    for old, new in pairwise(names):
        change = earlier[new] - earlier[old]
        if enough_for_control(change, sample.treatment):
            found.append(_contrast(ground, "pre_period_trend", f"{old} to {new}", change, sources=(old, new)))
    if len(names) > 1:
        average = np.mean([earlier[name] for name in names], axis=0)
        if enough_for_control(average, sample.treatment):
            found.append(_contrast(ground, "pre_period_placebo", f"average of {len(names)} periods", average, sources=tuple(names)))
    return found


def _why_silent(ground: Ground, values: FloatArray, *, own: str | None = None) -> str | None:
    """Why a control could see no hidden bias; None where it has rows enough, goes with the outcome and is not adjusted for itself.

    A control that shares no cause with the outcome shows no effect however much is hidden (Lipsitch, Tchetgen Tchetgen and Cohen
    2010: it must share the outcome's causes). It may share what is measured, or what is not.

    Parameters
    ----------
    own : name of an earlier outcome, which is left out of its own adjustment
    """
    sample = ground.sample
    if not enough_for_control(values, sample.treatment):
        return TOO_FEW
    if not goes_with(values, np.column_stack([sample.outcome, ground.untreated, ground.residual]), sample.treatment):
        return NO_WITNESS
    left_out = frozenset() if own is None else copies_of(sample.covariates, values, (own,))
    kept = np.array([source not in left_out for source in sample.covariates.sources], dtype=np.bool_)
    return FOLLOWS if follows(values, sample.covariates.matrix[:, kept]) else None


def _meets_treatment(ground: Ground, values: FloatArray) -> bool:
    """Whether a negative control exposure goes with treatment; one that shares no cause with it would show nothing."""
    return goes_with(values, np.column_stack([ground.sample.treatment, ground.chance]), np.zeros(len(values)))


def _silent(ground: Ground) -> tuple[Refutation, ...]:
    """Controls that could see no hidden bias, and those that are treatment under another name, in words."""
    sample = ground.sample
    kinds = {"negative_control": sample.negative_controls, "pre_period_placebo": sample.pre_outcomes}
    mute = {name: why for name, values in sample.negative_exposures.items() if (why := _why_mute(ground, values)) is not None}
    found = [untested(f"negative_exposure:{name}", why) for name, why in mute.items()]
    for kind, given in kinds.items():
        for name, values in given.items():
            if is_treatment(values, sample.treatment):
                found.append(decided_by_treatment(f"{kind}:{name}"))
            elif (why := _why_silent(ground, values, own=name if kind == "pre_period_placebo" else None)) is not None:
                found.append(untested(f"{kind}:{name}", why))
    return tuple(found)


def _why_mute(ground: Ground, values: FloatArray) -> str | None:
    """Why an exposure cannot testify; None where it can."""
    known = ~np.isnan(values)
    if known.sum() < MINIMUM_CONTROL_ROWS or np.ptp(values[known]) == 0:
        return TOO_FEW
    if not _meets_treatment(ground, values):
        return NO_TIE
    return None if _exposure(ground, values) is not None else FOLLOWS


def _contrast(ground: Ground, kind: Kind, name: str, values: FloatArray, *, sources: tuple[str, ...] | None = None) -> Contrast:
    """The effect on an outcome, adjusted for all that the estimate adjusts for but the outcome itself."""
    known = ~np.isnan(values)
    own = frozenset() if kind == "negative_control" else copies_of(ground.sample.covariates, values, sources or (name,))
    fast = ground.full if not own and known.all() else _without(ground, own, known)
    given = values[known]
    estimate = float(fast.estimates(given))
    influence = np.zeros(len(values))
    influence[known] = fast.influence(given[:, None])[:, 0] * (len(values) / known.sum())
    if own and kind != "negative_control":
        kind = "pre_period_placebo_adjusted"
    return Contrast(
        kind=kind,
        name=name,
        estimate=estimate,
        influence=influence,
        scale=float(given.std()),
        rows=int(known.sum()),
        values=values,
        left_out=own,
    )


def _without(ground: Ground, own: frozenset[str], known: BoolArray) -> Functional:
    """The fast estimator on the known rows, without some source columns; the fitted nuisances are reused where none is left out."""
    sample = ground.sample
    treatment = sample.treatment[known]
    base = None if sample.weights is None else sample.weights[known] / sample.weights[known].mean()
    if not own:
        full = ground.full
        return functional(treatment, ground.chance[known], full.design[known], estimand=full.estimand, base=base)
    kept = np.array([source not in own for source in sample.covariates.sources], dtype=np.bool_)
    basis = bent(sample.covariates.matrix[known][:, kept])
    is_bare = basis.shape[1] == 1
    chance = np.full(len(treatment), treatment.mean()) if is_bare else quick_propensity(basis, treatment, estimand=ground.fit.estimand)
    return functional(treatment, chance, basis, estimand=ground.fit.estimand, base=base)


def _exposure_contrasts(ground: Ground) -> list[Contrast]:
    """Slopes of the outcome on exposures that cannot move it, given covariates, treatment and the fitted means."""
    sample = ground.sample
    found = []
    for name, values in sample.negative_exposures.items():
        if _why_mute(ground, values) is not None or (left := _exposure(ground, values)) is None:
            continue
        (exposure, outcome), known = left, ~np.isnan(values)
        spread = float(exposure @ exposure)
        slope = float(exposure @ outcome) / spread
        influence = np.zeros(len(values))
        influence[known] = len(values) * exposure * (outcome - slope * exposure) / spread
        found.append(
            Contrast(
                kind="negative_exposure",
                name=name,
                estimate=slope,
                influence=influence,
                scale=float(sample.outcome.std()),
                rows=int(known.sum()),
                values=values,
            )
        )
    return found


def _exposure(ground: Ground, values: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Exposure and outcome without what covariates, treatment and fitted means explain, on known rows; None where nothing is left."""
    sample, known = ground.sample, ~np.isnan(values)
    design = np.column_stack([ground.full.design, sample.treatment, sample.treatment[:, None] * ground.basis[:, 1:]])[known]
    given = values[known] - values[known].mean()
    target = np.column_stack([given, ground.residual[known]])
    solved = np.linalg.lstsq(design.T @ design + 1e-9 * np.eye(design.shape[1]), design.T @ target, rcond=None)[0]
    exposure, outcome = (target - design @ solved).T
    return None if float(exposure @ exposure) < 1e-8 * float(given @ given) else (exposure, outcome)


def _judge(contrasts: list[Contrast], ground: Ground, *, seed: int) -> list[Judged]:
    if not contrasts:
        return []
    n = len(ground.sample.outcome)
    sums = ground.by_cluster(np.column_stack([contrast.influence for contrast in contrasts]))
    covariance = sums.T @ sums / n**2
    covariance[np.diag_indices_from(covariance)] += [ground.between.get(contrast.name, 0.0) for contrast in contrasts]
    errors = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    z = np.array([contrast.estimate for contrast in contrasts]) / errors
    p_values = adjusted_p_values(z, covariance / np.outer(errors, errors), seed=seed)
    return [Judged(contrast=c, error=float(e), p_value=float(p)) for c, e, p in zip(contrasts, errors, p_values, strict=True)]


def _confirmed(family: list[Judged], ground: Ground, *, seed: int) -> set[str]:
    """Names of the alarms that count: those from the first one on, strongest first, that the full estimator confirms."""
    alarms = sorted((member for member in family if member.p_value < FAMILY_LEVEL), key=lambda member: -abs(member.z))
    for place, member in enumerate(alarms):
        if member.contrast.kind == "negative_exposure" or _full_alarm(member.contrast, ground, seed=seed):
            return {later.contrast.name for later in alarms[place:]}
    return set()


def _full_alarm(contrast: Contrast, ground: Ground, *, seed: int) -> bool:
    """Whether the full estimator, from scratch on the same adjustment, finds the same sign at 5 %."""
    sample = ground.sample
    known = ~np.isnan(contrast.values)
    kept = np.array([source not in contrast.left_out for source in sample.covariates.sources], dtype=np.bool_)
    matrix = sample.covariates.matrix[known][:, kept]
    matrix = matrix[:, matrix.std(axis=0) > 0]
    if matrix.shape[1] == 0:
        return True
    estimator = DoublyRobust(estimand=ground.fit.estimand)
    groups = dependent_rows(sample) if sample.cluster is None else sample.cluster
    fit = estimator(contrast.values[known], sample.treatment[known], matrix, groups=groups[known], seed=seed)
    together = np.unique(groups[known], return_inverse=True)[1].astype(np.int64)
    sums = sums_by(together, fit.influence.mean(axis=0)[:, None])
    z = fit.estimate / max(fit.standard_error, float(np.sqrt(np.sum(sums**2))) / int(known.sum()))
    return bool(two_sided(z) < FAMILY_LEVEL and np.sign(z) == np.sign(contrast.estimate))


def _bias_bound(family: list[Judged], ground: Ground) -> Refutation:
    """The largest bias that the best test leaves possible (one-sided 95 %), in units of the outcome.

    An effect that is claimed must be at least twice that bias; where none is claimed the bias must be below a quarter of the
    outcome's standard deviation (an equivalence test: to find nothing with a blunt test is no evidence; Hartman and Hidalgo 2018).
    """
    spread = float(ground.sample.outcome.std())
    bounds = {}
    for member in family:
        factor = spread / max(member.contrast.scale, 1e-300)
        bounds[member.contrast.name] = factor * (abs(member.contrast.estimate) + _Z90 * member.error)
    name = min(bounds, key=lambda key: bounds[key])
    bound, size = bounds[name], abs(ground.fit.estimate)
    claimed = size > _Z95 * ground.fit.standard_error
    allowed = _CLAIM_SHARE * size if claimed else _QUIET_SD * spread
    passed = bound <= allowed
    limit = "half of the effect" if claimed else "quarter of a standard deviation"
    return Refutation(
        test="bias_bound",
        passed=passed,
        detail=(
            f"The sharpest of these tests (`{name}`) leaves a bias of up to {bound:.3g} possible (95 %), "
            f"{'within' if passed else 'more than'} the {limit} that is allowed ({allowed:.3g})."
        ),
        statistic=bound / max(allowed, 1e-300),
        estimate=bound,
    )


_SAYS: dict[Kind, Callable[[Contrast], str]] = {
    "negative_control": lambda c: f"The effect on `{c.name}`, which treatment cannot move, is",
    "pre_period_placebo": lambda c: f"The effect on `{c.name}`, an outcome before treatment, is",
    "pre_period_placebo_adjusted": lambda c: f"The effect on `{c.name}`, an outcome before treatment, not adjusted for itself, is",
    "pre_period_trend": lambda c: f"The effect on the change from {c.name}, before treatment, is",
    "negative_exposure": lambda c: f"The slope of the outcome on `{c.name}`, which cannot move it, is",
}
_WRONG: dict[Kind, str] = {
    "negative_control": "treated units differ in ways that were not measured.",
    "pre_period_placebo": "treated units differed before treatment in ways that the adjustment does not cover; "
    "adjust for earlier outcomes, or use a double difference.",
    "pre_period_placebo_adjusted": "either treatment was aimed at this very outcome, which the estimate adjusts for, or at a hidden trait.",
    "pre_period_trend": "treated units were already on another path before treatment.",
    "negative_exposure": "what goes with this exposure also moves the outcome and was not measured.",
}


def _told(member: Judged, *, is_real: bool, is_explained: bool) -> Refutation:
    contrast = member.contrast
    alarm = member.p_value < FAMILY_LEVEL
    size = (
        "" if contrast.kind == "negative_exposure" else f"{abs(contrast.estimate) / max(contrast.scale, 1e-300):.2f} standard deviations, "
    )
    ending = "includes zero, as it must."
    passed = not (alarm and is_real)
    if alarm and not is_real:
        ending = "the full estimator does not confirm it."
    elif alarm and is_explained and contrast.kind == "pre_period_placebo_adjusted":
        ending = "treatment was aimed at it, which the estimate adjusts for; the tests beside it see no hidden trait."
        passed = True
    elif alarm:
        ending = f"should be zero: {_WRONG[contrast.kind]}"
    shown = f"p = {member.p_value:.2g}" if member.p_value >= _SMALL else f"p < {_SMALL:g}"
    return Refutation(
        test=f"{contrast.kind}:{contrast.name}",
        passed=passed,
        detail=(
            f"{_SAYS[contrast.kind](contrast)} {contrast.estimate:.4g} ({size}{shown} among all such tests, {contrast.rows} rows); {ending}"
        ),
        statistic=member.z,
        p_value=member.p_value,
        estimate=contrast.estimate,
    )
