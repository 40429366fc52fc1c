# ruff: noqa: INP001  # an example is no package
"""An agent of your own: a LangGraph graph whose prompts, tokens, metrics and artifacts are kept, and whose every step is a span.

Run it with `python examples/agent_with_mlflow.py`; it needs no network. Then look at what it left:

    e2i trace ls
    e2i trace show <trace id that it printed>

The model here answers from a list, so that the example runs anywhere. Put any LangChain chat model in its place.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from e2i import config
from e2i.bootstrap import Platform, observing
from e2i.mlops.experiment_tracker import ExperimentTracker
from e2i.mlops.mlflow_callback import MlflowCallbackHandler
from e2i.mlops.opik_connector import get_opik_connector

AGENT, BRAND, KPI = "explainer", "Kisqali", "nrx"
MODEL, TEMPERATURE, MAX_TOKENS = "answers-from-a-list", 0.3, 200
QUESTION = "Why did NRx for Kisqali rise in the Northeast?"


def model() -> GenericFakeChatModel:
    """A stand-in for a language model; it says what it is told to say, with the tokens of a real answer."""
    usage = {"input_tokens": 24, "output_tokens": 13, "total_tokens": 37}
    answer = AIMessage(content="Prescribers who attended the speaker program wrote more new prescriptions.", usage_metadata=usage)
    return GenericFakeChatModel(messages=iter([answer]), metadata={"ls_model_name": MODEL, "ls_provider": "example"})


def build_graph() -> Any:
    """One node that asks the model."""
    language = model().bind(temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [language.invoke(state["messages"])]})
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile()


async def explain(tracker: ExperimentTracker) -> str:
    """Run the graph as the agent `explainer`; the id of its trace."""
    opik = get_opik_connector()
    graph, handler = build_graph(), MlflowCallbackHandler(AGENT, brand=BRAND, kpi=KPI)
    async with tracker.track(AGENT, brand=BRAND, kpi=KPI, run_name="example") as run:
        await run.log_hyperparameters(temperature=TEMPERATURE, max_tokens=MAX_TOKENS, model_version=MODEL)
        async with opik.trace_agent(AGENT, "explain", metadata={"brand": BRAND, "kpi": KPI}, input_data=QUESTION) as span:
            state = await graph.ainvoke({"messages": [("user", QUESTION)]}, config={"callbacks": [handler]})
            answer = state["messages"][-1].content
            span.set_output(answer)
            span.log_metric("words", len(answer.split()))
        await run.log_metrics(words=len(answer.split()), characters=len(answer))
        await run.log_prompt("explain", QUESTION, answer)
        with tempfile.TemporaryDirectory() as folder:
            drawing = Path(folder) / "graph.mmd"
            drawing.write_text(graph.get_graph().draw_mermaid())
            await run.log_artifact(drawing, "graphs")
    return json.dumps({"answer": answer, "trace_id": span.trace_id, "mlflow_run_id": run.run_id, "mlflow_run_key": run.key}, indent=2)


async def main() -> None:
    """Open the platform, run the agent, say where to look."""
    settings = config.load()
    with observing(settings):
        async with Platform.open(settings) as platform:
            print(await explain(ExperimentTracker(platform.tracker, settings.agents)))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
