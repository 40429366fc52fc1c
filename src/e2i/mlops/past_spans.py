"""Spans that have happened already, and ids, times and prompts as callers write them.

OpenTelemetry's API cannot give a span its id. Its SDK's processors take any ended span, so one is built for them here.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from e2i.errors import DataError
from e2i.mlops.span_values import text_of
from e2i.observability.ids import span_number as new_span
from e2i.observability.ids import trace_number as new_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

_STATUS = {"success": StatusCode.OK, "ok": StatusCode.OK, "unset": StatusCode.UNSET, "error": StatusCode.ERROR}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


@dataclass(frozen=True, kw_only=True)
class PastSpan:
    """A span with everything known. Ids are numbers as OpenTelemetry has them, times nanoseconds since 1970."""

    name: str
    attributes: dict[str, Any]
    trace_id: int
    span_id: int
    parent_id: int | None
    started_ns: int
    ended_ns: int
    status: Status = field(default_factory=Status)


def emit(tracer: Tracer, past: PastSpan) -> tuple[str, str] | None:
    """Hand it to the processors of the tracer's provider; its ids in hexadecimal, None without an SDK."""
    if not records(tracer):
        return None
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    sdk: Any = tracer
    parent = None if past.parent_id is None else SpanContext(past.trace_id, past.parent_id, is_remote=True, trace_flags=_SAMPLED)
    decision = sdk.sampler.should_sample(None, past.trace_id, past.name, SpanKind.INTERNAL, past.attributes, ())
    if decision.decision.is_sampled():
        sdk.span_processor.on_end(
            ReadableSpan(
                name=past.name,
                context=SpanContext(past.trace_id, past.span_id, is_remote=False, trace_flags=_SAMPLED),
                parent=parent,
                resource=sdk.resource,
                attributes=BoundedAttributes(attributes=past.attributes),
                kind=SpanKind.INTERNAL,
                status=past.status,
                start_time=past.started_ns,
                end_time=past.ended_ns,
                instrumentation_scope=InstrumentationScope("e2i.opik"),
            )
        )
    return f"{past.trace_id:032x}", f"{past.span_id:016x}"


def records(tracer: Tracer) -> bool:
    """Whether an SDK stands behind the tracer."""
    return hasattr(tracer, "span_processor")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span begins that is told its trace."""

    context: Context
    is_root: bool
    """the trace is known, a parent is not"""


def place_of(trace_id: str | None, parent_span_id: str | None) -> Place | None:
    """None: where the caller stands, because that is in the trace already. Raises DataError."""
    if trace_id is None and parent_span_id is None:
        return None
    current = trace.get_current_span().get_span_context()
    known = current.trace_id if current.is_valid else None
    if parent_span_id is None and trace_number(trace_id) == known:
        return None
    if trace_id is None and known is None:
        raise DataError("parent_span_id has no trace.", where="span", advice="Give trace_id too, or open the span inside its trace.")
    remote = SpanContext(trace_number(trace_id, default=known), span_number(parent_span_id), is_remote=True, trace_flags=_SAMPLED)
    return Place(trace.set_span_in_context(NonRecordingSpan(remote)), is_root=parent_span_id is None)


def trace_number(trace_id: str | None, *, default: int | None = None) -> int:
    """A trace id, a new one for None; 32 hexadecimal digits, with or without the hyphens of a UUID. Raises DataError."""
    if trace_id is None:
        return new_trace() if default is None else default
    return _number(trace_id.replace("-", "") if isinstance(trace_id, str) else trace_id, 32, "trace_id")


def span_number(span_id: str | None) -> int:
    """A span id, a new one for None. Raises DataError for anything but 16 hexadecimal digits."""
    return new_span() if span_id is None else _number(span_id, 16, "span_id")


def _number(text: object, digits: int, what: str) -> int:
    if isinstance(text, str) and len(text) == digits:
        try:
            number = int.from_bytes(bytes.fromhex(text))
        except ValueError:
            number = 0
        if number:
            return number
    raise DataError(f"{what} is {text!r}.", where="span", advice=f"Give {digits} hexadecimal digits, not all zero (W3C Trace Context).")


def times(started_at: datetime, ended_at: datetime | None, duration_ms: float | None) -> tuple[int, int]:
    """Start and end in nanoseconds since 1970. Raises DataError for a naive time, or an end before the start."""
    started = _ns(started_at, "started_at")
    if ended_at is not None:
        ended = _ns(ended_at, "ended_at")
    elif duration_ms is None:
        ended = time.time_ns()
    elif isinstance(duration_ms, int | float) and math.isfinite(duration_ms):
        ended = started + round(duration_ms * 1e6)
    else:
        raise DataError(f"duration_ms is {duration_ms!r}.", where="span", advice="Give milliseconds from 0.")
    if ended < started:
        raise DataError("ends before it starts.", where="span", advice="Look at started_at, ended_at, duration_ms and time zones.")
    return started, ended


def _ns(moment: datetime, what: str) -> int:
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise DataError(f"{what} is {moment!r}.", where="span", advice="Give an aware datetime: datetime.now(UTC).")
    return round(moment.timestamp() * 1e6) * 1000


def status_of(status: str, *, error_type: str | None, message: str | None) -> Status:
    """OpenTelemetry's status. An error said without the word is one. Raises DataError for another word."""
    code = _STATUS.get(str(status).lower())
    if code is None:
        raise DataError(f"status is {status!r}.", where="span", advice=f"One of {', '.join(_STATUS)}.")
    if code is not StatusCode.ERROR and (error_type or message):
        raise DataError(f"status is {status!r}, and there is an error.", where="span", advice="Say status='error'.")
    return Status(code, message or error_type) if code is StatusCode.ERROR else Status(code)


def prompt_text(prompt: object, messages: Sequence[object] | None, system: str | None) -> str:
    """What a model is asked, as one attribute. Raises DataError when it is said twice."""
    if messages is None and system is None:
        return text_of(prompt)
    if prompt is not None and messages is not None:
        raise DataError("prompt and messages are both given.", where="trace_llm_call", advice="Give one of them.")
    if system is None:
        return text_of(prompt if messages is None else messages)
    asked: list[object] = [{"role": "user", "content": prompt}] if prompt is not None else list(messages or ())
    return text_of([{"role": "system", "content": system}, *asked])
