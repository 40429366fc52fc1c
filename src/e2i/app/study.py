"""Take a study through the governed chain, from raw data to an explained model and a refuted effect."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2i.agents.causal_analytics import causal_impact, heterogeneous_optimizer
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
from e2i.app.large_effect import large_effect
from e2i.app.study_plans import make_plans
from e2i.app.study_progress import Progress, Table, make_report, status_of, table_of
from e2i.app.study_steps import StudyPorts, run_agent
from e2i.domain.evidence import CausalFinding
from e2i.domain.experiments import FrameRef
from e2i.domain.report import ReportEvidence, StudyReport
from e2i.domain.runs import AuditEntry, StudyRun
from e2i.domain.study import Study
from e2i.engine.spec import known
from e2i.errors import BackendUnavailable, BudgetExceeded, ConfigError, E2IError, NotFound
from e2i.observability import attributes as names
from e2i.observability.spans import current_context, current_trace_id, new_trace_id, span, trace_of

ACTOR = "e2i run"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished run: its report, and where the files are."""

    report: StudyReport
    html: Path
    json: Path
    resumed: bool


async def run_study(study: Study, *, base: Path, ports: StudyPorts, effect_alone: bool = False) -> StudyResult:
    """Run `study`, or go on with an unfinished run of the same study on the same data.

    A closed gate and a refused effect are results. An error that may pass (a backend that is away, a budget used up) leaves the
    run open, so that running it again goes on at the last finished step; any other error ends it as failed.

    Parameters
    ----------
    base : folder that relative paths in `study.data` start from
    effect_alone : load the data and answer the causal question, nothing else

    Raises
    ------
    ConfigError
        The effect alone is asked for, and the study has none.
    Conflict
        A living process runs this very study.
    E2IError
        What an agent raised.
    """
    if effect_alone and study.effect is None:
        raise ConfigError("the study has no `effect`.", where=f"study {study.name}", advice="Add `effect` with its roles.")
    now = datetime.now(UTC)
    part = "effect\n" if effect_alone else ""
    fingerprint = _fingerprint(study, part + ports.source.identity(study.data, base=base))
    wanted = StudyRun(
        run_id=f"run_{now:%Y%m%dT%H%M%S}_{hashlib.sha256(f'{fingerprint}{now.timestamp()}'.encode()).hexdigest()[:6]}",
        study=study.name,
        fingerprint=fingerprint,
        status="running",
        experiment_id=None,
        trace_id=current_trace_id() or new_trace_id(),
        started_at=now,
    )
    run = await ports.runs.claim(wanted if effect_alone else replace(wanted, experiment_id=_experiment_id(study, wanted.run_id)))
    progress = Progress(run=run, study=study, frames=ports.frames(run.run_id), base=base, effect_alone=effect_alone)
    resumed = run.run_id != wanted.run_id
    try:
        caller = current_context()
        with (
            trace_of(run.trace_id or new_trace_id()) as is_root,
            span(f"run {study.name}", _span_attributes(run, study), is_root=is_root) as root,
        ):
            if is_root and caller is not None:
                root.link(caller)  # a resumed run stays in the trace in which it began
            await _course(progress)(progress, ports)
            root.set("e2i.run.status", status_of(progress))
    except (BackendUnavailable, BudgetExceeded):
        raise
    except E2IError as error:
        await _end_as_failed(progress, ports, error)
        raise
    return replace(await _finish(progress, ports, status=status_of(progress)), resumed=resumed)


def _span_attributes(run: StudyRun, study: Study) -> dict[str, str | int | float | bool]:
    known = {
        names.OPERATION: "run",
        names.RUN_ID: run.run_id,
        names.STUDY: study.name,
        names.EXPERIMENT_ID: run.experiment_id,
        names.BRAND: study.brand,
    }
    return {name: value for name, value in known.items() if value}


