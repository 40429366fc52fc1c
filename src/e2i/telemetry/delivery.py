"""One sink's way through the spool: what it is given next, when, and what happens to what it refuses.

- Unavailable (down, slow, 429, 5xx, wrong password): back-off with jitter, the place stays.
- Refused: the batch is halved until one record is alone. One that is refused alone `quarantine_after` times is put aside, provided that the
  sink took others before the last refusal: one that refuses everything is sick or misconfigured, and the spool is kept for it.
- A sink that breaks down (500) over the same batch again and again is treated as one that refuses.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from e2i.errors import BackendRejected, BackendUnavailable, CircuitOpen
from e2i.telemetry.gather import Clock, Gatherer, Parcel, Patience
from e2i.telemetry.quarantine import Quarantine
from e2i.telemetry.reader import Position
from e2i.telemetry.sink import Busy, Faulty
from e2i.telemetry.state import SinkState, reconciled

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from e2i.domain.telemetry import SpanRecord
    from e2i.ports.telemetry import Breaker
    from e2i.telemetry.reader import SpoolReader, Stream
    from e2i.telemetry.sink import Sink

_log = logging.getLogger(__name__)
_UNPROVEN = 3
"""records in a row that may be put aside although no other is there to show that the sink takes any"""
_FIRST_PROBES = 8
_MOST_PROBES = 64
_CIRCUIT_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ShipperSettings:
    """How the spool is emptied; times in seconds. See `observability.yaml`: spool, batching, sampling."""

    max_bytes: int
    fsync_interval_s: float = 1.0
    quarantine_after: int = 3
    decision_wait_s: float = 150.0
    max_wait_s: float = 0.5
    """the longest time between two batches that are not full while more spans come; when none come, nothing waits"""
    retry_delay_s: float = 1.0
    max_delay_s: float = 30.0
    poll_s: float = 0.05
    drain_s: float = 5.0
    """how long `run` goes on after it was told to stop"""
    call_timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Route:
    """A sink and the breaker that keeps calls away from it while it is sick."""

    sink: Sink
    breaker: Breaker


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one step did."""

    moved: int = 0
    """spans that the cursor went past, durably"""
    wait_s: float = 0.0
    """before another step is worth while; 0: at once"""


@dataclass(frozen=True, kw_only=True)
class SinkHealth:
    """For other processes; see `shipper.write_status`."""

    breaker: Literal["closed", "open", "half_open"]
    last_error: str | None


@dataclass(frozen=True, kw_only=True)
class View:
    """The spool as it was when a round began."""

    streams: Sequence[Stream]
    floors: Mapping[str, Position]


