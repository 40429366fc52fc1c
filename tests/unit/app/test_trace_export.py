"""Spans as JSON and as OTLP/JSON."""

from __future__ import annotations

import base64
import json
import math

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from e2i.app.trace_export import compact, iso, json_array, otlp_id, otlp_lines, span_to_dict
from e2i.domain.telemetry import SpanLink
from span_doubles import START_NS, TRACE, failed, stored, study_trace

OPIK = "0198a2f3c4d57e6f8a9b0c1d2e3f4a5b"


async def batches(spans, size=3):
    for start in range(0, len(spans), size):
        yield spans[start : start + size]


async def lines(spans, **more) -> list[str]:
    return [text async for text, _ in otlp_lines(batches(spans), **more)]


def parsed(line: str) -> ExportTraceServiceRequest:
    """A line as a receiver reads it; protobuf's own JSON wants base64 where OTLP has hexadecimal ids."""

    def ids(found):
        if isinstance(found, dict):
            return {
                k: base64.b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId", "parentSpanId") else ids(v)
                for k, v in found.items()
            }
        return [ids(each) for each in found] if isinstance(found, list) else found

    return json_format.ParseDict(ids(json.loads(line)), ExportTraceServiceRequest())


def spans_in(request: ExportTraceServiceRequest) -> list:
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


async def test_a_trace_is_one_request_that_protobuf_reads():
    spans = study_trace()
    (line,) = await lines(spans)
    request = parsed(line)
    found = spans_in(request)
    assert [span.name for span in found] == [each.span.name for each in spans]
    assert {span.trace_id.hex() for span in found} == {TRACE}
    assert request.resource_spans[0].resource.attributes[0].value.string_value == "e2i"
    chat = found[8]
    assert (chat.start_time_unix_nano, chat.end_time_unix_nano) == (spans[8].span.started_ns, spans[8].span.ended_ns)
    assert {a.key: a.value.int_value for a in chat.attributes}["gen_ai.usage.output_tokens"] == 354
    assert chat.kind == 3
    assert (found[7].status.code, found[7].status.message) == (2, "429: try again in 5 s")
    assert found[7].events[0].name == "exception"


async def test_services_and_scopes_are_kept_apart():
    (line,) = await lines(
        [stored("a", number=1, service="x"), stored("b", number=2, service="y", scope="s"), stored("c", number=3, service="y")]
    )
    request = parsed(line)
    assert [r.resource.attributes[0].value.string_value for r in request.resource_spans] == ["x", "y"]
    assert [s.scope.name for s in request.resource_spans[1].scope_spans] == ["s", ""]


async def test_every_kind_of_value_survives():
    given = {
        "text": "é\u2028\n\x00", "yes": True, "int": -(2**63), "huge": 2**70, "half": 0.5, "nan": float("nan"), "inf": float("-inf"),
        "list": [1, 2], "mixed": ["a", 1, None], "nested": {"a": {"b": [1.5]}}, "none": None, "empty": [],
    }  # fmt: skip
    link = SpanLink(trace_id="a" * 32, span_id="b" * 16, attributes={"why": "retry"})
    (line,) = await lines([stored("x", attributes=given, links=(link,))])
    span = spans_in(parsed(line))[0]
    values = {a.key: a.value for a in span.attributes}
    assert values["text"].string_value == "é\u2028\n\x00"
    assert values["yes"].bool_value is True
    assert values["int"].int_value == -(2**63)
    assert values["huge"].string_value == str(2**70)
    assert math.isnan(values["nan"].double_value)
    assert values["inf"].double_value == float("-inf")
    assert [v.int_value for v in values["list"].array_value.values] == [1, 2]
    assert values["nested"].kvlist_value.values[0].value.kvlist_value.values[0].value.array_value.values[0].double_value == 1.5
    assert values["none"].WhichOneof("value") is None
    assert span.links[0].trace_id.hex() == "a" * 32


async def test_an_opik_span_gets_an_id_of_the_right_length_and_so_does_its_parent():
    parent = stored("agent", trace_id=OPIK, span_id=OPIK)
    child = stored("call", trace_id=OPIK, span_id=OPIK[:-1] + "c", parent=OPIK)
    (line,) = await lines([parent, child])
    first, second = spans_in(parsed(line))
    assert len(first.span_id) == 8
    assert second.parent_span_id == first.span_id != second.span_id
    assert first.trace_id.hex() == OPIK
    assert {a.key: a.value.string_value for a in first.attributes}["e2i.span.original_id"] == OPIK


@pytest.mark.parametrize("text", ["", "xyz", "0" * 16, "abc", "é" * 40])
def test_any_id_becomes_one_that_receivers_take(text):
    found = otlp_id(text, 16)
    assert len(bytes.fromhex(found)) == 8
    assert found.strip("0")
    assert otlp_id(text, 16) == found


async def test_an_open_span_is_marked():
    (line,) = await lines([stored("open", ms=None)])
    span = spans_in(parsed(line))[0]
    assert span.end_time_unix_nano == span.start_time_unix_nano
    assert {a.key: a.value.bool_value for a in span.attributes} == {"e2i.span.unfinished": True}


async def test_large_exports_come_in_requests_below_the_limit():
    spans = [stored("x", number=number, attributes={"input.value": "ü" * 900}) for number in range(1, 200)]
    found = await lines(spans, limit=20_000)
    assert len(found) > 10
    assert all(len(line.encode()) < 21_000 for line in found)
    ids = [span.span_id.hex() for line in found for span in spans_in(parsed(line))]
    assert ids == [each.span.span_id for each in spans]
    assert len(await lines([stored("big", attributes={"input.value": "a" * 50_000})], limit=20_000)) == 1


@pytest.mark.parametrize("count", [0, 1, 7])
async def test_json_is_one_array_however_many_batches(count):
    spans = [failed("x", number=number) for number in range(count)]
    found = json.loads("".join([text async for text, _ in json_array(batches(spans))]))
    assert [each["span_id"] for each in found] == [each.span.span_id for each in spans]
    assert all(each["error_type"] == "ValueError" and each["events"][0]["name"] == "exception" for each in found)


def test_a_span_tells_its_times_exactly():
    found = span_to_dict(stored(started_ns=START_NS + 123_456_789, ms=0.001))
    assert found["started_at"] == "2026-11-21T10:00:00.123456Z"
    assert (found["started_ns"], found["ended_ns"]) == (START_NS + 123_456_789, START_NS + 123_457_789)
    assert iso(0) == "1970-01-01T00:00:00.000000Z"
    assert iso(-1) == "1969-12-31T23:59:59.999999Z"


def test_what_json_cannot_carry_is_null():
    assert json.loads(compact({"a": [float("nan"), {"b": float("inf")}], 1: (2,)})) == {"a": [None, {"b": None}], "1": [2]}
