"""An OpenTelemetry collector for tests: takes `POST /v1/traces` in protobuf, checks it as the protocol says, keeps the spans.

    with OtlpServer() as server:
        OtlpExporter(f"{server.url}/v1/traces")
    server.spans        # by (trace id, span id), in hexadecimal
    server.received     # with repetitions

For a poison record see `FaultyServer`; with `refuses_in_part` it is left out by a partial success instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from faulty_http import FaultyServer, Mode, Refused, Reply, Request

__all__ = ["Mode", "OtlpServer"]


@dataclass
class OtlpServer(FaultyServer):
    """See the module."""

    refuses_in_part: bool = False
    spans: dict[tuple[str, str], Any] = field(default_factory=dict)
    services: dict[tuple[str, str], str] = field(default_factory=dict)
    received: int = 0

    def respond(self, request: Request) -> Reply:
        """See FaultyServer."""
        if (request.method, request.path) != ("POST", "/v1/traces"):
            raise Refused(404, "only POST /v1/traces is here")
        if request.headers.get("content-type") != "application/x-protobuf":
            raise Refused(415, "protobuf is wanted")
        message = ExportTraceServiceRequest()
        try:
            message.ParseFromString(request.body)
        except DecodeError as error:
            raise Refused(400, f"not an ExportTraceServiceRequest: {error}") from error
        found = [(_service(block), span) for block in message.resource_spans for scope in block.scope_spans for span in scope.spans]
        for _, span in found:
            _check(span)
        bad = [span for _, span in found if span.name == self.poison]
        if bad and not self.refuses_in_part:
            raise Refused(self.poison_status, f"span {bad[0].span_id.hex()} is not welcome")
        for service, span in found:
            if span not in bad:
                key = (span.trace_id.hex(), span.span_id.hex())
                self.spans[key], self.services[key] = span, service
                self.received += 1
        answer = ExportTraceServiceResponse()
        if bad:
            answer.partial_success.rejected_spans = len(bad)
            answer.partial_success.error_message = "some are not welcome"
        return Reply(200, answer.SerializeToString(), "application/x-protobuf")

    def attributes(self, key: tuple[str, str]) -> dict[str, Any]:
        """A received span's attributes as plain values."""
        return {pair.key: plain(pair.value) for pair in self.spans[key].attributes}


def plain(value: Any) -> Any:
    """An AnyValue as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def _service(block: Any) -> str:
    return next((str(plain(pair.value)) for pair in block.resource.attributes if pair.key == "service.name"), "")


def _check(span: Any) -> None:
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise Refused(400, "a trace id has 16 bytes, not all zero")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise Refused(400, "a span id has 8 bytes, not all zero")
    if span.parent_span_id and len(span.parent_span_id) != 8:
        raise Refused(400, "a parent's id has 8 bytes")
    if not span.name or not span.start_time_unix_nano or span.end_time_unix_nano < span.start_time_unix_nano:
        raise Refused(400, "a span has a name, a start and an end")
