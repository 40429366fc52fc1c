"""Segments by hand; gaps and allocations as the package computes them on small tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache

import polars as pl

from e2i.domain.allocation import AllocationPlan, AllocationSpec
from e2i.domain.effect_report import EffectSummary
from e2i.domain.gaps import GapReport, GapSpec
from e2i.domain.report import ReportEvidence, StudyReport
from e2i.domain.segments import (
    Calibration,
    GainPoint,
    GroupEffect,
    HeterogeneityReport,
    Interval,
    Policy,
    PolicyLeaf,
    PolicyRecommendation,
    PolicyValue,
    Pooling,
    SegmentEffect,
    SegmentProfile,
    Uplift,
)
from e2i.ml import opportunities, roi
from e2i.ml.allocation.plan import allocate
from e2i.ml.gaps import detect

METRICS = ("TRx", "NRx", "HCP_Coverage")


def interval(estimate, half=0.5) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)


def segment(name, value, estimate) -> SegmentEffect:
    return SegmentEffect(
        segment_name=name,
        segment_value=value,
        status="estimated",
        size=640,
        treatment_rate=0.31,
        estimate=estimate,
        standard_error=0.25,
        low=estimate - 0.5,
        high=estimate + 0.5,
        simultaneous_low=estimate - 0.8,
        simultaneous_high=estimate + 0.8,
        p_value=0.012,
        p_adjusted=0.024,
        is_significant=True,
        difference=interval(estimate - 3.1, 0.7),
        difference_p_adjusted=0.2,
        differs=abs(estimate - 3.1) > 0.7,
        shrunken=interval(estimate * 0.97),
        responder_type="average",
    )


def policy(*, gain=1.4, unit="US dollars") -> Policy:
    values = {"learned": (512.3, 0.41), "everybody": (401.2, 1.0), "nobody": (0.0, 0.0), "current": (300.7, 0.33)}
    return Policy(
        leaves=(
            PolicyLeaf(conditions=("decile above 4", "specialty is not hematology"), treat=True, share=0.412),
            PolicyLeaf(conditions=("decile at most 4",), treat=False, share=None),
        ),
        values=tuple(
            PolicyValue(
                policy=name, value=interval(value, 40.0), share=share, gain_over_current=interval(gain if name == "learned" else 0.3)
            )
            for name, (value, share) in values.items()
        ),
        expected_total_lift=interval(811.0, 90.0),
        recommendations=(
            PolicyRecommendation(
                segment="decile 1",
                current_treatment_rate=0.2,
                recommended_treatment_rate=None,
                expected_incremental_outcome=interval(-3.0, 9.0),
                confidence=0.31,
            ),
        ),
        unit=unit,
        cost_per_treated=1200.0,
        budget_share=0.45,
        interval_method="doubly robust, held-out rows",
    )


def segments(**changes) -> HeterogeneityReport:
    few = SegmentEffect(segment_name="decile", segment_value="9 to 10", status="suppressed", reason="10 people or fewer")
    groups = tuple(
        GroupEffect(group=k, of=4, estimate=k * 1.1, raw_estimate=k * 1.1, standard_error=0.2, low=k - 0.4, high=k + 0.6, size=250)
        for k in range(1, 5)
    )
    profile = {"ratio_to_overall": 1.71, "size": 640, "size_share": 0.231, "recommendation": "treat first"}
    told = {
        "treatment": "speaker_program",
        "outcome": "nrx",
        "estimand": "ATT",
        "rows": 2560,
        "overall_ate": interval(3.1),
        "average_over_everybody": interval(2.2),
        "heterogeneity_score": 0.44,
        "heterogeneity_band": "moderate",
        "is_heterogeneity_proven": True,
        "cate_by_segment": {
            "decile": (segment("decile", "1 to 4", 1.25), segment("decile", "5 to 8", 5.31), few),
            "specialty": (segment("specialty", "oncology", 3.37), segment("specialty", "hematology", 2.91)),
        },
        "pooling_by_modifier": {
            "decile": Pooling(
                pooled=interval(3.3), standard_error=0.2, tau2=4.0, tau2_dersimonian_laird=4.1, i2=0.91, q=30.0, q_p_value=1e-9, groups=2
            )
        },
        "high_responders": (
            SegmentProfile(
                segment_id="decile=5 to 8", responder_type="high", effect=interval(5.31), defining_features=("decile 5 to 8",), **profile
            ),
        ),
        "calibration": Calibration(
            mean_prediction=interval(0.98, 0.1),
            differential_prediction=None,
            p_value=0.0004,
            groups=groups,
            interval_method="5 folds, normal",
        ),
        "uplift": Uplift(
            auuc=interval(1.92, 0.2),
            qini=interval(0.61, 0.1),
            autoc=interval(2.3, 0.4),
            autoc_p_value=1e-6,
            targeting_efficiency=0.86,
            curve=tuple(GainPoint(share=k / 5, gain=k**0.5, low=k**0.5 - 0.1, high=k**0.5 + 0.1, random=k * 5**-0.5) for k in range(6)),
            interval_method="half-sample bootstrap, 200 draws",
        ),
        "policy": policy(),
        "projection": {"decile": interval(0.64, 0.1)},
        "feature_importance": {"decile": 0.57, "specialty": 0.43},
        "unit_effect_quantiles": tuple(k * 0.7 for k in range(11)),
        "key_insights": ("The effect differs between people beyond chance.",),
        "methods": {"scores": "doubly robust, cross-fitted"},
    }
    return HeterogeneityReport(**{**told, **changes})


def refused_segments() -> HeterogeneityReport:
    return HeterogeneityReport(treatment="speaker_program", outcome="nrx", refusal="fewer than 200 people: 84 in all.")


@cache
def gaps() -> GapReport:
    regions = ("east", "north", "south", "west")
    table = pl.DataFrame(
        [
            {
                "metric_date": date(2024, 10, 1),
                "metric_name": metric,
                "region": region,
                "value": 100.0 - 9.0 * place,
                "target": None if region == "west" else 100.0,
                "sample_size": 50,
            }
            for metric in METRICS
            for place, region in enumerate(regions)
        ],
    )
    spec = GapSpec(gap_type="vs_target", costs={"TRx": 4_000, "NRx": 400_000})
    seen = detect(table, spec)
    ranked = opportunities.prioritise(seen.gaps, roi.estimate(seen.gaps, spec, findings={}, seed=7))
    return opportunities.report(seen, ranked, spec, findings={}, seed=7)


def _spec(**changes) -> AllocationSpec:
    return AllocationSpec.model_validate(
        {
            "resource": "calls",
            "current": "calls",
            "maximum": 10,
            "budget": 240,
            "value_per_unit": 2,
            "response": {"curve": "log", "coefficient": "lift", "low": "low", "high": "high", "scale": 3},
            **changes,
        }
    )


def hcps() -> pl.DataFrame:
    lift = [1.0 + (7 * place % 60) / 5 for place in range(60)]
    return pl.DataFrame(
        {
            "entity_id": [f"hcp_{place:02d}" for place in range(60)],
            "lift": lift,
            "low": [value * 0.6 for value in lift],
            "high": [value * 1.4 for value in lift],
            "calls": [4.0] * 60,
            "pdrp_opt_out": [0] * 60,
        }
    )


@cache
def allocation() -> AllocationPlan:
    return allocate(hcps(), _spec(draws=20), seed=7)


@cache
def impossible() -> AllocationPlan:
    return allocate(hcps(), _spec(min_total=300.0, draws=20), seed=7)


def states(
    report: StudyReport, evidence: ReportEvidence, *, blocked: EffectSummary, reviewed: EffectSummary
) -> dict[str, tuple[StudyReport, ReportEvidence]]:
    """A complete run with plans, one whose plan is impossible, and `e2i effect` alone in three verdicts."""
    alone = replace(
        report,
        qc=None,
        splits=None,
        model=None,
        explanation=None,
        experiment_id=None,
        asked=("effect",),
        segments=segments(),
        timings_s={"causal_impact.estimate": 7.72},
    )
    planned = replace(
        report, asked=("effect", "prediction", "gaps", "allocation"), segments=segments(), gaps=gaps(), allocation=allocation()
    )
    impossible_plan = replace(
        report, asked=("effect", "allocation"), model=None, explanation=None, segments=refused_segments(), allocation=impossible()
    )
    overlap = ReportEvidence(overlap=evidence.overlap)
    return {
        "planned": (planned, evidence),
        "impossible_plan": (impossible_plan, ReportEvidence()),
        "effect_alone": (alone, overlap),
        "effect_alone_blocked": (replace(alone, status="blocked", effect=blocked), overlap),
        "effect_alone_review": (replace(alone, effect=reviewed, segments=segments(policy=policy(gain=0.1))), ReportEvidence()),
    }
