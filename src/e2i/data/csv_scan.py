"""A look at a csv file's bytes before it is parsed: hash, encoding, header, and rows that do not fit the header.

Polars fills short rows with missing values and renames repeated columns without a word; a study must not rest on that.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import SchemaMismatch, TooFewRows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 1 << 20
SEPARATORS = ",;\t|"


@dataclass(frozen=True, kw_only=True)
class CsvFacts:
    """What the bytes say. `header` holds the column names."""

    sha256: str
    separator: str
    header: tuple[str, ...]
    has_blank_lines: bool


@dataclass(frozen=True, kw_only=True)
class _Bytes:
    sha256: str
    has_quotes: bool


def inspect_csv(path: Path, *, where: str) -> CsvFacts:
    """Read the bytes once or twice, in blocks.

    Raises
    ------
    TooFewRows
        The file is empty, or holds a header and nothing else.
    SchemaMismatch
        Not UTF-8 text, a repeated or empty column name, or a row with more or fewer values than the header (the line is named).
    """
    content = _hash_text(path, where=where)
    with path.open(encoding="utf-8-sig", newline="") as text:
        first = text.readline()
        separator = max(SEPARATORS, key=first.count)
        text.seek(0)
        reader = csv.reader(text, delimiter=separator)
        header = tuple(next(reader))
        header_lines = reader.line_num
    _check_header(header, where=where)
    shape = _quoted_rows(path, separator) if content.has_quotes else _plain_rows(path, separator)
    return CsvFacts(
        sha256=content.sha256, separator=separator, header=header, has_blank_lines=_check_rows(shape, header, header_lines, where=where)
    )


def _hash_text(path: Path, *, where: str) -> _Bytes:
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    has_quotes = is_blank = False
    with path.open("rb") as file:
        is_blank = True
        while block := file.read(BLOCK):
            digest.update(block)
            has_quotes = has_quotes or b'"' in block
            is_blank = is_blank and not block.strip()
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                _refuse_bytes(path, where=where)
            if b"\0" in block:
                _refuse_bytes(path, where=where)
    if is_blank:
        raise TooFewRows("the file is empty.", where=where, advice="Export it again with a header line and data rows.")
    return _Bytes(sha256=digest.hexdigest(), has_quotes=has_quotes)


def _refuse_bytes(path: Path, *, where: str) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                what = f"byte {line[error.start : error.start + 1].hex()} at position {error.start + 1} of the line is not UTF-8 text."
                raise SchemaMismatch(what, where=f"{where}:{number}", advice="Save the file as UTF-8.") from error
            if b"\0" in line:
                break
    raise SchemaMismatch("this is not a text file (it holds zero bytes).", where=where, advice="Save it as UTF-8 csv, or as parquet.")


def _check_header(header: tuple[str, ...], *, where: str) -> None:
    problems = [f"column {place} has no name" for place, name in enumerate(header, start=1) if not name.strip()]
    problems += [f"column name `{name}` appears {count} times" for name, count in Counter(header).items() if count > 1 and name.strip()]
    if problems:
        advice = "Give every column its own name in the header line."
        if not header[0].strip():
            advice += " A first column without a name is often a row number: pandas writes it unless index=False."
        raise SchemaMismatch(f"{'; '.join(problems)}.", where=f"{where}:1", advice=advice)


def _plain_rows(path: Path, separator: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """First line number, values per line, and line lengths of each block; only for files without quotes."""
    line, rest = 1, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if not newline:
                continue
            yield line, *_count(whole + newline, separator)
            line += whole.count(b"\n") + 1
    if rest:
        yield line, *_count(rest + b"\n", separator)


def _count(lines: bytes, separator: str) -> tuple[np.ndarray, np.ndarray]:
    codes = np.frombuffer(lines.replace(b"\r\n", b"\n"), dtype=np.uint8)
    ends = np.flatnonzero(codes == ord("\n"))
    separators = np.cumsum(codes == ord(separator))[ends]
    return np.diff(separators, prepend=0) + 1, np.diff(ends, prepend=-1) - 1


def _quoted_rows(path: Path, separator: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=separator)
        line = 1
        for row in reader:
            yield line, np.array([max(len(row), 1)]), np.array([len(row)])
            line = reader.line_num + 1


def _check_rows(shape: Iterator[tuple[int, np.ndarray, np.ndarray]], header: tuple[str, ...], header_lines: int, *, where: str) -> bool:
    rows, has_blank = 0, False
    for first, values, lengths in shape:
        blank = (lengths == 0) & (len(header) > 1)
        has_blank = has_blank or bool(blank.any())
        rows += int((~blank).sum())
        wrong = np.flatnonzero((values != len(header)) & ~blank)
        if wrong.size:
            found = int(values[wrong[0]])
            what = f"this row has {found} values; the header names {len(header)} columns."
            advice = "Put text that holds the separator in double quotes, or mend the row."
            raise SchemaMismatch(what, where=f"{where}:{first + int(wrong[0])}", advice=advice)
    if rows <= 1:
        advice = "Export it again with its data rows."
        raise TooFewRows("the file has a header and no rows.", where=f"{where}:{header_lines}", advice=advice)
    return has_blank
