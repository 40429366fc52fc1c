"""Plots of a causal finding: other estimators, periods, specifications, paths. Each takes parts of report.json and gives an SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.reporting.numbers import format_number, plain_name
from e2i.reporting.svg import Plot, Scale, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

_MOST_POINTS = 80


def _span(rows: Sequence[Mapping[str, Any]], *, zero: float = 0.0) -> tuple[float, float]:
    """What an axis must hold: every finite end, and where there is no effect."""
    told = [value for row in rows for value in (row["estimate"], *row["interval"]) if value is not None]
    low, high = min([*told, zero]), max([*told, zero])
    room = (high - low) * 0.06 or 1.0
    return low - room, high + room


def forest(rows: Sequence[Mapping[str, Any]], *, outcome: str) -> Markup | None:
    """The chosen estimator first, then the others on the outcome's own scale: estimate and 95 % interval, one line each."""
    shown = [row for row in rows if row["estimate"] is not None and row["scale"] == "outcome"]
    if len(shown) < 2:
        return None
    height = 28.0
    low, high = _span(shown)
    x = Scale(low=low, high=high, start=250, end=600)
    bottom = 20 + height * len(shown)
    plot = Plot(width=620, height=bottom + 46, x=x, y=Scale(low=0, high=1, start=bottom, end=20))
    plot.horizontal_axis(f"Effect on {plain_name(outcome)}")
    middles = [20 + height * (index + 0.5) for index in range(len(shown))]
    plot.row_labels([f"{row['estimator']} ({row['estimand']})" for row in shown], middles, width=36)
    plot.segment((x(0), 16), (x(0), bottom), "zero")
    for index, (row, at) in enumerate(zip(shown, middles, strict=True)):
        _whisker(plot, row, at)
        plot.dot((x(row["estimate"]), at), "after" if index == 0 else "before", radius=5.5, hint=_words(row))
    told = "; ".join(f"{row['estimator']}: {_words(row)}" for row in shown[:6])
    return plot.render("forest", title="The same question by several estimators", description=told)


def event_study(rows: Sequence[Mapping[str, Any]], *, outcome: str) -> Markup | None:
    """Effect by period since treatment began, with the bands that hold for all periods at once where the method gives them."""
    shown = [row for row in rows if row["estimate"] is not None]
    if not shown:
        return None
    low, high = _span(shown)
    first, last = min(row["period"] for row in shown), max(row["period"] for row in shown)
    x = Scale(low=first - 0.5, high=last + 0.5, start=70, end=600)
    y = Scale(low=low, high=high, start=250, end=28)
    plot = Plot(width=620, height=296, x=x, y=y)
    step = max(1, round((last - first) / 12))
    periods = [float(period) for period in range(first, last + 1, step)]
    plot.horizontal_axis("Periods since treatment began (0 is the first treated one)", values=periods)
    plot.vertical_axis(f"Effect on {plain_name(outcome)}")
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    plot.segment((x(-0.5), y.start), (x(-0.5), y.end), "gate")
    for row in shown:
        at = x(row["period"])
        ends = row["interval"]
        if not row["reference"] and None not in ends:
            plot.segment((at, y(ends[0])), (at, y(ends[1])), "whisker")
        kind = "before" if row["period"] < 0 else "after"
        plot.dot((at, y(row["estimate"])), kind, radius=4.5, hint=f"period {row['period']:+d}: {_words(row)}")
    told = "Points before 0 should lie at zero: they show whether treated and untreated moved alike before treatment."
    return plot.render("event-study", title="Event study", description=told)


def specification_curve(rows: Sequence[Mapping[str, Any]], *, outcome: str) -> Markup | None:
    """Every defensible way to do it, by size of the estimate, with what was chosen below."""
    shown = sorted((row for row in rows if row["estimate"] is not None), key=lambda row: row["estimate"])[:_MOST_POINTS]
    if len(shown) < 2:
        return None
    low, high = _span(shown)
    choices = [(part, name) for part in ("estimator", "sample", "adjustment") for name in dict.fromkeys(row[part] for row in shown)]
    x = Scale(low=-0.5, high=len(shown) - 0.5, start=230, end=660)
    y = Scale(low=low, high=high, start=190, end=28)
    plot = Plot(width=680, height=214 + 17 * len(choices), x=x, y=y)
    plot.vertical_axis(f"Effect on {plain_name(outcome)}")
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    for place, row in enumerate(shown):
        at, ends = x(place), row["interval"]
        if None not in ends:
            plot.segment((at, y(ends[0])), (at, y(ends[1])), "link")
        plot.dot((at, y(row["estimate"])), "after" if row["chosen"] else "before", radius=3.5, hint=_words(row))
        for line, (part, name) in enumerate(choices):
            if row[part] == name:
                plot.dot((at, 212 + 17 * line), "after" if row["chosen"] else "mark", radius=2.6)
    for line, (_, name) in enumerate(choices):
        plot.text((x.start - 10, 216 + 17 * line), shorten(name, 32), "row", anchor="end", hint=name)
    same = sum((row["estimate"] > 0) == (shown[-1]["estimate"] > 0) for row in shown)
    told = f"{len(shown)} specifications; {same} share the sign of the largest. The filled point is the reported one."
    return plot.render("specifications", title="Specification curve", description=told)


def path(rows: Sequence[Mapping[str, Any]], *, outcome: str) -> Markup | None:
    """Observed and counterfactual outcome of the treated, period by period."""
    if len(rows) < 3:
        return None
    values = [row[name] for row in rows for name in ("observed", "counterfactual")]
    room = (max(values) - min(values)) * 0.06 or 1.0
    x = Scale(low=0, high=len(rows) - 1, start=78, end=600)
    y = Scale(low=min(values) - room, high=max(values) + room, start=250, end=28)
    plot = Plot(width=620, height=300, x=x, y=y)
    step = max(1, round(len(rows) / 8))
    for place in range(0, len(rows), step):
        plot.text((x(place), 266), str(rows[place]["period"]), "tick", anchor="middle")
    plot.vertical_axis(plain_name(outcome))
    begins = next((place for place, row in enumerate(rows) if row["is_treated"]), None)
    if begins is not None:
        plot.segment((x(begins - 0.5), y.start), (x(begins - 0.5), y.end), "gate")
        plot.text((x(begins - 0.5), 20), "treatment begins", "tick", anchor="middle")
    plot.line([(place, row["counterfactual"]) for place, row in enumerate(rows)], "reference")
    plot.line([(place, row["observed"]) for place, row in enumerate(rows)], "curve")
    plot.text((x.start, 290), "solid: observed; dashed: without treatment, rebuilt from the comparison", "tick")
    told = "Before treatment the two lines should agree; the distance afterwards is the effect."
    return plot.render("path", title="Observed and rebuilt path", description=told)


def _whisker(plot: Plot, row: Mapping[str, Any], at: float) -> None:
    low, high = row["interval"]
    start = plot.x.start if low is None else plot.x(low)
    end = plot.x.end if high is None else plot.x(high)
    plot.segment((start, at), (end, at), "whisker")


def _words(row: Mapping[str, Any]) -> str:
    low, high = (("unbounded" if end is None else format_number(end)) for end in row["interval"])
    return f"{format_number(row['estimate'])} ({low} to {high})"
