"""Hyperparameter search on a real PostgreSQL: resumed after `kill -9`, cheap per trial, honest when the server is gone."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from e2i.errors import BackendRejected, BackendUnavailable
from e2i.mlops.optuna_optimizer import OptunaOptimizer, OptunaSettings
from e2i.ports.models import SearchRequest
from e2i.storage.embedded import EmbeddedServer

SPACE = {
    "n_estimators": {"type": "int", "low": 50, "high": 400, "step": 50},
    "max_depth": {"type": "int", "low": 2, "high": 8},
    "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
    "subsample": {"type": "float", "low": 0.6, "high": 1.0},
    "colsample_bytree": {"type": "float", "low": 0.6, "high": 1.0},
    "min_child_weight": {"type": "int", "low": 1, "high": 10},
    "reg_alpha": {"type": "float", "low": 0.0001, "high": 1.0, "log": True},
    "reg_lambda": {"type": "float", "low": 0.0001, "high": 10.0, "log": True},
}


class Inline:
    async def run(self, function, /, *args, **kwargs):
        return function(*args, **kwargs)


class Forgetful:
    async def save_study(self, result, **details): ...

    async def remember(self, result, **details): ...

    async def similar(self, **query):
        return []


def hill(params, fold):
    distance = (math.log10(params["learning_rate"]) + 1.3) ** 2 + 0.02 * (params["max_depth"] - 6) ** 2
    return 0.85 - 0.05 * distance + 0.004 * math.sin(17 * params["max_depth"] + 5 * fold)


def slow_hill(params, fold):
    time.sleep(0.01)
    return hill(params, fold)


def search(url, name, *, score=hill, n_trials=24, progress=lambda *_: None):
    request = SearchRequest(
        study_name=name,
        experiment_id="exp",
        algorithm="xgboost",
        problem_type="binary_classification",
        metric="roc_auc",
        space=SPACE,
        defaults={"n_estimators": 200, "max_depth": 5, "learning_rate": 0.08},
        folds=3,
        n_trials=n_trials,
        seed=42,
        meta_features={"rows": 1000.0},
        score_fold=score,
    )
    optimizer = OptunaOptimizer(OptunaSettings(storage_url=url), Forgetful())
    return asyncio.run(optimizer.optimize(request, executor=Inline(), progress=progress))


def outline(trials):
    return [(trial.number, trial.state, trial.params, trial.value, trial.intermediate) for trial in trials]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = EmbeddedServer(tmp_path_factory.mktemp("home"))
    yield server
    server.release()


@pytest.fixture(scope="module")
def url(server):
    plain = server.start()
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("create schema if not exists optuna")
    return alchemy(plain)


def alchemy(plain, schema="optuna"):
    address = plain.replace("postgresql://", "postgresql+psycopg://", 1)
    return f"{address}{'&' if '?' in address else '?'}options=-csearch_path%3D{schema}"


def test_a_search_killed_in_the_middle_and_resumed_equals_an_undisturbed_one(url):
    _, undisturbed = search(url, "undisturbed")
    command = [sys.executable, str(Path(__file__).resolve()), url, "disturbed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 16:
                break
        time.sleep(0.015)
        process.send_signal(signal.SIGKILL)
        process.wait()
    seen = []
    result, resumed = search(url, "disturbed", progress=lambda *step: seen.append(step[0]))
    assert 15 <= seen[0] < 24
    assert outline(resumed) == outline(undisturbed)
    assert result.n_complete + result.n_pruned == 24


def test_the_tables_are_in_their_own_schema(url):
    search(url, "schema", n_trials=1)
    plain = url.split("?")[0].replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        rows = connection.execute("select distinct schemaname from pg_tables where tablename like 'trial%'").fetchall()
    assert rows == [("optuna",)]


def test_a_schema_that_does_not_exist_is_named_as_the_fault(server):
    with pytest.raises(BackendRejected, match="schema"):
        search(alchemy(server.start(), "nowhere"), "lost", n_trials=1)


def test_a_server_that_goes_away_stops_the_search_which_goes_on_later(server, url):
    _, undisturbed = search(url, "steady")

    def pull_the_plug(params, fold):
        if not plug and len(done) >= 6:
            plug.append(server.stop())
        return hill(params, fold)

    plug, done = [], []
    with pytest.raises(BackendUnavailable):
        search(url, "unplugged", score=pull_the_plug, progress=lambda *step: done.append(step[0]))
    assert plug
    assert len(done) >= 6
    again = alchemy(server.start())
    assert outline(search(again, "unplugged")[1]) == outline(undisturbed)


if __name__ == "__main__":
    search(sys.argv[1], sys.argv[2], score=slow_hill, progress=lambda done, *_: os.write(1, f"{done}\n".encode()))
