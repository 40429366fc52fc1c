"""What LangChain's callbacks are given, as span attributes. Providers differ; what is not there is left out, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from e2i.mlops.span_values import attribute_of, text_of
from e2i.observability import attributes as names

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

Found = Mapping[str, Any]
_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_MODEL_KEYS = ("model", "model_name", "model_id", "deployment_name")
_USAGE_KEYS = ("token_usage", "usage", "usage_metadata")
_INPUT_KEYS = ("input_tokens", "prompt_tokens", "prompt_token_count")
_OUTPUT_KEYS = ("output_tokens", "completion_tokens", "candidates_token_count")
_AGENT_KEYS = {
    "agent": ("agent_name", "agent"),
    "tier": ("agent_tier", "tier"),
    "brand": ("brand",),
    "kpi": ("kpi",),
}


def context_in(metadata: Found | None, known: Mapping[str, str]) -> dict[str, str]:
    """`agent`, `tier`, `brand` and `kpi`: the run's own metadata first, else what its parent or the handler says."""
    found = dict(known)
    for what, keys in _AGENT_KEYS.items():
        value = _first(metadata or {}, keys)
        if isinstance(value, str) and value:
            found[what] = value
    return found


def context_attributes(context: Mapping[str, str]) -> dict[str, Any]:
    """The same under the names that spans carry."""
    keys = {"agent": names.AGENT, "tier": names.TIER, "brand": names.BRAND, "kpi": names.KPI}
    return {keys[what]: value for what, value in context.items()}


def metadata_attributes(metadata: Found | None) -> dict[str, Any]:
    """LangGraph's node and step, the thread as session, and the caller's own; LangChain's own words are read elsewhere."""
    found: dict[str, Any] = {}
    for key, value in (metadata or {}).items():
        if key in ("thread_id", "session_id", "conversation_id"):
            found[names.SESSION_ID] = str(value)
        elif key == "user_id":
            found[names.USER_ID] = str(value)
        elif key in ("langgraph_node", "langgraph_step") or _is_the_callers(key):
            kept = attribute_of(value)
            if kept is not None:
                found[key] = kept
    return found


def _is_the_callers(key: str) -> bool:
    theirs = ("ls_", "lc_", "langgraph_", "checkpoint_", "__pregel")
    ours = {name for keys in _AGENT_KEYS.values() for name in keys}
    return not key.startswith(theirs) and key not in ours


def request_attributes(serialized: Found | None, metadata: Found | None, parameters: Found | None) -> dict[str, Any]:
    """Model, provider, temperature and token limit of a call."""
    metadata, parameters = metadata or {}, parameters or {}
    inner = (serialized or {}).get("kwargs")
    model = _first(parameters, _MODEL_KEYS) or _first(inner if isinstance(inner, Mapping) else {}, _MODEL_KEYS)
    found: dict[str, Any] = {names.GEN_AI_REQUEST_MODEL: str(metadata.get("ls_model_name") or model or _class_of(serialized))}
    if provider := metadata.get("ls_provider"):
        found[names.GEN_AI_PROVIDER] = str(provider)
    temperature = _first({**parameters, **metadata}, ("ls_temperature", "temperature"))
    limit = _first({**parameters, **metadata}, ("ls_max_tokens", "max_tokens", "max_output_tokens", "max_completion_tokens"))
    if isinstance(temperature, int | float) and not isinstance(temperature, bool):
        found[names.GEN_AI_TEMPERATURE] = float(temperature)
    if isinstance(limit, int) and not isinstance(limit, bool):
        found[names.GEN_AI_MAX_TOKENS] = limit
    return found


def _class_of(serialized: Found | None) -> str:
    path = (serialized or {}).get("id") or ["unknown"]
    return str(path[-1] if isinstance(path, Sequence) and not isinstance(path, str) else path)


def name_of(serialized: Found | None, given: object, default: str) -> str:
    """The run's name as LangChain knows it."""
    if isinstance(given, str) and given:
        return given
    own = (serialized or {}).get("name")
    return own if isinstance(own, str) and own else default


def chat_text(messages: Iterable[Iterable[BaseMessage]]) -> str:
    """Messages as JSON: role, content, and what tools were called."""
    return text_of([_message(message) for conversation in messages for message in conversation])


def _message(message: BaseMessage) -> dict[str, Any]:
    found: dict[str, Any] = {"role": _ROLES.get(message.type, message.type), "content": message.content}
    for key in ("tool_calls", "tool_call_id", "name"):
        if value := getattr(message, key, None):
            found[key] = value
    return found


def response_attributes(response: LLMResult) -> dict[str, Any]:
    """Completion, tokens, the model that answered, and why it stopped."""
    candidates = [generation for generations in response.generations for generation in generations]
    if not candidates:
        return {}
    messages = [getattr(candidate, "message", None) for candidate in candidates]
    first = messages[0]
    details: Found = (first.response_metadata if first is not None else candidates[0].generation_info) or {}
    found = _usage(messages, details, response.llm_output or {})
    found[names.OUTPUT] = _completion(candidates, messages)
    if model := _first(details, ("model_name", "model", "model_id")) or _first(response.llm_output or {}, _MODEL_KEYS):
        found[names.GEN_AI_RESPONSE_MODEL] = str(model)
    reason = _first({**(candidates[0].generation_info or {}), **details}, ("finish_reason", "stop_reason"))
    if isinstance(reason, str):
        found[names.GEN_AI_FINISH_REASONS] = [reason]
    return found


def _completion(candidates: Sequence[Any], messages: Sequence[Any]) -> str:
    said = [
        candidate.text if message is None or _is_plain(message) else _message(message)
        for candidate, message in zip(candidates, messages, strict=True)
    ]
    return text_of(said[0] if len(said) == 1 else said)


def _is_plain(message: BaseMessage) -> bool:
    return isinstance(message.content, str) and not getattr(message, "tool_calls", None)


def _usage(messages: Sequence[Any], details: Found, output: Found) -> dict[str, Any]:
    """Tokens, from the first place that has them; alternatives of one answer share one count."""
    places = [getattr(message, "usage_metadata", None) for message in messages if message is not None]
    places += [place.get(key) for place in (details, output) for key in _USAGE_KEYS]
    for place in places:
        if not isinstance(place, Mapping):
            continue
        counts = {names.GEN_AI_INPUT_TOKENS: _first(place, _INPUT_KEYS), names.GEN_AI_OUTPUT_TOKENS: _first(place, _OUTPUT_KEYS)}
        found = {key: count for key, count in counts.items() if type(count) is int and count >= 0}
        if found:
            return found
    return {}


def _first(found: Found, keys: Iterable[str]) -> Any:
    return next((found[key] for key in keys if found.get(key) is not None), None)
