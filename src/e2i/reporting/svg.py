"""A small SVG plotter: scales, axes and marks as text, coloured by the page's style sheet so that plots follow its theme."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from e2i.reporting.numbers import MINUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Point = tuple[float, float]
_LINE = 13.0
"""pixels from line to line of a label"""
_NARROW, _WIDE = frozenset(" ijlftIr.,:;'()[]|!"), frozenset("mwMWOQ@%&…")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of `value`; values outside are put on the edge."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values within [low, high].

    >>> ticks(0, 1), ticks(-0.3, 2.2, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 0.5, 1.0, 1.5, 2.0])
    """
    if high <= low:
        return [low]
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = min((size * factor for factor in (1, 2, 5, 10)), key=lambda candidate: abs(math.log(candidate / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_text(value: float, values: Sequence[float]) -> str:
    """Label of a tick with as many decimals as the step needs."""
    step = min((abs(b - a) for a, b in pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{decimals}f}".replace("-", MINUS)


class Plot:
    """Collects marks and gives one `<svg>` with a title and a description for those who cannot see it."""

    def __init__(self, *, width: float, height: float, x: Scale, y: Scale) -> None:
        self.width, self.height = width, height
        self.x, self.y = x, y
        self._parts: list[Markup] = []

    def horizontal_axis(self, label: str, *, values: Sequence[float] | None = None) -> None:
        """Grid lines, tick labels and a label below."""
        values = ticks(self.x.low, self.x.high) if values is None else values
        bottom, top = max(self.y.start, self.y.end), min(self.y.start, self.y.end)
        for value in values:
            at = self.x(value)
            self.segment((at, top), (at, bottom), "grid")
            self.text((at, bottom + 15), tick_text(value, values), "tick", anchor="middle")
        self.text(((self.x.start + self.x.end) / 2, bottom + 32), label, "axis", anchor="middle")

    def vertical_axis(self, label: str, *, values: Sequence[float] | None = None) -> None:
        """Grid lines, tick labels and a label above."""
        values = ticks(self.y.low, self.y.high) if values is None else values
        for value in values:
            at = self.y(value)
            self.segment((self.x.start, at), (self.x.end, at), "grid")
            self.text((self.x.start - 7, at + 4), tick_text(value, values), "tick", anchor="end")
        self.text((self.x.start - 34, min(self.y.start, self.y.end) - 10), label, "axis")

    def row_labels(self, labels: Sequence[str], positions: Sequence[float], *, width: int, lines: Literal[1, 2] = 1) -> None:
        """Names of rows left of the plot, on one line or two, cut to `width` characters a line and to the room that there is."""
        room = self.x.start - 12
        for label, at in zip(labels, positions, strict=True):
            parts = [label] if lines == 1 or text_width(label) <= room else halves(label)
            for place, part in enumerate(parts):
                shown = fitted(shorten(part, width), room)
                height = at + 4 + (place - (len(parts) - 1) / 2) * _LINE
                self.text((self.x.start - 10, height), shown, "row", anchor="end", hint=label if shown != part else None)

    def segment(self, start: Point, end: Point, kind: str) -> None:
        """A straight line in pixels."""
        self._add('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>', kind, *map(_px, (*start, *end)))

    def line(self, points: Iterable[Point], kind: str) -> None:
        """A line through data points."""
        path = " ".join(f"{_px(self.x(a))},{_px(self.y(b))}" for a, b in points)
        self._add('<polyline class="{}" points="{}"/>', kind, path)

    def bar(self, corner: Point, size: Point, kind: str, *, hint: str | None = None) -> None:
        """A rectangle in pixels."""
        body = Markup("<title>{}</title>").format(hint) if hint else Markup("")
        numbers = map(_px, (*corner, max(size[0], 0.0), max(size[1], 0.0)))
        self._add('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>', kind, *numbers, body)

    def dot(self, centre: Point, kind: str, *, radius: float = 5, hint: str | None = None) -> None:
        """A circle in pixels, with a text for the pointer."""
        body = Markup("<title>{}</title>").format(hint) if hint else Markup("")
        self._add('<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>', kind, *map(_px, (*centre, radius)), body)

    def dots(self, centres: Sequence[Point], kind: str) -> None:
        """Many small dots in pixels as one path: a line of no length with a round cap is a dot."""
        if centres:
            self._add('<path class="{}" d="{}"/>', kind, "".join(f"M{_px(a)} {_px(b)}h0" for a, b in centres))

    def text(self, at: Point, words: str, kind: str, *, anchor: str = "start", hint: str | None = None) -> None:
        """Words at a place in pixels."""
        body = Markup("<title>{}</title>").format(hint) if hint else Markup("")
        self._add('<text class="{}" x="{}" y="{}" text-anchor="{}">{}{}</text>', kind, _px(at[0]), _px(at[1]), anchor, words, body)

    def render(self, name: str, *, title: str, description: str) -> Markup:
        """The element; `name` is unique on the page."""
        return Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d" preserveAspectRatio="xMidYMid meet" style="max-width:{}px">'
            '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>{}</svg>'
        ).format(
            _px(self.width), _px(self.height), name, name, _px(self.width), name, title, name, description, Markup("").join(self._parts)
        )  # fmt: skip

    def _add(self, pattern: str, *values: object) -> None:
        self._parts.append(Markup(pattern).format(*values))  # noqa: S704 - patterns are literals of this file; values are escaped


def shorten(text: str, width: int) -> str:
    """Cut in the middle, so that names that differ at their end stay apart.

    >>> shorten("negative_control_outcome", 12)
    'negati…tcome'
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def halves(text: str) -> list[str]:
    """Two lines of about equal length, parted at a blank; one where there is none.

    >>> halves("least squares without instruments")
    ['least squares', 'without instruments']
    """
    blanks = [place for place, letter in enumerate(text) if letter == " "]
    if not blanks:
        return [text]
    middle = min(blanks, key=lambda place: abs(place - len(text) / 2))
    return [text[:middle], text[middle + 1 :]]


def fitted(text: str, room: float) -> str:
    """Cut in the middle until the text takes at most `room` pixels, by the letters of a wide sans-serif font of 12 px.

    >>> fitted("nrx_pre", 80), fitted("MMMMMMMMMMMM", 80)
    ('nrx_pre', 'MMM…MM')
    """
    shown, length = text, len(text)
    while length > 3 and text_width(shown) > room:
        length -= 1
        shown = shorten(text, length)
    return shown


def text_width(text: str) -> float:
    """Pixels that a text of 12 px takes, rather too many than too few."""
    return sum(4.2 if letter in _NARROW else 12.0 if letter in _WIDE or ord(letter) > 0x2E80 else 7.5 for letter in text)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
