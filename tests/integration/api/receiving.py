"""The receiver as it runs, uvicorn on a port of its own, and what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from e2i.api.app import create_app, serve
from e2i.api.receiver import ReceiverPorts, ReceiverSettings
from e2i.telemetry.redaction import Redactor, SpanLimits


async def no_metrics() -> str:
    return ""


def redactor() -> Redactor:
    words = ("password", "api_key", "secret", "token", "authorization")
    return Redactor(SpanLimits(True, True, 10240, 10240, 4096, words))


def application(spans: Any, *, breaker: Any = None, **settings: Any) -> FastAPI:
    """The application over `spans`."""
    merges = settings.pop("merges", spans)
    ports = ReceiverPorts(spans=spans, merges=merges, redactor=redactor(), metrics=no_metrics, breaker=breaker)
    return create_app(ports, ReceiverSettings(**settings))


def calling(app: FastAPI) -> httpx.AsyncClient:
    """A client that calls the application without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://127.0.0.1", timeout=30)


@asynccontextmanager
async def serving(spans: Any, *, breaker: Any = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a receiver that runs over `spans`, on a port of its own."""
    app = application(spans, breaker=breaker, **settings)
    stop = asyncio.Event()
    address: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(serve(app, "127.0.0.1", 0, stop, started=lambda host, port: address.set_result((host, port))))
    await asyncio.wait((running, address), return_when=asyncio.FIRST_COMPLETED)
    host, port = address.result()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=30) as client:
        yield client
        stop.set()
        await running


PROTOBUF = {"content-type": "application/x-protobuf"}


def example(**changes: Any) -> dict[str, Any]:
    """A span by the official mapping."""
    span = {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "EEE19B7EC3C1B173",
        "name": "I'm a server span",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
        "kind": 2,
        "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}],
    }
    return span | changes


def body(*spans: Any, service: str = "my.service") -> dict[str, Any]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "my.library"}, "spans": list(spans)}]}]}


def message(*names: str, trace_id: bytes = b"\1" * 16) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for index, name in enumerate(names):
        scope.spans.add(
            trace_id=trace_id, span_id=bytes([0, 0, 0, 0, 0, 0, 1, index]), name=name, start_time_unix_nano=10, end_time_unix_nano=20
        )
    return request


JSON = {"content-type": "application/json"}
HEAD = b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"


def told(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem, after checking that it is one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert (content["status"], bool(content["title"]), bool(content["detail"])) == (status, True, True)
    return dict(content)
