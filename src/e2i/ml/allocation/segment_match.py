"""Which measured segment an entity belongs to: its level, or the group of values that holds its number or date."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.disclosure import counted
from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.ml.allocation.curves import FloatArray
    from e2i.ml.columns import IntArray

MISSING, OTHER = "(missing)", "(other levels)"
NEAR = 0.05
"""share of the measured range by which a value may lie outside of its group"""


def match(series: pl.Series, segments: Sequence[str]) -> tuple[IntArray, tuple[str, ...]]:
    """Place of every row's segment in `segments`, shape (n,), and what has to be said of it.

    A text is its own segment, or one of the other levels. A number or a date belongs to the group `from to` that holds it; one that
    lies between two groups, or a little outside of all, to the nearest.

    Raises SchemaMismatch where a row has no segment with an effect.
    """
    series = series.fill_nan(None) if series.dtype.is_float() else series
    known = {name: place for place, name in enumerate(segments)}
    places = np.array([known.get(text, -1) for text in _texts(series)], dtype=np.int64)
    missing = series.is_null().to_numpy()
    notes = []
    ends = _ends(segments) if series.dtype.is_numeric() or series.dtype in (pl.Date, pl.Datetime) else None
    if ends is not None and len(ends[0]):
        rows = np.flatnonzero((places < 0) & ~missing)
        places[rows], distance = _nearest(_values(series)[rows], ends)
        places[rows[distance > NEAR * float(ends[1].max() - ends[0].min())]] = -1
        near = int(((distance > 0) & (places[rows] >= 0)).sum())
        words = f"between or outside the measured groups of {series.name}; the nearest group's effect was used"
        notes += [f"{counted(near, 'entities')} lie {words}."] if near else []
    elif OTHER in known:
        rows = np.flatnonzero((places < 0) & ~missing)
        places[rows] = known[OTHER]
        notes += [f"{counted(len(rows), 'entities')} have the effect of the {series.name}s that were rare."] if len(rows) else []
    if np.any(places < 0):
        raise SchemaMismatch(
            f"there is no measured effect for {series.name} = `{_texts(series)[int(np.argmax(places < 0))]}`.",
            where="allocation.response",
            advice=f"Segments with an effect: {', '.join(known) or 'none'}. Leave the others out of the table, or give coefficients.",
        )
    return places, tuple(notes)


def _texts(series: pl.Series) -> list[str]:
    """As segments are named: numbers in four digits."""
    if series.dtype.is_numeric():
        return [MISSING if value is None else f"{value:.4g}" for value in series.to_list()]
    return [str(text) for text in series.cast(pl.String).fill_null(MISSING)]


def _values(series: pl.Series) -> FloatArray:
    if series.dtype.is_numeric():  # as far as names of groups tell them
        return np.array([np.nan if value is None else float(f"{value:.4g}") for value in series.to_list()])
    return series.cast(pl.Date).cast(pl.Int32).cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _ends(segments: Sequence[str]) -> tuple[FloatArray, FloatArray, IntArray] | None:
    """Lower and upper end of every group and its place; None where a name is neither a number, a date nor a range of them."""
    found = []
    for place, name in enumerate(segments):
        if name in (MISSING, OTHER):
            continue
        parts = [_number(text) for text in name.split(" to ")]
        if None in parts or len(parts) > 2:
            return None
        found.append((parts[0], parts[-1], place))
    table = np.array(found, dtype=float).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2].astype(np.int64)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal())
    except ValueError:
        return None


def _nearest(values: FloatArray, ends: tuple[FloatArray, FloatArray, IntArray]) -> tuple[IntArray, FloatArray]:
    low, high, places = ends
    away = np.maximum(np.maximum(low[None, :] - values[:, None], values[:, None] - high[None, :]), 0.0)
    best = np.argmin(away, axis=1)
    return places[best], away[np.arange(len(values)), best]
