"""Gaps in the order in which they pay, and what they are worth together without counting anything twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from e2i.domain.gaps import GapReport, GapTable, Level, Opportunity, PerformanceGap, Range, RoiEstimate
from e2i.ml import roi
from e2i.ml.kpi_rows import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2i.domain.evidence import CausalFinding
    from e2i.domain.gaps import GapSpec

COSTLY, CHEAP = 50_000.0, 10_000.0
LARGE_VALUE, SMALL_VALUE = 1_000_000.0, 100_000.0
"""dollars a year of the whole gap"""
WIDE_PERCENT, NARROW_PERCENT = 50.0, 10.0
QUICK_WIN_ROI, STRATEGIC_ROI = 1.0, 2.0
TIME_TO_IMPACT: dict[Level, str] = {"low": "1-3 months", "medium": "3-6 months", "high": "6-12 months"}
UNLIKELY_ROI = 20.0
NESTED = {"nrx": "trx", "nbrx": "trx"}
"""TRx = NRx + refills, and NBRx is part of NRx: their gaps are one gap"""
_AGAINST = {"vs_target": "its target", "vs_benchmark": "the other cells", "vs_potential": "the best tenth", "temporal": "the period before"}


def difficulty(gap: PerformanceGap, estimate: RoiEstimate) -> Level:
    """Points from cost, worth and width of the gap: 0 or fewer low, 1 medium, 2 or more high."""
    points = _points(estimate.cost.estimate, above=COSTLY, below=CHEAP)
    points += _points(estimate.gap_value, above=LARGE_VALUE, below=SMALL_VALUE)
    points += _points(gap.gap_percent, above=WIDE_PERCENT, below=NARROW_PERCENT)
    return "low" if points <= 0 else "medium" if points == 1 else "high"


def prioritise(gaps: Sequence[PerformanceGap], estimates: Sequence[RoiEstimate]) -> tuple[Opportunity, ...]:
    """By expected ROI, best first; what has no known ROI comes after, by gap %. Ties by id."""
    pairs = sorted(zip(gaps, estimates, strict=True), key=lambda pair: _order(*pair))
    return tuple(_opportunity(rank, gap, estimate) for rank, (gap, estimate) in enumerate(pairs, start=1))


def counted_once(gaps: Sequence[PerformanceGap], estimates: Sequence[RoiEstimate]) -> tuple[PerformanceGap, ...]:
    """Gaps whose revenues may be added up: of one metric (TRx, NRx and NBRx are one) and cell the gap type with the largest revenue,
    and of several segmentations of the same metric the one with the largest sum.
    """  # noqa: D205
    best: dict[tuple[str, str, str], tuple[float, PerformanceGap]] = {}
    for gap, estimate in zip(gaps, estimates, strict=True):
        family = NESTED.get(plain(gap.metric), plain(gap.metric))
        key = (family, gap.segment, gap.segment_value)
        revenue = estimate.revenue.estimate
        if revenue is not None and revenue > best.get(key, (0.0, gap))[0]:
            best[key] = (revenue, gap)
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (family, segment, _), (revenue, _gap) in best.items():
        sums[family][segment] += revenue
    shown = {family: max(by_segment, key=lambda segment: (by_segment[segment], segment)) for family, by_segment in sums.items()}
    return tuple(gap for (family, segment, _), (_, gap) in sorted(best.items()) if shown[family] == segment)


def report(table: GapTable, ranked: Sequence[Opportunity], spec: GapSpec, *, findings: Mapping[str, CausalFinding], seed: int) -> GapReport:
    """The answer in words and numbers; `spec.maximum_opportunities` of the ranked ones are told."""
    gaps, estimates = [item.gap for item in ranked], [item.roi for item in ranked]
    once = counted_once(gaps, estimates)
    total = roi.total_revenue(once, spec, findings=findings, seed=seed)
    values = [value for gap in once if (value := roi.annual_value(gap, spec)) is not None]
    shown = tuple(ranked[: spec.maximum_opportunities])
    warnings = list(table.warnings)
    if table.suppressed_cells:
        warnings.append("Cells of 1 to 10 people, and those from which they could be derived, are left out.")
    if len(ranked) > len(shown):
        more = len(ranked) - len(shown)
        warnings.append(f"{more} more gap{'s are' if more > 1 else ' is'} not listed; the totals include {'them' if more > 1 else 'it'}.")
    if any((item.roi.roi.estimate or 0.0) > UNLIKELY_ROI for item in shown):
        warnings.append(f"A return above {UNLIKELY_ROI:g} says that the cost table does not fit: set `gaps.costs`.")
    unproven = sum(item.gap.is_beyond_noise is not True for item in shown)
    if unproven:
        warnings.append(f"{unproven} of {len(shown)} listed gaps may be noise: the interval includes 0 or is not known.")
    return GapReport(
        period=table.period,
        opportunities=shown,
        total_addressable_value=total,
        total_gap_value=sum(values) if values else None,
        gaps_found=len(ranked),
        comparisons=table.compared,
        segments_analyzed=table.cells - table.suppressed_cells,
        suppressed_cells=table.suppressed_cells,
        unknown=table.unknown,
        executive_summary=_summary(table, ranked, total, spec),
        key_insights=tuple(_insight(item) for item in shown[:3]),
        warnings=tuple(warnings),
        suggested_next_agent=_next(shown),
    )


def _points(value: float | None, *, above: float, below: float) -> int:
    return 0 if value is None else (value > above) - (value < below)


def _order(gap: PerformanceGap, estimate: RoiEstimate) -> tuple[bool, float, float, str]:
    known = estimate.roi.estimate
    return known is None, -(known or 0.0), -gap.gap_percent, gap.gap_id


def _opportunity(rank: int, gap: PerformanceGap, estimate: RoiEstimate) -> Opportunity:
    level, expected, cost = difficulty(gap, estimate), estimate.roi.estimate, estimate.cost.estimate
    item = Opportunity(
        rank=rank,
        gap=gap,
        roi=estimate,
        difficulty=level,
        time_to_impact=TIME_TO_IMPACT[level],
        recommended_action=_action(gap, estimate),
        is_quick_win=False,
        is_strategic_bet=False,
    )
    if expected is None or cost is None:
        return item
    return replace(
        item,
        is_quick_win=level == "low" and expected > QUICK_WIN_ROI,
        is_strategic_bet=level == "high" and expected > STRATEGIC_ROI and cost > COSTLY,
    )


def _action(gap: PerformanceGap, estimate: RoiEstimate) -> str:
    where = f"{gap.metric} in {gap.segment} {gap.segment_value}"
    if estimate.basis == "causal":
        return f"Apply the proven treatment to {where}: {estimate.assumptions[1]}"
    if estimate.reason is not None:
        return f"Set a value per unit for {gap.metric} before deciding on {where}."
    return f"Find out why {where} is behind {_AGAINST[gap.gap_type]}, and test a remedy before paying for it at scale."


def _summary(table: GapTable, ranked: Sequence[Opportunity], total: Range, spec: GapSpec) -> str:
    period = f"{table.period[0]} to {table.period[1]}"
    if not ranked:
        return f"{period}: no gap of {spec.minimum_gap_percent:g} % or more in {table.compared} comparisons."
    gaps, them = ("gaps", "them") if len(ranked) > 1 else ("gap", "it")
    text = f"{period}: {len(ranked)} {gaps} of {spec.minimum_gap_percent:g} % or more in {table.compared} comparisons."
    if total.estimate is not None:
        text += f" Closing {them} is worth {_money(total)} a year, each metric and cell counted once."
    causal = sum(item.roi.basis == "causal" for item in ranked)
    if not causal:
        return f"{text} None rests on a proven effect: they are associational."
    return f"{text} {causal} of {len(ranked)} rest on a proven effect; any other is associational."


def _insight(item: Opportunity) -> str:
    gap = item.gap
    behind = f"{gap.gap_percent:.1f} % behind {_AGAINST[gap.gap_type]}"
    text = f"{gap.metric} in {gap.segment} {gap.segment_value} is {behind} ({item.roi.basis})"
    expected = item.roi.roi
    if expected.estimate is None:
        return f"{text}; its return is unknown: {item.roi.reason}"
    return f"{text}; ROI {expected.estimate:.1f} (95 % interval {_text(expected.low)} to {_text(expected.high)})."


def _text(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.1f}"


def _money(amount: Range) -> str:
    low = "unknown" if amount.low is None else f"${amount.low:,.0f}"
    high = "unknown" if amount.high is None else f"${amount.high:,.0f}"
    return f"${amount.estimate:,.0f} (95 % interval {low} to {high})"


def _next(shown: Sequence[Opportunity]) -> str | None:
    if not shown:
        return None
    return "resource_optimizer" if shown[0].roi.basis == "causal" else "experiment_designer"
