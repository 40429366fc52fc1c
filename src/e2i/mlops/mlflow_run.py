"""One run in MLflow, as its user sees it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from e2i.errors import BackendRejected, DataError, E2IError, StorageError
from e2i.mlops.mlflow_operations import checked_metrics, checked_params, content_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    import polars as pl

    from e2i.ml.training import FittedModel
    from e2i.ports.models import StoredModel

_log = logging.getLogger(__name__)


class Sender(Protocol):
    """What a run needs of its connector."""

    staging: Path
    now_ms: Callable[[], int]

    async def send(self, operation: str, key: str, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """One durable write; results of its key, None while it waits."""
        ...


class MLflowRun:
    """A TrackedRun; made by `MLflowConnector.start_run`, usable inside its `async with` only."""

    def __init__(self, connector: Sender, key: str) -> None:
        self._connector = connector
        self._key = key
        self._run_id: str | None = None
        self._model_uri: str | None = None
        self._is_open = True

    @property
    def key(self) -> str:
        """Our own id of the run, also while MLflow is down."""
        return self._key

    @property
    def run_id(self) -> str | None:
        """MLflow's id; None until MLflow has confirmed."""
        return self._run_id

    async def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters as text. Raises DataError for a value longer than MLflow keeps, BackendRejected for a changed one."""
        await self.send("log_batch", {"params": checked_params(params), "metrics": {}, "step": 0, "logged_ms": self._connector.now_ms()})

    async def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics with the time of now. Raises DataError for a value that is not finite."""
        await self.send(
            "log_batch", {"params": {}, "metrics": checked_metrics(metrics), "step": step, "logged_ms": self._connector.now_ms()}
        )

    async def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file or a folder, as it is now. Raises DataError when there is none, StorageError when it cannot be copied."""
        staged = self._new_folder()
        digest = await asyncio.to_thread(_copy, path, staged / path.name)
        await self.send("log_artifact", {"staged": str(staged), "name": path.name, "sha256": digest, "folder": folder})

    async def log_model(self, model: FittedModel | StoredModel, name: str, *, example: pl.DataFrame) -> str | None:
        """Log a model with signature, input example and digest; its URI, None until MLflow has confirmed."""
        from e2i.mlops.mlflow_model import write_mlflow_model

        staged = self._new_folder()
        digest, framework = await asyncio.to_thread(write_mlflow_model, model, staged, example=example)
        payload = {
            "staged": str(staged),
            "name": name,
            "digest": digest,
            "framework": framework,
            "sha256": await asyncio.to_thread(content_digest, staged / "mlflow"),
        }
        results = await self.send("log_model", payload)
        return None if results is None else str(results["model_uri"])

    async def send(self, operation: str, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """One write of this run. Raises BackendRejected after the run has ended."""
        if not self._is_open:
            raise BackendRejected(
                f"{operation} came after the run had ended.", where=f"run {self._key}", advice="Log inside the `async with` block."
            )
        results = await self._connector.send(operation, self._key, payload)
        if results is not None:
            self._run_id = results.get("run_id", self._run_id)
        return results

    async def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        await self.send("finish_run", {"status": status, "ended_ms": self._connector.now_ms()})
        self._is_open = False

    def _new_folder(self) -> Path:
        return self._connector.staging / uuid.uuid4().hex


class RunContext:
    """`async with` around a run: starts it, and ends it by how the block ends."""

    def __init__(self, run: MLflowRun, start: Mapping[str, Any]) -> None:
        self._run = run
        self._start = start

    async def __aenter__(self) -> MLflowRun:
        await self._run.send("start_run", self._start)
        return self._run

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            await self._run.close("FINISHED")
            return
        try:
            await self._run.close("FAILED" if issubclass(kind, Exception) else "KILLED")
        except E2IError as second:  # people must see why the block failed
            _log.warning("the end of run %s could not be logged: %s", self._run.key, second)


def _copy(source: Path, target: Path) -> str:
    """Copy, so that the message does not depend on what its sender does next; sha256 of the copy."""
    if not source.exists():
        raise DataError("there is no such file or folder.", where=str(source), advice="Write it before it is logged.")
    try:
        target.parent.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    except OSError as error:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise StorageError(
            f"it cannot be copied to {target.parent}: {error.strerror or error}.", where=str(source), advice="Free space, then run again."
        ) from error
    return content_digest(target)
