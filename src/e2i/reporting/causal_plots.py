"""Plots of a causal finding: other estimators, periods, specifications, paths. Each takes parts of report.json and gives an SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.causal.narrative import levels_compared
from e2i.reporting.marks import ends_of, evenly, lying, span, standing, words
from e2i.reporting.numbers import plain_name
from e2i.reporting.svg import Plot, Scale, fitted, shorten, text_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    Row = Mapping[str, Any]

_MOST_POINTS = 80
_LINE = 17.0
_LETTER = 6.8
"""width of a letter of the page's plots, in pixels"""
_NARROWEST, _WIDEST, _LONGEST = 200.0, 450.0, 100
"""room for row labels in pixels, and their letters"""


def _room_for(labels: Sequence[str]) -> float:
    """Where the plot begins so that its row labels stand whole, as far as the page is wide."""
    return min(_WIDEST, max(_NARROWEST, *(text_width(label) + 16 for label in labels)))


def _values(rows: Sequence[Row]) -> list[float | None]:
    return [value for row in rows for value in (row["estimate"], *row["interval"])]


def _words(row: Row) -> str:
    return words(row["estimate"], ends_of(row["interval"]))


def forest(rows: Sequence[Row], *, outcome: str) -> Markup | None:
    """The chosen estimator first, then the others on the outcome's own scale: estimate and 95 % interval, one line each."""
    shown = [row for row in rows if row["estimate"] is not None and row["scale"] == "outcome"]
    if len(shown) < 2:
        return None
    height = 28.0
    low, high = span(_values(shown))
    names = [levels_compared(row["estimator"]) or row["estimator"].replace("_", " ") for row in shown]
    labels = [f"{name} ({row['estimand']})" for name, row in zip(names, shown, strict=True)]
    start = _room_for(labels)
    x = Scale(low=low, high=high, start=start, end=start + 264)
    bottom = 20 + height * len(shown)
    plot = Plot(width=start + 484, height=bottom + 46, x=x, y=Scale(low=0, high=1, start=bottom, end=20))
    plot.horizontal_axis(f"Effect on {shorten(plain_name(outcome), 50)}")
    middles = [20 + height * (index + 0.5) for index in range(len(shown))]
    plot.row_labels(labels, middles, width=_LONGEST, lines=2)
    plot.segment((x(0), 16), (x(0), bottom), "zero")
    for index, (row, at) in enumerate(zip(shown, middles, strict=True)):
        lying(plot, ends_of(row["interval"]), at)
        plot.dot((x(row["estimate"]), at), "after" if index == 0 and row is rows[0] else "before", radius=5.5, hint=_words(row))
        plot.text((x.end + 14, at + 4), _words(row), "tick")
    told = "; ".join(f"{name}: {_words(row)}" for name, row in zip(names[:6], shown[:6], strict=True))
    return plot.render("forest", title="The same question by several estimators", description=told)


