"""Spans through the OpenTelemetry API. Without an SDK every call here is a no-op."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from e2i.errors import E2IError
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCOPE = "e2i"


def new_trace_id() -> str:
    """A W3C trace id: 32 hexadecimal digits, never all zero."""
    return secrets.token_hex(16)


@contextmanager
def trace_of(trace_id: str) -> Iterator[None]:
    """Spans opened inside belong to trace `trace_id`, also when an earlier process began it."""
    parent = NonRecordingSpan(
        SpanContext(
            trace_id=int(trace_id, 16), span_id=secrets.randbits(63) | 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )
    )
    with trace.use_span(parent, end_on_exit=False):
        yield


@contextmanager
def span(name: str, attributes: Mapping[str, str | int | float | bool]) -> Iterator[tuple[str | None, str | None]]:
    """A span; yields (trace_id, span_id) in hexadecimal, (None, None) without an SDK."""
    tracer = trace.get_tracer(_SCOPE)
    with tracer.start_as_current_span(name, attributes=dict(attributes), record_exception=False, set_status_on_exception=False) as current:
        context = current.get_span_context()
        try:
            yield (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else (None, None)
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            if isinstance(error, E2IError):
                current.set_attribute(names.ERROR_CATEGORY, error.category)
            raise
