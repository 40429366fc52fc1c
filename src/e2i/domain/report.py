"""What a run leaves behind for people and programs: report.json, and what its page draws.

`StudyReport.to_dict()` is report.json. A key without content is None there, never invented; a number that is not finite is no
content. Counts of 1-10 people, and counts from which such a count could be derived, are None.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from e2i.domain.evidence import BalanceRow, CausalFinding, Overlap, Refutation, VerdictName
from e2i.domain.experiments import (
    SPLITS,
    CriterionResult,
    Explanation,
    MetricValue,
    ModelVersion,
    ProblemType,
    SearchResult,
    SplitPlan,
    TrainedModel,
)
from e2i.domain.quality import QCIssue, QCReport, QCStatus

SMALL_CELL = 10
"""counts from 1 to this many people are not shown"""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The snapshot that everything else rests on."""

    rows: int
    columns: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As in report.json."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class QCSummary:
    """The quality gate's answer."""

    status: QCStatus
    score: float | None
    scores: dict[str, float]
    issues: tuple[QCIssue, ...]
    gate_passed: bool

    @classmethod
    def of(cls, report: QCReport) -> QCSummary:
        """From the validator's report."""
        return cls(status=report.status, score=report.score, scores=report.scores, issues=report.issues, gate_passed=report.gate_passed)

    @property
    def blocking(self) -> tuple[QCIssue, ...]:
        """The findings that stop the run."""
        return tuple(issue for issue in self.issues if issue.severity == "blocking")

    def to_dict(self) -> dict[str, Any]:
        """As in report.json; findings that do not block stand under `other_issues`."""
        return {
            "status": self.status,
            "score": _number(self.score),
            "scores": _numbers(self.scores),
            "gate_passed": self.gate_passed,
            "blocking_issues": [_issue(issue) for issue in self.blocking],
            "other_issues": [{"severity": issue.severity, **_issue(issue)} for issue in self.issues if issue.severity != "blocking"],
        }


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """The model, where it is registered, and how good it is; `version` is None when it was not registered."""

    target: str
    problem_type: ProblemType
    trained: TrainedModel
    version: ModelVersion | None = None
    search: SearchResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """As in report.json, with the judged metrics of the test split under `metrics`."""
        trained, version = self.trained, self.version
        return {
            "target": self.target,
            "problem_type": self.problem_type,
            "algorithm": trained.algorithm,
            "hyperparameters": {name: _plain(value) for name, value in trained.hyperparameters.items()} or None,
            "framework": trained.framework,
            "mlflow_run_id": trained.mlflow_run_id,
            "model_uri": trained.model_uri,
            "registered_name": version.name if version else None,
            "version": version.version if version else None,
            "stage": version.stage if version else None,
            "threshold": _number(trained.threshold),
            "metrics": {name: _metric(value) for name, value in trained.metrics.items()} or None,
            "baseline": _numbers(trained.baseline_metrics),
            "success_criteria": {name: _criterion(result) for name, result in trained.success.items()} or None,
            "train_metrics": _numbers(trained.train_metrics),
            "validation_metrics": _numbers(trained.validation_metrics),
            "fairness": {name: _fairness(values) for name, values in trained.fairness.items()} or None,
            "calibration": trained.calibration,
            "training_samples": _visible(trained.training_samples),
            "features": len(trained.features),
            "feature_names": list(trained.features),
            "epochs": trained.epochs,
            "model_sha256": trained.model_sha256,
            "training_run_id": trained.training_run_id,
            "search": _search(self.search),
        }


@dataclass(frozen=True, kw_only=True)
class ExplanationSummary:
    """Which features move the model's predictions."""

    explanation: Explanation

    def to_dict(self) -> dict[str, Any]:
        """As in report.json."""
        told = self.explanation
        return {
            "top_features": [
                {"feature": item.feature, "importance": _number(item.importance), "direction": item.direction} for item in told.top_features
            ]
            or None,
            "method": told.method,
            "sample_size": _visible(told.sample_size),
            "base_value": _number(told.base_value),
            "additivity_error": _number(told.additivity_error),
            "interactions": [{"first": a, "second": b, "strength": _number(value)} for a, b, value in told.interactions] or None,
            "narrative": told.narrative,
        }


