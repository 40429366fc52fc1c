"""The size of the spool: when it is full, whole segments go, the least dear class first, the oldest first within a class."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2i.telemetry import gone, heading, segments
from e2i.telemetry.disk import MODE, UPDATE, Disk, is_held, unlink_if_there
from e2i.telemetry.frames import FRAME, MAGIC, good_frames
from e2i.telemetry.layout import Folders, kind_of, parse_segment, writer_of

if TYPE_CHECKING:
    from pathlib import Path

_ABANDONED_AFTER_S = 60.0


@dataclass(frozen=True)
class _Segment:
    path: Path
    stream: str
    number: int
    bytes: int
    modified_ns: int


def sizes(folders: Folders) -> dict[Path, int]:
    """Bytes of each segment. Raises OSError."""
    return {segment.path: segment.bytes for segment in _segments(folders)}


def changes(folders: Folders) -> dict[Path, int]:
    """When each segment was last written to, in nanoseconds. Raises OSError."""
    return {segment.path: segment.modified_ns for segment in _segments(folders)}


def enforce(folders: Folders, max_bytes: int, disk: Disk) -> int:
    """Delete whole segments until at most `max_bytes` are left; returns the bytes freed. Raises OSError.

    The segment that a living writer appends to goes only when nothing else is left. Files of another format version stay.
    """
    if sum(sizes(folders).values()) <= max_bytes:
        return 0
    lock = disk.open(folders.root / "budget.lock", UPDATE, MODE)
    try:
        disk.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _make_room(folders, max_bytes, disk)
    except BlockingIOError:  # another process is at it
        return 0
    finally:
        disk.close(lock)


def _make_room(folders: Folders, max_bytes: int, disk: Disk) -> int:
    present = _segments(folders)
    newest: dict[str, int] = {}
    for segment in present:
        newest[segment.stream] = max(segment.number, newest.get(segment.stream, 0))
    current = {name for name in newest if _is_alive(folders, name, newest[name], disk)}
    order = _oldest_first(present)
    in_use = [found for found in order if found.stream in current and found.number == newest[found.stream]]
    excess, freed = sum(found.bytes for found in present) - max_bytes, 0
    failed: OSError | None = None
    for victim in [*(found for found in order if found not in in_use), *in_use]:
        if freed >= excess:
            break
        try:
            freed += _delete(folders, victim, present, is_current=victim in in_use, disk=disk)
        except OSError as error:
            failed = failed or error
    if freed < excess and failed is not None:
        raise failed
    return freed


def _oldest_first(present: list[_Segment]) -> list[_Segment]:
    """The least dear class first; a stream's segments always in their order, also where the clock went back between them."""
    keys: dict[_Segment, tuple[int, int, str, int]] = {}
    latest: dict[str, int] = {}
    for found in sorted(present, key=lambda segment: segment.number):
        latest[found.stream] = max(found.modified_ns, latest.get(found.stream, 0))
        keys[found] = (-kind_of(found.stream), latest[found.stream], found.stream, found.number)
    return sorted(present, key=keys.__getitem__)


def _delete(folders: Folders, victim: _Segment, present: list[_Segment], *, is_current: bool, disk: Disk) -> int:
    data = segments.content(victim.path, disk)
    if data is None or heading.is_foreign(heading.SEGMENT, data):
        return 0
    lost = _sequences(folders, victim, present, data, disk)
    marker = folders.gone(victim.stream)
    is_noted = lost is None
    if lost is not None:
        entry = (lost[0], None if is_current else lost[1])
        is_noted = _note(marker, entry, disk)
    disk.unlink(victim.path)
    if not is_noted and lost is not None:  # a full disk had no room for the note before
        _note(marker, (lost[0], None if is_current else lost[1]), disk)
    return victim.bytes


def _note(marker: Path, lost: gone.Range, disk: Disk) -> bool:
    try:
        gone.add(marker, lost, disk)
    except OSError:
        return False
    return True


def _sequences(folders: Folders, victim: _Segment, present: list[_Segment], data: bytes, disk: Disk) -> tuple[int, int] | None:
    """First and last sequence in a segment; by the heads of the neighbours where they stand, else by reading it."""
    later = [found.number for found in present if found.stream == victim.stream and found.number > victim.number]
    first = head_sequence(data)
    if first is not None and later:
        following = _head(folders.segment(victim.stream, min(later)), disk)
        if following is not None and following > first:
            return first, following - 1
    sequences = [sequence for _, _, sequence, _ in good_frames(data, 0)]
    return (min(sequences), max(sequences)) if sequences else None


def head_sequence(data: bytes) -> int | None:
    """The sequence of a segment's first frame, as its header says."""
    if len(data) < heading.SIZE + FRAME.size:
        return None
    magic, _, sequence, _ = FRAME.unpack_from(data, heading.SIZE)
    return int(sequence) if magic == MAGIC else None


def _head(path: Path, disk: Disk) -> int | None:
    data = segments.content(path, disk, heading.SIZE + FRAME.size)
    return None if data is None else head_sequence(data)


def _is_alive(folders: Folders, stream: str, newest: int, disk: Disk) -> bool:
    return is_held(folders.counter(writer_of(stream)), disk) or is_held(folders.segment(stream, newest), disk)


def _segments(folders: Folders) -> list[_Segment]:
    found = []
    with os.scandir(folders.segments) as entries:
        for entry in entries:
            parsed = parse_segment(entry.name)
            if parsed is None:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(_Segment(folders.segments / entry.name, *parsed, status.st_size, status.st_mtime_ns))
    return found


def clean(folders: Folders, disk: Disk) -> None:
    """Remove files that a killed process left half made. Raises OSError."""
    for folder in (folders.root, folders.segments, folders.writers):
        with os.scandir(folder) as entries:
            hidden = [entry for entry in entries if entry.name.startswith(".")]
        for entry in hidden:
            path = folder / entry.name
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S and not is_held(path, disk):
                unlink_if_there(path, disk)
