"""Answers that have to be JSON."""

from __future__ import annotations

import pytest

from e2i.errors import ConfigError
from e2i.llm import structured

SHAPE = {
    "type": "object",
    "properties": {"verdict": {"enum": ["proceed", "block"]}, "share": {"type": "number", "minimum": 0, "maximum": 1}},
    "required": ["verdict"],
    "additionalProperties": False,
}


def test_json_that_fits_has_no_fault() -> None:
    assert structured.fault_of('{"verdict": "block", "share": 0.5}', SHAPE) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("Sure! Here it is", "not JSON"),
        ('{"verdict": "block"', "not JSON"),
        ('{"verdict": "maybe"}', "$.verdict"),
        ('{"verdict": "block", "share": 7}', "$.share"),
        ('{"verdict": "block", "share": NaN}', "NaN"),
        ('{"share": 0.5}', "verdict"),
        ('["verdict"]', "object"),
        ("[" * 100_000, "nested"),
    ],
)
def test_what_does_not_fit_is_named(text: str, told: str) -> None:
    fault = structured.fault_of(text, SHAPE)
    assert fault is not None
    assert told in fault


def test_a_fenced_block_is_opened() -> None:
    assert structured.bare('```json\n{"a": 1}\n```\n') == '{"a": 1}'
    assert structured.bare('  {"a": 1}\n') == '{"a": 1}'
    assert structured.bare('Look: ```json\n{"a": 1}\n```') == 'Look: ```json\n{"a": 1}\n```'


def test_what_is_no_schema_is_refused_before_any_call() -> None:
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        structured.check_schema({"type": "objekt"})


def test_a_reference_to_another_document_is_an_error_and_no_download() -> None:
    with pytest.raises(ConfigError, match="leads nowhere"):
        structured.fault_of("{}", {"$ref": "http://127.0.0.1:9/schema.json"})


def test_strict_means_every_object_is_closed_and_every_property_required() -> None:
    closed = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    assert structured.is_strict(closed)
    assert not structured.is_strict(SHAPE)
    assert not structured.is_strict({"type": "array", "items": {"type": "object", "properties": {"a": {}}}})
    assert structured.is_strict({"type": "array", "items": closed})
