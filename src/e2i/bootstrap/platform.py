"""The open platform: the database, its repositories, MLflow; ports meet adapters here."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from e2i import config
from e2i.errors import ConfigError

if TYPE_CHECKING:
    from e2i.config import Settings
    from e2i.mlops.experiment_tracker import ExperimentTracker
    from e2i.mlops.mlflow_connector import MLflowConnector
    from e2i.storage.embedded import EmbeddedServer
    from e2i.storage.postgres import Database


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

        async with open_database(settings) as database:
            await migrate.upgrade(database)
            records = standing_records(settings, database)
            tracker = make_tracker(settings, database.url, records)
            _tell_opik_connector(settings, records)
            yield cls(settings=settings, url=database.url, database=database, records=records, tracker=tracker)

    def experiment_tracker(self) -> ExperimentTracker:
        """Experiments per brand and tier, for code outside the engine."""
        from e2i.mlops.experiment_tracker import ExperimentTracker

        return ExperimentTracker(self.tracker, self.settings.agents)

    def fill(self, deps_type: type[Any], more: Mapping[Any, Any]) -> Any:
        """An agent's Deps, every field by its type. Raises ConfigError for a type that nothing stands behind."""
        known = {**self.records, **more}
        values = {}
        for name, kind in get_type_hints(deps_type).items():
            if kind not in known:
                where = f"{deps_type.__module__}.{deps_type.__qualname__}.{name}"
                raise ConfigError(f"nothing stands behind {kind}.", where=where, advice="Add it to `bootstrap.platform.standing_records`.")
            values[name] = known[kind]
        return deps_type(**values)


def _tell_opik_connector(settings: Settings, records: Mapping[type[Any], Any]) -> None:
    """`get_opik_connector()` then knows these settings, and how far Opik is behind."""
    from e2i.mlops.opik_connector import OpikSettings, get_opik_connector
    from e2i.ports.telemetry import SinkAccounts

    opik = settings.observability.opik
    chosen = OpikSettings(
        enabled=opik.enabled,
        endpoint=opik.endpoint,
        workspace=opik.workspace,
        project_name=opik.project_name,
        tiers={name: agent.tier for name, agent in settings.agents.items()},
    )
    get_opik_connector(chosen, accounts=records[SinkAccounts])


def embedded_server(settings: Settings) -> EmbeddedServer:
    """The server below `home`; not started by this."""
    from e2i.storage.embedded import EmbeddedServer

    return EmbeddedServer(settings.home, port=settings.database.port)


def check_disk(home: Path) -> None:
    """Raises StorageError when `home` cannot be made, or its disk is nearly full."""
    from e2i.app.health import MINIMUM_FREE_BYTES
    from e2i.errors import StorageError

    folder = home.absolute()
    try:
        while not folder.exists():
            folder = folder.parent
        if not home.is_dir():
            # Only trying tells: /proc lets root write by its mode, and refuses. Nothing of it stays.
            Path(tempfile.mkdtemp(prefix=".e2i-", dir=folder)).rmdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(
            f"the folder cannot be made: {error.strerror or error} ({folder}).",
            where=str(home),
            advice="Set E2I_HOME, or --home, to a folder that you may write to.",
        ) from error
    if free < MINIMUM_FREE_BYTES:
        raise StorageError(
            f"only {free // 1024**2} MB are free.", where=str(home), advice="Free at least 500 MB, or set E2I_HOME to another disk."
        )


def standing_records(settings: Settings, database: Database) -> dict[type[Any], Any]:
    """Port -> what stands behind it."""
    from e2i.bootstrap.sinks import Accounts
    from e2i.data.sources import LocalFrameSource
    from e2i.mlops.data_quality import DataQualityValidator
    from e2i.mlops.model_store import NativeModelStore
    from e2i.mlops.quality_alerts import DataQualityAlerter
    from e2i.mlops.shap_explainer import ShapExplainer
    from e2i.ports import data, models, records, telemetry
    from e2i.storage.audit import AuditFiles
    from e2i.storage.repositories.audit import AuditRepository
    from e2i.storage.repositories.deployments import DeploymentRepository
    from e2i.storage.repositories.evidence import CausalEvidenceRepository
    from e2i.storage.repositories.experiments import ExperimentRepository
    from e2i.storage.repositories.explanations import ShapAnalysisRepository
    from e2i.storage.repositories.models import MLModelRegistryRepository
    from e2i.storage.repositories.outbox import OutboxRepository
    from e2i.storage.repositories.quality import DataQualityRepository
    from e2i.storage.repositories.received_spans import ReceivedSpanRepository
    from e2i.storage.repositories.runs import RunRepository
    from e2i.storage.repositories.search import HpoRepository
    from e2i.storage.repositories.spans import ObservabilitySpanRepository
    from e2i.storage.repositories.training_runs import TrainingRunRepository

    audit = AuditRepository(database, AuditFiles.of(settings.home, url=settings.database.url.get_secret_value()))
    alerting = settings.data_quality.alerting
    return {
        records.ExperimentRecords: ExperimentRepository(database),
        records.TrainingRunRecords: TrainingRunRepository(database),
        records.ModelRecords: MLModelRegistryRepository(database, audit),
        records.QualityRecords: DataQualityRepository(database),
        records.EvidenceRecords: CausalEvidenceRepository(database),
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
        telemetry.SpanRecords: ObservabilitySpanRepository(database),
        telemetry.SinkAccounts: Accounts(settings, database),
        telemetry.ReceivedSpans: ReceivedSpanRepository(database),
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


def make_tracker(settings: Settings, url: str, records: Mapping[type[Any], Any]) -> MLflowConnector:
    """MLflow as the settings say; nothing is connected yet."""
    from e2i.mlops.circuit_breaker import BreakerSettings
    from e2i.mlops.mlflow_connector import MLflowConnector, MlflowSettings, vendor_environment
    from e2i.ports.records import Outbox
    from e2i.storage.address import sqlalchemy_url

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


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of the settings, or the embedded one, started when it has to be."""
    from e2i.storage.postgres import Database

    url, server = settings.database.url.get_secret_value(), embedded_server(settings)
    if not url:
        check_disk(settings.home)
        url = await asyncio.to_thread(server.start)
    database = Database(url)
    try:
        await database.open()
        yield database
    finally:
        await database.close()
        server.release()
