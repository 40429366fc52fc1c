"""LangChain and LangGraph, run for real on models that answer from a list, seen through the callback handler."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from opentelemetry.trace import StatusCode

from e2i.mlops.mlflow_callback import MlflowCallbackHandler
from e2i.mlops.opik_connector import OpikConnector, OpikSettings
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from conftest import Spans

USAGE = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}


@pytest.fixture
def handler() -> Iterator[MlflowCallbackHandler]:
    made = MlflowCallbackHandler("explainer", agent_tier="self_improvement", brand="Kisqali", kpi="nrx")
    yield made
    assert made.open_runs == 0


@pytest.fixture(autouse=True)
def no_warning_of_langchains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a handler raises LangChain only logs."""
    caplog.set_level(logging.WARNING, logger="langchain_core.callbacks.manager")
    yield
    assert not caplog.records


def answering(text: str = "NRx is up.", **more: Any) -> GenericFakeChatModel:
    details = {"model_name": "claude-sonnet-4-1", "finish_reason": "stop"}
    message = AIMessage(content=text, usage_metadata=USAGE, response_metadata=details, **more)
    return GenericFakeChatModel(messages=iter([message]), metadata={"ls_model_name": "claude-sonnet-4", "ls_provider": "anthropic"})


def parent_of(span: ReadableSpan, spans: Spans) -> str | None:
    return next((other.name for other in spans.all if span.parent and other.context.span_id == span.parent.span_id), None)


def test_a_chat_models_call_carries_prompt_completion_tokens_and_who_asked(handler: MlflowCallbackHandler, spans: Spans) -> None:
    model = answering().bind(temperature=0.3, max_tokens=200)
    model.invoke([SystemMessage("Be brief."), HumanMessage("Where is NRx going?")], config={"callbacks": [handler], "tags": ["demo"]})
    span = spans.only
    assert span.name == "chat claude-sonnet-4"
    assert span.end_time > span.start_time
    found = dict(span.attributes)
    assert orjson.loads(found.pop(names.INPUT)) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is NRx going?"},
    ]
    assert found == {
        names.OPERATION: "llm",
        names.GEN_AI_OPERATION: "chat",
        names.OPENINFERENCE_KIND: "LLM",
        names.GEN_AI_REQUEST_MODEL: "claude-sonnet-4",
        names.GEN_AI_RESPONSE_MODEL: "claude-sonnet-4-1",
        names.GEN_AI_PROVIDER: "anthropic",
        names.GEN_AI_TEMPERATURE: 0.3,
        names.GEN_AI_MAX_TOKENS: 200,
        names.GEN_AI_INPUT_TOKENS: 12,
        names.GEN_AI_OUTPUT_TOKENS: 3,
        names.GEN_AI_FINISH_REASONS: ("stop",),
        names.OUTPUT: "NRx is up.",
        names.AGENT: "explainer",
        names.TIER: "self_improvement",
        names.BRAND: "Kisqali",
        names.KPI: "nrx",
        names.TAGS: ("demo",),
    }


def test_every_span_but_the_first_of_an_agent_is_a_part_of_its_call(handler: MlflowCallbackHandler, spans: Spans) -> None:
    def ask(question: str) -> str:
        return str(answering().invoke(question).content)

    delegate = RunnableLambda(ask, name="delegate").with_config(metadata={"agent_name": "gap_analyzer"})
    chain = RunnableLambda(ask, name="own") | delegate
    chain.invoke("Why?", config={"callbacks": [handler], "run_name": "root"})
    calls = {span.name: span.attributes[names.AGENT] for span in spans.all if names.IS_PART not in span.attributes}
    assert calls == {"root": "explainer", "delegate": "gap_analyzer"}
    assert len(spans.all) == 5


@pytest.mark.parametrize("around", ["explainer", "gap_analyzer"])
def test_a_chain_inside_a_call_of_its_agent_is_a_part_of_it(handler: MlflowCallbackHandler, spans: Spans, around: str) -> None:
    with OpikConnector(OpikSettings()).trace_agent(around):
        answering().invoke("Why?", config={"callbacks": [handler]})
    assert (names.IS_PART in spans.named("chat claude-sonnet-4").attributes) is (around == "explainer")


