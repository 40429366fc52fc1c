"""A writer's counters on disk: how many frames of each class it wrote, and how many spans it had to drop, by reason.

Each number stands twice, the second time inverted, so that a damaged one is known; each is written in place after the fact that it counts.
The file is locked by its writer as long as the process lives.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from e2i.telemetry import heading
from e2i.telemetry.disk import MODE, READ, Disk
from e2i.telemetry.layout import SpanClass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REASONS = ("write_failed", "not_serialisable")
PAIR = struct.Struct("<QQ")
INVERT = (1 << 64) - 1
_SLOTS = len(SpanClass) + len(REASONS)
SIZE = heading.SIZE + PAIR.size * _SLOTS
_RETRIES = 3


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a counter file says. A damaged number is missing."""

    written: dict[SpanClass, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    is_foreign: bool = False
    """written by a later version of E2I"""


def content(written: Sequence[int], dropped: Sequence[int]) -> bytes:
    """A whole counter file: frames by class, drops by reason."""
    return heading.heading(heading.COUNTER) + b"".join(PAIR.pack(value, value ^ INVERT) for value in (*written, *dropped))


def offset_of(slot: int) -> int:
    """Where a counter stands: the classes first, then the reasons."""
    return heading.SIZE + slot * PAIR.size


def read(path: Path, disk: Disk) -> Counts:
    """The counters of a writer; empty when the file is missing, empty or damaged."""
    try:
        fd = disk.open(path, READ, MODE)
    except OSError:
        return Counts()
    try:
        for _ in range(_RETRIES):  # a number may be half written at this moment
            counts, is_whole = _parse(disk.pread(fd, SIZE, 0))
            if is_whole:
                break
    except OSError:
        return Counts()
    finally:
        disk.close(fd)
    return counts


def _parse(data: bytes) -> tuple[Counts, bool]:
    if heading.is_foreign(heading.COUNTER, data):
        return Counts(is_foreign=True), True
    values: list[int | None] = []
    for slot in range(_SLOTS):
        pair = data[offset_of(slot) : offset_of(slot + 1)]
        value, inverted = PAIR.unpack(pair) if len(pair) == PAIR.size else (0, 0)
        values.append(value if value ^ INVERT == inverted else None)
    written = {kind: value for kind, value in zip(SpanClass, values, strict=False) if value is not None}
    dropped = {reason: value for reason, value in zip(REASONS, values[len(SpanClass) :], strict=True) if value}
    return Counts(written=written, dropped=dropped), None not in values
