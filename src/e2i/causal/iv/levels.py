"""A column for every level of a category: an instrument is often as good as random only within its region or its clinic."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from e2i.causal.design import Identification

MOST_CELLS = 60_000_000
"""rows times level columns that are held in memory"""
_TEXT = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The question with its categories spread over 0/1 columns."""

    frame: pl.DataFrame
    identification: Identification
    columns: int
    """level columns that were made"""
    too_large: tuple[str, ...] = ()
    """categories whose levels do not fit into memory: `encoding.encode` treats their rare levels as one"""


def every_level(frame: pl.DataFrame, identification: Identification) -> Spread:
    """Confounders that are categories as 0/1 columns, one per level but the most frequent; missing is a level of its own.

    Other designs treat rare levels as one. A linear estimator needs no such economy, and an instrument assigned within levels does not
    allow it.
    """
    made: list[pl.Series] = []
    names: list[str] = []
    too_large: list[str] = []
    for column in identification.adjustment:
        if frame[column].dtype not in _TEXT or frame[column].null_count() == frame.height:
            names.append(column)
            continue
        values = frame.select(pl.col(column).cast(pl.String).fill_null("(missing)"))[column]
        levels = values.value_counts().sort(["count", column], descending=[True, False])[column].to_list()[1:]
        if (len(made) + len(levels)) * frame.height > MOST_CELLS:
            names.append(column)
            too_large.append(column)
            continue
        fresh = [(values == level).alias(f"{column}={level}") for level in levels]
        made += fresh
        names += [series.name for series in fresh]
    spread = replace(identification, adjustment=tuple(dict.fromkeys(names)))
    return Spread(frame=frame.with_columns(*made), identification=spread, columns=len(made), too_large=tuple(too_large))
