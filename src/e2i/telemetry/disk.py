"""The system calls that the spool makes, in one place, so that a test can make the Nth one fail or stop the process at it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODE = 0o600
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
UPDATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Disk:
    """System calls by name; the defaults are the real ones."""

    open: Callable[[Path, int, int], int] = os.open
    write: Callable[[int, bytes], int] = os.write
    pwrite: Callable[[int, bytes, int], int] = os.pwrite
    pread: Callable[[int, int, int], bytes] = os.pread
    fstat: Callable[[int], os.stat_result] = os.fstat
    truncate: Callable[[int, int], None] = os.ftruncate
    fdatasync: Callable[[int], None] = os.fdatasync
    rename: Callable[[Path, Path], None] = os.rename
    unlink: Callable[[Path], None] = os.unlink
    close: Callable[[int], None] = os.close
    flock: Callable[[int, int], None] = fcntl.flock


def is_held(path: Path, disk: Disk) -> bool:
    """Whether a living process holds the lock on this file; False when there is no such file, True when it cannot be opened."""
    try:
        fd = disk.open(path, READ, MODE)
    except FileNotFoundError:
        return False
    except OSError:  # permission lost, no descriptors left: nothing that cannot be looked at is taken for abandoned
        return True
    try:
        disk.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        disk.close(fd)
    return False


def create_held(path: Path, content: bytes, flags: int, disk: Disk) -> int:
    """Make a file that is locked by us from the moment it is seen under its name. Raises OSError."""
    hidden = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    fd = disk.open(hidden, flags, MODE)
    try:
        disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_whole(fd, content, disk)
        disk.rename(hidden, path)
    except BaseException:
        disk.close(fd)
        unlink_if_there(hidden, disk)
        raise
    return fd


def replace(path: Path, content: bytes, disk: Disk) -> None:
    """Put `content` in the place of a file, all or nothing."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    fd = disk.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    try:
        _write_whole(fd, content, disk)
        disk.fdatasync(fd)
    except OSError:
        unlink_if_there(hidden, disk)
        raise
    finally:
        disk.close(fd)
    disk.rename(hidden, path)


def _write_whole(fd: int, content: bytes, disk: Disk) -> None:
    if disk.write(fd, content) != len(content):
        raise OSError(errno.ENOSPC, "only a part was written")


def unlink_if_there(path: Path, disk: Disk) -> bool:
    """Delete a file; False when there was none or it cannot be deleted."""
    try:
        disk.unlink(path)
    except OSError:
        return False
    return True


def sync_files(paths: Iterable[Path], disk: Disk) -> None:
    """Force files and folders to the disk, each of them; one that is gone needs no forcing. Raises the first OSError at the end."""
    failed: OSError | None = None
    for path in paths:
        try:
            _sync(path, disk)
        except FileNotFoundError:
            continue
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def sync_names(folder: Path, disk: Disk) -> None:
    """Force the names in a folder, its own, and those of the folders above it, which may have been made just now. Raises OSError.

    It ends where another disk begins, and at a folder that we may not read: nobody without rights there has made one in it.
    """
    device = None
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            fd = disk.open(place, READ, MODE)
        except PermissionError:
            return
        try:
            found = disk.fstat(fd).st_dev
            if device is not None and found != device:
                return
            device = found
            disk.fdatasync(fd)
        finally:
            disk.close(fd)


def _sync(path: Path, disk: Disk) -> None:
    fd = disk.open(path, READ, MODE)
    try:
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
