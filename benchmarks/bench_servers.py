"""From emitted to readable: E2I beside MLflow's server, the same LLM spans (3 KB of text), in turns, each on a PostgreSQL of its own.

    python benchmarks/bench_servers.py [--turns 3] [--spans 20000] [--peer-spans 2000] [--workers 4]

E2I: from the first span's end in a program until the last row can be selected. MLflow: OTLP batches of 100 straight to `mlflow server`
with its default of four workers, four requests at a time, from the first request until all spans are in its table; what its clients
cost is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bench_pipeline import WORDS, homes, sustained, url_of
from bench_spans import LLM
from e2i.domain.telemetry import SpanRecord
from e2i.errors import BackendUnavailable
from e2i.storage.address import sqlalchemy_url
from e2i.telemetry.sinks.mlflow import MlflowExporter

AT_ONCE = 4
BATCH = 100


@contextlib.contextmanager
def mlflow_server(database: str, workers: int) -> Iterator[str]:
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        command += ["--backend-store-uri", sqlalchemy_url(database, schema="public"), "--artifacts-destination", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=folder)
        try:
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
                if process.poll() is not None:
                    raise SystemExit("mlflow server ended at its start")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def llm_spans(number: int, per_trace: int) -> list[SpanRecord]:
    """A root and its calls of a model, `per_trace` together."""
    chance, made, now = random.Random(2), [], time.time_ns()
    for index in range(number):
        if index % per_trace == 0:
            trace, root = secrets.token_hex(16), secrets.token_hex(8)
        text = {"input.value": " ".join(chance.choices(WORDS, k=330)), "output.value": " ".join(chance.choices(WORDS, k=165))}
        span = root if index % per_trace == 0 else secrets.token_hex(8)
        parent = None if span == root else root
        made.append(
            SpanRecord(
                trace_id=trace,
                span_id=span,
                parent_span_id=parent,
                name="chat",
                started_ns=now + index,
                ended_ns=now + index + 1_000_000,
                status="ok",
                attributes={**LLM, **text},
            )
        )
    return made


async def sent(uri: str, spans: list[SpanRecord]) -> None:
    exporter = MlflowExporter(uri, experiment="bench", batch_size=BATCH, timeout_s=120.0)

    async def deliver(some: list[SpanRecord]) -> None:
        """Its workers come up one after the other, and drop a connection now and then; the same span again is the same row."""
        for attempt in range(30):
            try:
                await exporter.send(some)
            except BackendUnavailable:
                await asyncio.sleep(0.2 * attempt)
            else:
                return
        raise SystemExit("mlflow server takes no spans")

    await deliver(spans[:1])
    gate = asyncio.Semaphore(AT_ONCE)

    async def send(at: int) -> None:
        async with gate:
            await deliver(spans[at : at + BATCH])

    await asyncio.gather(*(send(at) for at in range(1, len(spans), BATCH)))
    await exporter.close()


def mlflow_rate(home: Path, number: int, per_trace: int, *, workers: int) -> float:
    """Spans per second that `mlflow server` makes readable."""
    name = f"mlflow_{secrets.token_hex(3)}"
    with psycopg.connect(url_of(home), autocommit=True) as connection:
        connection.execute(f"create database {name}")  # type: ignore[arg-type]
    head, _, _ = url_of(home).rpartition("/")
    database = f"{head}/{name}"
    with mlflow_server(database, workers) as uri:
        asyncio.run(sent(uri, llm_spans(1 + BATCH * AT_ONCE, per_trace)))  # its workers load their libraries on the first
        spans = llm_spans(1 + number, per_trace)
        with psycopg.connect(database, autocommit=True) as connection:
            count = "select count(*) from spans"
            before = connection.execute(count).fetchone()[0]  # type: ignore[index]
            started = time.perf_counter()
            asyncio.run(sent(uri, spans))
            while connection.execute(count).fetchone()[0] < before + len(spans):  # type: ignore[index]
                time.sleep(0.05)
            return len(spans) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--spans", type=int, default=20_000)
    parser.add_argument("--peer-spans", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=4, help="of mlflow server; on a busy machine several kill each other, take 1")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {"E2I": [], "COPY alone": [], "MLflow, 1 span a trace": [], "MLflow, 10 spans a trace": []}
    for _ in range(asked.turns):
        with homes() as home:
            ours, copy = sustained(home, asked.spans)
            found["E2I"].append(ours)
            found["COPY alone"].append(copy)
            found["MLflow, 1 span a trace"].append(mlflow_rate(home, asked.peer_spans, 1, workers=asked.workers))
            found["MLflow, 10 spans a trace"].append(mlflow_rate(home, asked.peer_spans, 10, workers=asked.workers))
    for name, rates in found.items():
        ratio = statistics.median(ours / rate for ours, rate in zip(found["E2I"], rates, strict=True))
        print(f"{name:<26} {statistics.median(rates):>9,.0f} spans/s   E2I is {ratio:6.2f} x as fast")


if __name__ == "__main__":
    main()
