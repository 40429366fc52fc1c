"""The whole way of a span: emitted to readable in SQL, what an agent call pays for it, callers beside sick sinks, memory at a backlog.

    python benchmarks/bench_pipeline.py [--spans 60000] [--backlog-mb 200]

1. spans per second from the first emission until the last is readable, beside psycopg's COPY of as many rows into the same table
2. a call of an agent with two steps, with tracing to three sinks and without
3. the caller's microseconds while sinks are well, away, or accept and never answer
4. the shipper's memory while it works off a backlog
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg

from bench_span_table import copied, prepared, spans
from bench_spans import LLM, Sink, caller_times, installed
from e2i import bootstrap, config
from e2i.bootstrap.sinks import spool_folder
from e2i.domain.runs import Tier
from e2i.domain.telemetry import SpanRecord
from e2i.engine.graph import Engine
from e2i.engine.hooks import TraceHook
from e2i.engine.spec import AgentSpec
from e2i.telemetry.spool import SpanClass, SpoolSettings, SpoolWriter

LATER = "select exists (select from ml_observability_spans where started_at >= %s)"
WORDS = ["effect", "program", "of", "nrx", "Kisqali", "estimate", "0.31", "and", "HCP", "region", "lift", "because", "interval", "overlap"]


@contextlib.contextmanager
def homes() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="e2i-bench-") as folder:
        home = Path(folder)
        bootstrap.up(config.load(home=home))
        yield home
        bootstrap.down(config.load(home=home))


def url_of(home: Path) -> str:
    from e2i.storage.embedded import EmbeddedServer

    return EmbeddedServer(home).start()


def readable(url: str, where: str = "true") -> int:
    with psycopg.connect(url) as connection:
        return connection.execute(f"select count(*) from ml_observability_spans where {where}").fetchone()[0]  # type: ignore[arg-type, index]


def attributes(index: int, texts: list[tuple[str, str]]) -> dict[str, object]:
    """Of span number `index`: a language model's call whose texts have not been seen before."""
    prompt, answer = texts[index % len(texts)]
    return {**LLM, "input.value": f"{index} {prompt}", "output.value": answer, "e2i.agent.name": "explainer"}


