"""What stands in a segment behind its heading: frames with length, number and checksum; in each one span as JSON.

A frame is `magic(2) length(u32) sequence(u64) check(u64) payload`, little endian; `check` is xxh3_64 of the payload with the
sequence as seed.
The magic begins with 0xFF, which UTF-8 never contains, so that the next frame can be found behind a damaged one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeVar, get_args

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
_Word = TypeVar("_Word", bound=str)


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
    try:
        return SpanRecord(
            trace_id=_text(values[0]),
            span_id=_text(values[1]),
            parent_span_id=None if values[2] is False else _text(values[2]),
            name=_text(values[3]),
            started_ns=_whole(values[4]),
            ended_ns=None if values[5] is False else _whole(values[5]),
            status=_one_of(_STATUSES, values[6]),
            status_message=None if values[7] is False else _text(values[7]),
            kind=_text(values[8]),
            service=_text(values[9]),
            scope=_text(values[10]),
            origin=_one_of(_ORIGINS, values[11]),
            attributes=_mapping(values[12]),
            events=tuple(SpanEvent(name=_text(name), at_ns=_whole(at), attributes=_mapping(found)) for name, at, found in values[13]),
            links=tuple(SpanLink(trace_id=_text(one), span_id=_text(two), attributes=_mapping(found)) for one, two, found in values[14]),
        )
    except TypeError as error:
        raise ValueError(f"not a span: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a span: {value!r} where text stands")  # noqa: TRY004 - one error for every payload that is not a span
    return value


def _one_of(words: tuple[_Word, ...], value: Any) -> _Word:
    for word in words:
        if word == value:
            return word
    raise ValueError(f"not a span: {value!r} where one of {words} stands")


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"not a span: {value!r} where a whole number stands")  # noqa: TRY004 - as above
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"not a span: {value!r} where attributes stand")  # noqa: TRY004 - as above
    return value
