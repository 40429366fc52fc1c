"""ml_model_registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.domain.experiments import ALLOWED_PROMOTIONS, ModelVersion
from e2i.domain.runs import AuditEntry
from e2i.errors import Conflict, NotFound
from e2i.storage.postgres import as_json
from e2i.storage.repositories.experiments import experiment_row
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import LiteralString

    from psycopg import AsyncConnection

    from e2i.domain.experiments import Stage, TrainedModel
    from e2i.storage.postgres import Database, Row
    from e2i.storage.repositories.audit import AuditRepository

_SQL = load("model_registry")


class MLModelRegistryRepository:
    """`ModelRecords` on PostgreSQL. Every change of stage or champion is audited in its own transaction."""

    def __init__(self, db: Database, audit: AuditRepository) -> None:
        self._db = db
        self._audit = audit

    async def register_model_candidate(
        self,
        *,
        experiment_id: str,
        model_name: str,
        algorithm: str,
        hyperparameters: Mapping[str, Any],
        key: str,
        mlflow_run_id: str | None,
        mlflow_model_uri: str | None = None,
        training: TrainedModel | None = None,
    ) -> ModelVersion:
        """A new version in `development`, idempotent by `key`; the same key with `training` completes the row.

        Raises
        ------
        NotFound
            No such experiment.
        Conflict
            The key belongs to another model name.
        """
        async with self._db.transaction() as connection:
            await connection.execute(_SQL["lock_name"], {"model_name": model_name})
            known = await _one(connection, _SQL["by_key"], key=key)
            if known is not None and known["model_name"] != model_name:
                raise Conflict(
                    f"key {key!r} belongs to model {known['model_name']!r}.", where="ml_model_registry", advice="Use another key."
                )
            parameters = {
                "key": key,
                "experiment_id": await experiment_row(connection, experiment_id),
                "model_name": model_name,
                "mlflow_run_id": mlflow_run_id,
                "mlflow_model_uri": mlflow_model_uri,
                "algorithm": algorithm,
                "hyperparameters": as_json(dict(hyperparameters)),
                **_judged(training),
            }
            row = await _one(connection, _SQL["register"], **parameters)
            assert row is not None
            if training is not None and training.training_run_id is not None:
                link = {"registry_id": row["registry_id"], "training_run_id": training.training_run_id}
                await connection.execute(_SQL["link_training_run"], link)
        return ModelVersion(**row)

    async def get(self, registry_id: str) -> ModelVersion:
        """Raises NotFound."""
        async with self._db.transaction() as connection:
            return await _version(connection, registry_id)

    async def transition(self, registry_id: str, *, to: Stage, actor: str, reason: str) -> ModelVersion:
        """Move along ALLOWED_PROMOTIONS with an audit entry in one transaction.

        Raises
        ------
        Conflict
            The map forbids the move, or a champion would be archived.
        NotFound
            No such version.
        """
        async with self._db.transaction() as connection:
            before = await self._locked(connection, registry_id)
            if to not in ALLOWED_PROMOTIONS[before.stage]:
                allowed = " or ".join(ALLOWED_PROMOTIONS[before.stage]) or "nothing"
                raise Conflict(
                    f"{before.name} version {before.version} is in {before.stage} and cannot go to {to}.",
                    where="ml_model_registry",
                    advice=f"From {before.stage} it may go to {allowed}.",
                )
            if before.is_champion and to == "archived":
                raise Conflict(
                    f"{before.name} version {before.version} is the champion.",
                    where="ml_model_registry",
                    advice="Promote another version to champion first, then archive this one.",
                )
            row = await _one(connection, _SQL["set_stage"], registry_id=registry_id, stage=to)
            details = {"model": before.name, "version": before.version, "from": before.stage, "to": to, "reason": reason}
            entry = AuditEntry(actor=actor, action="model.transition", subject=f"model/{registry_id}", details=details)
            link = await self._audit.append_within(connection, entry)
        await self._audit.anchor(link)
        assert row is not None
        return ModelVersion(**row)

    async def promote_champion(self, registry_id: str, *, actor: str, reason: str) -> ModelVersion:
        """Make it the champion of its model name; the previous champion steps down in the same transaction.

        Nothing changes, and nothing is audited, when it is the champion already.

        Raises
        ------
        Conflict
            It is archived or deprecated.
        NotFound
            No such version.
        """
        async with self._db.transaction() as connection:
            before = await self._locked(connection, registry_id)
            if before.is_champion:
                return before
            if before.stage in ("archived", "deprecated"):
                raise Conflict(
                    f"{before.name} version {before.version} is {before.stage} and cannot be the champion.",
                    where="ml_model_registry",
                    advice="Choose a version that is in use.",
                )
            previous = await _one(connection, _SQL["dethrone"], model_name=before.name)
            row = await _one(connection, _SQL["enthrone"], registry_id=registry_id)
            details = {
                "model": before.name,
                "version": before.version,
                "previous": previous["registry_id"] if previous else None,
                "previous_version": previous["version"] if previous else None,
                "reason": reason,
            }
            entry = AuditEntry(actor=actor, action="model.champion", subject=f"model/{registry_id}", details=details)
            link = await self._audit.append_within(connection, entry)
        await self._audit.anchor(link)
        assert row is not None
        return ModelVersion(**row)

    async def champion(self, model_name: str) -> ModelVersion | None:
        """The champion, if there is one."""
        row = await self._db.row(_SQL["champion"], model_name=model_name)
        return ModelVersion(**row) if row is not None else None

    async def versions(self, model_name: str | None = None) -> list[ModelVersion]:
        """All versions, newest first."""
        return [ModelVersion(**row) for row in await self._db.rows(_SQL["versions"], model_name=model_name)]

    async def _locked(self, connection: AsyncConnection[Row], registry_id: str) -> ModelVersion:
        """The version as it is once nobody else changes its model name; a name never changes."""
        name = (await _version(connection, registry_id)).name
        await connection.execute(_SQL["lock_name"], {"model_name": name})
        return await _version(connection, registry_id)


async def _one(connection: AsyncConnection[Row], statement: LiteralString, **parameters: object) -> Row | None:
    return await (await connection.execute(statement, parameters)).fetchone()


async def _version(connection: AsyncConnection[Row], registry_id: str) -> ModelVersion:
    row = await _one(connection, _SQL["get"], registry_id=registry_id)
    if row is None:
        raise NotFound(f"no model version {registry_id!r}.", where="ml_model_registry", advice="The table lists them by `registry_id`.")
    return ModelVersion(**row)


def _judged(training: TrainedModel | None) -> dict[str, object]:
    """What a trained model adds to its row; None where it has no such metric."""
    metrics = training.metrics if training is not None else {}
    value = {name: metrics[name].value if name in metrics else None for name in ("roc_auc", "pr_auc", "brier", "calibration_slope")}
    return {
        "is_trained": training is not None,
        "feature_count": len(training.features) if training is not None else None,
        "training_samples": training.training_samples if training is not None else None,
        "auc": value["roc_auc"],
        "pr_auc": value["pr_auc"],
        "brier_score": value["brier"],
        "calibration_slope": value["calibration_slope"],
        "fairness_metrics": as_json(training.fairness if training is not None else {}),
        "artifact_path": training.model_ref if training is not None else None,
        "model_sha256": training.model_sha256 if training is not None else None,
    }
