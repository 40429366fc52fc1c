"""OTLP's JSON encoding: protobuf's JSON mapping with hexadecimal ids. Unknown fields are passed over, null means not set."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from e2i.api.bodies import Place, json_object
from e2i.api.otlp_proto import CUT, MOST_DEPTH, too_many
from e2i.api.otlp_spans import Batch, RawEvent, RawLink, RawSpan

MEDIA_TYPE = "application/json"
_UINT64 = 2**64 - 1
_INT64 = 2**63
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")


def read(body: bytes, *, max_spans: int) -> list[Batch]:
    """The batches of an ExportTraceServiceRequest; spans are made only when asked for.

    Raises
    ------
    Refused
        400 with the place of what is not as the mapping wants it, 413 for more than `max_spans`.
    """
    root = Place(json_object(body), "")
    batches: list[Batch] = []
    total = 0
    for resource_spans in _objects(root, "resourceSpans", "resource_spans"):
        resource = _attributes(resource_spans.member("resource"))
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            told = scope_spans.value("spans")
            total += len(told) if isinstance(told, list) else 0
            if total > max_spans:
                raise too_many(max_spans)
            scope = scope_spans.member("scope").text("name")
            batches.append(Batch(resource=resource, scope=scope, where=f"{scope_spans.path}.spans", spans=partial(_spans, scope_spans)))
    return batches


def respond(rejected: int, message: str) -> bytes:
    """An ExportTraceServiceResponse; int64 stands as text."""
    import orjson

    return orjson.dumps({"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}} if rejected else {})


def _objects(place: Place, *names: str) -> list[Place]:
    """The members of a list of objects, whichever of its two names it carries."""
    return [item for name in names for item in place.items(name)]


def _spans(scope_spans: Place) -> list[RawSpan]:
    return [_span(span) for span in scope_spans.items("spans")]


def _span(span: Place) -> RawSpan:
    status = span.member("status")
    return RawSpan(
        trace_id=_hex(span.text("traceId", "trace_id")),
        span_id=_hex(span.text("spanId", "span_id")),
        parent_span_id=_hex(span.text("parentSpanId", "parent_span_id")),
        name=span.text("name"),
        kind=_choice(span, "kind", "SPAN_KIND_", _KINDS),
        started_ns=_time(span, "startTimeUnixNano", "start_time_unix_nano"),
        ended_ns=_time(span, "endTimeUnixNano", "end_time_unix_nano"),
        status=_choice(status, "code", "STATUS_CODE_", _STATUSES),
        status_message=status.text("message"),
        attributes=_attributes(span),
        events=[
            RawEvent(name=event.text("name"), at_ns=_time(event, "timeUnixNano", "time_unix_nano"), attributes=_attributes(event))
            for event in span.items("events")
        ],
        links=[
            RawLink(
                trace_id=_hex(link.text("traceId", "trace_id")), span_id=_hex(link.text("spanId", "span_id")), attributes=_attributes(link)
            )
            for link in span.items("links")
        ],
    )


def _hex(text: str) -> bytes:
    """The id's bytes; what is no hexadecimal number comes out with a length that no id has."""
    try:
        return bytes.fromhex(text) if text.isalnum() else text.encode()[:64]
    except ValueError:
        return b"\1" * 17


def _time(place: Place, *names: str) -> int:
    return place.whole(*names, smallest=0, largest=_UINT64)


def _choice(place: Place, name: str, prefix: str, names: tuple[str, ...]) -> int:
    """An enum's number; its name is understood too. An unknown number is kept for the caller to judge."""
    value = place.value(name)
    if isinstance(value, str) and value.removeprefix(prefix) in names:
        return names.index(value.removeprefix(prefix))
    return place.whole(name, smallest=-(2**31), largest=2**31 - 1)


def _attributes(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in place.items("attributes"):
        value = _value(pair.member("value"), 0)
        if value is not None:
            found[pair.text("key")] = value
    return found


def _value(place: Place, depth: int) -> Any:
    for name, read_one in _VALUES.items():
        if place.value(name) is not None:
            return read_one(place, name, depth)
    return None


def _string(place: Place, name: str, _: int) -> str:
    return place.text(name)


def _boolean(place: Place, name: str, _: int) -> bool:
    value = place.value(name)
    if not isinstance(value, bool):
        raise place.wrong(name, "true or false")
    return value


def _integer(place: Place, name: str, _: int) -> int:
    return place.whole(name, smallest=-_INT64, largest=_INT64 - 1)


def _double(place: Place, name: str, _: int) -> float:
    value = place.value(name)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise place.wrong(name, "a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise place.wrong(name, "a number")
    return float(value) if abs(value) < 1e308 else math.copysign(math.inf, value)


def _bytes(place: Place, name: str, _: int) -> str:
    text = place.text(name)
    padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    try:
        return base64.b64encode(base64.b64decode(padded, validate=True)).decode()
    except (binascii.Error, ValueError):
        raise place.wrong(name, "bytes in base64") from None


def _array(place: Place, name: str, depth: int) -> Any:
    if depth >= MOST_DEPTH:
        return CUT
    return [_value(item, depth + 1) for item in place.member(name).items("values")]


def _pairs(place: Place, name: str, depth: int) -> Any:
    if depth >= MOST_DEPTH:
        return CUT
    return {pair.text("key"): _value(pair.member("value"), depth + 1) for pair in place.member(name).items("values")}


_READERS: tuple[tuple[str, str, Callable[[Place, str, int], Any]], ...] = (
    ("stringValue", "string_value", _string),
    ("intValue", "int_value", _integer),
    ("boolValue", "bool_value", _boolean),
    ("doubleValue", "double_value", _double),
    ("arrayValue", "array_value", _array),
    ("kvlistValue", "kvlist_value", _pairs),
    ("bytesValue", "bytes_value", _bytes),
)
_VALUES = {name: read_one for camel, snake, read_one in _READERS for name in (camel, snake)}
