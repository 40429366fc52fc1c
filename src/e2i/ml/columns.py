"""What kind of column a feature is, and how its values become numbers or levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from e2i.domain.nearest import suggestion
from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from e2i.domain.experiments import ProblemType

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.str_]

ColumnKind = Literal["numeric", "boolean", "date", "categorical"]
MISSING_LEVEL = "(missing)"
_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """A feature column as the model knows it."""

    name: str
    kind: ColumnKind


def require_columns(frame: pl.DataFrame, names: Iterable[str], *, where: str) -> None:
    """Raise SchemaMismatch, with the nearest existing name, when `frame` lacks one of `names`."""
    known = set(frame.columns)
    for name in names:
        if name not in known:
            raise SchemaMismatch(f"column '{name}' is missing.", where=where, advice=suggestion(name, frame.columns))


def kind_of(dtype: pl.DataType, name: str) -> ColumnKind:
    """The kind of a polars type. Raises SchemaMismatch for types that cannot be a feature (lists, structs, times)."""
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_numeric() or dtype == pl.Null:
        return "numeric"
    if dtype in (pl.Date, pl.Datetime):
        return "date"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "categorical"
    raise SchemaMismatch(
        f"column '{name}' has type {dtype}, which cannot be a feature.",
        where=name,
        advice="Exclude it, or turn it into numbers, a date or a category.",
    )


def infer_columns(frame: pl.DataFrame, features: Sequence[str]) -> tuple[ColumnSpec, ...]:
    """Specs of `features`, in that order. Raises SchemaMismatch."""
    require_columns(frame, features, where="features")
    return tuple(ColumnSpec(name=name, kind=kind_of(frame.schema[name], name)) for name in features)


def as_float(series: pl.Series) -> FloatArray:
    """Numbers, booleans (0/1) and dates (days since 1970) as float64; null becomes NaN.

    Returns
    -------
    shape (n,)
    """
    if series.dtype == pl.Date:
        series = series.cast(pl.Int32)
    elif series.dtype == pl.Datetime:
        return as_float(series.dt.epoch("s")) / _SECONDS_PER_DAY
    return series.cast(pl.Float64).to_numpy().astype(np.float64, copy=False)


def level_codes(series: pl.Series) -> tuple[IntArray, int]:
    """Dense codes 0 to k - 1 of the levels of any column, null as a level of its own; and k."""
    codes = series.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    _, dense = np.unique(codes, return_inverse=True)
    return dense.astype(np.int64), int(dense.max(initial=-1)) + 1


def target_values(series: pl.Series, problem_type: ProblemType) -> FloatArray:
    """The target as float64; 0 or 1 for a binary problem.

    Raises
    ------
    SchemaMismatch
        Nulls, values that are not finite, text, or a binary target other than 0/1 or true/false.
    """
    name = series.name
    if series.null_count():
        raise SchemaMismatch(
            f"{series.null_count()} rows have no target.", where=name, advice="Remove the rows whose outcome is not known."
        )
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        advice = "Recode it to 1 (the event) and 0." if problem_type == "binary_classification" else "Recode it to numbers."
        raise SchemaMismatch(f"the target has type {series.dtype}.", where=name, advice=advice)
    values = as_float(series)
    if not np.isfinite(values).all():
        raise SchemaMismatch("the target has values that are not finite.", where=name, advice="Remove or correct these rows.")
    if problem_type == "binary_classification" and not np.isin(values, (0.0, 1.0)).all():
        raise SchemaMismatch(
            "the target of a binary problem has values other than 0 and 1.",
            where=name,
            advice="Recode it to 1 (the event) and 0, or set problem_type: regression.",
        )
    return values
