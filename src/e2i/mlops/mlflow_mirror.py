"""What MLflow holds of ours, and the few things that mend it; for `reconcile`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2i.mlops.mlflow_operations import KEY, TARGET

if TYPE_CHECKING:
    from e2i.mlops.mlflow_connector import MLflowConnector, RegisteredVersion
    from e2i.mlops.mlflow_operations import MLflowOperations
    from e2i.mlops.outbox_relay import Delivery

TRIAL = "/trial/"


@dataclass(frozen=True, kw_only=True)
class MirroredRun:
    """A run in MLflow that carries our key."""

    key: str
    run_id: str
    status: str
    is_deleted: bool
    started_ms: int


class MLflowMirror:
    """The Mirror of `reconcile` on a connector. Every method raises BackendUnavailable and BackendRejected."""

    def __init__(self, connector: MLflowConnector) -> None:
        self._connector = connector

    async def drain(self) -> Delivery:
        """Deliver what waits."""
        return await self._connector.drain()

    async def results(self, key: str) -> dict[str, Any]:
        """What MLflow has confirmed for a key, as our outbox remembers it."""
        return await self._connector.outbox.results(TARGET, key)

    async def waits(self, key: str) -> bool:
        """Whether something for this key has not been delivered yet."""
        return bool(await self._connector.outbox.pending(TARGET, limit=1, key=key))

    async def runs(self) -> list[MirroredRun]:
        """All runs of ours but search trials, deleted ones too."""
        prefix = self._connector.settings.experiment_prefix
        return await self._connector.repeat("comparing runs", lambda operations: _runs(operations, prefix))

    async def versions(self, name: str) -> list[RegisteredVersion]:
        """Versions of a registered model, oldest first."""
        return await self._connector.registered_versions(name)

    async def end_run(self, run_id: str, status: str) -> None:
        """Close a run that is still called running."""
        await self._connector.repeat(f"ending run {run_id}", lambda operations: operations.client.set_terminated(run_id, status))

    async def delete_run(self, run_id: str) -> None:
        """Move a run to MLflow's bin."""
        await self._connector.repeat(f"deleting run {run_id}", lambda operations: operations.client.delete_run(run_id))

    async def restore_run(self, run_id: str) -> None:
        """Take a run out of MLflow's bin."""
        await self._connector.repeat(f"restoring run {run_id}", lambda operations: operations.client.restore_run(run_id))

    async def set_stage(self, name: str, version: str, stage: str) -> None:
        """Tag and alias."""
        await self._connector.transition_model_stage(name=name, version=version, stage=stage)


def _runs(operations: MLflowOperations, prefix: str) -> list[MirroredRun]:
    from mlflow.entities import ViewType

    client = operations.client
    experiments = [
        experiment.experiment_id
        for experiment in _all(client.search_experiments, view_type=ViewType.ACTIVE_ONLY)
        if experiment.name.startswith(f"{prefix}_")
    ]
    found = _all(client.search_runs, experiments, run_view_type=ViewType.ALL) if experiments else []
    return [
        MirroredRun(
            key=run.data.tags[KEY],
            run_id=run.info.run_id,
            status=run.info.status,
            is_deleted=run.info.lifecycle_stage == "deleted",
            started_ms=run.info.start_time,
        )
        for run in found
        if KEY in run.data.tags and TRIAL not in run.data.tags[KEY]
    ]


def _all(search: Any, *arguments: Any, **conditions: Any) -> list[Any]:
    """Every page."""
    page = search(*arguments, max_results=1000, **conditions)
    found = list(page)
    while page.token:
        page = search(*arguments, max_results=1000, page_token=page.token, **conditions)
        found += page
    return found
