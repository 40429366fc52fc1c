"""What heterogeneity means in words: responders, insights, and the whole report."""

from __future__ import annotations

from dataclasses import dataclass

from e2i.causal.heterogeneity import Heterogeneity, Hierarchy
from e2i.causal.segments import SegmentEffects
from e2i.domain.evidence import CausalFinding
from e2i.domain.segments import Band, HeterogeneityReport, Interval, Policy, SegmentEffect, SegmentProfile

TOP_SEGMENTS = 10
_LEVEL = 0.05
_BANDS = (0.3, 0.6)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the steps found."""

    treatment: str
    outcome: str
    finding: CausalFinding
    found: Heterogeneity
    segments: SegmentEffects
    hierarchy: Hierarchy | None
    policy: Policy | None
    more_is_better: bool = True
    """of the outcome"""


def refused(treatment: str, outcome: str, reason: str) -> HeterogeneityReport:
    """The report that no segment is told, and why."""
    return HeterogeneityReport(treatment=treatment, outcome=outcome, refusal=reason, suggested_next_agent="explainer")


def compose(parts: Parts) -> HeterogeneityReport:
    """The report of all steps."""
    effect = parts.finding.effect
    assert effect is not None
    low, high = effect.interval()
    overall = Interval(estimate=effect.estimate, low=low, high=high)
    average = parts.found.average
    score = min(parts.found.spread / abs(average.estimate) / 2.0, 1.0) if average.estimate else 1.0
    calibration = parts.found.calibration
    policy = parts.policy
    return HeterogeneityReport(
        treatment=parts.treatment,
        outcome=parts.outcome,
        estimand=effect.estimand,
        rows=parts.found.rows,
        overall_ate=overall,
        average_over_everybody=average,
        heterogeneity_score=score,
        heterogeneity_band=_band(score),
        is_heterogeneity_proven=calibration.p_value is not None and calibration.p_value <= _LEVEL,
        cate_by_segment=parts.segments.by_modifier,
        pooling_by_modifier=parts.segments.pooling,
        hierarchical=parts.hierarchy.pooling if parts.hierarchy is not None else None,
        hierarchical_groups=parts.hierarchy.groups if parts.hierarchy is not None else (),
        high_responders=_profiles(parts, "high"),
        low_responders=_profiles(parts, "low"),
        calibration=calibration,
        uplift=parts.found.uplift,
        policy=policy,
        optimal_allocation_summary=_allocation(policy) if policy is not None else None,
        projection=parts.found.projection,
        feature_importance=parts.found.importance,
        unit_effect_quantiles=parts.found.quantiles,
        key_insights=_insights(parts),
        warnings=_warnings(parts),
        methods={
            **parts.found.methods,
            "calibration": calibration.interval_method,
            "uplift": parts.found.uplift.interval_method,
            "segments": "doubly robust scores; Benjamini-Hochberg flags; simultaneous intervals; empirical Bayes shrinkage (REML)",
            **({"policy": policy.interval_method} if policy is not None else {}),
        },
        suggested_next_agent="resource_optimizer" if policy is not None and policy.is_better_than_current else "explainer",
    )


def _band(score: float) -> Band:
    return "low" if score < _BANDS[0] else "high" if score > _BANDS[1] else "moderate"


def _profiles(parts: Parts, kind: str) -> tuple[SegmentProfile, ...]:
    """The clearest segments of one kind, most extreme first."""
    overall = parts.segments.overall.estimate
    chosen = [
        effect
        for effects in parts.segments.by_modifier.values()
        for effect in effects
        if effect.responder_type == kind and effect.estimate is not None
    ]
    chosen.sort(key=lambda effect: (effect.estimate or 0.0) / overall, reverse=kind == "high")
    return tuple(_profile(effect, parts) for effect in chosen[:TOP_SEGMENTS])


def _profile(effect: SegmentEffect, parts: Parts) -> SegmentProfile:
    assert effect.estimate is not None
    assert effect.low is not None
    assert effect.high is not None
    assert effect.responder_type is not None
    gain = effect.low > 0 if parts.more_is_better else effect.high < 0
    loss = effect.high < 0 if parts.more_is_better else effect.low > 0
    overall, rows = parts.segments.overall.estimate, parts.found.rows
    advice = "do not treat" if loss else "treat first" if gain and effect.responder_type == "high" else "treat last"
    return SegmentProfile(
        segment_id=f"{effect.segment_name}={effect.segment_value}",
        responder_type=effect.responder_type,
        effect=Interval(estimate=effect.estimate, low=effect.low, high=effect.high),
        ratio_to_overall=effect.estimate / overall,
        defining_features=(f"{effect.segment_name} {effect.segment_value}",),
        size=effect.size,
        size_share=effect.size / rows if effect.size is not None else None,
        recommendation=advice,
    )


def _allocation(policy: Policy) -> str:
    rules = [" and ".join(leaf.conditions) or "everybody" for leaf in policy.leaves if leaf.treat]
    learned = next(item for item in policy.values if item.policy == "learned")
    who = f"Treat: {'; or '.join(rules)}" if rules else "Treat nobody"
    gain = learned.gain_over_current
    proof = "better than present practice" if gain.low > 0 else "not shown to be better than present practice"
    return (
        f"{who}. {learned.share:.0%} of people; {proof}: {gain.estimate:.3g} {policy.unit} per person "
        f"(95 % interval {gain.low:.3g} to {gain.high:.3g}), out of sample."
    )


def _insights(parts: Parts) -> tuple[str, ...]:
    calibration = parts.found.calibration
    proven = calibration.p_value is not None and calibration.p_value <= _LEVEL
    out = [
        "The effect differs between people beyond chance."
        if proven
        else "No difference in the effect between people is shown; the average is the best single answer."
    ]
    if proven and parts.found.importance:
        name, share = max(parts.found.importance.items(), key=lambda item: item[1])
        out.append(f"`{name}` carries {share:.0%} of the predicted differences.")
    if proven and calibration.groups:
        first, last = calibration.groups[0], calibration.groups[-1]
        out.append(
            f"From the least to the most responsive of {first.of} groups the effect goes from {first.estimate:.3g} to {last.estimate:.3g} "
            f"(average {parts.found.average.estimate:.3g})."
        )
    return tuple(out)


def _warnings(parts: Parts) -> tuple[str, ...]:
    notes = [*parts.found.notes, *parts.segments.notes]
    if parts.finding.verdict.name == "review":
        notes.append("The average effect itself is under review: " + "; ".join(parts.finding.verdict.reasons))
    if parts.policy is not None and parts.policy.cost_per_treated == 0:
        notes.append(f"No cost of treatment is known: the policy takes more `{parts.outcome}` as better, at no price.")
    if parts.finding.effect is not None and parts.finding.effect.estimand == "ATT":
        notes.append("Segments tell the effect among the treated; the policy also speaks about people who are not treated today.")
    if parts.finding.overlap is not None and parts.finding.overlap.share_outside > 0.0:
        notes.append(f"For {parts.finding.overlap.share_outside:.1%} of people treatment was nearly certain or nearly excluded.")
    slope = parts.found.calibration.differential_prediction
    if slope is not None and slope.high < 1.0 and slope.low > 0.0:
        notes.append("Predicted unit effects are spread too far; the segments' shrunken effects are the safer reading.")
    if not parts.found.average.excludes_zero:
        notes.append("The average effect's interval holds zero: the heterogeneity score, a ratio to it, is unsure.")
    return tuple(dict.fromkeys(notes))
