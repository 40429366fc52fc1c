"""The connector's spans: what they carry, where they hang, and that nothing of theirs reaches the caller."""

from __future__ import annotations

import asyncio
import contextvars
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from e2i.domain.telemetry import SinkAccount
from e2i.errors import DataError, TooFewRows
from e2i.mlops.opik_connector import OpikConnector, OpikSettings, get_opik_connector
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from conftest import Spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
START = datetime(2026, 11, 21, 10, tzinfo=UTC)


@pytest.fixture
def opik() -> Iterator[OpikConnector]:
    OpikConnector.reset()
    tiers = {"explainer": "self_improvement", "orchestrator": "coordination"}
    yield OpikConnector(OpikSettings(endpoint="http://127.0.0.1:1/api", tiers=tiers))
    OpikConnector.reset()


def test_every_construction_in_every_thread_is_the_same_connector(opik: OpikConnector) -> None:
    OpikConnector.reset()
    barrier = threading.Barrier(16)

    def make(_: int) -> OpikConnector:
        barrier.wait()
        return OpikConnector() if threading.get_ident() % 2 else get_opik_connector()

    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(make, range(16)))
    assert made == {OpikConnector()}
    assert made != {opik}


def test_settings_given_later_replace_the_earlier_and_none_change_nothing(opik: OpikConnector) -> None:
    assert opik.is_enabled
    assert OpikConnector(OpikSettings(project_name="other")) is opik
    assert opik.settings.project_name == OpikConnector().settings.project_name == "other"
    assert not opik.is_enabled  # no endpoint


def test_without_settings_the_tiers_are_those_of_the_agents_settings(spans: Spans) -> None:
    OpikConnector.reset()
    try:
        with OpikConnector().trace_agent("gap_analyzer"):
            pass
    finally:
        OpikConnector.reset()
    assert spans.only.attributes[names.TIER] == "causal_analytics"


async def test_an_agent_with_a_model_call_inside(opik: OpikConnector, spans: Spans) -> None:
    metadata = {"brand": "Kisqali", "kpi": "nrx", "run_id": "r1", "session_id": "s1", "top_k": 5, "why": {"a": [1, "b"]}, "nothing": None}
    async with opik.trace_agent("explainer", "explain", metadata=metadata, tags=["demo"], input_data={"question": "Why?"}) as agent:
        ids = agent.trace_id, agent.span_id
        async with opik.trace_llm_call(
            "claude-sonnet-4", prompt="Why?", provider="anthropic", temperature=0.3, max_tokens=100, metadata={"attempt": 1}
        ) as call:
            call.log_llm_response("Because.", 12, 3, total_cost=0.0002, model="claude-sonnet-4-1", finish_reason="stop")
        agent.set_output({"answer": "Because."})
        agent.set_attribute("confidence", 0.8)
        agent.add_event("checked", {"claims": 2})
    llm, top = spans.all
    assert (f"{top.context.trace_id:032x}", f"{top.context.span_id:016x}") == ids
    assert top.name == "explainer.explain"
    assert top.parent is None
    assert top.status.status_code is StatusCode.UNSET
    assert dict(top.attributes) == {
        names.OPERATION: "agent",
        names.GEN_AI_OPERATION: "invoke_agent",
        names.GEN_AI_AGENT_NAME: "explainer",
        names.AGENT: "explainer",
        names.TIER: "self_improvement",
        names.STEP: "explain",
        names.INPUT: '{"question":"Why?"}',
        names.OUTPUT: '{"answer":"Because."}',
        names.BRAND: "Kisqali",
        names.KPI: "nrx",
        names.RUN_ID: "r1",
        names.SESSION_ID: "s1",
        names.TAGS: ("demo",),
        "top_k": 5,
        "why": '{"a":[1,"b"]}',
        "confidence": 0.8,
    }
    assert [(event.name, dict(event.attributes)) for event in top.events] == [("checked", {"claims": 2})]
    assert llm.name == "chat claude-sonnet-4"
    assert llm.parent.span_id == top.context.span_id
    assert dict(llm.attributes) == {
        names.OPERATION: "llm",
        names.GEN_AI_OPERATION: "chat",
        names.GEN_AI_REQUEST_MODEL: "claude-sonnet-4",
        names.GEN_AI_RESPONSE_MODEL: "claude-sonnet-4-1",
        names.GEN_AI_PROVIDER: "anthropic",
        names.GEN_AI_TEMPERATURE: 0.3,
        names.GEN_AI_MAX_TOKENS: 100,
        names.GEN_AI_INPUT_TOKENS: 12,
        names.GEN_AI_OUTPUT_TOKENS: 3,
        names.GEN_AI_FINISH_REASONS: ("stop",),
        names.COST_USD: 0.0002,
        names.INPUT: "Why?",
        names.OUTPUT: "Because.",
        names.AGENT: "explainer",
        names.TIER: "self_improvement",
        names.IS_PART: True,
        "attempt": 1,
    }


