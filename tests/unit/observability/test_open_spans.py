from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from e2i.errors import BackendUnavailable
from e2i.observability.spans import new_trace_id, span, trace_of


def ended(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {each.name: each for each in exported.get_finished_spans()}


def is_outside() -> bool:
    return not trace.get_current_span().get_span_context().is_valid


def test_a_span_has_its_attributes_events_kind_and_parent(exported: InMemorySpanExporter) -> None:
    with span("outer", {"e2i.agent.name": "explainer"}) as outer, span("inner", {}, kind=SpanKind.CLIENT) as inner:
        inner.set("e2i.kpi", "nrx")
        inner.event("chosen", {"model": "m"})
        assert (inner.trace_id, inner.span_id) == tuple(inner)
        assert inner.trace_id == outer.trace_id
        assert inner.span_id != outer.span_id
    found = ended(exported)
    assert dict(found["outer"].attributes) == {"e2i.agent.name": "explainer"}
    assert dict(found["inner"].attributes) == {"e2i.kpi": "nrx"}
    assert found["inner"].kind is SpanKind.CLIENT
    assert found["inner"].parent.span_id == int(outer.span_id, 16)
    assert [event.name for event in found["inner"].events] == ["chosen"]
    assert found["inner"].status.status_code is StatusCode.UNSET
    assert is_outside()


def test_a_span_still_unpacks_into_its_ids(exported: InMemorySpanExporter) -> None:
    with span("a", {}) as (trace_id, span_id):
        assert (len(trace_id), len(span_id)) == (32, 16)


async def test_a_span_works_with_async_with(exported: InMemorySpanExporter) -> None:
    async with span("a", {}) as outer:
        await asyncio.sleep(0)
        async with span("b", {}) as inner:
            assert inner.trace_id == outer.trace_id
    assert ended(exported)["b"].parent.span_id == int(outer.span_id, 16)
    assert is_outside()


def test_without_an_sdk_there_are_no_ids_and_nothing_fails() -> None:
    code = (
        "from e2i.observability.spans import span, trace_of, new_trace_id\n"
        "with span('a', {'x': 1}) as s:\n"
        "    s.set('y', 2); s.event('e'); print(s.trace_id, s.span_id, *s)\n"
        "try:\n"
        "    with span('a', {}): raise ValueError('x')\n"
        "except ValueError: print('raised')\n"
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "with span('a', {}) as s: print(s.trace_id is not None)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None", "None", "None", "raised", "True"]


def test_an_error_is_seen_on_the_span_and_passes_on(exported: InMemorySpanExporter) -> None:
    with pytest.raises(BackendUnavailable), span("a", {}):
        raise BackendUnavailable("PostgreSQL does not answer.", where="127.0.0.1:5432")
    found = ended(exported)["a"]
    assert found.status.status_code is StatusCode.ERROR
    assert found.status.description == "127.0.0.1:5432: PostgreSQL does not answer."
    assert found.attributes["e2i.error.category"] == BackendUnavailable.category
    assert found.attributes["error.type"] == "BackendUnavailable"
    (event,) = found.events
    assert event.name == "exception"
    assert event.attributes["exception.message"] == "127.0.0.1:5432: PostgreSQL does not answer."
    assert "Traceback" in event.attributes["exception.stacktrace"]
    assert is_outside()


@pytest.mark.parametrize(("error", "status"), [
    (KeyboardInterrupt(), StatusCode.ERROR), (asyncio.CancelledError(), StatusCode.ERROR), (SystemExit(3), StatusCode.ERROR),
    (SystemExit(0), StatusCode.UNSET), (SystemExit(), StatusCode.UNSET), (GeneratorExit(), StatusCode.UNSET),
])  # fmt: skip
def test_what_counts_as_an_error(exported: InMemorySpanExporter, error: BaseException, status: StatusCode) -> None:
    with pytest.raises(type(error)), span("a", {}):
        raise error
    assert ended(exported)["a"].status.status_code is status
    assert len(exported.get_finished_spans()) == 1


async def test_a_cancelled_task_ends_its_span_once_and_leaves_no_context(exported: InMemorySpanExporter) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with span("slow", {}):
            entered.set()
            await asyncio.sleep(60)

    async with span("outer", {}) as outer:
        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert trace.get_current_span().get_span_context().span_id == int(outer.span_id, 16)
    found = ended(exported)
    assert found["slow"].status.description == "CancelledError"
    assert found["outer"].status.status_code is StatusCode.UNSET
    assert len(exported.get_finished_spans()) == 2


async def test_a_timeout_inside_a_span_is_an_error_of_that_span(exported: InMemorySpanExporter) -> None:
    with pytest.raises(TimeoutError):
        async with span("outer", {}), asyncio.timeout(0.01), span("inner", {}):
            await asyncio.sleep(60)
    found = ended(exported)
    assert found["inner"].status.description == "CancelledError"
    assert found["outer"].status.description == "TimeoutError"


def test_a_generator_that_is_closed_early_ends_its_span(exported: InMemorySpanExporter) -> None:
    def rows() -> Iterator[int]:
        with span("rows", {}):
            yield 1
            yield 2

    for _ in rows():
        break
    generator = rows()
    next(generator)
    generator.close()
    assert is_outside()
    assert [each.status.status_code for each in exported.get_finished_spans()] == [StatusCode.UNSET] * 2


async def test_a_generator_closed_in_another_task_ends_its_span_without_a_word(
    exported: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    async def rows() -> AsyncIterator[int]:
        async with span("rows", {}):
            yield 1
            yield 2

    generator = rows()

    async def begin() -> None:
        await anext(generator)

    async def finish() -> bool:
        await generator.aclose()
        return is_outside()

    with caplog.at_level(logging.DEBUG):
        await asyncio.create_task(begin())
        assert await asyncio.create_task(finish())
    said = [each.getMessage() for each in caplog.records if not each.name.startswith("opentelemetry.sdk.trace.export")]
    assert said == []  # processors that other tests shut down, on the one provider of this process, may speak
    assert list(ended(exported)) == ["rows"]


async def test_a_span_left_in_a_task_that_inherited_it_is_over_there(exported: InMemorySpanExporter) -> None:
    @asynccontextmanager
    async def step() -> AsyncIterator[None]:
        with span("step", {}):
            yield

    opened = step()
    await opened.__aenter__()

    async def leave() -> bool:
        await opened.__aexit__(None, None, None)
        return is_outside()

    assert await asyncio.create_task(leave())
    assert list(ended(exported)) == ["step"]


async def test_fifty_agents_at_once_each_have_a_trace_of_their_own(exported: InMemorySpanExporter) -> None:
    async def agent(number: int) -> None:
        async with span(f"agent {number}", {"n": number}) as outer:
            await asyncio.sleep(0.001 * (number % 5))
            for step in range(3):
                with span(f"step {number}.{step}", {}) as inner:
                    await asyncio.sleep(0)
                    assert inner.trace_id == outer.trace_id
            if number % 2:
                raise ValueError(number)

    results = await asyncio.gather(*(agent(number) for number in range(50)), return_exceptions=True)
    assert sum(isinstance(result, ValueError) for result in results) == 25
    found = ended(exported)
    assert len(found) == 200
    assert len({each.context.trace_id for each in found.values()}) == 50
    for name, each in found.items():
        if name.startswith("step"):
            assert each.parent.span_id == found[f"agent {name.split()[1].split('.')[0]}"].context.span_id


def test_spans_inside_trace_of_belong_to_that_trace(exported: InMemorySpanExporter) -> None:
    trace_id = new_trace_id()
    with trace_of(trace_id), span("a", {}) as current:
        assert current.trace_id == trace_id
    assert ended(exported)["a"].context.trace_id == int(trace_id, 16)
    assert is_outside()


def test_an_error_that_stays_inside_can_be_noted(exported: InMemorySpanExporter) -> None:
    with span("a", {}) as current:
        current.fail(TimeoutError("late"))
    assert ended(exported)["a"].status.description == "late"
