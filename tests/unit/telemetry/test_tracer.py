"""Spans of `QuickProvider` beside those of the SDK's own provider: every case runs on both, and the two tell the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, Tracer

from e2i.telemetry.tracer import QuickProvider

PLACE = SpanContext(trace_id=7, span_id=9, is_remote=True, trace_flags=trace.TraceFlags(1))


def told(provider: TracerProvider, case: Callable[[Tracer], Any]) -> list[Any]:
    """What the case returned, and of each span what does not depend on chance."""
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    result = case(provider.get_tracer("case", "1.0"))
    assert not trace.get_current_span().get_span_context().is_valid, "the span is still the current one"
    spans = kept.get_finished_spans()
    number = {span.context.span_id: index for index, span in enumerate(spans)}
    return [
        result,
        *(
            (
                span.name,
                span.kind,
                span.parent and number.get(span.parent.span_id, span.parent.span_id),
                dict(span.attributes or {}),
                (span.status.status_code, span.status.description),
                [
                    (event.name, {key: said for key, said in (event.attributes or {}).items() if "stack" not in key})
                    for event in span.events
                ],
                [link.context.span_id for link in span.links],
                span.start_time == 5,
                span.instrumentation_scope and (span.instrumentation_scope.name, span.instrumentation_scope.version),
            )
            for span in spans
        ),
    ]


def nested(tracer: Tracer) -> Any:
    with (
        tracer.start_as_current_span("outer", attributes={"a": 1}) as outer,
        tracer.start_as_current_span("inner", kind=SpanKind.CLIENT) as inner,
    ):
        inner.set_attribute("b", "two")
        return trace.get_current_span() is inner, outer is not inner


def failing(tracer: Tracer) -> Any:
    for options in ({}, {"record_exception": False}, {"set_status_on_exception": False}):
        with pytest.raises(ValueError, match="bad"), tracer.start_as_current_span("work", **options):
            raise ValueError("bad")


def failing_with_a_status(tracer: Tracer) -> Any:
    with suppress(ValueError), tracer.start_as_current_span("work") as span:
        span.set_status(StatusCode.OK)
        raise ValueError("bad")


def interrupted(tracer: Tracer) -> Any:
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError):
        with pytest.raises(error), tracer.start_as_current_span("work"):
            raise error


def left_open(tracer: Tracer) -> Any:
    with tracer.start_as_current_span("work", end_on_exit=False) as span:
        pass
    is_open = span.is_recording()
    span.end()
    return is_open


def ended_inside(tracer: Tracer) -> Any:
    with suppress(ValueError), tracer.start_as_current_span("work", end_on_exit=False) as span:
        span.end()
        raise ValueError("late")


def described(tracer: Tracer) -> Any:
    context = trace.set_span_in_context(trace.NonRecordingSpan(PLACE))
    above = tracer.start_as_current_span("work", context, SpanKind.SERVER, {"a": 1}, [Link(PLACE)], 5)
    with above, tracer.start_as_current_span("below"):
        pass


def decorated(tracer: Tracer) -> Any:
    @tracer.start_as_current_span("call", attributes={"a": 1})
    def count(number: int) -> int:
        return number if number == 0 else 1 + count(number - 1)

    return count(2), count(0), count.__name__


def decorated_async(tracer: Tracer) -> Any:
    @tracer.start_as_current_span("call")
    async def wait(turn: asyncio.Event, others: asyncio.Event) -> bool:
        mine = trace.get_current_span()
        others.set()
        await turn.wait()
        return trace.get_current_span() is mine

    async def both() -> list[bool]:
        one, two = asyncio.Event(), asyncio.Event()
        return list(await asyncio.gather(wait(one, two), wait(two, one)))

    return asyncio.run(both()), asyncio.iscoroutinefunction(wait)


def in_a_generator(tracer: Tracer) -> Any:
    def parts() -> Iterator[int]:
        with tracer.start_as_current_span("parts"):
            yield 1
            yield 2

    return list(parts())


CASES = [
    nested,
    failing,
    failing_with_a_status,
    interrupted,
    left_open,
    ended_inside,
    described,
    decorated,
    decorated_async,
    in_a_generator,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_quick_tracer_tells_what_the_sdk_tells(case: Callable[[Tracer], Any]) -> None:
    assert told(QuickProvider(shutdown_on_exit=False), case) == told(TracerProvider(shutdown_on_exit=False), case)


def test_a_generator_that_is_closed_in_another_context_leaves_no_complaint_and_no_current_span(caplog: pytest.LogCaptureFixture) -> None:
    tracer = QuickProvider(shutdown_on_exit=False).get_tracer("case")

    async def parts() -> Any:
        with tracer.start_as_current_span("parts"):
            yield 1

    async def begin() -> Any:
        running = parts()
        await asyncio.create_task(anext(running))
        await asyncio.create_task(running.aclose())
        return trace.get_current_span()

    assert not asyncio.run(begin()).get_span_context().is_valid
    assert caplog.records == []


def test_a_disabled_sdk_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with QuickProvider(shutdown_on_exit=False).get_tracer("case").start_as_current_span("work") as span:
        assert not span.is_recording()
