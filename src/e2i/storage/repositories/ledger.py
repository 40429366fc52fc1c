"""Our side of what is also written to MLflow: rows and the key that their run carries there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2i.domain.runs import LedgerRun
from e2i.storage.sql import load

if TYPE_CHECKING:
    from e2i.storage.postgres import Database

_SQL = load("ledger")


class LedgerRepository:
    """Rows of ml_training_runs and ml_model_registry, for the comparison with MLflow."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def tracked_runs(self) -> list[LedgerRun]:
        """Every row that has, or should have, a run in MLflow; several rows may share a key."""
        return [LedgerRun(**row) for row in await self._db.rows(_SQL["tracked_runs"])]

    async def link_run(self, key: str, *, run_id: str, model_uri: str | None) -> None:
        """Write MLflow's id, and the model's address when there is one, into every row of this key."""
        async with self._db.transaction() as connection:
            await connection.execute(_SQL["link_training_run"], {"key": key, "run_id": run_id})
            await connection.execute(_SQL["link_model"], {"key": key, "run_id": run_id, "model_uri": model_uri})
