"""The slow, exact way: any Python value becomes one that OpenTelemetry and JSON know, within its limit and with nothing to hide."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import numbers
import pathlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from e2i.telemetry.identifiers import Finder, Span
from e2i.telemetry.labelled import marker
from e2i.telemetry.sensitive_keys import KeyWords, Label

_AHEAD = 512
"""characters read beyond a limit, so that an identifier across the cut is seen as a whole"""
_TAIL = 48
"""bytes that the marker of a cut may need"""
_MAX_ITEMS = 2000
_MAX_DEPTH = 16
_MAX_ROUNDS = 8
"""identifiers without anything between them are found one after the other"""
_TOLD = (
    dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID,
    pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath,
)  # fmt: skip


_NAME = 256
_NAMES = ("name", "key", "field", "column", "attribute", "label", "system", "type", "code")
_VALUES = frozenset(("value", "values", "val", "stringvalue", "valuestring"))
_PEOPLE = frozenset(("Patient", "Person", "RelatedPerson"))
"""resources of FHIR that are one person: `id` and `identifier` are the person's"""
_COLUMNS = ("columns", "header", "headers", "fields", "names")
_ROWS = frozenset(("data", "rows", "values", "records"))
_MANY = 500
"""columns of a table"""
_TYPES = frozenset(("string", "integer", "number", "array", "object", "boolean", "null"))
_OF_PEOPLE = frozenset(("npi", "ssn", "mrn", "phone", "dob", "card", "person", "people", "holder"))
_FEW = 8
"""entries of a record that says what it holds"""


@dataclass(slots=True)
class Cut:
    """Whether something was cut, and the names of the attributes that were."""

    happened: bool = False
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Room:
    """What may still be added to one attribute."""

    size: int
    cut: Cut
    items: int = _MAX_ITEMS


def json_text(value: Any) -> str:
    """Compact JSON of what `Cleaner` made."""
    return orjson.dumps(value).decode()


