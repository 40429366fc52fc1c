"""The receiver over the real table: what another team sends is there when it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from receiving import application, body, calling, example, serving, told
from test_api_opik import check_their_spans, run_their_program, span

from e2i.domain.telemetry import SpanQuery, SpanRecord
from e2i.storage.postgres import Database
from e2i.storage.repositories.span_shipments import SpanShipmentRepository
from e2i.storage.repositories.spans import ObservabilitySpanRepository

PRIVATE = "/api/v1/private"
MERGE_FIRST = "2026-11-20T10:00:00Z"


@pytest_asyncio.fixture
async def wire(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(ObservabilitySpanRepository(database), merges=SpanShipmentRepository(database)) as client:
        yield client


@pytest_asyncio.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(application(ObservabilitySpanRepository(database), merges=SpanShipmentRepository(database))) as client:
        yield client


async def rows(database: Database) -> list[SpanRecord]:
    page = await ObservabilitySpanRepository(database).search(SpanQuery(limit=1000))
    return [stored.span for stored in page.spans]


async def test_the_stock_exporter_fills_the_table_and_the_summary(wire: httpx.AsyncClient, database: Database) -> None:
    exporter = OTLPSpanExporter(endpoint=f"{wire.base_url}/v1/traces")
    provider = TracerProvider(resource=Resource({"service.name": "theirs"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("their.library")
    for number in range(1000):
        mail = {"e2i.agent.name": "causal_impact", "gen_ai.usage.input_tokens": number, "note": "write to jane.doe@example.com"}
        tracer.start_span("call", attributes=mail).end()
    assert await asyncio.to_thread(provider.force_flush)
    await asyncio.to_thread(provider.shutdown)
    found = await rows(database)
    assert len(found) == 1000
    assert {span.attributes["note"] for span in found} == {"write to [email]"}
    (line,) = (await wire.get("/api/v1/latency")).json()["agents"]
    assert (line["agent_name"], line["calls"], line["input_tokens"]) == ("causal_impact", 1000, sum(range(1000)))
    assert (await wire.get("/readyz")).status_code == 200


async def test_the_real_sdk_fills_the_table(wire: httpx.AsyncClient, database: Database, tmp_path: Path) -> None:
    ids = await run_their_program(str(wire.base_url).rstrip("/"), tmp_path)
    check_their_spans(await rows(database), ids)


async def test_a_change_that_comes_first_waits_for_its_span(client: httpx.AsyncClient, database: Database) -> None:
    whole = span(input={"a": 1}, name="late")
    change = {"trace_id": whole["trace_id"], "end_time": "2026-11-20T10:00:01Z", "output": "text"}
    assert (await client.patch(f"{PRIVATE}/spans/{whole['id']}", json=change)).status_code == 204
    assert (await client.get(f"/api/v1/traces/{whole['trace_id']}")).json()["total_spans"] == 1
    assert (await client.post(f"{PRIVATE}/spans/batch", json={"spans": [whole]})).status_code == 204
    (row,) = await rows(database)
    assert (row.name, row.duration_ms, row.parent_span_id, row.attributes["output.value"]) == ("late", 999.999, row.trace_id, "text")


async def test_a_later_score_replaces_the_earlier_also_from_another_process(client: httpx.AsyncClient, database: Database) -> None:
    scored = span()
    await client.post(f"{PRIVATE}/spans/batch", json={"spans": [scored]})
    for value in (0.1, 0.9):
        score = {"scores": [{"id": scored["id"], "name": "s", "value": value, "source": "sdk"}]}
        again = application(ObservabilitySpanRepository(database), merges=SpanShipmentRepository(database))
        async with calling(again) as other:
            assert (await other.put(f"{PRIVATE}/spans/feedback-scores", json=score)).status_code == 204
    found = {row.name: row for row in await rows(database)}
    assert set(found) == {"n", "feedback s"}
    assert found["feedback s"].attributes["e2i.feedback.value"] == 0.9
    assert found["feedback s"].trace_id == found["n"].trace_id


async def test_what_the_table_cannot_hold_is_no_fault_of_the_receiver(client: httpx.AsyncClient, database: Database) -> None:
    odd = [
        example(startTimeUnixNano="1", endTimeUnixNano="9223372036854775807", spanId="00000000000000a1"),
        example(spanId="00000000000000a2", name="\0\U0001f600", status={"code": 99, "message": "\0"}, kind=-5),
        example(
            spanId="00000000000000a3",
            attributes=[
                {"key": "e2i.cost.usd", "value": {"doubleValue": 1.7e308}},
                {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "9223372036854775807"}},
                {"key": "e2i.agent.name", "value": {"stringValue": "a" * 5000}},
                {"key": "", "value": {"stringValue": "\0"}},
                {"key": "e2i.fallback.chain", "value": {"intValue": "1"}},
            ],
            events=[{"timeUnixNano": "18446744073709551615"}],
        ),
    ]
    answer = await client.post("/v1/traces", json=body(*odd))
    assert (answer.status_code, answer.json()) == (200, {})
    assert len(await rows(database)) == 3
    page = (await client.get("/api/v1/traces/5b8efff798038103d269b633813fc60c")).json()
    assert page["total_spans"] == 3
    assert (await client.get("/api/v1/traces")).status_code == (await client.get("/api/v1/spans")).status_code == 200


async def test_a_database_that_is_gone_is_503_everywhere(client: httpx.AsyncClient, database: Database) -> None:
    await database.close()
    told(await client.post("/v1/traces", json=body(example())), 503)
    told(await client.post(f"{PRIVATE}/spans/batch", json={"spans": [span()]}), 503)
    for path in ("/readyz", "/api/is-alive/ping", "/api/v1/traces", "/api/v1/latency"):
        told(await client.get(path), 503)
