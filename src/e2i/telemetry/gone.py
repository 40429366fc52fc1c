"""What was deleted for room: one small `.gone` file per stream, so that the loss is known by its reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from e2i.telemetry.disk import MODE, READ, Disk, replace

if TYPE_CHECKING:
    from pathlib import Path

Range = tuple[int, int | None]
"""first and last sequence; no last one where the writer was still at it: then it ends where the next segment begins"""
_LARGEST = 1 << 26


def read(path: Path, disk: Disk) -> list[Range]:
    """What a stream lost for room; empty when there is no such file or it is damaged."""
    try:
        fd = disk.open(path, READ, MODE)
    except OSError:
        return []
    try:
        found = json.loads(disk.pread(fd, min(disk.fstat(fd).st_size, _LARGEST), 0))
        return [(int(first), None if last is None else int(last)) for first, last in found["gone"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    finally:
        disk.close(fd)


def add(path: Path, lost: Range, disk: Disk) -> None:
    """Write one more down; neighbours become one. Raises OSError."""
    ranges = read(path, disk)
    first, last = lost
    if ranges and (ranges[-1][1] is None or ranges[-1][1] + 1 >= first):
        before = ranges.pop()
        first, last = before[0], last if last is None else max(last, before[1] or 0)
    replace(path, json.dumps({"version": 1, "gone": [*ranges, (first, last)]}).encode(), disk)


def share(ranges: list[Range], first: int, last: int) -> int:
    """How many of the sequences from `first` to `last` were deleted for room."""
    return sum(max(0, min(last, last if high is None else high) - max(first, low) + 1) for low, high in ranges)
