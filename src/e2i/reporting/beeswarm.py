"""SHAP values of the most important features, one dot per row, coloured by the feature's own value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from e2i.reporting.svg import Plot, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

FloatArray = npt.NDArray[np.float64]
_FEATURES = 10
_ROWS = 500
_COLOURS = 8
_ROW_HEIGHT = 34.0
_DOT = 3.6


def beeswarm(kept: Mapping[str, npt.NDArray[np.generic]]) -> Markup:
    """Plot the arrays of an explanation's npz: `values` (n, k), `data` (n, k), `features` (k,), `ordered` (k,).

    At most ten features by mean absolute value and 500 evenly chosen rows. Dots pile up where values are frequent; a feature
    without an order, and a missing value, is grey.
    """
    values = np.asarray(kept["values"], dtype=np.float64)
    data = np.asarray(kept["data"], dtype=np.float64)
    rows = np.unique(np.linspace(0, len(values) - 1, min(_ROWS, len(values))).astype(int))
    top = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:_FEATURES]
    shown = values[np.ix_(rows, top)]
    low, high = float(np.min(shown, initial=0.0)), float(np.max(shown, initial=0.0))
    room = (high - low) * 0.04 or 1.0
    height = _ROW_HEIGHT * len(top)
    x = Scale(low=low - room, high=high + room, start=190, end=640)
    plot = Plot(width=660, height=height + 58, x=x, y=Scale(low=0, high=1, start=14 + height, end=14))
    plot.horizontal_axis("SHAP value: shift of the model's raw output")
    middles = [14 + _ROW_HEIGHT * (place + 0.5) for place in range(len(top))]
    plot.row_labels([str(kept["features"][feature]) for feature in top], middles, width=26)
    plot.segment((x(0), 14), (x(0), 14 + height), "zero")
    for feature, middle in zip(top, middles, strict=True):
        across = np.array([x(value) for value in values[rows, feature]])
        down = middle + _pile(across)
        colours = _colours(data[rows, feature]) if kept["ordered"][feature] else np.full(len(rows), -1)
        for colour in np.unique(colours):
            chosen = colours == colour
            points = list(zip(across[chosen].tolist(), down[chosen].tolist(), strict=True))
            plot.dots(points, "swarm none" if colour < 0 else f"swarm c{colour}")
    names = ", ".join(str(kept["features"][feature]) for feature in top)
    told = f"One dot per row for each of: {names}, most important first. Right of zero the feature raises the prediction."
    return plot.render("beeswarm", title="SHAP values by feature", description=told)


def _pile(across: FloatArray) -> FloatArray:
    """Vertical places, alternating around 0 within each column of pixels; squeezed where a column is too full."""
    columns = np.round(across / _DOT).astype(int)
    order = np.argsort(columns, kind="stable")
    _, first, counts = np.unique(columns[order], return_index=True, return_counts=True)
    place = np.empty(len(across))
    size = np.empty(len(across))
    place[order] = np.arange(len(across)) - np.repeat(first, counts)
    size[order] = np.repeat(counts, counts)
    alternating = np.where(place % 2 == 0, place / 2, -(place + 1) / 2)
    room = (_ROW_HEIGHT - 6) / 2
    step = np.minimum(_DOT, room / np.maximum(size / 2, 1))
    return np.asarray(alternating * step, dtype=np.float64)


def _colours(data: FloatArray) -> npt.NDArray[np.int64]:
    """Colour 0 (lowest values) to 7 (highest) by rank, -1 for missing."""
    found = np.full(len(data), -1, dtype=np.int64)
    known = np.isfinite(data)
    levels, codes = np.unique(data[known], return_inverse=True)
    if len(levels) > 1:
        # The mean rank of a value, so that two values get the two ends of the scale.
        rank = np.cumsum(np.bincount(codes)) - np.bincount(codes) / 2
        span = rank[-1] - rank[0]
        found[known] = np.minimum((rank[codes] - rank[0]) / span * _COLOURS, _COLOURS - 1).astype(np.int64)
    return found