def test_only_what_happens_inside_a_call_of_the_same_agent_is_a_part(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_llm_call("alone", agent_name="explainer"):
        pass
    with opik.trace_agent("explainer", "outer"):
        with opik.trace_llm_call("inside"), opik.trace_llm_call("deeper"):
            pass
        with opik.trace_llm_call("of another", agent_name="gap_analyzer"):
            pass
        with opik.trace_agent("explainer", "inner"):
            pass
        with opik.trace_agent("gap_analyzer", "asked"), opik.trace_llm_call("theirs"):
            pass
    with opik.trace_agent("explainer", "again"):
        pass
    parts = {span.name for span in spans.all if span.attributes.get(names.IS_PART)}
    assert parts == {"chat inside", "chat deeper", "explainer.inner", "chat theirs"}
    assert len(spans.all) == 9


def test_a_model_call_belongs_to_the_innermost_agent_whoever_traced_it(opik: OpikConnector, spans: Spans) -> None:
    step = {names.AGENT: "causal_impact", names.TIER: "causal_analytics"}
    with opik.trace_agent("orchestrator"):
        with trace.get_tracer("engine").start_as_current_span("step", attributes=step), opik.trace_llm_call("inside"):
            pass
        with trace.get_tracer("http").start_as_current_span("GET"), opik.trace_llm_call("below"):
            pass
        with opik.trace_llm_call("other", agent_name="explainer"):
            pass
    with opik.trace_llm_call("alone"):
        pass
    found = {span.name: (span.attributes.get(names.AGENT), span.attributes.get(names.TIER)) for span in spans.all}
    assert found["chat inside"] == ("causal_impact", "causal_analytics")
    assert found["chat below"] == ("orchestrator", "coordination")
    assert found["chat other"] == ("explainer", "self_improvement")
    assert found["chat alone"] == (None, None)


async def test_fifty_agents_at_once_keep_their_spans_apart(opik: OpikConnector, spans: Spans) -> None:
    async def work(number: int) -> str | None:
        async with opik.trace_agent(f"agent_{number}", agent_tier="monitoring") as agent:
            for attempt in range(3):
                await asyncio.sleep(0)
                async with opik.trace_llm_call(f"model_{number}", metadata={"attempt": attempt}) as call:
                    await asyncio.sleep(0)
                    call.set_usage(number, attempt)
            return agent.trace_id

    traces = await asyncio.gather(*(work(number) for number in range(50)))
    assert len(set(traces)) == 50
    tops = {span.context.trace_id: span for span in spans.all if span.parent is None}
    calls = [span for span in spans.all if span.parent is not None]
    assert len(calls) == 150
    for call in calls:
        top = tops[call.context.trace_id]
        assert call.parent.span_id == top.context.span_id
        assert call.attributes[names.AGENT] == top.attributes[names.AGENT] == f"agent_{call.attributes[names.GEN_AI_INPUT_TOKENS]}"


def test_threads_have_their_own_current_span_and_a_copied_context_continues_the_callers(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_agent("explainer") as agent, ThreadPoolExecutor(2) as pool:
        inherited = pool.submit(contextvars.copy_context().run, _call, opik).result()
        apart = pool.submit(_call, opik).result()
    assert inherited == agent.trace_id != apart
    assert {span.attributes.get(names.AGENT) for span in spans.all if span.name == "chat m"} == {"explainer", None}


def _call(opik: OpikConnector) -> str | None:
    with opik.trace_llm_call("m") as call:
        return call.trace_id


def test_what_is_raised_inside_passes_through_and_is_on_the_span(opik: OpikConnector, spans: Spans) -> None:
    with pytest.raises(TooFewRows, match="only 3"), opik.trace_agent("explainer"), opik.trace_llm_call("m"):
        raise TooFewRows("only 3 rows.", where="study")
    for span in spans.all:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "study: only 3 rows."
        assert span.attributes[names.ERROR_TYPE] == "TooFewRows"
        assert span.attributes[names.ERROR_CATEGORY] == "validation"
        (event,) = span.events
        assert event.attributes[names.EXCEPTION_TYPE] == "e2i.errors.TooFewRows"
        assert "only 3 rows" in event.attributes[names.EXCEPTION_STACKTRACE]


async def test_a_cancelled_call_leaves_an_ended_span_that_says_so(opik: OpikConnector, spans: Spans) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with opik.trace_agent("explainer"), opik.trace_llm_call("m") as call:
            call.set_input("asked")
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.attributes[names.ERROR_TYPE] for span in spans.all] == ["CancelledError"] * 2
    assert all(span.end_time >= span.start_time and span.status.status_code is StatusCode.ERROR for span in spans.all)
    assert spans.named("chat m").attributes[names.INPUT] == "asked"
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), opik.trace_agent("late"):
                await asyncio.sleep(60)
    assert spans.named("invoke_agent late").attributes[names.ERROR_TYPE] == "CancelledError"


