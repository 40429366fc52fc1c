"""What closing a gap costs and brings, with intervals by Monte Carlo; causal where an effect is proven, else associational.

The tables below are the house's planning assumptions. Every estimate names those that it used; a study may replace them.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from e2i.domain.gaps import Level, PerformanceGap, Range, RoiEstimate
from e2i.errors import ConfigError
from e2i.ml.kpi_cells import Z95, links
from e2i.ml.kpi_rows import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2i.domain.evidence import CausalFinding, Effect
    from e2i.domain.gaps import GapSpec, GapType, ProvenSpec

FloatArray = npt.NDArray[np.float64]

DRIVERS: dict[str, float] = {
    "trx": 850.0,  # a prescription
    "patient_identified": 1200.0,
    "action_rate": 45.0,  # a percentage point, per 1,000 triggers
    "intent_to_prescribe": 320.0,  # a point, per HCP
    "false_positive": 200.0,
    "false_negative": 650.0,
    "drift": 2.0,  # per unit of AUC, times the baseline's value
    "uplift": 125.0 * 2.5,  # per unit of AUUC and targeted unit
}
"""US dollars per unit"""
DRIVER_OF_METRIC = {
    "trx": "trx",
    "nrx": "trx",
    "nbrx": "trx",
    "patientsidentified": "patient_identified",
    "falsepositives": "false_positive",
    "falsenegatives": "false_negative",
}
ATTRIBUTION: dict[GapType, float] = {"vs_target": 1.0, "vs_benchmark": 0.65, "vs_potential": 0.35, "temporal": 0.10}
RISKS: dict[str, dict[Level, float]] = {
    "technical": {"low": 0.0, "medium": 0.15, "high": 0.30},
    "organisational": {"low": 0.0, "medium": 0.20, "high": 0.40},
    "data": {"low": 0.0, "medium": 0.25, "high": 0.50},
    "timeline": {"low": 0.0, "medium": 0.10, "high": 0.25},
}
DAY_RATE = 2500.0
"""US dollars for a day of engineering"""
BASE_DAYS: dict[GapType, float] = {"temporal": 5.0, "vs_benchmark": 10.0, "vs_target": 10.0, "vs_potential": 20.0}
SIZE_FACTORS = ((10.0, 0.5), (25.0, 1.0), (50.0, 1.5), (math.inf, 2.0))
"""gap % up to -> factor on the days"""
VALUE_SPREAD = 0.15
"""standard deviation of a value driver, relative"""
COST_SHAPE = 2.0
"""of the gamma distribution of a cost that is not a price"""
DISCOUNT_RATE = 0.10
ROI_MONTHS = 12
PLANNING_MONTHS = 36


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the draws need: dollars a month, how long they flow, and what must be paid."""

    monthly: float
    monthly_draws: FloatArray
    months: float
    cost: float
    cost_draws: FloatArray


def estimate(gaps: Sequence[PerformanceGap], spec: GapSpec, *, findings: Mapping[str, CausalFinding], seed: int) -> tuple[RoiEstimate, ...]:
    """Revenue, cost, ROI, NPV and payback of every gap.

    ROI = (revenue - cost) / cost over 12 months; NPV over 36 months at 10 % a year. A gap whose metric has a finding with verdict
    `proceed` in `spec.proven` is valued through that effect: its draws follow the effect's 95 % interval. All others are
    associational: the gap's value times attribution times (1 - risk).

    Parameters
    ----------
    findings : name -> finding, as `proven.finding` names them
    seed : a gap's draws depend on the seed and its id alone, not on the other gaps

    Raises
    ------
    ConfigError
        `proven` names a finding that is not there, or `values` a driver that does not exist.
    """
    _check(spec, findings)
    return tuple(_one(gap, spec, findings, seed=seed) for gap in gaps)


