"""The short way of setting attributes gives the same span as OpenTelemetry's own, or is not taken."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN, NoOpTracer, Span

from e2i.mlops.fast_attributes import may_come_later, put

CLEAN = {"text": "x", "yes": True, "count": 2**40, "share": 0.5, "texts": ("a", "b"), "counts": (1, 2)}


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def ended(fill: Callable[[Span], None], *, limits: SpanLimits | None = None) -> dict:
    kept = Kept()
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(kept)
    span = provider.get_tracer("t").start_span("s", attributes={"first": 1, "text": "old"})
    fill(span)
    span.end()
    return dict(kept.spans[0].attributes)


def test_the_span_is_the_one_that_the_sdk_would_make() -> None:
    assert ended(lambda span: put(span, CLEAN)) == ended(lambda span: span.set_attributes(CLEAN)) == {"first": 1, **CLEAN}


@pytest.mark.parametrize("limit", [{"max_span_attributes": 4}, {"max_span_attribute_length": 1}, {"max_attributes": 3}])
def test_limits_that_somebody_set_hold(limit: dict[str, int]) -> None:
    limits = SpanLimits(**limit)
    long = {**CLEAN, "text": "long text"}
    assert ended(lambda span: put(span, long), limits=limits) == ended(lambda span: span.set_attributes(long), limits=limits)


def test_an_ended_span_and_a_span_of_nobody_take_nothing(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    span = provider.get_tracer("t").start_span("s")
    span.end()
    with caplog.at_level(logging.ERROR):
        put(span, CLEAN)
        put(INVALID_SPAN, CLEAN)
    assert not kept.spans[0].attributes


@pytest.mark.parametrize(
    ("sampler", "later"),
    [
        (ALWAYS_ON, True),
        (DEFAULT_ON, True),
        (ALWAYS_OFF, False),
        (TraceIdRatioBased(0.5), False),
        (ParentBased(TraceIdRatioBased(0.5)), False),
    ],
)
def test_a_sampler_that_may_look_at_attributes_sees_them(sampler: object, later: bool) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)  # type: ignore[arg-type]
    assert may_come_later(provider.get_tracer("t")) is later
    assert may_come_later(NoOpTracer())
