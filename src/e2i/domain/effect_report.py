"""The causal part of report.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from e2i.domain.disclosure import SMALL_CELL, number, numbers, visible, visible_counts
from e2i.domain.evidence import BalanceRow, CausalFinding, Effect, PeriodEffect, Refutation, SpecificationPoint, VerdictName

_UNTESTED = "untested_"
_TELLS_ESTIMATE = frozenset(
    (
        "bias_bound",
        "drift_robustness",
        "random_common_cause",
        "subset_stability",
        "bootstrap",
        "confounder_benchmarks",
        "covariate_timing",
        "parallel_trends",
    )
)


@dataclass(frozen=True, kw_only=True)
class EffectSummary:
    """The causal answer with what is needed to judge it."""

    treatment: str
    outcome: str
    finding: CausalFinding
    narrative: str | None = None
    """only for an effect that may be told"""
    path_id: str | None = None
    """row in causal_paths"""

    @property
    def verdict(self) -> VerdictName:
        """Whether the estimate may be told."""
        return self.finding.verdict.name

    def to_dict(self) -> dict[str, Any]:
        """As in report.json; the estimate and its interval are None when estimation was refused."""
        finding = self.finding
        return {
            "treatment": self.treatment,
            "outcome": self.outcome,
            **_effect(finding.effect),
            "verdict": finding.verdict.name,
            "reasons": list(finding.verdict.reasons),
            "refusal": finding.refusal,
            "narrative": self.narrative,
            "path_id": self.path_id,
            "design_reasons": list(finding.reasons) or None,
            "hazards": [asdict(hazard) for hazard in finding.hazards] or None,
            "diagnostics": _diagnostics(finding),
            "balance": [_balance(row) for row in finding.balance] or None,
            "refutations": [_refutation(item) for item in finding.refutations] or None,
            "alternatives": [_effect(other) for other in finding.alternatives] or None,
            "event_study": [_period(point) for point in finding.event_study] or None,
            "specifications": [_specification(point) for point in finding.specifications] or None,
            "path": [asdict(point) for point in finding.path] or None,
            "donor_weights": numbers(finding.weights),
        }


def tells_estimate(test: str) -> bool:
    """Whether the words of a test give the estimate away, failed or passed.

    >>> tells_estimate("bias_bound"), tells_estimate("negative_control:nrx_other")
    (True, False)
    """
    return test.partition(":")[0] in _TELLS_ESTIMATE


def untested(test: str) -> str | None:
    """What a check could not test, by its name; None for a test that ran.

    >>> untested("untested_negative_control:nrx_other"), untested("pre_trend")
    ('negative_control:nrx_other', None)
    """
    return test.removeprefix(_UNTESTED) if test.startswith(_UNTESTED) else None


def _effect(effect: Effect | None) -> dict[str, Any]:
    names = ("estimand", "design", "estimator", "estimate", "interval", "interval_method", "scale", "standard_error", "p_value")
    others = ("naive_difference", "outcome_mean_untreated", "treated", "untreated", "certificate", "outcome_kind")
    if effect is None:
        return dict.fromkeys((*names, *others))
    counts = visible_counts({"treated": effect.n_treated, "untreated": effect.n_untreated})
    return {
        "estimand": effect.estimand,
        "design": effect.design,
        "estimator": effect.estimator,
        "estimate": number(effect.estimate),
        "interval": [number(bound) for bound in effect.interval()],
        "interval_method": effect.interval_method,
        "scale": effect.scale,
        "standard_error": number(effect.standard_error),
        "p_value": number(effect.p_value),
        "naive_difference": number(effect.naive_difference),
        "outcome_mean_untreated": number(effect.outcome_mean_untreated),
        "treated": counts["treated"],
        "untreated": counts["untreated"],
        "certificate": effect.certificate,
        "outcome_kind": effect.outcome_kind,
    }


def _diagnostics(finding: CausalFinding) -> dict[str, float | None] | None:
    found: dict[str, float] = dict(finding.effect.diagnostics) if finding.effect else {}
    if finding.overlap is not None:
        found["share_outside"] = finding.overlap.share_outside
        found["effective_share"] = finding.overlap.effective_share
        found["propensity_auc"] = finding.overlap.propensity_auc
    if finding.balance:
        found["largest_smd_before"] = max(abs(row.smd_before) for row in finding.balance)
        found["largest_smd_after"] = max(abs(row.smd_after) for row in finding.balance)
    shown = numbers(found)
    for name in ("missing_treatment", "missing_outcome"):
        if shown and 1 <= found.get(name, 0) <= SMALL_CELL:
            shown[name] = None
    return shown


def _balance(row: BalanceRow) -> dict[str, Any]:
    return {"covariate": row.covariate, "smd_before": number(row.smd_before), "smd_after": number(row.smd_after)}


def _refutation(item: Refutation) -> dict[str, Any]:
    return {
        "test": item.test,
        "passed": item.passed,
        "detail": item.detail,
        "statistic": number(item.statistic),
        "p_value": number(item.p_value),
        "estimate": number(item.estimate),
        "reported_only": item.is_reported_only,
    }


def _period(point: PeriodEffect) -> dict[str, Any]:
    return {
        "period": point.period,
        "estimate": number(point.estimate),
        "interval": [number(point.low), number(point.high)],
        "treated": None if point.n_treated is None else visible(point.n_treated),
        "reference": point.is_reference,
    }


def _specification(point: SpecificationPoint) -> dict[str, Any]:
    return {
        "estimator": point.estimator,
        "sample": point.sample,
        "adjustment": point.adjustment,
        "estimate": number(point.estimate),
        "interval": [number(point.low), number(point.high)],
        "chosen": point.is_chosen,
    }
