"""Compressed files: unpacked beside the reader, which then sees an ordinary file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from e2i.data.nearest import listed
from e2i.errors import SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OPENERS = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
ZIP = ".zip"
_BLOCK = 1 << 20
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
def unpacked(path: Path, *, types: Sequence[str], where: str) -> Iterator[Path]:
    """The content as a file that lasts as long as the context.

    Raises
    ------
    SchemaMismatch
        Not what its name says, broken off, or an archive that does not hold exactly one table.
    """
    with tempfile.TemporaryDirectory(prefix="e2i-unpacked-") as folder:
        try:
            target = _unpack(path, Path(folder), types=types, where=where)
        except (gzip.BadGzipFile, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError) as error:
            raise SchemaMismatch(f"this cannot be unpacked: {error}.", where=where, advice="Is the file whole? Export it again.") from error
        yield target


def _unpack(path: Path, folder: Path, *, types: Sequence[str], where: str) -> Path:
    if path.suffix.lower() == ZIP:
        return _from_archive(path, folder, types=types, where=where)
    target = folder / path.stem
    with _OPENERS[path.suffix.lower()](path) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, _BLOCK)
    return target


def _from_archive(path: Path, folder: Path, *, types: Sequence[str], where: str) -> Path:
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        tables = [name for name in inside if Path(name).suffix.lower() in types]
        if len(tables) != 1:
            what = f"the archive holds {len(tables) or 'no'} tables ({listed(inside)})."
            raise SchemaMismatch(what, where=where, advice="Put one table into it, or unpack it and name the file.")
        target = folder / Path(tables[0]).name
        with archive.open(tables[0]) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, _BLOCK)
    return target
