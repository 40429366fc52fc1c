"""Experiments, runs, models and stages in MLflow; MLflow may be away, the work goes on and nothing is lost.

Every write is first a durable message in the outbox, with its own time and `e2i.key`, and then delivered at once while MLflow
answers. When it does not, messages wait in order and `drain` delivers them later: at the next start, or by `e2i doctor`.
MLflow is imported on first use; its calls are synchronous and run in threads; its global state and autologging are not used.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from e2i.domain.runs import OutboxMessage
from e2i.errors import BackendUnavailable, ConfigError
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker
from e2i.mlops.mlflow_errors import AccessRefused, translated
from e2i.mlops.mlflow_operations import DIGEST, KEY, STAGE, TARGET, MLflowOperations, checked_key, quieten, trial_payload
from e2i.mlops.mlflow_run import MLflowRun, RunContext
from e2i.mlops.outbox_relay import Delivery, FileLock, OutboxRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from e2i.mlops.outbox_relay import DeliveryLock
    from e2i.ports.models import TrackedRun, TrialRecord
    from e2i.ports.records import Outbox

T = TypeVar("T")
_FIRST_USE_S = 180.0
_TRIALS_PER_MESSAGE = 25
_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class MlflowSettings:
    """Where MLflow is and how patient we are; durations in seconds."""

    tracking_uri: str
    """`postgresql+psycopg://…?options=-csearch_path%3Dmlflow` (no server), `sqlite:///…`, or the address of a server"""
    state_folder: Path
    """for files that wait to be sent, and for locks"""
    artifact_location: str | None = None
    """where artifacts go when there is no server; a server decides for itself when this is None"""
    request_timeout: float = 30.0
    max_attempts: int = 3
    backoff_factor: float = 0.5
    max_backoff: float = 10.0
    experiment_prefix: str = "e2i"
    naming_pattern: str = "e2i_{experiment}_{algorithm}"
    default_tags: Mapping[str, str] = field(default_factory=dict)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A version of a registered model in MLflow. `key`, `digest` and `stage` are None where we did not make it."""

    name: str
    version: str
    run_id: str | None
    source: str
    key: str | None
    digest: str | None
    stage: str | None
    aliases: tuple[str, ...]


def vendor_environment(settings: MlflowSettings) -> dict[str, str]:
    """What must stand in the environment before MLflow is imported: no telemetry, no retries, no prints, no pickles."""
    return {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(settings.request_timeout))),
    }


