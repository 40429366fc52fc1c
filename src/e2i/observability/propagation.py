"""W3C Trace Context and Baggage in and out: command line, HTTP, worker processes, Ray tasks. Through the OpenTelemetry API only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from e2i.observability.spans import Attached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
P = ParamSpec("P")

FIELDS = ("traceparent", "tracestate", "baggage")
_LONGEST = 8192
_trace, _baggage = TraceContextTextMapPropagator(), W3CBaggagePropagator()


def carrier() -> dict[str, str]:
    """`traceparent`, `tracestate` and `baggage` of the current context; empty outside every span."""
    headers: dict[str, str] = {}
    _trace.inject(headers)
    _baggage.inject(headers)
    return headers


def attached(headers: Mapping[str, Any]) -> Attached:
    """Spans inside `with` continue the trace that `headers` name.

    Names of headers count in any case. A header that is malformed, as W3C defines it, is ignored: the trace begins here.
    """
    known = _known(headers)
    context = _trace.extract(known, get_current())
    return Attached(_baggage.extract(known, context))


def from_environment_value(traceparent: str | None, tracestate: str | None = None, baggage: str | None = None) -> dict[str, str]:
    """The carrier of a process started with TRACEPARENT, TRACESTATE and BAGGAGE; None and empty values are left out."""
    given = zip(FIELDS, (traceparent, tracestate, baggage), strict=True)
    return {name: value for name, value in given if value}


def environment() -> dict[str, str]:
    """What a child process needs in its environment to continue the current trace: TRACEPARENT, TRACESTATE, BAGGAGE."""
    return {name.upper(): value for name, value in carrier().items()}


def traced(function: Callable[P, T], headers: Mapping[str, str] | None = None) -> Callable[P, T]:
    """`function`, continuing the trace of `headers` (default: the current one) wherever it runs.

    The result can be pickled when `function` can, so a worker process or a Ray task may run it; for `ray.remote`, which wants a
    plain function, use `ray.remote(run_traced).remote(carrier(), function, ...)`.
    """
    return partial(run_traced, dict(carrier() if headers is None else headers), function)


def run_traced(headers: Mapping[str, str], function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` inside the trace of `headers`."""
    with attached(headers):
        return function(*args, **kwargs)


def _known(headers: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        if isinstance(name, str) and name.lower() in FIELDS and isinstance(value, str) and len(value) <= _LONGEST:
            key = name.lower()
            # W3C: tracestate and baggage in several headers are one list; a second traceparent makes both invalid.
            found[key] = f"{found[key]},{value}" if key in found else value
    return found