class Delivery:
    """One sink; its steps never run at the same time."""

    def __init__(
        self,
        route: Route,
        reader: SpoolReader,
        folder: Path,
        settings: ShipperSettings,
        *,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = route.sink.name
        self.sink = route.sink
        self._breaker = route.breaker
        self._reader = reader
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._quarantine = Quarantine(folder, self.name)
        self._gatherer = Gatherer(reader, Patience(settings.decision_wait_s, clock), clock, max_bytes=self.sink.batch_bytes)
        self.state: SinkState | None = None
        """durable; None until the sink told it"""
        self.last_error: str | None = None
        self._is_stale = True
        self._is_unsaved = False
        """the losses of a restored database are counted here and not yet there"""
        self._not_before = float("-inf")
        self._last_small = float("-inf")
        """when a batch was sent that was not full"""
        self._failures = 0
        self._faults = 0
        self._suspects = 0
        """so many spans at the head hold one that was refused; 0: none known"""
        self._refusals = 0
        self._takes_others = False
        self._unproven = 0
        self._probes = _FIRST_PROBES
        self._set_aside: set[tuple[str, str | int]] = set()
        """what is in the quarantine and whose place is not kept yet: not put there twice"""

    async def step(self, look: Callable[[], View], *, is_hurried: bool = False) -> Round:
        """One batch, or the reason why not.

        Parameters
        ----------
        look : the spool as it is now; asked again after each wait, since segments may have been deleted meanwhile
        is_hurried : do not wait for the batch to fill
        """
        now = self._clock.monotonic()
        if now < self._not_before:
            return Round(wait_s=self._not_before - now)
        try:
            return await self._advance(look, is_hurried=is_hurried)
        except CircuitOpen as error:
            self._pause(min(_CIRCUIT_LOOK_S, self._settings.max_delay_s), error)
        except BackendUnavailable as error:
            self._back_off(error)
        except BackendRejected as error:
            self._back_off(error)
        except OSError as error:
            self._back_off(BackendUnavailable(f"the spool's folder refuses a file: {error}.", where=self.name))
        return Round(wait_s=max(0.0, self._not_before - self._clock.monotonic()))

    def health(self) -> SinkHealth:
        """As it is now."""
        return SinkHealth(breaker=self._breaker.state, last_error=self.last_error)

    def reached(self, stream: str) -> Position | None:
        """The durable place in a stream; None when the sink was never asked or has not begun with it."""
        place = self.state.streams.get(stream) if self.state is not None else None
        return None if place is None else place.position

    def fail(self, error: Exception) -> Round:
        """A fault of ours: wait, as if the sink were away, and go on."""
        self._back_off(BackendUnavailable(f"this round failed: {error!r}.", where=self.name, advice="See the log; nothing is lost."))
        return Round(wait_s=max(0.0, self._not_before - self._clock.monotonic()))

    def is_done_with(self, stream: str) -> bool:
        """Whether everything in the stream of a dead writer is durably behind this sink."""
        return self._gatherer.is_done_with(stream)

    def forget_gone(self, present: set[str]) -> None:
        """Streams that the spool no longer holds become a number; kept with the next delivery."""
        self._gatherer.forget(present)
        if self.state is not None and (gone := {name for name in self.state.streams if name not in present}):
            self.state = self.state.without(gone)

    async def _advance(self, look: Callable[[], View], *, is_hurried: bool) -> Round:
        state = await self._current(look)
        view = look()
        limit = max(1, self._suspects // 2) if self._suspects else self.sink.batch_size
        waited = self._clock.monotonic() - self._last_small
        is_due = is_hurried or self._suspects > 0 or waited >= self._settings.max_wait_s
        if not (is_due or self._gatherer.is_worth_while(state, view.streams, limit=limit)):
            return Round(wait_s=min(self._settings.max_wait_s - waited, self._settings.poll_s))
        parcel = self._gatherer.next_parcel(state, view.streams, view.floors, limit=limit, in_turn=not self._suspects)
        if parcel.state.passed == state.passed and not self._is_unsaved:
            self._gatherer.commit(parcel)
            self.last_error = self._gatherer.trouble
            return Round(wait_s=self._settings.poll_s)
        self._keep_broken(parcel)
        try:
            await self._hand_over(parcel)
        except BackendRejected as error:
            return await self._refused(parcel, error, look)
        except Faulty as error:
            self._faults += 1
            if not parcel.spans or self._faults < self._settings.quarantine_after:
                raise
            if not self._suspects and not await self._is_well(parcel, look()):
                raise  # it breaks down over everything: sick, which is the breaker's business
            return await self._refused(parcel, error, look)
        self._taken(parcel)
        return Round(moved=parcel.state.passed - state.passed, wait_s=0.0 if parcel.is_full or self._suspects else self._settings.poll_s)

    async def _current(self, look: Callable[[], View]) -> SinkState:
        """The state to go on from; asked of the sink again after every time without contact."""
        if self.state is None or self._is_stale:
            loaded = await self._loaded()
            view = look()
            known = self.sink.remembered() if self.state is None else self.state
            self.state = reconciled(loaded, known, {stream.name: view.floors.get(stream.name, Position()) for stream in view.streams})
            if known is not None and self.state.passed < known.passed:
                self._gatherer.begin_again()
            self._is_stale = False
            self._is_unsaved = loaded is not None and loaded.accounted != self.state.accounted
        return self.state

    async def _loaded(self) -> SinkState | None:
        """A state kept in a file says nothing about the other side, so the breaker must not hear of it."""
        if self.sink.keeps_state_here:
            return await self.sink.load(self._reader.spool_id)
        async with self._guard():
            return await self.sink.load(self._reader.spool_id)

    async def _hand_over(self, parcel: Parcel) -> None:
        if parcel.spans:
            refused = await self._offer(parcel.spans, parcel.state, parcel.left_out)
            self.state = parcel.state.with_rejected(refused)
            return
        await self._move(parcel.state, parcel.left_out)
        self.state = parcel.state

    async def _move(self, state: SinkState, left_out: Sequence[SpanRecord]) -> None:
        """Keep `state`; there is nothing to deliver, but perhaps something to count."""
        if left_out and self.sink.wants_left_out:
            try:
                async with self._guard():
                    await self.sink.deliver([], state, left_out)
            except BackendRejected as error:
                _log.warning("%s cannot count %d spans that sampling leaves out: %s", self.name, len(left_out), error)
            else:
                return
        async with self._guard():
            await self.sink.save(state)

    async def _offer(self, spans: Sequence[SpanRecord], state: SinkState, left_out: Sequence[SpanRecord] = ()) -> int:
        """Deliver. While a record is under suspicion, breaking down over it is a way to refuse it, and opens no breaker."""
        broke: Faulty | None = None
        refused = 0
        async with self._guard():
            try:
                refused = await self.sink.deliver(spans, state, left_out)
            except Faulty as error:
                if not self._suspects:
                    raise
                broke = error
        if broke is not None:
            raise BackendRejected(broke.what, where=broke.where, advice=broke.advice) from broke
        return refused

    def _taken(self, parcel: Parcel) -> None:
        self._gatherer.commit(parcel)
        self._is_unsaved = False
        if not parcel.is_full:
            self._last_small = self._clock.monotonic()
        self._failures = self._faults = 0
        self._set_aside.clear()
        self.last_error = self._gatherer.trouble
        if parcel.spans:
            self._takes_others = True
            self._refusals = self._unproven = 0
            self._probes = _FIRST_PROBES
            self._suspects = max(0, self._suspects - len(parcel.spans))

    async def _refused(self, parcel: Parcel, error: BackendRejected | Faulty, look: Callable[[], View]) -> Round:
        why = str(error)
        if not parcel.spans:
            raise BackendUnavailable(why, where=self.name)
        if not self._suspects:
            self._takes_others, self._refusals = False, 0
        self._suspects = len(parcel.spans)
        if len(parcel.spans) > 1:
            return Round()
        self._refusals += 1
        if self._refusals < self._settings.quarantine_after:
            return Round()
        if not self._takes_others:
            others, is_taken = await self._offer_others(parcel, look())
            if is_taken:
                self._takes_others = True
                return Round()  # it may have been sick and be well now: this record is given one more chance
            broke_down = isinstance(error, Faulty) or isinstance(error.__cause__, Faulty)
            self._unproven += 1
            if others or broke_down or self._unproven > _UNPROVEN:
                if broke_down:
                    self._suspects = self._refusals = self._faults = 0
                raise BackendUnavailable(f"every record is refused, so none is put aside: {why}", where=self.name)
        self._put_aside(parcel.spans[0].key, parcel.payloads[0], why)
        _log.warning("%s refused a span %d times; it is put aside in %s: %s", self.name, self._refusals, self._quarantine.path.name, why)
        aside = parcel.state.with_quarantined()
        await self._move(aside, parcel.left_out)
        moved = aside.passed - (self.state.passed if self.state else 0)
        self.state, self._suspects, self._refusals, self._faults = aside, 0, 0, 0
        self._gatherer.commit(parcel)
        self._set_aside.clear()
        return Round(moved=moved)

    async def _offer_others(self, parcel: Parcel, view: View) -> tuple[int, bool]:
        """Offer later records, one by one; the cursor stays, so they come again. How many there are, and whether one was taken."""
        assert self.state is not None
        later = self._gatherer.next_parcel(parcel.state, view.streams, view.floors, limit=self._probes, in_turn=False)
        for span in later.spans:
            try:
                await self._offer([span], self.state)
            except BackendRejected:
                continue
            return len(later.spans), True
        self._probes = min(_MOST_PROBES, 2 * self._probes)
        return len(later.spans), False

    async def _is_well(self, parcel: Parcel, view: View) -> bool:
        """Whether the other side takes any record alone; then it breaks down over one of these."""
        assert self.state is not None
        later = self._gatherer.next_parcel(parcel.state, view.streams, view.floors, limit=1, in_turn=False)
        inside = [parcel.spans[-1], parcel.spans[0]] if len(parcel.spans) > 1 else []
        for span in [*later.spans, *inside]:
            with suppress(Faulty, BackendRejected):
                async with self._guard():
                    await self.sink.deliver([span], self.state)
                return True
        return False

    def _keep_broken(self, parcel: Parcel) -> None:
        for key, payload in parcel.broken.items():
            self._put_aside(key, payload, "not a span of this version")

    def _put_aside(self, key: tuple[str, str | int], payload: bytes, why: str) -> None:
        if key not in self._set_aside:
            self._quarantine.add(payload, why)
            self._set_aside.add(key)

    def _guard(self) -> AbstractAsyncContextManager[Any]:
        return self._breaker.guard(self._settings.call_timeout_s)

    def _back_off(self, error: BackendUnavailable | BackendRejected) -> None:
        self._failures += 1
        longest = min(self._settings.max_delay_s, self._settings.retry_delay_s * 2.0 ** min(self._failures - 1, 30))
        delay = longest * (0.5 + 0.5 * self._chance())
        if isinstance(error, Busy):
            delay = max(delay, error.retry_after_s)
        self._is_stale = True
        self._pause(delay, error)

    def _pause(self, delay_s: float, error: BackendUnavailable | BackendRejected) -> None:
        self._not_before = self._clock.monotonic() + delay_s
        if not isinstance(error, CircuitOpen) or self.last_error is None:
            self.last_error = str(error)
