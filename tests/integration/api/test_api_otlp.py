"""OTLP/HTTP as real exporters speak it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from receiving import PROTOBUF, application, body, calling, example, message
from spans_in_memory import SpansInMemory


@pytest.mark.parametrize("compression", list(Compression))
async def test_the_stock_exporter_delivers_every_kind_of_value(
    wire: httpx.AsyncClient, spans: SpansInMemory, compression: Compression
) -> None:
    exporter = OTLPSpanExporter(endpoint=f"{wire.base_url}/v1/traces", compression=compression)
    provider = TracerProvider(resource=Resource({"service.name": "theirs", "service.version": "3"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("their.library")
    with tracer.start_as_current_span("agent", kind=SpanKind.SERVER) as parent:
        parent.set_attribute("e2i.agent.name", "causal_impact")
        link = Link(parent.get_span_context(), {"why": "same"})
        with tracer.start_as_current_span(
            "chat", links=[link], attributes={"gen_ai.usage.input_tokens": 7, "flags": [True, False]}
        ) as child:
            child.add_event("token", {"n": 1.5})
            child.set_status(Status(StatusCode.ERROR, "too long"))
    assert await asyncio.to_thread(provider.force_flush)
    await asyncio.to_thread(provider.shutdown)

    chat, agent = sorted(spans.rows.values(), key=lambda span: span.name, reverse=True)
    assert (agent.service, agent.scope, agent.origin, agent.kind, agent.parent_span_id) == (
        "theirs",
        "their.library",
        "otlp",
        "server",
        None,
    )
    assert agent.attributes == {"service.version": "3", "e2i.agent.name": "causal_impact"}
    assert (chat.trace_id, chat.parent_span_id) == (agent.trace_id, agent.span_id)
    assert (chat.status, chat.status_message) == ("error", "too long")
    assert chat.attributes["gen_ai.usage.input_tokens"] == 7
    assert chat.attributes["flags"] == [True, False]
    assert [(event.name, event.attributes) for event in chat.events] == [("token", {"n": 1.5})]
    assert [(link.span_id, link.attributes) for link in chat.links] == [(agent.span_id, {"why": "same"})]
    assert chat.ended_ns is not None
    assert chat.ended_ns >= chat.started_ns > 10**18


async def test_json_follows_the_official_mapping(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    values = {
        "text": {"stringValue": "a"},
        "whole": {"intValue": "-9223372036854775807"},
        "whole.number": {"intValue": 12},
        "real": {"doubleValue": 0.5},
        "infinite": {"doubleValue": "-Infinity"},
        "flag": {"boolValue": False},
        "list": {"arrayValue": {"values": [{"intValue": "1"}, {"intValue": "2"}]}},
        "mixed": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "b"}]}},
        "map": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": True}}]}},
        "bytes": {"bytesValue": "AQI="},
        "unset": {},
    }
    attributes = [{"key": key, "value": value} for key, value in values.items()]
    events = [{"timeUnixNano": "1544712660300000000", "name": "event", "attributes": attributes[:1], "droppedAttributesCount": 1}]
    sent = body(
        example(attributes=attributes, events=events, status={"code": 2, "message": "no"}, traceState="a=b", flags=257, unknownField=[1])
    )
    answer = await client.post("/v1/traces", json=sent)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {}
    (span,) = spans.rows.values()
    assert (span.trace_id, span.span_id, span.parent_span_id) == (
        "5b8efff798038103d269b633813fc60c",
        "eee19b7ec3c1b174",
        "eee19b7ec3c1b173",
    )
    assert (span.started_ns, span.ended_ns) == (1544712660000000000, 1544712661000000000)
    assert (span.kind, span.status, span.status_message, span.service, span.scope) == ("server", "error", "no", "my.service", "my.library")
    assert span.attributes == {
        "text": "a",
        "whole": -(2**63 - 1),
        "whole.number": 12,
        "real": 0.5,
        "infinite": "-Infinity",
        "flag": False,
        "list": [1, 2],
        "mixed": '[1,"b"]',
        "map": '{"k":true}',
        "bytes": "AQI=",
    }
    assert span.events[0].attributes == {"text": "a"}


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("gzip", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])),
        ("identity", bytes),
    ],
    ids=["gzip", "deflate", "bare deflate", "gzip of two members", "identity"],
)
async def test_compressed_bodies_are_opened(client: httpx.AsyncClient, spans: SpansInMemory, encoding: str, compress: Any) -> None:
    content = compress(json.dumps(body(example())).encode())
    answer = await client.post("/v1/traces", content=content, headers={"content-type": "application/json", "content-encoding": encoding})
    assert answer.status_code == 200
    assert len(spans.rows) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"traceId": "0" * 32}, "all zero"),
        ({"traceId": "ab"}, "1 bytes, not 16"),
        ({"traceId": ""}, "0 bytes"),
        ({"spanId": "0" * 16}, "all zero"),
        ({"spanId": "zz" * 8}, "not 8"),
        ({"parentSpanId": "ab"}, "parent span id has 1 bytes"),
        ({"startTimeUnixNano": "0"}, "no start time"),
        ({"endTimeUnixNano": "1"}, "ends before it starts"),
        ({"startTimeUnixNano": "18446744073709551615", "endTimeUnixNano": "0"}, "year 2262"),
    ],
)
async def test_a_span_that_is_none_is_rejected_and_the_others_stay(
    client: httpx.AsyncClient, spans: SpansInMemory, fault: Any, reason: str
) -> None:
    answer = await client.post("/v1/traces", json=body(example(**fault), example(spanId="00000000000000aa", name="")))
    assert answer.status_code == 200
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert reason in partial["errorMessage"]
    assert "resourceSpans[0].scopeSpans[0].spans[0]" in partial["errorMessage"]
    assert [span.span_id for span in spans.rows.values()] == ["00000000000000aa"]


async def test_protobuf_is_answered_in_protobuf_with_what_was_rejected(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    request = message("good")
    request.resource_spans[0].scope_spans[0].spans.add(trace_id=b"\0" * 16, span_id=b"\1" * 8, start_time_unix_nano=1)
    answer = await client.post("/api/v1/private/otel/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    assert answer.headers["content-type"] == "application/x-protobuf"
    told = ExportTraceServiceResponse.FromString(answer.content)
    assert told.partial_success.rejected_spans == 1
    assert "all zero" in told.partial_success.error_message
    assert len(spans.rows) == 1


async def test_the_same_spans_sent_twice_are_there_once(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    for _ in range(2):
        assert (await client.post("/v1/traces", content=message("a", "b").SerializeToString(), headers=PROTOBUF)).status_code == 200
    assert len(spans.rows) == 2


async def test_an_empty_request_is_a_good_one(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    assert (await client.post("/v1/traces", json={})).json() == {}
    answer = await client.post("/v1/traces", content=b"", headers=PROTOBUF)
    assert (answer.status_code, answer.content) == (200, b"")
    assert not spans.rows


async def test_the_answer_comes_after_the_commit(client: httpx.AsyncClient, spans: SpansInMemory) -> None:
    spans.hold = asyncio.Event()
    sending = asyncio.create_task(client.post("/v1/traces", json=body(example())))
    await asyncio.sleep(0.2)
    assert not sending.done()
    spans.hold.set()
    assert (await sending).status_code == 200
    assert len(spans.rows) == 1


@pytest.mark.parametrize("agent", ["quiet", "loud"])
async def test_nothing_of_an_agent_that_may_not_be_quoted_is_kept_whoever_sends_it(spans: SpansInMemory, agent: str) -> None:
    def said(**texts: str) -> list[dict[str, Any]]:
        return [{"key": key.replace("_", "."), "value": {"stringValue": text}} for key, text in texts.items()]

    error = [{"name": "exception", "timeUnixNano": "9", "attributes": said(exception_stacktrace="Zebra", exception_type="KeyError")}]
    top = example(spanId="1" * 16, attributes=said(e2i_agent_name=agent, input_value="Zebra"), events=error)
    below = example(spanId="2" * 16, parentSpanId="1" * 16, attributes=said(output_value="Zebra", kpi="NRx"))
    deeper = example(spanId="3" * 16, parentSpanId="2" * 16, attributes=said(input_value="Zebra"))
    beside = example(spanId="4" * 16, attributes=said(input_value="Zebra", note="kept"))
    async with calling(application(spans, silent_agents=frozenset({"quiet"}))) as client:
        sent = body(deeper, below, top, beside)  # children end first
        assert (await client.post("/v1/traces", json=sent)).status_code == 200
    quoting = {span.span_id[0] for span in spans.rows.values() if "Zebra" in str((span.attributes, span.events))}
    assert quoting == ({"4"} if agent == "quiet" else {"1", "2", "3", "4"})
    kept = {span.span_id[0]: span for span in spans.rows.values()}
    assert kept["2"].attributes["kpi"] == "NRx"
    assert kept["1"].events[0].attributes["exception.type"] == "KeyError"
