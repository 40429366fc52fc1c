"""Gaps between what a KPI is and what it could be, what closing them is worth, and in which order to look at them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from e2i.domain.data_spec import DataSpec, Strict
from e2i.domain.plain import plain

GapType = Literal["vs_target", "vs_benchmark", "vs_potential", "temporal"]
GAP_TYPES: tuple[GapType, ...] = ("vs_target", "vs_benchmark", "vs_potential", "temporal")
Level = Literal["low", "medium", "high"]
Basis = Literal["causal", "associational"]
PERIOD = r"^(latest_month|latest_quarter|latest_year|\d{4}|\d{4}-?Q[1-4]|\d{4}-(0[1-9]|1[0-2])|\d{4}-\d{2}-\d{2}\.\.\d{4}-\d{2}-\d{2})$"


class GapColumns(Strict):
    """The roles of the KPI table's columns; one row is one metric of one cell in one period. Those after `value` may be absent."""

    date: str = "metric_date"
    metric: str = "metric_name"
    value: str = "value"
    target: str = "target"
    kind: str = Field(default="metric_type", description="`volume` is summed, anything else is averaged")
    sample_size: str = Field(default="sample_size", description="people behind a value")
    low: str = Field(default="confidence_interval_lower", description="the value's 95 % interval")
    high: str = "confidence_interval_upper"
    benchmark: str | None = Field(default=None, description="a benchmark of the row's own; default: the pooled other cells")


class ValueSpec(Strict):
    """What one unit of a metric is worth: dollars per unit, times how many (people, thousands of triggers …)."""

    dollars: float | None = Field(default=None, gt=0)
    driver: str | None = Field(default=None, description="a value driver of the house instead of `dollars`")
    every: Literal["date", "year"] = Field(default="year", description="averaged metrics: the worth arises at every date, or once a year")
    times: float | str = Field(default=1.0, description="a number, or a column that is averaged over the cell's rows")

    @model_validator(mode="after")
    def _has_a_worth(self) -> ValueSpec:
        if (self.dollars is None) == (self.driver is None):
            msg = "give either `dollars` or `driver`"
            raise ValueError(msg)
        return self

    @field_validator("times")
    @classmethod
    def _positive(cls, times: float | str) -> float | str:
        if not isinstance(times, str) and times <= 0:
            msg = "`times` must be above 0"
            raise ValueError(msg)
        return times


class ProvenSpec(Strict):
    """Which measured effect can close gaps of which metric, and what a treated unit costs."""

    metric: str
    finding: str = Field(default="effect", description="name of the finding; `effect` is the study's own")
    reach: float | str = Field(description="units that can be treated in a cell: a number, or a column (largest value of the period)")
    cost_per_treated: float = Field(gt=0, description="US dollars")
    outcome_months: float = Field(gt=0, description="months that the effect's outcome covers")
    lasts_months: float | None = Field(default=None, gt=0, description="how long the effect lasts; default: as long as it was measured")
    where: dict[str, str] = Field(default_factory=dict, description="segment column -> value that the effect was measured in")


class RiskSpec(Strict):
    """Levels set by people; what is left out is derived from the evidence and told as an assumption."""

    technical: Level | None = None
    organisational: Level | None = None
    data: Level | None = None
    timeline: Level | None = None


class GapSpec(Strict):
    """The study section `gaps`."""

    data: DataSpec | None = Field(default=None, description="the KPI table; default: the study's own")
    columns: GapColumns = GapColumns()
    metrics: tuple[str, ...] = Field(default=(), description="default: every metric in the table")
    segments: tuple[str | tuple[str, ...], ...] = Field(
        default=("region",), description="segmentations: a column, or several columns that are crossed"
    )
    filters: dict[str, str | tuple[str, ...]] = Field(default_factory=dict, description="column -> value(s) to keep")
    peers: tuple[str, ...] | None = Field(
        default=None, description="cells are compared within equal values of these; default: brand, where it is crossed with others"
    )
    period: str = Field(default="latest_quarter", pattern=PERIOD)
    temporal_reference: Literal["previous", "year_ago"] = "previous"
    gap_type: GapType | Literal["all"] = "all"
    lower_is_better: tuple[str, ...] = Field(default=(), description="metrics of which less is better, beyond those of the KPI catalogue")
    aggregate: dict[str, Literal["sum", "mean"]] = Field(default_factory=dict, description="metric -> how rows are put together")
    minimum_gap_percent: float = Field(default=5.0, ge=0, le=100)
    maximum_opportunities: int = Field(default=10, ge=1, le=50)
    values: dict[str, ValueSpec] = Field(default_factory=dict)
    costs: dict[str, float] = Field(default_factory=dict, description="metric -> US dollars to close one gap; default: the day-rate table")
    risks: RiskSpec = RiskSpec()
    proven: tuple[ProvenSpec, ...] = ()
    draws: int = Field(default=2000, ge=1000, le=100_000)

    @model_validator(mode="after")
    def _names_segments(self) -> GapSpec:
        if not self.segments or any(not entry for entry in self.segments):
            msg = "`segments` needs at least one column"
            raise ValueError(msg)
        if any(cost <= 0 for cost in self.costs.values()):
            msg = "every cost must be above 0"
            raise ValueError(msg)
        return self

    @property
    def segmentations(self) -> tuple[tuple[str, ...], ...]:
        """Every segmentation as a tuple of columns, once."""
        return tuple(dict.fromkeys((entry,) if isinstance(entry, str) else tuple(entry) for entry in self.segments))

    @property
    def gap_types(self) -> tuple[GapType, ...]:
        """The gap types asked for."""
        return GAP_TYPES if self.gap_type == "all" else (self.gap_type,)


