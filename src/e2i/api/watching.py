"""Around every request: it is counted, HEAD is understood, and what a person asks for is a span of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from e2i.observability import attributes as names
from e2i.observability.propagation import FIELDS, attached, carrier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from e2i.api.counters import Counters

_UNKNOWN_ROUTE = "unknown"
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Counting:
    """ASGI middleware: counts by route and status, and answers HEAD as GET without the body."""

    def __init__(self, app: ASGIApp, *, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        inner = dict(scope, method="GET") if scope["method"] == "HEAD" else scope
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            elif inner is not scope:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(inner, receive, watched)
        finally:
            self._counters.request(getattr(inner.get("route"), "path", _UNKNOWN_ROUTE), status)


class Tracing:
    """ASGI middleware: a span around each request below `prefix`, continuing the caller's trace.

    The routes that take spans in are outside: a span about every request with spans would never end.
    """

    def __init__(self, app: ASGIApp, *, prefix: str, but: str) -> None:
        self._app = app
        self._prefix = prefix
        self._but = but

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix) or scope["path"].startswith(self._but):
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        told = {"http.request.method": method, "url.path": scope["path"], names.OPERATION: "http"}
        tracer = trace.get_tracer("e2i")
        with (
            attached(_incoming(scope["headers"])),
            tracer.start_as_current_span(method, kind=SpanKind.SERVER, attributes=told, record_exception=False) as current,
        ):
            await self._app(scope, receive, _telling(current, carrier().get("traceparent"), send))
            route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
            current.update_name(f"{method} {route}")
            current.set_attribute("http.route", route)


def _incoming(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of the caller's trace; one that comes twice is a list, as HTTP has it."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in FIELDS:
            found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _telling(current: trace.Span, traceparent: str | None, send: Send) -> Send:
    """`send` that notes the status and names the server's span to the caller."""

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start":
            current.set_attribute("http.response.status_code", message["status"])
            if message["status"] >= 500:
                current.set_status(Status(StatusCode.ERROR))
            if traceparent:
                message = {**message, "headers": [*message["headers"], (b"traceparent", traceparent.encode())]}
        await send(message)

    return watched
