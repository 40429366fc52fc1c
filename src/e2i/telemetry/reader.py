"""The reading side of a spool, for the shipper: frames in order per writer and class, losses by reason, deletion of what was passed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import uuid
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from e2i.telemetry import budget, counters, gone, heading, segments
from e2i.telemetry.disk import MODE, READ, Disk, is_held, replace, sync_files, sync_names, unlink_if_there
from e2i.telemetry.kept import KeptTraces
from e2i.telemetry.layout import COUNT, GONE, Folders, SpanClass, is_stream, kind_of, parse_segment, writer_of

__all__ = ["Chunk", "Position", "SpanClass", "SpoolReader", "Stream"]

_ID = re.compile("[0-9a-f]{32}")
_RETRIES = 5
_STEP_NS = 100_000_000


@dataclass(frozen=True)
class Position:
    """A place in a stream: the next byte to read; `sequence` is the last one passed."""

    segment: int = 0
    offset: int = 0
    sequence: int = 0


@dataclass(frozen=True)
class Stream:
    """What one process wrote of one class.

    `acknowledged` is how many frames the writer says it wrote; while it lives it may be one behind what can be read already, so
    take the larger of it and `Position.sequence`.
    """

    name: str
    kind: SpanClass
    writer: str
    is_alive: bool
    acknowledged: int


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream. `lost` counts the sequences that were passed without a frame, by reason: `disk_budget`, `corrupt`."""

    frames: list[tuple[int, bytes]]
    position: Position
    lost: dict[str, int]
    at_end: bool
    """nothing more to read now; for a dead writer: for ever, its losses included"""


