"""Periods in text, or as 202401, as dates, so that tables of months and quarters can be planned with like those of days."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from e2i.causal.panel.periods import DAY_ORDERS, read_moments


def dated(series: pl.Series) -> pl.Series:
    """First days of months, quarters and weeks, and days themselves, as dates; counted periods (M1, M2) and numbers as numbers.

    Dates, times and plain numbers come back as they are.

    Raises
    ------
    SchemaMismatch, DataError
        See `read_moments`: text whose order is not sure.

    Examples
    --------
    >>> dated(pl.Series("q", ["2024Q1", "2024Q2"])).to_list()
    [datetime.date(2024, 1, 1), datetime.date(2024, 4, 1)]
    """
    if series.dtype.is_temporal():
        return series
    found = read_moments(series)
    if found.form == "number" and series.dtype.is_numeric():
        return series
    first = _FIRST_DAYS.get("date" if found.form in DAY_ORDERS else found.form)
    if first is None:
        return pl.Series(series.name, found.values).fill_nan(None)
    moments = {value: first(int(np.floor(value))) for value in np.unique(found.values[~np.isnan(found.values)]).tolist()}
    days = [moments.get(value) for value in found.values.tolist()]
    return pl.Series(series.name, days, dtype=pl.Date)


def _month(count: int) -> date:
    return date((count - 1) // 12, (count - 1) % 12 + 1, 1)


def _quarter(count: int) -> date:
    return date((count - 1) // 4, (count - 1) % 4 * 3 + 1, 1)


def _week(count: int) -> date:
    return date.fromordinal(7 * count + 1)


def _day(count: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + count)


_FIRST_DAYS = {"month": _month, "quarter": _quarter, "week": _week, "date": _day}
