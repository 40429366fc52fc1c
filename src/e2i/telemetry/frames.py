"""What stands in a segment behind its heading: frames with length, number and checksum; in each one span as JSON.

A frame is `magic(2) length(u32) sequence(u64) check(u64) payload`, little endian; `check` is xxh3_64 of the payload with the
sequence as seed.
The magic begins with 0xFF, which UTF-8 never contains, so that the next frame can be found behind a damaged one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, get_args

import orjson
from xxhash import xxh3_64_intdigest

from e2i.domain.telemetry import Origin, SpanEvent, SpanLink, SpanRecord, SpanStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\xff\xe2"
FRAME = struct.Struct("<2sIQQ")
FRAME_HEADER = FRAME.size
MAX_PAYLOAD = 4 * 1024 * 1024
"""bytes; far above what the limits of a span allow"""
_FIELDS = 15
_STATUSES: tuple[SpanStatus, ...] = get_args(SpanStatus)
_ORIGINS: tuple[Origin, ...] = get_args(Origin)


def pack(sequence: int, payload: bytes) -> bytes:
    """One frame."""
    return FRAME.pack(MAGIC, len(payload), sequence, xxh3_64_intdigest(payload, sequence)) + payload


def length_at(start: bytes) -> int | None:
    """The length of the frame that begins here, header included, as it says itself; None when none begins here."""
    if len(start) < FRAME_HEADER:
        return None
    magic, length, _, _ = FRAME.unpack_from(start)
    return FRAME_HEADER + int(length) if magic == MAGIC and length <= MAX_PAYLOAD else None


def good_frames(data: bytes, start: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
    """(first byte, byte behind it, sequence, payload) of every good frame."""
    unpack, size, view = FRAME.unpack_from, len(data), memoryview(data)
    at = data.find(MAGIC, start)
    while at >= 0 and at + FRAME_HEADER <= size:
        _, length, sequence, check = unpack(data, at)
        end = at + FRAME_HEADER + length
        if end <= size and xxh3_64_intdigest(view[at + FRAME_HEADER : end], sequence) == check:
            yield at, end, sequence, data[at + FRAME_HEADER : end]
            at = end if data[end : end + 2] == MAGIC else data.find(MAGIC, end)
        else:
            at = data.find(MAGIC, at + 1)


def encode(span: SpanRecord) -> bytes:
    """A span as a frame's payload. Raises ValueError for what JSON cannot hold."""
    events = [(event.name, event.at_ns, event.attributes) for event in span.events]
    links = [(link.trace_id, link.span_id, link.attributes) for link in span.links]
    values = (
        span.trace_id,
        span.span_id,
        absent(span.parent_span_id),
        span.name,
        span.started_ns,
        absent(span.ended_ns),
        span.status,
        absent(span.status_message),
        span.kind,
        span.service,
        span.scope,
        span.origin,
        span.attributes,
        events,
        links,
    )
    try:
        return orjson.dumps(values)
    except TypeError as error:
        raise ValueError(f"this span cannot be kept: {error}") from error


def absent(value: Any) -> Any:
    """None stands as false in a payload: `null` is what JSON makes of a number that it has no word for."""
    return False if value is None else value


def decode(payload: bytes) -> SpanRecord:
    """The span in a frame's payload. Raises ValueError for what is not a span."""
    values = orjson.loads(payload)
    if not isinstance(values, list) or len(values) != _FIELDS:
        raise ValueError("not a span")
    trace_id, span_id, parent, name, started, ended, status, message, kind, service, scope, origin, attributes, events, links = values
    if not (  # one chain of comparisons: a call per field would cost more than parsing the JSON
        type(trace_id) is type(span_id) is type(name) is type(kind) is type(service) is type(scope) is str
        and type(started) is int
        and (parent is False or type(parent) is str)
        and (ended is False or type(ended) is int)
        and (message is False or type(message) is str)
        and status in _STATUSES
        and origin in _ORIGINS
        and type(attributes) is dict
        and type(events) is type(links) is list
    ):
        raise ValueError("not a span: a field is of another kind")
    return SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=None if parent is False else parent,
        name=name,
        started_ns=started,
        ended_ns=None if ended is False else ended,
        status=status,
        status_message=None if message is False else message,
        kind=kind,
        service=service,
        scope=scope,
        origin=origin,
        attributes=attributes,
        events=tuple([_event(event) for event in events]) if events else (),
        links=tuple([_link(link) for link in links]) if links else (),
    )


def _event(value: Any) -> SpanEvent:
    match value:
        case [str(name), int(at_ns), dict(attributes)] if not isinstance(at_ns, bool):
            return SpanEvent(name=name, at_ns=at_ns, attributes=attributes)
    raise ValueError("not a span: an event is of another kind")


def _link(value: Any) -> SpanLink:
    match value:
        case [str(trace_id), str(span_id), dict(attributes)]:
            return SpanLink(trace_id=trace_id, span_id=span_id, attributes=attributes)
    raise ValueError("not a span: a link is of another kind")
