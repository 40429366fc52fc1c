"""No body makes a 5xx: mutations of valid bodies, in both encodings and on every route that takes one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from receiving import application, body, calling, example, message
from spans_in_memory import SpansInMemory

from e2i.storage.span_rows import row_of

SPANS = SpansInMemory()
APPLICATION = application(SPANS, patience_s=0.0)
PRIVATE = "/api/v1/private"
ID = "01a1fdc9-9651-757a-b89b-7531469e4e95"
WHOLE = {
    "id": ID,
    "trace_id": ID,
    "parent_span_id": ID,
    "name": "n",
    "type": "llm",
    "start_time": "2026-11-20T10:00:00Z",
    "end_time": "2026-11-20T10:00:01Z",
    "input": {"a": [1, 2.5, None]},
    "output": "o",
    "metadata": {"m": {"n": 1}},
    "tags": ["x"],
    "usage": {"prompt_tokens": 1},
    "error_info": {"exception_type": "E", "message": "m", "traceback": "t"},
    "total_estimated_cost": 0.5,
}
SCORE = {"id": ID, "name": "s", "value": 0.5, "reason": "r", "source": "sdk"}
COLUMNS = [
    {"key": name, "value": {"stringValue": "1"}}
    for name in ("e2i.fallback.chain", "e2i.agent.name", "e2i.cost.usd", "gen_ai.usage.input_tokens", "gen_ai.operation.name", "error.type")
]
OTLP = body(
    example(
        attributes=[
            {"key": "k", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"doubleValue": 0.5}, {"kvlistValue": {"values": []}}]}}},
            *COLUMNS,
        ],
        events=[{"name": "exception", "timeUnixNano": "5", "attributes": [{"key": "k", "value": {"bytesValue": "AQI="}}]}],
        links=[{"traceId": "ab" * 16, "spanId": "cd" * 8}],
        status={"code": 2, "message": "m"},
    )
)
TARGETS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/traces", OTLP),
    ("POST", f"{PRIVATE}/traces/batch", {"traces": [WHOLE]}),
    ("POST", f"{PRIVATE}/spans/batch", {"spans": [WHOLE]}),
    ("POST", f"{PRIVATE}/spans", WHOLE),
    ("PATCH", f"{PRIVATE}/spans/{ID}", WHOLE),
    ("PATCH", f"{PRIVATE}/traces/{ID}", WHOLE),
    ("PATCH", f"{PRIVATE}/spans/batch", {"ids": [ID], "update": WHOLE}),
    ("PUT", f"{PRIVATE}/traces/feedback-scores", {"scores": [SCORE]}),
    ("PUT", f"{PRIVATE}/traces/{ID}/feedback-scores", SCORE),
]
ODD: list[Any] = [
    None, True, 0, -1, 1e308, 2**63, 2**64, -(2**70), "", "\0", "x" * 3000, [], {}, [[]], [{}], {"": None}, "NaN", "Infinity",
    "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "ff" * 16, "0" * 32, {"stringValue": 1}, "\ud7ff\ufffe", 1e-320, 4.0, "-0",
]  # fmt: skip
ODD_BYTES = st.sampled_from(
    [b"", b"\0", b"\xff", b"\x0a", b"{", b"}", b"[", b'"', b"\\u0000", b"\\ud800", b"NaN", b"1e999", b"[" * 200, b'{"a":' * 90]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a body stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The body with another value in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@st.composite
def hostile_json(draw: st.DrawFn) -> tuple[str, str, bytes]:
    method, path, content = draw(st.sampled_from(TARGETS))
    for _ in range(draw(st.integers(1, 3))):
        content = changed(content, draw(st.sampled_from(places(content))), draw(st.sampled_from(ODD)))
    raw = orjson.dumps(content) if draw(st.booleans()) and fits(content) else json.dumps(content).encode()
    return method, path, draw(cut(raw)) if draw(st.booleans()) else raw


@st.composite
def cut(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes with something else in one place."""
    start = draw(st.integers(0, len(raw)))
    return raw[:start] + draw(ODD_BYTES) + raw[draw(st.integers(start, min(len(raw), start + 8))) :]


def fits(content: Any) -> bool:
    try:
        orjson.dumps(content)
    except orjson.JSONEncodeError:
        return False
    return True


async def check(method: str, path: str, content: bytes, headers: dict[str, str]) -> int:
    """Ask a receiver; its answer is a good one or a refusal with a reason, and what it stored can be stored."""
    SPANS.rows.clear()
    async with calling(APPLICATION) as client:
        answer = await client.request(method, path, content=content, headers=headers)
    assert answer.status_code < 500, (answer.status_code, answer.text, method, path, content[:2000])
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    for span in SPANS.rows.values():
        row_of(span)
    return answer.status_code


BOUNDED = settings(max_examples=300, suppress_health_check=list(HealthCheck))


@BOUNDED
@given(hostile_json())
async def test_no_json_body_makes_a_5xx(case: tuple[str, str, bytes]) -> None:
    method, path, content = case
    await check(method, path, content, {"content-type": "application/json"})


@BOUNDED
@given(st.data())
async def test_no_protobuf_body_makes_a_5xx(data: st.DataObject) -> None:
    request = message("a", "b")
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="k").value.array_value.values.add().kvlist_value.values.add(key="q").value.double_value = float("nan")
    span.events.add(name="e", time_unix_nano=2**64 - 1)
    span.links.add(trace_id=b"1", span_id=b"2")
    content = request.SerializeToString()
    for _ in range(data.draw(st.integers(1, 4))):
        content = data.draw(cut(content))
    await check("POST", "/v1/traces", content, {"content-type": "application/x-protobuf"})


@BOUNDED
@given(st.data())
async def test_no_compressed_body_makes_a_5xx(data: st.DataObject) -> None:
    content = data.draw(cut(gzip.compress(orjson.dumps(OTLP))))
    encoding = data.draw(st.sampled_from(["gzip", "deflate"]))
    await check("POST", "/v1/traces", content, {"content-type": "application/json", "content-encoding": encoding})


@pytest.mark.parametrize(("method", "path", "content"), TARGETS, ids=[f"{method} {path}" for method, path, _ in TARGETS])
async def test_the_bodies_that_are_mutated_are_good_ones(method: str, path: str, content: Any) -> None:
    assert await check(method, path, orjson.dumps(content), {"content-type": "application/json"}) < 300


def nested(depth: int, make: Callable[[Any], Any], inmost: Any) -> Any:
    for _ in range(depth):
        inmost = make(inmost)
    return inmost


@pytest.mark.parametrize("depth", [30, 60, 200, 900])
async def test_depth_is_cut_or_refused(depth: int) -> None:
    value = nested(depth // 4, lambda inside: {"arrayValue": {"values": [inside]}}, {"intValue": "1"})
    content = json.dumps(body(example(attributes=[{"key": "k", "value": value}]))).encode()
    assert await check("POST", "/v1/traces", content, {"content-type": "application/json"}) in (200, 400)
    content = json.dumps(dict(WHOLE, input=nested(depth, lambda inside: [inside], 1))).encode()
    assert await check("POST", f"{PRIVATE}/spans", content, {"content-type": "application/json"}) in (201, 400)
