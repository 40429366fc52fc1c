"""Spans of the SDK, made without its second look at plain values: the same objects to whoever reads them, for a third of the time.

The SDK copies and checks each value through a recursion, opens two lists nobody fills and copies the span at its end. Here a span is
the SDK's own class, filled from a pattern that the SDK itself made. Where the SDK's span is not as this file knows it, or a value is
not plain, the SDK's own way is taken.
"""

# ruff: noqa: SLF001 - see above

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from e2i.telemetry.relay import Relay

if TYPE_CHECKING:
    from opentelemetry.trace import Link, SpanContext

_PLAIN = frozenset((str, int, float, bool))
_FIELDS = frozenset((
    "_attributes", "_context", "_end_time", "_events", "_instrumentation_info", "_instrumentation_scope", "_kind", "_limits", "_links",
    "_lock", "_name", "_parent", "_record_end_metrics", "_record_exception", "_resource", "_sampler", "_set_status_on_exception",
    "_span_processor", "_start_time", "_status", "_trace_config",
))  # fmt: skip
_FIELDS_OF_ATTRIBUTES = frozenset(("_dict", "_immutable", "_lock", "dropped", "max_value_len", "maxlen"))
_KEYS: set[str] = set()
"""names of attributes that are text and not empty"""
_MOST_KEYS = 4096
_now, _lock, _new = time.time_ns, threading.Lock, object.__new__


class QuickSpan(sdk._Span):
    """A span whose lists of events and links are made when the first one comes, and that is not copied for our own processor."""

    _attributes: BoundedAttributes
    _span_processor: sdk.SynchronousMultiSpanProcessor

    # Asked for while the span's lock is held, as long as it is open.
    @cached_property
    def _events(self) -> BoundedList[sdk.Event]:  # type: ignore[override]
        return BoundedList(self._limits.max_events)

    @cached_property
    def _links(self) -> BoundedList[Link]:  # type: ignore[override]
        return BoundedList(self._limits.max_links)

    def set_attribute(self, key: str, value: Any) -> None:
        """See the SDK."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """See the SDK."""
        held = self._attributes
        if are_plain(attributes):
            with self._lock:
                known = held._dict
                if self._end_time is None and (held.maxlen is None or len(known) + len(attributes) <= held.maxlen):
                    for key, value in attributes.items():
                        known.pop(key, None)  # a new value stands last, as in the SDK
                        known[key] = value
                    return
        super().set_attributes(attributes)

    def end(self, end_time: int | None = None) -> None:
        """See the SDK. Nothing of a span changes behind its end, so that our own processor needs no copy."""
        processors = self._span_processor._span_processors
        if len(processors) != 1 or type(processors[0]) is not Relay:
            super().end(end_time)
            return
        with self._lock:
            is_first = self._end_time is None
            if is_first:
                self._end_time = _now() if end_time is None else end_time
                self._attributes._immutable = True
        if is_first:
            processors[0].on_end(self)
        else:
            super().end(end_time)  # which says that it ended before


def are_plain(attributes: Mapping[str, Any]) -> bool:
    """Whether the SDK would keep these attributes as they are, if it has room for them."""
    if type(attributes) is not dict:
        return False
    return (_KEYS.issuperset(attributes) and _PLAIN.issuperset(map(type, attributes.values()))) or _are_plain(attributes)


def _are_plain(attributes: dict[Any, Any]) -> bool:
    for key, value in attributes.items():
        kind = type(value)
        if type(key) is not str or not key or (kind not in _PLAIN and (kind is not tuple or not _PLAIN.issuperset(map(type, value)))):
            return False
    if len(_KEYS) >= _MOST_KEYS:  # a stranger's names, new ones every time
        _KEYS.clear()
    _KEYS.update(attributes)
    return True


def pattern(tracer: sdk.Tracer) -> dict[str, Any] | None:
    """The fields of a span of this tracer.

    None when its spans, attributes or processors are not as this file knows them, when they are counted or when long values are cut.
    """
    metrics = getattr(tracer, "_tracer_metrics", None)
    if type(metrics).__name__ != "NoOpTracerMetrics" or type(tracer.span_processor) is not sdk.SynchronousMultiSpanProcessor:
        return None
    if tracer._span_limits.max_span_attribute_length is not None:
        return None
    span = sdk._Span(
        "pattern",
        INVALID_SPAN_CONTEXT,
        sampler=tracer.sampler,
        resource=tracer.resource,
        span_processor=tracer.span_processor,
        instrumentation_info=tracer.instrumentation_info,
        limits=tracer._span_limits,
        instrumentation_scope=tracer._instrumentation_scope,
    )
    fields = dict(vars(span))
    if fields.keys() != _FIELDS or vars(fields["_attributes"]).keys() != _FIELDS_OF_ATTRIBUTES:
        return None
    del fields["_events"], fields["_links"]
    return fields


def begun(fields: dict[str, Any], name: str, context: SpanContext, attributes: dict[str, Any]) -> QuickSpan:
    """A span with plain attributes that begins now; `fields` is a copy of the pattern, which becomes the span's own."""
    held = _new(BoundedAttributes)
    held._dict = attributes
    held.maxlen, held.max_value_len, held.dropped, held._immutable = fields["_limits"].max_span_attributes, None, 0, False
    held._lock = _lock()
    fields["_name"], fields["_context"], fields["_attributes"], fields["_lock"] = name, context, held, _lock()
    span = _new(QuickSpan)
    span.__dict__ = fields
    return span
