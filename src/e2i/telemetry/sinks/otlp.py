"""OTLP over HTTP, as protobuf: MLflow's trace store and any OpenTelemetry collector.

The SDK's own exporter is not used: it exports spans of the SDK, retries in memory and cannot say which place in the spool was confirmed.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from e2i.errors import BackendRejected, BackendUnavailable
from e2i.observability import attributes as names
from e2i.telemetry.sinks.http import Answer, HttpEndpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from e2i.domain.telemetry import SpanRecord

PROTOBUF = "application/x-protobuf"
_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_STATUS = {"unset": 0, "ok": 1, "error": 2}
_INT64 = 1 << 63
_TRACE_BYTES, _SPAN_BYTES = 16, 8


class OtlpExporter:
    """An Exporter to one address, which is the whole URL, `…/v1/traces` included.

    Parameters
    ----------
    name : of the sink; it names the cursor file, so that two collectors need two names
    headers : for instance authorization, or `x-mlflow-experiment-id` for MLflow
    """

    def __init__(
        self, url: str, *, name: str = "otlp", headers: Mapping[str, str] | None = None, batch_size: int = 100, timeout_s: float = 10.0
    ) -> None:
        self.name = name
        self.batch_size = batch_size
        self._endpoint = HttpEndpoint(url, name=name, headers=dict(headers or {}), timeout_s=timeout_s)

    async def send(self, spans: Sequence[SpanRecord]) -> int:
        """See Exporter. What a partial success refuses may not be sent again, and it does not say which spans: they are counted."""
        try:
            body = request_of(spans).SerializeToString()
        except Exception as exc:
            raise BackendRejected(f"a span cannot be written as OTLP: {exc!r}", where=self.name) from exc
        answer = await self._endpoint.send("POST", "", body, PROTOBUF)
        return min(len(spans), self._refused(answer))

    async def close(self) -> None:
        """See Exporter."""
        await self._endpoint.close()

    def _refused(self, answer: Answer) -> int:
        from google.protobuf.json_format import Parse, ParseError  # type: ignore[import-untyped]
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        found = ExportTraceServiceResponse()
        try:
            if answer.content_type.startswith("application/json"):
                Parse(answer.body or b"{}", found, ignore_unknown_fields=True)
            elif not answer.body or answer.content_type.startswith(PROTOBUF):
                found.ParseFromString(answer.body)
            else:
                raise self._unclear(answer)
        except (DecodeError, ParseError, UnicodeDecodeError) as exc:
            raise self._unclear(answer) from exc
        return max(0, int(found.partial_success.rejected_spans))

    def _unclear(self, answer: Answer) -> BackendUnavailable:
        return self._endpoint.unclear("", answer)


def request_of(spans: Sequence[SpanRecord]) -> ExportTraceServiceRequest:
    """One request: spans by service and scope."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    groups: defaultdict[str, defaultdict[str, list[SpanRecord]]] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        groups[span.service][span.scope].append(span)
    for service, scopes in groups.items():
        resource = request.resource_spans.add()
        _fill(resource.resource.attributes.add(), "service.name", service)
        for scope, members in scopes.items():
            block = resource.scope_spans.add()
            block.scope.name = scope
            block.schema_url = names.SCHEMA_URL
            for span in members:
                _write(block.spans.add(), span)
    return request


def _write(message: Span, span: SpanRecord) -> None:
    message.trace_id = _id(span.trace_id, _TRACE_BYTES)
    message.span_id = _id(span.span_id, _SPAN_BYTES)
    if span.parent_span_id:
        message.parent_span_id = _id(span.parent_span_id, _SPAN_BYTES)
    message.name = span.name
    message.kind = _KINDS.get(span.kind, 1)  # type: ignore[assignment]
    message.start_time_unix_nano = span.started_ns
    message.end_time_unix_nano = span.started_ns if span.ended_ns is None else span.ended_ns
    message.status.code = _STATUS.get(span.status, 0)  # type: ignore[assignment]
    if span.status_message:
        message.status.message = span.status_message
    _add_all(message.attributes, span.attributes)
    for event in span.events:
        item = message.events.add(name=event.name, time_unix_nano=event.at_ns)
        _add_all(item.attributes, event.attributes)
    for link in span.links:
        joint = message.links.add(trace_id=_id(link.trace_id, _TRACE_BYTES), span_id=_id(link.span_id, _SPAN_BYTES))
        _add_all(joint.attributes, link.attributes)


def _add_all(target: Any, found: Mapping[str, Any]) -> None:
    for key, value in found.items():
        if value is not None:
            _fill(target.add(), key, value)


def _fill(pair: KeyValue, key: str, value: Any) -> None:
    pair.key = key
    _set(pair.value, value)


def _set(target: AnyValue, value: Any) -> None:
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int) and -_INT64 <= value < _INT64:
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, list | tuple):
        target.array_value.SetInParent()
        for item in value:
            _set(target.array_value.values.add(), item)
    elif isinstance(value, dict):
        target.kvlist_value.SetInParent()
        _add_all(target.kvlist_value.values, value)
    elif value is not None:
        target.string_value = str(value)


def _id(text: str, size: int) -> bytes:
    """An id as bytes. A span id of 32 digits, as Opik's SDK gives, is cut to its later half, which is the random one."""
    found = bytes.fromhex(text)
    if len(found) == size or (size == _SPAN_BYTES and len(found) == _TRACE_BYTES):
        return found[-size:]
    raise ValueError(f"an id of {2 * size} hexadecimal digits is needed, not {text!r}")