def test_generators_that_end_out_of_order_leave_no_ended_span_current(opik: OpikConnector, spans: Spans) -> None:
    def stream(name: str) -> Iterator[int]:
        with opik.trace_agent(name):
            yield 1
            yield 2

    first, second = stream("first"), stream("second")
    next(first)
    next(second)
    list(first)
    assert trace.get_current_span().is_recording()  # the second is still open
    list(second)
    assert not trace.get_current_span().get_span_context().is_valid
    with opik.trace_agent("after"):
        pass
    assert spans.named("invoke_agent after").parent is None
    assert len(spans.all) == 3


def test_a_generator_that_nobody_reads_to_its_end_is_no_error(opik: OpikConnector, spans: Spans) -> None:
    def stream() -> Iterator[int]:
        with opik.trace_llm_call("m") as call:
            call.set_output("so far")
            yield 1

    reading = stream()
    next(reading)
    reading.close()
    assert spans.only.status.status_code is StatusCode.UNSET
    assert spans.only.attributes[names.OUTPUT] == "so far"


async def test_an_async_generator_closed_in_another_task_disturbs_nobody(opik: OpikConnector, spans: Spans) -> None:
    async def stream() -> AsyncIterator[int]:
        async with opik.trace_agent("streaming"):
            yield 1
            yield 2

    reading = stream()

    async def begin() -> None:
        assert await anext(reading) == 1

    await asyncio.create_task(begin())
    await reading.aclose()
    async with opik.trace_agent("after"):
        pass
    assert spans.named("invoke_agent after").parent is None
    assert len(spans.all) == 2


@pytest.mark.parametrize("trace_id", [TRACE, TRACE.upper(), "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"])
def test_a_trace_that_began_elsewhere_goes_on(opik: OpikConnector, spans: Spans, trace_id: str) -> None:
    with opik.trace_agent("explainer", trace_id=trace_id, parent_span_id=SPAN) as agent:
        assert agent.trace_id == TRACE
        with opik.trace_llm_call("m", trace_id=trace_id):
            pass
        with opik.trace_llm_call("n", parent_span_id=SPAN):
            pass
    top = spans.named("invoke_agent explainer")
    assert f"{top.parent.span_id:016x}" == SPAN
    assert spans.named("chat m").parent.span_id == top.context.span_id
    assert f"{spans.named('chat n').parent.span_id:016x}" == SPAN
    assert {f"{span.context.trace_id:032x}" for span in spans.all} == {TRACE}


