"""For whom the effect is how large, and whom to treat. Counts of 1-10 people, and what would give them away, are None."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from e2i.domain.plain import plain

ResponderType = Literal["high", "average", "low"]
SegmentStatus = Literal["estimated", "suppressed", "one_arm", "one_cluster", "too_few"]
Band = Literal["low", "moderate", "high"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Zero lies outside."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, kw_only=True)
class GroupEffect:
    """Mean effect of one quantile group of the predicted effect; `estimate` is rearranged to rise with the group."""

    group: int
    of: int
    estimate: float
    raw_estimate: float
    standard_error: float
    low: float
    high: float
    size: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predicted against found effects. Perfect predictions have both slopes at 1; no found heterogeneity has the second at 0."""

    mean_prediction: Interval
    differential_prediction: Interval | None
    """None when the predictions do not vary"""
    p_value: float | None
    """one-sided, of heterogeneity that the prediction finds"""
    groups: tuple[GroupEffect, ...]
    interval_method: str


@dataclass(frozen=True, kw_only=True)
class GainPoint:
    """Treating the first `share` of people brings `gain` per person of all; a random order brings `random`."""

    share: float
    gain: float
    low: float
    high: float
    random: float


@dataclass(frozen=True, kw_only=True)
class Uplift:
    """What ranking people by predicted effect is worth, on the outcome's scale per person."""

    auuc: Interval
    qini: Interval
    autoc: Interval
    autoc_p_value: float | None
    targeting_efficiency: float | None
    """share of the largest gain that the first half of the people brings"""
    curve: tuple[GainPoint, ...]
    interval_method: str


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """Groups' effects put together: `tau2` (REML) is their true variance, `i2` in 0-1 its share of the seen variance."""

    pooled: Interval
    standard_error: float
    tau2: float
    tau2_dersimonian_laird: float
    i2: float
    q: float
    q_p_value: float | None
    groups: int


@dataclass(frozen=True, kw_only=True)
class SegmentEffect:
    """The effect in one segment. Numbers are None where `status` is not `estimated`."""

    segment_name: str
    segment_value: str
    status: SegmentStatus
    reason: str | None = None
    size: int | None = None
    treatment_rate: float | None = None
    estimate: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    simultaneous_low: float | None = None
    simultaneous_high: float | None = None
    """covers all segments at once with 95 %"""
    p_value: float | None = None
    p_adjusted: float | None = None
    """Benjamini-Hochberg over all segments, of no effect"""
    is_significant: bool = False
    difference: Interval | None = None
    """from the overall effect, simultaneous over all segments"""
    difference_p_adjusted: float | None = None
    differs: bool = False
    """from the overall effect, false discovery rate 5 %"""
    shrunken: Interval | None = None
    """after empirical Bayes shrinkage within the modifier"""
    responder_type: ResponderType | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentProfile:
    """A segment whose effect is clearly larger or smaller than the overall one."""

    segment_id: str
    responder_type: ResponderType
    effect: Interval
    ratio_to_overall: float
    defining_features: tuple[str, ...]
    size: int | None
    size_share: float | None
    recommendation: str


@dataclass(frozen=True, kw_only=True)
class PolicyLeaf:
    """One rule: people who meet all `conditions` are treated, or not."""

    conditions: tuple[str, ...]
    treat: bool
    share: float | None
    """of all people; None where it would give a small cell away"""


@dataclass(frozen=True, kw_only=True)
class PolicyValue:
    """Value per person against treating nobody, on rows that did not choose the policy; `share` is treated."""

    policy: str
    value: Interval
    share: float
    gain_over_current: Interval