@dataclass(frozen=True, kw_only=True)
class Range:
    """A value with its 95 % interval; ends that are not known, or not finite, are None."""

    estimate: float | None
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PerformanceGap:
    """One gap. `gap_size` and `gap_percent` are above 0 when the current value is worse than the reference, whatever the direction."""

    gap_id: str
    metric: str
    segment: str
    """columns, joined by ` x `"""
    segment_value: str
    cell: dict[str, str]
    gap_type: GapType
    current_value: Range
    reference_value: float
    gap_size: float
    gap_percent: float
    is_lower_better: bool
    is_beyond_noise: bool | None
    """the interval of the gap excludes 0; None where the value's interval is not known"""
    gap_standard_error: float | None
    months: float
    """that the period's dates cover"""
    dates: int
    is_sum: bool
    sample_size: int | None
    """people, at least, in any one row's period; None where the table does not tell"""
    value_times: float | None = None
    """how many units the metric's worth is multiplied with"""
    reach: float | None = None
    """units that a proven treatment can reach here"""
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class UnknownGap:
    """A comparison that the data do not allow, and why. It is not a gap of 0."""

    metric: str
    segment: str
    segment_value: str
    gap_type: GapType
    reason: str


@dataclass(frozen=True, kw_only=True)
class GapTable:
    """What detection found: gaps at or above the minimum, what stays unknown, and what was left out."""

    period: tuple[str, str]
    """first and last day, inclusive"""
    reference_period: tuple[str, str] | None
    gaps: tuple[PerformanceGap, ...]
    unknown: tuple[UnknownGap, ...]
    compared: int
    """comparisons made"""
    cells: int
    suppressed_cells: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RoiEstimate:
    """What closing one gap costs and brings, by Monte Carlo; US dollars. `reason` says why it is unknown, where it is."""

    gap_id: str
    basis: Basis
    gap_value: float | None
    """dollars a year of the whole gap, before attribution and risk"""
    revenue: Range
    cost: Range
    roi: Range
    npv: Range
    payback_months: Range
    """an end of None: not paid back within the horizon"""
    probability_of_profit: float | None
    attribution: float | None
    risk: float | None
    assumptions: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Opportunity:
    """One gap with its worth and its place in the order."""

    rank: int
    gap: PerformanceGap
    roi: RoiEstimate
    difficulty: Level
    time_to_impact: str
    recommended_action: str
    is_quick_win: bool
    is_strategic_bet: bool


@dataclass(frozen=True, kw_only=True)
class GapReport:
    """The answer of gap_analyzer. `total_*` count every metric and cell once, however many gap types or segmentations show it."""

    period: tuple[str, str]
    opportunities: tuple[Opportunity, ...]
    total_addressable_value: Range
    total_gap_value: float | None
    gaps_found: int
    comparisons: int
    segments_analyzed: int
    suppressed_cells: int
    unknown: tuple[UnknownGap, ...]
    executive_summary: str
    key_insights: tuple[str, ...]
    warnings: tuple[str, ...]
    suggested_next_agent: str | None

    @property
    def quick_wins(self) -> tuple[Opportunity, ...]:
        """Low difficulty and a return above 1."""
        return tuple(item for item in self.opportunities if item.is_quick_win)

    @property
    def strategic_bets(self) -> tuple[Opportunity, ...]:
        """High difficulty, a return above 2, a cost above $50,000."""
        return tuple(item for item in self.opportunities if item.is_strategic_bet)

    def summary(self) -> str:
        """The executive summary."""
        return self.executive_summary

    def to_dict(self) -> dict[str, Any]:
        """Plain data, where numbers that are not finite are None; quick wins and strategic bets by rank."""
        found: dict[str, Any] = plain(asdict(self))
        wins, bets = ([item.rank for item in items] for items in (self.quick_wins, self.strategic_bets))
        return {**found, "quick_wins": wins, "strategic_bets": bets}
