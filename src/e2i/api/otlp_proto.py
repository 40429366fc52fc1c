"""OTLP's protobuf encoding: a body's bytes to batches of spans."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from e2i.api.otlp_spans import Batch, RawEvent, RawLink, RawSpan
from e2i.api.problems import Refused

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

MEDIA_TYPES = ("application/x-protobuf", "application/protobuf")
MOST_DEPTH = 32
CUT = "[too deep]"
"""stands for what lies deeper"""


def read(body: bytes, *, max_spans: int) -> list[Batch]:
    """The batches of an ExportTraceServiceRequest; spans are made only when asked for.

    Raises
    ------
    Refused
        400 when the body is not such a message, 413 when it holds more than `max_spans`.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    if count_spans(body, stop_after=max_spans) > max_spans:
        raise too_many(max_spans)
    try:
        message = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise _not_protobuf(str(error)) from error
    return [
        Batch(
            resource=_attributes(resource_spans.resource.attributes),
            scope=scope_spans.scope.name,
            where=f"resource_spans[{outer}].scope_spans[{inner}].spans",
            spans=partial(_spans, scope_spans.spans),
        )
        for outer, resource_spans in enumerate(message.resource_spans)
        for inner, scope_spans in enumerate(resource_spans.scope_spans)
    ]


def respond(rejected: int, message: str) -> bytes:
    """An ExportTraceServiceResponse."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = message
    return bytes(answer.SerializeToString())


def count_spans(body: bytes, *, stop_after: int) -> int:
    """Spans in the body, counted on the wire: a message of two bytes each would take eighty times that in memory once parsed."""
    count = 0
    for resource_spans in _messages(body, 0, len(body), field=1):
        for scope_spans in _messages(body, *resource_spans, field=2):
            for _ in _messages(body, *scope_spans, field=2):
                count += 1
                if count > stop_after:
                    return count
    return count


def too_many(max_spans: int) -> Refused:
    """The 413 for more spans than one request may carry."""
    return Refused(
        f"the body has more than {max_spans:,} spans.", status=413, where="body", advice="Send fewer spans in one request, a few thousand."
    )


def _messages(body: bytes, start: int, end: int, *, field: int) -> Iterator[tuple[int, int]]:
    """Where the embedded messages of one field begin and end."""
    at = start
    while at < end:
        tag, at = _varint(body, at, end)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(body, at, end)
            if at + size > end:
                raise _not_protobuf("a field reaches beyond the end")
            if tag >> 3 == field:
                yield at, at + size
            at += size
        elif wire == 0:
            _, at = _varint(body, at, end)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise _not_protobuf(f"wire type {wire}")


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _not_protobuf("a number breaks off")


def _spans(spans: Sequence[Span]) -> list[RawSpan]:
    return [_span(span) for span in spans]


def _span(span: Span) -> RawSpan:
    return RawSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        name=span.name,
        kind=span.kind,
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        status=span.status.code,
        status_message=span.status.message,
        attributes=_attributes(span.attributes),
        events=[RawEvent(name=event.name, at_ns=event.time_unix_nano, attributes=_attributes(event.attributes)) for event in span.events],
        links=[RawLink(trace_id=link.trace_id, span_id=link.span_id, attributes=_attributes(link.attributes)) for link in span.links],
    )


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """A later pair of the same key replaces an earlier one; a value that is not set is left out."""
    found: dict[str, Any] = {}
    for pair in pairs:
        value = _value(pair.value, 0)
        if value is not None:
            found[pair.key] = value
    return found


def _value(value: AnyValue, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind in ("array_value", "kvlist_value") and depth >= MOST_DEPTH:
        return CUT
    if kind == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value, depth + 1) for pair in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def _not_protobuf(why: str) -> Refused:
    return Refused(
        f"the body is not an ExportTraceServiceRequest in protobuf: {why.strip() or 'it cannot be decoded'}.",
        where="body",
        advice="Send OTLP's trace message, and name its encoding in Content-Type: application/x-protobuf or application/json.",
    )
