"""`kept.log`: the ids of traces whose every span is kept whatever the sample says, appended by all processes.

A record is the 16 bytes of a trace id and their xxh3_64.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from xxhash import xxh3_64_digest

from e2i.telemetry.disk import APPEND, MODE, READ, Disk

if TYPE_CHECKING:
    from pathlib import Path

    from e2i.telemetry.layout import Folders

_ID = 16
_RECORD = 24
_REMEMBERED = 10_000
_AGAIN_AFTER_S = 60.0
_CHUNK = 24 * 40_000
_RUN = 65_536


class KeptNotes:
    """The writing side, one per process; the caller holds the writer's lock."""

    def __init__(self, folders: Folders, disk: Disk) -> None:
        self._path = folders.kept
        self._disk = disk
        self._noted: dict[str, float] = {}
        self._fd = -1
        self._file = 0

    def note(self, trace_id: str) -> None:
        """Write a trace down, once a minute at most. Raises OSError, ValueError."""
        now = time.monotonic()
        if now - self._noted.get(trace_id, -_AGAIN_AFTER_S) < _AGAIN_AFTER_S:
            return
        key = bytes.fromhex(trace_id)
        record = key + xxh3_64_digest(key)
        if self._disk.write(self._opened(), record) != len(record):
            return
        if len(self._noted) >= _REMEMBERED:
            self._noted.clear()
        self._noted[trace_id] = now

    def release(self) -> int:
        """Give up the file, which the caller closes; -1 where none is open."""
        fd, self._fd = self._fd, -1
        return fd

    def _opened(self) -> int:
        """The file that is at the path now: the shipper puts another one there from time to time."""
        try:
            is_there = self._fd >= 0 and self._path.stat().st_ino == self._file
        except FileNotFoundError:
            is_there = False
        if not is_there:
            if (before := self.release()) >= 0:
                self._disk.close(before)
            self._fd = self._disk.open(self._path, APPEND, MODE)
            self._file = self._disk.fstat(self._fd).st_ino
        return self._fd


class KeptTraces(AbstractSet[str]):
    """The ids that were noted: about nine bytes of memory each, which is the second half of the id; `refresh` reads what is new."""

    def __init__(self, folders: Folders, disk: Disk) -> None:
        self._folders = folders
        self._disk = disk
        self._forget()

    def __contains__(self, trace_id: object) -> bool:
        try:
            half = int(str(trace_id)[_ID:], 16)
        except ValueError:
            return False
        return half in self._recent or any(_holds(run, half) for run in self._runs)

    def __iter__(self) -> Iterator[str]:
        seen: set[bytes] = set()
        for path in (self._folders.kept_before, self._folders.kept):
            for key in self._ids(path, 0)[0]:
                if key not in seen:
                    seen.add(key)
                    yield key.hex()

    def __len__(self) -> int:
        return len(self._recent) + sum(len(run) for run in self._runs)

    @classmethod
    def _from_iterable(cls, it: Iterable[str]) -> AbstractSet[str]:  # type: ignore[override]
        return frozenset(it)

    def refresh(self) -> None:
        """Read what was noted since the last call. Raises OSError."""
        for path in (self._folders.kept_before, self._folders.kept):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            offset = self._passed.get(status.st_ino, 0)
            if status.st_size < offset:
                offset = 0
            while status.st_size - offset >= _RECORD:
                keys, end = self._ids(path, offset, _CHUNK)
                if end == offset:
                    break
                offset = end
                for key in keys:
                    self._add(int.from_bytes(key[_ID // 2 :], "big"))
            self._passed[status.st_ino] = offset

    def changes(self) -> dict[Path, int]:
        """When the notes were last written to, in nanoseconds; empty where there are none. Raises OSError."""
        try:
            return {self._folders.kept: self._folders.kept.stat().st_mtime_ns}
        except FileNotFoundError:
            return {}

    def rotate(self) -> None:
        """Drop the generation before last and begin a new one. Raises OSError."""
        if self._folders.kept.exists():
            self._disk.rename(self._folders.kept, self._folders.kept_before)
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[array[int]] = []
        self._passed: dict[int, int] = {}

    def _add(self, half: int) -> None:
        if half in self._recent or any(_holds(run, half) for run in self._runs):
            return
        self._recent.add(half)
        if len(self._recent) >= _RUN:
            self._runs.append(array("Q", sorted(self._recent)))
            self._recent = set()

    def _ids(self, path: Path, offset: int, size: int | None = None) -> tuple[list[bytes], int]:
        """Whole records from `offset`, and the first byte not read. What is damaged is passed over."""
        try:
            fd = self._disk.open(path, READ, MODE)
        except FileNotFoundError:
            return [], offset
        try:
            data = self._disk.pread(fd, size or self._disk.fstat(fd).st_size, offset)
        finally:
            self._disk.close(fd)
        found, at = [], 0
        while at + _RECORD <= len(data):
            key = data[at : at + _ID]
            if xxh3_64_digest(key) == data[at + _ID : at + _RECORD]:
                found.append(key)
                at += _RECORD
            else:
                at += 1
        return found, offset + at


def _holds(run: array[int], half: int) -> bool:
    at = bisect_left(run, half)
    return at < len(run) and run[at] == half
