"""Take a study through the governed chain, from raw data to an explained model and a refuted effect."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2i.agents.causal_analytics import causal_impact
from e2i.agents.ml_foundation import (
    data_preparer,
    feature_analyzer,
    model_deployer,
    model_selector,
    model_trainer,
    observability_connector,
    scope_definer,
)
from e2i.agents.ml_foundation.model_trainer.nodes.mlflow_logger import run_key
from e2i.domain.experiments import ModelVersion, SearchResult
from e2i.domain.report import (
    DataSummary,
    EffectSummary,
    ExplanationSummary,
    ModelSummary,
    QCSummary,
    ReportEvidence,
    StudyReport,
)
from e2i.domain.runs import AuditEntry, StudyRun
from e2i.domain.study import Study
from e2i.engine.graph import Engine
from e2i.engine.spec import AgentSpec
from e2i.errors import BackendUnavailable, BudgetExceeded, E2IError, NotFound, SpecError
from e2i.observability import attributes as names
from e2i.observability.spans import current_context, current_trace_id, new_trace_id, span, trace_of
from e2i.ports.data import FrameSource, FrameStore
from e2i.ports.records import AuditTrail, RunRecords, TrainingRunRecords
from e2i.ports.reporting import ReportWriter

ACTOR = "e2i run"


@dataclass(frozen=True, kw_only=True)
class StudyPorts:
    """What the use case needs. `fill` builds an agent's Deps from its types, with the run's own frames."""

    engine: Engine
    source: FrameSource
    runs: RunRecords
    training_runs: TrainingRunRecords
    audit: AuditTrail
    reports: ReportWriter
    frames: Callable[[str], FrameStore]
    fill: Callable[[type[Any], FrameStore], Any]
    causal_fill: Callable[[type[Any], FrameStore], Any]
    """as `fill`, with a worker of its own: the effect is estimated beside the model"""
    reports_folder: Path


@dataclass(kw_only=True)
class _Progress:
    """What the chain has found so far; the report is made of it, also when the chain stops early."""

    run: StudyRun
    study: Study
    frames: FrameStore
    base: Path
    timings: dict[str, float] = field(default_factory=dict)
    scoped: scope_definer.State | None = None
    prepared: data_preparer.State | None = None
    trained: model_trainer.State | None = None
    explained: feature_analyzer.State | None = None
    deployed: model_deployer.State | None = None
    caused: causal_impact.State | None = None
    observed: observability_connector.State | None = None


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished run: its report, and where the files are."""

    report: StudyReport
    html: Path
    json: Path
    resumed: bool


async def run_study(study: Study, *, base: Path, ports: StudyPorts) -> StudyResult:
    """Run `study`, or go on with an unfinished run of the same study on the same data.

    A closed gate and a refused effect are results. An error that may pass (a backend that is away, a budget used up) leaves the
    run open, so that running it again goes on at the last finished step; any other error ends it as failed.

    Parameters
    ----------
    base : folder that relative paths in `study.data` start from

    Raises
    ------
    Conflict
        A living process runs this very study.
    E2IError
        What an agent raised.
    """
    now = datetime.now(UTC)
    fingerprint = _fingerprint(study, ports.source.identity(study.data, base=base))
    wanted = StudyRun(
        run_id=f"run_{now:%Y%m%dT%H%M%S}_{hashlib.sha256(f'{fingerprint}{now.timestamp()}'.encode()).hexdigest()[:6]}",
        study=study.name,
        fingerprint=fingerprint,
        status="running",
        experiment_id=None,
        trace_id=current_trace_id() or new_trace_id(),
        started_at=now,
    )
    run = await ports.runs.claim(replace(wanted, experiment_id=_experiment_id(study, wanted.run_id)))
    progress = _Progress(run=run, study=study, frames=ports.frames(run.run_id), base=base)
    resumed = run.run_id != wanted.run_id
    try:
        caller = current_context()
        with (
            trace_of(run.trace_id or new_trace_id()) as is_root,
            span(f"run {study.name}", _span_attributes(run, study), is_root=is_root) as root,
        ):
            if is_root and caller is not None:
                root.link(caller)  # a resumed run stays in the trace in which it began
            await _chain(progress, ports)
            root.set("e2i.run.status", _status(progress))
    except (BackendUnavailable, BudgetExceeded):
        raise
    except E2IError as error:
        await _fail_training(progress, ports, error)
        await _finish(progress, ports, status="failed", error=error)
        raise
    return replace(await _finish(progress, ports, status=_status(progress)), resumed=resumed)


def _span_attributes(run: StudyRun, study: Study) -> dict[str, str | int | float | bool]:
    known = {
        names.OPERATION: "run",
        names.RUN_ID: run.run_id,
        names.STUDY: study.name,
        names.EXPERIMENT_ID: run.experiment_id,
        names.BRAND: study.brand,
    }
    return {name: value for name, value in known.items() if value}


