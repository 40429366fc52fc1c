"""LangChain and LangGraph code that runs outside our engine, as spans: MLflow, Opik and PostgreSQL get them alike.

Nothing of MLflow is imported: a span goes through OpenTelemetry like any other, and the pipeline behind it delivers.
"""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from e2i.mlops import langchain_values as values
from e2i.mlops.opik_spans import current_agent
from e2i.mlops.span_values import attributes_of, text_of
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult
    from opentelemetry.trace import Span

_SCOPE = "e2i.langchain"
_HIDDEN = "langsmith:hidden"
_UNFINISHED = "unfinished"


@dataclass(slots=True)
class _Run:
    """One run of LangChain's that has not ended. A hidden one has the span of its parent."""

    span: Span | None
    context: dict[str, str]
    root: UUID
    parent: UUID | None = None
    is_hidden: bool = False
    has_token: bool = False
    below: set[UUID] = field(default_factory=set)
    """of a root: every run of its tree that has not ended"""
    cancelled: CancelledError | None = None
    """it was cancelled below its root, whose end tells whether somebody meant it"""
    cancelled_ns: int | None = None


class MlflowCallbackHandler(BaseCallbackHandler):
    """One span per run of a model, chain, tool or retriever, with prompts, completions, tokens, latency and who asked.

    One handler may serve many threads and tasks at once. A run that is the first of its kind continues the span that is
    current, so it joins the trace of `trace_agent`.

    Parameters
    ----------
    agent_name, agent_tier, brand, kpi
        Written on every span. `agent_name`, `agent_tier`, `brand` and `kpi` in the `metadata` of a run's config win, for
        that run and for what runs below it.
    metadata
        Further attributes of every span.
    max_open_runs
        When more than this many runs have not ended, the oldest are ended as unfinished.

    Examples
    --------
    >>> from langchain_core.language_models import FakeListChatModel
    >>> handler = MlflowCallbackHandler("explainer", agent_tier="self_improvement", brand="Kisqali", kpi="nrx")
    >>> FakeListChatModel(responses=["up"]).invoke("Where is NRx going?", config={"callbacks": [handler]}).content
    'up'
    """

    run_inline = True  # in the caller's own thread and task: in order, and inside its trace

    def __init__(
        self,
        agent_name: str | None = None,
        *,
        agent_tier: str | None = None,
        brand: str | None = None,
        kpi: str | None = None,
        metadata: Mapping[str, object] | None = None,
        max_open_runs: int = 10_000,
    ) -> None:
        given = {"agent": agent_name, "tier": agent_tier, "brand": brand, "kpi": kpi}
        self._given = {what: value for what, value in given.items() if value}
        self._metadata = attributes_of(metadata)
        self._limit = max_open_runs
        self._lock = threading.Lock()
        self._runs: OrderedDict[UUID, _Run] = OrderedDict()

    @property
    def open_runs(self) -> int:
        """Runs whose end has not been reported."""
        return len(self._runs)

    def close(self) -> None:
        """End what has not ended, as unfinished."""
        with self._lock:
            left, self._runs = list(self._runs.values()), OrderedDict()
        for run in reversed(left):
            _abandon(run, is_left_early=False)

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """Open the span of a chat model's call."""
        self._start_model(serialized, run_id, parent_run_id, more, operation="chat", prompt=values.chat_text(messages))

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """Open the span of a text model's call."""
        prompt = text_of(prompts[0] if len(prompts) == 1 else prompts)
        self._start_model(serialized, run_id, parent_run_id, more, operation="text_completion", prompt=prompt)

    def on_llm_new_token(self, token: str | list[str | dict[str, Any]], *, run_id: UUID, **_more: Any) -> None:  # noqa: ARG002
        """Note when the first token came."""
        run = self._runs.get(run_id)
        if run is not None and not run.has_token and run.span is not None:
            run.has_token = True
            run.span.add_event("gen_ai.first_token")

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_more: Any) -> None:
        """Close it with completion and tokens."""
        self._end(run_id, values.response_attributes(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        """Close it as failed; what had been said until then is kept."""
        partial = more.get("response")
        self._end(run_id, values.response_attributes(partial) if partial is not None else {}, error)

    def on_chain_start(
        self, serialized: dict[str, Any] | None, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """Open the span of a chain, a graph or a node."""
        name = values.name_of(serialized, more.get("name"), "chain")
        is_agent = parent_run_id is None and "agent" in values.context_in(more.get("metadata"), self._given)
        attributes = {
            names.OPERATION: "agent" if is_agent else "chain",
            names.OPENINFERENCE_KIND: "AGENT" if is_agent else "CHAIN",
            names.INPUT: text_of(inputs),
        }
        self._start(name, attributes, run_id, parent_run_id, more)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_more: Any) -> None:
        """Close it with its outputs."""
        self._end(run_id, {names.OUTPUT: text_of(outputs)})

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """Close it as failed."""
        self._end(run_id, {}, error)

    def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """Open the span of a tool."""
        name = values.name_of(serialized, more.get("name"), "tool")
        inputs = more.get("inputs")
        attributes = {
            names.OPERATION: "tool",
            names.GEN_AI_OPERATION: "execute_tool",
            names.GEN_AI_TOOL_NAME: name,
            names.OPENINFERENCE_KIND: "TOOL",
            names.INPUT: text_of(input_str if inputs is None else inputs),
        }
        if call := more.get("tool_call_id"):
            attributes[names.GEN_AI_TOOL_CALL_ID] = str(call)
        self._start(f"execute_tool {name}", attributes, run_id, parent_run_id, more)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_more: Any) -> None:
        """Close it with its result."""
        self._end(run_id, {names.OUTPUT: text_of(getattr(output, "content", output))})

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """Close it as failed."""
        self._end(run_id, {}, error)

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **more: Any
    ) -> None:
        """Open the span of a retrieval."""
        attributes = {names.OPERATION: "retrieval", names.OPENINFERENCE_KIND: "RETRIEVER", names.INPUT: text_of(query)}
        self._start(values.name_of(serialized, more.get("name"), "retriever"), attributes, run_id, parent_run_id, more)

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **_more: Any) -> None:
        """Close it with the documents found."""
        self._end(run_id, {names.OUTPUT: text_of(list(documents))})

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """Close it as failed."""
        self._end(run_id, {}, error)

    def on_retry(self, retry_state: Any, *, run_id: UUID, **_more: Any) -> None:
        """Note that a call is tried again."""
        run = self._runs.get(run_id)
        if run is not None and run.span is not None:
            run.span.add_event("retry", {names.ATTEMPT: int(getattr(retry_state, "attempt_number", 0))})

    def _start_model(
        self, serialized: dict[str, Any], run_id: UUID, parent_run_id: UUID | None, more: dict[str, Any], *, operation: str, prompt: str
    ) -> None:
        request = values.request_attributes(serialized, more.get("metadata"), more.get("invocation_params"))
        attributes = {
            names.OPERATION: "llm",
            names.GEN_AI_OPERATION: operation,
            names.OPENINFERENCE_KIND: "LLM",
            names.INPUT: prompt,
            **request,
        }
        self._start(f"{operation} {request[names.GEN_AI_REQUEST_MODEL]}", attributes, run_id, parent_run_id, more)

    def _start(self, name: str, attributes: dict[str, Any], run_id: UUID, parent_run_id: UUID | None, more: dict[str, Any]) -> None:
        tags, metadata = more.get("tags") or [], more.get("metadata")
        with self._lock:
            parent = None if parent_run_id is None else self._runs.get(parent_run_id)
        context = values.context_in(metadata, _ambient() | self._given if parent is None else parent.context)
        is_hidden = _HIDDEN in tags and attributes[names.OPERATION] == "chain"
        if is_hidden:
            span = None if parent is None else parent.span
        else:
            known = {**self._metadata, **values.metadata_attributes(metadata), **values.context_attributes(context)}
            around = _ambient() if parent is None or parent.span is None else parent.context
            if "agent" in context and context["agent"] == around.get("agent"):
                known[names.IS_PART] = True
            if own := [tag for tag in tags if ":step:" not in tag]:
                known[names.TAGS] = own
            span = _open(name, {**known, **attributes}, parent)
        self._keep(run_id, _Run(span, context, run_id if parent is None else parent.root, parent_run_id, is_hidden))

    def _keep(self, run_id: UUID, run: _Run) -> None:
        forgotten: list[_Run] = []
        with self._lock:
            self._runs[run_id] = run
            root = self._runs.get(run.root)
            if root is not None and root is not run:
                root.below.add(run_id)
            while len(self._runs) > self._limit:
                oldest = next(iter(self._runs))
                forgotten += self._take(oldest)
        for left in forgotten:
            _abandon(left, is_left_early=False)

    def _end(self, run_id: UUID, attributes: dict[str, Any], error: BaseException | None = None) -> None:
        is_left_early = isinstance(error, GeneratorExit)
        with self._lock:
            if isinstance(error, CancelledError) and self._waits(run_id, error):
                return
            stopped = self._stopped_below(run_id) if is_left_early else []
            taken = self._take(run_id)
        if not taken:
            return
        *left, run = taken
        # LangChain reports a chain that is left in `stream` as one that has ended; only then its model hears of it.
        is_left_early = is_left_early or (error is None and _is_mid_stream(left))
        for below in (*stopped, *left):
            _abandon(below, is_left_early=is_left_early)
        if run.is_hidden or run.span is None:
            return
        run.span.set_attributes(attributes)
        if is_left_early:
            run.span.set_attribute(names.LEFT_EARLY, True)
        elif error is not None:
            _note(run.span, error)
        run.span.end()

    def _waits(self, run_id: UUID, error: CancelledError) -> bool:
        """LangGraph cancels what runs below a stream that its reader leaves, and says only then that it was left."""
        run = self._runs.get(run_id)
        if run is None or run.root == run_id or run.root not in self._runs:
            return False
        if run.cancelled is None:
            run.cancelled, run.cancelled_ns = error, time.time_ns()
        return True

    def _stopped_below(self, run_id: UUID) -> list[_Run]:
        """Take what was cancelled below a run, and what runs below that; innermost first."""
        top = self._runs.get(run_id)
        root = None if top is None else self._runs.get(top.root)
        if root is None or root is top:  # with a root all goes that is below it
            return []
        found = [other for other in self._runs if other in root.below and self._is_stopped(other, run_id)]
        root.below.difference_update(found)
        return [self._runs.pop(other) for other in reversed(found)]

    def _is_stopped(self, run_id: UUID, top: UUID) -> bool:
        was_cancelled = False
        run = self._runs.get(run_id)
        while run is not None and run.parent is not None:
            was_cancelled = was_cancelled or run.cancelled is not None
            if run.parent == top:
                return was_cancelled
            run = self._runs.get(run.parent)
        return False

    def _take(self, run_id: UUID) -> list[_Run]:
        """Forget a run; of a root also what is open below it, innermost first, itself last."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return []
        root = self._runs.get(run.root)
        if root is not None:
            root.below.discard(run_id)
        below = [self._runs.pop(other) for other in list(self._runs) if other in run.below] if run.below else []
        return [*reversed(below), run]


def _ambient() -> dict[str, str]:
    agent = current_agent()
    if agent is None:
        return {}
    return {"agent": agent.name, **({"tier": agent.tier} if agent.tier else {})}


def _open(name: str, attributes: dict[str, Any], parent: _Run | None) -> Span:
    context = None if parent is None or parent.span is None else trace.set_span_in_context(parent.span)
    return trace.get_tracer(_SCOPE).start_span(name, context=context, attributes=attributes)


def _note(span: Span, error: BaseException) -> None:
    """An interrupt of LangGraph's is how a graph waits for people, not a fault."""
    if any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__):
        span.add_event("interrupt", {"kind": type(error).__name__})
        return
    if isinstance(error, SystemExit) and not error.code:
        return
    if isinstance(error, CancelledError) and not (error.args and isinstance(error.args[0], str)):  # what LangGraph gives is no text
        error = CancelledError("cancelled").with_traceback(error.__traceback__)
    span.record_exception(error)
    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _is_mid_stream(left: list[_Run]) -> bool:
    return any(run.has_token for run in left) and all(run.cancelled is None for run in left)


def _abandon(run: _Run, *, is_left_early: bool) -> None:
    """End a run that will not tell its end, or that waited for its root to tell why it was cancelled."""
    span = run.span
    if run.is_hidden or span is None:
        return
    if is_left_early:
        span.set_attribute(names.LEFT_EARLY, True)
    elif run.cancelled is not None:
        _note(span, run.cancelled)
    else:
        span.set_attribute(names.ERROR_TYPE, _UNFINISHED)
        span.set_status(Status(StatusCode.ERROR, "its end was never reported."))
    span.end(run.cancelled_ns)
