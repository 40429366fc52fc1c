"""Modifiers as people look at them: levels, and quantile groups of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.encoding import numeric

MISSING, OTHER = "(missing)", "(other levels)"
_MOST_LEVELS = 30
_FEW_VALUES = 5


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """A partition of n rows by one modifier."""

    modifier: str
    labels: tuple[str, ...]
    codes: IntArray
    """shape (n,), place in `labels`"""


def group(series: pl.Series, *, groups: int | None = None) -> Grouping:
    """Levels as they are (beyond the 30 most frequent as one), numbers with more than 5 values in 3-5 quantile groups.

    Parameters
    ----------
    groups : quantile groups; default 3 below 1,000 rows, 4 below 5,000, else 5

    Raises
    ------
    SchemaMismatch, DataError
        The column's type is neither a number, a date nor a text, or it holds infinite values.
    """
    if series.dtype in (pl.String, pl.Categorical, pl.Enum) or series.dtype == pl.Boolean:
        return _levels(series.name, series.cast(pl.String).fill_null(MISSING).to_numpy().astype(str))
    values = numeric(series)
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) <= _FEW_VALUES:
        texts = np.full(len(values), MISSING, dtype=object)
        texts[~np.isnan(values)] = [_text(value, series.dtype) for value in known]
        return _levels(series.name, texts.astype(str))
    count = groups or (3 if len(values) < 1_000 else 4 if len(values) < 5_000 else 5)
    cuts = np.unique(np.quantile(known, np.linspace(0.0, 1.0, count + 1)[1:-1], method="lower"))
    codes = np.searchsorted(cuts, values, side="left")
    labels = []
    for place in range(len(cuts) + 1):
        inside = known[np.searchsorted(cuts, known, side="left") == place]
        ends = [_text(value, series.dtype) for value in (inside.min(), inside.max())] if len(inside) else [""]
        labels.append(" to ".join(dict.fromkeys(ends)))
    if np.isnan(values).any():
        codes[np.isnan(values)] = len(labels)
        labels.append(MISSING)
    used = np.array([place for place, label in enumerate(labels) if label])
    return Grouping(modifier=series.name, labels=tuple(labels[p] for p in used), codes=np.searchsorted(used, codes).astype(np.int64))


def cuts_of(values: FloatArray, *, most: int) -> FloatArray:
    """Thresholds between values at quantiles; NaN is left out."""
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) < 2:
        return np.empty(0)
    if len(distinct) <= most + 1:
        return distinct[:-1]
    return np.setdiff1d(np.unique(np.quantile(known, np.linspace(0.0, 1.0, most + 2)[1:-1], method="lower")), distinct[-1:])


def _levels(name: str, texts: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Grouping:
    levels, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    if len(levels) <= _MOST_LEVELS:
        return Grouping(modifier=name, labels=tuple(map(str, levels)), codes=codes.astype(np.int64))
    kept = np.sort(np.lexsort((levels, -counts))[:_MOST_LEVELS])
    place = np.full(len(levels), len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    return Grouping(modifier=name, labels=(*map(str, levels[kept]), OTHER), codes=place[codes])


def _text(value: float, dtype: pl.DataType) -> str:
    return str(date(1970, 1, 1) + timedelta(days=int(value))) if dtype in (pl.Date, pl.Datetime) else f"{value:.4g}"
