"""Records that a sink refuses, put aside with the reason: `quarantine/<sink>.jsonl`, bounded."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 8 * 1024 * 1024
"""bytes of a file; then it becomes `<sink>.old.jsonl`, and the one that had that name goes"""


class Quarantine:
    """One sink's. A line: `at`, `reason`, `record` (the frame's payload as it stood in the spool)."""

    def __init__(self, folder: Path, sink: str, *, limit: int = LIMIT) -> None:
        self.path = folder / "quarantine" / f"{sink}.jsonl"
        self._limit = limit

    def add(self, payload: bytes, reason: str) -> None:
        """Keep one record; on the disk when this returns. Raises OSError."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = orjson.dumps({"at": moment, "reason": reason, "record": payload.decode("utf-8", "replace")}) + b"\n"
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size + len(line) > self._limit:
            self.path.replace(self.path.with_suffix(".old.jsonl"))
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