def test_a_runs_own_metadata_wins_and_holds_below_it(handler: MlflowCallbackHandler, spans: Spans) -> None:
    chain = RunnableLambda(lambda question: answering().invoke(question))
    metadata = {"agent_name": "gap_analyzer", "agent_tier": "causal_analytics", "brand": "Fabhalta", "experiment": "x1", "thread_id": "t1"}
    chain.invoke("Why?", config={"callbacks": [handler], "metadata": metadata, "run_name": "gaps"})
    assert {span.name for span in spans.all} == {"gaps", "chat claude-sonnet-4"}
    for span in spans.all:
        assert span.attributes[names.AGENT] == "gap_analyzer"
        assert span.attributes[names.TIER] == "causal_analytics"
        assert span.attributes[names.BRAND] == "Fabhalta"
        assert span.attributes[names.KPI] == "nrx"
        assert span.attributes[names.SESSION_ID] == "t1"
        assert span.attributes["experiment"] == "x1"
    assert spans.named("gaps").attributes[names.OPERATION] == "agent"


def test_a_text_models_call_and_a_batch_of_them(handler: MlflowCallbackHandler, spans: Spans) -> None:
    FakeListLLM(responses=["one", "two", "three"]).batch(["a", "b", "c"], config={"callbacks": [handler], "max_concurrency": 1})
    said = {span.attributes[names.INPUT]: span.attributes[names.OUTPUT] for span in spans.all}
    assert said == {"a": "one", "b": "two", "c": "three"}
    assert {span.attributes[names.GEN_AI_OPERATION] for span in spans.all} == {"text_completion"}
    assert {span.attributes[names.GEN_AI_REQUEST_MODEL] for span in spans.all} == {"FakeListLLM"}
    assert not any(names.GEN_AI_INPUT_TOKENS in span.attributes for span in spans.all)  # unknown is not 0


def test_a_stream_is_one_span_that_knows_when_its_first_token_came(handler: MlflowCallbackHandler, spans: Spans) -> None:
    said = list(FakeListChatModel(responses=["hello"], sleep=0.001).stream("hi", config={"callbacks": [handler]}))
    assert len(said) == 5
    span = spans.only
    assert span.attributes[names.OUTPUT] == "hello"
    (first,) = span.events
    assert first.name == "gen_ai.first_token"
    assert span.start_time < first.timestamp < span.end_time


class UsageAtTheEnd(GenericFakeChatModel):
    """As providers stream: text first, tokens in a last chunk."""

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Iterator[ChatGenerationChunk]:
        for word in ("up ", "4 %"):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager is not None:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=USAGE, response_metadata={"stop_reason": "end_turn"}))


async def test_tokens_that_come_with_the_last_chunk_are_counted(handler: MlflowCallbackHandler, spans: Spans) -> None:
    async for _ in UsageAtTheEnd(messages=iter([])).astream("hi", config={"callbacks": [handler]}):
        pass
    found = spans.only.attributes
    assert (found[names.GEN_AI_INPUT_TOKENS], found[names.GEN_AI_OUTPUT_TOKENS], found[names.OUTPUT]) == (12, 3, "up 4 %")
    assert found[names.GEN_AI_FINISH_REASONS] == ("end_turn",)


def test_a_stream_that_its_reader_leaves_is_ended(handler: MlflowCallbackHandler, spans: Spans) -> None:
    reading = FakeListChatModel(responses=["hello"]).stream("hi", config={"callbacks": [handler]})
    next(reading)
    reading.close()
    assert_left_early(spans.only)
    assert handler.open_runs == 0


def assert_left_early(span: ReadableSpan) -> None:
    assert span.attributes.get(names.LEFT_EARLY) is True, span.name
    assert names.ERROR_TYPE not in span.attributes
    assert span.status.status_code is StatusCode.UNSET
    assert not [event for event in span.events if event.name == "exception"]