async def _chain(progress: _Progress, ports: StudyPorts) -> None:
    study, run = progress.study, progress.run
    columns = ports.source.columns(study.data, base=progress.base)
    progress.scoped = await _run(
        progress,
        ports,
        scope_definer.SPEC,
        scope_definer.State(study=study, columns=columns, experiment_id=run.experiment_id or run.run_id, base=str(progress.base)),
    )
    prepared = await _run(
        progress, ports, data_preparer.SPEC, data_preparer.State(study=study, scope=_scope(progress), base=str(progress.base))
    )
    progress.prepared = prepared
    if prepared.qc is not None and prepared.qc.gate_passed:
        try:
            async with asyncio.TaskGroup() as tasks:
                if study.prediction is not None:
                    tasks.create_task(_model(progress, ports))
                if study.effect is not None:
                    tasks.create_task(_effect(progress, ports))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
    progress.observed = await _run(progress, ports, observability_connector.SPEC, observability_connector.State(run_id=run.run_id))


async def _model(progress: _Progress, ports: StudyPorts) -> None:
    study, run, prepared = progress.study, progress.run, progress.prepared
    prediction = study.prediction
    if prepared is None or prepared.qc is None or prepared.plan is None or prediction is None:
        raise SpecError("the data were not prepared.", where="run_study")
    group = prediction.group or study.unit
    base_state = feature_analyzer.State(
        run_id=run.run_id, scope=prepared.scope, unit=study.unit, time=study.time, event_time=prediction.event_time, seed=study.seed
    )
    analyzed = await _run(progress, ports, feature_analyzer.SPEC, base_state, part="select")
    selected = await _run(
        progress,
        ports,
        model_selector.SPEC,
        model_selector.State(
            run_id=run.run_id,
            study_name=study.name,
            scope=prepared.scope,
            plan=analyzed.plan,
            train=prepared.splits["train"],
            group=group,
            wish=study.search,
            seed=study.seed,
        ),
    )
    trained = await _run(
        progress,
        ports,
        model_trainer.SPEC,
        model_trainer.State(
            run_id=run.run_id,
            study_name=study.name,
            scope=prepared.scope,
            qc=prepared.qc,
            splits=prepared.plan,
            split_refs=prepared.splits,
            plan=analyzed.plan,
            selection=selected.selection,
            candidate=selected.candidate,
            protected=prediction.protected,
            people=group,
            group=group,
            n_trials=study.search.trials,
            seed=study.seed,
        ),
    )
    progress.trained = trained
    progress.explained = await _run(
        progress,
        ports,
        feature_analyzer.SPEC,
        replace(base_state, plan=analyzed.plan, trained=trained.trained, version=trained.candidate),
        part="explain",
    )
    progress.deployed = await _run(
        progress,
        ports,
        model_deployer.SPEC,
        model_deployer.State(
            run_id=run.run_id, study_name=study.name, scope=prepared.scope, trained=trained.trained, version=trained.candidate
        ),
    )


async def _effect(progress: _Progress, ports: StudyPorts) -> None:
    prepared = progress.prepared
    if prepared is None or prepared.table is None:
        raise SpecError("the data were not prepared.", where="run_study")
    state = causal_impact.State(study=progress.study, table=prepared.table, seed=progress.study.seed)
    progress.caused = await _run(progress, ports, causal_impact.SPEC, state, fill=ports.causal_fill)


async def _run(
    progress: _Progress,
    ports: StudyPorts,
    spec: AgentSpec,
    state: Any,
    *,
    part: str | None = None,
    fill: Callable[[type[Any], FrameStore], Any] | None = None,
) -> Any:
    started = time.perf_counter()
    deps = (fill or ports.fill)(spec.deps_type, progress.frames)
    done = await ports.engine.run(spec, state, deps, run_id=progress.run.run_id, part=part)
    name = spec.name if part is None else f"{spec.name}.{part}"
    progress.timings[name] = round(time.perf_counter() - started, 3)
    return done


async def _fail_training(progress: _Progress, ports: StudyPorts, error: E2IError) -> None:
    """A training that was begun and not completed fails with its run."""
    if progress.trained is None:
        with suppress(NotFound):
            await ports.training_runs.fail(run_key(progress.run.run_id), str(error))


