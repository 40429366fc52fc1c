"""Probes, metrics, and what the table is asked over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from receiving import application, body, calling, example, told
from spans_in_memory import SpansInMemory

from e2i.domain.telemetry import SpanRecord
from e2i.errors import BackendUnavailable


def fill(spans: SpansInMemory, traces: int, spans_each: int = 1) -> None:
    for number in range(1, traces + 1):
        for index in range(spans_each):
            root = None if index == 0 else f"{1:016x}"
            start = number * 10**9 + index
            record = SpanRecord(
                trace_id=f"{number:032x}",
                span_id=f"{index + 1:016x}",
                parent_span_id=root,
                name=f"s{index}",
                started_ns=start,
                ended_ns=start + 500,
            )
            spans.rows[record.key] = record


async def test_probes_tell_the_process_from_its_database(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    assert (await client.get("/livez")).json() == {"status": "alive"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    spans.fault = BackendUnavailable("gone.", where="secret-host")
    assert (await client.get("/livez")).status_code == 200
    answer = await client.get("/readyz")
    assert "BackendUnavailable" in told(answer, 503)["detail"]
    assert "secret" not in answer.text
    assert answer.headers["retry-after"]


@pytest.mark.timeout(20)
async def test_a_database_that_hangs_is_not_ready(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    spans.hold = asyncio.Event()
    assert "no answer" in told(await client.get("/readyz"), 503)["detail"]


async def test_head_is_get_without_the_body(wire: httpx.AsyncClient) -> None:
    answer = await wire.head("/livez")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "18"


async def test_metrics_count_requests_and_spans(client: httpx.AsyncClient) -> None:
    await client.post("/v1/traces", json=body(example(), example(traceId="0" * 32)))
    await client.post("/v1/traces", content=b"{")
    await client.get("/nothing/at/all")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'e2i_receiver_requests_total{route="/v1/traces",status="200"} 1' in lines
    assert 'e2i_receiver_requests_total{route="/v1/traces",status="415"} 1' in lines
    assert 'e2i_receiver_requests_total{route="unknown",status="404"} 1' in lines
    assert 'e2i_receiver_spans_total{origin="otlp",outcome="accepted"} 1' in lines
    assert 'e2i_receiver_spans_total{origin="otlp",outcome="rejected"} 1' in lines
    assert "e2i_receiver_in_flight 0" in lines


async def test_every_trace_is_on_exactly_one_page(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    fill(spans, 25)
    found, cursor, pages = [], None, 0
    while True:
        answer = (await client.get("/api/v1/traces", params={"limit": 10} | ({"cursor": cursor} if cursor else {}))).json()
        found += [line["trace_id"] for line in answer["traces"]]
        pages += 1
        if pages == 1:  # a trace that arrives meanwhile moves no other to a second page
            fill(spans, 26)
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert found == [f"{number:032x}" for number in range(25, 0, -1)]
    assert pages == 3


async def test_a_trace_is_shown_page_by_page(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    fill(spans, 1, spans_each=25)
    first = (await client.get(f"/api/v1/traces/{1:032x}", params={"limit": 20})).json()
    second = (await client.get(f"/api/v1/traces/{1:032x}", params={"limit": 20, "cursor": first["next_cursor"]})).json()
    assert [span["name"] for span in first["spans"] + second["spans"]] == [f"s{index}" for index in range(25)]
    assert (first["total_spans"], second["next_cursor"]) == (25, None)
    assert first["spans"][1]["started_ns"] == "1000000001"
    assert first["spans"][1]["parent_span_id"] == f"{1:016x}"


async def test_spans_are_searched_page_by_page(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    fill(spans, 5)
    first = (await client.get("/api/v1/spans", params={"limit": 3})).json()
    second = (await client.get("/api/v1/spans", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert (len(first["spans"]), len(second["spans"]), second["next_cursor"]) == (3, 2, None)


async def test_a_trace_that_is_not_there_is_404(client: httpx.AsyncClient) -> None:
    told(await client.get(f"/api/v1/traces/{9:032x}"), 404)


@pytest.mark.parametrize(
    "path",
    [
        "traces/xyz",
        "traces/12345",
        "traces/" + "1" * 33,
        "traces/%00%00%00%00%00%00",
        "traces?limit=0",
        "traces?limit=9999",
        "traces?limit=x",
        "traces?cursor=%25%25",
        "traces?cursor=YWJj",
        "traces?since=yesterday",
        "traces?agent=%00",
        "spans?status=odd",
        "spans?minimum_ms=nan",
        "spans?since=99999-01-01",
        "latency?window=soon",
        "latency?window=" + "9" * 30 + "d",
    ],
)
async def test_a_bad_question_is_400(client: httpx.AsyncClient, path: str) -> None:
    told(await client.get(f"/api/v1/{path}"), 400)


async def test_the_latency_summary_is_kept_for_its_time(spans: SpansInMemory) -> None:
    async with calling(application(spans, cache_ttl_s={"1h": 60, "default": 0})) as client:
        hours = [(await client.get("/api/v1/latency?window=1h")).json()["agents"][0]["calls"] for _ in range(3)]
        days = [(await client.get("/api/v1/latency")).json()["agents"][0]["calls"] for _ in range(2)]
        first, again = [(await client.get("/api/v1/latency?window=1h")).json()["as_of"] for _ in range(2)]
    assert hours == [1, 1, 1]
    assert days == [2, 3]
    assert first == again
    assert abs((datetime.now(UTC) - datetime.fromisoformat(first)).total_seconds()) < 60


async def test_openapi_lists_every_route(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {
        "/v1/traces",
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/traces",
        "/api/v1/traces/{trace_id}",
        "/api/v1/latency",
        "/api/v1/spans",
    } <= set(paths)
    assert {"application/x-protobuf", "application/json"} == set(paths["/v1/traces"]["post"]["requestBody"]["content"])


async def test_an_incoming_traceparent_is_continued_and_ingest_is_not_traced(client: httpx.AsyncClient) -> None:
    seen = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    processor = SimpleSpanProcessor(seen)
    provider.add_span_processor(processor)
    try:
        theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        answer = await client.get("/api/v1/traces", headers={"traceparent": theirs})
        await client.post("/v1/traces", json=body(example()), headers={"traceparent": theirs})
        await client.get("/api/v1/latency", headers={"traceparent": "00-broken"})
        spans = seen.get_finished_spans()
    finally:
        processor.shutdown()
    first, second = spans
    assert first.name == "GET /api/v1/traces"
    assert f"{first.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{first.parent.span_id:016x}" == "b7ad6b7169203331"
    assert answer.headers["traceparent"] == f"00-0af7651916cd43dd8448eb211c80319c-{first.context.span_id:016x}-01"
    assert first.attributes["http.response.status_code"] == 200
    assert second.parent is None
