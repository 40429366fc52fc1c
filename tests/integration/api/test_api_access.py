"""Keys, names and addresses."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from receiving import application, body, calling, example, serving, told
from spans_in_memory import SpansInMemory

from e2i.api.app import serve
from e2i.errors import ConfigError

KEY = "correct horse"
PATHS = ["/v1/traces", "/api/v1/traces", "/api/v1/private/traces/batch", "/metrics", "/openapi.json", "/api/v1/latency", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": KEY + " "}, {"x-api-key": ""}, {"authorization": f"Basic {KEY}"}]
)
async def test_without_the_key_everything_but_the_probes_is_401(spans: SpansInMemory, path: str, headers: dict[str, str]) -> None:
    if headers.get("x-api-key", "").strip() == KEY:
        headers = {"x-api-key": KEY.upper()}
    async with calling(application(spans, api_key=KEY)) as client:
        answer = await client.post(path, json=body(example()), headers=headers)
        told(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.text
        assert (await client.get("/livez")).status_code == (await client.get("/readyz")).status_code == 200
    assert not spans.rows


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}, {"authorization": KEY}]
)
async def test_the_key_is_taken_in_all_three_forms(spans: SpansInMemory, headers: dict[str, str]) -> None:
    async with calling(application(spans, api_key=KEY)) as client:
        assert (await client.post("/v1/traces", json=body(example()), headers=headers)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4318", "10.0.0.1", "127.0.0.1.evil.example", "[2001:db8::1]:80", ""])
async def test_a_keyless_receiver_answers_to_its_own_names_only(client: httpx.AsyncClient, host: str) -> None:
    told(await client.get("/api/v1/traces", headers={"host": host}), 403)


@pytest.mark.parametrize("host", ["localhost:4318", "127.0.0.1", "127.8.8.8:1", "[::1]:4318", "LOCALHOST", "e2i.localhost"])
async def test_names_of_this_machine_are_its_own(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/api/v1/traces", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.5", "myhost", "::ffff:10.0.0.1"])
async def test_other_addresses_without_a_key_are_refused_at_start(spans: SpansInMemory, host: str) -> None:
    with pytest.raises(ConfigError, match="E2I_RECEIVER_KEY"):
        application(spans, host=host)
    with pytest.raises(ConfigError, match="E2I_RECEIVER_KEY"):
        await serve(application(spans), host, 0, asyncio.Event())
    application(spans, host=host, api_key="k")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
async def test_loopback_needs_no_key(spans: SpansInMemory, host: str) -> None:
    application(spans, host=host)


async def test_a_port_that_is_taken_is_told_with_advice(wire: httpx.AsyncClient, spans: SpansInMemory) -> None:
    app = application(spans)
    with pytest.raises(ConfigError, match="choose another port"):
        await serve(app, "127.0.0.1", wire.base_url.port or 0, asyncio.Event())


async def test_a_request_in_work_is_finished_before_the_end(spans: SpansInMemory) -> None:
    spans.hold = asyncio.Event()
    async with serving(spans) as client:
        sending = asyncio.create_task(client.post("/v1/traces", json=body(example())))
        await asyncio.sleep(0.2)
        asyncio.get_running_loop().call_later(0.3, spans.hold.set)
    assert (await sending).status_code == 200
    assert len(spans.rows) == 1


@pytest.mark.parametrize(("headers", "is_welcome"), [({"Authorization": f"Bearer {KEY}"}, True), ({"x-api-key": KEY}, True), ({}, False)])
async def test_the_stock_exporter_comes_in_with_the_key_alone(spans: SpansInMemory, headers: dict[str, str], is_welcome: bool) -> None:
    async with serving(spans, api_key=KEY) as client:
        sent = await asyncio.to_thread(export_one, f"{client.base_url}/v1/traces", headers)
    assert (sent, len(spans.rows)) == ((SpanExportResult.SUCCESS, 1) if is_welcome else (SpanExportResult.FAILURE, 0))


async def test_the_stock_exporter_that_is_told_to_wait_comes_again_and_loses_nothing(spans: SpansInMemory) -> None:
    spans.hold = asyncio.Event()
    async with serving(spans, max_in_flight=1) as client:
        first = asyncio.create_task(asyncio.to_thread(export_one, f"{client.base_url}/v1/traces", {}))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(asyncio.to_thread(export_one, f"{client.base_url}/v1/traces", {}))
        await asyncio.sleep(0.3)
        spans.hold.set()
        assert [await first, await second] == [SpanExportResult.SUCCESS] * 2
    assert len(spans.rows) == 2


def export_one(endpoint: str, headers: dict[str, str]) -> SpanExportResult:
    """One span through OpenTelemetry's own exporter."""
    exporter, seen = OTLPSpanExporter(endpoint=endpoint, headers=headers), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(seen))
    provider.get_tracer("their.library").start_span("one").end()
    try:
        return exporter.export(seen.get_finished_spans())
    finally:
        exporter.shutdown()
