"""MLflow behind HTTP: killed in the middle of a run, started again; refusing; failing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import fitted
import numpy as np
import pytest
from tracking_server import TrackingServer

from e2i.errors import BackendRejected, BackendUnavailable
from e2i.mlops.circuit_breaker import BreakerSettings, State
from e2i.mlops.mlflow_connector import MLflowConnector
from e2i.mlops.mlflow_errors import AccessRefused
from e2i.mlops.mlflow_operations import TARGET
from e2i.mlops.model_store import NativeModelStore
from e2i.ports.models import TrialRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from contracts.sqlite_outbox import SqliteOutbox
    from e2i.mlops.mlflow_connector import MlflowSettings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    running = TrackingServer(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.kill()


async def test_a_server_killed_in_the_middle_of_a_run_gets_everything_once_when_it_is_back(
    server: TrackingServer, settings: MlflowSettings, outbox: SqliteOutbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = replace(settings, tracking_uri=server.uri, artifact_location=None)
    connector = MLflowConnector(there, outbox)
    experiment, name = f"e2i_model_trainer_{uuid.uuid4().hex[:8]}", f"e2i_killed_{uuid.uuid4().hex[:8]}"
    plot = tmp_path / "roc.txt"
    plot.write_text("curve")
    trial = TrialRecord(number=0, state="COMPLETE", params={"a": 1}, value=0.5, intermediate={}, started_ms=1, finished_ms=2)
    async with connector.start_run(experiment_name=experiment, run_name="r") as run:
        await run.log_params({"hp_max_depth": 6})
        await run.log_metrics({"loss": 1.0}, step=0)
        before = run.run_id
        assert before is not None
        server.kill()
        began = time.perf_counter()
        await run.log_metrics({"loss": 0.5}, step=1)
        await run.log_artifact(plot, "curves")
        assert await run.log_model(fitted.model(), "model", example=fitted.frame()) is None
        await connector.log_trials(run, [trial])
        await run.log_metrics({"roc_auc": 0.8})
    assert await connector.register_model(name=name, run=run, model_uri=None, tags={}) is None
    assert time.perf_counter() - began < 10
    assert connector.breaker.state is State.OPEN
    assert (await outbox.counts(TARGET))["pending"] == 7
    server.start()
    later = MLflowConnector(there, outbox)
    delivery = await later.drain()
    assert (delivery.delivered, delivery.refused, delivery.errors) == (7, [], {})
    await later.drain()
    runs = await later.search_runs(experiment)
    assert sorted(item["key"] for item in runs) == sorted([run.key, f"{run.key}/trial/0"])
    (logged,) = [item for item in runs if item["key"] == run.key]
    assert (logged["run_id"], logged["status"]) == (before, "FINISHED")
    assert logged["metrics"] == {"loss": 0.5, "roc_auc": 0.8}
    client = await later.repeat("looking", lambda operations: operations.client)
    assert [(point.step, point.value) for point in client.get_metric_history(before, "loss")] == [(0, 1.0), (1, 0.5)]
    assert [file.path for file in client.list_artifacts(before, "curves")] == ["curves/roc.txt"]
    version = await later.get_latest_model_version(name)
    assert version is not None
    assert version.version == "1"
    uri = (await outbox.results(TARGET, run.key))["model_uri"]
    assert version.digest is not None
    loaded = NativeModelStore().load_registered(version.digest, str(await later.download_model(uri, tmp_path / "fetched")))
    np.testing.assert_array_equal(loaded.predict(fitted.frame()), fitted.model().predict(fitted.frame()))
    assert capsys.readouterr().out == ""  # standard output belongs to `--json`


async def test_a_connector_finds_the_server_again_by_itself_when_its_breaker_lets_it_look(
    server: TrackingServer, settings: MlflowSettings, outbox: SqliteOutbox
) -> None:
    soon = BreakerSettings(reset_timeout_s=0.05)
    connector = MLflowConnector(replace(settings, tracking_uri="http://127.0.0.1:1", breaker=soon), outbox)
    experiment = f"e2i_model_trainer_{uuid.uuid4().hex[:8]}"
    async with connector.start_run(experiment_name=experiment, run_name="r") as run:
        for step in range(6):
            await run.log_metrics({"loss": 1.0}, step=step)
        assert connector.breaker.state in (State.OPEN, State.HALF_OPEN)
        assert run.run_id is None
        connector.settings = replace(connector.settings, tracking_uri=server.uri, artifact_location=None)
        await asyncio.sleep(0.1)
        await run.log_metrics({"loss": 0.5}, step=6)
        assert run.run_id is not None
    assert connector.breaker.state is State.CLOSED
    assert (await outbox.counts(TARGET))["pending"] == 0


@contextmanager
def answering(status: int, code: str, *, delay_s: float = 0.0) -> Iterator[str]:
    """A server that says the same to everything, in MLflow's words."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay_s)
            body = json.dumps({"error_code": code, "message": f"this server says {code}"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "UNAUTHENTICATED", AccessRefused),
        (403, "PERMISSION_DENIED", AccessRefused),
        (404, "ENDPOINT_NOT_FOUND", AccessRefused),
        (400, "INVALID_PARAMETER_VALUE", BackendRejected),
        (429, "REQUEST_LIMIT_EXCEEDED", BackendUnavailable),
        (500, "INTERNAL_ERROR", BackendUnavailable),
        (503, "TEMPORARILY_UNAVAILABLE", BackendUnavailable),
    ],
)
async def test_what_a_server_answers_has_one_meaning_each(
    settings: MlflowSettings, outbox: SqliteOutbox, status: int, code: str, kind: type[Exception]
) -> None:
    with answering(status, code) as uri:
        connector = MLflowConnector(replace(settings, tracking_uri=uri), outbox)
        with pytest.raises(kind) as refusal:
            await connector.search_runs("e2i_x")
    assert type(refusal.value) is kind
    assert "MLflow" in str(refusal.value)
    assert refusal.value.__cause__ is not None


async def test_messages_for_a_server_that_refuses_us_wait_until_the_password_is_right(
    server: TrackingServer, settings: MlflowSettings, outbox: SqliteOutbox
) -> None:
    experiment = f"e2i_model_trainer_{uuid.uuid4().hex[:8]}"
    with answering(401, "UNAUTHENTICATED") as uri:
        locked = MLflowConnector(replace(settings, tracking_uri=uri), outbox)
        with pytest.raises(AccessRefused, match="MLFLOW_TRACKING_TOKEN"):
            async with locked.start_run(experiment_name=experiment, run_name="r"):
                pass
    assert await outbox.counts(TARGET) == {"pending": 1, "delivered": 0, "quarantined": 0}
    opened = MLflowConnector(replace(settings, tracking_uri=server.uri, artifact_location=None), outbox)
    assert (await opened.drain()).delivered == 1
    assert len(await opened.search_runs(experiment)) == 1


async def test_a_server_that_hangs_is_cut_off_and_held_away_from(settings: MlflowSettings, outbox: SqliteOutbox) -> None:
    with answering(200, "SLOW", delay_s=0.6) as uri:
        breaker = BreakerSettings(failure_threshold=2)
        connector = MLflowConnector(replace(settings, tracking_uri=uri, request_timeout=0.2, breaker=breaker), outbox)
        async with connector.start_run(experiment_name="e2i_x", run_name="r") as run:
            began = time.perf_counter()
            for step in range(10):
                await run.log_metrics({"loss": 1.0}, step=step)
            assert time.perf_counter() - began < 4
        await asyncio.sleep(0.7)
    assert connector.breaker.report().times_opened == 1
    assert (await outbox.counts(TARGET))["pending"] == 12
