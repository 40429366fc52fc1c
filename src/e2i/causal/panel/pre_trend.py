"""Did the treated move differently before treatment? Joint test, linear trend, and a placebo in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification
from e2i.causal.panel.clusters import covariance
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.event_study import EventTimes
from e2i.causal.panel.group_time import GroupTime, absorbing
from e2i.causal.panel.moving_confounders import untreated_rows, without_moving
from e2i.domain.evidence import Refutation
from e2i.errors import NotIdentified

JOINT_LEVEL, TREND_LEVEL, PLACEBO_LEVEL = 0.0125, 0.025, 0.0125
"""they share 5 %: so often at most does any of the three fail a design without fault"""
_CLUSTERS_PER_CONTRAST = 4
_ROUNDING = 1e-9


def pre_trend_tests(study: EventTimes) -> tuple[Refutation, ...]:
    """Joint test `pre_trend` and linear test `pre_period_trend` of the effects before the reference; empty without such effects.

    The joint test is Hotelling's T² (F distribution); its degrees come from the smaller arm's clusters, or from the treated units that
    gaps and late starts leave in these periods, and neighbouring periods are averaged until there are four clusters per contrast. The
    linear test is the slope of the line through the reference that fits the effects best. Each says which violation it would have
    found with 80 % power (Roth 2022).
    """
    chosen = study.before
    if len(chosen) == 0:
        return ()
    degrees = _degrees(study)
    if degrees < 1:
        return ()
    if study.is_flat_before:
        return (_untested("pre_trend", "the outcome does not vary before treatment, so parallel trends are a belief."),)
    return _joint(study, degrees), _linear(study, degrees)


def _degrees(study: EventTimes) -> int:
    """Of the smaller arm's clusters, or of the treated units that the periods before treatment show (harmonic mean), if these are fewer."""
    shown = study.n_treated[study.before].astype(np.float64)
    return int(min(*study.clusters_by_arm, len(shown) / float(np.sum(1.0 / np.maximum(shown, 1.0))))) - 1


