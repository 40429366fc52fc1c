"""A disk that fails or stops at a chosen call, and what is left of a spool afterwards."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from e2i.telemetry.disk import Disk
from e2i.telemetry.reader import Position, SpoolReader
from e2i.telemetry.spool import SpanClass, SpoolSettings, SpoolWriter

Fate = Callable[[str, int], None]
"""told a call's name and number; raises to make it fail"""


QUICK = Disk(fdatasync=lambda fd: None)
"""does not wait for the medium: nobody pulls the plug in a test"""


def never(name: str, number: int) -> None:
    """All is well."""


@dataclass
class Watched:
    """Real system calls, with something that happens before or after some of them; `half` names the writes that stop midway."""

    before: Fate = never
    after: Fate = never
    half: frozenset[int] = frozenset()
    calls: list[str] = field(default_factory=list)

    def disk(self) -> Disk:
        """The disk to give to a writer or reader."""
        real = QUICK
        return Disk(**{found.name: self._wrap(found.name, getattr(real, found.name)) for found in fields(Disk)})

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            self.calls.append(name)
            number = len(self.calls)
            try:
                self.before(name, number)
            except OSError:
                if name == "close":  # a failed close has closed all the same
                    call(*arguments)
                raise
            if number in self.half and name in {"write", "pwrite"}:
                fd, data, *rest = arguments
                return call(fd, data[: len(data) // 2], *rest)
            result = call(*arguments)
            self.after(name, number)
            return result

        return watched


def failing_at(number: int, code: int) -> Fate:
    """The call with this number fails."""

    def fate(name: str, at: int) -> None:
        if at == number:
            raise OSError(code, os.strerror(code), name)

    return fate


def failing_in(first: int, last: int, code: int) -> Fate:
    """All calls from `first` to `last` fail."""

    def fate(name: str, at: int) -> None:
        if first <= at <= last:
            raise OSError(code, os.strerror(code), name)

    return fate


def killed_at(number: int) -> Fate:
    """The process ends at this call as by `kill -9`."""

    def fate(name: str, at: int) -> None:
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return fate


FAULTS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS)


@dataclass
class Left:
    """What a reader finds."""

    payloads: list[bytes]
    lost: Counter[str]
    drops: Counter[str]
    emitted: int
    """frames that writers say they wrote or that can be read, and drops"""

    @property
    def accounted(self) -> int:
        """Spans that can be read or are counted as lost."""
        return len(self.payloads) + self.lost.total() + self.drops.total()


def settings(folder: Path, *, max_bytes: int = 1 << 24, segment_bytes: int = 4096) -> SpoolSettings:
    """Small segments."""
    return SpoolSettings(folder=folder, max_bytes=max_bytes, segment_bytes=segment_bytes)


def fill(writer: SpoolWriter, count: int, *, size: int = 200, start: int = 0) -> int:
    """Write spans of all classes; how many the writer took."""
    return sum(writer.write(f"{number:08d}".encode().ljust(size, b"."), SpanClass(number % 3)) for number in range(start, start + count))


def drain(folder: Path, *, max_frames: int = 7, max_bytes: int = 3000, reader: SpoolReader | None = None) -> Left:
    """Read everything, in small pieces."""
    reader = reader or SpoolReader(folder, disk=QUICK)
    payloads: list[bytes] = []
    lost: Counter[str] = Counter()
    emitted = 0
    for stream in reader.streams():
        position = Position()
        while True:
            chunk = reader.read(stream.name, position, max_frames=max_frames, max_bytes=max_bytes)
            payloads += [payload for _, payload in chunk.frames]
            lost.update(chunk.lost)
            position = chunk.position
            if chunk.at_end and not chunk.frames:
                break
        emitted += max(position.sequence, stream.acknowledged)
    drops: Counter[str] = Counter()
    for reasons in reader.writer_drops().values():
        drops.update(reasons)
    return Left(payloads, lost, drops, emitted + drops.total())
