"""A study run: the platform, two workers, the engine with its hooks."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.bootstrap.executors import EngineName, make_executors
from e2i.bootstrap.large_files import large_tables
from e2i.bootstrap.observing import observing, pipeline_settings
from e2i.bootstrap.platform import Platform, check_disk
from e2i.bootstrap.sinks import breaker

if TYPE_CHECKING:
    from e2i.app.study import StudyResult
    from e2i.app.study_steps import StudyPorts
    from e2i.config import Settings
    from e2i.engine.hooks import Signal
    from e2i.ports.compute import Progress
    from e2i.ports.data import FrameStore

BUNDLED_STUDY = Path("studies") / "speaker_program.yaml"
WORKER_IMPORTS = ("polars", "pandera.polars", "great_expectations")
"""what the quality gate needs; the effect waits for the gate, so what only the model needs is imported later"""
CAUSAL_IMPORTS = ("polars", "sklearn.linear_model", "lightgbm")


async def run_study(
    path: Path,
    settings: Settings,
    *,
    on_step: Callable[[Signal], None],
    progress: Progress,
    effect_alone: bool = False,
    engine: EngineName = "process",
) -> StudyResult:
    """Load a study file and take it through the chain, or answer its causal question alone. Raises E2IError."""
    from e2i.data.sources import LocalFrameSource
    from e2i.data.study_file import check_roles, load_study
    from e2i.observability.propagation import attached, from_environment_value
    from e2i.telemetry.pipeline import install_in_worker

    study = load_study(path)
    base = path.parent
    initialize = partial(install_in_worker, pipeline_settings(settings))
    worker, causal_worker = make_executors(engine, settings, preloads=[WORKER_IMPORTS, CAUSAL_IMPORTS], initialize=initialize)
    async with AsyncExitStack() as stack:
        for each in (worker, causal_worker):
            stack.callback(each.close)
        (causal_worker if effect_alone else worker).start()  # it imports its libraries while we import ours and open the database
        check_roles(study, LocalFrameSource().columns(study.data, base=base), path=path)
        if not settings.database.url.get_secret_value():
            check_disk(settings.home)  # before anything is written there
        stack.enter_context(observing(settings))
        caller = settings.observability.caller
        stack.enter_context(attached(from_environment_value(caller.traceparent, caller.tracestate)))
        from e2i.app.study import run_study as run

        platform = await stack.enter_async_context(Platform.open(settings))
        ports = await study_ports(stack, platform, (worker, causal_worker), on_step=on_step, progress=progress)
        if effect_alone:
            return await run(study, base=base, ports=ports, effect_alone=True)
        if study.effect is not None:
            causal_worker.start()
        if study.prediction is not None:
            _import_mlflow_beside(stack)
        await platform.tracker.drain()
        return await run(study, base=base, ports=ports)


def _import_mlflow_beside(stack: AsyncExitStack) -> None:
    """Import MLflow in a thread while the worker prepares the data; it is needed seconds later. Nothing is connected."""
    from e2i.mlops.mlflow_operations import quieten

    task = asyncio.create_task(asyncio.to_thread(quieten))
    stack.push_async_callback(asyncio.wait, [task])


async def study_ports(
    stack: AsyncExitStack, platform: Platform, workers: tuple[Any, Any], *, on_step: Callable[[Signal], None], progress: Progress
) -> StudyPorts:
    """What the use case needs, wired; `workers` are the model's and the effect's."""
    from e2i.app.study_steps import StudyPorts
    from e2i.data.frame_store import RunFrames
    from e2i.engine.checkpoint import postgres_checkpoints
    from e2i.engine.graph import Engine
    from e2i.engine.hooks import AuditHook, Hook, RecordHook, SignalHook, TraceHook
    from e2i.ports import compute, data, language, models, records
    from e2i.reporting.html import HtmlReportWriter

    settings, known = platform.settings, platform.records
    saver = await stack.enter_async_context(postgres_checkpoints(platform.url))
    tracing = TraceHook()
    hooks: list[Hook] = [
        tracing,
        RecordHook(known[records.RunRecords]),
        AuditHook(known[records.AuditTrail], getpass.getuser()),
        SignalHook(on_step),
    ]
    extended: dict[type[Any], Any] = {
        **known,
        models.Tracker: platform.tracker,
        models.HyperparameterSearch: make_optimizer(settings, platform),
        language.LanguageModel | None: _language(stack, settings),  # type: ignore[dict-item]
    }
    wired = Platform(settings=settings, url=platform.url, database=platform.database, records=extended, tracker=platform.tracker)

    def fill_with(worker: Any) -> Callable[[type[Any], FrameStore], Any]:
        run_wide = {compute.Executor: worker, compute.Progress: progress}
        return lambda deps_type, frames: wired.fill(deps_type, {**run_wide, data.FrameStore: frames})

    return StudyPorts(
        engine=Engine(
            hooks, agent_hooks=[tracing], saver=saver, budgets_s={name: section.budget_s for name, section in settings.agents.items()}
        ),
        source=known[data.FrameSource],
        runs=known[records.RunRecords],
        training_runs=known[records.TrainingRunRecords],
        evidence=known[records.EvidenceRecords],
        audit=known[records.AuditTrail],
        reports=HtmlReportWriter(),
        frames=lambda run_id: RunFrames(settings.home.absolute() / "runs" / run_id),
        fill=fill_with(workers[0]),
        causal_fill=fill_with(workers[1]),
        large=large_tables(settings),
        compute=workers[1],
        reports_folder=settings.home.absolute() / "reports",
    )


def _language(stack: AsyncExitStack, settings: Settings) -> Any:
    """The gateway, closed with the run; None when no model is configured."""
    from e2i.llm.building import build_gateway

    gateway = build_gateway(settings.llm, breaker=partial(breaker, settings))
    if gateway is not None:
        stack.push_async_callback(gateway.close)
    return gateway


def make_optimizer(settings: Settings, platform: Platform) -> Any:
    """Optuna on the settings' storage, or on our own database."""
    from e2i.mlops.optuna_optimizer import OptunaOptimizer, OptunaSettings
    from e2i.ports.records import SearchRecords
    from e2i.storage.address import sqlalchemy_url

    optuna = settings.optuna
    chosen = OptunaSettings(
        storage_url=optuna.storage.url.get_secret_value() or sqlalchemy_url(platform.url, schema="optuna"),
        n_startup_trials=optuna.sampler.tpe.n_startup_trials,
        multivariate=optuna.sampler.tpe.multivariate,
        prior_weight=optuna.sampler.tpe.prior_weight,
        hyperband_min_resource=optuna.pruner.hyperband.min_resource,
        hyperband_reduction_factor=optuna.pruner.hyperband.reduction_factor,
        warmstart_enabled=optuna.warmstart.enabled,
        warmstart_min_similarity=optuna.warmstart.min_similarity,
        warmstart_max_import_trials=optuna.warmstart.max_import_trials,
        warmstart_enqueue_trials=optuna.warmstart.enqueue_trials,
    )
    return OptunaOptimizer(chosen, platform.records[SearchRecords])
