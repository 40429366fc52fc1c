"""What a span may hold and PostgreSQL may not: it is replaced, and its place is named in the attribute `e2i.cleaned`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from e2i.domain.telemetry import SpanEvent, SpanLink, SpanRecord, SpanStatus
from e2i.observability.attributes import CLEANED

LATEST_NS = 2**63 - 1
_INTEGERS = range(-(2**63), 2**64)
_LONGEST_DIGITS = 13_000
"""bits of an integer that Python writes in decimal"""
_DEEPEST = 32
_TEXTS = ("name", "kind", "service", "scope", "origin")


def cleaned(span: SpanRecord) -> SpanRecord:
    """The span as PostgreSQL can hold it."""
    marks: set[str] = set()
    texts: dict[str, Any] = {name: _text(getattr(span, name), name, marks) for name in _TEXTS}
    for name in ("parent_span_id", "status_message"):
        value = getattr(span, name)
        texts[name] = None if value is None else _text(value, name, marks)
    if span.status not in get_args(SpanStatus):
        marks.add("status")
        texts["status"] = "unset"
    attributes = _mapping(span.attributes, "", marks)
    events = tuple(
        SpanEvent(
            name=_text(event.name, "events", marks),
            at_ns=_time(event.at_ns, "events", marks),
            attributes=_mapping(event.attributes, "events", marks),
        )
        for event in span.events
    )
    links = tuple(
        SpanLink(
            trace_id=_text(link.trace_id, "links", marks),
            span_id=_text(link.span_id, "links", marks),
            attributes=_mapping(link.attributes, "links", marks),
        )
        for link in span.links
    )
    started_ns = _time(span.started_ns, "started_ns", marks)
    ended_ns = None if span.ended_ns is None else _time(span.ended_ns, "ended_ns", marks)
    if marks:
        attributes[CLEANED] = sorted(marks)
    return replace(span, **texts, started_ns=started_ns, ended_ns=ended_ns, attributes=attributes, events=events, links=links)


def _time(value: int, place: str, marks: set[str]) -> int:
    kept = min(max(value, 0), LATEST_NS)
    if kept != value:
        marks.add(place)
    return kept


def _text(value: object, place: str, marks: set[str]) -> str:
    text = value if isinstance(value, str) else str(value)
    # Two surrogates that are a pair become the character that they mean.
    kept = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    if kept != value:
        marks.add(place)
    return kept


def _mapping(values: Mapping[Any, Any], place: str, marks: set[str], depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found_marks: set[str] = set()
        name = _text(key, "key", found_marks)
        found[name] = _value(value, name, found_marks, depth)
        if found_marks:
            marks.add(place or name)
    return found


def _value(value: Any, place: str, marks: set[str], depth: int) -> Any:
    if depth < _DEEPEST and isinstance(value, Mapping):
        return _mapping(value, place, marks, depth + 1)
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_value(item, place, marks, depth + 1) for item in value]
    if isinstance(value, float):
        return _float(float(value), place, marks)
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(int(value), place, marks)
    return value if value is None or isinstance(value, bool) else _text(value, place, marks)


def _float(value: float, place: str, marks: set[str]) -> object:
    if not math.isfinite(value):
        marks.add(place)
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def _integer(value: int, place: str, marks: set[str]) -> int | str:
    if value in _INTEGERS:
        return value
    marks.add(place)
    return str(value) if value.bit_length() < _LONGEST_DIGITS else f"{value >> value.bit_length() - 256:#x}… ({value.bit_length()} bits)"
