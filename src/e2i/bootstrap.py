"""The only file where ports meet adapters."""

from __future__ import annotations

import asyncio
import getpass
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from e2i import config
from e2i.errors import ConfigError, E2IError

if TYPE_CHECKING:
    from e2i.app.health import Check, HealthPorts
    from e2i.app.study import StudyPorts, StudyResult
    from e2i.config import Settings
    from e2i.engine.hooks import Signal
    from e2i.mlops.mlflow_connector import MLflowConnector
    from e2i.ports.compute import Progress
    from e2i.ports.data import FrameStore
    from e2i.storage.embedded import EmbeddedServer
    from e2i.storage.postgres import Database

BUNDLED_STUDY = Path("studies") / "speaker_program.yaml"
WORKER_IMPORTS = ("polars", "pandera.polars", "great_expectations")
"""what the quality gate needs; the effect waits for the gate, so what only the model needs is imported later"""
CAUSAL_IMPORTS = ("polars", "sklearn.linear_model", "lightgbm")


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Everything that is open: the database, its repositories, MLflow."""

    settings: Settings
    url: str
    database: Database
    records: Mapping[type[Any], Any]
    tracker: MLflowConnector

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Platform]:
        """Start or join the database, bring its schema up to date, wire the repositories.

        Raises
        ------
        StorageError, BackendUnavailable, ConfigError
            The database cannot be started, reached or migrated; each says how to mend it.
        """
        from e2i.storage import migrate

        async with _database(settings) as database:
            await migrate.upgrade(database)
            records = _records(settings, database)
            tracker = _tracker(settings, database.url, records)
            yield cls(settings=settings, url=database.url, database=database, records=records, tracker=tracker)

    def fill(self, deps_type: type[Any], more: Mapping[Any, Any]) -> Any:
        """An agent's Deps, every field by its type. Raises ConfigError for a type that nothing stands behind."""
        known = {**self.records, **more}
        values = {}
        for name, kind in get_type_hints(deps_type).items():
            if kind not in known:
                where = f"{deps_type.__module__}.{deps_type.__qualname__}.{name}"
                raise ConfigError(f"nothing stands behind {kind}.", where=where, advice="Add it to `bootstrap._records`.")
            values[name] = known[kind]
        return deps_type(**values)


def _server(settings: Settings) -> EmbeddedServer:
    from e2i.storage.embedded import EmbeddedServer

    return EmbeddedServer(settings.home, port=settings.database.port)


def _check_disk(home: Path) -> None:
    from e2i.app.health import MINIMUM_FREE_BYTES
    from e2i.errors import StorageError

    folder = home.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < MINIMUM_FREE_BYTES:
        raise StorageError(
            f"only {free // 1024**2} MB are free.", where=str(home), advice="Free at least 500 MB, or set E2I_HOME to another disk."
        )


def _records(settings: Settings, database: Database) -> dict[type[Any], Any]:
    """Port -> what stands behind it."""
    from e2i.data.sources import LocalFrameSource
    from e2i.mlops.data_quality import DataQualityValidator
    from e2i.mlops.model_store import NativeModelStore
    from e2i.mlops.quality_alerts import DataQualityAlerter
    from e2i.mlops.shap_explainer import ShapExplainer
    from e2i.ports import data, language, models, records
    from e2i.storage.audit import AuditFiles
    from e2i.storage.repositories.audit import AuditRepository
    from e2i.storage.repositories.deployments import DeploymentRepository
    from e2i.storage.repositories.experiments import ExperimentRepository
    from e2i.storage.repositories.explanations import ShapAnalysisRepository
    from e2i.storage.repositories.models import MLModelRegistryRepository
    from e2i.storage.repositories.outbox import OutboxRepository
    from e2i.storage.repositories.quality import DataQualityRepository
    from e2i.storage.repositories.runs import RunRepository
    from e2i.storage.repositories.search import HpoRepository
    from e2i.storage.repositories.training_runs import TrainingRunRepository

    audit = AuditRepository(database, AuditFiles.of(settings.home, url=settings.database.url.get_secret_value()))
    alerting = settings.data_quality.alerting
    return {
        records.ExperimentRecords: ExperimentRepository(database),
        records.TrainingRunRecords: TrainingRunRepository(database),
        records.ModelRecords: MLModelRegistryRepository(database, audit),
        records.QualityRecords: DataQualityRepository(database),
        records.ExplanationRecords: ShapAnalysisRepository(database),
        records.SearchRecords: HpoRepository(database),
        records.DeploymentRecords: DeploymentRepository(database),
        records.RunRecords: RunRepository(database),
        records.AuditTrail: audit,
        records.Outbox: OutboxRepository(database),
        data.FrameSource: LocalFrameSource(),
        models.QualityValidator: DataQualityValidator(),
        models.QualityAlerter: DataQualityAlerter(
            webhook_url=alerting.webhook_url.get_secret_value() or None,
            minimum_severity=alerting.minimum_severity,
            timeout_s=alerting.webhook_timeout_seconds,
            maximum_listed=alerting.max_listed_expectations,
        ),
        models.ModelStore: NativeModelStore(),
        models.ModelExplainer: ShapExplainer(),
        models.SearchDefaults: _search_defaults(settings),
        language.LanguageModel | None: None,  # type: ignore[dict-item]
    }


