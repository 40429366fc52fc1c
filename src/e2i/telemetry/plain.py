"""Values that JSON has no word for, made plain with a marker: the way of the few spans that cannot be written as they are.

A foreign object is named by its type and never asked for its text: that could hold anything, take any time, or raise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from e2i.domain.telemetry import SpanRecord
from e2i.observability.attributes import TRUNCATED

_DEEPEST = 8
_LONGEST = 1_000
"""items of a list or mapping"""
_DIGITS = 40
_LISTED = 16
"""events and links of a span that is too large"""
_KEY = 1_000
_ALL = "*"
_INT64 = range(-(2**63), 2**64)


def plain(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 - one per kind of value
    """The value as JSON can hold it. Never raises for what OpenTelemetry lets through, whatever it nests."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if type(value) is str else plain(str.__str__(value))
    if isinstance(value, int):
        return _whole(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if depth >= _DEEPEST:
        return f"[{type(value).__name__} below {_DEEPEST} levels]"
    if isinstance(value, Mapping):
        return {_key(key): plain(item, depth + 1) for key, item in _first(value.items(), len(value))}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item, depth + 1) for item in _first(value, len(value))]
    return f"[{type(value).__name__}]"


def attributes(found: Mapping[Any, Any] | None) -> dict[str, Any]:
    """A mapping of attributes, each value made plain."""
    return {_key(key): plain(value) for key, value in (found or {}).items()}


def shorten(span: SpanRecord, most_bytes: int) -> SpanRecord:
    """A span that is too large with fewer events and links and, where that is not enough, only the beginnings of its texts."""
    events, links = span.events[:_LISTED], span.links[:_LISTED]
    share = most_bytes // (8 * (1 + len(span.attributes) + sum(1 + len(event.attributes) for event in events) + 4 * len(links)))
    found = {key[:_KEY]: _cut(value, share) for key, value in list(span.attributes.items())[:_LONGEST]}
    return replace(
        span,
        name=span.name[:_KEY],
        status_message=None if span.status_message is None else span.status_message[:_KEY],
        attributes={**found, TRUNCATED: [_ALL]},
        events=tuple(replace(event, name=event.name[:_KEY], attributes={}) for event in events),
        links=tuple(replace(link, attributes={}) for link in links),
    )


def _cut(value: Any, share: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= share else f"{value[:share]}…"
    return f"[{type(value).__name__}: cut]" if isinstance(value, list | dict) else value


def _key(key: Any) -> str:
    return str(plain(key))


def _whole(value: int) -> int | str:
    if value in _INT64:
        return value
    bits = value.bit_length()
    return str(value) if bits < 3 * _DIGITS else f"[int of {bits} bits]"


def _first(items: Any, count: int) -> list[Any]:
    """Not more than what a span should hold."""
    return [item for item, _ in zip(items, range(min(count, _LONGEST)), strict=False)]
