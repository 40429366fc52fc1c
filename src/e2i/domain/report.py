"""What a run leaves behind for people and programs: report.json, and what its page draws.

`StudyReport.to_dict()` is report.json. A key without content is None there, never invented; a number that is not finite is no
content. Counts of 1-10 people, and counts from which such a count could be derived, are None.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from e2i.domain.disclosure import SMALL_CELL, number, numbers, visible, visible_counts
from e2i.domain.effect_report import EffectSummary
from e2i.domain.evidence import Overlap
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
from e2i.domain.plain import plain
from e2i.domain.quality import QCIssue, QCReport, QCStatus

if TYPE_CHECKING:
    from e2i.domain.allocation import AllocationPlan
    from e2i.domain.gaps import GapReport
    from e2i.domain.segments import HeterogeneityReport
    from e2i.domain.trials import ExperimentPlan


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
            "score": number(self.score),
            "scores": numbers(self.scores),
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
            "hyperparameters": plain(trained.hyperparameters) or None,
            "framework": trained.framework,
            "mlflow_run_id": trained.mlflow_run_id,
            "model_uri": trained.model_uri,
            "registered_name": version.name if version else None,
            "version": version.version if version else None,
            "stage": version.stage if version else None,
            "threshold": number(trained.threshold),
            "metrics": {name: _metric(value) for name, value in trained.metrics.items()} or None,
            "baseline": numbers(trained.baseline_metrics),
            "success_criteria": {name: _criterion(result) for name, result in trained.success.items()} or None,
            "train_metrics": numbers(trained.train_metrics),
            "validation_metrics": numbers(trained.validation_metrics),
            "fairness": {name: _fairness(values) for name, values in trained.fairness.items()} or None,
            "calibration": trained.calibration,
            "training_samples": visible(trained.training_samples),
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
                {"feature": item.feature, "importance": number(item.importance), "direction": item.direction} for item in told.top_features
            ]
            or None,
            "method": told.method,
            "sample_size": visible(told.sample_size),
            "base_value": number(told.base_value),
            "additivity_error": number(told.additivity_error),
            "interactions": [{"first": a, "second": b, "strength": number(value)} for a, b, value in told.interactions] or None,
            "narrative": told.narrative,
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
    asked: tuple[str, ...] = ("effect", "prediction")
    """the study's questions; what was not asked is not on the page"""
    description: str | None = None
    brand: str | None = None
    data: DataSummary | None = None
    derived: dict[str, str] = field(default_factory=dict)
    """column -> expression, of what the study derives from the data"""
    qc: QCSummary | None = None
    splits: SplitPlan | None = None
    model: ModelSummary | None = None
    explanation: ExplanationSummary | None = None
    effect: EffectSummary | None = None
    segments: HeterogeneityReport | None = None
    gaps: GapReport | None = None
    allocation: AllocationPlan | None = None
    experiment: ExperimentPlan | None = None
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
            "segments": self.segments.to_dict() if self.segments else None,
            "gaps": self.gaps.to_dict() if self.gaps else None,
            "allocation": self.allocation.to_dict() if self.allocation else None,
            "experiment": self.experiment.to_dict() if self.experiment else None,
            "lineage": {
                "data_sha256": self.data.sha256 if self.data else None,
                "derived": dict(self.derived) or None,
                "run_id": self.run_id,
                "experiment_id": self.experiment_id,
                "mlflow_run_id": model["mlflow_run_id"] if model else None,
                "model_uri": model["model_uri"] if model else None,
                "registered_name": model["registered_name"] if model else None,
                "model_version": model["version"] if model else None,
                "model_sha256": model["model_sha256"] if model else None,
                "trace_id": self.trace_id,
            },
            "timings_s": numbers(self.timings_s),
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


def _fairness(values: dict[str, float]) -> dict[str, float | None] | None:
    """Keys of one group end in `[group]`; `n[group]` counts its people."""
    small = {key.removeprefix("n") for key, value in values.items() if key.startswith("n[") and value <= SMALL_CELL}
    return numbers({key: value for key, value in values.items() if key[key.find("[") :] not in small})


def _issue(issue: QCIssue) -> dict[str, Any]:
    return {"check": issue.check, "column": issue.column, "detail": issue.detail, "advice": issue.advice}


def _metric(metric: MetricValue) -> dict[str, float | None]:
    return {"value": number(metric.value), "low": number(metric.low), "high": number(metric.high)}


def _criterion(result: CriterionResult) -> dict[str, Any]:
    return {"required": number(result.required), "value": number(result.value), "met": result.met}


def _search(result: SearchResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "study_name": result.study_name,
        "metric": result.metric,
        "best_value": number(result.best_value),
        "best_trial": result.best_trial,
        "complete": result.n_complete,
        "pruned": result.n_pruned,
        "failed": result.n_failed,
        "warm_start": result.n_warm_start,
        "seconds": number(result.seconds),
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
        "gap_rows": visible(plan.gap_rows),
        "seed": plan.seed,
    }
