"""The durable end of span.end(): one append to a file, no thread, no network.

What `write` has returned True for survives the end of the process at once, and a power failure once the shipper or `sync` forced it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from e2i.telemetry import budget, counters, heading
from e2i.telemetry.counters import INVERT
from e2i.telemetry.disk import UPDATE, Disk, create_held, sync_files, sync_names, unlink_if_there
from e2i.telemetry.frames import FRAME_HEADER, pack
from e2i.telemetry.kept import KeptNotes
from e2i.telemetry.layout import Folders, SpanClass, stream_name, writer_name

__all__ = ["SpanClass", "SpoolSettings", "SpoolWriter"]

_log = logging.getLogger(__name__)
_now = time.monotonic
_PAIR = counters.PAIR.pack
_LOOK_EVERY_S = 0.1
_LOOK_AT_ONCE_S = 0.9
"""a look that is overdue by less waits for the next span: the first one after a pause meets cold caches and pays enough"""
_SMALLEST = 65_536
_PIECE = 65_536
"""bytes of zeros at a time: 17 microseconds, each 20 to 100 spans"""
_PATIENCE = 3
"""failures in a row after which a full disk is asked again each `_LOOK_EVERY_S` only"""


@dataclass(frozen=True, kw_only=True)
class SpoolSettings:
    """Where the spool is and how large it may get."""

    folder: Path
    max_bytes: int
    """all processes together"""
    segment_bytes: int


class _Stream:
    """What one process writes of one class."""

    __slots__ = ("fd", "kind", "limit", "name", "number", "offset", "path", "ready", "sequence", "slot")

    def __init__(self, kind: SpanClass) -> None:
        self.kind = kind
        self.slot = counters.offset_of(kind)
        self.name = ""
        self.path = Path()
        self.fd = -1
        self.number = 0
        self.sequence = 0
        self.offset = 0
        """where the next frame goes in the open segment"""
        self.ready = 0
        """end of what is zero-filled: writing over it costs a third of making a file longer"""
        self.limit = 0
        """where the segment ends at most"""


class SpoolWriter:
    """The writing side of a spool, one per process; after a fork the child gets its own on first use.

    Raises
    ------
    OSError
        When the folder cannot be made or written. Nothing raises after that: what cannot be written is counted.
    """

    _is_writing: bool
    _is_stale: bool
    """the counters on disk are behind"""
    _paused_by: int
    _look_at: float
    _is_due: bool
    _finished: list[Path]
    """segments left since the last `sync`"""

    def __init__(self, settings: SpoolSettings, *, disk: Disk | None = None) -> None:
        self._settings = settings
        self._folders = Folders(settings.folder)
        self._disk = disk or Disk()
        self._folders.make()
        for folder in (self._folders.segments, self._folders.writers):
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, "the spool's folder cannot be written", str(folder))
        self._pwrite = self._disk.pwrite
        self._segment_bytes = min(settings.segment_bytes, max(settings.max_bytes // 8, _SMALLEST))
        self._said: set[str] = set()
        self._renew()
        _WRITERS.add(self)

    def write(self, payload: bytes, kind: SpanClass) -> bool:
        """Append one span; True when it survives the end of this process from now on, False when it was counted `write_failed`."""
        with self._lock:
            if self._is_writing:  # a signal handler or a finaliser ended a span in the middle of another's write
                self._waiting.append((payload, kind))
                return True
            self._is_writing = True
            try:
                stream, size = self._streams[kind], FRAME_HEADER + len(payload)
                is_full = stream.offset + size > stream.ready
                if (is_full or (_now() >= self._look_at and self._is_time())) and not self._make_ready(stream, size):
                    return False
                offset = stream.offset
                # taken before the write: an exception from outside may leave a gap, never two spans with one number
                stream.sequence = sequence = stream.sequence + 1
                try:
                    is_whole = self._pwrite(stream.fd, pack(sequence, payload), offset) == size
                except OSError as error:
                    return self._once_more(stream, payload, error)
                if not is_whole:
                    return self._once_more(stream, payload, OSError(errno.ENOSPC, "only a part was written"))
                stream.offset = offset + size
                try:
                    self._pwrite(self._counter, _PAIR(sequence, sequence ^ INVERT), stream.slot)
                except OSError:
                    self._is_stale = True
                return True
            finally:
                self._is_writing = False
                if self._waiting:
                    self.write(*self._waiting.pop(0))

    def note_kept(self, trace_id: str) -> None:
        """Keep every span of this trace, in every process, whatever the sample says."""
        try:
            with self._lock:
                self._kept.note(trace_id)
        except (OSError, ValueError) as error:
            self._say("a trace could not be noted as kept", error)

    def count_drop(self, reason: str) -> None:
        """Count a span that is lost: `write_failed` or `not_serialisable`."""
        with self._lock:
            self._drops[counters.REASONS.index(reason)] += 1
            self._is_stale = True
            if not self._is_writing:
                self._save_counters()

    @property
    def drops(self) -> dict[str, int]:
        """Spans lost by this process, by reason."""
        return {reason: count for reason, count in zip(counters.REASONS, self._drops, strict=True) if count}

    def sync(self) -> None:
        """Force what was written to the disk; the shipper does the same each second."""
        with self._lock:
            open_now = [stream.fd for stream in self._streams if stream.fd >= 0]
            finished, self._finished = self._finished, []
        try:
            for fd in open_now:
                self._disk.fdatasync(fd)
            # the notes, too: without them the spans of a trace that failed would be left out by sampling
            sync_files([*finished, self._folders.segments, self._folders.kept], self._disk)
            sync_names(self._folders.root, self._disk)
        except OSError as error:
            self._say("the spool could not be forced to the disk", error)

    def close(self) -> None:
        """Give the files back. A span that ends later is written all the same, as by a new writer."""
        with self._lock:
            if self._counter >= 0 or self._is_stale:
                self._save_counters()
            for stream in self._streams:
                self._leave(stream)
            notes, counter, finished = self._kept.release(), self._counter, self._finished
            self._renew()
            self._finished = finished
            self._close(notes)
            self._close(counter)  # last: while it is locked we are alive

    def pause(self, timeout_s: float) -> None:
        """Before a fork: wait for other threads' writes."""
        if self._lock.acquire(timeout=timeout_s):
            self._paused_by = threading.get_ident()

    def resume(self) -> None:
        """After a fork, in the parent."""
        if self._paused_by == threading.get_ident():
            self._paused_by = 0
            self._lock.release()

    def start_anew(self) -> None:
        """After a fork, in the child: the open files are the parent's."""
        open_files = [self._kept.release(), self._counter, *(stream.fd for stream in self._streams)]
        self._renew()
        for fd in open_files:
            self._close(fd)

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._name = ""
        self._counter = -1
        self._streams = tuple(_Stream(kind) for kind in SpanClass)
        self._drops = [0] * len(counters.REASONS)
        self._kept = KeptNotes(self._folders, self._disk)
        self._finished = []
        self._waiting: list[tuple[bytes, SpanClass]] = []
        self._is_writing = self._is_stale = False
        self._paused_by = 0
        self._failures = 0
        self._look_at = _now() + _LOOK_EVERY_S
        self._is_due = False

    def _close(self, fd: int) -> None:
        if fd >= 0:
            try:
                self._disk.close(fd)
            except OSError as error:
                self._say("a file of the spool could not be closed", error)

    def _make_ready(self, stream: _Stream, size: int) -> bool:
        """Have room for a frame; False when there is none, which is then counted."""
        now = _now()
        is_time = now >= self._look_at
        if is_time:
            self._look(now)
        if stream.offset + size <= stream.limit:
            self._extend(stream, size)
            return True
        if any(found.fd >= 0 for found in self._streams):
            self._failures = 0
        if self._failures >= _PATIENCE and not is_time:
            return self._fail(None)
        try:
            self._rotate(stream, size)
        except OSError as error:
            # where no new segment can be made the old one may grow to twice its size
            if stream.fd < 0 or stream.offset + size > 2 * self._segment_bytes:
                return self._fail(error)
            stream.limit = max(stream.limit, 2 * self._segment_bytes)
        self._extend(stream, size)
        return True

    def _extend(self, stream: _Stream, size: int) -> None:
        """Fill the next piece of the segment with zeros, so that one larger write does what many small ones would."""
        end = stream.offset + size
        if end <= stream.ready:
            return
        aim = min(stream.limit, (end // _PIECE + 1) * _PIECE)
        try:
            written = self._pwrite(stream.fd, bytes(aim - stream.ready), stream.ready)
        except OSError:  # the frame itself may still find room
            written = 0
        stream.ready = max(end, stream.ready + written)

    def _is_time(self) -> bool:
        """Whether a due look is for this span: not when it became due just now."""
        was_due, self._is_due = self._is_due, True
        return was_due or _now() >= self._look_at + _LOOK_AT_ONCE_S

    def _look(self, now: float) -> None:
        """Find out about files that somebody deleted under us, and write counters that could not be written."""
        self._look_at = now + _LOOK_EVERY_S
        self._is_due = False
        for stream in self._streams:
            if stream.fd >= 0 and self._is_gone(stream.fd):
                self._leave(stream)
        if self._counter >= 0 and self._is_gone(self._counter, counters.SIZE):
            old, self._counter = self._counter, -1
            self._save_counters()
            self._close(old)  # last, so that one of the two is locked all the time
        elif self._is_stale:
            self._save_counters()

    def _is_gone(self, fd: int, size: int = 0) -> bool:
        try:
            status = self._disk.fstat(fd)
        except OSError:
            return True
        return status.st_nlink == 0 or status.st_size < size

    def _rotate(self, stream: _Stream, size: int) -> None:
        self._folders.make()
        if self._counter < 0:
            self._save_counters()
        room = max(self._segment_bytes, heading.SIZE + size)
        others = sum(other.limit - other.offset for other in self._streams if other is not stream and other.fd >= 0)
        try:
            budget.enforce(self._folders, self._settings.max_bytes - room - others, self._disk)
        except OSError as error:
            self._say("no room could be made in the spool", error)
        if not stream.name:
            stream.name = stream_name(stream.kind, self._name)
        path = self._folders.segment(stream.name, stream.number + 1)
        fd = create_held(path, heading.heading(heading.SEGMENT), UPDATE, self._disk)
        self._leave(stream)
        stream.fd, stream.path, stream.number = fd, path, stream.number + 1
        stream.offset = stream.ready = heading.SIZE
        stream.limit = room

    def _leave(self, stream: _Stream) -> None:
        if stream.fd < 0:
            return
        # forgotten before it is closed: the number may belong to somebody else's file a moment later
        fd, stream.fd = stream.fd, -1
        end, stream.offset, stream.ready, stream.limit = stream.offset, 0, 0, 0
        if end > heading.SIZE:
            self._give_back(fd, end)
            self._finished.append(stream.path)
        else:
            unlink_if_there(stream.path, self._disk)
        self._close(fd)

    def _give_back(self, fd: int, end: int) -> None:
        """Cut off the zeros behind the last frame, and what a failed write may have left."""
        try:
            self._disk.truncate(fd, end)
        except OSError as error:
            self._say("a segment of the spool keeps zeros at its end", error)

    def _once_more(self, stream: _Stream, payload: bytes, error: OSError) -> bool:
        """Try the next segment, unless the failed one was new."""
        stream.sequence -= 1
        was_used = stream.offset > heading.SIZE
        self._leave(stream)
        if not was_used:
            return self._fail(error)
        self._is_writing = False
        return self.write(payload, stream.kind)

    def _fail(self, error: OSError | None) -> bool:
        self._failures += 1
        self._drops[counters.REASONS.index("write_failed")] += 1
        self._is_stale = True
        if error is not None or self._counter >= 0:
            self._save_counters()
        if error is not None:
            self._say("spans are lost, the spool cannot be written", error)
        return False

    def _save_counters(self) -> None:
        """Write all counters; what fails is tried again at the next look."""
        content = counters.content([stream.sequence for stream in self._streams], self._drops)
        try:
            if self._counter >= 0:
                self._pwrite(self._counter, content, 0)
            else:
                self._name = self._name or writer_name()
                self._counter = create_held(self._folders.counter(self._name), content, UPDATE, self._disk)
            self._is_stale = False
        except OSError as error:
            self._is_stale = True
            self._say("the spool's counters cannot be written", error)

    def _say(self, what: str, error: Exception) -> None:
        """Once per kind of trouble and process."""
        if what not in self._said:
            self._said.add(what)
            _log.warning("%s: %s", what, error)


_WRITERS: WeakSet[SpoolWriter] = WeakSet()
_FORK_WAIT_S = 1.0


def _before_fork() -> None:
    """No other thread is in the middle of a write when the process is copied."""
    for writer in list(_WRITERS):
        writer.pause(_FORK_WAIT_S)


def _after_fork_in_parent() -> None:
    for writer in list(_WRITERS):
        writer.resume()


def _after_fork_in_child() -> None:
    for writer in list(_WRITERS):
        writer.start_anew()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