class MLflowConnector:
    """The Tracker on MLflow.

    Parameters
    ----------
    settings : where MLflow is
    outbox : where what MLflow is owed is kept
    lock : keeps two processes from delivering for the same key at once; by default files, right for one machine
    breaker : shared with other connectors of the same MLflow, if there are any
    now_ms : the wall clock, milliseconds since 1970
    """

    def __init__(
        self,
        settings: MlflowSettings,
        outbox: Outbox,
        *,
        lock: DeliveryLock | None = None,
        breaker: CircuitBreaker | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.settings = settings
        self.outbox = outbox
        self.breaker = breaker or CircuitBreaker("mlflow", settings.breaker)
        self.now_ms = now_ms
        self.staging = settings.state_folder / "staged"
        self.relay = OutboxRelay(
            target=TARGET,
            outbox=outbox,
            deliverer=self,
            lock=lock or FileLock(settings.state_folder / "locks"),
            holds=(AccessRefused,),
            on_delivered=_forget_staged,
        )
        self._first_use = FileLock(settings.state_folder / "first_use")
        self._operations: MLflowOperations | None = None

    def experiment_name(self, agent_type: str, experiment_id: str) -> str:
        """`e2i_{agent_type}_{experiment_id}`."""
        return f"{self.settings.experiment_prefix}_{agent_type}_{experiment_id}"

    def model_name(self, experiment: str, algorithm: str) -> str:
        """The registered model's name, by the pattern of the settings."""
        return self.settings.naming_pattern.format(experiment=experiment, algorithm=algorithm)

    async def get_or_create_experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str | None:
        """Id of the experiment `name`; None while MLflow is down."""
        payload = {"name": name, "tags": {**self.settings.default_tags, **(tags or {})}}
        results = await self.send("create_experiment", f"experiment/{checked_key(name)}", payload)
        return None if results is None else str(results["experiment_id"])

    def start_run(
        self,
        *,
        experiment_name: str,
        run_name: str,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunContext:
        """A run, idempotent by `key` (a fresh one by default): the same key continues the same run.

        It ends as FINISHED, FAILED when the block raises, or KILLED when it is cancelled.

        >>> async def train(connector: MLflowConnector) -> None:
        ...     async with connector.start_run(experiment_name="e2i_model_trainer_demo", run_name="xgboost") as run:
        ...         await run.log_params({"hp_max_depth": 6})
        ...         await run.log_metrics({"roc_auc": 0.81})
        """
        start = {
            "experiment_name": experiment_name,
            "run_name": run_name,
            "tags": {**self.settings.default_tags, **(tags or {})},
            "started_ms": self.now_ms(),
        }
        return RunContext(MLflowRun(self, checked_key(key or uuid.uuid4().hex)), start)

    async def log_trials(self, parent: TrackedRun, trials: Sequence[TrialRecord]) -> None:
        """Search trials as nested runs, idempotent by parent key and trial number."""
        payloads = [trial_payload(trial) for trial in trials]
        for start in range(0, len(payloads), _TRIALS_PER_MESSAGE):
            chunk = payloads[start : start + _TRIALS_PER_MESSAGE]
            await self.send("log_trials", parent.key, {"trials": chunk, "tags": dict(self.settings.default_tags)})

    async def register_model(self, *, name: str, run: TrackedRun, model_uri: str | None, tags: Mapping[str, str]) -> str | None:
        """A version of registered model `name`, idempotent by run key; None while MLflow is down."""
        results = await self.send("register_model", run.key, {"name": name, "model_uri": model_uri, "tags": dict(tags)})
        return None if results is None else str(results["version"])

    async def transition_model_stage(self, *, name: str, version: str, stage: str) -> None:
        """Mirror a stage of our registry: tag `e2i.stage`, and an alias for staging, shadow and production (also `champion`)."""
        await self.send("set_stage", f"model/{checked_key(name)}", {"name": name, "version": version, "stage": stage})

    async def get_latest_model_version(self, name: str) -> RegisteredVersion | None:
        """The newest version; None when there is none. Raises BackendUnavailable, BackendRejected."""
        versions = await self.registered_versions(name)
        return versions[-1] if versions else None

    async def registered_versions(self, name: str) -> list[RegisteredVersion]:
        """All versions, oldest first. Raises BackendUnavailable, BackendRejected."""
        return await self.repeat(f"versions of model {name}", lambda operations: _registered(operations, name))

    async def search_runs(self, experiment_name: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Newest runs of an experiment: `run_id`, `key`, `status`, `params`, `metrics`, `tags`; none when it does not exist.

        Raises BackendUnavailable, BackendRejected.
        """
        return await self.repeat(f"runs of {experiment_name}", lambda operations: operations.runs_of(experiment_name, limit))

    async def download_model(self, model_uri: str, folder: Path) -> Path:
        """Copy a model's own folder (see model_store) out of MLflow, unread; give it to `load_registered`."""
        return await self.repeat(f"download of {model_uri}", lambda operations: operations.download(model_uri, folder))

    async def drain(self) -> Delivery:
        """Deliver what waits; costs one query when nothing does."""
        if not (await self.outbox.counts(TARGET)).get("pending", 0):
            await asyncio.to_thread(self._sweep)
            return Delivery()
        return await self.relay.drain()

    async def send(self, operation: str, key: str, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """One durable write; results of its key, None while it waits."""
        return await self.relay.send(OutboxMessage(target=TARGET, key=key, operation=operation, payload=dict(payload)))

    async def deliver(self, message: OutboxMessage, results: Mapping[str, Any]) -> Mapping[str, Any]:
        """One attempt at one message; see outbox_relay.Deliverer."""
        return await self._call(
            f"{message.operation} of {message.key}",
            lambda operations: operations.perform(message.operation, message.key, message.payload, results),
        )

    async def repeat(self, doing: str, function: Callable[[MLflowOperations], T]) -> T:
        """A call that may be done twice, tried `max_attempts` times. Raises BackendUnavailable, BackendRejected."""
        for attempt in range(1, self.settings.max_attempts):
            try:
                return await self._call(doing, function)
            except BackendUnavailable:
                await asyncio.sleep(min(self.settings.backoff_factor * 2 ** (attempt - 1), self.settings.max_backoff))
        return await self._call(doing, function)

    async def _call(self, doing: str, function: Callable[[MLflowOperations], T]) -> T:
        operations = self._operations or await self._connect()
        async with self.breaker.guard(self.settings.request_timeout):
            return await asyncio.to_thread(_in_our_words, doing, function, operations)

    async def _connect(self) -> MLflowOperations:
        """Import MLflow and open its store, which makes the tables on the very first use (seconds, one process at a time)."""
        async with self._first_use.hold("mlflow"):
            if self._operations is None:
                async with self.breaker.guard(_FIRST_USE_S):
                    self._operations = await asyncio.to_thread(_open, self.settings)
        return self._operations

    def _sweep(self) -> None:
        """Remove staged files of messages that were delivered just before their process died."""
        for folder in self.staging.glob("*"):
            with suppress(FileNotFoundError):  # another process sweeps, too
                if time.time() - folder.stat().st_mtime > _DAY_S:
                    shutil.rmtree(folder, ignore_errors=True)


_connectors: dict[str, MLflowConnector] = {}


def get_mlflow_connector(settings: MlflowSettings | None = None, outbox: Outbox | None = None) -> MLflowConnector:
    """The connector of a tracking URI, one per process; without arguments the only one there is.

    Raises
    ------
    ConfigError
        Nobody configured a connector, or there are several and none was named.
    """
    if settings is None or outbox is None:
        if len(_connectors) != 1:
            raise ConfigError(
                f"{len(_connectors) or 'no'} MLflow connectors are configured.",
                where="get_mlflow_connector",
                advice="Give settings and outbox, or open the platform first.",
            )
        return next(iter(_connectors.values()))
    known = _connectors.get(settings.tracking_uri)
    if known is None or known.settings != settings or known.outbox is not outbox:
        breaker = known.breaker if known is not None and known.settings.breaker == settings.breaker else None
        known = _connectors[settings.tracking_uri] = MLflowConnector(settings, outbox, breaker=breaker)
    return known


def _open(settings: MlflowSettings) -> MLflowOperations:
    quieten()
    with translated(f"opening {settings.tracking_uri.split('@')[-1].split('?')[0]}"):
        if settings.tracking_uri.startswith("postgresql"):
            _answers(settings)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)
        client.search_experiments(max_results=1)
        return MLflowOperations(client, artifact_location=settings.artifact_location)


def _answers(settings: MlflowSettings) -> None:
    """Ask the database first: MLflow would try to open it for minutes."""
    import psycopg

    uri = settings.tracking_uri.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        psycopg.connect(uri, connect_timeout=max(2, int(settings.request_timeout / 3))).close()
    except psycopg.OperationalError as error:
        raise BackendUnavailable(
            f"the database does not answer: {error}", where="MLflow", advice="Start it; what waits is sent then."
        ) from error


def _in_our_words(doing: str, function: Callable[[MLflowOperations], T], operations: MLflowOperations) -> T:
    with translated(doing):
        return function(operations)


async def _forget_staged(message: OutboxMessage) -> None:
    if "staged" in message.payload:
        await asyncio.to_thread(shutil.rmtree, message.payload["staged"], ignore_errors=True)


def _registered(operations: MLflowOperations, name: str) -> list[RegisteredVersion]:
    versions = operations.model_versions(name)
    aliases = operations.aliases(name) if versions else {}
    return [
        RegisteredVersion(
            name=version.name,
            version=str(version.version),
            run_id=version.run_id or None,
            source=version.source,
            key=version.tags.get(KEY),
            digest=version.tags.get(DIGEST),
            stage=version.tags.get(STAGE),
            aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == str(version.version))),
        )
        for version in versions
    ]
