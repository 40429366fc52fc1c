"""What a span costs its caller, and how many a burst loses: E2I beside the bare OpenTelemetry SDK, Opik's SDK and MLflow's tracing.

Every system runs in a process of its own, all in one run, in turns; sinks of the peers are local servers that answer at once.

    python benchmarks/bench_spans.py                 # three rounds
    python benchmarks/bench_spans.py --rounds 5 --spans 20000 --burst 100000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_QUESTION = "Explain why NRx of Kisqali fell in the Northeast in week 2024-05-03 although calls rose by 12 % and access was stable. "
_ANSWER = "Calls moved to lower deciles, so that the mix of prescribers explains 61 % of the fall; access explains none of it. "
PROMPT, COMPLETION = (_QUESTION * 20)[:2048], (_ANSWER * 10)[:1024]
AGENT = {
    "e2i.agent.name": "gap_analyzer",
    "e2i.agent.tier": "causal_analytics",
    "e2i.operation.type": "agent",
    "e2i.run.id": "run_20261121T101500_4f2a1c",
    "e2i.study": "speaker_program_lift",
    "e2i.brand": "Kisqali",
    "e2i.step.attempt": 1,
    "e2i.rows": 11400,
    "e2i.share": 0.61,
    "e2i.is_resumed": False,
}
LLM = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.usage.input_tokens": 512,
    "gen_ai.usage.output_tokens": 256,
    "e2i.cost.usd": 0.0054,
    "input.value": PROMPT,
    "output.value": COMPLETION,
}
KINDS = {"agent": AGENT, "llm": LLM}
SYSTEMS = ("otel_memory", "e2i_otel", "e2i_span", "e2i_opik_connector", "otel_batch_otlp", "opik_sdk", "opik_track", "mlflow")
SLOW = ("opik_sdk", "opik_track", "mlflow")
BURST = ("e2i_otel", "otel_batch_otlp")


class Sink(ThreadingHTTPServer):
    """Answers every request at once and counts OTLP spans."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.spans = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.endswith("/v1/traces"):
            import gzip

            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            self.server.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_PUT = do_PATCH = do_POST  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def otel(processor: Callable[[], object]):
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    provider.add_span_processor(processor())
    yield provider
    provider.shutdown()


def caller_times(system: str, kind: str, count: int, *, is_async: bool) -> list[float]:
    """Microseconds of each span, begin to end, on its caller's thread."""
    if system == "e2i_opik_connector":
        return asyncio.run(_timed_async(_connector_span(kind), count))
    once = {"e2i_span": _e2i_span, "opik_sdk": _opik_span, "opik_track": _opik_track, "mlflow": _mlflow_span}.get(system, _otel_span)(kind)
    if is_async:

        async def once_in_a_task() -> None:
            once()

        return asyncio.run(_timed_async(once_in_a_task, count))
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        once()
        times.append((time.perf_counter_ns() - started) / 1e3)
    return times


def _otel_span(kind: str) -> Callable[[], None]:
    from opentelemetry import trace

    tracer, attributes = trace.get_tracer("bench"), KINDS[kind]

    def once() -> None:
        with tracer.start_as_current_span("work", attributes=attributes):
            pass

    return once


def _e2i_span(kind: str) -> Callable[[], None]:
    from e2i.observability.spans import span

    attributes = KINDS[kind]

    def once() -> None:
        with span("work", attributes):
            pass

    return once


def _connector_span(kind: str) -> Callable[[], object]:
    from e2i.mlops.opik_connector import get_opik_connector

    connector = get_opik_connector()

    async def agent() -> None:
        async with connector.trace_agent("gap_analyzer", "estimate", agent_tier="causal_analytics"):
            pass

    async def llm() -> None:
        async with connector.trace_llm_call("claude-sonnet-4-5", prompt=PROMPT) as call:
            call.log_llm_response(COMPLETION, input_tokens=512, output_tokens=256, total_cost=0.0054)

    return agent if kind == "agent" else llm


def _opik_span(kind: str) -> Callable[[], None]:
    import opik

    client = opik.Opik()

    def once() -> None:
        trace = client.trace(name="work", input={"prompt": PROMPT} if kind == "llm" else None, metadata=AGENT)
        trace.end(output={"completion": COMPLETION} if kind == "llm" else None)

    return once


def _opik_track(kind: str) -> Callable[[], None]:
    import opik

    @opik.track(name="work", metadata=AGENT)
    def work(prompt: str) -> str:
        return COMPLETION if prompt else ""

    prompt = PROMPT if kind == "llm" else ""

    def once() -> None:
        work(prompt)

    return once


def _mlflow_span(kind: str) -> Callable[[], None]:
    import mlflow

    attributes = KINDS[kind]

    def once() -> None:
        with mlflow.start_span("work", attributes=attributes) as span:
            if kind == "llm":
                span.set_inputs({"prompt": PROMPT})
                span.set_outputs({"completion": COMPLETION})

    return once


