"""Outcomes that treatment cannot move, by way of the instruments: their reduced form must be zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification, Sample
from e2i.causal.designs.controls import of_rows, without_copies
from e2i.causal.iv.checks import examine, raise_refused
from e2i.causal.iv.two_stage import two_stage
from e2i.causal.iv.weak import anderson_rubin_p
from e2i.causal.refute.witness import FOLLOWS, NO_WITNESS, TOO_FEW, follows, goes_with, untested
from e2i.domain.evidence import Effect, Refutation
from e2i.errors import CausalError, DataError

_LEVEL = 0.05
_FEWEST_ROWS = 60
_CLAIM_SHARE, _QUIET_SD, _Z90 = 0.5, 0.25, 1.6448536269514722
_SMALL = 1e-4
_ADJUSTED = "pre_period_placebo_adjusted"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An effect that must be zero: its estimate, standard error, and the standard deviation of the outcome it stands for."""

    name: str
    estimate: float
    error: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class _Found:
    test: str
    name: str
    estimate: float
    error: float
    p_value: float
    """of no reduced form, by itself"""
    scale: float
    """standard deviation of the values"""


def placebos(sample: Sample, identification: Identification, effect: Effect) -> tuple[Refutation, ...]:
    """Negative controls and earlier outcomes in place of the outcome, and how much bias they leave possible.

    An instrument that moves what treatment cannot move is confounded or reaches the outcome past the treatment. The test is the reduced
    form's (valid however weak the first stage): with several instruments, of all their coefficients and of their combination that
    carries the estimate. p-values are Bonferroni's over all tests. An earlier outcome that is itself adjusted for is left out of its
    own adjustment.

    Parameters
    ----------
    effect : the claim that the bias bound is held against
    """
    asked = [("negative_control", name, values) for name, values in sample.negative_controls.items()]
    asked += [("pre_period_placebo", name, values) for name, values in sample.pre_outcomes.items()]
    found, missed = [], []
    for kind, name, values in asked:
        result = _tested(kind, name, values, sample, identification)
        if isinstance(result, _Found):
            found.append(result)
        else:
            missed.append(result)
    own = [each for each in found if each.test.startswith(_ADJUSTED)]
    clean = [each for each in found if each not in own]
    is_explained = bool(clean) and all(len(found) * each.p_value >= _LEVEL for each in clean)
    told = tuple(_told(each, tests=len(found), is_explained=is_explained and each in own) for each in found)
    bounds = [Bound(name=each.name, estimate=each.estimate, error=each.error, scale=each.scale) for each in clean or found]
    return (*told, *missed, *((bias_bound(bounds, sample, effect),) if bounds else ()))


def _tested(kind: str, name: str, values: FloatArray, sample: Sample, identification: Identification) -> _Found | Refutation:
    known = ~np.isnan(values)
    if known.sum() < _FEWEST_ROWS or len(np.unique(values[known])) < 2:
        return untested(f"{kind}:{name}", TOO_FEW)
    part = replace(of_rows(sample, known), outcome=values[known])
    fewer = without_copies(part, part.outcome, name) if kind == "pre_period_placebo" else part
    if fewer is not part:
        kind, part = _ADJUSTED, fewer
    if follows(part.outcome, part.covariates.matrix):
        return untested(f"{kind}:{name}", FOLLOWS)
    try:
        hazards, residuals = examine(part)
        raise_refused(hazards, override=identification.override)
    except (CausalError, DataError) as error:
        return untested(f"{kind}:{name}", str(error))
    assert residuals is not None, "what has no residuals was refused"
    fit, joint = two_stage(residuals), anderson_rubin_p(*residuals.reduced_form, effect=0.0, degrees=residuals.joint_degrees)
    p_value = joint
    if len(residuals.reduced_form[0]) > 1:
        p_value = min(1.0, 2.0 * min(joint, _along(residuals.reduced_form, residuals.degrees)))
    if p_value >= _LEVEL and not goes_with(values, sample.outcome[:, None], sample.treatment):
        return untested(f"{kind}:{name}", NO_WITNESS)  # an alarm counts, whatever the control has to do with the outcome
    return _Found(
        test=f"{kind}:{name}",
        name=name,
        estimate=fit.estimate * residuals.unit,
        error=fit.standard_error * residuals.unit,
        p_value=p_value,
        scale=float(values[known].std()),
    )


def _along(reduced_form: tuple[FloatArray, FloatArray, FloatArray], degrees: int) -> float:
    """p-value of the reduced form along the first stage: the part of it that two-stage least squares takes for an effect."""
    from scipy.stats import t

    delta, pi, joint = reduced_form
    m = len(pi)
    error = float(np.sqrt(pi @ joint[:m, :m] @ pi))
    return float(2.0 * t.sf(abs(float(pi @ delta)) / error, degrees)) if error > 0 else 1.0


def _told(found: _Found, *, tests: int, is_explained: bool) -> Refutation:
    p_value = min(1.0, tests * found.p_value)
    is_alarm = p_value < _LEVEL
    shown = f"p = {p_value:.2g}" if p_value >= _SMALL else f"p < {_SMALL:g}"
    family = " among all such tests" if tests > 1 else ""
    ending = "zero is allowed, as it must be."
    if is_alarm and is_explained:
        ending = "the instrument goes with it, which the estimate adjusts for; the tests beside it see nothing else."
    elif is_alarm:
        ending = "it should be zero: the instrument goes with something that was not adjusted for, or reaches outcomes past the treatment."
    adjusted = ", not adjusted for itself," if found.test.startswith(_ADJUSTED) else ""
    return Refutation(
        test=found.test,
        passed=not is_alarm or is_explained,
        detail=f"By way of the instruments the effect on `{found.name}`{adjusted} is {found.estimate:.3g} ({shown}{family}); {ending}",
        statistic=found.estimate / found.error if found.error > 0 else None,
        p_value=p_value,
        estimate=found.estimate,
    )


def bias_bound(found: Sequence[Bound], sample: Sample, effect: Effect) -> Refutation:
    """The largest bias that the sharpest test leaves possible, held against the claim as `refute.controls` does for cross-sections.

    Parameters
    ----------
    found : at least one
    effect : what is claimed: half of it may be bias where its interval excludes zero, else a quarter of a standard deviation
    """
    spread = float(sample.outcome.std())
    bounds = {each.name: spread / max(each.scale, 1e-300) * (abs(each.estimate) + _Z90 * each.error) for each in found}
    name = min(bounds, key=lambda key: bounds[key])
    low, high = effect.bounds if effect.bounds is not None else effect.interval()
    claimed = low > 0.0 or high < 0.0
    # For a dose a standard deviation of the outcome is compared with what a standard deviation of the dose does.
    dose = 1.0 if np.isin(sample.treatment, (0.0, 1.0)).all() else float(sample.treatment.std())
    allowed = _CLAIM_SHARE * abs(effect.estimate) if claimed else _QUIET_SD * spread / dose
    passed = bounds[name] <= allowed
    limit = "half of the effect" if claimed else "quarter of a standard deviation"
    return Refutation(
        test="bias_bound",
        passed=passed,
        detail=(
            f"The sharpest of these tests (`{name}`) leaves a bias of up to {bounds[name]:.3g} possible (95 %), "
            f"{'within' if passed else 'more than'} the {limit} that is allowed ({allowed:.3g})."
        ),
        statistic=bounds[name] / max(allowed, 1e-300),
        estimate=bounds[name],
    )
