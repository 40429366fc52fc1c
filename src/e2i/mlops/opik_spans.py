"""The spans that `OpikConnector` opens: one object is both the context manager and the span, so that opening one is cheap.

They are OpenTelemetry spans through its API; without an SDK they record nothing and the code inside runs as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from e2i.errors import DataError
from e2i.mlops.fast_attributes import put
from e2i.mlops.span_values import OWN, attribute_of, attributes_of, checked_cost, checked_tokens, text_of, texts_of
from e2i.observability import attributes as names
from e2i.observability.spans import Span, make_root

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from opentelemetry.context import Context

    from e2i.mlops.opik_connector import OpikConnector
    from e2i.mlops.past_spans import Place

_SCOPE = otel_context.create_key("e2i-opik-span")
(_SPAN,) = trace.set_span_in_context(trace.INVALID_SPAN, otel_context.Context())
"""OpenTelemetry's own key; with it one copy of the context holds both"""
_attach, _current, _Context = otel_context.attach, otel_context.get_current, otel_context.Context


class Agent(NamedTuple):
    """Who is at work."""

    name: str
    tier: str | None


def current_agent() -> Agent | None:
    """The agent of the current span, else of the nearest `trace_agent` around it."""
    found = getattr(trace.get_current_span(), "attributes", None)
    if found:
        name = found.get(names.AGENT)
        if name:
            return Agent(name, found.get(names.TIER))
    scope = otel_context.get_value(_SCOPE)
    return scope.agent if isinstance(scope, OpikSpan) else None


def agent_attributes(agent: Agent, around: Agent | None) -> dict[str, Any]:
    """What a span of `agent` says of it; `around` is the agent at work where the span begins."""
    found: dict[str, Any] = {names.AGENT: text_of(agent.name)}
    if agent.tier:
        found[names.TIER] = text_of(agent.tier)
    if around is not None and around.name == agent.name:
        found[names.IS_PART] = True
    return found


