"""Plots of how the effect differs between people. Each takes parts of report.json's `segments` and gives an SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.reporting.marks import evenly, lying, span, standing, words
from e2i.reporting.numbers import POLICIES, format_number, plain_name
from e2i.reporting.svg import Plot, Scale, shorten, text_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    Row = Mapping[str, Any]

_MOST_SEGMENTS = 40
_HEIGHT = 26.0


def _interval(row: Row) -> tuple[float | None, float | None]:
    return row["low"], row["high"]


def modifier(name: str, rows: Sequence[Row], *, overall: float | None, outcome: str, index: int) -> Markup | None:
    """Effect of each segment of one modifier: thick its own interval, thin the one that holds for all segments at once."""
    known = [row for row in rows if row["estimate"] is not None]
    if not known:
        return None
    shown = [known[place] for place in evenly(len(known), _MOST_SEGMENTS)]
    ends = ("estimate", "low", "high", "simultaneous_low", "simultaneous_high")
    low, high = span([*(row[end] for row in shown for end in ends), overall])
    labels = [shorten(row["segment_value"], 32) for row in shown]
    x = Scale(low=low, high=high, start=min(226, 24 + max(map(text_width, labels))), end=560)
    bottom = 26 + _HEIGHT * len(shown)
    plot = Plot(width=780, height=bottom + 46, x=x, y=Scale(low=0, high=1, start=bottom, end=26))
    plot.horizontal_axis(f"Effect on {shorten(plain_name(outcome), 40)}")
    middles = [26 + _HEIGHT * (place + 0.5) for place in range(len(shown))]
    plot.row_labels([row["segment_value"] for row in shown], middles, width=32)
    plot.segment((x(0), 22), (x(0), bottom), "zero")
    if overall is not None:
        plot.segment((x(overall), 22), (x(overall), bottom), "gate")
        plot.text((x(overall), 14), "overall", "tick", anchor="middle")
    for row, at in zip(shown, middles, strict=True):
        lying(plot, (row["simultaneous_low"], row["simultaneous_high"]), at, "whisker thin")
        plot.segment((x(_or(row["low"], low)), at), (x(_or(row["high"], high)), at), "whisker thick")
        hint = words(row["estimate"], _interval(row))
        plot.dot((x(row["estimate"]), at), "after" if row["differs"] else "before", radius=5.5, hint=hint)
        plot.text((574, at + 4), hint, "tick")
    told = "; ".join(f"{row['segment_value']}: {words(row['estimate'], _interval(row))}" for row in shown[:8])
    return plot.render(f"segments-{index}", title=f"Effect by {plain_name(name)}", description=told)


def _or(value: float | None, edge: float) -> float:
    return edge if value is None else value


def groups(rows: Sequence[Row], *, outcome: str) -> Markup | None:
    """Effect found in each group of the predicted effect, least responsive first."""
    shown = [row for row in rows if row["estimate"] is not None]
    if len(shown) < 2:
        return None
    low, high = span([value for row in shown for value in (row["estimate"], row["low"], row["high"])])
    x = Scale(low=0.5, high=len(shown) + 0.5, start=62, end=380)
    y = Scale(low=low, high=high, start=236, end=36)
    plot = Plot(width=400, height=286, x=x, y=y)
    plot.vertical_axis(f"Effect found on {shorten(plain_name(outcome), 34)}")
    names = [str(row["group"]) for row in shown]
    for place, name in enumerate(names):
        plot.text((x(place + 1), 251), name, "tick", anchor="middle")
    plot.text(((x.start + x.end) / 2, 271), "Groups by predicted effect, smallest to largest", "axis", anchor="middle")
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    for place, row in enumerate(shown):
        at = x(place + 1)
        standing(plot, _interval(row), at)
        plot.dot((at, y(row["estimate"])), "after", radius=5.5, hint=f"group {row['group']}: {words(row['estimate'], _interval(row))}")
    told = "; ".join(f"group {row['group']} of {row['of']}: {words(row['estimate'], _interval(row))}" for row in shown)
    return plot.render("cate-groups", title="Effect found by group of the predicted effect", description=told)


def gain(rows: Sequence[Row], *, outcome: str) -> Markup | None:
    """Gain from treating the most responsive first, with its band, against a random order."""
    shown = [row for row in rows if None not in (row["gain"], row["low"], row["high"], row["random"])]
    if len(shown) < 2:
        return None
    low, high = span([row[name] for row in shown for name in ("gain", "low", "high", "random")])
    x = Scale(low=0, high=1, start=62, end=380)
    y = Scale(low=low, high=high, start=236, end=36)
    plot = Plot(width=400, height=286, x=x, y=y)
    plot.horizontal_axis("Share of people treated, most responsive first")
    plot.vertical_axis(f"Gain in {shorten(plain_name(outcome), 28)} per person of all")
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    band = [*((row["share"], row["low"]) for row in shown), *((row["share"], row["high"]) for row in reversed(shown))]
    plot.line(band, "band")
    plot.line([(row["share"], row["random"]) for row in shown], "reference")
    plot.line([(row["share"], row["gain"]) for row in shown], "curve")
    half = min(shown, key=lambda row: abs(row["share"] - 0.5))
    told = f"Treating the first {half['share']:.0%} gains {words(half['gain'], _interval(half))}"
    told += f", in random order {format_number(half['random'])}."
    return plot.render("uplift", title="Gain by share of people treated", description=told)


def policies(rows: Sequence[Row], *, unit: str) -> Markup | None:
    """Value per person of each policy against treating nobody."""
    shown = [row for row in rows if row["value"]["estimate"] is not None]
    if len(shown) < 2:
        return None
    low, high = span([value for row in shown for value in row["value"].values()])
    x = Scale(low=low, high=high, start=170, end=560)
    bottom = 20 + _HEIGHT * len(shown)
    plot = Plot(width=780, height=bottom + 46, x=x, y=Scale(low=0, high=1, start=bottom, end=20))
    plot.horizontal_axis(f"Value per person against treating nobody, {shorten(unit, 40)}")
    middles = [20 + _HEIGHT * (place + 0.5) for place in range(len(shown))]
    plot.row_labels([POLICIES.get(row["policy"], plain_name(row["policy"])) for row in shown], middles, width=24)
    plot.segment((x(0), 16), (x(0), bottom), "zero")
    for row, at in zip(shown, middles, strict=True):
        hint = words(row["value"]["estimate"], _interval(row["value"]))
        if row["policy"] != "nobody":
            lying(plot, _interval(row["value"]), at)
        plot.dot((x(row["value"]["estimate"]), at), "after" if row["policy"] == "learned" else "before", radius=5.5, hint=hint)
        plot.text((574, at + 4), "0 by definition" if row["policy"] == "nobody" else hint, "tick")
    values = [row["value"] for row in shown]
    told = "; ".join(f"{row['policy']}: {words(value['estimate'], _interval(value))}" for row, value in zip(shown, values, strict=True))
    return plot.render("policies", title="What each policy is worth", description=told)