def sustained(home: Path, number: int) -> tuple[float, float]:
    """Readable spans per second of the pipeline, and of COPY of rows with the same attributes."""
    asyncio.run(bootstrap.upgrade_database(config.load(home=home)))
    url = url_of(home)
    chance = random.Random(1)
    texts = [(" ".join(chance.choices(WORDS, k=330)), " ".join(chance.choices(WORDS, k=165))) for _ in range(5000)]
    from e2i.observability.spans import span

    with bootstrap.observing(config.load(home=home)), psycopg.connect(url, autocommit=True) as connection:
        for warm in range(100):
            with span("warm", {"e2i.number": warm}):
                pass
        while readable(url, "name = 'warm'") < 100:
            time.sleep(0.05)
        started = time.perf_counter()
        for index in range(number):
            if index == number - 1:
                last = datetime.now(UTC)
            with span("chat", attributes(index, texts)):
                pass
        emitted = time.perf_counter() - started
        # To count them all again and again would slow down what is measured: a process's spans come in their order, and are counted below.
        while not connection.execute(LATER, [last]).fetchone()[0]:  # type: ignore[index]
            time.sleep(0.02)
        ours = number / (time.perf_counter() - started)
    print(f"  emitted at {number / emitted:,.0f}/s")
    assert readable(url, "name = 'chat'") == number
    now = time.time_ns()
    records = [
        SpanRecord(
            trace_id=secrets.token_hex(16),
            span_id=secrets.token_hex(8),
            parent_span_id=None,
            name="copied",
            started_ns=now + index,
            ended_ns=now + index + 50_000,
            attributes=attributes(index, texts),
        )
        for index in range(max(1000, number // 3))
    ]
    return ours, copied(url, prepared(records), 1000)


@dataclass(frozen=True, kw_only=True)
class State:
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Deps:
    pass


async def first(state: State, deps: Deps) -> State:  # noqa: ARG001
    return State(count=state.count + 1)


async def second(state: State, deps: Deps) -> State:  # noqa: ARG001
    return State(count=state.count + 1)


SPEC = AgentSpec(name="explainer", tier=Tier.SELF_IMPROVEMENT, kind="standard", budget_s=60, steps=[first, second])


async def calls(engine: Engine, number: int) -> list[float]:
    times = []
    for index in range(number):
        started = time.perf_counter()
        await engine.run(SPEC, State(), Deps(), run_id=f"r{index}")
        times.append((time.perf_counter() - started) * 1e3)
    return times


def agent_calls(home: Path, sink: str) -> tuple[float, float]:
    """Median milliseconds of a call without and with tracing to three sinks, in turns."""
    settings = config.load(home=home, observability={"opik": {"endpoint": f"{sink}/api"}, "otlp": {"endpoint": sink}})
    bare, traced = Engine(), Engine([TraceHook()], agent_hooks=[TraceHook()])
    without, with_ = [], []
    with bootstrap.observing(settings):
        asyncio.run(calls(bare, 100))
        asyncio.run(calls(traced, 100))
        for _ in range(5):
            without += asyncio.run(calls(bare, 200))
            with_ += asyncio.run(calls(traced, 200))
    return statistics.median(without), statistics.median(with_)


def works(seconds: float) -> None:
    """What a caller does that is not asleep."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(2000))


def paced(system: str, rests: Callable[[float], None]) -> str:
    """The caller's microseconds of an LLM span at up to 1,000 spans/s in bursts of 100; between them it `rests`."""
    caller_times(system, "llm", 500, is_async=False)
    times: list[float] = []
    for _ in range(60):
        times += caller_times(system, "llm", 100, is_async=False)
        rests(0.1)
    return told(times)


def told(times: list[float]) -> str:
    times.sort()
    return f"p50 {times[len(times) // 2]:.1f} us, p99 {times[int(len(times) * 0.99)]:.1f} us"


def three_ways(system: str) -> str:
    unpaused = told(caller_times(system, "llm", 60_000, is_async=False))
    return f"asleep between bursts: {paced(system, time.sleep)}; at work between them: {paced(system, works)}; without a pause: {unpaused}"


def beside_sinks(home: Path, endpoint: str) -> str:
    """As `three_ways`, with Opik and OTLP sinks at `endpoint`."""
    settings = config.load(home=home, observability={"opik": {"endpoint": f"{endpoint}/api"}, "otlp": {"endpoint": endpoint}})
    with bootstrap.observing(settings):
        return three_ways("e2i_span")


def bare() -> str:
    """The SDK alone, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--bare"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def callers(home: Path, sink: str) -> None:
    print(f"caller, bare SDK with an in-memory exporter, no sinks: {bare()}")
    with black_hole() as hole:
        for name, endpoint in (("well", sink), ("away", "http://127.0.0.1:9"), ("silent", hole)):
            print(f"caller, sinks {name}: {beside_sinks(home, endpoint)} (target 150)")


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Accepts and never answers."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listening.accept()[0])

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    for connection in taken:
        connection.close()


def backlog(home: Path, megabytes: int, sink: str) -> tuple[int, float]:
    """The shipper's largest resident size in MB while it works off `megabytes` of spans, and the seconds that took."""
    settings = config.load(home=home, observability={"opik": {"endpoint": f"{sink}/api"}, "otlp": {"endpoint": sink}})
    folder = spool_folder(settings)
    from e2i.telemetry.frames import encode

    writer, written, count = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 30, segment_bytes=8 << 20)), 0, 0
    records = spans(2000, seed=3, has_text=True)
    while written < megabytes * 1_000_000:
        payload = encode(replace(records[count % 2000], span_id=secrets.token_hex(8), name="backlog"))
        writer.write(payload, SpanClass.KEPT)
        written, count = written + len(payload), count + 1
    writer.close()
    before = readable(url_of(home))
    started = time.perf_counter()
    import json

    process = subprocess.Popen(
        [sys.executable, "-m", "e2i", "trace", "ship", "--settings-on-stdin"], stdin=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config.as_arguments(settings)) + "\n")
    process.stdin.flush()
    watched, largest = psutil.Process(process.pid), 0
    while readable(url_of(home)) - before < count:
        largest = max(largest, watched.memory_info().rss)
        time.sleep(0.2)
    seconds = time.perf_counter() - started
    process.stdin.close()
    process.wait(30)
    print(f"  {count:,} spans, {count / seconds:,.0f}/s into PostgreSQL with two sinks beside it")
    return largest // 1_000_000, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=60_000)
    parser.add_argument("--backlog-mb", type=int, default=200)
    parser.add_argument("--sustained-only", action="store_true")
    parser.add_argument("--callers-only", action="store_true")
    parser.add_argument("--bare", action="store_true")
    asked = parser.parse_args()
    sink = Sink()
    if asked.bare:
        with installed("otel_memory", Path(), sink):
            print(three_ways("otel_memory"))
        return
    with homes() as home:
        if asked.callers_only:
            callers(home, sink.address)
            return
        ours, copy = sustained(home, asked.spans)
        print(f"emitted to readable: {ours:,.0f} spans/s, COPY alone {copy:,.0f}/s, ratio {ours / copy:.2f} (target 0.5)")
        if asked.sustained_only:
            return
        bare, traced = agent_calls(home, sink.address)
        print(f"agent call: {bare:.2f} ms bare, {traced:.2f} ms with three sinks, overhead {traced - bare:.2f} ms (target below 1 ms)")
        callers(home, sink.address)
        largest, seconds = backlog(home, asked.backlog_mb, sink.address)
        print(f"shipper at a backlog of {asked.backlog_mb} MB: {largest} MB resident (target 100), worked off in {seconds:.0f} s")


if __name__ == "__main__":
    main()
