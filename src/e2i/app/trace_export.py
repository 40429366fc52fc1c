"""Spans as JSON: a plain object per span, and OTLP/JSON that any OpenTelemetry receiver takes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from e2i.observability.attributes import ORIGINAL_ID, SCHEMA_URL, UNFINISHED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from e2i.domain.telemetry import SpanRecord, StoredSpan

REQUEST_BYTES = 4_000_000
"""a line of OTLP/JSON is closed at about this size: receivers refuse larger requests (4 MiB is the smallest usual limit)"""
_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_STATUS = {"unset": 0, "ok": 1, "error": 2}
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def span_to_dict(stored: StoredSpan) -> dict[str, Any]:
    """A span and its columns in one flat object; times as text in UTC and exactly, in nanoseconds since 1970."""
    span = stored.span
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "started_at": iso(span.started_ns),
        "ended_at": None if span.ended_ns is None else iso(span.ended_ns),
        "duration_ms": span.duration_ms,
        **asdict(stored.columns),
        "started_ns": span.started_ns,
        "ended_ns": span.ended_ns,
        "span_status": span.status,
        "status_message": span.status_message,
        "kind": span.kind,
        "service": span.service,
        "scope": span.scope,
        "origin": span.origin,
        "attributes": span.attributes,
        "events": [asdict(event) for event in span.events],
        "links": [asdict(link) for link in span.links],
    }


def iso(ns: int) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def compact(value: Any) -> str:
    """JSON on one line; what JSON cannot carry (NaN, infinities) is null."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


async def json_array(batches: AsyncIterator[list[StoredSpan]]) -> AsyncIterator[tuple[str, int]]:
    """One JSON array, a span per line, in pieces; each with the number of spans in it."""
    opening = "[\n"
    async for batch in batches:
        if batch:
            yield opening + ",\n".join(compact(span_to_dict(each)) for each in batch), len(batch)
            opening = ",\n"
    yield "[]\n" if opening == "[\n" else "\n]\n", 0


async def otlp_lines(batches: AsyncIterator[list[StoredSpan]], *, limit: int = REQUEST_BYTES) -> AsyncIterator[tuple[str, int]]:
    """Lines of OTLP/JSON (the OTLP file format), each a whole ExportTraceServiceRequest of about `limit` bytes at most."""
    waiting: dict[tuple[str, str], list[str]] = defaultdict(list)
    size = count = 0
    async for batch in batches:
        for each in batch:
            text = compact(otlp_span(each.span))
            length = len(text.encode("utf-8", "replace"))
            if size and size + length > limit:
                yield _request(waiting), count
                waiting.clear()
                size = count = 0
            waiting[each.span.service, each.span.scope].append(text)
            size, count = size + length + 1, count + 1
    if count:
        yield _request(waiting), count


def _request(spans: Mapping[tuple[str, str], Sequence[str]]) -> str:
    by_service: dict[str, list[str]] = defaultdict(list)
    for (service, scope), texts in spans.items():
        by_service[service].append(f'{{"scope":{compact({"name": scope})},"spans":[{",".join(texts)}],"schemaUrl":"{SCHEMA_URL}"}}')
    resources = (
        f'{{"resource":{{"attributes":{compact(_attributes({"service.name": service}))}}},"scopeSpans":[{",".join(scopes)}]}}'
        for service, scopes in by_service.items()
    )
    return f'{{"resourceSpans":[{",".join(resources)}]}}\n'


def otlp_span(span: SpanRecord) -> dict[str, Any]:
    """A span in OTLP/JSON: ids in hexadecimal, 64-bit numbers as text, enumerations as numbers.

    An id that has not the length OpenTelemetry asks for (an Opik SDK's UUIDs) is cut to its last digits, the same way everywhere, and
    kept whole in `e2i.span.original_id`. A span that has not ended gets its start as end and `e2i.span.unfinished`.
    """
    more: dict[str, Any] = {}
    if span.ended_ns is None:
        more[UNFINISHED] = True
    if otlp_id(span.span_id, 16) != span.span_id:
        more[ORIGINAL_ID] = span.span_id
    found: dict[str, Any] = {
        "traceId": otlp_id(span.trace_id, 32),
        "spanId": otlp_id(span.span_id, 16),
        "name": span.name,
        "kind": _KINDS.get(span.kind, 1),
        "startTimeUnixNano": str(span.started_ns),
        "endTimeUnixNano": str(span.started_ns if span.ended_ns is None else span.ended_ns),
        "attributes": _attributes({**span.attributes, **more}),
        "events": [
            {"timeUnixNano": str(event.at_ns), "name": event.name, "attributes": _attributes(event.attributes)} for event in span.events
        ],
        "links": [
            {"traceId": otlp_id(link.trace_id, 32), "spanId": otlp_id(link.span_id, 16), "attributes": _attributes(link.attributes)}
            for link in span.links
        ],
        "status": {"code": _STATUS[span.status], **({"message": span.status_message} if span.status_message else {})},
    }
    if span.parent_span_id:
        found["parentSpanId"] = otlp_id(span.parent_span_id, 16)
    return found


def otlp_id(text: str, digits: int) -> str:
    """An id of `digits` lower-case hexadecimal digits, not all zero: itself where it is one, its last digits, or a digest."""
    plain = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]+", plain) or len(plain) < digits or not plain[-digits:].strip("0"):
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=digits // 2).hexdigest()
    return plain[-digits:]


def _attributes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in found.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)} if _SMALLEST <= value <= _LARGEST else {"stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes({str(key): item for key, item in value.items()})}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {} if value is None else {"stringValue": str(value)}
