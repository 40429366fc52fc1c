"""ml_experiments."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from e2i.errors import NotFound
from e2i.storage.postgres import as_json
from e2i.storage.sql import load

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from e2i.domain.experiments import ScopeSpec
    from e2i.domain.study import Study
    from e2i.storage.postgres import Database, Row

_SQL = load("experiments")


class ExperimentRepository:
    """`ExperimentRecords` on PostgreSQL. An experiment is named by its `experiment_id` (the name) or by its row's uuid."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, scope: ScopeSpec, *, study: Study, created_by: str) -> str:
        """Insert or update by `scope.experiment_id`; the row's uuid."""
        row = await self._db.row(
            _SQL["save"],
            experiment_name=scope.experiment_id,
            description=study.description,
            problem_type=scope.problem_type,
            prediction_target=scope.prediction_target,
            prediction_horizon_days=scope.horizon_days,
            minimum_auc=scope.success_criteria.get("minimum_auc"),
            minimum_precision_at_k=scope.success_criteria.get("minimum_precision_at_k"),
            maximum_fpr=scope.success_criteria.get("maximum_fpr"),
            brand=scope.brand,
            region=scope.region,
            scope=as_json(asdict(scope)),
            created_by=created_by,
        )
        assert row is not None
        return str(row["id"])

    async def set_mlflow_id(self, experiment_id: str, mlflow_experiment_id: str) -> None:
        """Link to MLflow's experiment. Raises NotFound."""
        row = await self._db.row(_SQL["set_mlflow_id"], experiment=experiment_id, mlflow_experiment_id=mlflow_experiment_id)
        if row is None:
            raise _no_experiment(experiment_id)


async def experiment_row(connection: AsyncConnection[Row], experiment_id: str) -> str:
    """Uuid of an experiment's row, by name or uuid. Raises NotFound."""
    row = await (await connection.execute(_SQL["find"], {"experiment": experiment_id})).fetchone()
    if row is None:
        raise _no_experiment(experiment_id)
    return str(row["id"])


def _no_experiment(experiment_id: str) -> NotFound:
    return NotFound(f"no experiment {experiment_id!r}.", where="ml_experiments", advice="Save its scope first.")