async def _finish(progress: _Progress, ports: StudyPorts, *, status: Any, error: E2IError | None = None) -> StudyResult:
    report = _report(progress, status=status, error=error)
    caused = progress.caused.finding if progress.caused is not None else None
    trained = progress.trained.trained if progress.trained is not None else None
    evidence = ReportEvidence(
        curves_ref=trained.curves_ref if trained is not None else None,
        shap_ref=report.explanation.explanation.values_ref if report.explanation is not None else None,
        overlap=caused.overlap if caused is not None else None,
    )
    html, json = await asyncio.to_thread(ports.reports.write_report, report, evidence, ports.reports_folder / progress.run.run_id)
    await ports.audit.append(
        AuditEntry(
            actor=ACTOR,
            action=f"run.{status}",
            subject=progress.run.run_id,
            details={"study": progress.study.name, "report_sha256": hashlib.sha256(json.read_bytes()).hexdigest()},
        )
    )
    await ports.runs.finish(
        replace(
            progress.run,
            status=status,
            finished_at=datetime.now(UTC),
            report_path=str(html),
            error=dict(error.to_dict()) if error is not None else None,
        )
    )
    return StudyResult(report=report, html=html, json=json, resumed=False)


def _report(progress: _Progress, *, status: Any, error: E2IError | None) -> StudyReport:
    study, prepared = progress.study, progress.prepared
    return StudyReport(
        study=study.name,
        status=status,
        run_id=progress.run.run_id,
        experiment_id=progress.run.experiment_id,
        trace_id=progress.run.trace_id,
        synthetic=bool(prepared.is_synthetic) if prepared is not None else study.data.source == "synthetic",
        created_at=datetime.now(UTC),
        description=study.description,
        brand=study.brand,
        data=_data(prepared),
        qc=QCSummary.of(prepared.qc) if prepared is not None and prepared.qc is not None else None,
        splits=prepared.plan if prepared is not None else None,
        model=_model_summary(progress),
        explanation=_explanation(progress),
        effect=_effect_summary(progress),
        timings_s=dict(progress.timings),
        asked=tuple(name for name in ("effect", "prediction") if getattr(study, name) is not None),
        error=dict(error.to_dict()) if error is not None else None,
        warnings=_warnings(progress),
    )


def _data(prepared: data_preparer.State | None) -> DataSummary | None:
    if prepared is None or prepared.table is None or prepared.data_sha256 is None:
        return None
    return DataSummary(rows=prepared.table.rows, columns=len(prepared.table.columns), sha256=prepared.data_sha256)


def _model_summary(progress: _Progress) -> ModelSummary | None:
    done = progress.trained
    if done is None or done.trained is None:
        return None
    version: ModelVersion = progress.deployed.version if progress.deployed is not None else done.candidate
    search: SearchResult | None = done.search
    return ModelSummary(
        target=done.scope.prediction_target, problem_type=done.scope.problem_type, trained=done.trained, version=version, search=search
    )


def _explanation(progress: _Progress) -> ExplanationSummary | None:
    if progress.explained is None or progress.explained.explanation is None:
        return None
    return ExplanationSummary(explanation=progress.explained.explanation)


def _effect_summary(progress: _Progress) -> EffectSummary | None:
    effect = progress.study.effect
    if effect is None or progress.caused is None or progress.caused.finding is None:
        return None
    return EffectSummary(treatment=effect.treatment, outcome=effect.outcome, finding=progress.caused.finding)


def _warnings(progress: _Progress) -> tuple[str, ...]:
    found = list(progress.scoped.scope.warnings) if progress.scoped is not None and progress.scoped.scope is not None else []
    trained = progress.trained.trained if progress.trained is not None else None
    if trained is not None and trained.mlflow_run_id is None:
        found.append("MLflow could not be reached: its records wait in the outbox and are delivered by the next run or `e2i doctor`.")
    if progress.deployed is not None and progress.deployed.refusal is not None:
        found.append(f"The model stays in {progress.deployed.version.stage}: {progress.deployed.refusal}.")
    return tuple(found)


def _status(progress: _Progress) -> str:
    """Blocked when the quality gate is closed, or when the effect is the whole question and was refused."""
    prepared = progress.prepared
    if prepared is None or prepared.qc is None or not prepared.qc.gate_passed:
        return "blocked"
    finding = progress.caused.finding if progress.caused is not None else None
    if progress.study.prediction is None and finding is not None and finding.verdict.name == "block":
        return "blocked"
    return "completed"


def _scope(progress: _Progress) -> Any:
    if progress.scoped is None or progress.scoped.scope is None:
        raise SpecError("the study was not scoped.", where="run_study")
    return progress.scoped.scope


def _fingerprint(study: Study, identity: str) -> str:
    return hashlib.sha256(f"{study.model_dump_json()}\n{identity}".encode()).hexdigest()


def _experiment_id(study: Study, run_id: str) -> str:
    brand, region = (study.brand or "any")[:4].lower(), (study.region or "us")[:2]
    return f"exp_{brand}{region}_{run_id.removeprefix('run_')}"
