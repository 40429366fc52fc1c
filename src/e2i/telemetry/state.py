"""How far one sink has come in the spool, and where every span that it passed went."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from e2i.telemetry.reader import Position

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FORMAT = 1
QUARANTINED = "quarantined"
REJECTED = "rejected"
"""refused for good by a sink that did not say which ones (OTLP's partial success)"""
RESTORED = "restored"
"""delivered once, then gone with a database that was put back to an earlier state"""


@dataclass(frozen=True, slots=True)
class Reached:
    """One sink's place in one stream."""

    position: Position
    base: int = 0
    """sequence number after which this sink began: 0, or where the others were when it was new"""

    @property
    def passed(self) -> int:
        """Spans of the stream that this sink is done with."""
        return self.position.sequence - self.base


@dataclass(frozen=True, kw_only=True)
class SinkState:
    """Absolute, never a difference. At every moment `passed` = `accounted`; what differs is a fault of ours."""

    streams: Mapping[str, Reached] = field(default_factory=dict)
    retired: int = 0
    """spans of streams that are gone from the spool"""
    delivered: int = 0
    sampled_out: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def accounted(self) -> int:
        """Spans whose fate is known."""
        return self.delivered + self.sampled_out + sum(self.dropped.values())

    @property
    def passed(self) -> int:
        """Spans that the cursor has gone past."""
        return self.retired + sum(reached.passed for reached in self.streams.values())

    def with_rejected(self, spans: int) -> SinkState:
        """`spans` of those counted as delivered were refused for good."""
        if not spans:
            return self
        return replace(self, delivered=self.delivered - spans, dropped=added(self.dropped, {REJECTED: spans}))

    def with_quarantined(self) -> SinkState:
        """One of those counted as delivered was put aside."""
        return replace(self, delivered=self.delivered - 1, dropped=added(self.dropped, {QUARANTINED: 1}))

    def without(self, gone: Collection[str]) -> SinkState:
        """Streams that are gone become a number."""
        retired = self.retired + sum(self.streams[name].passed for name in gone)
        return replace(self, retired=retired, streams={name: kept for name, kept in self.streams.items() if name not in gone})

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a file or a JSON column."""
        return {
            "format": FORMAT,
            "streams": {
                name: [reached.position.segment, reached.position.offset, reached.position.sequence, reached.base]
                for name, reached in self.streams.items()
            },
            "retired": self.retired,
            "delivered": self.delivered,
            "sampled_out": self.sampled_out,
            "dropped": dict(self.dropped),
        }

    @staticmethod
    def from_json(found: Any) -> SinkState:
        """The inverse of `to_json`. Raises ValueError for anything else, also for a later format."""
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError("not a sink's state of this version")
        try:
            streams = {}
            for name, (segment, offset, sequence, base) in found["streams"].items():
                position = Position(segment=int(segment), offset=int(offset), sequence=int(sequence))
                streams[str(name)] = Reached(position, int(base))
            return SinkState(
                streams=streams,
                retired=int(found["retired"]),
                delivered=int(found["delivered"]),
                sampled_out=int(found["sampled_out"]),
                dropped={str(reason): int(count) for reason, count in found["dropped"].items()},
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a sink's state: {exc!r}") from exc


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Both together, without zeros."""
    names = [*counts, *(name for name in more if name not in counts)]
    return {name: total for name in names if (total := counts.get(name, 0) + more.get(name, 0))}


def reconciled(loaded: SinkState | None, remembered: SinkState | None, starts: Mapping[str, Position]) -> SinkState:
    """The state to go on from, after a start or a time without contact.

    Parameters
    ----------
    loaded : what the sink kept; None for a sink that never was given anything: it begins where the spool begins
    remembered : what the spool's folder knows; ahead of `loaded` only when the sink was put back in time
    starts : of every stream that the spool holds, the place before which its segments may be gone because every sink was done with them

    Returns
    -------
    SinkState
        What a restored database lost and the spool no longer holds is counted as dropped, never waited for.
    """
    if loaded is None:
        return SinkState()
    if remembered is None or remembered.accounted <= loaded.accounted:
        streams = {name: Reached(_later(reached.position, starts.get(name)), reached.base) for name, reached in loaded.streams.items()}
        lost = sum(streams[name].passed - reached.passed for name, reached in loaded.streams.items())
        return replace(loaded, streams=streams, dropped=added(loaded.dropped, {RESTORED: lost}))
    streams, again = {}, 0
    for name, reached in remembered.streams.items():
        here = reached.position
        if name in starts:
            old = loaded.streams.get(name)
            here = _later(old.position if old else Position(sequence=reached.base), starts[name])
        streams[name] = Reached(here, reached.base)
        again += reached.position.sequence - here.sequence
    lost = remembered.accounted - loaded.accounted - again
    return replace(loaded, streams=streams, retired=remembered.retired, dropped=added(loaded.dropped, {RESTORED: lost}))


def _later(position: Position, start: Position | None) -> Position:
    return start if start is not None and start.sequence > position.sequence else position
