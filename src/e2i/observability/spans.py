"""Spans through the OpenTelemetry API. Without an SDK every call here is a no-op."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from e2i.errors import E2IError
from e2i.observability import attributes as names
from e2i.observability.ids import span_number, trace_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextvars import ContextVar, Token
    from types import TracebackType

    from opentelemetry.context import Context

    Value = str | int | float | bool | Sequence[str] | Sequence[int] | Sequence[float] | Sequence[bool]

_SCOPE = "e2i"
_INTERNAL = SpanKind.INTERNAL
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_Context = context_api.Context
(SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, _Context())
"""OpenTelemetry's own key of the current span in a context"""


def _variable() -> ContextVar[Context]:
    token = context_api.attach(context_api.get_current())
    context_api.detach(token)
    return token.var


VARIABLE = _variable()
"""what holds the current context: asked and set directly, `attach` and `get_current` take four calls to do so"""
_start = VARIABLE.set
_current = VARIABLE.get


class _Tracers:
    """The tracer of the provider that is installed; asking a provider for one costs as much as half a span."""

    __slots__ = ("provider", "tracer")

    def __init__(self) -> None:
        self.provider: trace.TracerProvider | None = None
        self.tracer: trace.Tracer = trace.NoOpTracer()

    def current(self) -> trace.Tracer:
        provider = trace.get_tracer_provider()
        if provider is not self.provider:
            self.tracer, self.provider = provider.get_tracer(_SCOPE), provider
        return self.tracer


_tracers = _Tracers()


def new_trace_id() -> str:
    """A W3C trace id: 32 hexadecimal digits, which are a UUIDv7."""
    return f"{trace_number():032x}"


def current_trace_id() -> str | None:
    """The trace that a span opened now would belong to; None when it would begin one."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


class Attached:
    """A context that is in force inside `with`; leaving it is right in every task, thread and generator."""

    __slots__ = ("_context", "_previous", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._previous = _current()
        self._token: Token[Context] = _start(self._context)

    def __exit__(self, *_: object) -> None:
        detach(self._token, self._context, self._previous)


def detach(token: Token[Context], context: Context, previous: Context) -> None:
    """Take `context` out of force. OpenTelemetry's own `detach` writes an error to the log when a generator is closed elsewhere."""
    try:
        token.var.reset(token)
    except ValueError:  # closed in another task, which may have inherited our context or not
        if _current() is context:
            _start(previous)


def current_context() -> SpanContext | None:
    """Where a span opened now would hang; None when it would begin a trace."""
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


@contextmanager
def trace_of(trace_id: str) -> Iterator[bool]:
    """Spans opened inside belong to trace `trace_id`, also when an earlier process began it.

    Yields whether a span opened directly inside is a root (`span(…, is_root=True)`): not when the current span is in that trace already.
    """
    if current_trace_id() == trace_id:
        yield False
        return
    parent = NonRecordingSpan(SpanContext(trace_id=int(trace_id, 16), span_id=span_number(), is_remote=True, trace_flags=_SAMPLED))
    with Attached(trace.set_span_in_context(parent)):
        yield True


def make_root(span: trace.Span) -> None:
    """OpenTelemetry takes a trace's id from a parent only; one that never was is taken away again."""
    if hasattr(span, "_parent"):
        span._parent = None  # noqa: SLF001


class Span:
    """A span that is open inside `with` or `async with`; see `span`. Unpacks into (trace_id, span_id)."""

    __slots__ = ("_attributes", "_context", "_is_root", "_kind", "_name", "_previous", "_span", "_token")

    def __init__(self, name: str, attributes: Mapping[str, Value], kind: SpanKind, *, is_root: bool = False) -> None:
        self._name = name
        self._attributes = attributes
        self._kind = kind
        self._is_root = is_root
        self._span: trace.Span = trace.INVALID_SPAN

    def __enter__(self) -> Self:
        self._previous = _current()
        self._span = _tracers.current().start_span(self._name, self._previous, self._kind, self._attributes)
        if self._is_root:
            make_root(self._span)
        self._context = _Context({**self._previous, SPAN_KEY: self._span})
        self._token: Token[Context] = _start(self._context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        detach(self._token, self._context, self._previous)
        try:
            if error is not None and not _is_no_fault(error):
                self._note(error)
        finally:
            self._span.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[str | None]:
        yield self.trace_id
        yield self.span_id

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits; None without an SDK."""
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    @property
    def span_id(self) -> str | None:
        """16 hexadecimal digits; None without an SDK."""
        context = self._span.get_span_context()
        return f"{context.span_id:016x}" if context.is_valid else None

    def set(self, name: str, value: Value) -> None:
        """Set an attribute; see `observability.attributes` for the names."""
        self._span.set_attribute(name, value)

    def event(self, name: str, attributes: Mapping[str, Value] | None = None) -> None:
        """Something that happened now."""
        self._span.add_event(name, attributes)

    def link(self, context: SpanContext) -> None:
        """Point to a span that has to do with this one and is not above it."""
        self._span.add_link(context)

    def fail(self, error: BaseException) -> None:
        """Note an error that does not leave the block."""
        self._note(error)

    def _note(self, error: BaseException) -> None:
        span, kind = self._span, type(error).__name__
        if not span.is_recording():
            return
        span.record_exception(error)
        span.set_attribute(names.ERROR_TYPE, kind)
        span.set_status(Status(StatusCode.ERROR, str(error) or kind))
        if isinstance(error, E2IError):
            span.set_attribute(names.ERROR_CATEGORY, error.category)


def _is_no_fault(error: BaseException) -> bool:
    """A generator that is closed early and an exit with code 0 are ends like others."""
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)


def span(name: str, attributes: Mapping[str, Value], *, kind: SpanKind = _INTERNAL, is_root: bool = False) -> Span:
    """A span around a block, for `with` and `async with`.

    An exception that leaves the block makes it an error: status, `error.type`, `e2i.error.category` and an event `exception`.
    A cancelled block is an error too; a generator that is closed early is not.

    Examples
    --------
    >>> with span("causal_impact.estimate", {"e2i.agent.name": "causal_impact"}) as current:
    ...     current.set("e2i.kpi", "nrx")
    """
    return Span(name, attributes, kind, is_root=is_root)
