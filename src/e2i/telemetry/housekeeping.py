"""What keeps the spool small and its state known: deletion, disk budget, the status file."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from e2i.telemetry.cursor import read_json, replace_file
from e2i.telemetry.disk import Disk, sync_files
from e2i.telemetry.layout import SpanClass
from e2i.telemetry.ledger import Ledger, read_ledger, write_ledger
from e2i.telemetry.reader import Position
from e2i.telemetry.state import added

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from e2i.telemetry.delivery import Delivery, ShipperSettings, View
    from e2i.telemetry.gather import Clock
    from e2i.telemetry.reader import SpoolReader

_log = logging.getLogger(__name__)
_STATUS = "status.json"
_STATUS_EVERY_S = 5.0
_KEPT_FOR_WAITS = 4
_KEPT_LEAST_S = 600.0


class Housekeeping:
    """Belongs to the shipper; one round is `tend`."""

    def __init__(
        self, folder: Path, reader: SpoolReader, deliveries: Sequence[Delivery], settings: ShipperSettings, *, clock: Clock
    ) -> None:
        self._folder = folder
        self._reader = reader
        self._deliveries = deliveries
        self._settings = settings
        self._clock = clock
        self.ledger = read_ledger(folder, sets_aside=True)
        self._status: dict[str, Any] = {}
        self._status_at = float("-inf")
        self._kept_since = clock.monotonic()
        self._undecided: dict[str, int] = {}

    def drop_removed_sinks(self) -> None:
        """A sink that is no longer configured keeps no segment; its last state stays beside the others, as `.removed`."""
        names = {delivery.name for delivery in self._deliveries}
        for path in sorted((self._folder / "sinks").glob("*.json")):
            if path.stem not in names:
                _log.warning("%s is no longer a sink of this spool; its cursor is kept as %s.removed", path.stem, path.stem)
                path.replace(path.with_suffix(".removed"))

    def tend(self, view: View) -> None:
        """One round. Raises OSError."""
        present = {stream.name for stream in view.streams}
        for delivery in self._deliveries:
            delivery.forget_gone(present)
        try:
            if self._deliveries:
                self._release(view)
                self._retire(view)
        finally:  # a full disk may refuse the ledger; the budget then still makes room
            self._reader.enforce_budget(self._settings.max_bytes)
        self._rotate_kept(view)
        self.write_status()

    def write_status(self, *, is_final: bool = False) -> None:
        """For other processes: breaker and last error of each sink. Raises OSError."""
        sinks = {}
        for delivery in self._deliveries:
            health = delivery.health()
            sinks[delivery.name] = {"breaker": str(health.breaker), "last_error": health.last_error}
        now = self._clock.monotonic()
        if not is_final and sinks == self._status and now - self._status_at < _STATUS_EVERY_S:
            return
        self._status, self._status_at = sinks, now
        report = {"pid": None if is_final else os.getpid(), "at_ns": self._clock.now_ns(), "sinks": sinks}
        replace_file(self._folder / _STATUS, orjson.dumps(report))

    def _release(self, view: View) -> None:
        """Delete whole segments that every sink is past; first it is written down how far that is."""
        moved: dict[str, Position] = {}
        for stream in view.streams:
            places = [delivery.reached(stream.name) for delivery in self._deliveries]
            known = [place for place in places if place is not None]
            if len(known) < len(places):
                continue
            floor = min(known, key=lambda place: place.sequence)
            if floor.segment > self.ledger.floors.get(stream.name, Position()).segment:
                moved[stream.name] = self._beginning(stream.name, floor)
        if not moved:
            return
        self._force_places()
        ledger = replace(self.ledger, floors={**self.ledger.floors, **moved})
        try:
            self._write(ledger)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._delete_before(moved)  # room first: every sink is durably past what goes
            self._write(ledger)
        self._delete_before(moved)

    def _delete_before(self, floors: Mapping[str, Position]) -> None:
        for name, floor in floors.items():
            self._reader.release(name, floor)

    def _beginning(self, stream: str, floor: Position) -> Position:
        """The first place of the floor's segment: what still stands there is given to a new sink and to a restored database."""
        frames = self._reader.read(stream, Position(segment=floor.segment), max_frames=1, max_bytes=1).frames
        before = frames[0][0] - 1 if frames else floor.sequence
        return Position(segment=floor.segment, sequence=before) if before < floor.sequence else floor

    def _retire(self, view: View) -> None:
        """Delete what is left of dead writers once every sink is done with it; their losses are written down first."""
        over = [stream for stream in view.streams if not stream.is_alive and all(d.is_done_with(stream.name) for d in self._deliveries)]
        without = self._reader.writers_without_stream()
        counted = self._reader.writer_drops()
        leaving = {stream.writer for stream in over} | set(without)
        writers = {**self.ledger.writers, **{name: counted[name] for name in leaving if counted.get(name)}}
        floors = {stream.name: self.ledger.floors[stream.name] for stream in view.streams if stream.name in self.ledger.floors}
        if over:
            self._force_places()
        self._write(_folded(replace(self.ledger, floors=floors), writers, counted))
        for stream in over:
            self._reader.retire(stream.name)
        for name in without:
            self._reader.retire_writer(name)
        if over or without:  # before the places in these streams are forgotten
            self._reader.sync_deletions()

    def _force_places(self) -> None:
        """Before segments go: a place that is older than they are would count them as lost after a power cut."""
        sinks = self._folder / "sinks"
        sync_files([*sorted(sinks.glob("*.json")), sinks], Disk())

    def _write(self, ledger: Ledger) -> None:
        if ledger != self.ledger:
            write_ledger(self._folder, ledger)
            self.ledger = ledger

    def _rotate_kept(self, view: View) -> None:
        """Notes of kept traces go when every span that may have waited for them is decided by every sink."""
        now = self._clock.monotonic()
        if now - self._kept_since < max(_KEPT_LEAST_S, _KEPT_FOR_WAITS * self._settings.decision_wait_s):
            return
        for name, last in self._undecided.items():
            places = [delivery.reached(name) for delivery in self._deliveries]
            if any(stream.name == name for stream in view.streams) and any(p is None or p.sequence < last for p in places):
                return
        self._reader.rotate_kept()
        self._kept_since = now
        self._undecided = {stream.name: stream.acknowledged for stream in view.streams if stream.kind is SpanClass.MAYBE}


def _folded(ledger: Ledger, writers: Mapping[str, Mapping[str, int]], counted: Mapping[str, Mapping[str, int]]) -> Ledger:
    """Writers whose counter file is gone become a sum."""
    dropped, left = dict(ledger.dropped), {}
    for name, reasons in writers.items():
        if name in counted:
            left[name] = reasons
        else:
            dropped = added(dropped, reasons)
    return replace(ledger, writers=left, dropped=dropped)


def read_status(folder: Path) -> dict[str, dict[str, Any]]:
    """Sink -> `breaker`, `last_error`, as the shipper last wrote them; empty when it never did."""
    found = read_json(folder / _STATUS, sets_aside=False) or {}
    sinks = found.get("sinks")
    return sinks if isinstance(sinks, dict) else {}