def _joint(study: EventTimes, degrees: int) -> Refutation:
    from scipy.stats import f

    chosen = study.before
    contrasts = max(1, min(len(chosen), (degrees + 1) // _CLUSTERS_PER_CONTRAST))
    parts = np.array_split(np.arange(len(chosen)), contrasts)
    average = np.stack([np.isin(np.arange(len(chosen)), part) / len(part) for part in parts], axis=1)
    values = study.estimate[chosen] @ average
    spread = covariance(study.influence[:, chosen] @ average)
    rank = int(np.linalg.matrix_rank(spread, hermitian=True))
    if rank == 0 or degrees <= rank:
        return Refutation(test="pre_trend", passed=True, detail="the periods before treatment cannot be tested.", is_reported_only=True)
    squared = float(values @ np.linalg.pinv(spread, hermitian=True) @ values)
    statistic = squared * (degrees - rank + 1) / (degrees * rank)
    p_value = float(f.sf(statistic, rank, degrees - rank + 1))
    passed = p_value >= JOINT_LEVEL
    grouped = f" in {contrasts} stretches" if contrasts < len(chosen) else ""
    return Refutation(
        test="pre_trend",
        passed=passed,
        detail=f"{len(chosen)} effects before treatment{grouped} are {'compatible' if passed else 'not compatible'} with zero "
        f"(F {statistic:.2f}, p = {p_value:.3g}).",
        statistic=statistic,
        p_value=p_value,
        estimate=float(values[np.argmax(np.abs(values))]),
    )


def _linear(study: EventTimes, degrees: int) -> Refutation:
    from scipy.stats import t

    chosen = study.before
    distance = (study.event_time[chosen] - study.reference).astype(np.float64)
    weights = distance / float(distance @ distance)
    slope = float(study.estimate[chosen] @ weights)
    error = float(np.sqrt(covariance(study.influence[:, chosen] @ weights[:, None])[0, 0]))
    if error == 0:
        return Refutation(test="pre_period_trend", passed=slope == 0, detail="effects before treatment do not vary.", estimate=slope)
    p_value = float(2.0 * t.sf(abs(slope) / error, degrees))
    passed = p_value >= TREND_LEVEL
    found = detectable(error, degrees, TREND_LEVEL)
    return Refutation(
        test="pre_period_trend",
        passed=passed,
        detail=f"before treatment the treated drift by {slope:.3g} per period against their controls (p = {p_value:.3g}); "
        f"a drift of {found:.3g} per period would have been found with 80 % power.",
        statistic=slope / error,
        p_value=p_value,
        estimate=slope,
    )


def _untested(test: str, why: str) -> Refutation:
    return Refutation(test=f"untested_{test}", passed=True, detail=f"It could not be tested: {why}", is_reported_only=True)


def detectable(error: float, degrees: float, level: float) -> float:
    """Violation that a two-sided t test at `level` finds with 80 % power, in the unit of `error`."""
    from scipy.stats import t

    return float((t.ppf(1.0 - level / 2.0, degrees) + t.ppf(0.8, degrees)) * error)


def placebo_in_time(panel: Panel, spec: Identification, *, seed: int, periods: int | None = None) -> Refutation | None:
    """Treatment is pretended some periods earlier, with rows before treatment only: there is no effect to find.

    Parameters
    ----------
    periods : how much earlier; default half of the periods before treatment of the earliest cohort that has two

    Returns
    -------
    None where no cohort has two periods before treatment, no control is left, or nothing varies before treatment.
    """
    panel, _ = absorbing(panel)
    lead = _lead(panel, spec.anticipation) if periods is None else periods
    if lead is None:
        return None
    start = panel.cohort - spec.anticipation
    treated = panel.cohort != NEVER
    real = untreated_rows(panel, spec.anticipation)
    moving = without_moving(panel, spec.anticipation)  # by all rows before treatment: those before the pretended one may not show them move
    early = (panel if moving is None else replace(panel, outcome=moving.outcome)).of_rows(real)
    seen = np.bincount(early.unit, minlength=panel.n_units) > 0
    cohort = np.where(treated, start - lead, NEVER)
    late = treated & (cohort <= 0)
    # Units whose pretended start precedes the panel have no pre-period under it: they leave.
    early = replace(early, cohort_given=cohort)
    early = replace(early, treatment=((cohort[early.unit] != NEVER) & (early.time >= cohort[early.unit])).astype(np.float64))
    early = early.of_units(seen & ~late)
    try:
        found = GroupTime().fit(early, replace(spec, anticipation=0), seed=seed)
    except NotIdentified:
        return None
    if found.standard_error <= _ROUNDING * float(np.abs(panel.outcome).max()):  # nothing varies before treatment
        return None
    p_value = 1.0 if found.p_value is None else found.p_value
    degrees = int(found.diagnostics["clusters"]) - 1
    passed = p_value >= PLACEBO_LEVEL
    low, high = found.interval
    least = detectable(found.standard_error, degrees, PLACEBO_LEVEL)
    return Refutation(
        test="placebo_in_time",
        passed=passed,
        detail=f"treatment pretended {lead} period{'s' if lead > 1 else ''} earlier has an effect of {found.estimate:.3g} "
        f"({low:.3g} to {high:.3g}, p = {p_value:.3g}) where there is none; {least:.3g} would have been found with 80 % power.",
        statistic=found.estimate / found.standard_error if found.standard_error > 0 else None,
        p_value=p_value,
        estimate=found.estimate,
    )


def _lead(panel: Panel, anticipation: int) -> int | None:
    """Half of the periods before treatment, of the cohort that has fewest but at least two."""
    length: FloatArray = panel.cohort[panel.cohort != NEVER] - anticipation
    length = length[length >= 2]
    return None if len(length) == 0 else max(int(length.min()) // 2, 1)
