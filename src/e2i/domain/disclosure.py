"""What may be shown: counts of 1-10 people are hidden, and counts from which such a count could be derived; no number is invented."""

from __future__ import annotations

import math

SMALL_CELL = 10
"""counts from 1 to this many people are not shown"""


def visible_counts(counts: dict[str, int]) -> dict[str, int | None]:
    """Counts of a partition with small cells hidden, and the next smallest one with a single hidden cell.

    >>> visible_counts({"treated": 7, "untreated": 900})
    {'treated': None, 'untreated': None}
    >>> visible_counts({"a": 3, "b": 20, "c": 900})
    {'a': None, 'b': None, 'c': 900}
    """
    hidden = {name for name, count in counts.items() if visible(count) is None}
    if len(hidden) == 1 and len(counts) > 1:
        hidden.add(min((name for name in counts if name not in hidden), key=lambda name: counts[name]))
    return {name: None if name in hidden else count for name, count in counts.items()}


def visible(count: int) -> int | None:
    """The count, or None for a small cell."""
    return None if 1 <= count <= SMALL_CELL else count


def counted(count: int, what: str) -> str:
    """A count in words that hide a small cell.

    >>> counted(3, "units"), counted(40, "units")
    ('fewer than 11 units', '40 units')
    """
    return f"{count} {what}" if visible(count) is not None else f"fewer than 11 {what}"


def number(value: float | None) -> float | None:
    """The value, or None when it is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def numbers(values: dict[str, float]) -> dict[str, float | None] | None:
    """Each value by `number`; None without any."""
    return {name: number(value) for name, value in values.items()} or None
