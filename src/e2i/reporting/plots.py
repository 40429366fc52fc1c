"""The report's plots. Each takes parts of report.json or evidence and gives an SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.domain.quality import GATE_SCORE, SCORE_WEIGHTS
from e2i.reporting.numbers import format_number, plain_name, readable
from e2i.reporting.svg import Plot, Scale, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

_SIDE = 250.0
_LARGEST_LIST = 16
BALANCE_LIMIT = 0.1
_SAME = 1e-9


def _square(*, x_label: str, y_label: str, high: float = 1.0) -> Plot:
    x = Scale(low=0, high=high, start=48, end=48 + _SIDE)
    y = Scale(low=0, high=high, start=28 + _SIDE, end=28)
    plot = Plot(width=_SIDE + 66, height=_SIDE + 72, x=x, y=y)
    plot.horizontal_axis(x_label)
    plot.vertical_axis(y_label)
    return plot


def roc(curves: Mapping[str, Sequence[float]], *, area: float | None) -> Markup:
    """True positive rate over false positive rate."""
    plot = _square(x_label="False positive rate", y_label="True positive rate")
    plot.line([(0, 0), (1, 1)], "reference")
    plot.line(zip(curves["fpr"], curves["tpr"], strict=True), "curve")
    told = "" if area is None else f" Its area is {format_number(area)}."
    return plot.render("roc", title="ROC curve", description=f"True positive rate against false positive rate on the test split.{told}")


def precision_recall(curves: Mapping[str, Sequence[float]]) -> Markup:
    """Precision over recall; the dashed line is the share of events, what chance would reach."""
    plot = _square(x_label="Recall", y_label="Precision")
    # At full recall everything is picked: the last point's precision is the share of events.
    share = curves["precision"][-1]
    plot.line([(0, share), (1, share)], "reference")
    plot.line(zip(curves["recall"], curves["precision"], strict=True), "curve")
    told = f"Precision against recall on the test split; the dashed line, {format_number(share)}, is the share of events."
    return plot.render("pr", title="Precision-recall curve", description=told)


def calibration(curves: Mapping[str, Sequence[float]], *, smallest: int) -> Markup | None:
    """Observed share of events over predicted probability, by tenths; tenths with fewer than `smallest` rows are not drawn."""
    rows = zip(curves["predicted"], curves["observed"], curves["count"], strict=True)
    points = [(predicted, observed) for predicted, observed, count in rows if count >= smallest]
    if not points:
        return None
    high = min(1.0, max(max(point) for point in points) * 1.1)
    plot = _square(x_label="Mean predicted probability", y_label="Observed share of events", high=high)
    plot.line([(0, 0), (high, high)], "reference")
    plot.line(points, "curve")
    for predicted, observed in points:
        hint = f"predicted {format_number(predicted)}, observed {format_number(observed)}"
        plot.dot((plot.x(predicted), plot.y(observed)), "mark", radius=4, hint=hint)
    told = "Observed share of events against predicted probability, by tenths of the prediction; on the diagonal, probabilities are right."
    return plot.render("calibration", title="Calibration curve", description=told)


def quality(scores: Mapping[str, float | None], *, total: float | None) -> Markup:
    """The five scores and their weighted mean, with the gate."""
    names = [*SCORE_WEIGHTS, *(name for name in scores if name not in SCORE_WEIGHTS)]
    rows = [*((readable(name), scores.get(name)) for name in names), ("Weighted score", total)]
    height = 26.0
    x = Scale(low=0, high=1, start=120, end=440)
    y = Scale(low=0, high=1, start=26 + height * len(rows), end=26)
    plot = Plot(width=510, height=height * len(rows) + 68, x=x, y=y)
    plot.horizontal_axis("Score (1 is best)")
    middles = [26 + height * (index + 0.5) for index in range(len(rows))]
    plot.row_labels([label for label, _ in rows], middles, width=18)
    for (label, value), at in zip(rows, middles, strict=True):
        if value is None:
            plot.text((x.start + 6, at + 4), "unknown", "tick")
            continue
        kind = "bar total" if label == "Weighted score" else "bar"
        plot.bar((x.start, at - 8), (x(value) - x.start, 16), kind, hint=f"{label}: {format_number(value)}")
        plot.text((x.end + 10, at + 4), format_number(value), "value")
    plot.segment((x(GATE_SCORE), 20), (x(GATE_SCORE), 26 + height * len(rows)), "gate")
    plot.text((x(GATE_SCORE), 14), f"gate {GATE_SCORE:.2f}", "tick", anchor="middle")
    told = ", ".join(f"{label} {format_number(value) if value is not None else 'unknown'}" for label, value in rows)
    return plot.render("quality", title="Data quality scores", description=f"{told}. The gate is at {GATE_SCORE:.2f}.")


def overlap(edges: Sequence[float], treated: Sequence[float], untreated: Sequence[float], *, hidden: Sequence[Sequence[bool]]) -> Markup:
    """Propensity of treated (up) and untreated (down). `hidden` marks bars of few people, drawn at a fixed small height."""
    tallest = max([*treated, *untreated], default=0.0) or 1.0
    x = Scale(low=0, high=1, start=84, end=506)
    y = Scale(low=-tallest, high=tallest, start=230, end=24)
    plot = Plot(width=520, height=282, x=x, y=y)
    plot.horizontal_axis("Propensity: probability of being treated, given the confounders")
    for sign, densities, kind, few in ((1, treated, "treated", hidden[0]), (-1, untreated, "untreated", hidden[1])):
        for low, high, density, is_hidden in zip(edges[:-1], edges[1:], densities, few, strict=True):
            if density <= 0:
                continue
            end = y(sign * (tallest * 0.02 if is_hidden else density))
            top, bottom = min(end, y(0)), max(end, y(0))
            hint = f"{kind}, propensity {format_number(low)} to {format_number(high)}"
            plot.bar((x(low) + 0.7, top), (x(high) - x(low) - 1.4, bottom - top), f"{kind} few" if is_hidden else kind, hint=hint)
    plot.segment((x.start, y(0)), (x.end, y(0)), "zero")
    plot.row_labels(["treated", "untreated"], [y(tallest / 2), y(-tallest / 2)], width=12)
    told = "Distribution of the propensity among treated (upwards) and untreated (downwards); where both have bars they can be compared."
    return plot.render("overlap", title="Propensity overlap", description=told)


def is_weighted(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether weighting changed any balance; after a lottery nobody is weighted.

    >>> is_weighted([{"smd_before": 0.1, "smd_after": 0.1}]), is_weighted([{"smd_before": 0.3, "smd_after": 0.1}])
    (False, True)
    """
    pairs = [(row["smd_before"], row["smd_after"]) for row in rows]
    return any(None not in pair and abs(pair[0] - pair[1]) > _SAME for pair in pairs)


