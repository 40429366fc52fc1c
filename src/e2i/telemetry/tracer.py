"""The SDK's provider with quicker tracers: the same spans, in a third of the time on the caller's thread."""

# ruff: noqa: SLF001 - what is read of a span of the SDK is what `quick_span.pattern` has looked at

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from e2i.observability.spans import SPAN_KEY, VARIABLE, detach
from e2i.telemetry.quick_span import QuickSpan, are_plain, begun, pattern

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

_Context = context_api.Context
_INTERNAL = SpanKind.INTERNAL
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_now = time.time_ns
_Function = TypeVar("_Function", bound=Callable[..., Any])


class QuickProvider(TracerProvider):
    """Its tracers differ from the SDK's in `start_span` and `start_as_current_span` alone."""

    def get_tracer(self, *scope: Any, **described: Any) -> trace.Tracer:
        """See TracerProvider."""
        tracer = super().get_tracer(*scope, **described)
        if type(tracer) is Tracer:  # not when the SDK is disabled
            most = tracer._span_limits.max_span_attributes
            tracer.pattern, tracer.most = pattern(tracer), sys.maxsize if most is None else most  # type: ignore[attr-defined]
            tracer.__class__ = QuickTracer  # the SDK's provider makes its own class, and keeps what it made
            tracer.start_as_current_span = functools.partial(Current, tracer)  # type: ignore[assignment]
        return tracer


class QuickTracer(Tracer):
    """The SDK's tracer."""

    pattern: dict[str, Any] | None
    """the fields of a span; None where every span is made by the SDK's own way"""
    most: int
    """attributes that a span may have"""

    def start_span(  # noqa: PLR0917 - OpenTelemetry's own signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = _INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """See the SDK."""
        fields = self.pattern
        if fields is not None and not links and self.sampler is ALWAYS_ON and self._tracer_config.is_enabled:
            above = (VARIABLE.get() if context is None else context).get(SPAN_KEY)
            parent = above._context if type(above) is QuickSpan else _context_of(above)
            if parent is not _UNKNOWN and (not attributes or (are_plain(attributes) and len(attributes) <= self.most)):
                fields = fields.copy()
                fields["_parent"], fields["_kind"], fields["_resource"] = parent, kind, self.resource
                fields["_record_exception"], fields["_set_status_on_exception"] = record_exception, set_status_on_exception
                fields["_start_time"] = _now() if start_time is None else start_time
                span = begun(fields, name, self._place(parent), dict(attributes) if attributes else {})
                for processor in self.span_processor._span_processors:
                    processor.on_start(span, parent_context=context)
                return span
        return super().start_span(name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)

    def _place(self, parent: SpanContext | None) -> SpanContext:
        ids = self.id_generator
        if parent is None:
            flags = _SAMPLED_RANDOM if ids.is_trace_id_random() else _SAMPLED
            return SpanContext(ids.generate_trace_id(), ids.generate_span_id(), is_remote=False, trace_flags=flags)
        flags = _SAMPLED_RANDOM if parent.trace_flags & TraceFlags.RANDOM_TRACE_ID else _SAMPLED
        return SpanContext(parent.trace_id, ids.generate_span_id(), is_remote=False, trace_flags=flags, trace_state=parent.trace_state)


_UNKNOWN = trace.INVALID_SPAN_CONTEXT
"""a parent that the SDK will complain about"""


def _context_of(above: Any) -> SpanContext | None:
    """Where a span below this one hangs; None when it begins a trace."""
    if not isinstance(above, trace.Span):
        return None
    context: Any = above.get_span_context()
    if context is not None and not isinstance(context, SpanContext):
        return _UNKNOWN
    return context if context is not None and context.is_valid else None


class Current(ContextDecorator):
    """A span that begins with the block and is the current one in it; as a decorator, one for each call. Arguments as the SDK's."""

    __slots__ = ("_arguments", "_context", "_ends", "_previous", "_span", "_token", "_tracer")

    def __init__(  # noqa: PLR0917 - OpenTelemetry's own signature
        self,
        tracer: Tracer,
        name: str,
        context: Context | None = None,
        kind: SpanKind = _INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> None:
        self._tracer = tracer
        self._arguments = (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        self._ends = end_on_exit

    def __enter__(self) -> Span:
        self._span = span = self._tracer.start_span(*self._arguments)
        self._previous = previous = VARIABLE.get()
        self._context = context = _Context({**previous, SPAN_KEY: span})
        self._token = VARIABLE.set(context)
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        detach(self._token, self._context, self._previous)
        span = self._span
        try:
            if error is not None and isinstance(error, Exception) and span.is_recording():
                *_, records, tells = self._arguments
                if records:
                    span.record_exception(error)
                if tells:
                    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        finally:
            if self._ends:
                span.end()

    def __call__(self, function: _Function) -> _Function:
        """Each call of `function` in a span of its own; an `async def` until it is done."""
        if not inspect.iscoroutinefunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        async def inside(*arguments: Any, **named: Any) -> Any:
            with self._recreate_cm():
                return await function(*arguments, **named)

        return cast("_Function", inside)

    def _recreate_cm(self) -> Self:
        """Called by ContextDecorator: calls of one function may overlap."""
        return type(self)(self._tracer, *self._arguments, self._ends)