class SpoolReader:
    """The reading side of a spool. Only one shipper deletes; any number may read.

    Raises
    ------
    OSError
        When the folder cannot be made or read; so does every method.
    """

    spool_id: str

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self._folders = Folders(folder)
        self._disk = disk or Disk()
        self._folders.make()
        self.spool_id = self._id()
        self._segments: dict[str, list[int]] = {}
        self._foreign: dict[str, bool] = {}
        self._ended: dict[str, int] = {}
        """dead writers' streams: what was acknowledged; it does not change any more"""
        self._synced: dict[Path, int] = {}
        self._kept = KeptTraces(self._folders, self._disk)

    def streams(self) -> list[Stream]:
        """Every stream that is there, oldest first within a class; also those of which only losses are left."""
        self._list()
        found = []
        for name in sorted(self._segments):
            is_alive = self._is_alive(name)
            acknowledged = self._acknowledged(name, is_alive=is_alive)
            found.append(Stream(name=name, kind=kind_of(name), writer=writer_of(name), is_alive=is_alive, acknowledged=acknowledged))
        return found

    def writer_drops(self) -> dict[str, dict[str, int]]:
        """Spans that writers could not write: writer -> reason (`write_failed`, `not_serialisable`) -> spans."""
        drops = {writer: counters.read(self._folders.counter(writer), self._disk).dropped for writer in self._writers()}
        return {writer: dropped for writer, dropped in drops.items() if dropped}

    def writers_without_stream(self) -> list[str]:
        """Dead writers that left only their counters: take over their `writer_drops`, then `retire_writer`."""
        self._list()
        owners = {writer_of(stream) for stream in (*self._segments, *self._foreign_streams())}
        alone = [writer for writer in self._writers() if writer not in owners]
        return [writer for writer in alone if not is_held(self._folders.counter(writer), self._disk)]

    def foreign(self) -> list[str]:
        """Files of another format version, by name: left alone."""
        self._list()
        writers = [path.name for path in self._counter_files() if counters.read(path, self._disk).is_foreign]
        return sorted([*(name for name, is_foreign in self._foreign.items() if is_foreign), *writers])

    def read(self, stream: str, position: Position, *, max_frames: int, max_bytes: int) -> Chunk:
        """The next frames behind `position`; at least one when there is one, whatever its size."""
        is_alive = self._is_alive(stream)  # asked first: all that a dead writer wrote is there
        self._list()
        numbers = [number for number in self._segments.get(stream, []) if number >= position.segment]
        limits = segments.Limits(frames=max_frames, bytes=max_bytes)
        at, acknowledged = position, self._counted(stream)
        for number in numbers:
            place = segments.Place(at.offset if number == at.segment else 0, at.sequence)
            is_last = number == numbers[-1]
            try:
                piece = segments.read(
                    self._folders.segment(stream, number),
                    place,
                    limits,
                    may_grow=is_last and is_alive,
                    acknowledged=acknowledged,
                    disk=self._disk,
                )
            except FileNotFoundError:  # deleted for room since it was listed
                continue
            passed = piece.frames[-1][0] if piece.frames else at.sequence
            lost = self._lost(stream, at.sequence, [sequence for sequence, _ in piece.frames])
            at = Position(number, piece.end, passed)
            # behind a living writer's last frame stand zeros, which it has asked the disk for ahead
            is_end = is_last and (piece.is_finished or (is_alive and acknowledged is not None and acknowledged <= passed))
            if piece.frames and not is_end:
                return Chunk(piece.frames, at, lost, at_end=False)
            if piece.frames:
                return self._last(stream, Chunk(piece.frames, at, lost, at_end=True), is_alive=is_alive)
        return self._last(stream, Chunk([], at, {}, at_end=True), is_alive=is_alive)

    def kept_traces(self) -> AbstractSet[str]:
        """Ids of traces whose every span is kept; reads only what is new since the last call."""
        self._kept.refresh()
        return self._kept

    def rotate_kept(self) -> None:
        """Forget the notes of the generation before.

        Call it only when every sink has decided on all that was written before the last call.
        """
        self._kept.rotate()

    def release(self, stream: str, position: Position) -> None:
        """Every sink is past `position`: delete whole segments before it."""
        self._list()
        for number in self._segments.get(stream, []):
            if number < position.segment:
                unlink_if_there(self._folders.segment(stream, number), self._disk)

    def deleted(self, stream: str, position: Position, last: int) -> int:
        """How many spans between `position` and sequence `last` were deleted for room; no reader will come upon them."""
        ranges = [each for each in gone.read(self._folders.gone(stream), self._disk) if each[1] is not None]
        return gone.share(ranges, position.sequence + 1, last)

    def retire(self, stream: str) -> bool:
        """Every sink passed all of a dead writer's stream: delete the rest; False while the writer lives.

        Its counters go with its last stream. Keep the stream's position until `streams` no longer lists it: deletion may be interrupted.
        """
        if self._is_alive(stream):
            return False
        self._list()
        for number in self._segments.get(stream, []):
            unlink_if_there(self._folders.segment(stream, number), self._disk)
        unlink_if_there(self._folders.gone(stream), self._disk)
        self._list()
        if stream in self._segments:
            return False
        self._ended.pop(stream, None)
        self.retire_writer(writer_of(stream))
        return True

    def retire_writer(self, writer: str) -> None:
        """Delete the counters of a dead writer that has no stream left."""
        if writer in self.writers_without_stream():
            unlink_if_there(self._folders.counter(writer), self._disk)

    def enforce_budget(self, max_bytes: int) -> int:
        """Delete for room, the least dear class first, the oldest first; returns the bytes freed."""
        budget.clean(self._folders, self._disk)
        return budget.enforce(self._folders, max_bytes, self._disk)

    def sync(self) -> None:
        """Force to the disk what grew since the last call: segments, and the notes of traces that are kept."""
        changed = budget.changes(self._folders) | self._kept.changes()
        grown = [path for path, at_ns in changed.items() if self._synced.get(path) != at_ns]
        is_new = bool(changed.keys() - self._synced.keys())
        sync_files([*grown, *([self._folders.segments] if is_new else [])], self._disk)
        if not self._synced or self._folders.kept in grown:
            sync_names(self._folders.root, self._disk)
        # a file's time moves in steps: what changed just now may change again without a trace
        still = time.time_ns() - _STEP_NS
        self._synced = {path: at_ns if at_ns < still else -1 for path, at_ns in changed.items()}

    def sync_deletions(self) -> None:
        """Force what `release`, `retire` and `retire_writer` deleted: a segment that comes back would be delivered again."""
        sync_files([self._folders.segments, self._folders.writers], self._disk)

    def total_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(budget.sizes(self._folders).values())

    def _lost(self, stream: str, passed: int, sequences: list[int]) -> dict[str, int]:
        """Sequences missing between `passed` and the last one, by reason."""
        if not sequences or sequences[-1] - passed == len(sequences):
            return {}
        ranges = gone.read(self._folders.gone(stream), self._disk)
        missing = by_budget = 0
        for sequence in sequences:
            if sequence > passed + 1:
                missing += sequence - passed - 1
                by_budget += gone.share(ranges, passed + 1, sequence - 1)
            passed = sequence
        found = {"disk_budget": by_budget, "corrupt": missing - by_budget}
        return {reason: count for reason, count in found.items() if count}

    def _last(self, stream: str, chunk: Chunk, *, is_alive: bool) -> Chunk:
        """The end of a stream: what a dead writer says it wrote and what cannot be read is lost."""
        acknowledged = 0 if is_alive else self._acknowledged(stream, is_alive=False)
        passed = chunk.position.sequence
        if acknowledged <= passed:
            return chunk
        tail = self._lost(stream, passed, [acknowledged + 1])
        lost = {reason: chunk.lost.get(reason, 0) + tail.get(reason, 0) for reason in {*chunk.lost, *tail}}
        position = Position(chunk.position.segment, chunk.position.offset, acknowledged)
        return Chunk(chunk.frames, position, lost, at_end=True)

    def _acknowledged(self, stream: str, *, is_alive: bool) -> int:
        if stream in self._ended:
            return self._ended[stream]
        counted = self._counted(stream)
        if is_alive and counted is not None:
            return counted
        try:
            last = max(counted or 0, self._last_sequence(stream))
        except OSError:  # `read` says so, for this stream alone
            return counted or 0
        if not is_alive:
            self._ended[stream] = last
        return last

    def _counted(self, stream: str) -> int | None:
        return counters.read(self._folders.counter(writer_of(stream)), self._disk).written.get(kind_of(stream))

    def _last_sequence(self, stream: str) -> int:
        """The highest sequence that stands in the stream's segments, or was deleted."""
        highest = max((last or first for first, last in gone.read(self._folders.gone(stream), self._disk)), default=0)
        for number in reversed(self._segments.get(stream, [])):
            found = segments.last_sequence(self._folders.segment(stream, number), self._disk)
            if found is not None:
                return max(highest, found)
        return highest

    def _is_alive(self, stream: str) -> bool:
        if stream in self._ended:
            return False
        counter = self._folders.counter(writer_of(stream))
        while True:
            if is_held(counter, self._disk):
                return True
            numbers = self._segments.get(stream, [])
            if numbers and is_held(self._folders.segment(stream, numbers[-1]), self._disk):
                return True
            self._list()  # the writer may have gone on to the next segment meanwhile
            if self._segments.get(stream, []) == numbers:
                return False

    def _list(self) -> None:
        found: dict[str, list[int]] = {}
        names = os.listdir(self._folders.segments)  # noqa: PTH208 - called for every chunk; paths cost ten times as much
        self._foreign = {name: self._foreign[name] for name in names if name in self._foreign}
        for name in names:
            parsed = parse_segment(name)
            if parsed is not None and not self._is_foreign(name):
                found.setdefault(parsed[0], []).append(parsed[1])
            elif name.endswith(GONE) and is_stream(name[: -len(GONE)]):
                found.setdefault(name[: -len(GONE)], [])
        for numbers in found.values():
            numbers.sort()
        self._segments = found

    def _is_foreign(self, name: str) -> bool:
        known = self._foreign.get(name)
        if known is None:
            try:
                fd = self._disk.open(self._folders.segments / name, READ, MODE)
            except OSError:
                return False
            try:
                known = heading.is_foreign(heading.SEGMENT, self._disk.pread(fd, heading.SIZE, 0))
            except OSError:  # reading it will tell; the other streams go on
                return False
            finally:
                self._disk.close(fd)
            self._foreign[name] = known
        return known

    def _foreign_streams(self) -> list[str]:
        parsed = [parse_segment(name) for name, is_foreign in self._foreign.items() if is_foreign]
        return [found[0] for found in parsed if found is not None]

    def _counter_files(self) -> list[Path]:
        return sorted(path for path in self._folders.writers.iterdir() if path.name.endswith(COUNT) and not path.name.startswith("."))

    def _writers(self) -> list[str]:
        ours = [path for path in self._counter_files() if not counters.read(path, self._disk).is_foreign]
        return [path.name[: -len(COUNT)] for path in ours]

    def _id(self) -> str:
        path = self._folders.root / "id"
        for _ in range(_RETRIES):
            try:
                found = path.read_text("ascii", "replace").strip()
            except FileNotFoundError:
                found = ""
            if _ID.fullmatch(found):
                return found
            if found or path.exists():  # damaged
                replace(path, uuid.uuid4().hex.encode(), self._disk)
                sync_names(self._folders.root, self._disk)
                continue
            self._make_id(path)
        raise OSError(errno.EIO, "the spool's id cannot be kept", str(path))

    def _make_id(self, path: Path) -> None:
        """All or nothing, and only the first of several processes wins."""
        hidden = path.with_name(f".id.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        replace(hidden, uuid.uuid4().hex.encode(), self._disk)
        with contextlib.suppress(FileExistsError):
            os.link(hidden, path)
        unlink_if_there(hidden, self._disk)
        sync_names(self._folders.root, self._disk)