def balance(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Absolute standardised mean differences before and after weighting, worst first (a love plot)."""
    known = [row for row in rows if row["smd_before"] is not None and row["smd_after"] is not None]
    if not known:
        return None
    known = sorted(known, key=lambda row: -max(abs(row["smd_before"]), abs(row["smd_after"])))[:_LARGEST_LIST]
    height, high = 24.0, max(0.25, *(max(abs(row["smd_before"]), abs(row["smd_after"])) * 1.08 for row in known))
    x = Scale(low=0, high=high, start=190, end=500)
    y = Scale(low=0, high=1, start=24 + height * len(known), end=24)
    plot = Plot(width=520, height=height * len(known) + 68, x=x, y=y)
    plot.horizontal_axis("Absolute standardised mean difference")
    middles = [24 + height * (index + 0.5) for index in range(len(known))]
    plot.row_labels([row["covariate"] for row in known], middles, width=26)
    plot.segment((x(BALANCE_LIMIT), 20), (x(BALANCE_LIMIT), 24 + height * len(known)), "gate")
    plot.text((x(BALANCE_LIMIT), 14), f"balanced below {BALANCE_LIMIT}", "tick", anchor="middle")
    weighted = is_weighted(known)
    for row, at in zip(known, middles, strict=True):
        before, after = abs(row["smd_before"]), abs(row["smd_after"])
        if weighted:
            plot.segment((x(before), at), (x(after), at), "link")
            plot.dot((x(before), at), "before", hint=f"{row['covariate']} before weighting: {format_number(before)}")
        plot.dot((x(after), at), "after", hint=f"{row['covariate']}{' after weighting' if weighted else ''}: {format_number(after)}")
    if not weighted:
        largest = "; ".join(f"{row['covariate']} {format_number(abs(row['smd_after']))}" for row in known[:5])
        return plot.render("balance", title="Balance of the arms", description=f"Largest: {largest}.")
    told = "; ".join(
        f"{row['covariate']} {format_number(abs(row['smd_before']))} to {format_number(abs(row['smd_after']))}" for row in known[:5]
    )
    return plot.render("balance", title="Balance of confounders before and after weighting", description=f"Largest: {told}.")


def effect(estimate: float, interval: Sequence[float], *, naive: float | None, outcome: str) -> Markup:
    """The estimate with its 95 % interval beside the plain difference of means, and zero."""
    told = [estimate, *interval, 0.0, *([] if naive is None else [naive])]
    low, high = min(told), max(told)
    room = (high - low) * 0.08 or 1.0
    x = Scale(low=low - room, high=high + room, start=170, end=540)
    rows = [("Adjusted effect", 44.0)] + ([] if naive is None else [("Plain difference", 84.0)])
    bottom = rows[-1][1] + 26
    plot = Plot(width=560, height=bottom + 44, x=x, y=Scale(low=0, high=1, start=bottom, end=18))
    plot.horizontal_axis(f"Difference in {shorten(plain_name(outcome), 40)}")
    plot.row_labels([label for label, _ in rows], [at for _, at in rows], width=24)
    plot.segment((x(0), 18), (x(0), bottom), "zero")
    plot.segment((x(interval[0]), 44), (x(interval[1]), 44), "whisker")
    for end in interval:
        plot.segment((x(end), 37), (x(end), 51), "whisker")
    plot.dot((x(estimate), 44), "after", radius=6.5, hint=format_number(estimate))
    if naive is not None:
        plot.dot((x(naive), 84), "before", radius=6.5, hint=format_number(naive))
    words = f"Adjusted effect {format_number(estimate)}, 95 % interval {format_number(interval[0])} to {format_number(interval[1])}."
    words += "" if naive is None else f" The plain difference of means is {format_number(naive)}."
    return plot.render("effect", title="Effect with its interval", description=words)


def fairness(name: str, groups: Sequence[Mapping[str, Any]], *, index: int) -> Markup:
    """Share decided positive and share of events found, by group."""
    height = 30.0
    x = Scale(low=0, high=1, start=150, end=460)
    y = Scale(low=0, high=1, start=18 + height * len(groups), end=18)
    plot = Plot(width=500, height=height * len(groups) + 62, x=x, y=y)
    plot.horizontal_axis("Share")
    middles = [18 + height * (position + 0.5) for position in range(len(groups))]
    plot.row_labels([str(group["name"]) for group in groups], middles, width=20)
    for group, at in zip(groups, middles, strict=True):
        if group["selection_rate"] is not None:
            hint = f"{group['name']}: selected {format_number(group['selection_rate'])}"
            plot.dot((x(group["selection_rate"]), at), "after", radius=6, hint=hint)
        if group["tpr"] is not None:
            plot.dot((x(group["tpr"]), at), "before", radius=6, hint=f"{group['name']}: events found {format_number(group['tpr'])}")
    told = "; ".join(
        f"{group['name']}: selected {format_number(group['selection_rate'])}" for group in groups if group["selection_rate"] is not None
    )
    return plot.render(f"fairness-{index}", title=f"Decisions by {name}", description=told)
