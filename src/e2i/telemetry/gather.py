"""The next spans for one sink, out of all streams of the spool, and the state that holds once it has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from e2i.telemetry.frames import decode
from e2i.telemetry.layout import SpanClass
from e2i.telemetry.reader import Position
from e2i.telemetry.state import QUARANTINED, Reached, SinkState, added

if TYPE_CHECKING:
    from e2i.domain.telemetry import SpanRecord
    from e2i.telemetry.reader import Chunk, SpoolReader, Stream

_LEAST_SHARE = 64
_LOOK_ANYWAY_S = 1.0
_JUMP_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Both clocks, so that a test can run days in no time. The wall clock may jump; the other may not."""

    now_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One batch. `state` may be kept once `spans` are delivered."""

    spans: list[SpanRecord]
    payloads: list[bytes]
    state: SinkState
    left_out: list[SpanRecord] = field(default_factory=list)
    """what sampling leaves out; `state` counts them as sampled out"""
    broken: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """frames that are whole and no spans: (stream, sequence) -> payload"""
    ended: frozenset[str] = frozenset()
    """streams of dead writers that are read to their end"""
    is_full: bool = False
    """there may be more"""


@dataclass(slots=True)
class _Choice:
    spans: list[SpanRecord] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    left_out: list[SpanRecord] = field(default_factory=list)
    broken: dict[tuple[str, int], bytes] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Draft:
    streams: dict[str, Reached]
    bytes_left: int
    spans: list[SpanRecord] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    left_out: list[SpanRecord] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    broken: dict[tuple[str, int], bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    has_more: bool = False


class Patience:
    """When a span whose trace is not in the sample has waited long enough for an error in the same trace.

    A wall clock that jumps would end the wait too early or never: after a jump everything waits the full time once more, and a span that
    seems to end far in the future has waited enough.
    """

    def __init__(self, wait_s: float, clock: Clock) -> None:
        self._wait_ns = int(wait_s * 1e9)
        self._clock = clock
        self._offset = self._now_offset()
        self._hold_until = float("-inf")

    def look(self) -> None:
        """Notice a jump of the wall clock; called once a round."""
        offset = self._now_offset()
        if abs(offset - self._offset) > _JUMP_S:
            self._hold_until = self._clock.monotonic() + self._wait_ns / 1e9
        self._offset = offset

    def remaining_s(self, ended_ns: int) -> float:
        """Seconds to wait for a decision; 0 when it can be taken."""
        held = max(0.0, self._hold_until - self._clock.monotonic())
        age = self._clock.now_ns() - ended_ns
        due = 0.0 if age >= self._wait_ns or age < -self._wait_ns else (self._wait_ns - age) / 1e9
        return max(held, due)

    def _now_offset(self) -> float:
        return self._clock.now_ns() / 1e9 - self._clock.monotonic()


class Gatherer:
    """Reads for one sink. Streams take turns, so that a long backlog of one process does not keep the others waiting."""

    def __init__(self, reader: SpoolReader, patience: Patience, clock: Clock, *, max_bytes: int) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._span_bytes = float(max_bytes)
        """of a span, on average, in the last parcel"""
        self._waiting = 0
        self._patience = patience
        self._clock = clock
        self._turn = 0
        self._ended: set[str] = set()
        self._resting: dict[str, float] = {}
        self._looked = float("-inf")
        self._unreadable: dict[str, str] = {}

    def next_parcel(
        self, state: SinkState, streams: Sequence[Stream], floors: Mapping[str, Position], *, limit: int, in_turn: bool = True
    ) -> Parcel:
        """At most `limit` spans and `max_bytes`; the same again as long as `state` is the same and `in_turn` is false."""
        self._patience.look()
        draft = _Draft(streams=dict(state.streams), bytes_left=self._max_bytes)
        waiting = self._with_work(draft.streams, streams, floors)
        if in_turn:
            self._turn += 1
        start = self._turn % len(waiting) if waiting else 0
        order = waiting[start:] + waiting[:start]
        for done, stream in enumerate(order):
            room = limit - len(draft.spans)
            if room <= 0 or draft.bytes_left <= 0:
                draft.has_more = True
                break
            share = max(min(room, _LEAST_SHARE), room // (len(order) - done))
            self._take(draft, stream, max_frames=share, max_bytes=max(1, draft.bytes_left * share // room))
        if frames := len(draft.spans) + len(draft.left_out) + len(draft.broken):
            self._span_bytes = (self._max_bytes - draft.bytes_left) / frames
        return self._sealed(state, draft)

    def is_worth_while(self, state: SinkState, streams: Sequence[Stream], *, limit: int) -> bool:
        """Whether the next parcel may be a full one, or no others come to join it: by what the writers say, without reading a span."""
        passed = {name: place.position.sequence for name, place in state.streams.items()}
        waiting = sum([max(0, stream.acknowledged - passed.get(stream.name, 0)) for stream in streams])
        is_quiet, self._waiting = waiting == self._waiting, waiting
        return is_quiet or waiting >= limit or waiting * self._span_bytes >= self._max_bytes

    @property
    def trouble(self) -> str | None:
        """Why a part of the spool cannot be read; None while all of it can."""
        return next(iter(self._unreadable.values()), None)

    def commit(self, parcel: Parcel) -> None:
        """The parcel's state is durable."""
        self._ended |= parcel.ended

    def is_done_with(self, stream: str) -> bool:
        """Whether everything that a dead writer left in this stream is behind us for good."""
        return stream in self._ended

    def begin_again(self) -> None:
        """The sink was put back in time: streams that it was done with may hold what it lost."""
        self._ended.clear()

    def forget(self, present: set[str]) -> None:
        """Streams that are gone need no memory."""
        self._ended &= present
        self._unreadable = {name: why for name, why in self._unreadable.items() if name in present}
        self._resting = {name: until for name, until in self._resting.items() if name in present}

    def _with_work(self, reached: dict[str, Reached], streams: Sequence[Stream], floors: Mapping[str, Position]) -> list[Stream]:
        now = self._clock.monotonic()
        look_anyway = now - self._looked >= _LOOK_ANYWAY_S
        if look_anyway:
            self._looked = now
        found = []
        for stream in streams:
            name = stream.name
            if name in self._ended or self._resting.get(name, now) > now:
                continue
            if name not in reached:
                begin = floors.get(name, Position())
                reached[name] = Reached(begin, begin.sequence)
            # A counter may be damaged, so a living writer's stream is looked at now and then whatever its counter says.
            if not stream.is_alive or look_anyway or stream.acknowledged > reached[name].position.sequence:
                found.append(stream)
        return found

    def _take(self, draft: _Draft, stream: Stream, *, max_frames: int, max_bytes: int) -> None:
        place = draft.streams[stream.name]
        try:
            chunk = self._reader.read(stream.name, place.position, max_frames=max_frames, max_bytes=max_bytes)
            found, taken = self._chosen(stream, chunk)
            if taken < len(chunk.frames):
                if not taken:
                    return
                chunk = self._reader.read(stream.name, place.position, max_frames=taken, max_bytes=max_bytes)
        except OSError as error:
            self._resting[stream.name] = self._clock.monotonic() + _LOOK_ANYWAY_S
            self._unreadable[stream.name] = f"a part of the spool cannot be read: {error}"
            return
        self._unreadable.pop(stream.name, None)
        draft.streams[stream.name] = Reached(chunk.position, place.base)
        draft.spans += found.spans
        draft.payloads += found.payloads
        draft.left_out += found.left_out
        draft.broken |= found.broken
        draft.lost = added(draft.lost, chunk.lost)
        draft.bytes_left -= sum([len(payload) for _, payload in chunk.frames])
        if not chunk.at_end:
            draft.has_more = True
        elif not stream.is_alive:
            draft.ended.add(stream.name)

    def _chosen(self, stream: Stream, chunk: Chunk) -> tuple[_Choice, int]:
        """What becomes of the first frames, and how many can be decided on."""
        found = _Choice()
        may_wait = stream.kind is SpanClass.MAYBE
        kept = self._reader.kept_traces() if may_wait else frozenset()
        for taken, (sequence, payload) in enumerate(chunk.frames):
            try:
                span = decode(payload)
            except ValueError:
                found.broken[stream.name, sequence] = payload
                continue
            if may_wait and (wait := self._patience.remaining_s(span.ended_ns or span.started_ns)):
                if not taken:
                    self._resting[stream.name] = self._clock.monotonic() + wait
                return found, taken
            if not may_wait or span.trace_id in kept:
                found.spans.append(span)
                found.payloads.append(payload)
            else:
                found.left_out.append(span)
        return found, len(chunk.frames)

    def _sealed(self, state: SinkState, draft: _Draft) -> Parcel:
        dropped = added(draft.lost, {QUARANTINED: len(draft.broken)})
        after = replace(
            state,
            streams=draft.streams,
            delivered=state.delivered + len(draft.spans),
            sampled_out=state.sampled_out + len(draft.left_out),
            dropped=added(state.dropped, dropped),
        )
        return Parcel(
            spans=draft.spans,
            payloads=draft.payloads,
            state=after,
            left_out=draft.left_out,
            broken=draft.broken,
            ended=frozenset(draft.ended),
            is_full=draft.has_more,
        )
