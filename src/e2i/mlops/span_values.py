"""Values as span attributes: structures as JSON, what JSON cannot say described, nothing ever raised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from typing import Any

import orjson

from e2i.errors import DataError
from e2i.observability import attributes as names

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_ITEMS = 10_000
_DEPTH = 64
_LARGEST = 2**63
OWN = {
    "brand": names.BRAND,
    "kpi": names.KPI,
    "experiment_id": names.EXPERIMENT_ID,
    "run_id": names.RUN_ID,
    "user_id": names.USER_ID,
    "session_id": names.SESSION_ID,
}
"""words that users write and the attribute that keeps them; any other word is an attribute of its own"""


def text_of(value: object) -> str:
    """A text as it is, anything else as JSON; objects that JSON does not know are described, not copied.

    >>> text_of({"brand": "Kisqali", "model": object})
    '{"brand":"Kisqali","model":"<class object>"}'
    """
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return orjson.dumps(value, default=_described, option=_OPTIONS).decode()
    except TypeError:  # orjson raises nothing else: cycles, huge integers, odd keys, broken text, an object that fails to describe itself
        return orjson.dumps(_Plain().of(value)).decode()


def attribute_of(value: object) -> str | int | float | bool | tuple[Any, ...] | None:
    """The value as OpenTelemetry keeps it: a scalar, a tuple of one kind of scalar, else JSON. None: nothing to keep."""
    kind = type(value)
    if kind is str or kind is bool or kind is float or value is None or (kind is int and _fits(value)):
        return value  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        kinds = {type(item) for item in value}
        if len(kinds) == 1 and (kinds <= {str, bool, float} or (kinds == {int} and all(map(_fits, value)))):
            return tuple(value)
    text = text_of(value)
    if isinstance(value, str | int) or text[:1] in "[{":
        return text
    plain = orjson.loads(text)  # a path, an enumeration, a date, a number of numpy
    return plain if isinstance(plain, str | int | float | bool) else text


def _fits(number: Any) -> bool:
    """Whether it has at most 64 bits, as everywhere behind a span."""
    return bool(-_LARGEST <= number < _LARGEST)


def texts_of(values: Sequence[object] | str) -> tuple[str, ...]:
    """Each as text; a single text is a sequence of one."""
    return (values,) if isinstance(values, str) else tuple(text_of(value) for value in values)


def attributes_of(metadata: Mapping[str, object] | None) -> dict[str, Any]:
    """Metadata as attributes, under the caller's own words or, where we have a name for it (`brand`, `kpi`, `run_id` …), under ours."""
    if not metadata:
        return {}
    found = {}
    for key, value in metadata.items():
        kept = attribute_of(value)
        if kept is not None and key:
            found[OWN.get(key, key if type(key) is str else str(key))] = kept
    return found


def checked_tokens(count: object, name: str) -> int | None:
    """A number of tokens; None stays unknown. Raises DataError for anything but a whole number from 0."""
    if count is None or (type(count) is int and count >= 0):
        return count
    if type(count) is not int:
        whole = count if not isinstance(count, bool) and isinstance(count, int) else _whole(count)
        if whole is None:
            raise DataError(f"{name} is {count!r}.", where="token usage", advice="Give a whole number from 0, or None when it is unknown.")
        count = int(whole)
    if count < 0:
        raise DataError(f"{name} is {count}.", where="token usage", advice="Give a whole number from 0, or None when it is unknown.")
    return count


def checked_cost(cost: object) -> float | None:
    """US dollars; None stays unknown, it never becomes 0. Raises DataError for anything but a finite number from 0."""
    if cost is None or (type(cost) is float and 0 <= cost < math.inf):
        return cost
    number = _finite(cost)
    if number is None or number < 0:
        raise DataError(
            f"total_cost is {cost!r}.", where="token usage", advice="Give US dollars as a number from 0, or None when it is unknown."
        )
    return number


def checked_value(value: object, where: str) -> float | bool:
    """A metric or a score. Raises DataError for what is not a finite number."""
    if isinstance(value, bool):
        return value
    number = _finite(value)
    if number is None:
        raise DataError(f"is {value!r}, which is not a finite number.", where=where, advice="Leave out what is undefined.")
    return number


def _finite(value: object) -> float | None:
    if isinstance(value, bool | str | bytes):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> float | None:
    number = None if isinstance(value, bool) else _finite(value)
    return number if number is not None and number.is_integer() else None


def _described(value: Any) -> object:
    """What orjson asks for an object that it does not know; whatever this raises orjson turns into a TypeError."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return sorted(value, key=repr)
    if isinstance(value, PurePath | Decimal):
        return str(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return _dumped(value)


def _dumped(value: Any) -> object:
    """Models of pydantic and small arrays of numpy say what is in them, everything else only what it is."""
    kind = type(value)
    if kind.__module__ == "numpy" and value.size <= _ITEMS:
        return value.tolist()
    dump = None if isinstance(value, type) else getattr(value, "model_dump", None)
    return _description(value) if dump is None else dump(mode="json")


def _description(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{type(value).__name__} of {len(value)} bytes>"
    if isinstance(value, type):
        return f"<class {value.__qualname__}>"
    kind = type(value)
    shape = getattr(value, "shape", None) if kind.__module__.partition(".")[0] in ("numpy", "pandas", "polars", "scipy") else None
    return f"<{kind.__module__}.{kind.__qualname__}{'' if shape is None else f' of shape {shape}'}>"


class _Plain:
    """The same value with texts that are valid, keys that are texts, and an end where it would go round in circles."""

    def __init__(self) -> None:
        self._left = _ITEMS
        self._inside: set[int] = set()

    def of(self, value: object) -> object:
        self._left -= 1
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()
        if isinstance(value, int) and not isinstance(value, bool):
            return value if _fits(value) else str(value)
        if not isinstance(value, Mapping | Sequence | AbstractSet) or isinstance(value, bytes | bytearray | memoryview):
            return _leaf(value)
        if id(value) in self._inside or self._left <= 0 or len(self._inside) >= _DEPTH:
            return "<...>"
        self._inside.add(id(value))
        found = self._mapping(value) if isinstance(value, Mapping) else [self.of(item) for item in islice(value, max(self._left, 0))]
        self._inside.discard(id(value))
        return found

    def _mapping(self, value: Mapping[Any, object]) -> dict[str, object]:
        return {str(self.of(key)): self.of(item) for key, item in islice(value.items(), max(self._left, 0))}


def _leaf(value: object) -> object:
    try:
        return orjson.loads(orjson.dumps(value, default=_described, option=_OPTIONS))
    except TypeError:
        return _description(value)
