"""JSON bodies read with the place of every value at hand, so that a refusal can name it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from e2i.api.problems import Refused

MOST_VALUES = 4_000_000
"""so many commas and brackets at most: each may become an object of some sixty bytes"""
_NO_NUMBER = re.compile(r"-?(?:NaN|Infinity)")


def json_value(body: bytes) -> Any:
    """The body as plain values.

    NaN and Infinity, which JSON has not, are read as the words: Python writes them, Opik's SDK too, and one measure that is missing must
    not cost the spans beside it. Where a number is due they are refused like any other word.

    Raises
    ------
    Refused
        400 for what is not JSON: also half a surrogate pair, more than a thousand levels; 413 for a body that is nearly all structure.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise Refused(
            f"the body has more than {MOST_VALUES:,} values.", status=413, where="body", advice="Send fewer spans in one request."
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not _NO_NUMBER.match(error.doc, error.pos):
            raise _not_json(error) from None
    return _with_words(body)


def _with_words(body: bytes) -> Any:
    """The standard library's reader knows the three words; whatever else it takes that the other does not is refused."""
    try:
        value = json.loads(body.decode(), parse_constant=str)
        orjson.dumps(value)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except (RecursionError, ValueError, TypeError) as error:
        what = "the body is not JSON: it is too deep, has a number of more than 64 bits or half a surrogate pair, and NaN or Infinity."
        raise Refused(what, where="body") from error
    return value


def _not_json(error: json.JSONDecodeError) -> Refused:
    return Refused(
        f"the body is not JSON: {error.msg}.", where=f"body, line {error.lineno}, column {error.colno}", advice="Its text is UTF-8."
    )


def json_object(body: bytes) -> dict[str, Any]:
    """The body as an object. Raises Refused with 400."""
    value = json_value(body)
    if not isinstance(value, dict):
        raise Refused(f"the body is {described(value)}, not an object.", where="body", advice="Send one JSON object.")
    return value


@dataclass(frozen=True, slots=True)
class Place:
    """An object of a body and where it stands."""

    content: Mapping[str, Any]
    path: str

    def value(self, *names: str) -> Any:
        """The first of these members that is set; None when none is."""
        for name in names:
            found = self.content.get(name)
            if found is not None:
                return found
        return None

    def text(self, *names: str) -> str:
        """A text, empty when it is not set. Raises Refused for anything else."""
        found = self.value(*names)
        if found is None:
            return ""
        if not isinstance(found, str):
            raise self.wrong(names[0], "text")
        return found

    def whole(self, *names: str, smallest: int, largest: int) -> int:
        """A whole number, as number or as text; 0 when it is not set. Raises Refused for anything else."""
        found = self.value(*names)
        if found is None or found == "":
            return 0
        if isinstance(found, str) and len(found) <= 20 and found.isascii() and found.removeprefix("-").isdigit():
            found = int(found)
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not smallest <= found <= largest:
            raise self.wrong(names[0], f"a whole number from {smallest} to {largest}")
        return found

    def member(self, *names: str) -> Place:
        """An object inside, empty when it is not set. Raises Refused for anything else."""
        found = self.value(*names)
        if found is None:
            return Place({}, self._inside(names[0]))
        if not isinstance(found, dict):
            raise self.wrong(names[0], "an object")
        return Place(found, self._inside(names[0]))

    def items(self, *names: str) -> list[Place]:
        """The objects of a list inside, none when it is not set. Raises Refused for anything else."""
        found = self.value(*names)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self.wrong(names[0], "a list of objects")
        path = self._inside(names[0])
        for index, item in enumerate(found):
            if not isinstance(item, dict):
                raise Place({names[0]: item}, self.path).wrong(names[0], "an object", at=f"{path}[{index}]")
        return [Place(item, f"{path}[{index}]") for index, item in enumerate(found)]

    def wrong(self, name: str, wanted: str, *, at: str | None = None) -> Refused:
        """The 400 for a member of the wrong kind."""
        return Refused(f"there is {described(self.content.get(name))} where {wanted} is due.", where=at or self._inside(name))

    def _inside(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def described(value: Any) -> str:
    """A value for a message, short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return orjson.dumps(value, default=str).decode()[:60]
