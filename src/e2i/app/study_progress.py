"""What a run has found so far, and the report that is made of it, also when the chain stops early."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2i.agents.causal_analytics import causal_impact, gap_analyzer, heterogeneous_optimizer
from e2i.agents.ml_foundation import (
    data_preparer,
    feature_analyzer,
    model_deployer,
    model_trainer,
    observability_connector,
    scope_definer,
)
from e2i.agents.ml_predictions import resource_optimizer
from e2i.agents.monitoring import experiment_designer
from e2i.domain.effect_report import EffectSummary
from e2i.domain.experiments import FrameRef, ModelVersion, SearchResult
from e2i.domain.report import (
    DataSummary,
    ExplanationSummary,
    ModelSummary,
    QCSummary,
    StudyReport,
)
from e2i.domain.runs import StudyRun
from e2i.domain.study import Study
from e2i.errors import E2IError
from e2i.ports.data import FrameStore


@dataclass(frozen=True, kw_only=True)
class Table:
    """The run's table and what identifies it."""

    ref: FrameRef
    sha256: str
    is_synthetic: bool


@dataclass(kw_only=True)
class Progress:
    """One run."""

    run: StudyRun
    study: Study
    frames: FrameStore
    base: Path
    timings: dict[str, float] = field(default_factory=dict)
    scoped: scope_definer.State | None = None
    prepared: data_preparer.State | None = None
    effect_alone: bool = False
    table: Table | None = None
    """of a run without quality gate: for the effect alone, or for plans alone"""
    trained: model_trainer.State | None = None
    explained: feature_analyzer.State | None = None
    deployed: model_deployer.State | None = None
    caused: causal_impact.State | None = None
    divided: heterogeneous_optimizer.State | None = None
    compared: gap_analyzer.State | None = None
    allocated: resource_optimizer.State | None = None
    designed: experiment_designer.State | None = None
    observed: observability_connector.State | None = None


def make_report(progress: Progress, *, status: Any, error: E2IError | None) -> StudyReport:
    """The report of what the run reached."""
    study, prepared, table = progress.study, progress.prepared, table_of(progress)
    return StudyReport(
        study=study.name,
        status=status,
        run_id=progress.run.run_id,
        experiment_id=progress.run.experiment_id,
        trace_id=progress.run.trace_id,
        synthetic=table.is_synthetic if table is not None else study.data.source == "synthetic",
        created_at=datetime.now(UTC),
        description=study.description,
        brand=study.brand,
        data=_data(table),
        derived=dict(study.data.derive),
        qc=QCSummary.of(prepared.qc) if prepared is not None and prepared.qc is not None else None,
        splits=prepared.plan if prepared is not None else None,
        model=_model_summary(progress),
        explanation=_explanation(progress),
        effect=_effect_summary(progress),
        segments=progress.divided.report if progress.divided is not None else None,
        gaps=progress.compared.report if progress.compared is not None else None,
        allocation=progress.allocated.plan if progress.allocated is not None else None,
        experiment=progress.designed.plan if progress.designed is not None else None,
        timings_s=dict(progress.timings),
        asked=("effect",)
        if progress.effect_alone
        else tuple(name for name in ("effect", "prediction", "gaps", "allocation", "experiment") if getattr(study, name) is not None),
        error=dict(error.to_dict()) if error is not None else None,
        warnings=_warnings(progress),
    )


def table_of(progress: Progress) -> Table | None:
    """The table that everything rests on, when it was read."""
    prepared = progress.prepared
    if prepared is None or prepared.table is None or prepared.data_sha256 is None:
        return progress.table
    return Table(ref=prepared.table, sha256=prepared.data_sha256, is_synthetic=bool(prepared.is_synthetic))


def _data(table: Table | None) -> DataSummary | None:
    return DataSummary(rows=table.ref.rows, columns=len(table.ref.columns), sha256=table.sha256) if table is not None else None


def _model_summary(progress: Progress) -> ModelSummary | None:
    done = progress.trained
    if done is None or done.trained is None:
        return None
    version: ModelVersion = progress.deployed.version if progress.deployed is not None else done.candidate
    search: SearchResult | None = done.search
    return ModelSummary(
        target=done.scope.prediction_target, problem_type=done.scope.problem_type, trained=done.trained, version=version, search=search
    )


def _explanation(progress: Progress) -> ExplanationSummary | None:
    if progress.explained is None or progress.explained.explanation is None:
        return None
    return ExplanationSummary(explanation=progress.explained.explanation)


def _effect_summary(progress: Progress) -> EffectSummary | None:
    effect = progress.study.effect
    caused = progress.caused
    if effect is None or caused is None or caused.finding is None:
        return None
    return EffectSummary(
        treatment=effect.treatment, outcome=effect.outcome, finding=caused.finding, narrative=caused.narrative, path_id=caused.path_id
    )


def _warnings(progress: Progress) -> tuple[str, ...]:
    found = list(progress.scoped.scope.warnings) if progress.scoped is not None and progress.scoped.scope is not None else []
    trained = progress.trained.trained if progress.trained is not None else None
    if trained is not None and trained.mlflow_run_id is None:
        found.append("MLflow could not be reached: its records wait in the outbox and are delivered by the next run or `e2i doctor`.")
    if progress.deployed is not None and progress.deployed.refusal is not None:
        found.append(f"The model stays in {progress.deployed.version.stage}: {progress.deployed.refusal}.")
    return tuple(found)


def status_of(progress: Progress) -> str:
    """Blocked when the quality gate is closed, or when the effect is the whole question and was refused."""
    prepared = progress.prepared
    if progress.table is None and (prepared is None or prepared.qc is None or not prepared.qc.gate_passed):
        return "blocked"
    finding = progress.caused.finding if progress.caused is not None else None
    if (progress.effect_alone or progress.study.prediction is None) and finding is not None and finding.verdict.name == "block":
        return "blocked"
    return "completed"