async def _chain(progress: Progress, ports: StudyPorts) -> None:
    study, run = progress.study, progress.run
    columns = ports.source.columns(study.data, base=progress.base)
    progress.scoped = await run_agent(
        progress,
        ports,
        scope_definer.SPEC,
        scope_definer.State(study=study, columns=columns, experiment_id=run.experiment_id or run.run_id, base=str(progress.base)),
    )
    prepared = await run_agent(
        progress, ports, data_preparer.SPEC, data_preparer.State(study=study, scope=known(progress.scoped.scope), base=str(progress.base))
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
        await make_plans(progress, ports)
    progress.observed = await run_agent(progress, ports, observability_connector.SPEC, observability_connector.State(run_id=run.run_id))


async def _model(progress: Progress, ports: StudyPorts) -> None:
    study, run, prepared = progress.study, progress.run, known(progress.prepared)
    prediction = known(study.prediction)
    group = prediction.group or study.unit
    base_state = feature_analyzer.State(
        run_id=run.run_id, scope=prepared.scope, unit=study.unit, time=study.time, event_time=prediction.event_time, seed=study.seed
    )
    analyzed = await run_agent(progress, ports, feature_analyzer.SPEC, base_state, part="select")
    selected = await run_agent(
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
    trained = await run_agent(
        progress,
        ports,
        model_trainer.SPEC,
        model_trainer.State(
            run_id=run.run_id,
            study_name=study.name,
            scope=prepared.scope,
            qc=known(prepared.qc),
            splits=known(prepared.plan),
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
    progress.explained = await run_agent(
        progress,
        ports,
        feature_analyzer.SPEC,
        replace(base_state, plan=analyzed.plan, trained=trained.trained, version=trained.candidate),
        part="explain",
    )
    progress.deployed = await run_agent(
        progress,
        ports,
        model_deployer.SPEC,
        model_deployer.State(
            run_id=run.run_id, study_name=study.name, scope=prepared.scope, trained=trained.trained, version=trained.candidate
        ),
    )


async def _effect_alone(progress: Progress, ports: StudyPorts) -> None:
    """The data as they are: the causal part has its own checks of them. Files beyond the threshold are never held in memory."""
    source, study = ports.source, progress.study
    large = ports.large(study.data, base=progress.base)
    if large is not None:
        answer = await large_effect(study, large, compute=ports.compute)
        sha = await asyncio.to_thread(source.identity, study.data, base=progress.base)
        ref = FrameRef(name=data_preparer.TABLE, path=study.data.source, rows=answer.rows, columns=answer.columns, sha256=sha)
        progress.table = Table(ref=ref, sha256=sha, is_synthetic=answer.is_synthetic)
        await _effect(progress, ports, finding=answer.finding)
        return
    await _load(progress, ports)
    await _effect(progress, ports)


async def _plans_alone(progress: Progress, ports: StudyPorts) -> None:
    """Gaps, allocation or an experiment without a model or an effect: nothing is trained, so nothing is gated."""
    await _load(progress, ports)
    await make_plans(progress, ports)


async def _load(progress: Progress, ports: StudyPorts) -> None:
    snapshot = await asyncio.to_thread(ports.source.load, progress.study.data, base=progress.base)
    ref = await asyncio.to_thread(progress.frames.save, data_preparer.TABLE, snapshot.frame)
    progress.table = Table(ref=ref, sha256=snapshot.sha256, is_synthetic=snapshot.is_synthetic)


def _course(progress: Progress) -> Callable[[Progress, StudyPorts], Awaitable[None]]:
    """What the study asks for."""
    if progress.effect_alone:
        return _effect_alone
    return _plans_alone if progress.study.effect is None and progress.study.prediction is None else _chain


async def _effect(progress: Progress, ports: StudyPorts, *, finding: CausalFinding | None = None) -> None:
    table = known(table_of(progress))
    state = causal_impact.State(
        study=progress.study,
        finding=finding,
        run_id=progress.run.run_id,
        table=table.ref,
        data_sha256=table.sha256,
        seed=progress.study.seed,
    )
    progress.caused = await run_agent(progress, ports, causal_impact.SPEC, state, fill=ports.causal_fill)
    await _divide(progress, ports)


async def _divide(progress: Progress, ports: StudyPorts) -> None:
    """For whom the effect is how large, where the study names modifiers."""
    caused, effect, table = progress.caused, progress.study.effect, table_of(progress)
    if caused is None or effect is None or not effect.modifiers or table is None:
        return
    state = heterogeneous_optimizer.State(
        study=progress.study,
        table=table.ref,
        seed=progress.study.seed,
        finding=caused.finding,
        identification=caused.identification,
        nuisances_sha256=caused.nuisances_sha256,
        forest=effect.unit_effects,
    )
    progress.divided = await run_agent(progress, ports, heterogeneous_optimizer.SPEC, state, fill=ports.causal_fill)


async def _end_as_failed(progress: Progress, ports: StudyPorts, error: E2IError) -> None:
    """A training that was begun and not completed fails with its run.

    Where the end cannot be written, a disk or a database that went away may be why: people must see the first error, so the second
    one is said in the log, and the run stays open.
    """
    try:
        if progress.trained is None:
            with suppress(NotFound):
                await ports.training_runs.fail(run_key(progress.run.run_id), str(error))
        await _finish(progress, ports, status="failed", error=error)
    except E2IError as second:
        _log.warning("the end of run %s could not be written: %s", progress.run.run_id, second)


async def _finish(progress: Progress, ports: StudyPorts, *, status: Any, error: E2IError | None = None) -> StudyResult:
    report = make_report(progress, status=status, error=error)
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


def _fingerprint(study: Study, identity: str) -> str:
    return hashlib.sha256(f"{study.model_dump_json()}\n{identity}".encode()).hexdigest()


def _experiment_id(study: Study, run_id: str) -> str:
    brand, region = (study.brand or "any")[:4].lower(), (study.region or "us")[:2]
    return f"exp_{brand}{region}_{run_id.removeprefix('run_')}"
