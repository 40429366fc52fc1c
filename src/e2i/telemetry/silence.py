"""Agents that may not be quoted, and everything that happens inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from opentelemetry.sdk.trace import Span
from opentelemetry.trace import get_current_span

from e2i.observability import attributes as names
from e2i.telemetry.redaction import NOT_LOGGED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

_FREE_TEXTS = frozenset((names.EXCEPTION_STACKTRACE, "code.stacktrace", names.FEEDBACK_REASON, "gen_ai.evaluation.explanation"))
"""what may quote a prompt beside inputs and outputs: lines of source code, and reasons that people and models give"""


class Silence:
    """Which spans of this process are inside an agent that may not be quoted, at any depth and whoever made them.

    A span is known as long as its object lives, so that work which outlives its parent is still found, and nothing is kept longer.

    Parameters
    ----------
    agents : names of the agents
    """

    def __init__(self, agents: frozenset[str]) -> None:
        self._agents = agents
        self._inside: WeakValueDictionary[int, Span] = WeakValueDictionary()

    def inherit(self, span: Span, parent_context: Context | None) -> None:
        """Note a span that begins inside. The parent is asked now: its attributes may have come after its own beginning."""
        parent, context = get_current_span(parent_context), span.context
        if context is not None and (
            parent.get_span_context().span_id in self._inside or (isinstance(parent, Span) and self._is_of_agent(parent._attributes))  # noqa: SLF001
        ):
            self._inside[context.span_id] = span

    def holds(self, context: SpanContext, parent: SpanContext | None) -> bool:
        """Whether a span that ends is inside; one that was only reported afterwards is by its parent."""
        return context.span_id in self._inside or (parent is not None and parent.span_id in self._inside)

    def _is_of_agent(self, attributes: Mapping[str, Any] | None) -> bool:
        if not attributes:
            return False
        agent = attributes.get(names.AGENT) or attributes.get(names.GEN_AI_AGENT_NAME)
        return isinstance(agent, str) and agent in self._agents


def unquoted(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Attributes of a silent span or of its event without the texts that redaction does not count among inputs and outputs."""
    if _FREE_TEXTS.isdisjoint(attributes):
        return attributes
    return {key: NOT_LOGGED if key in _FREE_TEXTS else value for key, value in attributes.items()}