def total_revenue(gaps: Sequence[PerformanceGap], spec: GapSpec, *, findings: Mapping[str, CausalFinding], seed: int) -> Range:
    """Revenue of several gaps together. The worth of a metric's unit is one unknown for all of its gaps."""
    plans = [plan for gap in gaps if isinstance(plan := _plan(gap, spec, findings, seed=seed)[0], _Plan)]
    if not plans:
        return Range(estimate=None)
    draws = np.sum([plan.monthly_draws * _flowing(plan, ROI_MONTHS) for plan in plans], axis=0)
    return _range(sum(plan.monthly * _flowing(plan, ROI_MONTHS) for plan in plans), draws)


def annual_value(gap: PerformanceGap, spec: GapSpec) -> float | None:
    """Dollars a year of the whole gap, before attribution and risk; None where the metric has no value driver."""
    dollars = _dollars(gap, spec)
    times = 1.0 if gap.metric not in spec.values else gap.value_times
    if dollars is None or times is None:
        return None
    return gap.gap_size * _yearly(gap, spec) * dollars * times


def proven_effect(gap: PerformanceGap, spec: GapSpec, findings: Mapping[str, CausalFinding]) -> tuple[ProvenSpec, Effect] | str | None:
    """The effect that can close this gap, the reason why the linked one cannot, or None where none is linked."""
    linked = links(spec, gap.metric, gap.cell)
    if not linked:
        return None
    link = linked[0]
    finding = findings[link.finding]
    if finding.effect is None or finding.verdict.name != "proceed":
        return f"The effect `{link.finding}` is not proven (verdict {finding.verdict.name}), so it is not used."
    unfit = _unfit(finding.effect, gap)
    return f"The effect `{link.finding}` is not used: {unfit}." if unfit is not None else (link, finding.effect)