def test_a_trace_id_alone_begins_that_trace_with_a_root(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_agent("explainer"), opik.trace_agent("other", trace_id=TRACE) as other, opik.trace_llm_call("m"):
        assert other.trace_id == TRACE
    assert spans.named("invoke_agent other").parent is None
    assert f"{spans.named('chat m').context.trace_id:032x}" == TRACE


@pytest.mark.parametrize("wrong", ["", "xyz", "0" * 32, TRACE[:-1], TRACE + "0", "g" * 32, 7])
def test_an_id_that_is_none_is_refused_with_how_to_mend_it(opik: OpikConnector, wrong: object) -> None:
    with pytest.raises(DataError, match="32 hexadecimal digits"):
        opik.trace_agent("explainer", trace_id=wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="16 hexadecimal digits"):
        opik.trace_llm_call("m", trace_id=TRACE, parent_span_id=wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="32 hexadecimal digits"):
        opik.log_feedback(wrong, "faithfulness", 0.9)  # type: ignore[arg-type]


def test_a_parent_without_a_trace_is_refused(opik: OpikConnector) -> None:
    with pytest.raises(DataError, match="has no trace"):
        opik.trace_agent("explainer", parent_span_id=SPAN)


def test_a_word_that_is_no_parameter_is_a_type_error(opik: OpikConnector) -> None:
    with pytest.raises(TypeError):
        opik.trace_agent("explainer", colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        opik.trace_llm_call("m", promt="typo")  # type: ignore[call-arg]


@pytest.mark.parametrize("tokens", [-1, 1.5, math.nan, math.inf, "12", True])
def test_tokens_that_are_no_count_are_refused_and_the_call_is_an_error(opik: OpikConnector, spans: Spans, tokens: object) -> None:
    with pytest.raises(DataError, match="input_tokens is"), opik.trace_llm_call("m") as call:
        call.log_llm_response("text", input_tokens=tokens)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="output_tokens is"), opik.trace_llm_call("m") as call:
        call.set_usage(1, tokens)  # type: ignore[arg-type]
    assert all(span.attributes[names.ERROR_TYPE] == "DataError" for span in spans.all)
    assert not any(names.GEN_AI_INPUT_TOKENS in span.attributes for span in spans.all)


@pytest.mark.parametrize("cost", [-0.01, math.nan, math.inf, "0.1", True])
def test_a_cost_that_is_none_is_refused(opik: OpikConnector, cost: object) -> None:
    with pytest.raises(DataError, match="US dollars"), opik.trace_llm_call("m") as call:
        call.set_usage(1, 2, cost)  # type: ignore[arg-type]


def test_what_is_unknown_stays_unknown(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_llm_call("m") as call:
        call.log_llm_response("text", input_tokens=5)
    with opik.trace_llm_call("m") as call:
        call.log_tokens(0, 0)
    first, second = spans.all
    assert not {names.COST_USD, names.GEN_AI_OUTPUT_TOKENS, names.GEN_AI_PROVIDER, names.INPUT} & set(first.attributes)
    assert (second.attributes[names.GEN_AI_INPUT_TOKENS], second.attributes[names.GEN_AI_OUTPUT_TOKENS]) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"prompt": "Why?"}, "Why?"),
        ({"messages": [{"role": "user", "content": "Why?"}]}, [{"role": "user", "content": "Why?"}]),
        ({"prompt": "Why?", "system": "Be brief."}, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]),
        (
            {"messages": [{"role": "user", "content": "Why?"}], "system": "Be brief."},
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        ),
    ],
)
def test_what_a_model_is_asked_is_kept_as_it_was_said(opik: OpikConnector, spans: Spans, asked: dict, kept: object) -> None:
    with opik.trace_llm_call("m", **asked):
        pass
    found = spans.only.attributes[names.INPUT]
    assert (found if isinstance(kept, str) else orjson.loads(found)) == kept


def test_prompt_and_messages_together_are_refused(opik: OpikConnector) -> None:
    with pytest.raises(DataError, match="both given"):
        opik.trace_llm_call("m", prompt="a", messages=[])


def test_a_failure_that_raises_nothing_and_a_fallback(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_agent("explainer") as agent:
        agent.set_fallback(["claude-sonnet-4", "local"])
        agent.set_error("the model gave no JSON.", "OutputError")
    with opik.trace_agent("orchestrator") as agent:
        agent.set_error(ValueError("bad"))
    first, second = spans.all
    assert first.attributes[names.FALLBACK_CHAIN] == ("claude-sonnet-4", "local")
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "the model gave no JSON.")
    assert first.attributes[names.ERROR_TYPE] == "OutputError"
    assert (second.attributes[names.ERROR_TYPE], second.status.description) == ("ValueError", "bad")
    assert [event.name for event in second.events] == ["exception"]


