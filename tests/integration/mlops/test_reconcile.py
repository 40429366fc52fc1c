"""Every way in which our rows and MLflow can disagree is found, named, and repaired where it can be."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kill_scenario import DIGEST, log_small_model

from e2i.domain.runs import LedgerRun
from e2i.errors import BackendUnavailable
from e2i.mlops.mlflow_connector import MLflowConnector
from e2i.mlops.mlflow_mirror import MLflowMirror
from e2i.mlops.reconcile import Difference, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.tracking import MlflowClient

    from contracts.sqlite_outbox import SqliteOutbox
    from e2i.mlops.mlflow_connector import MlflowSettings


class Rows:
    """Our rows, in memory."""

    def __init__(self, *rows: LedgerRun) -> None:
        self.rows = list(rows)

    async def tracked_runs(self) -> list[LedgerRun]:
        return self.rows

    async def link_run(self, key: str, *, run_id: str, model_uri: str | None) -> None:
        self.rows = [
            replace(row, run_id=run_id, model_uri=model_uri if row.model_name else None) if row.key == key else row for row in self.rows
        ]


@pytest.fixture
def connector(settings: MlflowSettings, outbox: SqliteOutbox) -> MLflowConnector:
    """Runs of each test under a prefix of its own."""
    return MLflowConnector(replace(settings, experiment_prefix=f"t{uuid.uuid4().hex[:8]}"), outbox)


@pytest.fixture
async def client(connector: MLflowConnector) -> MlflowClient:
    return await connector.repeat("looking", lambda operations: operations.client)


@pytest.fixture
async def row(connector: MLflowConnector) -> LedgerRun:
    """A registered model on which both sides agree."""
    key = uuid.uuid4().hex
    async with connector.start_run(experiment_name=connector.experiment_name("model_trainer", "x"), run_name="r", key=key) as run:
        uri = await log_small_model(connector, key)
    await connector.register_model(name=f"m_{key}", run=run, model_uri=uri, tags={})
    await connector.transition_model_stage(name=f"m_{key}", version="1", stage="staging")
    return LedgerRun(key=key, status="completed", run_id=run.run_id, model_uri=uri, model_name=f"m_{key}", stage="staging", digest=DIGEST)


def training(row: LedgerRun) -> LedgerRun:
    """The training run's row beside the registry's: it has no place for the model."""
    return LedgerRun(key=row.key, status=row.status, run_id=row.run_id)


async def compare(connector: MLflowConnector, rows: Rows, **options: Any) -> list[Difference]:
    return await reconcile(rows, MLflowMirror(connector), **options)


async def only(connector: MLflowConnector, rows: Rows, kind: str, detail: str) -> Difference:
    """The one difference; seen without repair first, and gone after it when it was repaired."""
    (seen,) = await compare(connector, rows, repair=False)
    assert (seen.kind, seen.is_repaired) == (kind, False)
    assert seen.advice is not None
    (found,) = await compare(connector, rows)
    assert found.kind == kind
    assert detail in found.detail
    left = await compare(connector, rows)
    assert left == ([] if found.is_repaired else [found])
    return found


async def test_two_sides_that_agree_have_no_difference(connector: MLflowConnector, row: LedgerRun) -> None:
    running = LedgerRun(key="not-yet-logged", status="running", run_id=None)
    assert await compare(connector, Rows(row, training(row), running)) == []


async def test_an_id_that_came_later_is_written_into_all_our_rows(connector: MLflowConnector, row: LedgerRun) -> None:
    rows = Rows(replace(row, run_id=None, model_uri=None), replace(training(row), run_id=None))
    assert (await only(connector, rows, "missing_here", "our row says run None")).is_repaired
    assert rows.rows == [row, training(row)]


async def test_a_model_address_that_came_later_is_written_into_our_row(connector: MLflowConnector, row: LedgerRun) -> None:
    rows = Rows(replace(row, model_uri=None))
    assert (await only(connector, rows, "missing_here", "model None")).is_repaired
    assert rows.rows == [row]


async def test_a_wrong_id_is_corrected(connector: MLflowConnector, row: LedgerRun) -> None:
    rows = Rows(replace(row, run_id="f" * 32))
    assert (await only(connector, rows, "differing", "f" * 32)).is_repaired
    assert rows.rows == [row]


async def test_a_run_in_the_bin_is_taken_out(connector: MLflowConnector, client: MlflowClient, row: LedgerRun) -> None:
    client.delete_run(row.run_id)
    assert (await only(connector, Rows(row), "missing_there", "was deleted")).is_repaired


async def test_a_run_that_is_gone_is_named_and_not_invented(connector: MLflowConnector, row: LedgerRun) -> None:
    ghost = LedgerRun(key="ghost", status="completed", run_id="a" * 32)
    found = await only(connector, Rows(row, ghost), "missing_there", "does not have the run")
    assert found.key == "ghost"
    assert not found.is_repaired
    assert "log the run again" in (found.advice or "")


async def test_a_run_that_still_waits_says_so(settings: MlflowSettings, connector: MLflowConnector, outbox: SqliteOutbox) -> None:
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    async with away.start_run(experiment_name=connector.experiment_name("x", "y"), run_name="r", key="waiting"):
        pass
    rows = Rows(LedgerRun(key="waiting", status="completed", run_id=None))
    (seen,) = await compare(connector, rows, repair=False)
    assert (seen.kind, seen.advice) == ("missing_there", "It waits in the outbox; run this again.")
    assert [found.kind for found in await compare(connector, rows)] == ["missing_here"]
    assert await compare(connector, rows) == []


async def test_a_run_that_is_called_running_for_ever_is_ended(connector: MLflowConnector, client: MlflowClient, row: LedgerRun) -> None:
    client.update_run(row.run_id, status="RUNNING")
    assert (await only(connector, Rows(row), "differing", "MLflow's is running")).is_repaired
    assert client.get_run(row.run_id).info.status == "FINISHED"


async def test_a_copy_of_a_run_goes_to_the_bin_and_the_one_we_know_stays(
    connector: MLflowConnector, client: MlflowClient, row: LedgerRun
) -> None:
    experiment = client.get_run(row.run_id).info.experiment_id
    copy = client.create_run(experiment, start_time=1, tags={"e2i.key": row.key})
    assert (await only(connector, Rows(row), "orphan", f"{copy.info.run_id} is a copy of {row.run_id}")).is_repaired
    assert client.get_run(copy.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(row.run_id).info.lifecycle_stage == "active"


async def test_a_stranger_with_our_tag_is_named_and_left_alone(connector: MLflowConnector, client: MlflowClient, row: LedgerRun) -> None:
    experiment = client.get_run(row.run_id).info.experiment_id
    stranger = client.create_run(experiment, tags={"e2i.key": "stranger"})
    assert not (await only(connector, Rows(row), "orphan", "nobody here knows")).is_repaired
    assert client.get_run(stranger.info.run_id).info.lifecycle_stage == "active"


async def test_a_run_of_an_agent_without_rows_is_no_orphan(connector: MLflowConnector, row: LedgerRun) -> None:
    async with connector.start_run(experiment_name=connector.experiment_name("model_selection", "x"), run_name="r"):
        pass
    assert await compare(connector, Rows(row)) == []


@pytest.mark.parametrize(
    "tamper",
    [
        lambda client, name: client.set_model_version_tag(name, "1", "e2i.stage", "production"),
        lambda client, name: client.delete_registered_model_alias(name, "staging"),
    ],
    ids=["stage changed by hand", "alias vanished"],
)
async def test_a_stage_or_alias_changed_by_hand_is_set_back(
    connector: MLflowConnector, client: MlflowClient, row: LedgerRun, tamper: Callable[[MlflowClient, str], None]
) -> None:
    tamper(client, f"m_{row.key}")
    assert (await only(connector, Rows(row), "differing", "is staging here")).is_repaired
    version = await connector.get_latest_model_version(f"m_{row.key}")
    assert version is not None
    assert (version.stage, version.aliases) == ("staging", ("staging",))


async def test_two_versions_in_staging_do_not_fight_for_the_alias(connector: MLflowConnector, row: LedgerRun) -> None:
    async with connector.start_run(experiment_name=connector.experiment_name("model_trainer", "x"), run_name="r") as second:
        uri = await log_small_model(connector, second.key)
    await connector.register_model(name=f"m_{row.key}", run=second, model_uri=uri, tags={})
    newer = replace(row, key=second.key, run_id=second.run_id, model_uri=uri)
    rows = Rows(row, newer)
    assert (await only(connector, rows, "differing", "version 2 is staging here, development")).key == second.key


async def test_another_digest_there_is_named_and_never_copied(connector: MLflowConnector, row: LedgerRun) -> None:
    found = await only(connector, Rows(replace(row, digest="cd" * 32)), "differing", "has digest")
    assert not found.is_repaired
    assert "Do not load it" in (found.advice or "")


async def test_a_version_deleted_there_is_named(connector: MLflowConnector, client: MlflowClient, row: LedgerRun) -> None:
    client.delete_model_version(f"m_{row.key}", "1")
    assert not (await only(connector, Rows(row), "missing_there", "has lost the version")).is_repaired


async def test_nothing_is_compared_while_mlflow_is_away(settings: MlflowSettings, outbox: SqliteOutbox) -> None:
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    with pytest.raises(BackendUnavailable):
        await compare(away, Rows())