def _search_defaults(settings: Settings) -> Any:
    from e2i.ports.models import SearchDefaults

    optuna = settings.optuna
    return SearchDefaults(
        n_trials=optuna.optimization.default_n_trials,
        metric={name: section.default_metric for name, section in optuna.problem_types.items()},
        folds={name: section.cv_folds for name, section in optuna.problem_types.items()},
        spaces=optuna.search_space_presets,
        model_name_pattern=settings.mlflow.registry.naming_pattern,
    )


def _tracker(settings: Settings, url: str, records: Mapping[type[Any], Any]) -> MLflowConnector:
    from e2i.mlops.circuit_breaker import BreakerSettings
    from e2i.mlops.mlflow_connector import MLflowConnector, MlflowSettings, vendor_environment
    from e2i.ports.records import Outbox
    from e2i.storage.postgres import sqlalchemy_url

    section, breaker = settings.mlflow, settings.mlflow.circuit_breaker
    uri = section.tracking.uri.get_secret_value()
    location = section.tracking.artifact_location or (
        None if uri.startswith("http") else (settings.home.absolute() / "mlartifacts").as_uri()
    )
    chosen = MlflowSettings(
        tracking_uri=uri or sqlalchemy_url(url, schema="mlflow"),
        state_folder=settings.home.absolute() / "mlflow",
        artifact_location=location,
        request_timeout=section.tracking.request_timeout,
        max_attempts=section.tracking.retry.max_attempts,
        backoff_factor=section.tracking.retry.backoff_factor,
        max_backoff=section.tracking.retry.max_backoff,
        naming_pattern=section.registry.naming_pattern,
        default_tags={**section.experiments.default_tags, "environment": settings.environment},
        breaker=BreakerSettings(
            failure_threshold=breaker.failure_threshold,
            reset_timeout_s=breaker.reset_timeout_seconds,
            half_open_max_calls=breaker.half_open_max_calls,
            success_threshold=breaker.success_threshold,
        ),
    )
    config.set_vendor_environment(vendor_environment(chosen))
    return MLflowConnector(chosen, records[Outbox])


def _optimizer(settings: Settings, platform: Platform) -> Any:
    from e2i.mlops.optuna_optimizer import OptunaOptimizer, OptunaSettings
    from e2i.ports.records import SearchRecords
    from e2i.storage.postgres import sqlalchemy_url

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


