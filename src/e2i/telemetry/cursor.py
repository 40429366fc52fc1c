"""Small files that are replaced whole: a reader sees the old one or the new one, also after a crash."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import orjson

from e2i.telemetry.state import SinkState

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)
_FSYNC_EVERY_S = 0.5


class CursorFile:
    """`sinks/<sink>.json`: a sink's state in the spool's folder.

    Forced to the disk at most twice a second: after a power cut it is that much older, which leads to spans that come twice.
    A file that cannot be read is set aside by its owner, the shipper; the sink then begins at the oldest place that any sink still needs.
    """

    def __init__(self, folder: Path, sink: str, *, is_owner: bool = True) -> None:
        self.path = folder / "sinks" / f"{sink}.json"
        self._is_owner = is_owner
        self._spool_id = ""
        self._latest: SinkState | None = None
        self._forced = 0.0

    def read(self, spool_id: str) -> SinkState | None:
        """The state kept for this spool; None where there is none."""
        if self._latest is None or self._spool_id != spool_id:
            self._spool_id, self._latest = spool_id, self._from_disk(spool_id)
        return self._latest

    async def write(self, state: SinkState) -> None:
        """Replace the file. Raises OSError."""
        text = orjson.dumps({"spool": self._spool_id, **state.to_json()})
        is_due = time.monotonic() - self._forced >= _FSYNC_EVERY_S
        if is_due:
            await asyncio.to_thread(replace_file, self.path, text, is_forced=True)
            self._forced = time.monotonic()
        else:
            replace_file(self.path, text)
        self._latest = state

    def _from_disk(self, spool_id: str) -> SinkState | None:
        found = read_json(self.path, sets_aside=self._is_owner)
        if found is None or found.get("spool") != spool_id:
            return None
        try:
            return SinkState.from_json(found)
        except ValueError as error:
            if self._is_owner:
                set_aside(self.path, str(error))
            return None


def read_json(path: Path, *, sets_aside: bool) -> dict[str, Any] | None:
    """The object in the file; None where there is none, or none that can be read: `sets_aside` then moves it out of the way."""
    try:
        found = orjson.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
        why = "not a JSON object"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = str(error)
    if sets_aside:
        set_aside(path, why)
    return None


def set_aside(path: Path, why: str) -> None:
    """Keep what cannot be read for whoever wants to look at it; the next write begins anew."""
    aside = path.with_suffix(".corrupt")
    _log.warning("%s cannot be read and is kept as %s: %s", path.name, aside.name, why)
    try:
        path.replace(aside)
    except OSError as error:
        _log.warning("%s cannot be renamed: %s", path.name, error)


def replace_file(path: Path, content: bytes, *, is_forced: bool = False) -> None:
    """Write beside the file, then take its place. `is_forced`: on the disk when this returns. Raises OSError.

    Where a full disk has no room beside the file it is written over: what is torn then is set aside at the next start.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        _write(beside, content, os.O_CREAT | os.O_TRUNC, is_forced=is_forced)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC or not path.exists():
            raise
        _write(path, content, 0, is_forced=is_forced)
        return
    beside.replace(path)
    if is_forced:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(path: Path, content: bytes, flags: int, *, is_forced: bool) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600), "wb") as file:
        file.write(content)
        file.truncate()
        if is_forced:
            file.flush()
            os.fsync(file.fileno())