def event_study(rows: Sequence[Row], *, outcome: str) -> Markup | None:
    """Effect by period since treatment began, with the bands that hold for all periods at once where the method gives them."""
    shown = [row for row in rows if row["estimate"] is not None]
    if not shown:
        return None
    low, high = span(_values(shown))
    first, last = min(row["period"] for row in shown), max(row["period"] for row in shown)
    x = Scale(low=first - 0.5, high=last + 0.5, start=78, end=680)
    y = Scale(low=low, high=high, start=250, end=36)
    plot = Plot(width=700, height=296, x=x, y=y)
    step = max(1, -(-(last - first) // 14))
    periods = [float(period) for period in range(first, last + 1) if period % step == 0]
    plot.horizontal_axis("Periods since treatment began (0 is the first treated one)", values=periods)
    plot.vertical_axis(f"Effect on {shorten(plain_name(outcome), 60)}")
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    plot.segment((x(-0.5), y.start), (x(-0.5), y.end), "gate")
    radius = min(4.5, max(2.0, (x.end - x.start) / (last - first + 1) / 3))
    for row in shown:
        at = x(row["period"])
        if not row["reference"]:
            standing(plot, ends_of(row["interval"]), at)
        kind = "before" if row["period"] < 0 else "after"
        hint = f"period {row['period']:+d}: " + ("the period that the others are compared with" if row["reference"] else _words(row))
        plot.dot((at, y(row["estimate"])), kind, radius=radius, hint=hint)
    told = "Points before 0 should lie at zero: they show whether treated and untreated moved alike before treatment."
    return plot.render("event-study", title="Event study", description=told)


def specification_curve(rows: Sequence[Row], *, outcome: str) -> Markup | None:
    """Every defensible way to do it, by size of the estimate, with what was chosen below (Simonsohn, Simmons and Nelson 2020)."""
    known = sorted((row for row in rows if row["estimate"] is not None), key=lambda row: row["estimate"])
    if len(known) < 2:
        return None
    places = set(evenly(len(known), _MOST_POINTS)) | {place for place, row in enumerate(known) if row["chosen"]}
    shown = [known[place] for place in sorted(places)]
    low, high = span(_values(shown))
    lines = [(part, name) for part in ("estimator", "sample", "adjustment") for name in ("", *dict.fromkeys(row[part] for row in shown))]
    start = _room_for([name for _, name in lines])
    x = Scale(low=-0.5, high=len(shown) - 0.5, start=start, end=start + 440)
    y = Scale(low=low, high=high, start=196, end=36)
    plot = Plot(width=start + 460, height=226 + _LINE * len(lines), x=x, y=y)
    plot.vertical_axis(f"Effect on {shorten(plain_name(outcome), 60)}")
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    _choices(plot, lines, shown)
    for place, row in enumerate(shown):
        standing(plot, ends_of(row["interval"]), x(place), "whisker thin")
        kind, radius = ("after", 4.5) if row["chosen"] else ("before", 3.2)
        plot.dot((x(place), y(row["estimate"])), kind, radius=radius, hint=_words(row))
    above = sum(row["estimate"] > 0 for row in known)
    cut = f" {len(shown)} of them, evenly chosen, are drawn." if len(shown) < len(known) else ""
    told = f"{len(known)} specifications, {above} of them above zero.{cut} The filled point is the reported one."
    return plot.render("specifications", title="Specification curve", description=told)


def _choices(plot: Plot, lines: Sequence[tuple[str, str]], shown: Sequence[Row]) -> None:
    """Below the curve, one line per choice, with a dot where a specification made it; an empty name heads a part."""
    x, top = plot.x, plot.y.start + 22
    for line, (part, name) in enumerate(lines):
        at = top + _LINE * line
        if not name:
            plot.text((x.start - 10, at + 4), part.capitalize(), "value", anchor="end")
            continue
        plot.segment((x.start, at), (x.end, at), "grid")
        plot.row_labels([name], [at], width=_LONGEST)
        for place, row in enumerate(shown):
            if row[part] == name:
                plot.dot((x(place), at), "after" if row["chosen"] else "pale", radius=4 if row["chosen"] else 2.6)


def path(rows: Sequence[Row], *, outcome: str) -> Markup | None:
    """Observed and counterfactual outcome of the treated, period by period."""
    shown = [row for row in rows if row["observed"] is not None and row["counterfactual"] is not None]
    if len(shown) < 3:
        return None
    low, high = span([row[name] for row in shown for name in ("observed", "counterfactual")], zero=None)
    x = Scale(low=0, high=len(shown) - 1, start=78, end=660)
    y = Scale(low=low, high=high, start=250, end=48)
    plot = Plot(width=730, height=284, x=x, y=y)
    longest = min(max(len(str(row["period"])) for row in shown), 18)
    most = max(2, min(9, int((x.end - x.start) / (longest * _LETTER + 14))))
    for place in range(0, len(shown), -(-(len(shown) - 1) // (most - 1))):
        plot.text((x(place), 268), fitted(str(shown[place]["period"]), 125), "tick", anchor="middle")
    plot.vertical_axis(shorten(plain_name(outcome), 60))
    begins = next((place for place, row in enumerate(shown) if row["is_treated"]), None)
    if begins is not None:
        at = x(max(begins - 0.5, 0))
        plot.segment((at, y.start), (at, y.end), "gate")
        is_right = at > (x.start + x.end) / 2
        plot.text((at + (-6 if is_right else 6), y.end + 4), "treatment begins", "tick", anchor="end" if is_right else "start")
    plot.line([(place, row["counterfactual"]) for place, row in enumerate(shown)], "reference")
    plot.line([(place, row["observed"]) for place, row in enumerate(shown)], "curve")
    told = "Before treatment the two lines should agree; the distance afterwards is the effect."
    return plot.render("path", title="Observed and rebuilt path", description=told)