async def leave(runnable: Any, given: object, **more: Any) -> None:
    reading = runnable.astream(given, **more)
    async for _ in reading:
        break
    await reading.aclose()
    await asyncio.sleep(0.01)  # asyncio closes the generators inside


def asking(wait_s: float = 0.02) -> Any:
    """A graph whose one node asks a slow model."""

    async def ask(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await FakeListChatModel(responses=["hello"], sleep=wait_s).ainvoke(state["messages"], config=config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile()


async def test_a_chain_whose_reader_leaves_has_not_failed_and_neither_has_its_model(handler: MlflowCallbackHandler, spans: Spans) -> None:
    chain = ChatPromptTemplate.from_template("{question}") | FakeListChatModel(responses=["hello"])
    await leave(chain, {"question": "Why?"}, config={"callbacks": [handler]})
    reading = chain.stream({"question": "Why?"}, config={"callbacks": [handler]})
    next(reading)
    reading.close()
    left = [span for span in spans.all if span.name != "ChatPromptTemplate"]
    assert sorted(span.name for span in left) == ["RunnableSequence"] * 2 + ["chat FakeListChatModel"] * 2
    for span in left:
        assert_left_early(span)


@pytest.mark.parametrize("is_nested", [False, True], ids=["alone", "below another chain"])
async def test_a_graph_whose_reader_leaves_cancels_its_nodes_which_is_no_failure(
    handler: MlflowCallbackHandler, spans: Spans, is_nested: bool
) -> None:
    async def outer(_: object) -> str:
        await leave(asking(), {"messages": [HumanMessage("hi")]}, stream_mode="messages")
        return "enough"

    config = {"callbacks": [handler], "run_name": "outer"}
    if is_nested:
        assert await RunnableLambda(outer).ainvoke("x", config=config) == "enough"
        assert spans.named("outer").status.status_code is StatusCode.UNSET
        assert names.LEFT_EARLY not in spans.named("outer").attributes
    else:
        await leave(asking(), {"messages": [HumanMessage("hi")]}, stream_mode="messages", config={"callbacks": [handler]})
    for name in ("LangGraph", "ask", "chat FakeListChatModel"):
        assert_left_early(spans.named(name))
    assert spans.named("ask").end_time <= spans.named("LangGraph").end_time


async def test_a_graph_that_is_really_cancelled_has_failed_and_says_so_in_words(handler: MlflowCallbackHandler, spans: Spans) -> None:
    async def read() -> None:
        async for _ in asking(60).astream({"messages": [HumanMessage("hi")]}, stream_mode="messages", config={"callbacks": [handler]}):
            pass

    task = asyncio.create_task(read())
    while handler.open_runs < 3:  # noqa: ASYNC110 - the handler counts what the graph has begun
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for name in ("LangGraph", "ask"):
        span = spans.named(name)
        assert span.attributes[names.ERROR_TYPE] == "CancelledError"
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "cancelled")
        assert span.events[0].attributes[names.EXCEPTION_MESSAGE] == "cancelled"
        assert "object at 0x" not in str(span.events[0].attributes)


async def test_a_model_cancelled_in_the_middle_of_its_answer_has_failed_although_its_chain_goes_on(
    handler: MlflowCallbackHandler, spans: Spans
) -> None:
    async def impatient(_: object) -> str:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in FakeListChatModel(responses=["hello"], sleep=0.01).astream("hi"):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "without"

    await RunnableLambda(impatient).ainvoke("x", config={"callbacks": [handler], "run_name": "outer"})
    model = spans.named("chat FakeListChatModel")
    assert (model.status.status_code, model.status.description) == (StatusCode.ERROR, "cancelled")
    assert names.LEFT_EARLY not in model.attributes
    assert names.LEFT_EARLY not in spans.named("outer").attributes


async def test_a_step_cancelled_in_a_chain_that_goes_on_has_failed(handler: MlflowCallbackHandler, spans: Spans) -> None:
    async def impatient(_: object) -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(RunnableLambda(asyncio.sleep).with_config(run_name="slow").ainvoke(60), 0.02)
        await asyncio.sleep(0.05)
        return "without"

    assert await RunnableLambda(impatient).ainvoke("x", config={"callbacks": [handler], "run_name": "outer"}) == "without"
    slow, outer = spans.named("slow"), spans.named("outer")
    assert (slow.status.status_code, slow.status.description) == (StatusCode.ERROR, "cancelled")
    assert outer.status.status_code is StatusCode.UNSET
    assert outer.end_time - slow.end_time > 40_000_000  # it ended when it was cancelled


class Breaking(FakeListChatModel):
    def _call(self, *_: Any, **__: Any) -> str:
        raise TimeoutError("no answer within 30 s.")


async def test_what_a_model_raises_is_on_its_span_and_on_those_above(handler: MlflowCallbackHandler, spans: Spans) -> None:
    chain = ChatPromptTemplate.from_template("{question}") | Breaking(responses=["x"])
    with pytest.raises(TimeoutError):
        await chain.ainvoke({"question": "Why?"}, config={"callbacks": [handler]})
    failed = [span for span in spans.all if span.status.status_code is StatusCode.ERROR]
    assert {span.name for span in failed} == {"RunnableSequence", "chat Breaking"}
    for span in failed:
        assert span.attributes[names.ERROR_TYPE] == "TimeoutError"
        assert span.status.description == "no answer within 30 s."
        assert [event.name for event in span.events] == ["exception"]
    assert parent_of(spans.named("chat Breaking"), spans) == "RunnableSequence"


@tool
def share(trx: int, market: int) -> float:
    """Market share."""
    return trx / market


class Found(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(page_content=f"about {query}", metadata={"score": 0.9, "source": "label.pdf"})]


async def test_tools_and_retrievers(handler: MlflowCallbackHandler, spans: Spans) -> None:
    call = {"name": "share", "args": {"trx": 1, "market": 4}, "id": "call_1", "type": "tool_call"}
    share.invoke(call, config={"callbacks": [handler]})
    await Found().ainvoke("dosing", config={"callbacks": [handler]})
    with pytest.raises(ZeroDivisionError):
        await share.ainvoke({"trx": 1, "market": 0}, config={"callbacks": [handler]})
    used, retrieved, failed = spans.all
    assert used.name == failed.name == "execute_tool share"
    assert used.attributes[names.INPUT] == '{"trx":1,"market":4}'
    assert used.attributes[names.OUTPUT] == "0.25"
    assert used.attributes[names.GEN_AI_TOOL_CALL_ID] == "call_1"
    assert used.attributes[names.OPERATION] == "tool"
    assert failed.attributes[names.ERROR_TYPE] == "ZeroDivisionError"
    assert (retrieved.attributes[names.OPERATION], retrieved.attributes[names.INPUT]) == ("retrieval", "dosing")
    (document,) = orjson.loads(retrieved.attributes[names.OUTPUT])
    assert document["page_content"] == "about dosing"
    assert document["metadata"] == {"score": 0.9, "source": "label.pdf"}


def graph(model: Any, *, saver: Any = None, ask_people: bool = False) -> Any:
    def ask(state: MessagesState) -> dict:
        return {"messages": [model.invoke(state["messages"])]}

    async def ask_async(state: MessagesState) -> dict:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def review(_: MessagesState) -> dict:
        if ask_people:
            interrupt("is it right?")
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", RunnableLambda(ask, afunc=ask_async))
    builder.add_node("review", review)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "review")
    builder.add_edge("review", END)
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
async def test_a_langgraph_run_is_one_tree_below_the_agent_that_calls_it(handler: MlflowCallbackHandler, spans: Spans, how: str) -> None:
    opik = OpikConnector(OpikSettings())
    app, asked, config = graph(answering()), {"messages": [("user", "Why?")]}, {"callbacks": [handler]}
    async with opik.trace_agent("orchestrator") as agent:
        if how == "invoke":
            app.invoke(asked, config=config)
        elif how == "stream":
            list(app.stream(asked, config=config))
        elif how == "ainvoke":
            await app.ainvoke(asked, config=config)
        else:
            assert [part async for part in app.astream(asked, config=config)]
    OpikConnector.reset()
    assert {f"{span.context.trace_id:032x}" for span in spans.all} == {agent.trace_id}
    assert parent_of(spans.named("LangGraph"), spans) == "invoke_agent orchestrator"
    for node in ("ask", "review"):
        assert "LangGraph" in [parent_of(span, spans) for span in spans.all if span.name == span.attributes.get("langgraph_node") == node]
    llm = spans.named("chat claude-sonnet-4")
    assert parent_of(llm, spans) == "ask"
    assert llm.attributes["langgraph_node"] == "ask"
    assert llm.attributes[names.GEN_AI_INPUT_TOKENS] == 12
    assert orjson.loads(spans.named("LangGraph").attributes[names.OUTPUT])


