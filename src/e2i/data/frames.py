"""What every source does to a frame: one meaning of missing, plain types, kinds of columns, a content hash."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.nearest import check_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def column_kind(dtype: pl.DataType) -> str:
    """One of `boolean`, `integer`, `number`, `text`, `date`, `datetime`, `other`.

    >>> column_kind(pl.Float64())
    'number'
    """
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype == pl.Date:
        return "date"
    return "datetime" if isinstance(dtype, pl.Datetime) else "other"


_CELL = re.compile(r" for (?!type\b)|: [\"'\[]| with value |\b(?:string|value) [\"'`]")
"""where the values of cells begin in a reader's complaint"""


def reader_reason(error: Exception) -> str:
    """The first line of a complaint by Polars, DuckDB or PostgreSQL, up to the first value or count of cells.

    >>> reader_reason(ValueError("conversion failed in column 't' for 3 out of 3 values: ['a']"))
    "conversion failed in column 't'"
    >>> reader_reason(ValueError('invalid input syntax for type integer: "Ann"'))
    'invalid input syntax for type integer'
    """
    text = re.sub(r"could not parse `.*` as", "could not parse a value as", str(error).strip(), flags=re.DOTALL)
    told = _CELL.split(text, maxsplit=1)[0].splitlines() or [""]
    return told[0].strip().rstrip(".") or type(error).__name__


def plain_types(rows: pl.LazyFrame) -> pl.LazyFrame:
    """NaN becomes missing, decimals become numbers, categories become text; infinite values stay for the quality gate."""
    casts = []
    for name, dtype in rows.collect_schema().items():
        if dtype.is_float():
            casts.append(pl.col(name).cast(pl.Float64).fill_nan(None))
        elif isinstance(dtype, pl.Decimal):
            casts.append(pl.col(name).cast(pl.Float64))
        elif dtype in (pl.Categorical, pl.Enum):
            casts.append(pl.col(name).cast(pl.String))
    return rows.with_columns(casts) if casts else rows


def _as_date(name: str) -> pl.Expr:
    return pl.col(name).str.to_date("%Y-%m-%d", strict=False)


def _as_time(name: str) -> pl.Expr:
    text = pl.col(name).str.replace("T", " ", literal=True)
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)


def _as_zoned_time(name: str) -> pl.Expr:
    text = pl.col(name).str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00").str.replace(r"([+-]\d{2})$", "${1}:00")
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)


ISO_FORMS: tuple[tuple[str, Callable[[str], pl.Expr]], ...] = (
    (r"^\d{4}-\d{2}-\d{2}$", _as_date),
    (r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?$", _as_time),
    (r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}(:?\d{2})?)$", _as_zoned_time),
)


def iso_dates(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Text columns whose every value is a real ISO date, or date and time, become dates; other text stays text."""
    texts = [name for name, dtype in rows.collect_schema().items() if dtype == pl.String]
    tests = [
        ((_is_form(name, pattern)).all() & pl.col(name).is_not_null().any()).alias(f"{place}:{name}")
        for name in texts
        for place, (pattern, _) in enumerate(ISO_FORMS)
    ]
    if not tests:
        return rows
    shaped = rows.select(tests).collect(engine="streaming").row(0, named=True)
    candidates = {name: parse(name) for name in texts for place, (_, parse) in enumerate(ISO_FORMS) if shaped[f"{place}:{name}"]}
    if not candidates:
        return rows
    real = rows.select((parsed.is_null() == pl.col(name).is_null()).all().alias(name) for name, parsed in candidates.items())
    verdict = real.collect(engine="streaming").row(0, named=True)
    return rows.with_columns(parsed.alias(name) for name, parsed in candidates.items() if verdict[name])


_TRUTHS = ("TRUE", "True", "true", "FALSE", "False", "false")


def plain_text(rows: pl.LazyFrame, *, has_decimal_comma: bool) -> pl.LazyFrame:
    """Text columns of a csv that are TRUE and FALSE become booleans, and numbers with a decimal comma become numbers.

    `has_decimal_comma` allows the comma: the file separates values by something else. Where every comma has three digits behind it, it
    may part thousands instead, and the column stays text. Among numbers, blanks and a lone sign mean missing.
    """
    texts = [name for name, dtype in rows.collect_schema().items() if dtype == pl.String]
    if not texts:
        return rows
    tests = [pl.col(name).is_in(_TRUTHS).all().alias(f"truth:{name}") for name in texts]
    tests += [pl.col(name).is_not_null().any().alias(f"known:{name}") for name in texts]
    for name in texts if has_decimal_comma else ():
        text = pl.col(name).str.strip_chars()
        tests.append(text.str.contains(r"^[-+]?(\d+(,\d+)?|,\d+)?$").all().alias(f"number:{name}"))
        tests.append((text.str.contains(",", literal=True) & ~text.str.contains(r",\d{3}$")).any().alias(f"comma:{name}"))
    seen = rows.select(tests).collect(engine="streaming").row(0, named=True)
    casts = []
    for name in texts:
        if seen[f"known:{name}"] and seen[f"truth:{name}"]:
            casts.append(pl.col(name).str.to_lowercase() == "true")
        elif has_decimal_comma and seen[f"number:{name}"] and seen[f"comma:{name}"]:
            casts.append(pl.col(name).str.strip_chars().str.replace(",", ".", literal=True).cast(pl.Float64, strict=False))
    return rows.with_columns(casts) if casts else rows


def _is_form(name: str, pattern: str) -> pl.Expr:
    return pl.col(name).is_null() | pl.col(name).str.contains(pattern)


def pick_columns(rows: pl.LazyFrame, columns: Sequence[str] | None, *, where: str) -> pl.LazyFrame:
    """Only `columns`, in the order asked. Raises SchemaMismatch with the nearest name for one that is not there."""
    if columns is None:
        return rows
    check_columns(columns, rows.collect_schema().names(), where=where)
    return rows.select(columns)


def frame_sha256(frame: pl.DataFrame) -> str:
    """Hash of names, types, missing values and values in row order; independent of chunks, files and versions.

    >>> frame_sha256(pl.DataFrame({"a": [1, None]})) == frame_sha256(pl.DataFrame({"a": [1, 0]}))
    False
    """
    digest = hashlib.sha256()
    for column in frame.iter_columns():
        digest.update(json.dumps([column.name, str(column.dtype), column.len()]).encode())
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        digest.update(_value_bytes(column))
    return digest.hexdigest()


def _value_bytes(column: pl.Series) -> bytes:
    if column.dtype == pl.Boolean:
        return column.fill_null(value=False).cast(pl.UInt8).to_numpy().tobytes()
    physical = column.to_physical()
    if physical.dtype.is_float():
        return (physical.fill_null(0.0).to_numpy() + 0.0).tobytes()  # one zero: -0.0 equals 0.0
    if physical.dtype.is_integer() and physical.dtype not in (pl.Int128, pl.UInt128):
        return physical.fill_null(0).to_numpy().tobytes()
    text = column.cast(pl.String) if not column.dtype.is_nested() else pl.Series(map(repr, column.to_list()), dtype=pl.String)
    text = text.fill_null("")
    joined = text.str.join("").item() if text.len() else ""
    return text.str.len_bytes().to_numpy().tobytes() + joined.encode()
