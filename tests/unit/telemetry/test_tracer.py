"""Spans of `QuickProvider` beside those of the SDK's own provider: every case runs on both, and the two tell the same."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, Tracer

from e2i.telemetry.quick_span import QuickSpan
from e2i.telemetry.relay import Relay
from e2i.telemetry.tracer import QuickProvider


class Counted(IdGenerator):
    """The same ids for two providers."""

    def __init__(self) -> None:
        self._ids = itertools.count(1 << 62, 1 << 60)

    def generate_span_id(self) -> int:
        return next(self._ids) & (1 << 64) - 1

    def generate_trace_id(self) -> int:
        return next(self._ids)


PLACE = SpanContext(trace_id=7, span_id=9, is_remote=True, trace_flags=trace.TraceFlags(1))


def told(provider: TracerProvider, case: Callable[[Tracer], Any], *, is_ours: bool) -> list[Any]:
    """What the case returned, and of each span what does not depend on chance.

    Parameters
    ----------
    is_ours : the only processor is our own, which is handed the span itself instead of a copy
    """
    kept = InMemorySpanExporter()
    if is_ours:
        relay = Relay()
        relay.target = SimpleSpanProcessor(kept)
        provider.add_span_processor(relay)
    else:
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
                (span.context.trace_flags, span.context.trace_state, span.context.is_remote, span.context.is_valid),
                (span.dropped_attributes, span.dropped_events, span.dropped_links),
                span.parent and number.get(span.parent.span_id, span.parent.span_id),
                dict(span.attributes or {}),
                (span.status.status_code, span.status.description),
                [
                    (event.name, {key: said for key, said in (event.attributes or {}).items() if "stack" not in key})
                    for event in span.events
                ],
                [link.context.span_id for link in span.links],
                span.start_time == 5,
                span.end_time == 6,
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


class Text(str):
    __slots__ = ()


ODD = {
    "list": ["a", "b"],
    "tuple": ("a", "b"),
    "mixed": (1, "a"),
    "nested": ([1, 2], {"a": None}),
    "mapping": {"a": [1]},
    "none": None,
    "bytes": b"a",
    "text": Text("a"),
    "object": PLACE,
    "": "no name",
    Text("key"): 1,
}


def odd_values(tracer: Tracer) -> Any:
    given = dict(ODD)
    tracer.start_span("all", attributes=given).end()
    for key, value in ODD.items():
        tracer.start_span("one", attributes={"plain": 1, key: value}).end()
        span = tracer.start_span("later", attributes=MappingProxyType({"plain": 1}))
        span.set_attribute(key, value)
        span.set_attributes({"plain": 2, key: value})
        span.end()
    return given


def changed_by_the_caller(tracer: Tracer) -> Any:
    for given in ({"a": 1}, {"a": 1, "list": ["a"]}):  # type: dict[str, Any]
        span = tracer.start_span("work", attributes=given)
        given["a"] = 2
        given.setdefault("list", []).append("b")
        more = {"c": 1}
        span.set_attributes(more)
        more["c"] = 2
        span.end()


def too_many(tracer: Tracer) -> Any:
    tracer.start_span("begun", attributes={f"key{number}": number for number in range(200)}).end()
    span = tracer.start_span("filled", attributes={"first": 0, "again": 0})
    for number in range(127):
        span.set_attribute(f"key{number}", number)
    span.set_attribute("again", 1)
    span.set_attributes({f"more{number}": number for number in range(3)})
    for number in range(130):
        span.add_event(f"event {number}")
        span.add_link(PLACE)
    span.end()


def after_the_end(tracer: Tracer) -> Any:
    span = tracer.start_span("work", attributes={"a": 1})
    span.end(6)
    span.set_attribute("b", 1)
    span.set_attributes({"c": 1})
    span.update_name("late")
    span.set_status(StatusCode.ERROR, "late")
    span.add_event("late")
    span.add_link(PLACE)
    span.end(7)
    return span.is_recording(), dict(span.attributes or {}), span.name, len(span.events), len(span.links)


def below_another(tracer: Tracer) -> Any:
    for flags in (0, 1, 2, 3):
        state = trace.TraceState([("vendor", str(flags))])
        place = SpanContext(trace_id=7, span_id=9, is_remote=True, trace_flags=trace.TraceFlags(flags), trace_state=state)
        context = trace.set_span_in_context(trace.NonRecordingSpan(place))
        with tracer.start_as_current_span("work", context) as span:
            tracer.start_span("below").end()
            tracer.start_span("beside", context).end()
            tracer.start_span("alone", trace.set_span_in_context(trace.INVALID_SPAN)).end()
            assert span.get_span_context().trace_id == 7


def of_no_place(tracer: Tracer) -> Any:
    with pytest.raises(TypeError, match="SpanContext"):
        tracer.start_span("work", trace.set_span_in_context(trace.NonRecordingSpan("nowhere")))  # type: ignore[arg-type]


def told_of_itself(tracer: Tracer) -> Any:
    span = tracer.start_span("work", kind=SpanKind.CLIENT, attributes={"a": 1}, start_time=5)
    span.add_event("happened", {"b": 2}, 5)
    known = weakref.ref(span)
    span.end(6)
    found = json.loads(span.to_json())
    return known() is span, {key: value for key, value in found.items() if key not in ("context", "resource")}


def named_twice(tracer: Tracer) -> Any:
    span = tracer.start_span("work")
    span.update_name("better")
    span.set_status(StatusCode.ERROR, "bad")
    with span:
        pass


CASES = [
    odd_values,
    changed_by_the_caller,
    too_many,
    after_the_end,
    below_another,
    of_no_place,
    told_of_itself,
    named_twice,
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


@pytest.mark.parametrize("is_ours", [True, False], ids=["our processor", "any processor"])
@pytest.mark.parametrize("limit", [None, "3"], ids=["unlimited", "limited"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_quick_tracer_tells_what_the_sdk_tells(
    case: Callable[[Tracer], Any], limit: str | None, is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", limit)
        monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", limit)
    ours, theirs = (kind(sampler=ALWAYS_ON, shutdown_on_exit=False) for kind in (QuickProvider, TracerProvider))
    assert told(ours, case, is_ours=is_ours) == told(theirs, case, is_ours=is_ours)


@pytest.mark.parametrize("sampler", [DEFAULT_ON, ALWAYS_OFF, TraceIdRatioBased(0.5)], ids=lambda sampler: sampler.get_description()[:20])
def test_another_sampler_decides_as_ever(sampler: Sampler) -> None:
    for case in (nested, below_another):
        ours, theirs = (kind(sampler=sampler, shutdown_on_exit=False, id_generator=Counted()) for kind in (QuickProvider, TracerProvider))
        assert told(ours, case, is_ours=True) == told(theirs, case, is_ours=True)


def test_plain_spans_are_quick_and_others_the_sdks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds(provider: TracerProvider) -> list[bool]:
        tracer = provider.get_tracer("case")
        given: tuple[Any, ...] = ({"a": 1, "b": ("x",)}, None, {"a": [1]})
        return [isinstance(tracer.start_span("work", attributes=attributes), QuickSpan) for attributes in given]

    assert kinds(QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)) == [True, True, False]
    assert kinds(QuickProvider(shutdown_on_exit=False)) == [False] * 3
    concurrent = ConcurrentMultiSpanProcessor(num_threads=1)
    assert kinds(QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False, active_span_processor=concurrent)) == [False] * 3
    concurrent.shutdown()
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    assert kinds(QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)) == [False] * 3


def test_an_sdk_whose_spans_hold_more_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SdkSpan.__init__

    def with_more(self: SdkSpan, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        self._more = 1  # type: ignore[attr-defined]

    monkeypatch.setattr(SdkSpan, "__init__", with_more)
    span = QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False).get_tracer("case").start_span("work")
    assert not isinstance(span, QuickSpan)
    assert vars(span)["_more"] == 1


def test_threads_that_fill_one_span_lose_nothing() -> None:
    span = QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False).get_tracer("case").start_span("work")
    ready = threading.Barrier(8)

    def fill(number: int) -> None:
        ready.wait(5)
        for turn in range(15):
            span.set_attribute(f"{number}.{turn}", turn)
            span.add_event(f"{number}.{turn}")

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert isinstance(span, QuickSpan)
    assert len(span.attributes or {}) == len(span.events) == 120


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