@dataclass(frozen=True, kw_only=True)
class EffectSummary:
    """The causal answer with what is needed to judge it."""

    treatment: str
    outcome: str
    finding: CausalFinding

    @property
    def verdict(self) -> VerdictName:
        """Whether the estimate may be told."""
        return self.finding.verdict.name

    def to_dict(self) -> dict[str, Any]:
        """As in report.json; the estimate and its interval are None when estimation was refused."""
        finding = self.finding
        effect = finding.effect
        counts = visible_counts({"treated": effect.n_treated, "untreated": effect.n_untreated}) if effect else {}
        return {
            "treatment": self.treatment,
            "outcome": self.outcome,
            "estimand": effect.estimand if effect else None,
            "design": effect.design if effect else None,
            "estimator": effect.estimator if effect else None,
            "estimate": _number(effect.estimate) if effect else None,
            "interval": _interval(effect.interval()) if effect else None,
            "standard_error": _number(effect.standard_error) if effect else None,
            "naive_difference": _number(effect.naive_difference) if effect else None,
            "outcome_mean_untreated": _number(effect.outcome_mean_untreated) if effect else None,
            "treated": counts.get("treated"),
            "untreated": counts.get("untreated"),
            "verdict": finding.verdict.name,
            "reasons": list(finding.verdict.reasons),
            "refusal": finding.refusal,
            "diagnostics": _diagnostics(finding),
            "balance": [_balance(row) for row in finding.balance] or None,
            "refutations": [_refutation(item) for item in finding.refutations] or None,
        }


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """One run of one study. Parts that the run did not reach are None."""

    study: str
    status: Literal["completed", "blocked", "failed"]
    run_id: str
    experiment_id: str | None
    trace_id: str | None
    synthetic: bool
    created_at: datetime
    asked: tuple[Literal["effect", "prediction"], ...] = ("effect", "prediction")
    """the study's questions; what was not asked is not on the page"""
    description: str | None = None
    brand: str | None = None
    data: DataSummary | None = None
    qc: QCSummary | None = None
    splits: SplitPlan | None = None
    model: ModelSummary | None = None
    explanation: ExplanationSummary | None = None
    effect: EffectSummary | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    """`E2IError.to_dict()` of what ended a failed run"""
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """report.json."""
        model = self.model.to_dict() if self.model else None
        return {
            "study": self.study,
            "status": self.status,
            "run_id": self.run_id,
            "experiment_id": self.experiment_id,
            "trace_id": self.trace_id,
            "synthetic": self.synthetic,
            "created_at": self.created_at.astimezone(UTC).isoformat(timespec="seconds"),
            "asked": list(self.asked),
            "description": self.description,
            "brand": self.brand,
            "data": self.data.to_dict() if self.data else None,
            "qc": self.qc.to_dict() if self.qc else None,
            "splits": _splits(self.splits),
            "split_plan": _split_plan(self.splits),
            "model": model,
            "explanation": self.explanation.to_dict() if self.explanation else None,
            "effect": self.effect.to_dict() if self.effect else None,
            "lineage": {
                "data_sha256": self.data.sha256 if self.data else None,
                "run_id": self.run_id,
                "experiment_id": self.experiment_id,
                "mlflow_run_id": model["mlflow_run_id"] if model else None,
                "model_uri": model["model_uri"] if model else None,
                "registered_name": model["registered_name"] if model else None,
                "model_version": model["version"] if model else None,
                "model_sha256": model["model_sha256"] if model else None,
                "trace_id": self.trace_id,
            },
            "timings_s": _numbers(self.timings_s),
            "error": self.error,
            "warnings": list(self.warnings) or None,
        }


@dataclass(frozen=True, kw_only=True)
class ReportEvidence:
    """What the page draws and report.json does not repeat: files beside the run, and the propensity's distribution."""

    curves_ref: str | None = None
    """`TrainedModel.curves_ref`"""
    shap_ref: str | None = None
    """`Explanation.values_ref`"""
    overlap: Overlap | None = None


