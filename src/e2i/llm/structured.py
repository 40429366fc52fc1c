"""Answers that have to be JSON of a given shape: what is asked, what is checked, what is asked again."""

from __future__ import annotations

import json
import re
from typing import Any

from e2i.errors import ConfigError
from e2i.ports.language import Message

_FENCE = re.compile(r"\A```[a-zA-Z]*\s*\n(?P<inside>.*)\n```\Z", re.DOTALL)
_ADVICE = "Give a JSON Schema of draft 2020-12 without references to other documents."


def check_schema(schema: dict[str, Any]) -> None:
    """Raises ConfigError for what is not a JSON Schema, before anybody pays for a call."""
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"it is not a JSON Schema: {error.message}.", where="schema", advice=_ADVICE) from error


def bare(text: str) -> str:
    """The JSON inside a fenced block, which models without structured output like to write; other text stripped."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    return fenced["inside"].strip() if fenced else stripped


def fault_of(text: str, schema: dict[str, Any]) -> str | None:
    """Why the text is not JSON that fits the schema; None when it is. Raises ConfigError for a reference that leads nowhere."""
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return f"it is not JSON ({error})"
    try:
        worst = next(iter(sorted(Draft202012Validator(schema, registry=Registry()).iter_errors(value), key=lambda e: e.json_path)), None)
    except Unresolvable as error:
        raise ConfigError(f"a reference leads nowhere: {error}.", where="schema", advice=_ADVICE) from error
    return None if worst is None else f"at {worst.json_path}: {worst.message[:200]}"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def instruction(schema: dict[str, Any]) -> str:
    """For models that take no schema."""
    return f"Answer with JSON only, without any other text, that fits this JSON Schema:\n{json.dumps(schema)}"


def repair(text: str, fault: str) -> tuple[Message, Message]:
    """The turns that ask for the same answer again, mended."""
    again = f"That answer cannot be used: {fault}. Answer again with JSON only that fits the schema, without any other text."
    return Message(role="assistant", content=text or "(nothing)"), Message(role="user", content=again)


def is_strict(schema: Any) -> bool:
    """Whether every object names all its properties as required and allows no others, which OpenAI's strict mode wants."""
    if isinstance(schema, list):
        return all(is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    is_object = schema.get("type") == "object" or "properties" in schema
    closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(schema.get("properties", {}))
    return (closed or not is_object) and all(is_strict(value) for value in schema.values())