def test_a_graph_that_waits_for_people_has_not_failed(handler: MlflowCallbackHandler, spans: Spans) -> None:
    app = graph(answering(), saver=InMemorySaver(), ask_people=True)
    app.invoke({"messages": [("user", "Why?")]}, config={"callbacks": [handler], "configurable": {"thread_id": "t1"}})
    assert not [span.name for span in spans.all if span.status.status_code is StatusCode.ERROR]
    assert [event.name for span in spans.all for event in span.events if span.name == "review"] == ["interrupt"]
    assert spans.named("LangGraph").attributes[names.SESSION_ID] == "t1"


async def test_many_threads_and_tasks_share_one_handler(handler: MlflowCallbackHandler, spans: Spans) -> None:
    chain = RunnableLambda(lambda number: FakeListChatModel(responses=[f"answer {number}"]).invoke(f"question {number}").content)
    config = {"callbacks": [handler], "max_concurrency": 8}
    said = await asyncio.to_thread(chain.batch, list(range(40)), config=config)
    said += await chain.abatch(list(range(40, 80)), config=config)
    assert said == [f"answer {number}" for number in range(80)]
    calls = [span for span in spans.all if span.name.startswith("chat")]
    assert len(calls) == 80
    roots = {span.context.span_id: span for span in spans.all if span.parent is None}
    assert len(roots) == 80
    for call in calls:
        root = roots[call.parent.span_id]
        assert orjson.loads(call.attributes[names.INPUT])[0]["content"] == f"question {root.attributes[names.INPUT]}"
        assert call.attributes[names.OUTPUT] == f"answer {root.attributes[names.INPUT]}"