def test_metrics_hang_below_the_span_they_are_logged_in(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_agent("explainer") as agent:
        agent.log_metric("faithfulness", 0.9)
        opik.log_metric("latency", 12.5, unit="ms", metadata={"brand": "Kisqali"})
    opik.log_metric("late", 1, trace_id=agent.trace_id, span_id=agent.span_id)
    opik.log_metric("trace_wide", 1, trace_id=agent.trace_id)
    opik.log_metric("apart", True)
    top = spans.named("invoke_agent explainer")
    for name in ("faithfulness", "latency", "late"):
        metric = spans.named(f"metric {name}")
        assert (metric.context.trace_id, metric.parent.span_id) == (top.context.trace_id, top.context.span_id)
        assert metric.start_time == metric.end_time
    assert dict(spans.named("metric latency").attributes) == {
        names.OPERATION: "metric",
        names.METRIC_NAME: "latency",
        names.METRIC_VALUE: 12.5,
        names.METRIC_UNIT: "ms",
        names.BRAND: "Kisqali",
        names.AGENT: "explainer",
    }
    assert spans.named("metric trace_wide").parent is None
    assert spans.named("metric trace_wide").context.trace_id == top.context.trace_id
    assert spans.named("metric apart").context.trace_id != top.context.trace_id
    assert spans.named("metric apart").attributes[names.METRIC_VALUE] == 1.0


def test_feedback_scores_a_trace_or_one_of_its_spans_also_later(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_agent("explainer") as agent:
        pass
    assert agent.trace_id is not None
    opik.log_feedback(agent.trace_id, "helpful", 1.0, reason="the number was right", source="brand_lead")
    opik.log_feedback(agent.trace_id, "grounded", 0.4, span_id=agent.span_id)
    of_trace, of_span = spans.all[1:]
    assert of_trace.parent is None
    assert dict(of_trace.attributes) == {
        names.OPERATION: "feedback",
        names.FEEDBACK_NAME: "helpful",
        names.FEEDBACK_VALUE: 1.0,
        names.FEEDBACK_REASON: "the number was right",
        names.FEEDBACK_SOURCE: "brand_lead",
    }
    assert f"{of_span.parent.span_id:016x}" == agent.span_id
    assert {span.context.trace_id for span in spans.all} == {int(agent.trace_id, 16)}


def test_feedback_inside_an_agent_carries_its_name_so_that_its_settings_hold(opik: OpikConnector, spans: Spans) -> None:
    with opik.trace_agent("explainer"), trace.get_tracer("another library").start_as_current_span("inside"):
        opik.log_feedback(TRACE, "faithful", 1.0, reason="as the prompt says")
        opik.log_metric("share", 0.4, metadata={names.AGENT: "gap_analyzer"})
    opik.log_feedback(TRACE, "late", 1.0)
    assert spans.named("feedback faithful").attributes[names.AGENT] == "explainer"
    assert spans.named("metric share").attributes[names.AGENT] == "gap_analyzer"
    assert names.AGENT not in spans.named("feedback late").attributes


@pytest.mark.parametrize("value", [math.nan, math.inf, "high", None])
def test_a_metric_or_score_that_is_no_number_is_refused(opik: OpikConnector, spans: Spans, value: object) -> None:
    with pytest.raises(DataError, match="metric faithfulness"):
        opik.log_metric("faithfulness", value)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="feedback faithfulness"):
        opik.log_feedback(TRACE, "faithfulness", value)  # type: ignore[arg-type]
    assert not spans.all


def test_a_span_that_happened_already_is_emitted_as_it_was(opik: OpikConnector, spans: Spans) -> None:
    ids = opik.emit_span(
        "explainer",
        "explain",
        started_at=START,
        duration_ms=1500.25,
        trace_id=TRACE,
        span_id=SPAN,
        parent_span_id="b7ad6b7169203331",
        status="error",
        error_type="TimeoutError",
        error_message="no answer",
        model_name="claude-sonnet-4",
        input_tokens=10,
        output_tokens=0,
        total_cost=0.0,
        input_data={"q": 1},
        output_data="none",
        attributes={"brand": "Kisqali"},
        fallback_chain=("a", "b"),
    )
    assert ids == (TRACE, SPAN)
    span = spans.only
    assert (span.start_time, span.end_time) == (int(START.timestamp()) * 10**9, int(START.timestamp()) * 10**9 + 1_500_250_000)
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no answer")
    assert dict(span.attributes) == {
        names.OPERATION: "llm",
        names.AGENT: "explainer",
        names.TIER: "self_improvement",
        names.STEP: "explain",
        names.GEN_AI_REQUEST_MODEL: "claude-sonnet-4",
        names.GEN_AI_INPUT_TOKENS: 10,
        names.GEN_AI_OUTPUT_TOKENS: 0,
        names.COST_USD: 0.0,
        names.INPUT: '{"q":1}',
        names.OUTPUT: "none",
        names.FALLBACK_CHAIN: ("a", "b"),
        names.ERROR_TYPE: "TimeoutError",
        names.BRAND: "Kisqali",
    }


def test_an_emitted_span_may_come_without_ids_and_end_now(opik: OpikConnector, spans: Spans) -> None:
    ids = opik.emit_span("explainer", "explain", started_at=datetime.now(timezone(timedelta(hours=5))) - timedelta(seconds=2))
    assert ids is not None
    span = spans.only
    assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == ids
    assert 1.9e9 < span.end_time - span.start_time < 10e9
    assert span.parent is None
    assert span.status.status_code is StatusCode.OK


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"started_at": datetime(2026, 1, 1)}, "aware datetime"),  # noqa: DTZ001
        ({"started_at": "2026-01-01"}, "aware datetime"),
        ({"ended_at": START - timedelta(seconds=1)}, "ends before it starts"),
        ({"duration_ms": -1.0}, "ends before it starts"),
        ({"duration_ms": math.nan}, "duration_ms is nan"),
        ({"status": "fine"}, "status is 'fine'"),
        ({"error_type": "ValueError"}, "there is an error"),
        ({"span_id": "1"}, "span_id is '1'"),
        ({"input_tokens": -1}, "input_tokens is -1"),
        ({"total_cost": -1.0}, "total_cost is -1.0"),
    ],
)
def test_an_emitted_span_that_contradicts_itself_is_refused(opik: OpikConnector, spans: Spans, wrong: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        opik.emit_span("explainer", "explain", **{"started_at": START, **wrong})
    assert not spans.all


def test_a_span_is_used_inside_its_block_and_once(opik: OpikConnector, spans: Spans) -> None:
    span = opik.trace_agent("explainer")
    assert (span.trace_id, span.span_id, span.is_recording) == (None, None, False)
    with pytest.raises(DataError, match="not open"):
        span.set_output("early")
    with span:
        assert span.is_recording
    with pytest.raises(DataError, match="opened before"), span:
        pass
    assert not span.is_recording
    assert len(spans.all) == 1


def test_without_an_sdk_everything_runs_and_nothing_is_recorded() -> None:
    code = """
from datetime import datetime, UTC
from e2i.mlops.opik_connector import OpikConnector, OpikSettings
opik = OpikConnector(OpikSettings())
with opik.trace_agent("explainer", input_data={"a": object()}) as agent, opik.trace_llm_call("m", prompt="p") as call:
    call.log_llm_response("x", 1, 2, 0.1)
    agent.log_metric("m", 1.0)
    assert agent.trace_id is None and call.span_id is None and not agent.is_recording
opik.log_feedback("4bf92f3577b34da6a3ce929d0e0e4736", "f", 1)
assert opik.emit_span("a", "b", started_at=datetime.now(UTC)) is None
assert opik.flush()
assert not opik.get_status().is_recording
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_importing_the_connector_loads_neither_opik_nor_the_sdk() -> None:
    heavy = ("opik", "mlflow", "httpx", "pandas", "langchain_core", "opentelemetry.sdk.trace")
    code = f"import sys, e2i.mlops.opik_connector; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


class Accounts:
    async def accounts(self) -> list[SinkAccount]:
        known = {"emitted": 7, "in_spool": 0, "sampled_out": 0, "dropped": {}, "lag_s": 0.0}
        return [
            SinkAccount(sink="postgres", delivered=7, breaker="closed", **known),
            SinkAccount(sink="opik", delivered=4, breaker="open", **(known | {"in_spool": 3})),
        ]


async def test_status_and_account_say_where_spans_go_and_how_far_they_got(opik: OpikConnector, spans: Spans) -> None:
    assert await opik.account() is None
    account = await OpikConnector(accounts=Accounts()).account()
    assert account is not None
    assert (account.sink, account.breaker, account.in_spool, account.unexplained) == ("opik", "open", 3, 0)
    status = opik.get_status()
    assert (status.is_enabled, status.is_recording, status.project_name) == (True, True, "e2i-causal-analytics")
    assert opik.flush()
    assert not spans.all