@dataclass(frozen=True, kw_only=True)
class PolicyRecommendation:
    """What the learned policy means for one segment. `confidence` is the probability, normal or t over clusters, that the change helps."""

    segment: str
    current_treatment_rate: float | None
    recommended_treatment_rate: float | None
    """None where it would give 1-10 people away"""
    expected_incremental_outcome: Interval
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A tree of at most two questions, and what it is worth out of sample. `unit` is `outcome` or `US dollars`."""

    leaves: tuple[PolicyLeaf, ...]
    values: tuple[PolicyValue, ...]
    expected_total_lift: Interval
    """outcome units over all people of the table, learned policy against present practice"""
    recommendations: tuple[PolicyRecommendation, ...]
    unit: str
    cost_per_treated: float
    budget_share: float | None
    interval_method: str

    @property
    def is_better_than_current(self) -> bool:
        """The learned policy's gain over present practice has an interval above zero."""
        return any(item.policy == "learned" and item.gain_over_current.low > 0.0 for item in self.values)


@dataclass(frozen=True, kw_only=True)
class HeterogeneityReport:
    """What is known about differences in the effect. With `refusal` nothing else is."""

    treatment: str
    outcome: str
    estimand: str | None = None
    refusal: str | None = None
    rows: int | None = None
    overall_ate: Interval | None = None
    """the average effect as causal_impact tells it, of `estimand`"""
    average_over_everybody: Interval | None = None
    """the ATE from the same scores; another one than `overall_ate` when the estimand is the ATT"""
    heterogeneity_score: float | None = None
    """min(sd of the calibrated unit effects / |average over everybody| / 2, 1)"""
    heterogeneity_band: Band | None = None
    is_heterogeneity_proven: bool = False
    """the calibration test rejects at 5 %"""
    cate_by_segment: dict[str, tuple[SegmentEffect, ...]] = field(default_factory=dict)
    pooling_by_modifier: dict[str, Pooling] = field(default_factory=dict)
    hierarchical: Pooling | None = None
    """over groups of the predicted effect"""
    hierarchical_groups: tuple[GroupEffect, ...] = ()
    high_responders: tuple[SegmentProfile, ...] = ()
    low_responders: tuple[SegmentProfile, ...] = ()
    calibration: Calibration | None = None
    uplift: Uplift | None = None
    policy: Policy | None = None
    optimal_allocation_summary: str | None = None
    projection: dict[str, Interval] = field(default_factory=dict)
    """best linear projection of the effect: change per unit of each modifier"""
    feature_importance: dict[str, float] = field(default_factory=dict)
    """share of each modifier in the predicted effect's variation"""
    unit_effect_quantiles: tuple[float, ...] = ()
    """0, 10, … 100 % quantiles of the predicted unit effects"""
    key_insights: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    methods: dict[str, str] = field(default_factory=dict)
    suggested_next_agent: str | None = None

    @property
    def expected_total_lift(self) -> Interval | None:
        """Of the learned policy against present practice, in outcome units."""
        return self.policy.expected_total_lift if self.policy is not None else None

    @property
    def policy_recommendations(self) -> tuple[PolicyRecommendation, ...]:
        """By segment."""
        return self.policy.recommendations if self.policy is not None else ()

    def summary(self) -> str:
        """One line: who responds most and least, who differs from the average at all, or why nobody is told apart."""
        if self.refusal is not None:
            return f"not told: {self.refusal}"
        told = [
            f"{kind}: {', '.join(f'{one.segment_id} {one.effect.estimate:.3g}' for one in found[:3])}"
            for kind, found in (("high responders", self.high_responders), ("low responders", self.low_responders))
            if found
        ]
        if not told:
            differing = [one for effects in self.cate_by_segment.values() for one in effects if one.differs and one.estimate is not None]
            named = ", ".join(f"{one.segment_name}={one.segment_value} {one.estimate:.3g}" for one in differing[:3])
            told = [f"differing from the average: {named}"] if differing else []
        return "; ".join(told) if told else "no segment stands out from the average effect."

    def to_dict(self) -> dict[str, Any]:
        """As in report.json: numbers that are not finite are None."""
        lift = self.expected_total_lift
        told = {
            **asdict(self),
            "expected_total_lift": asdict(lift) if lift is not None else None,
            "policy_recommendations": [asdict(item) for item in self.policy_recommendations],
        }
        found: dict[str, Any] = plain(told)
        return found