def test_runs_whose_end_never_comes_end_with_the_run_above_them(handler: MlflowCallbackHandler, spans: Spans) -> None:
    root, middle, leaf, other = (uuid.uuid4() for _ in range(4))
    handler.on_chain_start(None, {}, run_id=root, name="root")
    handler.on_chain_start(None, {}, run_id=other, name="other")
    handler.on_chain_start(None, {}, run_id=middle, parent_run_id=root, name="middle")
    handler.on_llm_start({}, ["asked"], run_id=leaf, parent_run_id=middle)
    assert handler.open_runs == 4
    handler.on_chain_end({}, run_id=root)
    assert handler.open_runs == 1
    assert [(span.name, span.attributes.get(names.ERROR_TYPE)) for span in spans.all] == [
        ("text_completion unknown", "unfinished"),
        ("middle", "unfinished"),
        ("root", None),
    ]
    handler.on_llm_end(LLMResult(generations=[]), run_id=leaf)  # too late, and no fault
    handler.close()
    assert [span.name for span in spans.all][3:] == ["other"]


def test_memory_is_bounded_when_no_end_ever_comes(spans: Spans) -> None:
    handler = MlflowCallbackHandler(max_open_runs=10)
    for number in range(100):
        root = uuid.uuid4()
        handler.on_chain_start(None, {}, run_id=root, name=f"root {number}")
        handler.on_tool_start({"name": "t"}, "x", run_id=uuid.uuid4(), parent_run_id=root)
        assert handler.open_runs <= 10
    assert len(spans.all) == 190
    handler.close()
    assert (len(spans.all), handler.open_runs) == (200, 0)


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        (LLMResult(generations=[]), None),
        (LLMResult(generations=[[Generation(text="x")]]), None),
        (LLMResult(generations=[[Generation(text="x")]], llm_output={"token_usage": {"prompt_tokens": 5, "completion_tokens": 2}}), (5, 2)),
        (LLMResult(generations=[[Generation(text="x")]], llm_output={"usage": {"input_tokens": 5, "output_tokens": 2}}), (5, 2)),
        (LLMResult(generations=[[Generation(text="x", generation_info={"usage": {"input_tokens": 5, "output_tokens": 2}})]]), (5, 2)),
        (LLMResult(generations=[[Generation(text="x")]], llm_output={"usage": {"prompt_tokens": -5, "completion_tokens": "2"}}), None),
        (LLMResult(generations=[[Generation(text="x")]], llm_output={"token_usage": "none"}), None),
        (LLMResult(generations=[[ChatGeneration(message=AIMessage(content="x", usage_metadata=USAGE))] * 2]), (12, 3)),
    ],
)
def test_tokens_are_found_where_providers_put_them_and_never_guessed(
    handler: MlflowCallbackHandler, spans: Spans, result: LLMResult, tokens: tuple[int, int] | None
) -> None:
    run = uuid.uuid4()
    handler.on_llm_start({"id": ["a", "Model"]}, ["asked"], run_id=run)
    handler.on_llm_end(result, run_id=run)
    found = spans.only.attributes
    kept = (found.get(names.GEN_AI_INPUT_TOKENS), found.get(names.GEN_AI_OUTPUT_TOKENS))
    assert kept == (tokens or (None, None))


