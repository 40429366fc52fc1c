"""ml_training_runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from e2i.errors import NotFound
from e2i.ports.records import PastRun
from e2i.storage.postgres import as_json
from e2i.storage.repositories.experiments import experiment_row
from e2i.storage.repositories.outbox import append_within
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2i.domain.experiments import SearchResult, TrainedModel
    from e2i.domain.runs import OutboxMessage
    from e2i.storage.postgres import Database

_SQL = load("training_runs")


class TrainingRunRepository:
    """`TrainingRunRecords` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def start(
        self, *, experiment_id: str, run_name: str, algorithm: str, training_samples: int, feature_names: Sequence[str], key: str
    ) -> str:
        """Insert, idempotent by `key`; the row's uuid. Raises NotFound when there is no such experiment."""
        async with self._db.transaction() as connection:
            parameters = {
                "key": key,
                "experiment_id": await experiment_row(connection, experiment_id),
                "run_name": run_name,
                "algorithm": algorithm,
                "training_samples": training_samples,
                "feature_names": as_json(list(feature_names)),
            }
            row = await (await connection.execute(_SQL["start"], parameters)).fetchone()
        assert row is not None
        return str(row["id"])

    async def finish(
        self,
        training_run_id: str,
        *,
        model: TrainedModel,
        search: SearchResult | None,
        samples: Mapping[str, int],
        outbox: Sequence[OutboxMessage] = (),
    ) -> None:
        """Complete the row, with the outbox messages in the same transaction; done twice, the messages are written once.

        Raises
        ------
        NotFound
            No such run.
        StorageError
            A metric is not finite.
        """
        async with self._db.transaction() as connection:
            row = await (await connection.execute(_SQL["lock"], {"id": training_run_id})).fetchone()
            if row is None:
                raise _no_run(training_run_id)
            await connection.execute(_SQL["finish"], {"id": training_run_id, **_columns(model, search, samples)})
            if row["status"] != "completed":
                await append_within(connection, outbox)

    async def fail(self, training_run_id: str, error: str) -> None:
        """Mark as failed, by the row's uuid or by its key. Raises NotFound."""
        if await self._db.row(_SQL["fail"], id=training_run_id, error=error) is None:
            raise _no_run(training_run_id)

    async def history(self, *, problem_type: str, limit: int = 200) -> list[PastRun]:
        """Completed runs of the same kind of problem, newest first; `metrics` are those of the test split."""
        rows = await self._db.rows(_SQL["history"], problem_type=problem_type, limit=limit)
        return [
            PastRun(
                algorithm=row["algorithm"],
                problem_type=row["problem_type"],
                metrics={name: metric["value"] for name, metric in row["test_metrics"].items()},
                completed_at=row["completed_at"],
            )
            for row in rows
        ]


def _columns(model: TrainedModel, search: SearchResult | None, samples: Mapping[str, int]) -> dict[str, object]:
    return {
        "algorithm": model.algorithm,
        "hyperparameters": as_json(model.hyperparameters),
        "training_samples": samples.get("train", model.training_samples),
        "validation_samples": samples.get("validation"),
        "test_samples": samples.get("test"),
        "feature_names": as_json(list(model.features)),
        "train_metrics": as_json(model.train_metrics),
        "validation_metrics": as_json(model.validation_metrics),
        "test_metrics": as_json({name: asdict(metric) for name, metric in model.metrics.items()}),
        "mlflow_run_id": model.mlflow_run_id,
        "duration_seconds": model.duration_s,
        "optuna_study_name": search.study_name if search is not None else None,
        "optuna_trial_number": search.best_trial if search is not None else None,
        "is_best_trial": search is not None,
    }


def _no_run(training_run_id: str) -> NotFound:
    return NotFound(f"no training run {training_run_id!r}.", where="ml_training_runs", advice="Start it first.")
