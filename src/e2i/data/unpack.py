"""Compressed files: unpacked beside the reader, which then sees an ordinary file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from e2i.domain.nearest import listed
from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OPENERS = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
ZIP = ".zip"
_BLOCK = 1 << 20
MOST_BYTES = 4_000_000_000
"""of an unpacked file: it is held on the disk and in memory"""
PACKED = (*_OPENERS, ZIP)


def inner_suffix(path: Path) -> str:
    """The type of what a file holds: `.csv` for `visits.csv.gz`; of an archive, `.zip`.

    >>> inner_suffix(Path("visits.CSV.gz")), inner_suffix(Path("visits.zip")), inner_suffix(Path("visits.csv.zip"))
    ('.csv', '.zip', '.csv')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in PACKED:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


@contextmanager
def unpacked(path: Path, *, types: Sequence[str], where: str, most_bytes: int = MOST_BYTES) -> Iterator[Path]:
    """The content as a file that lasts as long as the context.

    Raises
    ------
    SchemaMismatch
        More than `most_bytes`, not what its name says, broken off, or an archive that does not hold exactly one table.
    """
    with tempfile.TemporaryDirectory(prefix="e2i-unpacked-") as folder:
        try:
            target = _unpack(path, Path(folder), types=types, where=where, most_bytes=most_bytes)
        except (gzip.BadGzipFile, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError) as error:
            raise SchemaMismatch(f"this cannot be unpacked: {error}.", where=where, advice="Is the file whole? Export it again.") from error
        yield target


def _unpack(path: Path, folder: Path, *, types: Sequence[str], where: str, most_bytes: int) -> Path:
    if path.suffix.lower() == ZIP:
        return _from_archive(path, folder, types=types, where=where, most_bytes=most_bytes)
    target = folder / path.stem
    with _OPENERS[path.suffix.lower()](path) as packed:
        _copy(packed, target, where=where, most_bytes=most_bytes)
    return target


def _copy(packed: IO[bytes], target: Path, *, where: str, most_bytes: int) -> None:
    """Counted while it is written: what an archive says of its own size may be wrong."""
    size = 0
    with target.open("wb") as file:
        while block := packed.read(_BLOCK):
            size += len(block)
            if size > most_bytes:
                advice = "Unpack it and name the csv or parquet file: that is streamed."
                raise SchemaMismatch(f"unpacked it has more than {most_bytes / 1e9:g} GB.", where=where, advice=advice)
            file.write(block)


def _from_archive(path: Path, folder: Path, *, types: Sequence[str], where: str, most_bytes: int) -> Path:
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        tables = [name for name in inside if Path(name).suffix.lower() in types]
        if len(tables) != 1:
            what = f"the archive holds {len(tables) or 'no'} tables ({listed(inside)})."
            raise SchemaMismatch(what, where=where, advice="Put one table into it, or unpack it and name the file.")
        target = folder / Path(tables[0]).name
        with archive.open(tables[0]) as packed:
            _copy(packed, target, where=where, most_bytes=most_bytes)
    return target
