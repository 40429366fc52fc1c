"""The SDK's provider with a quicker `start_as_current_span`: the same spans, without two generators around each (3 microseconds)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

from e2i.observability.spans import detach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

_current, _attach, _with_span = context_api.get_current, context_api.attach, trace.set_span_in_context
_INTERNAL = SpanKind.INTERNAL
_Function = TypeVar("_Function", bound=Callable[..., Any])


class QuickProvider(TracerProvider):
    """Its tracers differ from the SDK's in `start_as_current_span` alone."""

    def get_tracer(self, *scope: Any, **described: Any) -> trace.Tracer:
        """See TracerProvider."""
        tracer = super().get_tracer(*scope, **described)
        if isinstance(tracer, Tracer):  # not when the SDK is disabled
            vars(tracer).setdefault("start_as_current_span", functools.partial(Current, tracer))
        return tracer


class Current(ContextDecorator):
    """A span that begins with the block and is the current one in it; as a decorator, one for each call. Arguments as the SDK's."""

    __slots__ = ("_arguments", "_context", "_ends", "_previous", "_records", "_span", "_tells", "_token", "_tracer")

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
        self._records, self._tells, self._ends = record_exception, set_status_on_exception, end_on_exit

    def __enter__(self) -> Span:
        self._span = span = self._tracer.start_span(*self._arguments)
        self._previous = previous = _current()
        self._context = _with_span(span, previous)
        self._token = _attach(self._context)
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        detach(self._token, self._context, self._previous)
        span = self._span
        try:
            if isinstance(error, Exception) and span.is_recording():
                if self._records:
                    span.record_exception(error)
                if self._tells:
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
