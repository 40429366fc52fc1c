"""The ten properties that no breaker on the shelf has all at once, and a model in virtual time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from e2i.errors import BackendRejected, BackendUnavailable, CircuitOpen
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker, Outcome, Permit, State


class Clock:
    """A monotonic clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def make(clock: Clock, **changes: float) -> CircuitBreaker:
    return CircuitBreaker("sick", BreakerSettings(jitter=0.0, **changes), clock=clock)  # type: ignore[arg-type]


async def failing(breaker: CircuitBreaker) -> None:
    with pytest.raises(BackendUnavailable):
        async with breaker.guard():
            raise BackendUnavailable("down")


async def answering(breaker: CircuitBreaker) -> None:
    async with breaker.guard():
        await asyncio.sleep(0)


async def hanging(breaker: CircuitBreaker) -> None:
    async with breaker.guard():
        await asyncio.sleep(60)


async def opened(clock: Clock, **changes: float) -> CircuitBreaker:
    breaker = make(clock, **changes)
    for _ in range(breaker.settings.failure_threshold):
        await failing(breaker)
    assert breaker.state is State.OPEN
    return breaker


async def test_it_opens_after_five_failures_in_a_row() -> None:
    breaker = make(Clock())
    for _ in range(4):
        await failing(breaker)
    assert breaker.state is State.CLOSED
    await failing(breaker)
    with pytest.raises(CircuitOpen, match="next try in 30 s"):
        await answering(breaker)


async def test_it_recovers_after_the_timeout_and_two_successes() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.advance(30)
    await answering(breaker)
    assert breaker.state is State.HALF_OPEN
    await answering(breaker)
    assert breaker.state is State.CLOSED


async def test_calls_that_hang_and_are_cut_by_the_caller_open_it() -> None:
    breaker = CircuitBreaker("hung", BreakerSettings(slow_call_s=0.005))
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hanging(breaker), 0.02)
    assert breaker.state is State.OPEN


async def test_calls_cut_by_their_own_time_limit_open_it_and_are_unavailable() -> None:
    breaker = CircuitBreaker("hung", BreakerSettings())
    for _ in range(5):
        with pytest.raises(BackendUnavailable, match="no answer within"):
            async with breaker.guard(timeout_s=0.005):
                await asyncio.sleep(60)
    assert breaker.state is State.OPEN


async def cancel_one(breaker: CircuitBreaker) -> None:
    task = asyncio.create_task(hanging(breaker))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_call_does_not_erase_four_failures() -> None:
    breaker = make(Clock())
    for _ in range(4):
        await failing(breaker)
    await cancel_one(breaker)
    await failing(breaker)
    assert breaker.state is State.OPEN


async def test_of_a_hundred_concurrent_calls_only_the_leased_probes_get_through() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.advance(30)
    through = 0

    async def call() -> None:
        nonlocal through
        async with breaker.guard():
            through += 1
            await asyncio.sleep(0.01)
            raise BackendUnavailable("still down")

    outcomes = await asyncio.gather(*(call() for _ in range(100)), return_exceptions=True)
    assert through == 3
    assert sum(isinstance(outcome, CircuitOpen) for outcome in outcomes) == 97


async def test_after_cancelled_probes_a_healthy_call_passes() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.advance(30)
    for _ in range(6):
        await cancel_one(breaker)
    assert breaker.state is State.HALF_OPEN
    await answering(breaker)
    await answering(breaker)
    assert breaker.state is State.CLOSED


async def test_a_cancelled_probe_does_not_close_it() -> None:
    clock = Clock()
    breaker = await opened(clock, success_threshold=1)
    clock.advance(30)
    await cancel_one(breaker)
    assert breaker.state is State.HALF_OPEN


async def test_failures_between_successes_open_it() -> None:
    breaker = make(Clock())
    for call in range(10):
        await (answering(breaker) if call % 5 == 4 else failing(breaker))
    await failing(breaker)
    assert breaker.state is State.OPEN


async def test_a_failure_share_below_half_never_opens_it() -> None:
    clock = Clock()
    breaker = make(clock)
    for call in range(3000):
        await (failing(breaker) if call % 5 in (1, 3) else answering(breaker))
        clock.advance(0.01)
    assert breaker.state is State.CLOSED


async def test_failures_older_than_the_window_are_forgotten() -> None:
    clock = Clock()
    breaker = make(clock)
    for _ in range(6):
        await failing(breaker)
        await answering(breaker)
        clock.advance(15)
    assert breaker.state is State.CLOSED


async def test_a_success_that_began_before_the_trip_does_not_close_it() -> None:
    clock = Clock()
    breaker = make(clock, success_threshold=1)
    early = breaker.acquire()
    for _ in range(5):
        await failing(breaker)
    clock.advance(30)
    probe = breaker.acquire()
    breaker.release(early, Outcome.ANSWERED)
    assert breaker.state is State.HALF_OPEN
    breaker.release(probe, Outcome.ANSWERED)
    assert breaker.state is State.CLOSED


async def test_a_failure_that_began_before_the_trip_does_not_reopen_it() -> None:
    clock = Clock()
    breaker = make(clock)
    early = breaker.acquire()
    for _ in range(5):
        await failing(breaker)
    clock.advance(30)
    await answering(breaker)
    breaker.release(early, Outcome.FAILED)
    await answering(breaker)
    assert breaker.state is State.CLOSED


async def test_the_wall_clock_plays_no_part() -> None:
    breaker = CircuitBreaker("monotonic")
    assert breaker._clock is time.monotonic


