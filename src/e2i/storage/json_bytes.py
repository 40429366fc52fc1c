"""JSON text whose values come back from jsonb as they went in, fast."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXPONENT = 1e16
"""from here a float is written with an exponent, and jsonb would give an integer back"""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def json_bytes(value: dict[str, Any] | list[Any]) -> bytes:
    """JSON in UTF-8.

    Raises
    ------
    ValueError, TypeError
        JSON or jsonb has no such value: NaN, infinities, integers beyond 64 bits, NUL, lone surrogates, other types.
    """
    values = value.values() if isinstance(value, dict) else value
    data = orjson.dumps(value if _is_plain(values) else _exact(value))
    if b"\\" in data and b"\\u0000" in data and _NUL.search(data):  # one byte is found much faster than six
        raise ValueError("jsonb has no NUL")
    return data


def _is_plain(values: Iterable[Any]) -> bool:
    for value in values:
        kind = type(value)
        if kind is str or kind is int or kind is bool:
            continue
        if kind is float:
            if not -_EXPONENT < value < _EXPONENT:
                return False
        elif kind is not list or not _is_plain(value):
            return False
    return True


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON has no such number")
        if abs(value) < _EXPONENT:
            return value
        digits = f"{Decimal(repr(float(value))):f}"
        return orjson.Fragment(digits if "." in digits else f"{digits}.0")
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return value
