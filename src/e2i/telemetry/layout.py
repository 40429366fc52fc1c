"""The names of files in a spool folder."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT = ".seg"
GONE = ".gone"
COUNT = ".count"


class SpanClass(IntEnum):
    """How dear a span is; the highest number goes first when room is needed."""

    ERROR = 0
    """an error, or of a listed agent"""
    KEPT = 1
    """its trace is in the sample"""
    MAYBE = 2
    """its trace is not in the sample; it waits for an error or a listed agent in the trace"""


@dataclass(frozen=True)
class Folders:
    """Where things are in a spool."""

    root: Path

    @property
    def segments(self) -> Path:
        """Spans, and `.gone` files that say which were deleted for room."""
        return self.root / "segments"

    @property
    def writers(self) -> Path:
        """One counter file per writing process."""
        return self.root / "writers"

    @property
    def kept(self) -> Path:
        """The ids of traces that are kept whatever the sample says."""
        return self.root / "kept.log"

    @property
    def kept_before(self) -> Path:
        """The generation of `kept.log` before."""
        return self.root / "kept.old.log"

    def segment(self, stream: str, number: int) -> Path:
        """One segment."""
        return self.segments / f"{stream}-{number:08d}{SEGMENT}"

    def gone(self, stream: str) -> Path:
        """What was deleted of a stream for room."""
        return self.segments / f"{stream}{GONE}"

    def counter(self, writer: str) -> Path:
        """A writer's counter file."""
        return self.writers / f"{writer}{COUNT}"

    def make(self) -> None:
        """Make the folders, closed to other users. Raises OSError."""
        for folder in (self.root, self.segments, self.writers):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def writer_name() -> str:
    """A new name for a writer in this process: `<pid>-<8 hex>`."""
    return f"{os.getpid()}-{os.urandom(4).hex()}"


def stream_name(kind: SpanClass, writer: str) -> str:
    """A new stream's name: `<class>-<time_ns>-<writer>`; names sort by age within a class."""
    return f"{int(kind)}-{time.time_ns():020d}-{writer}"


def writer_of(stream: str) -> str:
    """The writer in a stream's name."""
    return stream.split("-", 2)[2]


def kind_of(stream: str) -> SpanClass:
    """The class in a stream's name."""
    return SpanClass(int(stream[0]))


def parse_segment(name: str) -> tuple[str, int] | None:
    """(stream, number) of a segment's file name; None for other files."""
    if not name.endswith(SEGMENT):
        return None
    stream, _, number = name[: -len(SEGMENT)].rpartition("-")
    return (stream, int(number)) if number.isdecimal() and is_stream(stream) else None


def is_stream(name: str) -> bool:
    """Whether this is a stream's name."""
    parts = name.split("-")
    return len(parts) == 4 and parts[0] in {"0", "1", "2"} and parts[1].isdecimal() and parts[2].isdecimal() and bool(parts[3])