async def test_each_failed_probe_doubles_the_time_open_up_to_eight_times() -> None:
    clock = Clock()
    breaker = await opened(clock)
    for expected in (60, 120, 240, 240):
        clock.advance(breaker.report().retry_in_s)
        await failing(breaker)
        assert breaker.report().retry_in_s == pytest.approx(expected)


async def test_once_closed_the_next_opening_is_short_again() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.advance(30)
    await failing(breaker)
    clock.advance(60)
    for _ in range(2):
        await answering(breaker)
    for _ in range(5):
        await failing(breaker)
    assert breaker.report().retry_in_s == pytest.approx(30)


async def test_jitter_only_ever_adds_to_the_time_open() -> None:
    waits = []
    for chance in (0.0, 0.5, 1.0):
        breaker = CircuitBreaker("jitter", clock=Clock(), chance=lambda chance=chance: chance)
        for _ in range(5):
            await failing(breaker)
        waits.append(breaker.report().retry_in_s)
    assert waits == pytest.approx([30.0, 33.0, 36.0])


async def test_a_refused_request_is_no_fault_of_the_service() -> None:
    breaker = make(Clock())
    for _ in range(20):
        with pytest.raises(BackendRejected):
            async with breaker.guard():
                raise BackendRejected("no such parameter")
    assert breaker.state is State.CLOSED


async def test_an_error_of_the_caller_says_nothing_about_the_backend() -> None:
    breaker = make(Clock())
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            async with breaker.guard():
                _ = 1 / 0
    assert breaker.state is State.CLOSED


async def test_a_probe_that_never_returns_does_not_wedge_it() -> None:
    clock = Clock()
    breaker = await opened(clock)
    clock.advance(30)
    for _ in range(3):
        breaker.acquire()
    with pytest.raises(CircuitOpen, match="3 probes"):
        breaker.acquire()
    clock.advance(breaker.settings.lease_s)
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    clock.advance(60)
    await answering(breaker)
    await answering(breaker)
    assert breaker.state is State.CLOSED


async def test_the_report_counts_openings_and_refusals() -> None:
    breaker = await opened(Clock())
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    report = breaker.report()
    assert (report.name, report.state, report.times_opened, report.rejected) == ("sick", State.OPEN, 1, 1)


def test_threads_and_event_loops_share_one_breaker() -> None:
    breaker = CircuitBreaker("shared", BreakerSettings(failure_threshold=10**9, minimum_calls=10**9))
    counted = []

    def loop() -> None:
        async def storm() -> None:
            await asyncio.gather(*(answering(breaker) for _ in range(500)))

        asyncio.run(storm())
        counted.append(1)

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 4
    assert breaker._calls == 2000
    assert breaker.state is State.CLOSED


class BreakerModel(RuleBasedStateMachine):
    """Random histories in virtual time; what must hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = CircuitBreaker("model", BreakerSettings(), clock=self.clock, chance=lambda: 0.5)
        self.live: list[Permit] = []
        self.stale: list[Permit] = []
        self.generation = 0

    def observe(self) -> None:
        """Permits of an older generation become stale."""
        current = self.breaker._generation
        self.stale += [permit for permit in self.live if permit.generation != current]
        self.live = [permit for permit in self.live if permit.generation == current]

    @rule()
    def acquire(self) -> None:
        before = self.breaker.state
        waiting = self.breaker.report().retry_in_s
        try:
            self.live.append(self.breaker.acquire())
        except CircuitOpen:
            assert before is not State.CLOSED
        else:
            assert before is not State.OPEN
            assert waiting == 0
        self.observe()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def release(self, data: st.DataObject, outcome: Outcome) -> None:
        permit = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        before = self.breaker.state
        self.breaker.release(permit, outcome)
        after = self.breaker.state
        if outcome is Outcome.NEUTRAL:
            assert after is before
        if before is State.HALF_OPEN and outcome is Outcome.FAILED:
            assert after is State.OPEN
        if before is not State.CLOSED and after is State.CLOSED:
            assert outcome is Outcome.ANSWERED
        self.observe()

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def release_stale(self, data: st.DataObject, outcome: Outcome) -> None:
        permit = self.stale.pop(data.draw(st.integers(0, len(self.stale) - 1)))
        before = (self.breaker.report(), self.breaker._consecutive, self.breaker._calls, self.breaker._successes)
        self.breaker.release(permit, outcome)
        assert (self.breaker.report(), self.breaker._consecutive, self.breaker._calls, self.breaker._successes) == before

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 31.0, 61.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.observe()

    @invariant()
    def never_more_probes_in_flight_than_allowed(self) -> None:
        assert self.breaker.report().probes_in_flight <= self.breaker.settings.half_open_max_calls
        if self.breaker._state is State.HALF_OPEN:
            assert len(self.live) <= self.breaker.settings.half_open_max_calls

    @invariant()
    def totals_agree_with_the_window(self) -> None:
        assert self.breaker._calls == sum(slot[1] for slot in self.breaker._window)
        assert self.breaker._failures == sum(slot[2] for slot in self.breaker._window)
        assert len(self.breaker._window) <= 31

    def teardown(self) -> None:
        """Never wedged: once leases and the time open are over, a permit is to be had."""
        for _ in range(2):
            self.clock.advance(self.breaker.settings.lease_s + self.breaker.report().retry_in_s)
            try:
                self.breaker.acquire()
            except CircuitOpen:
                continue
            return
        self.clock.advance(self.breaker.report().retry_in_s)
        self.breaker.acquire()


BreakerModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
test_no_history_breaks_the_breaker = BreakerModel.TestCase
