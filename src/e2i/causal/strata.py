"""Rows among which chance assigned: strata, blocks and pairs."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.arrays import IntArray
from e2i.domain.disclosure import counted
from e2i.errors import SchemaMismatch


def strata_of(frame: pl.DataFrame, columns: tuple[str, ...]) -> IntArray | None:
    """Number of each row's combination of levels, shape (n,); None where no column is named.

    Raises
    ------
    SchemaMismatch
        A level is missing.
    """
    if not columns:
        return None
    for name in columns:
        series = frame[name]
        missing = series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)
        if missing:
            raise SchemaMismatch(
                f"`{name}` is missing in {counted(missing, 'rows')}, so it is unknown within which stratum chance assigned them.",
                where=f"column {name}",
                advice="Fill it, or leave those rows out.",
            )
    codes = frame.select(pl.col(name).cast(pl.String).rank("dense") for name in columns).to_numpy()
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel().astype(np.int64)
