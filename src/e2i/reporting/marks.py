"""Marks that several plots share: an estimate with its interval, and the span that an axis must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2i.reporting.numbers import format_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2i.reporting.svg import Plot

Ends = tuple[float | None, float | None]
_CAP = 4.5


def span(told: Iterable[float | None], *, zero: float | None = 0.0) -> tuple[float, float]:
    """What an axis must hold: every known value, `zero` where there is one, and some room."""
    known = [value for value in told if value is not None]
    known += [] if zero is None else [zero]
    low, high = min(known), max(known)
    room = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return low - room, high + room


def ends_of(interval: Iterable[float | None]) -> Ends:
    """Both ends of an interval out of report.json; one without a number is open."""
    low, high = interval
    return low, high


def lying(plot: Plot, ends: Ends, at: float, kind: str = "whisker") -> None:
    """A horizontal interval at pixel `at`: a cap where it ends, an arrow where it does not."""
    low, high = ends
    start = plot.x.start if low is None else plot.x(low)
    end = plot.x.end if high is None else plot.x(high)
    plot.segment((start, at), (end, at), kind)
    for place, is_open, back in ((start, low is None, _CAP), (end, high is None, -_CAP)):
        if is_open:
            plot.segment((place, at), (place + back, at - _CAP), kind)
            plot.segment((place, at), (place + back, at + _CAP), kind)
        else:
            plot.segment((place, at - _CAP), (place, at + _CAP), kind)


def standing(plot: Plot, ends: Ends, at: float, kind: str = "whisker") -> None:
    """A vertical interval at pixel `at`, open ends with an arrow."""
    low, high = ends
    start = plot.y.start if low is None else plot.y(low)
    end = plot.y.end if high is None else plot.y(high)
    plot.segment((at, start), (at, end), kind)
    for place, is_open, back in ((start, low is None, -_CAP), (end, high is None, _CAP)):
        if is_open:
            plot.segment((at, place), (at - _CAP, place + back), kind)
            plot.segment((at, place), (at + _CAP, place + back), kind)


def words(estimate: float, ends: Ends) -> str:
    """The estimate with its interval, for the pointer and for those who cannot see the plot.

    >>> words(1.5, (None, 2.0))
    '1.50 (unbounded to 2.00)'
    """
    low, high = ("unbounded" if end is None else format_number(end) for end in ends)
    return f"{format_number(estimate)} ({low} to {high})"


def evenly(count: int, most: int) -> list[int]:
    """At most `most` places out of `count`, first and last among them.

    >>> evenly(3, 5), evenly(9, 3)
    ([0, 1, 2], [0, 4, 8])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})
