"""Identifiers that are most likely one, written in two ways."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl


def plain_names(names: pl.Series) -> pl.Series:
    """Names without case, blanks, leading zeros and a trailing ".0", in their order.

    >>> plain_names(pl.Series(["H1", " h1", "012", "12.0"])).to_list()
    ['h1', 'h1', '12', '12']
    """
    return names.cast(pl.String).str.to_lowercase().str.replace_all(r"\s", "").str.replace(r"\.0+$", "").str.replace(r"^0+(\d)", "${1}")


def spelled_alike(names: Iterable[str]) -> int:
    """How many distinct names differ from another in case, blanks and zeros alone.

    >>> spelled_alike(["H1", " h1", "12", "12.0", "H2"])
    4
    """
    given = pl.Series("name", list(set(names)), dtype=pl.String)
    return int(plain_names(given).is_duplicated().sum())
