"""Tables in files: csv, parquet and Stata, also compressed, scanned lazily and hashed by their bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from e2i.data.csv_scan import BLOCK, inspect_csv
from e2i.data.frames import column_kind, iso_dates, pick_columns, plain_text, plain_types, reader_reason
from e2i.data.unpack import PACKED, inner_suffix, unpacked
from e2i.domain.nearest import did_you_mean
from e2i.errors import BackendRejected, LeakageFound, NotFound, SchemaMismatch, TooFewRows
from e2i.ports.data import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXT_TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT_TABLES, ".parquet", ".dta")
STREAMED = (".csv", ".parquet")
"""what can be read without being loaded"""
MISSING_TEXT = ["NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", ".", "<NA>", "NaT", "#N/A", "#NULL!", "#VALUE!", "#REF!"]
"""values of a csv file that mean missing, as in R, pandas, SQL, Stata, SAS and Excel exports; an empty value does too"""
ROLE_KEY = "e2i.role"
"""parquet metadata: `synthetic` marks a table of the pharma world, `truth` its answers, which no run may read"""


@dataclass(frozen=True, kw_only=True)
class FileTable:
    """One file. `where` is what messages call it."""

    path: Path
    where: str

    def columns(self) -> dict[str, str]:
        """Column -> kind."""
        self._check_exists()
        return {name: column_kind(dtype) for name, dtype in self.reading.rows.collect_schema().items()}

    def identity(self) -> str:
        """The hash of the file's bytes."""
        self._check_exists()
        return _file_sha256(self.path)

    def load(self, columns: Sequence[str] | None) -> Snapshot:
        """All rows of the chosen columns; the hash is of the whole file."""
        self._check_exists()
        reading = self.reading
        try:
            frame = pick_columns(reading.rows, columns, where=self.where).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self.unreadable(error) from error
        return Snapshot(frame=frame, sha256=reading.sha256, table=self.path.stem, is_synthetic=reading.is_synthetic)

    @cached_property
    def reading(self) -> _Reading:
        """The table as a plan; bytes are looked at once."""
        try:
            if self.path.suffix.lower() in PACKED:
                return self._unpacked()
            readers = {**dict.fromkeys(TEXT_TABLES, _open_csv), ".parquet": _open_parquet, ".dta": _open_stata}
            reader = readers.get(self.path.suffix.lower())
            if reader is None:
                what = f"files of type `{self.path.suffix}` cannot be read."
                advice = f"Use one of {', '.join(SUFFIXES)}; each may be packed as {', '.join(PACKED)}."
                raise SchemaMismatch(what, where=self.where, advice=advice)
            reading = reader(self)
            if reading.row_count == 0:
                raise TooFewRows("the table has columns and no rows.", where=self.where, advice="Export it again with its data rows.")
            return _Reading(
                rows=iso_dates(plain_types(reading.rows)),
                sha256=reading.sha256,
                row_count=reading.row_count,
                is_synthetic=reading.is_synthetic,
            )
        except PermissionError as error:
            raise BackendRejected("the file may not be read.", where=self.where, advice="Give this user the right to read it.") from error
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self.unreadable(error) from error

    def _unpacked(self) -> _Reading:
        """Held in memory, since the unpacked file does not last."""
        with unpacked(self.path, types=SUFFIXES, where=self.where) as path:
            reading = FileTable(path=path, where=self.where).reading
            return replace(reading, rows=reading.rows.collect(engine="streaming").lazy(), sha256=_file_sha256(self.path))

    def _check_exists(self) -> None:
        if self.path.is_dir():
            raise SchemaMismatch("this is a folder, not a file.", where=self.where, advice="Name one csv or parquet file.")
        if self.path.exists():
            return
        folder = self.path.parent
        names = [entry.name for entry in folder.iterdir() if inner_suffix(entry) in (*SUFFIXES, ".zip")] if folder.is_dir() else []
        advice = did_you_mean(self.path.name, names) or "Check `data.source`; a path is relative to the study file."
        raise NotFound("there is no such file.", where=self.where, advice=advice)

    def unreadable(self, error: Exception) -> SchemaMismatch:
        """A reader's complaint as ours."""
        kind = inner_suffix(self.path).lstrip(".")
        return SchemaMismatch(
            f"this cannot be read as {kind}: {reader_reason(error)}.", where=self.where, advice="Is the file whole? Export it again."
        )


@dataclass(frozen=True, kw_only=True)
class _Reading:
    rows: pl.LazyFrame
    sha256: str
    row_count: int | None
    is_synthetic: bool = False


def _open_csv(table: FileTable) -> _Reading:
    facts = inspect_csv(table.path, where=table.where)
    seen = pl.scan_csv(table.path, separator=facts.separator, infer_schema_length=None, null_values=MISSING_TEXT).collect_schema()
    rows = pl.scan_csv(table.path, separator=facts.separator, schema=seen, null_values=MISSING_TEXT)  # else each pass infers again
    if facts.has_blank_lines:
        rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
    return _Reading(rows=plain_text(rows, has_decimal_comma=facts.separator != ","), sha256=facts.sha256, row_count=None)


def _open_parquet(table: FileTable) -> _Reading:
    role = pl.read_parquet_metadata(table.path).get(ROLE_KEY)
    if role == "truth":
        what = "this file holds the true effects of a synthetic world; no run may read it."
        raise LeakageFound(what, where=table.where, advice="Use a table of the world, not its truth.")
    rows = pl.scan_parquet(table.path)
    count = int(rows.select(pl.len()).collect().item())
    return _Reading(rows=rows, sha256=_file_sha256(table.path), row_count=count, is_synthetic=role == "synthetic")


def _open_stata(table: FileTable) -> _Reading:
    import pandas as pd

    try:
        read = pd.read_stata(table.path)
    except ValueError as error:
        raise table.unreadable(error) from error
    for name in read.columns[[isinstance(kind, pd.CategoricalDtype) for kind in read.dtypes]]:
        read[name] = read[name].astype("string")
    frame = pl.from_pandas(read)
    whole = [name for name in frame.columns if frame[name].dtype.is_float() and _is_whole(frame[name])]
    return _Reading(rows=frame.with_columns(pl.col(whole).cast(pl.Int64)).lazy(), sha256=_file_sha256(table.path), row_count=len(read))


def _is_whole(values: pl.Series) -> bool:
    """Stata holds codes and counts as doubles."""
    known = values.fill_nan(None).drop_nulls()
    return bool(len(known) and (known.is_finite() & (known == known.round())).all())


def is_synthetic(path: Path) -> bool:
    """Whether a Parquet file says that it is a table of the pharma world."""
    return pl.read_parquet_metadata(path).get(ROLE_KEY) == "synthetic"


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
