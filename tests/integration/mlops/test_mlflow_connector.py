"""The connector against MLflow on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from e2i.errors import BackendRejected, BackendUnavailable, ConfigError, DataError
from e2i.mlops.circuit_breaker import State
from e2i.mlops.mlflow_connector import MLflowConnector, get_mlflow_connector
from e2i.mlops.mlflow_operations import PARENT_KEY, TARGET
from e2i.ports.models import TrialRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow.tracking import MlflowClient

    from contracts.sqlite_outbox import SqliteOutbox
    from e2i.mlops.mlflow_connector import MlflowSettings


def fresh(agent: str = "model_trainer") -> str:
    return f"e2i_{agent}_{uuid.uuid4().hex[:8]}"


async def client_of(connector: MLflowConnector) -> MlflowClient:
    return await connector.repeat("looking", lambda operations: operations.client)


async def only_run(connector: MLflowConnector, experiment: str) -> dict[str, Any]:
    (run,) = [run for run in await connector.search_runs(experiment) if PARENT_KEY not in run["tags"]]
    return run


def trials(count: int) -> list[TrialRecord]:
    return [
        TrialRecord(
            number=number,
            state="PRUNED" if number % 5 == 4 else "COMPLETE",
            params={"max_depth": number % 7, "learning_rate": 0.1, "hp_subsample": 0.8, "lambda": 1.5},
            value=None if number % 5 == 4 else number / 100,
            intermediate={fold: number / 100 + fold for fold in range(3)},
            started_ms=1_760_000_000_000 + number,
            finished_ms=1_760_000_001_000 + number,
        )
        for number in range(count)
    ]


async def test_a_run_with_everything_arrives(connector: MLflowConnector, tmp_path: Path, artifacts: Path) -> None:
    experiment = connector.experiment_name("model_trainer", uuid.uuid4().hex)
    plot = tmp_path / "roc.json"
    plot.write_text('{"fpr": [0, 1]}')
    async with connector.start_run(experiment_name=experiment, run_name="xgboost", tags={"agent": "model_trainer"}) as run:
        assert run.run_id is not None
        await run.log_params({"hp_max_depth": 6, "class_weight": None})
        await run.log_metrics({"roc_auc": 0.81, "brier_score": 0.12})
        await run.log_artifact(plot, "curves")
    logged = await only_run(connector, experiment)
    assert logged["run_id"] == run.run_id
    assert logged["key"] == run.key
    assert logged["status"] == "FINISHED"
    assert logged["params"] == {"hp_max_depth": "6", "class_weight": "None"}
    assert logged["metrics"] == {"roc_auc": 0.81, "brier_score": 0.12}
    assert {"agent", "project"} <= logged["tags"].keys()
    assert [path.read_text() for path in (artifacts / experiment).rglob("curves/roc.json")] == ['{"fpr": [0, 1]}']
    assert await connector.outbox.counts(TARGET) == {"pending": 0, "delivered": 5, "quarantined": 0}
    assert not list(connector.staging.iterdir())


async def test_experiments_are_made_once_under_our_name(connector: MLflowConnector, artifacts: Path) -> None:
    name = connector.experiment_name("model_selection", uuid.uuid4().hex)
    assert name.startswith("e2i_model_selection_")
    first, second = await asyncio.gather(*(connector.get_or_create_experiment(name, {"brand": "Kisqali"}) for _ in range(2)))
    assert first is not None
    assert first == second
    experiment = (await client_of(connector)).get_experiment(first)
    assert experiment.artifact_location == f"{artifacts}/{name}"
    assert experiment.tags["brand"] == "Kisqali"


async def test_the_same_key_continues_the_same_run_and_repeats_nothing(connect: Callable[[], MLflowConnector]) -> None:
    experiment, key = fresh(), uuid.uuid4().hex
    for auc in (0.8, 0.8, 0.9):
        connector = connect()
        async with connector.start_run(experiment_name=experiment, run_name="again", key=key) as run:
            await run.log_params({"hp_max_depth": 6})
            await run.log_metrics({"loss": 1.0}, step=0)
            await run.log_metrics({"loss": 0.5}, step=1)
            await run.log_metrics({"roc_auc": auc})
    logged = await only_run(connector, experiment)
    assert logged["status"] == "FINISHED"
    client = await client_of(connector)
    assert [point.value for point in client.get_metric_history(logged["run_id"], "roc_auc")] == [0.8, 0.9]
    assert [(point.step, point.value) for point in client.get_metric_history(logged["run_id"], "loss")] == [(0, 1.0), (1, 0.5)]


async def test_a_block_that_raises_ends_its_run_as_failed_and_a_cancelled_one_as_killed(connector: MLflowConnector) -> None:
    failed, killed = fresh(), fresh()
    with pytest.raises(ZeroDivisionError):
        async with connector.start_run(experiment_name=failed, run_name="r"):
            _ = 1 / 0

    async def hang() -> None:
        async with connector.start_run(experiment_name=killed, run_name="r"):
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    while not await connector.search_runs(killed):  # noqa: ASYNC110  # the event is in another system
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await only_run(connector, failed))["status"] == "FAILED"
    assert (await only_run(connector, killed))["status"] == "KILLED"


async def test_bad_trainings_do_not_open_the_breaker(connector: MLflowConnector) -> None:
    experiment = fresh()
    for _ in range(6):
        with pytest.raises(ZeroDivisionError):
            async with connector.start_run(experiment_name=experiment, run_name="r"):
                _ = 1 / 0
    assert connector.breaker.state is State.CLOSED


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
async def test_a_metric_that_is_not_finite_is_refused_before_it_is_kept(connector: MLflowConnector, value: float) -> None:
    experiment = fresh()
    async with connector.start_run(experiment_name=experiment, run_name="r") as run:
        before = await connector.outbox.counts(TARGET)
        with pytest.raises(DataError, match=r"metric roc_auc.*Leave out"):
            await run.log_metrics({"roc_auc": value, "f1": 0.5})
        assert await connector.outbox.counts(TARGET) == before
    assert (await only_run(connector, experiment))["metrics"] == {}


async def test_a_parameter_that_mlflow_would_cut_is_refused(connector: MLflowConnector) -> None:
    async with connector.start_run(experiment_name=fresh(), run_name="r") as run:
        with pytest.raises(DataError, match=r"parameter features.*artifact"):
            await run.log_params({"features": "x" * 6001})


async def test_a_changed_parameter_is_refused_loudly_and_blocks_nothing(connector: MLflowConnector) -> None:
    experiment = fresh()
    async with connector.start_run(experiment_name=experiment, run_name="r") as run:
        await run.log_params({"hp_max_depth": 6})
        with pytest.raises(BackendRejected, match="keeps its first value"):
            await run.log_params({"hp_max_depth": 7})
        await run.log_metrics({"roc_auc": 0.8})
    logged = await only_run(connector, experiment)
    assert (logged["params"], logged["metrics"], logged["status"]) == ({"hp_max_depth": "6"}, {"roc_auc": 0.8}, "FINISHED")
    assert (await connector.outbox.counts(TARGET))["quarantined"] == 1


async def test_logging_after_the_end_is_refused(connector: MLflowConnector) -> None:
    async with connector.start_run(experiment_name=fresh(), run_name="r") as run:
        pass
    with pytest.raises(BackendRejected, match="inside the `async with`"):
        await run.log_params({"late": 1})


async def test_a_key_that_could_break_out_of_a_filter_is_refused(connector: MLflowConnector) -> None:
    with pytest.raises(DataError, match="cannot identify a run"):
        connector.start_run(experiment_name=fresh(), run_name="r", key="x' or tags.`e2i.key` != '")


async def test_fifty_trials_are_nested_runs_once(connect: Callable[[], MLflowConnector]) -> None:
    experiment, connector = fresh(), connect()
    async with connector.start_run(experiment_name=experiment, run_name="search", key=uuid.uuid4().hex) as run:
        await connector.log_trials(run, trials(50))
        await connect().log_trials(run, trials(50))
    nested = [item for item in await connector.search_runs(experiment, limit=200) if item["tags"].get("mlflow.parentRunId") == run.run_id]
    assert sorted(item["key"] for item in nested) == sorted(f"{run.key}/trial/{number}" for number in range(50))
    (seventh,) = [item for item in nested if item["key"].endswith("/trial/7")]
    assert seventh["params"] == {"hp_max_depth": "0", "hp_learning_rate": "0.1", "hp_subsample": "0.8", "hp_lambda": "1.5"}
    assert seventh["metrics"] == {"value": 0.07, "intermediate": 2.07}
    assert seventh["status"] == "FINISHED"
    assert {item["status"] for item in nested if item["tags"]["e2i.trial_state"] == "PRUNED"} == {"KILLED"}


async def test_a_trial_with_an_infinite_value_is_refused(connector: MLflowConnector) -> None:
    async with connector.start_run(experiment_name=fresh(), run_name="search") as run:
        with pytest.raises(DataError, match=r"trial 0, metric value"):
            await connector.log_trials(run, [replace(trials(1)[0], value=math.inf)])


async def test_runs_of_an_unknown_experiment_are_none(connector: MLflowConnector) -> None:
    assert await connector.search_runs("e2i_nobody_nothing") == []
    assert await connector.get_latest_model_version("e2i_nobody") is None


async def test_an_artifact_is_kept_as_it_was_when_it_was_logged(
    settings: MlflowSettings, outbox: SqliteOutbox, connect: Callable[[], MLflowConnector], tmp_path: Path, artifacts: Path
) -> None:
    experiment, key = fresh(), uuid.uuid4().hex
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "roc.txt").write_text("first")
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    async with away.start_run(experiment_name=experiment, run_name="r", key=key) as run:
        await run.log_artifact(folder)
    (folder / "roc.txt").write_text("second")
    await connect().drain()
    assert [path.read_text() for path in (artifacts / experiment).rglob("plots/roc.txt")] == ["first"]


async def test_a_staged_file_that_somebody_changed_is_not_sent(
    settings: MlflowSettings, outbox: SqliteOutbox, connect: Callable[[], MLflowConnector], tmp_path: Path
) -> None:
    plot = tmp_path / "plot.txt"
    plot.write_text("real")
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    async with away.start_run(experiment_name=fresh(), run_name="r") as run:
        await run.log_artifact(plot)
    (staged,) = away.staging.rglob("plot.txt")
    staged.write_text("forged")
    delivery = await connect().drain()
    assert len(delivery.refused) == 1
    assert "not what was logged" in delivery.refused[0]
    with pytest.raises(DataError, match="no such file"):
        async with connect().start_run(experiment_name=fresh(), run_name="r") as other:
            await other.log_artifact(tmp_path / "nothing.txt")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "postgresql+psycopg://nobody:x@127.0.0.1:1/none"])
async def test_with_mlflow_away_the_run_goes_on_and_everything_arrives_later(
    settings: MlflowSettings, outbox: SqliteOutbox, connect: Callable[[], MLflowConnector], uri: str
) -> None:
    experiment = fresh()
    away = MLflowConnector(replace(settings, tracking_uri=uri), outbox)
    began = time.perf_counter()
    async with away.start_run(experiment_name=experiment, run_name="r") as run:
        assert run.run_id is None
        await run.log_params({"hp_max_depth": 6})
        for step in range(8):
            await run.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
        await away.log_trials(run, trials(2))
    assert await away.register_model(name="m", run=run, model_uri=None, tags={}) is None
    assert time.perf_counter() - began < 8
    assert away.breaker.state is State.OPEN
    with pytest.raises(BackendUnavailable):
        await away.search_runs(experiment)
    assert (await outbox.counts(TARGET))["delivered"] == 0
    await connect().drain()
    logged = await only_run(connect(), experiment)
    assert logged["status"] == "FINISHED"
    assert logged["key"] == run.key
    history = (await client_of(connect())).get_metric_history(logged["run_id"], "loss")
    assert [point.step for point in history] == list(range(8))
    assert len(await connect().search_runs(experiment)) == 3
    assert (await outbox.counts(TARGET))["pending"] == 0


async def test_draining_an_empty_outbox_does_not_touch_mlflow(settings: MlflowSettings, outbox: SqliteOutbox) -> None:
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    assert (await away.drain()).delivered == 0
    assert away._operations is None


async def test_two_deliverers_of_one_outbox_make_one_run(
    settings: MlflowSettings, outbox: SqliteOutbox, connect: Callable[[], MLflowConnector]
) -> None:
    experiments = [fresh() for _ in range(5)]
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox)
    for experiment in experiments:
        async with away.start_run(experiment_name=experiment, run_name="r") as run:
            await run.log_metrics({"roc_auc": 0.8})
    deliveries = await asyncio.gather(*(connect().drain() for _ in range(4)))
    assert sum(delivery.delivered for delivery in deliveries) == 15
    for experiment in experiments:
        await only_run(connect(), experiment)


async def test_one_connector_per_tracking_uri(settings: MlflowSettings, outbox: SqliteOutbox) -> None:
    mine = replace(settings, tracking_uri="http://127.0.0.1:1/singleton")
    with pytest.raises(ConfigError, match="no MLflow connectors"):
        get_mlflow_connector()
    first = get_mlflow_connector(mine, outbox)
    assert get_mlflow_connector(mine, outbox) is first
    assert get_mlflow_connector() is first
    patient = get_mlflow_connector(replace(mine, request_timeout=60), outbox)
    assert patient is not first
    assert patient.breaker is first.breaker
    get_mlflow_connector(replace(mine, tracking_uri="http://127.0.0.1:1/other"), outbox)
    with pytest.raises(ConfigError, match="2 MLflow connectors"):
        get_mlflow_connector()


async def test_the_settings_name_models_and_experiments(connector: MLflowConnector) -> None:
    assert connector.model_name("churn", "xgboost") == "e2i_churn_xgboost"
    assert connector.experiment_name("model_trainer", "42") == "e2i_model_trainer_42"


async def register(connector: MLflowConnector, name: str, artifact: Path, key: str) -> str:
    async with connector.start_run(experiment_name=f"e2i_register_{name}", run_name="r", key=key) as run:
        pass
    version = await connector.register_model(name=name, run=run, model_uri=str(artifact), tags={"brand": "Fabhalta"})
    assert version is not None
    return version


async def test_a_version_is_registered_once_per_run_key(connector: MLflowConnector, tmp_path: Path) -> None:
    name = f"e2i_once_{uuid.uuid4().hex[:8]}"
    assert [await register(connector, name, tmp_path, key) for key in ("a", "a", "b")] == ["1", "1", "2"]
    latest = await connector.get_latest_model_version(name)
    assert latest is not None
    assert (latest.version, latest.key, latest.stage) == ("2", "b", None)


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


async def test_a_stage_is_mirrored_by_tag_and_alias(connector: MLflowConnector, tmp_path: Path) -> None:
    name = f"e2i_stages_{uuid.uuid4().hex[:8]}"
    for key in ("a", "b"):
        await register(connector, name, tmp_path, key)
    client = await client_of(connector)
    for stage in ("staging", "shadow", "production"):
        await connector.transition_model_stage(name=name, version="1", stage=stage)
    assert aliases(client, name) == {"production": "1", "champion": "1"}
    await connector.transition_model_stage(name=name, version="1", stage="archived")
    assert aliases(client, name) == {}
    await connector.transition_model_stage(name=name, version="2", stage="production")
    assert aliases(client, name) == {"production": "2", "champion": "2"}
    assert [client.get_model_version(name, version).tags["e2i.stage"] for version in ("1", "2")] == ["archived", "production"]


async def test_a_stage_of_a_version_that_is_not_there_is_refused(connector: MLflowConnector) -> None:
    with pytest.raises(BackendRejected, match="e2i doctor"):
        await connector.transition_model_stage(name=f"e2i_none_{uuid.uuid4().hex[:8]}", version="9", stage="staging")


async def test_a_run_without_a_model_cannot_be_registered(connector: MLflowConnector) -> None:
    async with connector.start_run(experiment_name=fresh(), run_name="r") as run:
        pass
    with pytest.raises(BackendRejected, match="log_model first"):
        await connector.register_model(name="e2i_nothing", run=run, model_uri=None, tags={})


async def test_every_message_is_plain_json_with_its_own_time(settings: MlflowSettings, outbox: SqliteOutbox) -> None:
    ticks = iter(range(1_000, 2_000))
    away = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1"), outbox, now_ms=lambda: next(ticks))
    async with away.start_run(experiment_name=fresh(), run_name="r") as run:
        await run.log_metrics({"roc_auc": 0.5})
        await run.log_metrics({"roc_auc": 0.6}, step=1)
    messages = await outbox.pending(TARGET)
    assert json.dumps([message.payload for message in messages])
    assert [message.operation for message in messages] == ["start_run"]
    await outbox.mark_delivered(messages[0].message_id or 0, {"run_id": "x"})
    times = [message.payload.get("logged_ms") or message.payload["ended_ms"] for message in await outbox.pending(TARGET)]
    assert times == [1001, 1002, 1003]
    assert messages[0].payload["started_ms"] == 1000
