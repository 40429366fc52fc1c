"""Columns read out of a span's attributes: ours first, then OpenTelemetry's GenAI names, then OpenInference's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.domain.telemetry import SpanColumns
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2i.domain.telemetry import SpanRecord

_OPERATIONS = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "completion": "llm",
    "embeddings": "embedding",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "create_agent": "agent",
}
_KINDS = {"LLM": "llm", "AGENT": "agent", "TOOL": "tool", "RETRIEVER": "retrieval", "RERANKER": "retrieval", "EMBEDDING": "embedding"}
_INPUT_TOKENS = (names.GEN_AI_INPUT_TOKENS, names.GEN_AI_PROMPT_TOKENS, names.OPENINFERENCE_PROMPT_TOKENS)
_OUTPUT_TOKENS = (names.GEN_AI_OUTPUT_TOKENS, names.GEN_AI_COMPLETION_TOKENS, names.OPENINFERENCE_COMPLETION_TOKENS)
_MODELS = (names.GEN_AI_RESPONSE_MODEL, names.GEN_AI_REQUEST_MODEL, names.OPENINFERENCE_MODEL)


def columns_of(span: SpanRecord) -> SpanColumns:
    """What ml_observability_spans keeps in columns of its own."""
    found = span.attributes
    error_type, error_message = _error(span)
    return SpanColumns(
        agent_name=_text(found, names.AGENT, names.GEN_AI_AGENT_NAME),
        agent_tier=_text(found, names.TIER),
        operation_type=operation_of(span),
        model_name=_text(found, *_MODELS),
        input_tokens=_count(found, *_INPUT_TOKENS),
        output_tokens=_count(found, *_OUTPUT_TOKENS),
        total_cost=_number(found, names.COST_USD),
        status="error" if span.status == "error" else "success",
        error_type=error_type,
        error_message=error_message,
        fallback_chain=_texts(found.get(names.FALLBACK_CHAIN)),
        experiment_id=_text(found, names.EXPERIMENT_ID),
        run_id=_text(found, names.RUN_ID),
        user_id=_text(found, names.USER_ID),
        session_id=_text(found, names.SESSION_ID, names.GEN_AI_CONVERSATION_ID),
    )


def operation_of(span: SpanRecord) -> str:
    """What kind of work it was: `agent`, `step`, `llm`, `tool`, `retrieval`, `http`, `sql` … or `internal`."""
    found = span.attributes
    if own := _text(found, names.OPERATION):
        return own
    if operation := _text(found, names.GEN_AI_OPERATION):
        return _OPERATIONS.get(operation, operation)
    if kind := _text(found, names.OPENINFERENCE_KIND):
        return _KINDS.get(kind.upper(), kind.lower())
    if "db.system" in found or "db.system.name" in found:
        return "sql"
    return "http" if "http.request.method" in found or "http.method" in found else span.kind


def _error(span: SpanRecord) -> tuple[str | None, str | None]:
    if span.status != "error":
        return None, None
    kind, message = _text(span.attributes, names.ERROR_TYPE), span.status_message
    for event in span.events:
        if event.name == "exception":
            kind = kind or _text(event.attributes, names.EXCEPTION_TYPE)
            message = message or _text(event.attributes, names.EXCEPTION_MESSAGE)
    return kind, message


def _text(found: Mapping[str, Any], *keys: str) -> str | None:
    for key in keys:
        value = found.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None  # a list, a mapping or a fraction is no name


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else (str(value),)


def _number(found: Mapping[str, Any], *keys: str) -> float | None:
    """The first finite number, also where an exporter wrote it as text; anything else is not a number and stays an attribute."""
    for key in keys:
        value = found.get(key)
        if isinstance(value, bool) or value is None:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if number == number and abs(number) != float("inf"):  # noqa: PLR0124
            return number
    return None


def _count(found: Mapping[str, Any], *keys: str) -> int | None:
    number = _number(found, *keys)
    return None if number is None or not 0 <= number < 2**53 else int(number)
