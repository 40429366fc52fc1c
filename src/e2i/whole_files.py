"""Files that take their place as a whole: nobody ever sees half of one, also after a crash or a power cut."""

from __future__ import annotations

import glob
import os
import re
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MAKER = re.compile(r"\.(\d{1,7})@([^/]*)\.part")


@contextmanager
def replacing(*paths: Path, is_private: bool = False, is_named_at_once: bool = True) -> Iterator[list[Path]]:
    """Empty files beside `paths`, to be written by the block; all are on the disk before the first takes its place.

    When the block raises, every path stays as it was. What processes of this machine that were killed left beside the paths goes first.

    Parameters
    ----------
    paths : files of folders that exist
    is_private : mode 0600; else what the user's umask gives
    is_named_at_once : after a power cut the new file is there; otherwise perhaps the old one still is

    Raises
    ------
    OSError
        As for writing a file.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(beside(path, is_private=is_private)) for path in paths]
        yield parts
        _place(parts, paths)
        for folder in {path.parent for path in paths} if is_named_at_once else ():
            flush(folder)


def replace_text(path: Path, text: str, *, is_private: bool = False, is_named_at_once: bool = True) -> None:
    """Have `text` in `path`, in UTF-8; see `replacing`."""
    with replacing(path, is_private=is_private, is_named_at_once=is_named_at_once) as (part,):
        part.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def beside(path: Path, *, is_private: bool = False) -> Iterator[Path]:
    """An empty file beside `path`, for a block that calls `place` when it has something to put there; gone when the block ends."""
    _sweep(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}@{os.uname().nodename}.part")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if is_private else 0o666))
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def place(part: Path, path: Path) -> None:
    """Put what was written to `part` in the place of `path`, on the disk when this returns. Raises OSError."""
    _place([part], [path])
    flush(path.parent)


def _place(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    for part in parts:
        flush(part)
    for part, path in zip(parts, paths, strict=True):
        part.replace(path)


def _sweep(path: Path) -> None:
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        made_by = _MAKER.search(part.name)
        if made_by is not None and made_by[2] == os.uname().nodename and not _is_alive(int(made_by[1])):
            with suppress(PermissionError):  # another user's
                part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
