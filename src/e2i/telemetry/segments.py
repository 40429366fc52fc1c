"""Reading one segment: the frames behind a place, also around damage."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2i.telemetry import heading
from e2i.telemetry.disk import MODE, READ, Disk
from e2i.telemetry.frames import FRAME_HEADER, good_frames, length_at

if TYPE_CHECKING:
    from pathlib import Path

Frame = tuple[int, bytes]
_BLOCK = 4096


@dataclass(frozen=True)
class Place:
    """Where to go on: the next byte, and the last sequence passed."""

    offset: int
    sequence: int


@dataclass(frozen=True)
class Limits:
    """How much to read at once; one frame is read whatever its size."""

    frames: int
    bytes: int


@dataclass(frozen=True)
class Piece:
    """Frames in order, the first byte behind them, and whether the segment has no more."""

    frames: list[Frame]
    end: int
    is_finished: bool


def read(path: Path, place: Place, limits: Limits, *, may_grow: bool, acknowledged: int | None, disk: Disk) -> Piece:
    """Good frames with a sequence above the place's. Raises OSError.

    Damage is passed over. At the end of a segment that may still grow, what is not a frame may become one: the piece ends before it.
    `acknowledged` is how far the writer says it came; None when that is not known.
    """
    fd = disk.open(path, READ, MODE)
    try:
        size = disk.fstat(fd).st_size
        start = place.offset if heading.SIZE <= place.offset <= size else 0
        if start == 0 and heading.version_of(heading.SEGMENT, disk.pread(fd, heading.SIZE, 0)) is not None:
            start = heading.SIZE
        if start == size:
            return Piece([], size, is_finished=True)
        data = _read(fd, start, _wanted(fd, start, size, limits, disk), disk)
        piece = _straight(data, start, size, place.sequence, limits)
        if piece is not None:
            return piece
        is_all = acknowledged is not None and acknowledged <= place.sequence
        if is_all or (may_grow and acknowledged is None and not any(data[:FRAME_HEADER])):
            return Piece([], start, is_finished=True)  # zeros that wait for frames, or a frame that is just being written
        return _salvage(_read(fd, 0, size, disk), place, limits, may_grow=may_grow)
    finally:
        disk.close(fd)


def content(path: Path, disk: Disk, size: int | None = None) -> bytes | None:
    """A segment's bytes, from the first; None when there is none. Raises OSError."""
    try:
        fd = disk.open(path, READ, MODE)
    except FileNotFoundError:
        return None
    try:
        return _read(fd, 0, size or disk.fstat(fd).st_size, disk)
    finally:
        disk.close(fd)


def last_sequence(path: Path, disk: Disk) -> int | None:
    """The highest sequence that can be read in a segment. Raises OSError."""
    return max((sequence for _, _, sequence, _ in good_frames(content(path, disk) or b"")), default=None)


def _wanted(fd: int, start: int, size: int, limits: Limits, disk: Disk) -> int:
    """Bytes to read: the limit, or the first frame when that is larger."""
    first = length_at(disk.pread(fd, FRAME_HEADER, start)) if limits.bytes < size - start else None
    return min(size - start, max(limits.bytes, first or 0))


def _straight(data: bytes, start: int, size: int, passed: int, limits: Limits) -> Piece | None:
    """Frames that follow each other without damage; None when there is not even one."""
    frames: list[Frame] = []
    end = 0
    for at, behind, sequence, payload in good_frames(data):
        if at != end or (frames and behind > limits.bytes):
            break
        end = behind
        if sequence > passed:
            frames.append((sequence, payload))
            passed = sequence
        if len(frames) >= limits.frames:
            break
    return Piece(frames, start + end, is_finished=start + end == size) if end else None


def _salvage(data: bytes, place: Place, limits: Limits, *, may_grow: bool) -> Piece:
    """The frames of a damaged segment that were not passed yet, wherever they stand."""
    frames: list[Frame] = []
    end, taken, passed, is_more = place.offset, 0, place.sequence, False
    for _, behind, sequence, payload in good_frames(data):
        if sequence <= passed:
            continue
        if len(frames) >= limits.frames or (frames and taken + len(payload) > limits.bytes):
            is_more = True
            break
        frames.append((sequence, payload))
        taken += len(payload)
        passed, end = sequence, behind
    if is_more:
        return Piece(frames, end, is_finished=False)
    if may_grow:
        return Piece(frames, end, is_finished=True)
    return Piece(frames, len(data), is_finished=True)


def _read(fd: int, start: int, size: int, disk: Disk) -> bytes:
    """Bytes of a file; blocks that the disk cannot give back any more come as zeros."""
    try:
        return disk.pread(fd, size, start)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    return b"".join(_block(fd, at, min(_BLOCK, start + size - at), disk) for at in range(start, start + size, _BLOCK))


def _block(fd: int, at: int, size: int, disk: Disk) -> bytes:
    try:
        return disk.pread(fd, size, at).ljust(size, b"\0")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return bytes(size)
