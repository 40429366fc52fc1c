"""A real `mlflow server` on PostgreSQL, and what its trace store shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2i.storage.address import sqlalchemy_url


@contextmanager
def mlflow_server(database_url: str, folder: Path) -> Iterator[str]:
    """Address of a server whose store is in this database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", sqlalchemy_url(database_url, schema="public"), "--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_experiment(uri: str, name: str) -> str:
    """Id of a new experiment."""
    return str(_post(f"{uri}/api/2.0/mlflow/experiments/create", {"name": name})["experiment_id"])


def read_traces(uri: str, experiment: str) -> list[dict[str, Any]]:
    """As a user of MLflow's own client sees them, read in a process of its own: the client is heavy and talks."""
    code = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); import mlflow; mlflow.set_tracking_uri(sys.argv[1])\n"
        "found = mlflow.search_traces(locations=[sys.argv[2]], return_type='list', max_results=100)\n"
        "print(json.dumps([{'id': t.info.trace_id, 'state': str(t.info.state), 'usage': t.info.token_usage, 'meta': t.info.trace_metadata, "
        "'spans': [{'name': s.name, 'type': s.span_type, 'inputs': s.inputs, 'outputs': s.outputs, 'parent': s.parent_id, "
        "'status': str(s.status.status_code)} for s in t.data.spans]} for t in found]))"
    )
    done = subprocess.run([sys.executable, "-c", code, uri, experiment], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
