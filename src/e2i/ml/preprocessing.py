"""From a frame to the matrix a model is fitted on; what is learned, is learned from train alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from e2i.errors import DataError, SchemaMismatch
from e2i.ml.columns import MISSING_LEVEL, ColumnSpec, FloatArray, as_float, require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

MAXIMUM_LEVELS = 30
RARE_SHARE = 0.005
RARE_ROWS = 10


def to_table(frame: pl.DataFrame, columns: Sequence[ColumnSpec]) -> pl.DataFrame:
    """The columns of `columns`, in that order, as float64 (numbers, booleans, days since 1970) or text (levels, null included).

    Raises
    ------
    SchemaMismatch
        A column is missing (the nearest name is offered) or has a type that its kind cannot take.
    DataError
        A number is infinite.
    """
    require_columns(frame, [column.name for column in columns], where="model input")
    return pl.DataFrame([_convert(frame[column.name], column) for column in columns])


def _convert(series: pl.Series, column: ColumnSpec) -> pl.Series:
    if column.kind == "categorical":
        if series.dtype.is_float() or series.dtype.is_nested() or series.dtype.is_temporal():
            raise _wrong_type(series, column)
        return series.cast(pl.String).fill_null(MISSING_LEVEL)
    fits = series.dtype == pl.Null or (
        series.dtype in (pl.Date, pl.Datetime) if column.kind == "date" else series.dtype.is_numeric() or series.dtype == pl.Boolean
    )
    if not fits:
        raise _wrong_type(series, column)
    values = as_float(series)
    if np.isinf(values).any():
        raise DataError(
            f"{int(np.isinf(values).sum())} values are infinite.",
            where=f"column '{column.name}'",
            advice="Correct them, or make them missing.",
        )
    return pl.Series(column.name, values)


def _wrong_type(series: pl.Series, column: ColumnSpec) -> SchemaMismatch:
    return SchemaMismatch(
        f"column '{column.name}' has type {series.dtype}; the model was fitted on a {column.kind} column.",
        where="model input",
        advice="Cast it to the type it had in training.",
    )


def fit_preprocessor(frame: pl.DataFrame, columns: Sequence[ColumnSpec], *, scale: bool) -> tuple[Any, FloatArray]:
    """A fitted scikit-learn ColumnTransformer, and the matrix of `frame` itself.

    Numbers: median in place of missing values plus a missing indicator, and with `scale` mean 0 and standard deviation 1.
    Categories: one column per level; levels below 0.5 % (or 10 rows), beyond the 30 most frequent, or never seen are pooled.

    Returns
    -------
    transformer, and an array of shape (n, k)
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [column.name for column in columns if column.kind != "categorical"]
    categories = [column.name for column in columns if column.kind == "categorical"]
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    encoder = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=max(RARE_ROWS, round(RARE_SHARE * frame.height)),
        max_categories=MAXIMUM_LEVELS,
        sparse_output=False,
    )
    parts: list[tuple[str, Any, list[str]]] = []
    if numbers:
        parts.append(("numbers", make_pipeline(imputer, StandardScaler()) if scale else imputer, numbers))
    if categories:
        parts.append(("categories", encoder, categories))
    transformer = ColumnTransformer(parts, sparse_threshold=0.0)
    matrix = transformer.fit_transform(to_table(frame, columns))
    return transformer, np.ascontiguousarray(matrix, dtype=np.float64)


def apply_preprocessor(transformer: Any, frame: pl.DataFrame, columns: Sequence[ColumnSpec]) -> FloatArray:
    """The matrix of `frame`, shape (n, k), by a transformer of `fit_preprocessor`. Raises SchemaMismatch and DataError."""
    return np.ascontiguousarray(transformer.transform(to_table(frame, columns)), dtype=np.float64)


def output_columns(transformer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the matrix' columns, and for each the input column that it comes from.

    `age`, `age (missing)`, `specialty=cardiology`, `specialty (rare)`.
    """
    names: list[str] = []
    sources: list[str] = []
    for part, fitted, inputs in transformer.transformers_:
        if part == "numbers":
            imputer = fitted[0] if hasattr(fitted, "steps") else fitted
            flagged = [inputs[index] for index in imputer.indicator_.features_]
            names += [*inputs, *(f"{name} (missing)" for name in flagged)]
            sources += [*inputs, *flagged]
        elif part == "categories":
            for name, levels, rare in zip(inputs, fitted.categories_, fitted.infrequent_categories_, strict=True):
                frequent = [level for level in levels if rare is None or level not in set(rare)]
                outputs = [f"{name}={level}" for level in frequent] + ([f"{name} (rare)"] if rare is not None else [])
                names += outputs
                sources += [name] * len(outputs)
    return tuple(names), tuple(sources)
