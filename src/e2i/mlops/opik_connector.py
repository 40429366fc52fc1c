"""Traces of agents and language models under the names that users of Opik's connector know.

A span made here is an OpenTelemetry span. The pipeline behind the SDK keeps it on disk the moment it ends and delivers it to
PostgreSQL and to Opik: Opik may be slow, down or not there at all, the caller does not notice and nothing is lost or doubled.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry import trace

from e2i.mlops import past_spans
from e2i.mlops.fast_attributes import may_come_later
from e2i.mlops.opik_spans import Agent, LLMSpan, OpikSpan, agent_attributes, current_agent
from e2i.mlops.span_values import attribute_of, attributes_of, checked_cost, checked_tokens, checked_value, text_of, texts_of
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Self

    from opentelemetry.trace import Tracer, TracerProvider

    from e2i.domain.telemetry import SinkAccount
    from e2i.ports.telemetry import SinkAccounts

_SCOPE = "e2i.opik"
SINK = "opik"


@dataclass(frozen=True, kw_only=True)
class OpikSettings:
    """Where Opik is, and which tier an agent belongs to."""

    enabled: bool = True
    endpoint: str = ""
    """empty: there is no Opik, spans go to the other sinks"""
    workspace: str = "default"
    project_name: str = "e2i-causal-analytics"
    tiers: Mapping[str, str] = field(default_factory=dict)
    """agent name -> tier"""


@dataclass(frozen=True, kw_only=True)
class OpikStatus:
    """What `get_status` tells."""

    is_enabled: bool
    """whether spans are also sent to an Opik"""
    is_recording: bool
    """whether spans are kept at all: False when no OpenTelemetry SDK is installed in this process"""
    endpoint: str
    workspace: str
    project_name: str


class OpikConnector:
    """One per process: every construction gives the same connector, in every thread. Settings given later replace the earlier.

    Parameters
    ----------
    settings : by default what `e2i.config` says
    accounts : where every span went; by default nothing is known about delivery

    Examples
    --------
    >>> async def explain(question: str) -> str:
    ...     opik = get_opik_connector()
    ...     async with opik.trace_agent("explainer", "explain", input_data={"question": question}) as span:
    ...         async with opik.trace_llm_call("claude-sonnet-4", prompt=question, provider="anthropic") as call:
    ...             answer = "NRx is up 4 %."
    ...             call.log_llm_response(answer, input_tokens=12, output_tokens=8, total_cost=0.0002)
    ...         span.set_output({"answer": answer})
    ...     return answer
    """

    _lock: ClassVar[threading.RLock] = threading.RLock()
    _instance: ClassVar[OpikConnector | None] = None
    _settings: OpikSettings
    _accounts: SinkAccounts | None = None
    _provider: TracerProvider | None = None
    _tracer: Tracer
    is_plain: bool = False
    """whether spans may begin without their attributes, see `fast_attributes`"""

    def __new__(cls, settings: OpikSettings | None = None, *, accounts: SinkAccounts | None = None) -> Self:  # noqa: ARG004, D102
        with cls._lock:
            if cls._instance is None:
                made = super().__new__(cls)
                made._settings = settings or _configured()
                cls._instance = made
            return cls._instance  # type: ignore[return-value]

    def __init__(self, settings: OpikSettings | None = None, *, accounts: SinkAccounts | None = None) -> None:
        with self._lock:
            if settings is not None:
                self._settings = settings
            if accounts is not None:
                self._accounts = accounts

    @classmethod
    def reset(cls) -> None:
        """Forget the connector; the next construction makes a new one."""
        with cls._lock:
            cls._instance = None

    @property
    def settings(self) -> OpikSettings:
        """Those in force."""
        return self._settings

    @property
    def is_enabled(self) -> bool:
        """Whether spans are also sent to an Opik."""
        return self._settings.enabled and bool(self._settings.endpoint)

    def trace_agent(
        self,
        agent_name: str,
        operation: str | None = None,
        *,
        agent_tier: str | None = None,
        metadata: Mapping[str, object] | None = None,
        tags: Sequence[str] | None = None,
        input_data: object = None,
        trace_id: str | None = None,
        parent_span_id: str | None = None,
    ) -> OpikSpan:
        """`async with` or `with` around an agent's work: a span, below the current one if there is one.

        Parameters
        ----------
        agent_name : such as `explainer`; language model calls inside carry it too. Inside a `trace_agent` of the same agent it is a part of
            that call, not one of its own
        operation : what the agent does, for the span's name
        agent_tier : by default the tier of the agent's settings
        metadata : attributes; `brand`, `kpi`, `experiment_id`, `run_id`, `user_id` and `session_id` have columns or names of their own
        input_data : a text, or anything else as JSON
        trace_id, parent_span_id : continue a trace that began elsewhere; 32 and 16 hexadecimal digits (a UUID will do for the first)

        Raises
        ------
        DataError
            An id is not one.
        """
        agent_name = text_of(agent_name)
        agent = Agent(agent_name, agent_tier or self._settings.tiers.get(agent_name))
        attributes: dict[str, Any] = {
            names.OPERATION: "agent",
            names.GEN_AI_OPERATION: "invoke_agent",
            names.GEN_AI_AGENT_NAME: agent_name,
            **agent_attributes(agent, current_agent()),
        }
        if operation:
            attributes[names.STEP] = text_of(operation)
        if input_data is not None:
            attributes[names.INPUT] = text_of(input_data)
        _add(attributes, metadata, tags)
        place = past_spans.place_of(trace_id, parent_span_id)
        name = f"{agent_name}.{operation}" if operation else f"invoke_agent {agent_name}"
        return OpikSpan(self, name, attributes, agent=agent, place=place)

    def trace_llm_call(
        self,
        model: str,
        *,
        prompt: object = None,
        messages: Sequence[object] | None = None,
        system: str | None = None,
        provider: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        agent_name: str | None = None,
        metadata: Mapping[str, object] | None = None,
        tags: Sequence[str] | None = None,
        trace_id: str | None = None,
        parent_span_id: str | None = None,
    ) -> LLMSpan:
        """`async with` or `with` around one call of a language model; agent and tier are those of the `trace_agent` around it.

        Parameters
        ----------
        prompt, messages, system : what the model is asked: a text, or messages as the provider takes them
        provider : `anthropic`, `openai` …

        Raises
        ------
        DataError
            An id is not one, or both `prompt` and `messages` are given.
        """
        around = current_agent()
        agent = around if agent_name is None else Agent(text_of(agent_name), self._settings.tiers.get(agent_name))
        attributes: dict[str, Any] = {names.OPERATION: "llm", names.GEN_AI_OPERATION: "chat", names.GEN_AI_REQUEST_MODEL: text_of(model)}
        if agent is not None:
            attributes |= agent_attributes(agent, around)
        if provider:
            attributes[names.GEN_AI_PROVIDER] = text_of(provider)
        if temperature is not None:
            attributes[names.GEN_AI_TEMPERATURE] = attribute_of(temperature)
        if max_tokens is not None:
            attributes[names.GEN_AI_MAX_TOKENS] = attribute_of(max_tokens)
        if prompt is not None or messages is not None or system is not None:
            attributes[names.INPUT] = past_spans.prompt_text(prompt, messages, system)
        _add(attributes, metadata, tags)
        place = past_spans.place_of(trace_id, parent_span_id)
        return LLMSpan(self, f"chat {model}", attributes, agent=agent, place=place)

    def log_metric(
        self,
        name: str,
        value: float,
        *,
        unit: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """A figure of a span, by default of the current one. Raises DataError for a value that is not finite, or an id that is not one."""
        attributes = {
            names.OPERATION: "metric",
            names.METRIC_NAME: name,
            names.METRIC_VALUE: float(checked_value(value, f"metric {name}")),
            **attributes_of(metadata),
        }
        if unit:
            attributes[names.METRIC_UNIT] = unit
        self._emit_below(f"metric {name}", attributes, trace_id, span_id)

    def log_feedback(
        self,
        trace_id: str,
        name: str,
        value: float,
        *,
        span_id: str | None = None,
        reason: str | None = None,
        source: str = "sdk",
    ) -> None:
        """A score for a trace, or for one span of it, also long after it ended. Raises DataError as `log_metric`."""
        attributes: dict[str, Any] = {
            names.OPERATION: "feedback",
            names.FEEDBACK_NAME: name,
            names.FEEDBACK_VALUE: float(checked_value(value, f"feedback {name}")),
            names.FEEDBACK_SOURCE: source,
        }
        if reason:
            attributes[names.FEEDBACK_REASON] = reason
        self._emit_below(f"feedback {name}", attributes, trace_id, span_id)

    def emit_span(
        self,
        agent_name: str,
        operation: str,
        *,
        started_at: datetime,
        ended_at: datetime | None = None,
        duration_ms: float | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
        parent_span_id: str | None = None,
        agent_tier: str | None = None,
        operation_type: str | None = None,
        status: str = "success",
        error_type: str | None = None,
        error_message: str | None = None,
        model_name: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        total_cost: float | None = None,
        input_data: object = None,
        output_data: object = None,
        attributes: Mapping[str, object] | None = None,
        fallback_chain: Sequence[str] | None = None,
    ) -> tuple[str, str] | None:
        """A span that happened already, under the names of the columns of ml_observability_spans.

        Gives (trace_id, span_id); None when no OpenTelemetry SDK is installed. The same ids again change nothing in the table; without
        ids, new ones are made.

        Parameters
        ----------
        started_at, ended_at : aware; without `ended_at` and `duration_ms` the span ends now
        status : `success`, `ok`, `unset` or `error`

        Raises
        ------
        DataError
            A time is naive or runs backwards, an id is not one, tokens or cost are negative, the status is another word.
        """
        known: dict[str, Any] = {
            names.OPERATION: operation_type or ("llm" if model_name else "agent"),
            names.AGENT: agent_name,
            names.TIER: agent_tier or self._settings.tiers.get(agent_name),
            names.STEP: operation,
            names.GEN_AI_REQUEST_MODEL: model_name,
            names.GEN_AI_INPUT_TOKENS: checked_tokens(input_tokens, "input_tokens"),
            names.GEN_AI_OUTPUT_TOKENS: checked_tokens(output_tokens, "output_tokens"),
            names.COST_USD: checked_cost(total_cost),
            names.INPUT: None if input_data is None else text_of(input_data),
            names.OUTPUT: None if output_data is None else text_of(output_data),
            names.FALLBACK_CHAIN: list(fallback_chain) if fallback_chain else None,
            names.ERROR_TYPE: error_type,
        }
        started, ended = past_spans.times(started_at, ended_at, duration_ms)
        past = past_spans.PastSpan(
            name=f"{agent_name}.{operation}",
            attributes=attributes_of(attributes) | {name: value for name, value in known.items() if value is not None},
            trace_id=past_spans.trace_number(trace_id),
            span_id=past_spans.span_number(span_id),
            parent_id=None if parent_span_id is None else past_spans.span_number(parent_span_id),
            started_ns=started,
            ended_ns=ended,
            status=past_spans.status_of(status, error_type=error_type, message=error_message),
        )
        return past_spans.emit(self.tracer(), past)

    def get_status(self) -> OpikStatus:
        """Where spans go. How far they got is what `account` tells."""
        settings = self._settings
        return OpikStatus(
            is_enabled=self.is_enabled,
            is_recording=past_spans.records(self.tracer()),
            endpoint=settings.endpoint,
            workspace=settings.workspace,
            project_name=settings.project_name,
        )

    async def account(self) -> SinkAccount | None:
        """Spans emitted, delivered to Opik, waiting, lost, and the state of its circuit breaker; None when there is no Opik."""
        known = [] if self._accounts is None else await self._accounts.accounts()
        return next((account for account in known if account.sink == SINK), None)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Whether every span that has ended is safe on disk; delivery to Opik goes on behind the caller's back."""
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)
        return True if flush is None else bool(flush(int(timeout_s * 1000)))

    def tracer(self) -> Tracer:
        """The current provider's; made once per provider, because that is slow."""
        provider = trace.get_tracer_provider()
        if provider is not self._provider:
            with self._lock:
                self._tracer = provider.get_tracer(_SCOPE)
                self.is_plain = may_come_later(self._tracer)
                self._provider = provider
        return self._tracer

    def _emit_below(self, name: str, attributes: dict[str, Any], trace_id: str | None, span_id: str | None) -> None:
        """A span without duration below the span given, else below the current one when that is of the same trace."""
        current = trace.get_current_span().get_span_context()
        wanted = past_spans.trace_number(trace_id, default=current.trace_id if current.is_valid else None)
        parent = None if span_id is None else past_spans.span_number(span_id)
        if parent is None and trace_id is None and current.is_valid:
            parent = current.span_id
        agent = current_agent()
        if agent is not None:  # whoever may not be quoted is not quoted here either
            attributes.setdefault(names.AGENT, text_of(agent.name))
        now = time.time_ns()
        past = past_spans.PastSpan(
            name=name,
            attributes=attributes,
            trace_id=wanted,
            span_id=past_spans.span_number(None),
            parent_id=parent,
            started_ns=now,
            ended_ns=now,
        )
        past_spans.emit(self.tracer(), past)


def get_opik_connector(settings: OpikSettings | None = None, *, accounts: SinkAccounts | None = None) -> OpikConnector:
    """The connector of this process."""
    return OpikConnector(settings, accounts=accounts)


def _configured() -> OpikSettings:
    from e2i import config

    settings = config.load()
    opik = settings.observability.opik
    return OpikSettings(
        enabled=opik.enabled,
        endpoint=opik.endpoint,
        workspace=opik.workspace,
        project_name=opik.project_name,
        tiers={name: section.tier for name, section in settings.agents.items()},
    )


def _add(attributes: dict[str, Any], metadata: Mapping[str, object] | None, tags: Sequence[str] | None) -> None:
    if metadata:
        attributes.update(attributes_of(metadata))
    if tags:
        attributes[names.TAGS] = texts_of(tags)