class Cleaner:
    """Cleans single values.

    Parameters
    ----------
    finder : knows identifiers in text
    words : knows what a key says about its value
    """

    def __init__(self, finder: Finder, words: KeyWords) -> None:
        self._finder = finder
        self._words = words

    def value(self, value: Any, label: Label | None, limit: int, cut: Cut) -> Any:
        """An OpenTelemetry attribute value; nested values become JSON text.

        Parameters
        ----------
        label : what the attribute's name says
        limit : bytes
        cut : told when something was left out for its size
        """
        if isinstance(value, str):
            text = str.__str__(value)
            if (told := marker(label, text)) is not None:
                return told
            text = self.text(text, limit, cut, label)
            return marker(label, text) or text
        plain = self._plain(value, label, "", _Room(limit, cut), 0)
        if isinstance(plain, list):
            plain = _one_type(plain)
        if plain is None or isinstance(plain, dict) or (isinstance(plain, list) and not _is_attribute(plain)):
            return self.value(json_text(plain), label, limit, cut)  # what the name says of the text holds too: it is what is kept
        return self.text(plain, limit, cut) if isinstance(plain, str) else plain

    def text(self, text: str, limit: int, cut: Cut, label: Label | None = None) -> str:
        """`text` without identifiers, at most `limit` bytes of UTF-8; `label` is what its key says."""
        whole = text if _fits(text, limit) else text[: limit + _AHEAD]
        whole = _sound(whole)
        beyond = 0 if whole is text or _fits(text, limit) else len(text) - len(text[: limit + _AHEAD])
        hit = self._finder.may_hold(whole)
        result = whole
        for _ in range(_MAX_ROUNDS):
            before = result
            if (hit or label) and not beyond and result.lstrip()[:1] in ("{", "["):
                result = self._json(result, limit, cut, label)
            spans = self._finder.spans(result) if hit else []
            if spans or beyond or not _fits(result, limit):
                result, was_cut = _replace(result, spans, limit, beyond, unit="bytes" if text.isascii() else "characters")
                cut.happened |= was_cut
            if result is before:
                break
            beyond, hit = 0, self._finder.may_hold(result)
        return result

    def _json(self, text: str, limit: int, cut: Cut, label: Label | None) -> str:
        try:
            tree = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        clean = self._plain(tree, label, "-", _Room(4 * limit, cut, items=len(text)), 0)
        return text if clean == tree else json_text(clean)

    def _plain(self, value: Any, label: Label | None, key: str, room: _Room, depth: int) -> Any:  # noqa: PLR0911
        """Strings, numbers, lists and dicts with text keys, cleaned; `key` is the word before a number."""
        room.items -= 1
        if value is None or isinstance(value, bool):
            room.size -= 5
            return value
        if isinstance(value, numbers.Number) and not isinstance(value, decimal.Decimal):
            return self._number(value, label, key, room)
        if isinstance(value, str | bytes | bytearray):
            return self._string(value, label, room)
        if label == "secret":
            return "[secret]"
        if depth >= _MAX_DEPTH:
            room.cut.happened = True
            return "[too deep]"
        if isinstance(value, Mapping):
            return self._mapping(value, label, room, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, label, key, room, depth)
        if type(value).__module__ == "numpy" and getattr(value, "size", _MAX_ITEMS + 1) <= _MAX_ITEMS:
            return self._plain(value.tolist(), label, key, room, depth + 1)
        return self._string(_told(value), label, room)

    def _number(self, value: Any, label: Label | None, key: str, room: _Room) -> Any:
        room.size -= 8
        try:
            number = int(value) if isinstance(value, numbers.Integral) else float(value)
        except (TypeError, ValueError, ArithmeticError):  # a complex number, or one beyond all bounds
            return self._string(str(value) if type(value) is complex else _told(value), label, room)
        if isinstance(number, float) and not math.isfinite(number):
            told = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
            return marker(label, told) or told
        if isinstance(number, int) and number.bit_length() > 63:
            return self._string(str(number) if number.bit_length() <= 1024 else "[a number of more than 300 digits]", label, room)
        as_text = str(int(number)) if number == int(number) else str(number)
        if hidden := marker(label, as_text):
            return hidden
        if room.items < 0 or len(as_text) < 9 or isinstance(number, float):
            return number
        return number if not key else self._number_in_text(number, key)

    def _number_in_text(self, number: int, key: str) -> Any:
        spans = self._finder.spans(f"{key}: {number}")
        return f"[{spans[-1].kind}]" if spans else number

    def _string(self, value: str | bytes | bytearray, label: Label | None, room: _Room) -> str:
        if not isinstance(value, str):
            value = bytes(value[: max(0, room.size) + _AHEAD]).decode(errors="replace")
        value = str.__str__(value)
        if told := marker(label, value):
            room.size -= len(told)
            return told
        result = self.text(value, max(room.size, 64), room.cut, label)
        result = marker(label, result) or result
        room.size -= len(result.encode())
        return result

    def _mapping(self, value: Mapping[Any, Any], label: Label | None, room: _Room, depth: int) -> Any:
        try:
            items = list(islice(value.items(), max(0, room.items) + 1))
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError):
            return _told(value)
        result: dict[str, Any] = {}
        if label in _OF_PEOPLE and _is_schema(items):
            label = None
        if label is None and any(key == "resourceType" and isinstance(item, str) and item in _PEOPLE for key, item in items):
            label = "holder"
        named = self._named(items) or label
        rows = self._rows({key: item for key, item in items if isinstance(key, str)})
        for given, item in items:
            if room.size <= 0 or room.items <= 0:
                room.cut.happened = True
                break
            name = self.text(given if type(given) is str else str(_told(given)), 256, Cut())
            room.size -= len(name)
            of_name = named if name.lower() in _VALUES else label
            if rows and name.lower() in _ROWS and isinstance(item, list | tuple):
                result[name] = self._list([rows, *item], None, name, room, depth + 1)[1:]
                continue
            result[name] = self._plain(item, self._words.label_below(of_name, name), name, room, depth + 1)
        return result

    def _list(self, value: Any, label: Label | None, key: str, room: _Room, depth: int) -> list[Any]:
        items = list(islice(value, max(0, room.items) + 1))
        result: list[Any] = []
        heads = self._heads(items) if label is None else ()
        for item in items:
            if room.size <= 0 or room.items <= 0:
                room.cut.happened = True
                break
            is_pair = label is None and isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str | bytes)
            if heads and result and isinstance(item, list | tuple) and len(item) == len(heads):
                result.append([self._plain(cell, head, key, room, depth + 2) for cell, head in zip(item, heads, strict=True)])
                continue
            result.append(self._pair(item, room, depth + 1) if is_pair else self._plain(item, label, key, room, depth + 1))
        return result

    def _rows(self, told: dict[str, Any]) -> list[str]:
        """`{"columns": ["patient_id", "week"], "data": [["P-0017", 3], …]}`: the names of the columns."""
        names = next((told[key] for key in _COLUMNS if isinstance(told.get(key), list | tuple)), ()) if len(told) <= _FEW else ()
        return list(names) if names and all(isinstance(name, str) for name in names) else []

    def _heads(self, items: list[Any]) -> tuple[Label | None, ...]:
        """`[["patient_id", "week"], ["P-0017", 3], …]`: the first row names the columns; empty when it says nothing."""
        first = items[0] if len(items) > 1 else None
        if not isinstance(first, list | tuple) or not 0 < len(first) <= _MANY or not all(isinstance(name, str) for name in first):
            return ()
        if len(first) == 2 and all(isinstance(row, list | tuple) and row and _is_name(row[0]) for row in items):
            return ()  # pairs of a name and a value
        heads = tuple(self._words.label_of(name[:_NAME]) for name in first)
        return heads if any(heads) else ()

    def _pair(self, pair: list[Any] | tuple[Any, ...], room: _Room, depth: int) -> list[Any]:
        """`[("patient_id", "P-0017"), …]`, as headers and rows often come: the first says what the second is."""
        first = self._plain(pair[0], None, "", room, depth + 1)
        return [first, self._plain(pair[1], self._words.label_of(first[:_NAME]), first[:_NAME], room, depth + 1)]

    def _named(self, items: list[tuple[Any, Any]]) -> Label | None:
        """`{"key": "patient_id", "value": "P-0017"}`, as OpenTelemetry and FHIR write it."""
        told = {str(key).lower(): item for key, item in items if isinstance(key, str) and isinstance(item, str)}
        names = (told[key] for key in _NAMES if key in told) if len(items) <= _FEW else ()
        return next((label for name in names if (label := self._words.label_of(name[:_NAME]))), None)


