"""Killed anywhere between our rows and MLflow: after the repair both sides agree, and nothing is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kill_scenario
import pytest

from contracts.sqlite_outbox import SqliteOutbox
from e2i.domain.experiments import ScopeSpec
from e2i.domain.runs import LedgerRun
from e2i.domain.study import Study
from e2i.mlops.mlflow_connector import MLflowConnector
from e2i.mlops.mlflow_mirror import MLflowMirror
from e2i.mlops.mlflow_operations import PARENT_KEY, TARGET, MLflowOperations
from e2i.mlops.reconcile import reconcile
from e2i.storage.repositories.experiments import ExperimentRepository
from e2i.storage.repositories.ledger import LedgerRepository
from e2i.storage.repositories.outbox import OutboxRepository
from e2i.storage.repositories.training_runs import TrainingRunRepository

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from e2i.mlops.mlflow_connector import MlflowSettings
    from e2i.storage.postgres import Database

KILLS = 100


class Killed(BaseException):
    """The process is gone."""


class Fate:
    """Dies at the n-th of the points it is asked about; a dead process does nothing any more."""

    def __init__(self, at: int | None) -> None:
        self._at = at
        self.points = 0

    def point(self) -> None:
        self.points += 1
        if self._at is not None and self.points >= self._at:
            raise Killed


class Mortal:
    """Any object, with a point before and after each of its methods."""

    def __init__(self, target: Any, fate: Fate) -> None:
        self._target = target
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **keywords: Any) -> Any:
            self._fate.point()
            result = value(*arguments, **keywords)
            self._fate.point()
            return result

        async def call_async(*arguments: Any, **keywords: Any) -> Any:
            self._fate.point()
            result = await value(*arguments, **keywords)
            self._fate.point()
            return result

        return (
            call_async if name in ("append", "pending", "mark_delivered", "mark_failed", "results", "counts", "begin", "finish") else call
        )


class MemoryRows:
    """Our rows, and the ledger over them; they outlive the process."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRun] = {}

    async def begin(self, key: str) -> None:
        self.rows.setdefault(key, LedgerRun(key=key, status="running", run_id=None))

    async def finish(self, key: str, *, run_id: str | None, model_uri: str | None) -> None:
        self.rows[key] = LedgerRun(
            key=key,
            status="completed",
            run_id=run_id,
            model_uri=model_uri,
            model_name=f"m_{key}",
            stage="development",
            digest=kill_scenario.DIGEST,
        )

    async def tracked_runs(self) -> list[LedgerRun]:
        return list(self.rows.values())

    async def link_run(self, key: str, *, run_id: str, model_uri: str | None) -> None:
        self.rows[key] = replace(self.rows[key], run_id=run_id, model_uri=model_uri or self.rows[key].model_uri)