def _install_spans() -> None:
    """Real trace and span ids. Where the spans go is the telemetry pipeline's business; a provider that is there already stays."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(TracerProvider())


async def run_study(path: Path, settings: Settings, *, on_step: Callable[[Signal], None], progress: Progress) -> StudyResult:
    """Load a study file and take it through the chain. Raises E2IError."""
    from e2i.data.sources import LocalFrameSource
    from e2i.data.study_file import check_roles, load_study
    from e2i.engine.executor import LocalExecutor

    study = load_study(path)
    base = path.parent
    worker, causal_worker = LocalExecutor(preload=WORKER_IMPORTS), LocalExecutor(preload=CAUSAL_IMPORTS)
    async with AsyncExitStack() as stack:
        for each in (worker, causal_worker):
            stack.callback(each.close)
        worker.start()  # it imports its libraries while we import ours and open the database
        check_roles(study, LocalFrameSource().columns(study.data, base=base), path=path)
        from e2i.app.study import run_study as run

        _install_spans()
        platform = await stack.enter_async_context(Platform.open(settings))
        ports = await _study_ports(stack, platform, (worker, causal_worker), on_step=on_step, progress=progress)
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


async def _study_ports(
    stack: AsyncExitStack, platform: Platform, workers: tuple[Any, Any], *, on_step: Callable[[Signal], None], progress: Progress
) -> StudyPorts:
    from e2i.app.study import StudyPorts
    from e2i.data.frame_store import RunFrames
    from e2i.engine.checkpoint import postgres_checkpoints
    from e2i.engine.graph import Engine
    from e2i.engine.hooks import AuditHook, Hook, RecordHook, SignalHook, TraceHook
    from e2i.ports import compute, data, models, records
    from e2i.reporting.html import HtmlReportWriter

    settings, known = platform.settings, platform.records
    saver = await stack.enter_async_context(postgres_checkpoints(platform.url))
    hooks: list[Hook] = [
        TraceHook(),
        RecordHook(known[records.RunRecords]),
        AuditHook(known[records.AuditTrail], getpass.getuser()),
        SignalHook(on_step),
    ]
    extended: dict[type[Any], Any] = {
        **known,
        models.Tracker: platform.tracker,
        models.HyperparameterSearch: _optimizer(settings, platform),
    }
    wired = Platform(settings=settings, url=platform.url, database=platform.database, records=extended, tracker=platform.tracker)

    def fill_with(worker: Any) -> Callable[[type[Any], FrameStore], Any]:
        run_wide = {compute.Executor: worker, compute.Progress: progress}
        return lambda deps_type, frames: wired.fill(deps_type, {**run_wide, data.FrameStore: frames})

    return StudyPorts(
        engine=Engine(hooks, saver=saver),
        source=known[data.FrameSource],
        runs=known[records.RunRecords],
        training_runs=known[records.TrainingRunRecords],
        audit=known[records.AuditTrail],
        reports=HtmlReportWriter(),
        frames=lambda run_id: RunFrames(settings.home.absolute() / "runs" / run_id),
        fill=fill_with(workers[0]),
        causal_fill=fill_with(workers[1]),
        reports_folder=settings.home.absolute() / "reports",
    )


async def upgrade_database(settings: Settings) -> list[str]:
    """Apply missing migrations; returns their names."""
    from e2i.storage import migrate

    async with _database(settings) as database:
        return await migrate.upgrade(database)


async def current_migration(settings: Settings) -> str | None:
    """The newest migration that the database has."""
    from e2i.storage import migrate

    async with _database(settings) as database:
        return await migrate.current(database)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    from e2i.storage.postgres import Database

    url, server = settings.database.url.get_secret_value(), _server(settings)
    if not url:
        _check_disk(settings.home)
        url = await asyncio.to_thread(server.start)
    database = Database(url)
    try:
        await database.open()
        yield database
    finally:
        await database.close()
        server.release()


async def verify_audit(settings: Settings) -> dict[str, Any]:
    """`ok`, `entries`, `first_bad_sequence`, `reason`."""
    from dataclasses import asdict

    from e2i.ports.records import AuditTrail

    async with Platform.open(settings) as platform:
        return asdict(await platform.records[AuditTrail].verify())


async def status(settings: Settings) -> dict[str, Any]:
    """The database, the schema, what MLflow is owed, the latest runs."""
    from e2i.app.health import overview

    async with Platform.open(settings) as platform:
        return await overview(_health_ports(platform))


async def doctor(settings: Settings) -> list[Check]:
    """Examine everything that a run needs, deliver and mend what can be."""
    from e2i.app.health import Check, examine

    try:
        async with Platform.open(settings) as platform:
            return await examine(_health_ports(platform))
    except E2IError as error:
        return [Check(check="database", ok=False, detail=error.what, advice=error.advice)]


def _health_ports(platform: Platform) -> HealthPorts:
    from e2i.app.health import HealthPorts
    from e2i.mlops.mlflow_mirror import MLflowMirror
    from e2i.mlops.reconcile import reconcile
    from e2i.ports.records import AuditTrail, Outbox, RunRecords
    from e2i.storage import migrate
    from e2i.storage.repositories.ledger import LedgerRepository

    return HealthPorts(
        where=platform.database.where,
        schema=lambda: migrate.current(platform.database),
        verify_audit=platform.records[AuditTrail].verify,
        repair_tracker=lambda: reconcile(LedgerRepository(platform.database), MLflowMirror(platform.tracker)),
        free_bytes=lambda: shutil.disk_usage(platform.settings.home).free,
        outbox=platform.records[Outbox],
        runs=platform.records[RunRecords],
    )


def up(settings: Settings) -> dict[str, Any]:
    """Start the embedded server and leave it running for others."""
    if settings.database.url.get_secret_value():
        raise ConfigError(
            "a database URL is set, so there is no embedded server to start.", where="database.url", advice="Unset DATABASE_URL."
        )
    _check_disk(settings.home)
    server = _server(settings)
    server.start()
    found = server.status()
    return {"database": f"127.0.0.1:{found.port}", "pid": found.pid}


def down(settings: Settings) -> bool:
    """Stop the embedded server; whether there was one."""
    server = _server(settings)
    running = server.status().is_running
    server.stop()
    return running