class OpikSpan(Span):
    """A span of an agent's; see `OpikConnector.trace_agent`. It is opened by `with` or `async with`, once.

    What is set after the end is not kept.
    """

    __slots__ = ("_connector", "_has_begun", "_has_ended", "_own", "_place", "agent")

    def __init__(
        self, connector: OpikConnector, name: str, attributes: dict[str, Any], *, agent: Agent | None, place: Place | None
    ) -> None:
        super().__init__(name, attributes, SpanKind.INTERNAL)
        self._own = attributes
        self._connector = connector
        self._place = place
        self._has_begun = self._has_ended = False
        self.agent = agent

    @property
    def is_recording(self) -> bool:
        """Whether what is set now is kept."""
        return self._span.is_recording()

    def set_input(self, input_data: object) -> None:
        """What went in: a text, or anything else as JSON."""
        put(self._open(), {names.INPUT: text_of(input_data)})

    def set_output(self, output_data: object) -> None:
        """What came out: a text, or anything else as JSON."""
        put(self._open(), {names.OUTPUT: text_of(output_data)})

    def set_attribute(self, key: str, value: object) -> None:
        """One attribute; structures are kept as JSON, None is not kept."""
        kept = attribute_of(value)
        if kept is not None:
            put(self._open(), {OWN.get(key, key): kept})

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Several at once."""
        put(self._open(), attributes_of(attributes))

    def add_event(self, name: str, attributes: Mapping[str, object] | None = None) -> None:
        """Something that happened now."""
        self._open().add_event(name, attributes_of(attributes))

    def set_fallback(self, chain: Sequence[str]) -> None:
        """Models or methods in the order tried; more than one: a fallback was used."""
        put(self._open(), {names.FALLBACK_CHAIN: texts_of(chain)})

    def set_error(self, error: BaseException | str, error_type: str | None = None) -> None:
        """The work failed although nothing is raised."""
        span = self._open()
        if isinstance(error, BaseException):
            self._note(error)
        else:
            span.set_attribute(names.ERROR_TYPE, error_type or "error")
            span.set_status(Status(StatusCode.ERROR, error))

    def log_metric(self, name: str, value: float, *, unit: str | None = None) -> None:
        """A figure measured here. Raises DataError for a value that is not finite."""
        self._connector.log_metric(name, value, unit=unit, trace_id=self.trace_id, span_id=self.span_id)

    def _open(self) -> trace.Span:
        if not self._has_begun:
            raise DataError("the span is not open.", where=self._name, advice="Use it inside `with` or `async with`.")
        return self._span

    def __enter__(self) -> Self:
        if self._has_begun:
            raise DataError("the span was opened before.", where=self._name, advice="Ask the connector for a new one.")
        self._has_begun = True
        place, connector = self._place, self._connector
        tracer = connector.tracer()
        self._previous = above = _current()
        start = above if place is None else place.context
        if connector.is_plain:
            span = self._span = tracer.start_span(self._name, start)
            put(span, self._own)
        else:
            span = self._span = tracer.start_span(self._name, start, attributes=self._own)
        if place is not None and place.is_root:
            make_root(span)
        _attach(_Context({**above, _SPAN: span, _SCOPE: self}))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        span = self._span
        if error is not None and not _is_no_fault(error):
            self._note(error)
        self._has_ended = True
        current = _current()
        if current.get(_SPAN) is span:
            _attach(_outside(self._previous))
        span.end()

    def _note(self, error: BaseException) -> None:
        super()._note(error)
        self._span.set_status(Status(StatusCode.ERROR, str(error) or type(error).__name__))

    def left(self, context: Context) -> Context | None:
        """The context before this span, when this span is the current one of `context` and has ended; else None."""
        return self._previous if self._has_ended and context.get(_SPAN) is self._span else None


class LLMSpan(OpikSpan):
    """A span of one call of a language model; see `OpikConnector.trace_llm_call`."""

    __slots__ = ()

    def log_llm_response(
        self,
        completion: object = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        total_cost: float | None = None,
        *,
        model: str | None = None,
        finish_reason: str | None = None,
    ) -> None:
        """What the model said, and what it took.

        Parameters
        ----------
        completion : a text, or anything else as JSON
        input_tokens, output_tokens : whole numbers from 0; None stays unknown
        total_cost : US dollars; None stays unknown, it never becomes 0
        model : the one that answered, where the provider tells

        Raises
        ------
        DataError
            Tokens or cost are negative or not a number.
        """
        found = _usage(input_tokens, output_tokens, total_cost)
        if completion is not None:
            found[names.OUTPUT] = text_of(completion)
        if model is not None:
            found[names.GEN_AI_RESPONSE_MODEL] = text_of(model)
        if finish_reason is not None:
            found[names.GEN_AI_FINISH_REASONS] = (text_of(finish_reason),)
        put(self._open(), found)

    def set_usage(self, input_tokens: int | None = None, output_tokens: int | None = None, total_cost: float | None = None) -> None:
        """Tokens, and cost in US dollars; None stays unknown. Raises DataError as `log_llm_response`."""
        put(self._open(), _usage(input_tokens, output_tokens, total_cost))

    def log_tokens(self, input_tokens: int, output_tokens: int) -> None:
        """Tokens alone. Raises DataError as `log_llm_response`."""
        put(self._open(), _usage(input_tokens, output_tokens, None))


def _outside(context: Context) -> Context:
    """The nearest context, from this one on, that is not of an ended span: generators may end their spans out of order."""
    while (scope := context.get(_SCOPE)) is not None:
        above = scope.left(context)  # type: ignore[attr-defined]
        if above is None:
            break
        context = above
    return context


def _is_no_fault(error: BaseException) -> bool:
    """A generator that is closed early, and an exit with code 0, are ends like others."""
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)


def _usage(input_tokens: int | None, output_tokens: int | None, total_cost: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if input_tokens is not None:
        found[names.GEN_AI_INPUT_TOKENS] = checked_tokens(input_tokens, "input_tokens")
    if output_tokens is not None:
        found[names.GEN_AI_OUTPUT_TOKENS] = checked_tokens(output_tokens, "output_tokens")
    if total_cost is not None:
        found[names.COST_USD] = checked_cost(total_cost)
    return found
