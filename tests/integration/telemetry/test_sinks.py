"""The exporters against servers that speak the real protocols: healthy, sick in every way, and well again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from mlflow_traces import make_experiment, mlflow_server, read_traces

from e2i.domain.telemetry import SpanEvent, SpanLink, SpanRecord
from e2i.errors import BackendRejected, BackendUnavailable
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker
from e2i.telemetry.account import accounts
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.frames import encode
from e2i.telemetry.ids import span_uuid, trace_uuid
from e2i.telemetry.layout import SpanClass
from e2i.telemetry.shipper import Route, Shipper, ShipperSettings, run_shipper
from e2i.telemetry.sink import Busy, Exporter, Faulty, ForeignSink
from e2i.telemetry.sinks.http import retry_after_s
from e2i.telemetry.sinks.opik import OpikExporter
from e2i.telemetry.sinks.otlp import OtlpExporter
from e2i.telemetry.sinks.postgres import PostgresSink
from e2i.telemetry.spool import SpoolSettings, SpoolWriter
from opik_server import Mode, OpikServer
from otlp_server import OtlpServer

if TYPE_CHECKING:
    from pathlib import Path

    from e2i.storage.postgres import Database

SETTINGS = ShipperSettings(
    max_bytes=1 << 28, retry_delay_s=0.02, max_delay_s=0.1, poll_s=0.01, max_wait_s=0.02, drain_s=2.0, call_timeout_s=5.0
)
QUICK = BreakerSettings(reset_timeout_s=0.05, maximum_backoff=2.0)
START_NS = 1_800_000_000_123_456_789


def llm_span(number: int, **fields: Any) -> SpanRecord:
    """One span of a trace of its own unless told otherwise."""
    given = SpanRecord(
        trace_id=f"{number + 1:032x}",
        span_id=f"{number + 1:016x}",
        parent_span_id=None,
        name="chat",
        started_ns=START_NS + number * 1000,
        ended_ns=START_NS + number * 1000 + 2_500_000,
        status="ok",
        kind="client",
        scope="e2i.llm",
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-opus-4-5",
            "gen_ai.usage.input_tokens": 11,
            "gen_ai.usage.output_tokens": 7,
            "e2i.cost.usd": 0.0125,
            "e2i.tags": ["kisqali", "northeast"],
            "session.id": "session-7",
            "input.value": "Why is Northeast down?",
            "output.value": '{"answer": "access", "größe": 1}',
        },
    )
    return replace(given, **fields)


@dataclass
class Pair:
    """An exporter and the server it talks to."""

    exporter: Exporter
    server: OpikServer | OtlpServer
    arrived: Callable[[], int]
    """distinct spans"""


@pytest.fixture(params=["opik", "otlp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "opik":
        with OpikServer() as opik:
            yield Pair(OpikExporter(opik.endpoint, project_name="p", timeout_s=0.4), opik, lambda: len(opik.spans))
    else:
        with OtlpServer() as otlp:
            yield Pair(OtlpExporter(f"{otlp.url}/v1/traces", timeout_s=0.4), otlp, lambda: len(otlp.spans))


@dataclass
class Spool:
    """A spool in real time."""

    folder: Path
    emitted: int = 0

    def __post_init__(self) -> None:
        self.writer = SpoolWriter(SpoolSettings(folder=self.folder, max_bytes=1 << 28, segment_bytes=1 << 20))

    def emit(self, spans: int, **fields: Any) -> None:
        for _ in range(spans):
            assert self.writer.write(encode(llm_span(self.emitted, **fields)), SpanClass.KEPT)
            self.emitted += 1

    def shipper(self, exporter: Exporter) -> Shipper:
        route = Route(sink=ForeignSink(exporter, CursorFile(self.folder, exporter.name)), breaker=CircuitBreaker(exporter.name, QUICK))
        return Shipper(self.folder, [route], SETTINGS)

    async def account(self, name: str) -> Any:
        (found,) = await accounts(self.folder, [name])
        assert found.unexplained == 0
        assert found.emitted == self.emitted
        return found


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.writer.close()


async def ship(shipper: Shipper, name: str, *, until: Callable[[], bool], within_s: float = 20.0) -> None:
    """Step in real time until the claim holds."""
    deadline = time.monotonic() + within_s
    while not until():
        assert time.monotonic() < deadline, shipper.delivery(name).last_error
        round_ = await shipper.step(name)
        await asyncio.sleep(min(round_.wait_s, 0.05))


async def test_spans_arrive_once_and_are_what_was_sent(pair: Pair, spool: Spool) -> None:
    spool.emit(350)
    async with spool.shipper(pair.exporter) as shipper:
        await ship(shipper, pair.exporter.name, until=lambda: pair.arrived() == 350)
        assert pair.server.received == 350
        while (await spool.account(pair.exporter.name)).in_spool:
            await shipper.step(pair.exporter.name)
    assert (await spool.account(pair.exporter.name)).delivered == 350
    assert all(request.headers["content-encoding"] == "gzip" for request in pair.server.requests if len(request.body) > 1024)


@pytest.mark.parametrize("mode", [Mode.SLOW, Mode.BUSY, Mode.FAILING, Mode.BLACK_HOLE, Mode.GARBAGE, Mode.UNAUTHORIZED, Mode.MOVED, None])
async def test_a_sick_server_loses_nothing_and_throws_nothing_away(pair: Pair, spool: Spool, mode: Mode | None) -> None:
    name = pair.exporter.name
    pair.server.retry_after = "0.2"
    async with spool.shipper(pair.exporter) as shipper:
        spool.emit(150)
        await ship(shipper, name, until=lambda: pair.arrived() == 150)
        if mode is None:
            pair.server.stop()
        else:
            pair.server.mode = mode
        spool.emit(250)
        rounds = 0

        def enough() -> bool:
            nonlocal rounds
            rounds += 1
            return rounds > 12

        await ship(shipper, name, until=enough)
        if mode is not Mode.SLOW:
            assert pair.arrived() == 150
            assert shipper.delivery(name).last_error
        assert (await spool.account(name)).dropped == {}
        if mode is None:
            pair.server.start()
        pair.server.mode = Mode.HEALTHY
        await ship(shipper, name, until=lambda: pair.arrived() == 400)
        await ship(shipper, name, until=lambda: shipper.delivery(name).last_error is None)
    account = await spool.account(name)
    assert (account.delivered, account.in_spool, account.dropped) == (400, 0, {})


@pytest.mark.parametrize("mode", [Mode.FAILING, Mode.BLACK_HOLE, None])
async def test_a_server_that_is_away_is_left_alone_while_the_breaker_is_open(pair: Pair, spool: Spool, mode: Mode | None) -> None:
    """Five failures open it, whatever else the shipper does between them; then nothing is sent until it is time."""
    if mode is None:
        pair.server.stop()
    else:
        pair.server.mode = mode
    spool.emit(30)
    breaker = CircuitBreaker("sick", BreakerSettings(failure_threshold=5, reset_timeout_s=600, call_timeout_s=0.5))
    sink = ForeignSink(pair.exporter, CursorFile(spool.folder, pair.exporter.name))
    async with Shipper(spool.folder, [Route(sink=sink, breaker=breaker)], SETTINGS) as shipper:
        await ship(shipper, pair.exporter.name, until=lambda: breaker.state == "open")
        asked = len(pair.server.requests)
        for _ in range(10):
            await shipper.step(pair.exporter.name)
            await asyncio.sleep(0.02)
        assert len(pair.server.requests) == asked
    if mode is None:
        pair.server.start()


@pytest.mark.parametrize("status", [400, 413, 422, 500])
async def test_a_record_that_a_server_does_not_take_is_put_aside_alone(pair: Pair, spool: Spool, status: int) -> None:
    pair.server.poison, pair.server.poison_status = "poison", status
    spool.emit(70)
    spool.emit(1, name="poison")
    spool.emit(180)
    async with spool.shipper(pair.exporter) as shipper:
        await ship(shipper, pair.exporter.name, until=lambda: pair.arrived() == 250)
        while (await spool.account(pair.exporter.name)).in_spool:
            await shipper.step(pair.exporter.name)
    account = await spool.account(pair.exporter.name)
    assert (account.delivered, account.dropped) == (250, {"quarantined": 1})
    assert "not welcome" in (spool.folder / "quarantine" / f"{pair.exporter.name}.jsonl").read_text()


async def test_what_a_partial_success_refuses_is_counted_and_not_sent_again(spool: Spool) -> None:
    with OtlpServer(refuses_in_part=True, poison="poison") as server:
        exporter = OtlpExporter(f"{server.url}/v1/traces")
        spool.emit(10)
        spool.emit(3, name="poison")
        spool.emit(10)
        async with spool.shipper(exporter) as shipper:
            await ship(shipper, "otlp", until=lambda: len(server.spans) == 20)
            await shipper.step("otlp")
        assert len(server.requests) == 1
    account = await spool.account("otlp")
    assert (account.delivered, account.dropped) == (20, {"rejected": 3})


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        (Mode.BUSY, Busy, "429"),
        (Mode.FAILING, Faulty, "500"),
        (Mode.UNAUTHORIZED, BackendUnavailable, "Check the key"),
        (Mode.MOVED, BackendUnavailable, "Check the address"),
        (Mode.GARBAGE, BackendUnavailable, "something else may be listening"),
        (Mode.BLACK_HOLE, BackendUnavailable, "no answer"),
    ],
)
async def test_each_answer_is_told_as_what_it_is(pair: Pair, mode: Mode, kind: type[Exception], words: str) -> None:
    pair.server.mode = mode
    with pytest.raises(kind, match=words) as caught:
        await pair.exporter.send([llm_span(1)])
    assert not isinstance(caught.value, BackendRejected)
    assert str(pair.server.port) in str(caught.value)
    await pair.exporter.close()


async def test_an_address_that_is_none_is_no_records_fault() -> None:
    for url in ("http://127.0.0.1:1", "nonsense", "http://[::1", "ftp://127.0.0.1/x", "http://no-such-host.invalid"):
        exporter = OtlpExporter(url, timeout_s=1.0)
        with pytest.raises(BackendUnavailable, match=r"no answer|no http address"):
            await exporter.send([llm_span(1)])
        await exporter.close()


async def test_an_answer_without_end_is_cut() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except OSError:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    exporter = OtlpExporter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces")
    with pytest.raises(BackendUnavailable, match="not one that this service gives"):
        await exporter.send([llm_span(1)])
    await exporter.close()
    server.close()


def test_retry_after_is_seconds_or_a_date_and_has_a_limit() -> None:
    now = 1_800_000_000.0
    assert retry_after_s("12", now) == 12
    assert retry_after_s("0.5", now) == 0.5
    assert retry_after_s("Fri, 15 Jan 2027 08:00:30 GMT", now) == pytest.approx(30)
    assert retry_after_s("Fri, 15 Jan 2021 08:00:30 GMT", now) == 0
    assert retry_after_s("999999999", now) == 300
    for text in (None, "", "soon", "nan", "-5"):
        assert retry_after_s(text, now) == 0


TRACE = "0197f0a1b2c37def8123456789abcdef"


def conversation() -> list[SpanRecord]:
    """A root, its failed tool, a metric and a piece of feedback; children first, as they end."""
    failed = SpanEvent(
        name="exception",
        at_ns=START_NS + 5,
        attributes={"exception.type": "ValueError", "exception.message": "no rows", "exception.stacktrace": "Traceback …"},
    )
    return [
        llm_span(1, trace_id=TRACE, span_id="00000000000000c1", parent_span_id="00000000000000a0"),
        llm_span(
            2,
            trace_id=TRACE,
            span_id="00000000000000c2",
            parent_span_id="00000000000000a0",
            name="query",
            status="error",
            attributes={"e2i.operation.type": "tool", "input.value": "select 1", "rows": [1, 2], "none": None},
            events=(failed,),
            links=(SpanLink(trace_id="f" * 32, span_id="e" * 16),),
        ),
        llm_span(
            3,
            trace_id=TRACE,
            span_id="00000000000000c3",
            parent_span_id="00000000000000c1",
            name="metric faithfulness",
            attributes={"e2i.metric.name": "faithfulness", "e2i.metric.value": 0.75, "e2i.metric.unit": "share"},
        ),
        llm_span(
            4,
            trace_id=TRACE,
            span_id="00000000000000c4",
            name="feedback",
            attributes={
                "e2i.feedback.name": "helpful",
                "e2i.feedback.value": 1,
                "e2i.feedback.reason": "clear",
                "e2i.feedback.source": "ui",
            },
        ),
        llm_span(0, trace_id=TRACE, span_id="00000000000000a0", name="causal_impact"),
    ]


async def test_opik_gets_traces_spans_and_scores_in_its_own_terms() -> None:
    with OpikServer(api_key="k-1") as server:
        exporter = OpikExporter(server.endpoint, project_name="e2i-causal-analytics", workspace="brand", api_key="k-1")
        spans = conversation()
        await exporter.send(spans[:3])
        assert server.traces[trace_uuid(TRACE)].get("output") is None
        await exporter.send(spans[3:])
        await exporter.send(spans)
        await exporter.close()
    (trace,) = server.traces.values()
    assert trace["id"] == trace_uuid(TRACE)
    assert (trace["name"], trace["thread_id"], trace["tags"]) == ("causal_impact", "session-7", ["kisqali", "northeast"])
    assert trace["project_name"] == "e2i-causal-analytics"
    assert (trace["input"], trace["output"]) == ({"input": "Why is Northeast down?"}, {"answer": "access", "größe": 1})
    assert trace["start_time"] == "2027-01-15T08:00:00.123456Z"
    assert len(server.spans) == 3
    chat = server.spans[span_uuid(TRACE, "00000000000000c1")]
    assert (chat["type"], chat["model"], chat["provider"]) == ("llm", "claude-opus-4-5", "anthropic")
    assert chat["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert chat["total_estimated_cost"] == 0.0125
    assert chat["parent_span_id"] == span_uuid(TRACE, "00000000000000a0")
    assert chat["metadata"]["otel.span_id"] == "00000000000000c1"
    tool = server.spans[span_uuid(TRACE, "00000000000000c2")]
    assert (tool["type"], tool["error_info"]) == (
        "tool",
        {"exception_type": "ValueError", "message": "no rows", "traceback": "Traceback …"},
    )
    assert tool["metadata"]["rows"] == [1, 2]
    assert server.scores[("span", chat["id"], "faithfulness")]["value"] == 0.75
    helpful = server.scores[("trace", trace["id"], "helpful")]
    assert (helpful["value"], helpful["reason"], helpful["source"]) == (1.0, "clear", "ui")
    assert len(server.scores) == 2
    assert {request.headers["comet-workspace"] for request in server.requests} == {"brand"}


async def test_a_root_stands_whatever_comes_after_it() -> None:
    with OpikServer() as server:
        for order in (conversation(), conversation()[::-1]):
            for span in order:
                exporter = OpikExporter(server.endpoint, project_name="p")  # a new process, which knows nothing
                await exporter.send([span])
                await exporter.close()
            (trace,) = server.traces.values()
            assert (trace["name"], trace["output"]) == ("causal_impact", {"answer": "access", "größe": 1})


async def test_opiks_own_sdk_is_understood_by_the_test_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stand-in takes from the real SDK is what it takes from us."""
    monkeypatch.setenv("OPIK_SENTRY_ENABLE", "false")
    monkeypatch.setenv("OPIK_ANALYTICS_ENABLE", "false")
    with OpikServer() as server:
        await asyncio.to_thread(_talk_as_the_sdk, server.endpoint)
    assert {trace["name"] for trace in server.traces.values()} == {"trace of the SDK"}
    (span,) = server.spans.values()
    assert (span["name"], span["type"], span["output"]) == ("span of the SDK", "llm", {"a": 1})
    assert {kind for kind, _, _ in server.scores} == {"trace"}
    assert [request.path for request in server.requests if "v1/private" not in request.path and "is-alive" not in request.path] == []


