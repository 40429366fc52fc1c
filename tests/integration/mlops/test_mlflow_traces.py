"""Spans of the connector and of LangGraph code in the trace store of a real `mlflow server` on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from span_line import span_line
from tracking_server import TrackingServer

from databases import administer, empty_database
from e2i.mlops.mlflow_callback import MlflowCallbackHandler
from e2i.mlops.opik_connector import OpikConnector, OpikSettings
from e2i.storage.address import sqlalchemy_url
from e2i.telemetry.sinks.mlflow import MlflowExporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow.entities import Trace

pytestmark = pytest.mark.slow


@pytest.fixture
def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """Not started yet."""
    with empty_database(database_url) as url:
        administer(url, "create schema mlflow")
        running = TrackingServer(tmp_path_factory.mktemp("server"), store=sqlalchemy_url(url, schema="mlflow"))
        yield running
        running.kill()


@pytest.fixture
def opik() -> Iterator[OpikConnector]:
    OpikConnector.reset()
    yield OpikConnector(OpikSettings(tiers={"explainer": "self_improvement"}))
    OpikConnector.reset()


def traces_in(server: TrackingServer, experiment: str) -> list[Trace]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_traces(locations=[found.experiment_id]))


def graph() -> Any:
    message = AIMessage(content="The program.", usage_metadata={"input_tokens": 20, "output_tokens": 4, "total_tokens": 24})
    model = GenericFakeChatModel(messages=iter([message]), metadata={"ls_model_name": "gpt-x", "ls_provider": "openai"})
    builder = StateGraph(MessagesState)
    builder.add_node("ask", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile()


async def explain(opik: OpikConnector) -> None:
    async with opik.trace_agent("explainer", "explain", input_data={"question": "Why?"}, metadata={"session_id": "s1"}) as agent:
        async with opik.trace_llm_call("claude-sonnet-4", prompt="Why did NRx rise?", provider="anthropic") as call:
            call.log_llm_response("Because.", 12, 3, 0.0002)
        agent.set_output({"answer": "Because."})


async def test_traces_reach_mlflow_with_inputs_outputs_and_tokens_when_it_comes_back(
    server: TrackingServer, opik: OpikConnector, tmp_path: Path
) -> None:
    experiment = f"e2i_traces_{uuid.uuid4().hex[:8]}"
    handler = MlflowCallbackHandler("gap_analyzer", agent_tier="causal_analytics", brand="Kisqali", kpi="nrx")
    with span_line(tmp_path / "spool") as line:
        async with line.shipping(MlflowExporter(server.uri, experiment=experiment, timeout_s=60)):
            await explain(opik)
            await line.troubled("mlflow")
            await asyncio.to_thread(server.start)
            graph().invoke({"messages": [("user", "Which program?")]}, config={"callbacks": [handler]})
            with pytest.raises(ZeroDivisionError), opik.trace_agent("explainer", "divide"):
                _ = 1 / 0
            (account,) = await line.settled("mlflow", timeout_s=90)
        assert (account.emitted, account.delivered, account.dropped) == (6, 6, {})
        found = await asyncio.to_thread(traces_in, server, experiment)
    assert len(found) == 3
    spans = {span.name: span for one in found for span in one.data.spans}
    assert len(spans) == sum(len(one.data.spans) for one in found) == 6
    first = next(one for one in found if "explainer.explain" in [span.name for span in one.data.spans])
    assert first.info.token_usage == {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    assert first.info.trace_metadata["mlflow.trace.session"] == "s1"
    top, llm = spans["explainer.explain"], spans["chat claude-sonnet-4"]
    assert (top.span_type, llm.span_type) == ("AGENT", "CHAT_MODEL")
    assert (top.inputs, top.outputs) == ({"question": "Why?"}, {"answer": "Because."})
    assert (llm.inputs, llm.outputs, llm.parent_id) == ("Why did NRx rise?", "Because.", top.span_id)
    assert llm.attributes["e2i.agent.name"] == "explainer"
    graphed = spans["chat gpt-x"]
    assert graphed.inputs == [{"role": "user", "content": "Which program?"}]
    assert graphed.outputs == "The program."
    assert graphed.attributes["e2i.brand"] == "Kisqali"
    assert str(spans["explainer.divide"].status.status_code).endswith("ERROR")