def visible_counts(counts: dict[str, int]) -> dict[str, int | None]:
    """Counts of a partition with small cells hidden, and the next smallest one with a single hidden cell.

    >>> visible_counts({"treated": 7, "untreated": 900})
    {'treated': None, 'untreated': None}
    >>> visible_counts({"a": 3, "b": 20, "c": 900})
    {'a': None, 'b': None, 'c': 900}
    """
    hidden = {name for name, count in counts.items() if _visible(count) is None}
    if len(hidden) == 1 and len(counts) > 1:
        hidden.add(min((name for name in counts if name not in hidden), key=lambda name: counts[name]))
    return {name: None if name in hidden else count for name, count in counts.items()}


def _visible(count: int) -> int | None:
    return None if 1 <= count <= SMALL_CELL else count


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _numbers(values: dict[str, float]) -> dict[str, float | None] | None:
    return {name: _number(value) for name, value in values.items()} or None


def _fairness(values: dict[str, float]) -> dict[str, float | None] | None:
    """Keys of one group end in `[group]`; `n[group]` counts its people."""
    small = {key.removeprefix("n") for key, value in values.items() if key.startswith("n[") and value <= SMALL_CELL}
    return _numbers({key: value for key, value in values.items() if key[key.find("[") :] not in small})


def _plain(value: float | str | bool | None) -> float | str | bool | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _issue(issue: QCIssue) -> dict[str, Any]:
    return {"check": issue.check, "column": issue.column, "detail": issue.detail, "advice": issue.advice}


def _metric(metric: MetricValue) -> dict[str, float | None]:
    return {"value": _number(metric.value), "low": _number(metric.low), "high": _number(metric.high)}


def _criterion(result: CriterionResult) -> dict[str, Any]:
    return {"required": _number(result.required), "value": _number(result.value), "met": result.met}


def _search(result: SearchResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "study_name": result.study_name,
        "metric": result.metric,
        "best_value": _number(result.best_value),
        "best_trial": result.best_trial,
        "complete": result.n_complete,
        "pruned": result.n_pruned,
        "failed": result.n_failed,
        "warm_start": result.n_warm_start,
        "seconds": _number(result.seconds),
    }


def _splits(plan: SplitPlan | None) -> dict[str, int | None] | None:
    return visible_counts({name: plan.rows.get(name, 0) for name in SPLITS}) if plan else None


def _split_plan(plan: SplitPlan | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "strategy": plan.strategy,
        "boundaries": plan.boundaries or None,
        "gap_days": plan.gap_days,
        "gap_rows": _visible(plan.gap_rows),
        "seed": plan.seed,
    }


def _interval(bounds: tuple[float, float]) -> list[float] | None:
    low, high = (_number(bound) for bound in bounds)
    return None if low is None or high is None else [low, high]


def _diagnostics(finding: CausalFinding) -> dict[str, float | None] | None:
    found: dict[str, float] = dict(finding.effect.diagnostics) if finding.effect else {}
    if finding.overlap is not None:
        found["share_outside"] = finding.overlap.share_outside
        found["effective_share"] = finding.overlap.effective_share
        found["propensity_auc"] = finding.overlap.propensity_auc
    if finding.balance:
        found["largest_smd_before"] = max(abs(row.smd_before) for row in finding.balance)
        found["largest_smd_after"] = max(abs(row.smd_after) for row in finding.balance)
    shown = _numbers(found)
    for name in ("missing_treatment", "missing_outcome"):
        if shown and 1 <= found.get(name, 0) <= SMALL_CELL:
            shown[name] = None
    return shown


def _balance(row: BalanceRow) -> dict[str, Any]:
    return {"covariate": row.covariate, "smd_before": _number(row.smd_before), "smd_after": _number(row.smd_after)}


def _refutation(item: Refutation) -> dict[str, Any]:
    return {
        "test": item.test,
        "passed": item.passed,
        "detail": item.detail,
        "statistic": _number(item.statistic),
        "p_value": _number(item.p_value),
    }