async def _timed_async(once: Callable[[], object], count: int) -> list[float]:
    times = []
    for index in range(count):
        started = time.perf_counter_ns()
        await once()
        times.append((time.perf_counter_ns() - started) / 1e3)
        if index % 100 == 0:
            await asyncio.sleep(0)
    return times


@contextmanager
def installed(system: str, folder: Path, sink: Sink):
    """The system as its documentation says to set it up."""
    if system == "otel_memory":
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        with otel(lambda: SimpleSpanProcessor(InMemorySpanExporter())) as provider:
            trace.set_tracer_provider(provider)
            yield
    elif system == "otel_batch_otlp":
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        with otel(lambda: BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink.address}/v1/traces"))) as provider:
            trace.set_tracer_provider(provider)
            yield
    elif system.startswith("e2i"):
        from e2i import bootstrap, config

        settings = config.load(home=folder)
        with bootstrap.observing(settings, deliver=False):
            yield
    elif system in ("opik_sdk", "opik_track"):
        os.environ |= {"OPIK_URL_OVERRIDE": f"{sink.address}/api", "OPIK_SENTRY_ENABLE": "false", "OPIK_ANALYTICS_ENABLE": "false"}
        yield
    else:
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment("bench")
        yield


def measure(system: str, spans: int, burst: int) -> dict[str, object]:
    """One process's part."""
    sink = Sink()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), installed(system, Path(folder), sink):
        count = spans if system not in SLOW else min(spans, 1000)
        for kind in KINDS:
            for mode in ("sync", "async"):
                caller_times(system, kind, 200, is_async=mode == "async")
                times = sorted(caller_times(system, kind, count, is_async=mode == "async"))
                found[f"{kind}/{mode}"] = {"p50": times[count // 2], "p99": times[int(count * 0.99)], "max": times[-1]}
        if system in BURST and burst:
            found["burst"] = _burst(system, Path(folder), sink, burst)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if system in SLOW:
            os._exit(0)  # their queues take minutes to drain
    return found


def _burst(system: str, folder: Path, sink: Sink, burst: int) -> dict[str, float]:
    from opentelemetry import trace

    before = _kept(system, folder, sink)
    started = time.perf_counter()
    caller_times(system, "llm", burst, is_async=False)
    seconds = time.perf_counter() - started
    trace.get_tracer_provider().force_flush()
    return {"lost": burst - (_kept(system, folder, sink) - before), "seconds": seconds}


def _kept(system: str, folder: Path, sink: Sink) -> int:
    if system == "otel_batch_otlp":
        from opentelemetry import trace

        trace.get_tracer_provider().force_flush()
        return sink.spans
    from e2i.telemetry.reader import Position, SpoolReader

    reader, found = SpoolReader(folder / "spool"), 0
    for stream in reader.streams():
        position = Position()
        while True:
            chunk = reader.read(stream.name, position, max_frames=5000, max_bytes=1 << 24)
            found += len(chunk.frames)
            if chunk.position == position:
                break
            position = chunk.position
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spans", type=int, default=5000)
    parser.add_argument("--burst", type=int, default=100_000)
    parser.add_argument("--system")
    asked = parser.parse_args()
    if asked.system:
        measure(asked.system, asked.spans, asked.burst)
        return
    rounds: list[dict[str, dict]] = []
    for number in range(asked.rounds):
        found = {}
        for system in SYSTEMS:
            command = [sys.executable, str(Path(__file__).resolve()), "--system", system, "--spans", str(asked.spans)]
            command += ["--burst", str(asked.burst if number == 0 else 0)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode != 0 or not done.stdout:
                raise SystemExit(f"{system}: {done.stderr[-2000:]}")
            found[system] = json.loads(done.stdout.splitlines()[-1])
        rounds.append(found)
    report(rounds)


def report(rounds: list[dict[str, dict]]) -> None:
    modes = [f"{kind}/{mode}" for kind in KINDS for mode in ("sync", "async")]
    print(f"{'caller, us: p50 (x bare SDK) p99':<20}" + "".join(f"{mode:>28}" for mode in modes))
    for system in SYSTEMS:
        cells = []
        for mode in modes:
            p50 = statistics.median(found[system][mode]["p50"] for found in rounds)
            p99 = statistics.median(found[system][mode]["p99"] for found in rounds)
            ratio = statistics.median(found[system][mode]["p50"] / found["otel_memory"][mode]["p50"] for found in rounds)
            cells.append(f"{p50:8.1f} ({ratio:5.2f}) {p99:9.1f}")
        print(f"{system:<20}" + "".join(f"{cell:>28}" for cell in cells))
    for system in BURST:
        if "burst" in rounds[0][system]:
            print(f"burst, {system}: {rounds[0][system]['burst']['lost']} lost, {rounds[0][system]['burst']['seconds']:.1f} s")


if __name__ == "__main__":
    main()