def _unfit(effect: Effect, gap: PerformanceGap) -> str | None:
    """Why a proven effect cannot close this gap."""
    reasons = {
        f"it is on the scale `{effect.scale}`, not in units of {gap.metric}": effect.scale != "outcome",
        "its interval is not bounded": not all(math.isfinite(end) for end in effect.interval()),
        f"it moves {gap.metric} the wrong way": effect.estimate * (-1 if gap.is_lower_better else 1) <= 0,
        f"{gap.metric} is an average, to which effects per unit do not add up": not gap.is_sum,
        "no unit can be reached here": not gap.reach,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _check(spec: GapSpec, findings: Mapping[str, CausalFinding]) -> None:
    for item in spec.proven:
        if item.finding not in findings:
            known = ", ".join(findings) or "none"
            advice = f"The findings are: {known}. `effect` is the study's own; a treatment's name takes what an earlier study of it proved."
            raise ConfigError(f"there is no finding `{item.finding}`.", where="gaps.proven", advice=advice)
    for metric, value in spec.values.items():
        if value.driver is not None and value.driver not in DRIVERS:
            advice = f"The drivers are: {', '.join(DRIVERS)}."
            raise ConfigError(f"there is no value driver `{value.driver}`.", where=f"gaps.values.{metric}", advice=advice)


def _one(gap: PerformanceGap, spec: GapSpec, findings: Mapping[str, CausalFinding], *, seed: int) -> RoiEstimate:
    plan, assumptions, attribution, risk = _plan(gap, spec, findings, seed=seed)
    basis = "causal" if attribution is None else "associational"
    value = annual_value(gap, spec)
    if isinstance(plan, str):
        none = Range(estimate=None)
        return RoiEstimate(
            gap_id=gap.gap_id, basis="associational", gap_value=value, revenue=none, cost=none, roi=none, npv=none, payback_months=none,
            probability_of_profit=None, attribution=None, risk=None, assumptions=assumptions, reason=plan,
        )  # fmt: skip
    revenue, revenue_draws = plan.monthly * _flowing(plan, ROI_MONTHS), plan.monthly_draws * _flowing(plan, ROI_MONTHS)
    present = _present_months(min(plan.months, PLANNING_MONTHS))
    roi_draws = (revenue_draws - plan.cost_draws) / plan.cost_draws
    return RoiEstimate(
        gap_id=gap.gap_id,
        basis="causal" if basis == "causal" else "associational",
        gap_value=value,
        revenue=_range(revenue, revenue_draws),
        cost=_range(plan.cost, plan.cost_draws),
        roi=_range((revenue - plan.cost) / plan.cost, roi_draws),
        npv=_range(plan.monthly * present - plan.cost, plan.monthly_draws * present - plan.cost_draws),
        payback_months=_payback(plan),
        probability_of_profit=float(np.mean(roi_draws > 0)),
        attribution=1.0 if attribution is None else attribution,
        risk=risk,
        assumptions=assumptions,
    )


def _plan(
    gap: PerformanceGap, spec: GapSpec, findings: Mapping[str, CausalFinding], *, seed: int
) -> tuple[_Plan | str, tuple[str, ...], float | None, float]:
    """Money flows (or why they are unknown), assumptions, attribution (None: causal) and risk."""
    value = annual_value(gap, spec)
    if value is None:
        return f"{gap.metric} has no value per unit: give gaps.values.{gap.metric}.", (), ATTRIBUTION[gap.gap_type], 0.0
    shared = np.random.default_rng([seed, zlib.crc32(gap.metric.encode())]).standard_normal(spec.draws)
    worth = np.maximum(0.0, 1 + VALUE_SPREAD * shared)
    own = np.random.default_rng([seed, zlib.crc32(gap.gap_id.encode())])
    found = proven_effect(gap, spec, findings)
    if isinstance(found, tuple):
        return _causal(gap, *found, spec=spec, worth=worth, own=own)
    notes = [found] if found else []
    return _associational(gap, value, spec, worth=worth, own=own, notes=notes)


def _associational(
    gap: PerformanceGap, value: float, spec: GapSpec, *, worth: FloatArray, own: np.random.Generator, notes: list[str]
) -> tuple[_Plan, tuple[str, ...], float, float]:
    attribution = ATTRIBUTION[gap.gap_type]
    risk, told = _risk(gap, spec)
    relative = 0.0 if gap.gap_standard_error is None else gap.gap_standard_error / gap.gap_size
    size = 1 + relative * own.standard_normal(spec.draws)
    cost, how = _cost(gap, spec)
    monthly = value / 12 * attribution * (1 - risk)
    plan = _Plan(
        monthly=monthly,
        monthly_draws=monthly * size * worth,
        months=math.inf,
        cost=cost,
        cost_draws=own.gamma(COST_SHAPE, cost / COST_SHAPE, spec.draws),
    )
    assumptions = (
        *notes,
        "Associational: nothing proves that the gap can be closed.",
        f"{attribution:.0%} of the gap's value is attributed to closing it ({gap.gap_type}).",
        told,
        how,
        f"${_dollars(gap, spec):,.0f} a unit, give or take {VALUE_SPREAD:.0%}.",
    )
    return plan, assumptions, attribution, risk


def _causal(
    gap: PerformanceGap, link: ProvenSpec, effect: Effect, *, spec: GapSpec, worth: FloatArray, own: np.random.Generator
) -> tuple[_Plan, tuple[str, ...], None, float]:
    """Treat as many units as close the gap within the effect's window, or as can be reached. The plan is fixed; the effect is not."""
    sign = -1 if gap.is_lower_better else 1
    gap_in_window = gap.gap_size / gap.months * link.outcome_months
    treated = min(float(gap.reach or 0.0), float(math.ceil(gap_in_window / (effect.estimate * sign))))
    dollars = (_dollars(gap, spec) or 0.0) * (1.0 if gap.value_times is None else gap.value_times)
    per_month = treated * dollars * sign / link.outcome_months
    cost = treated * link.cost_per_treated
    lasts = link.lasts_months or link.outcome_months
    plan = _Plan(
        monthly=per_month * effect.estimate,
        monthly_draws=per_month * effect_draws(effect, size=spec.draws, rng=own) * worth,
        months=lasts,
        cost=cost,
        cost_draws=np.full(spec.draws, cost),
    )
    assumptions = (
        f"Causal: {effect.summary()}.",
        f"{treated:,.0f} units are treated at ${link.cost_per_treated:,.0f} each; {gap.reach:,.0f} can be reached.",
        f"The effect covers {link.outcome_months:g} months and is taken to last {lasts:g}.",
        f"${dollars:,.0f} a unit, give or take {VALUE_SPREAD:.0%}.",
    )
    return plan, assumptions, None, 0.0


def effect_draws(effect: Effect, *, size: int, rng: np.random.Generator) -> FloatArray:
    """Draws whose median and 95 % interval are the effect's: a normal distribution with its own spread on either side."""
    low, high = effect.interval()
    z = rng.standard_normal(size)
    spread = np.where(z < 0, effect.estimate - low, high - effect.estimate) / Z95
    return np.asarray(effect.estimate + z * spread, dtype=float)


def _yearly(gap: PerformanceGap, spec: GapSpec) -> float:
    """Gap units of the period to units of a year."""
    if gap.is_sum:
        return 12 / gap.months
    value = spec.values.get(gap.metric)
    return 12 / (gap.months / gap.dates) if value is not None and value.every == "date" else 1.0


def _dollars(gap: PerformanceGap, spec: GapSpec) -> float | None:
    value = spec.values.get(gap.metric)
    if value is not None:
        return value.dollars if value.dollars is not None else DRIVERS[str(value.driver)]
    driver = DRIVER_OF_METRIC.get(plain(gap.metric)) if gap.is_sum else None
    return None if driver is None else DRIVERS[driver]


def _cost(gap: PerformanceGap, spec: GapSpec) -> tuple[float, str]:
    if gap.metric in spec.costs:
        return spec.costs[gap.metric], f"The study sets a cost of ${spec.costs[gap.metric]:,.0f}."
    factor = next(factor for limit, factor in SIZE_FACTORS if gap.gap_percent <= limit)
    days = BASE_DAYS[gap.gap_type] * factor
    return days * DAY_RATE, f"{days:g} days at ${DAY_RATE:,.0f}: the house's table, not a quote."


def _risk(gap: PerformanceGap, spec: GapSpec) -> tuple[float, str]:
    """1 - product of (1 - f). Levels that the study leaves out follow from the evidence."""
    large: Level = "high" if gap.gap_percent > 50 else "medium" if gap.gap_percent > 10 else "low"
    derived: dict[str, Level] = {
        "technical": "medium" if gap.gap_type == "vs_potential" else "low",
        "organisational": large,
        "data": "medium" if gap.gap_standard_error is None else "low",
        "timeline": large,
    }
    levels: dict[str, Level] = {name: getattr(spec.risks, name) or level for name, level in derived.items()}
    survives = math.prod(1 - RISKS[name][level] for name, level in levels.items())
    return 1 - survives, f"Risk {1 - survives:.0%}: " + ", ".join(f"{name} {level}" for name, level in levels.items()) + "."


def _flowing(plan: _Plan, months: float) -> float:
    return min(plan.months, months)


def _present_months(months: float) -> float:
    """Months of a steady flow at today's worth, continuously discounted."""
    rate = math.log1p(DISCOUNT_RATE) / 12
    return (1 - math.exp(-rate * months)) / rate


def _payback(plan: _Plan) -> Range:
    horizon = min(plan.months, PLANNING_MONTHS)
    with np.errstate(divide="ignore", invalid="ignore"):
        months = np.where(plan.monthly_draws > 0, plan.cost_draws / plan.monthly_draws, np.inf)
    months = np.where(months > horizon, np.inf, months)
    point = plan.cost / plan.monthly if plan.monthly > 0 else math.inf
    return _range(point if point <= horizon else math.inf, months)


def _range(estimate: float, draws: FloatArray) -> Range:
    """The estimate with the middle 95 % of its draws. Order statistics, so that infinite draws stay infinite."""
    low, high = np.quantile(draws, (0.025, 0.975), method="closest_observation")
    return Range(estimate=_finite(estimate), low=_finite(low), high=_finite(high))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
