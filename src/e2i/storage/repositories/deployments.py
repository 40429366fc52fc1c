"""ml_deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.storage.postgres import as_json
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2i.storage.postgres import Database

_SQL = load("deployments")


class DeploymentRepository:
    """`DeploymentRecords` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, *, registry_id: str, name: str, environment: str, status: str, deployed_by: str, config: Mapping[str, Any]) -> str:
        """Insert, or update the current deployment of this model under this name and environment; the row's uuid.

        Raises NotFound when there is no such model version.
        """
        row = await self._db.row(
            _SQL["save"],
            registry_id=registry_id,
            name=name,
            environment=environment,
            status=status,
            deployed_by=deployed_by,
            config=as_json(dict(config)),
        )
        assert row is not None
        return str(row["id"])