def _talk_as_the_sdk(endpoint: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import opik

        client = opik.Opik(host=endpoint, project_name="p", workspace="default", _show_misconfiguration_message=False)
        trace = client.trace(name="trace of the SDK", input={"q": "x"})
        span = trace.span(name="span of the SDK", type="llm", usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
        span.end(output={"a": 1})
        trace.end(output={"r": 2})
        trace.log_feedback_score("quality", 0.5)
        client.end(timeout=5)


async def test_otlp_carries_every_kind_of_value_and_the_shape_of_the_trace() -> None:
    with OtlpServer() as server:
        exporter = OtlpExporter(f"{server.url}/v1/traces", headers={"x-api-key": "k"})
        odd = llm_span(
            5,
            status="error",
            status_message="broke",
            service="worker",
            attributes={
                "b": True,
                "i": -3,
                "big": 2**63,
                "f": 0.5,
                "s": "ü\u0000",
                "l": ["a", "b"],
                "e": [],
                "m": {"k": [1, None]},
                "n": None,
                "mixed": [1, "a", None],
            },
        )
        await exporter.send([*conversation(), odd])
        await exporter.close()
    assert len(server.spans) == 6
    assert {request.headers["x-api-key"] for request in server.requests} == {"k"}
    root = server.spans[TRACE, "00000000000000a0"]
    child = server.spans[TRACE, "00000000000000c2"]
    assert root.parent_span_id == b""
    assert child.parent_span_id == root.span_id
    assert (child.events[0].name, child.links[0].trace_id.hex(), child.status.code) == ("exception", "f" * 32, 2)
    assert (root.start_time_unix_nano, root.kind) == (START_NS, 3)
    key = (odd.trace_id, odd.span_id)
    assert server.services[key] == "worker"
    assert server.spans[key].status.message == "broke"
    assert server.attributes(key) == {
        "b": True,
        "i": -3,
        "big": str(2**63),
        "f": 0.5,
        "s": "ü\u0000",
        "l": ["a", "b"],
        "e": [],
        "m": {"k": [1, None]},
        "mixed": [1, "a", None],
    }


@pytest.mark.parametrize("exporter", [OtlpExporter("http://127.0.0.1:1"), OpikExporter("http://127.0.0.1:1", project_name="p")])
async def test_a_span_that_cannot_be_written_is_refused_and_nothing_is_sent(exporter: Exporter) -> None:
    with pytest.raises(BackendRejected, match="cannot be written"):
        await exporter.send([llm_span(0), llm_span(1, trace_id="not hexadecimal")])


async def test_one_hanging_sink_does_not_delay_the_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with OpikServer() as opik, OtlpServer(mode=Mode.BLACK_HOLE) as otlp:
        exporters = [OpikExporter(opik.endpoint, project_name="p"), OtlpExporter(f"{otlp.url}/v1/traces", timeout_s=5)]
        routes = [
            Route(sink=ForeignSink(one, CursorFile(spool.folder, one.name)), breaker=CircuitBreaker(one.name, QUICK)) for one in exporters
        ]
        stop = asyncio.Event()
        running = asyncio.create_task(run_shipper(spool.folder, routes, replace(SETTINGS, drain_s=0.3), stop))
        spool.emit(300)
        for _ in range(300):
            await asyncio.sleep(0.05)
            if len(opik.spans) == 300:
                break
        assert len(opik.spans) == 300
        stop.set()
        began = time.monotonic()
        await running
        assert time.monotonic() - began < 1.5
        assert otlp.received == 0
        assert (await spool.account("otlp")).in_spool == 300
    spool.writer.close()


async def test_the_table_holds_each_span_once_whatever_repeats_and_its_state_is_the_spools(database: Database, spool: Spool) -> None:
    from e2i.storage.repositories.span_shipments import SpanShipmentRepository

    table = SpanShipmentRepository(database)
    spool.emit(1200)
    spool.emit(1, name="nul \x00 inside", attributes={"input.value": "a\x00b", "huge": 2**63, "e2i.cost.usd": 1e300})
    spool.emit(3, trace_id="0" * 32)

    def shipper() -> Shipper:
        sink = PostgresSink(table, CursorFile(spool.folder, "postgres"), batch_size=250)
        return Shipper(spool.folder, [Route(sink=sink, breaker=CircuitBreaker("postgres", QUICK))], SETTINGS)

    async with shipper() as first:
        for _ in range(3):
            await first.step("postgres")
        lost = first.delivery("postgres").state
    (spool.folder / "sinks" / "postgres.json").unlink()
    async with shipper() as second:
        while (await spool.account("postgres")).in_spool:
            await second.step("postgres")
        assert second.delivery("postgres").last_error is None
        assert lost != second.delivery("postgres").state
    account = await spool.account("postgres")
    rows = await database.rows("select count(*) as found from ml_observability_spans")
    assert rows[0]["found"] == account.delivered
    assert account.delivered + account.dropped.get("quarantined", 0) == 1204
    assert account.delivered >= 1201
    (live,) = await accounts(spool.folder, ["postgres"], shipments=table)
    assert (live.delivered, live.unexplained) == (account.delivered, 0)


@pytest.mark.slow
async def test_mlflows_trace_store_shows_inputs_outputs_and_tokens_once(database_url: str, tmp_path: Path) -> None:
    from databases import empty_database

    with empty_database(database_url) as url, mlflow_server(url, tmp_path) as uri:
        experiment = await asyncio.to_thread(make_experiment, uri, "e2i_traces")
        exporter = OtlpExporter(f"{uri}/v1/traces", name="mlflow", headers={"x-mlflow-experiment-id": experiment}, timeout_s=60.0)
        spool = Spool(tmp_path / "spool")
        for span in conversation():
            assert spool.writer.write(encode(span), SpanClass.KEPT)
        async with spool.shipper(exporter) as shipper:
            delivery = shipper.delivery("mlflow")
            await ship(shipper, "mlflow", until=lambda: delivery.state is not None and delivery.state.delivered > 0, within_s=90)
        await exporter.send(conversation())  # as after a lost answer
        await exporter.close()
        spool.writer.close()
        (trace,) = await asyncio.to_thread(read_traces, uri, experiment)
    by_name = {span["name"]: span for span in trace["spans"]}
    assert len(trace["spans"]) == 5
    assert set(by_name) == {"causal_impact", "chat", "query", "metric faithfulness", "feedback"}
    assert by_name["chat"]["inputs"] == "Why is Northeast down?"
    assert by_name["chat"]["outputs"] == {"answer": "access", "größe": 1}
    assert by_name["chat"]["type"] == "CHAT_MODEL"
    assert by_name["causal_impact"]["parent"] is None
    assert "ERROR" in by_name["query"]["status"]
    assert trace["usage"]["input_tokens"] == 11
    assert trace["usage"]["output_tokens"] == 7
    assert trace["meta"]["mlflow.trace.session"] == "session-7"