def test_a_models_tool_calls_are_part_of_what_it_said(handler: MlflowCallbackHandler, spans: Spans) -> None:
    answering("", tool_calls=[{"name": "share", "args": {"trx": 1}, "id": "c1"}]).invoke("hi", config={"callbacks": [handler]})
    said = orjson.loads(spans.only.attributes[names.OUTPUT])
    assert (said["role"], said["tool_calls"][0]["name"], said["tool_calls"][0]["args"]) == ("assistant", "share", {"trx": 1})


def test_hidden_runs_have_no_span_and_their_children_hang_above(handler: MlflowCallbackHandler, spans: Spans) -> None:
    inner = RunnableLambda(lambda question: answering().invoke(question)).with_config(tags=["langsmith:hidden"])
    outer = RunnableLambda(inner.invoke)
    outer.invoke("Why?", config={"callbacks": [handler], "run_name": "outer"})
    assert [span.name for span in spans.all] == ["chat claude-sonnet-4", "outer"]
    assert parent_of(spans.named("chat claude-sonnet-4"), spans) == "outer"


async def test_a_cancelled_run_ends_its_spans(handler: MlflowCallbackHandler, spans: Spans) -> None:
    inside = asyncio.Event()

    async def wait(_: object) -> None:
        inside.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(RunnableLambda(wait).ainvoke("x", config={"callbacks": [handler], "run_name": "wait"}))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert spans.named("wait").attributes[names.ERROR_TYPE] == "CancelledError"


def test_inputs_that_cannot_be_json_do_not_disturb_the_chain(handler: MlflowCallbackHandler, spans: Spans) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert RunnableLambda(lambda x: x).invoke({"odd": Odd(), "set": {1}, "text": "\ud800"}, config={"callbacks": [handler]})["set"] == {1}
    assert "Odd" in spans.only.attributes[names.INPUT]


async def test_an_agent_traced_by_the_connector_is_the_handlers_agent_by_default(spans: Spans) -> None:
    opik = OpikConnector(OpikSettings(tiers={"explainer": "self_improvement"}))
    async with opik.trace_agent("explainer"):
        await answering().ainvoke("hi", config={"callbacks": [MlflowCallbackHandler()]})
    OpikConnector.reset()
    found = spans.named("chat claude-sonnet-4").attributes
    assert (found[names.AGENT], found[names.TIER]) == ("explainer", "self_improvement")


def test_the_handler_needs_no_mlflow() -> None:
    code = "import sys, e2i.mlops.mlflow_callback; print([name for name in ('mlflow', 'pandas', 'openai') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
