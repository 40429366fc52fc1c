"""One training as an agent writes it down: our row, then MLflow, then our row again. As a program: many, each killed.

    python kill_scenario.py DATABASE_URL FOLDER COUNT SEED

forks COUNT children, one key each, and sends SIGKILL to each at a random moment of its work.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2i.domain.experiments import MetricValue, TrainedModel
from e2i.mlops.mlflow_connector import MLflowConnector, MlflowSettings, vendor_environment
from e2i.mlops.mlflow_operations import content_digest
from e2i.ports.models import TrialRecord
from e2i.storage.address import sqlalchemy_url
from e2i.storage.postgres import Database
from e2i.storage.repositories.outbox import OutboxRepository
from e2i.storage.repositories.training_runs import TrainingRunRepository

if TYPE_CHECKING:
    from e2i.ports.records import TrainingRunRecords

DIGEST = "ab" * 32
EXPERIMENT = "exp_kills"
TRIALS = [
    TrialRecord(number=n, state="COMPLETE", params={"depth": n}, value=0.5, intermediate={0: 0.4}, started_ms=n, finished_ms=n + 1)
    for n in range(3)
]


class Rows(Protocol):
    """Our side."""

    async def begin(self, key: str) -> None:
        """Our row, before MLflow."""
        ...

    async def finish(self, key: str, *, run_id: str | None, model_uri: str | None) -> None:
        """Our row, after MLflow."""
        ...


async def train(connector: MLflowConnector, rows: Rows, key: str, folder: Path) -> None:
    """Idempotent by key."""
    plot = folder / "roc.txt"
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_text("curve")
    await rows.begin(key)
    async with connector.start_run(experiment_name=connector.experiment_name("model_trainer", EXPERIMENT), run_name=key, key=key) as run:
        await run.log_params({"hp_depth": 3})
        await run.log_metrics({"loss": 1.0}, step=0)
        await run.log_metrics({"loss": 0.5}, step=1)
        await run.log_artifact(plot, "curves")
        await connector.log_trials(run, TRIALS)
        uri = await log_small_model(connector, run.key)
    await connector.register_model(name=f"m_{key}", run=run, model_uri=uri, tags={})
    await rows.finish(key, run_id=run.run_id, model_uri=uri)


async def log_small_model(connector: MLflowConnector, key: str) -> str | None:
    """What `log_model` sends, without the second that it takes to build a real one."""
    staged = connector.staging / f"model-{key}"
    (staged / "mlflow").mkdir(parents=True, exist_ok=True)
    (staged / "mlflow" / "MLmodel").write_text("flavors: {}\n")
    payload = {
        "staged": str(staged),
        "name": "model",
        "digest": DIGEST,
        "framework": "xgboost",
        "sha256": content_digest(staged / "mlflow"),
    }
    results = await connector.send("log_model", key, payload)
    return None if results is None else str(results["model_uri"])


@dataclass(frozen=True)
class PostgresRows:
    """ml_training_runs."""

    records: TrainingRunRecords

    async def begin(self, key: str) -> None:
        await self._start(key)

    async def finish(self, key: str, *, run_id: str | None, model_uri: str | None) -> None:
        model = TrainedModel(
            algorithm="xgboost",
            framework="xgboost",
            hyperparameters={},
            features=("calls",),
            model_ref="m",
            model_sha256=DIGEST,
            training_samples=10,
            threshold=None,
            calibration=None,
            epochs=None,
            duration_s=0.1,
            metrics={"roc_auc": MetricValue(value=0.8)},
            train_metrics={},
            validation_metrics={},
            baseline_metrics={},
            fairness={},
            success={},
            mlflow_run_id=run_id,
            model_uri=model_uri,
            training_run_id=None,
        )
        await self.records.finish(await self._start(key), model=model, search=None, samples={"train": 10})

    async def _start(self, key: str) -> str:
        return await self.records.start(
            experiment_id=EXPERIMENT, run_name=key, algorithm="xgboost", training_samples=10, feature_names=["calls"], key=key
        )


def settings_for(url: str, folder: Path) -> MlflowSettings:
    return MlflowSettings(
        tracking_uri=sqlalchemy_url(url, schema="mlflow"), state_folder=folder / "mlflow", artifact_location=str(folder / "artifacts")
    )


async def child(url: str, folder: Path, key: str) -> None:
    database = Database(url)
    await database.open()
    connector = MLflowConnector(settings_for(url, folder), OutboxRepository(database))
    await train(connector, PostgresRows(TrainingRunRepository(database)), key, folder / key)
    await database.close()


def main(url: str, folder: Path, count: int, seed: int) -> None:
    """Fork and kill; prints how many were killed before their end. The heavy imports are done once, before the first fork."""
    os.environ.update(vendor_environment(settings_for(url, folder)))

    chance = random.Random(seed)
    killed = 0
    for number in range(count):
        process = os.fork()
        if process == 0:
            asyncio.run(child(url, folder, f"kill-{number}"))
            os._exit(0)
        time.sleep(chance.uniform(0.1, 0.9))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        killed += os.WIFSIGNALED(status)
    sys.stdout.write(f"{killed}\n")


def arguments(values: list[str]) -> tuple[Any, ...]:
    url, folder, count, seed = values
    return url, Path(folder), int(count), int(seed)


if __name__ == "__main__":
    main(*arguments(sys.argv[1:]))