def _is_name(value: Any) -> bool:
    return isinstance(value, str | bytes) and not any(char.isdigit() for char in str(value))


def _is_schema(items: list[tuple[Any, Any]]) -> bool:
    """`{"type": "string", "maxLength": 12}` describes a value and is none."""
    is_typed = any(key == "type" and isinstance(item, str) and item in _TYPES for key, item in items)
    return is_typed and not any(isinstance(key, str) and key.lower() in _VALUES for key, _ in items)


def _told(value: Any) -> str:
    """Text of a value whose type is known; of others the type's name only: their own text may fail, or tell too much."""
    if isinstance(value, enum.Enum):
        return str(value.name)
    if type(value) in _TOLD or isinstance(value, str | int | float | type(None)):
        return str(value)
    return f"<{type(value).__name__}>"


def _one_type(items: list[Any]) -> list[Any]:
    """Whole numbers among decimals become decimals; OpenTelemetry's lists have one type."""
    return [float(item) for item in items] if {*map(type, items)} == {int, float} else items


def _is_attribute(items: list[Any]) -> bool:
    kinds = {*map(type, items)}
    return not kinds or (len(kinds) == 1 and kinds <= {str, int, float, bool})


def _fits(text: str, limit: int) -> bool:
    size = len(text)
    return 4 * size <= limit or (size <= limit and (text.isascii() or len(text.encode(errors="replace")) <= limit))


def _sound(text: str) -> str:
    """Without what UTF-8 and PostgreSQL cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\x00", "\ufffd")


def _replace(text: str, spans: list[Span], limit: int, beyond: int, *, unit: str) -> tuple[str, bool]:
    """`text` with markers for `spans`, cut so that it fits; `beyond` characters of the value were cut off before."""
    pieces: list[tuple[str, int]] = []
    done = 0
    for span in spans:
        pieces += ((text[done : span.start], span.start), (f"[{span.kind}]", span.end))
        done = span.end
    pieces.append((text[done:], len(text)))
    result = "".join(piece for piece, _ in pieces)
    if not beyond and _fits(result, limit):
        return result, False
    kept: list[str] = []
    room, reached = limit - _TAIL, 0
    for index, (piece, end) in enumerate(pieces):
        size = len(piece.encode())
        if size <= room:
            kept.append(piece)
            room, reached = room - size, end
            continue
        if index % 2 == 0:
            part = _before_the_word(piece.encode()[:room].decode(errors="ignore"), piece)
            kept.append(part)
            reached += len(part)
        break
    return f"{''.join(kept)}…[truncated {len(text) - reached + beyond} {unit}]", True


def _before_the_word(part: str, piece: str) -> str:
    """A cut inside a word or number goes back to its start, if that is near: half a number could look like another one."""
    if not part or not piece[len(part) : len(part) + 1].isalnum():
        return part
    shorter = part[-80:].rstrip("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return part[: len(part) - len(part[-80:]) + len(shorter)] if shorter else part
