"""Columns of a frame as a numeric matrix, the same way every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.domain.disclosure import SMALL_CELL, counted
from e2i.errors import DataError, NotIdentified, SchemaMismatch

_RARE_SHARE = 0.01
_RARE_COUNT, _COMMON_COUNT = 10, 20
_FEW_LEVELS, _MOST_LEVELS = 30, 250
_ROWS_PER_LEVEL = 25
_MOST_CELLS = 20_000_000
_MANY_RARE = 0.30
_MISSING = "(missing)"
_RARE = "(rare)"


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """Encoded adjustment set. `sources[j]` is the frame's column behind matrix column j."""

    matrix: FloatArray
    """shape (n, k), finite, no constant and no repeated column"""
    names: tuple[str, ...]
    sources: tuple[str, ...]
    is_level: tuple[bool, ...]
    """True where the matrix column says "belongs to this level" (categories, booleans, missing)"""
    notes: tuple[str, ...]
    gaps: tuple[tuple[str, BoolArray], ...] = ()
    """matrix column's name and shape (n,), True where its value was missing; columns with ten gaps or more"""

    @property
    def singles_out_few(self) -> BoolArray:
        """Shape (k,), True for columns of two values one of which 1-10 people hold: a figure of such a column is theirs, and not told."""
        matrix = self.matrix
        if not len(matrix):
            return np.zeros(matrix.shape[1], dtype=np.bool_)
        sizes = [(matrix == end).sum(axis=0) for end in (matrix.min(axis=0), matrix.max(axis=0))]
        few: BoolArray = (sizes[0] + sizes[1] == len(matrix)) & (np.minimum(*sizes) <= SMALL_CELL)
        return few


@dataclass(frozen=True, kw_only=True)
class _Piece:
    name: str
    source: str
    values: FloatArray
    is_level: bool
    gaps: BoolArray | None = None


def encode(frame: pl.DataFrame, columns: Sequence[str]) -> Covariates:
    """Numbers as they are (median where missing, plus an indicator), categories one-hot with rare levels grouped.

    Rules: an indicator of missing values is added from 10 missing rows on; a level is rare below 1 % of rows (20 rows are always
    enough, 10 the least), or beyond the 30 most frequent (up to 250 where there are 25 rows for each); the most frequent level
    is the reference; levels are ordered by frequency, then by name. Dates count as days. Constant and repeated columns are left out,
    and `notes` says so.

    Raises
    ------
    NotIdentified
        A column has no values: it is named as needed for adjustment and was not measured.
    SchemaMismatch
        A column's type cannot be encoded, or it has too many levels to tell apart.
    DataError
        A column holds infinite values.
    """
    pieces: list[_Piece] = []
    notes: list[str] = []
    for column in columns:
        series = frame[column]
        if series.null_count() == len(series) or (series.dtype.is_float() and series.is_nan().fill_null(True).all()):
            raise NotIdentified(
                f"confounder `{column}` has no values.", where=f"column {column}", advice="Fill the column or take it out of `confounders`."
            )
        pieces += _encode_column(series, notes)
    kept = _without_constant_and_repeated(pieces, notes)
    matrix = np.column_stack([piece.values for piece in kept]) if kept else np.empty((frame.height, 0))
    return Covariates(
        matrix=matrix,
        names=tuple(piece.name for piece in kept),
        sources=tuple(piece.source for piece in kept),
        is_level=tuple(piece.is_level for piece in kept),
        notes=tuple(notes),
        gaps=tuple((piece.name, piece.gaps) for piece in kept if piece.gaps is not None),
    )


def numeric(series: pl.Series) -> FloatArray:
    """A number, boolean or date column as floats with NaN for missing; dates as days since 1970.

    Raises SchemaMismatch for any other type, DataError for infinite values.
    """
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        values = series.cast(pl.Float64).to_numpy().astype(np.float64)
    elif series.dtype in (pl.Date, pl.Datetime):
        values = series.cast(pl.Date).cast(pl.Int32).cast(pl.Float64).to_numpy().astype(np.float64)
    else:
        raise SchemaMismatch(
            f"column `{series.name}` is {series.dtype}, a number is needed.",
            where=f"column {series.name}",
            advice="Convert it to a number, a boolean or a date.",
        )
    if np.isinf(values).any():
        raise DataError(
            f"column `{series.name}` holds infinite values.",
            where=f"column {series.name}",
            advice="Replace them by missing values or correct them.",
        )
    return values


def _encode_column(series: pl.Series, notes: list[str]) -> list[_Piece]:
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        return _encode_levels(series.cast(pl.String), notes)
    values = numeric(series)
    missing = np.isnan(values)
    pieces = [_Piece(name=series.name, source=series.name, values=values, is_level=series.dtype == pl.Boolean)]
    if missing.any():
        pieces[0] = _Piece(
            name=series.name,
            source=series.name,
            values=np.where(missing, np.median(values[~missing]), values),
            is_level=False,
            gaps=missing if missing.sum() >= _RARE_COUNT else None,
        )
        notes.append(f"`{series.name}`: {counted(int(missing.sum()), 'missing values')} set to the median")
        if missing.sum() >= _RARE_COUNT:
            pieces.append(_Piece(name=f"{series.name} missing", source=series.name, values=missing.astype(np.float64), is_level=True))
    return pieces


def _encode_levels(series: pl.Series, notes: list[str]) -> list[_Piece]:
    values = series.fill_null(_MISSING).to_numpy().astype(str)
    levels, counts = np.unique(values, return_counts=True)
    order = np.lexsort((levels, -counts))
    levels, counts = levels[order], counts[order]
    floor = max(min(_RARE_SHARE * len(values), _COMMON_COUNT), _RARE_COUNT)
    most = max(_FEW_LEVELS, min(_MOST_LEVELS, len(values) // _ROWS_PER_LEVEL, _MOST_CELLS // len(values)))
    frequent = [str(level) for level, count in zip(levels, counts, strict=True) if count >= floor][:most]
    if not frequent and len(levels) > 1:
        raise SchemaMismatch(
            f"column `{series.name}` has {len(levels)} levels, none held by at least {int(np.ceil(floor))} rows.",
            where=f"column {series.name}",
            advice="Group its levels (region instead of ZIP), or take it out of `confounders` if it is an identifier.",
        )
    rare = ~np.isin(values, frequent)
    if rare.mean() > _MANY_RARE:
        notes.append(f"`{series.name}`: {rare.mean():.0%} of rows fall into {len(levels) - len(frequent)} rare levels, treated as one")
    grouped = np.where(rare, _RARE, values)
    kept = [*frequent[1:], *([_RARE] if rare.any() else [])]
    return [
        _Piece(name=f"{series.name}={level}", source=series.name, values=(grouped == level).astype(np.float64), is_level=True)
        for level in kept
    ]


def _without_constant_and_repeated(pieces: list[_Piece], notes: list[str]) -> list[_Piece]:
    kept: list[_Piece] = []
    seen: dict[bytes, str] = {}
    for piece in pieces:
        spread = piece.values.std()
        if spread <= 1e-14 * float(np.abs(piece.values).max()):
            notes.append(f"`{piece.name}` is constant and was left out")
            continue
        key = np.round((piece.values - piece.values.mean()) / spread, 9).tobytes()
        if key in seen:
            notes.append(f"`{piece.name}` repeats `{seen[key]}` and was left out")
            continue
        seen[key] = piece.name
        kept.append(piece)
    return kept
