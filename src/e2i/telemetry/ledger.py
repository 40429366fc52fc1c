"""What the shipper knows about the spool as a whole, beside the cursor of each sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from e2i.telemetry.cursor import read_json, replace_file, set_aside
from e2i.telemetry.reader import Position
from e2i.telemetry.state import added

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
NAME = "ledger.json"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Durable before the files it speaks of are deleted."""

    floors: Mapping[str, Position] = field(default_factory=dict)
    """per stream: every sink is done with what stands before, and its segments may be gone; a new sink begins here"""
    writers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """writer -> reason -> spans it could not write, of writers whose counter file may be gone"""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """the same of writers whose counter file is gone, summed"""

    def drops(self, counted: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """Spans that no writer could write, by reason: those here and those in the counter files."""
        total = dict(self.dropped)
        for writer in {*self.writers, *counted}:
            total = added(total, {**self.writers.get(writer, {}), **counted.get(writer, {})})
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "floors": {name: [place.segment, place.offset, place.sequence] for name, place in self.floors.items()},
            "writers": {name: dict(reasons) for name, reasons in self.writers.items()},
            "dropped": dict(self.dropped),
        }


def read_ledger(spool: Path, *, sets_aside: bool) -> Ledger:
    """The ledger of a spool; empty where there is none. A damaged one is moved out of the way by the shipper, its owner."""
    found = read_json(spool / NAME, sets_aside=sets_aside)
    if found is None:
        return Ledger()
    try:
        return Ledger(
            floors={str(name): Position(int(place[0]), int(place[1]), int(place[2])) for name, place in found["floors"].items()},
            writers={str(name): {str(why): int(count) for why, count in reasons.items()} for name, reasons in found["writers"].items()},
            dropped={str(why): int(count) for why, count in found["dropped"].items()},
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if sets_aside:
            set_aside(spool / NAME, repr(error))
        return Ledger()


def write_ledger(spool: Path, ledger: Ledger) -> None:
    """Replace the ledger; on the disk when this returns. Raises OSError."""
    replace_file(spool / NAME, orjson.dumps(ledger.to_json()), is_forced=True)
