"""One circuit breaker for every connector: it keeps calls away from a backend that is sick.

    closed ──5 failures in a row, or half of at least 10 calls in 30 s──► open ──30 s──► half-open ──2 successes──► closed
                                                                            ▲                │
                                                                            └───one failure──┘

- Time is monotonic and injected, so a wall clock that jumps changes nothing.
- Each call holds a permit with the generation in which it began; what an older generation reports is ignored, so a success
  that began before the trip closes nothing.
- Half-open lets a few probes in flight, each on a lease. A probe that is cancelled gives its permit back and says nothing
  about the backend; one that never returns counts as failed when its lease ends.
- A call cut by its own time limit has failed. One cancelled by its caller has failed only if it had been slow already.
- A backend that refuses a request has answered: that is no fault of the service.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from e2i.errors import BackendRejected, BackendUnavailable, CircuitOpen

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class State(StrEnum):
    """Where the breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(StrEnum):
    """What a call tells about the backend's health."""

    ANSWERED = "answered"
    FAILED = "failed"
    NEUTRAL = "neutral"


@dataclass(frozen=True, kw_only=True)
class BreakerSettings:
    """When to open and how to come back; durations in seconds."""

    failure_threshold: int = 5
    failure_share: float = 0.5
    minimum_calls: int = 10
    window_s: float = 30.0
    reset_timeout_s: float = 30.0
    jitter: float = 0.2
    """up to this share is added to the time open, so that many processes do not probe at once"""
    maximum_backoff: float = 8.0
    """each failed probe doubles the time open, up to this factor"""
    half_open_max_calls: int = 3
    success_threshold: int = 2
    call_timeout_s: float = 30.0
    slow_call_s: float = 10.0
    """a call that its caller cancels after this time counts as failed"""

    @property
    def lease_s(self) -> float:
        """How long a probe may keep its permit."""
        return 2 * self.call_timeout_s


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to make one call."""

    number: int
    generation: int
    started: float


@dataclass(frozen=True, kw_only=True)
class BreakerReport:
    """For status pages and metrics. `retry_in_s` is 0 unless open."""

    name: str
    state: State
    retry_in_s: float
    probes_in_flight: int
    times_opened: int
    rejected: int


def outcome_of(error: BaseException) -> Outcome:
    """What an exception says about the backend; an error that is none of its business says nothing."""
    if isinstance(error, CircuitOpen):
        return Outcome.NEUTRAL
    if isinstance(error, BackendUnavailable | TimeoutError | ConnectionError):
        return Outcome.FAILED
    return Outcome.ANSWERED if isinstance(error, BackendRejected) else Outcome.NEUTRAL


class CircuitBreaker:
    """Shared by all tasks and threads that call one backend.

    >>> breaker = CircuitBreaker("mlflow")
    >>> async def call() -> str:
    ...     async with breaker.guard():
    ...         return "answer"
    >>> asyncio.run(call())
    'answer'
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        classify: Callable[[BaseException], Outcome] = outcome_of,
    ) -> None:
        self.name = name
        self.settings = settings or BreakerSettings()
        self.classify = classify
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._generation = 0
        self._numbers = 0
        self._consecutive = 0
        self._successes = 0
        self._reopened = 0
        self._open_until = 0.0
        self._probes: dict[int, float] = {}
        self._window: deque[list[float]] = deque()
        self._calls = self._failures = 0.0
        self._times_opened = 0
        self._rejected = 0

    def guard(self, timeout_s: float | None = None) -> Guard:
        """`async with breaker.guard():` around one call, cut after `timeout_s` (default: the settings' call_timeout_s).

        Raises
        ------
        CircuitOpen
            At entry, at once, when the backend is thought to be sick.
        BackendUnavailable
            At exit, when the call was cut by the time limit.
        """
        return Guard(self, self.settings.call_timeout_s if timeout_s is None else timeout_s)

    def acquire(self) -> Permit:
        """A permit, to be given back by `release`. Raises CircuitOpen."""
        with self._lock:
            now = self._clock()
            if self._state is State.OPEN and now >= self._open_until:
                self._become(State.HALF_OPEN)
            if self._state is State.HALF_OPEN:
                self._expire_leases(now)
            if self._state is State.OPEN or (self._state is State.HALF_OPEN and len(self._probes) >= self.settings.half_open_max_calls):
                self._rejected += 1
                raise self._refusal(now)
            self._numbers += 1
            if self._state is State.HALF_OPEN:
                self._probes[self._numbers] = now
            return Permit(self._numbers, self._generation, now)

    def release(self, permit: Permit, outcome: Outcome) -> None:
        """Report how the call ended; reports of an older generation are ignored."""
        with self._lock:
            if permit.generation != self._generation:
                return
            now = self._clock()
            self._probes.pop(permit.number, None)
            if outcome is Outcome.NEUTRAL:
                return
            if self._state is State.HALF_OPEN:
                self._judge_probe(now, failed=outcome is Outcome.FAILED)
            elif self._state is State.CLOSED:
                self._judge_call(now, failed=outcome is Outcome.FAILED)

    def cancelled(self, permit: Permit) -> Outcome:
        """What it means that the caller gave up on this call now."""
        return Outcome.FAILED if self._clock() - permit.started >= self.settings.slow_call_s else Outcome.NEUTRAL

    @property
    def state(self) -> State:
        """The state now; an open breaker whose time is over is half-open."""
        with self._lock:
            due = self._state is State.OPEN and self._clock() >= self._open_until
            return State.HALF_OPEN if due else self._state

    def report(self) -> BreakerReport:
        """A consistent picture."""
        state = self.state
        with self._lock:
            return BreakerReport(
                name=self.name,
                state=state,
                retry_in_s=max(0.0, self._open_until - self._clock()) if state is State.OPEN else 0.0,
                probes_in_flight=len(self._probes),
                times_opened=self._times_opened,
                rejected=self._rejected,
            )

    def _judge_call(self, now: float, *, failed: bool) -> None:
        calls, failures = self._count(now, failed=failed)
        self._consecutive = self._consecutive + 1 if failed else 0
        too_many = calls >= self.settings.minimum_calls and failures >= self.settings.failure_share * calls
        if failed and (self._consecutive >= self.settings.failure_threshold or too_many):
            self._open(now)

    def _judge_probe(self, now: float, *, failed: bool) -> None:
        if failed:
            self._open(now)
            return
        self._successes += 1
        if self._successes >= self.settings.success_threshold:
            self._reopened = 0
            self._become(State.CLOSED)

    def _count(self, now: float, *, failed: bool) -> tuple[float, float]:
        """Calls and failures of the window, kept in thirty slots so that memory does not grow with traffic."""
        width = self.settings.window_s / 30
        while self._window and self._window[0][0] <= now - self.settings.window_s:
            _, calls, failures = self._window.popleft()
            self._calls -= calls
            self._failures -= failures
        if not self._window or self._window[-1][0] <= now - width:
            self._window.append([now, 0, 0])
        self._window[-1][1] += 1
        self._window[-1][2] += failed
        self._calls += 1
        self._failures += failed
        return self._calls, self._failures

    def _expire_leases(self, now: float) -> None:
        if any(now - since >= self.settings.lease_s for since in self._probes.values()):
            self._open(now)

    def _open(self, now: float) -> None:
        backoff = min(2.0**self._reopened, self.settings.maximum_backoff)
        self._open_until = now + self.settings.reset_timeout_s * backoff * (1 + self.settings.jitter * self._chance())
        self._reopened = min(self._reopened + 1, 16)
        self._times_opened += 1
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._consecutive = 0
        self._successes = 0
        self._probes.clear()
        self._window.clear()
        self._calls = self._failures = 0.0

    def _refusal(self, now: float) -> CircuitOpen:
        if self._state is State.OPEN:
            what = f"calls are held back, next try in {self._open_until - now:.0f} s."
        else:
            what = f"calls are held back while {len(self._probes)} probes run."
        return CircuitOpen(what, where=self.name, advice="Nothing is lost: what waits is sent when the backend answers again.")


class Guard:
    """One guarded call; made by `CircuitBreaker.guard`, used once."""

    def __init__(self, breaker: CircuitBreaker, timeout_s: float) -> None:
        self._breaker = breaker
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Permit:
        self._permit = self._breaker.acquire()
        self._timeout = asyncio.timeout(self._timeout_s)
        await self._timeout.__aenter__()
        return self._permit

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            self._breaker.release(self._permit, Outcome.FAILED)
            raise BackendUnavailable(
                f"no answer within {self._timeout_s:g} s.", where=self._breaker.name, advice="It will be tried again."
            ) from late
        self._breaker.release(self._permit, self._outcome(error))

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is None:
            return Outcome.ANSWERED
        if isinstance(error, asyncio.CancelledError):
            return self._breaker.cancelled(self._permit)
        return self._breaker.classify(error)