class World:
    """What survives a kill: MLflow, the outbox, our rows."""

    def __init__(self, client: MlflowClient, settings: MlflowSettings, folder: Path, number: int) -> None:
        self.client = client
        self.key = f"run-{number}"
        self.folder = folder / self.key
        self.settings = replace(settings, experiment_prefix=f"{folder.name}k{number}", state_folder=self.folder / "mlflow")
        self.folder.mkdir()
        self.outbox = SqliteOutbox(self.folder / "outbox.db")
        self.rows = MemoryRows()

    def process(self, fate: Fate) -> MLflowConnector:
        connector = MLflowConnector(self.settings, Mortal(self.outbox, fate))
        connector._operations = MLflowOperations(Mortal(self.client, fate), artifact_location=self.settings.artifact_location)
        return connector

    async def train(self, fate: Fate) -> None:
        await kill_scenario.train(self.process(fate), Mortal(self.rows, fate), self.key, self.folder)

    def runs(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name(f"{self.settings.experiment_prefix}_model_trainer_{kill_scenario.EXPERIMENT}")
        return [] if experiment is None else list(self.client.search_runs([experiment.experiment_id], max_results=100))

    def check_nothing_is_there_twice(self) -> None:
        keys = [run.data.tags["e2i.key"] for run in self.runs()]
        assert len(keys) == len(set(keys))
        assert len(self.client.search_model_versions(f"name = 'm_{self.key}'")) <= 1
        for run in self.runs():
            points = [(point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, "loss")]
            assert points in ([], [(0, 1.0)], [(0, 1.0), (1, 0.5)])

    def check_everything_is_there(self) -> None:
        runs = {run.data.tags["e2i.key"]: run for run in self.runs()}
        assert sorted(runs) == sorted([self.key, *(f"{self.key}/trial/{n}" for n in range(3))])
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        run = runs[self.key]
        assert run.data.params == {"hp_depth": "3"}
        assert [point.value for point in self.client.get_metric_history(run.info.run_id, "loss")] == [1.0, 0.5]
        assert [file.path for file in self.client.list_artifacts(run.info.run_id, "curves")] == ["curves/roc.txt"]
        (version,) = self.client.search_model_versions(f"name = 'm_{self.key}'")
        assert version.run_id == run.info.run_id
        row = self.rows.rows[self.key]
        assert (row.run_id, row.model_uri) == (run.info.run_id, f"models:/{run.outputs.model_outputs[0].model_id}")
        assert len(run.outputs.model_outputs) == 1


@pytest.fixture
async def make(settings: MlflowSettings, tmp_path: Path) -> Callable[[int], World]:
    client = await MLflowConnector(settings, SqliteOutbox(tmp_path / "x.db")).repeat("opening", lambda operations: operations.client)
    return lambda number: World(client, settings, tmp_path, number)


async def test_a_hundred_kills_between_the_two_writes_leave_no_difference_after_the_repair(make: Callable[[int], World]) -> None:
    undisturbed, fate = make(0), Fate(None)
    await undisturbed.train(fate)
    undisturbed.check_everything_is_there()
    assert fate.points > KILLS
    chance = random.Random(20)
    places = sorted(chance.sample(range(1, fate.points + 1), KILLS))
    for number, place in enumerate(places, start=1):
        world = make(number)
        with pytest.raises(Killed):
            await world.train(Fate(place))
        resumes = number % 4 == 0  # the other runs are never taken up again
        if resumes:
            await world.train(Fate(None))
        mirror = MLflowMirror(world.process(Fate(None)))
        await reconcile(world.rows, mirror)
        assert await reconcile(world.rows, mirror) == [], f"killed at point {place}"
        assert (await world.outbox.counts(TARGET))["pending"] == 0
        assert (await world.outbox.counts(TARGET))["quarantined"] == 0
        world.check_nothing_is_there_twice()
        if resumes:
            world.check_everything_is_there()


async def test_processes_killed_for_real_leave_no_difference_after_the_repair(
    database: Database, fresh_database: str, tmp_path: Path, vendor_variables: None
) -> None:
    await ExperimentRepository(database).save(
        ScopeSpec(
            experiment_id=kill_scenario.EXPERIMENT,
            problem_type="binary_classification",
            prediction_target="converted",
            required_features=("calls",),
            excluded_features={},
            minimum_samples=1,
            success_criteria={},
            horizon_days=None,
            brand=None,
            region=None,
        ),
        study=Study.model_validate({"name": "kills", "data": {"source": "x.csv"}, "prediction": {"target": "converted"}}),
        created_by="test",
    )
    settings = kill_scenario.settings_for(fresh_database, tmp_path)
    connector = MLflowConnector(settings, OutboxRepository(database))
    rows = kill_scenario.PostgresRows(TrainingRunRepository(database))
    await kill_scenario.train(connector, rows, "undisturbed", tmp_path / "undisturbed")
    script = str(Path(kill_scenario.__file__))
    command = [sys.executable, script, fresh_database, str(tmp_path), "20", "4"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=None, cwd=Path(script).parent)  # noqa: ASYNC221
    assert int(done.stdout) >= 10, "hardly any child was killed in the middle of its work"
    ledger, mirror = LedgerRepository(database), MLflowMirror(connector)
    await reconcile(ledger, mirror)
    assert await reconcile(ledger, mirror) == []
    for number in range(20):
        await kill_scenario.train(connector, rows, f"kill-{number}", tmp_path / f"kill-{number}")
    assert await reconcile(ledger, mirror) == []
    runs = await connector.search_runs(connector.experiment_name("model_trainer", kill_scenario.EXPERIMENT), limit=1000)
    parents = [run for run in runs if PARENT_KEY not in run["tags"]]
    assert sorted(run["key"] for run in parents) == sorted(["undisturbed", *(f"kill-{number}" for number in range(20))])
    assert len(runs) == 4 * 21
    assert {run["status"] for run in runs} == {"FINISHED"}
    client = await connector.repeat("looking", lambda operations: operations.client)
    for run in parents:
        assert [point.value for point in client.get_metric_history(run["run_id"], "loss")] == [1.0, 0.5]
        assert len(client.search_model_versions(f"name = 'm_{run['key']}'")) == 1
    assert {row.run_id for row in await ledger.tracked_runs()} == {run["run_id"] for run in parents}
