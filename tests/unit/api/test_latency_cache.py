"""The cache of latency summaries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from e2i.api.cache import LatencyCache
from e2i.domain.telemetry import LatencyStats
from e2i.errors import BackendUnavailable

LINE = LatencyStats(
    agent_name="a", agent_tier="causal_analytics", calls=3, avg_ms=1.0, p50_ms=1.0, p95_ms=2.0, p99_ms=2.0,
    error_rate=0.0, fallback_rate=0.0, input_tokens=10, output_tokens=5, total_cost=0.01,
)  # fmt: skip


@dataclass
class Summary:
    """The one method of `SpanRecords` that the cache calls."""

    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    fault: Exception | None = None
    wait_s: float = 0.0
    found: list[LatencyStats] = field(default_factory=lambda: [LINE])

    async def get_latency_stats(self, window: str = "24h", agent: str | None = None, tier: str | None = None) -> list[LatencyStats]:
        self.asked.append((window, agent, tier))
        await asyncio.sleep(self.wait_s)
        if self.fault is not None:
            raise self.fault
        return self.found


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def cache(summary: Summary, clock: Clock, *, entries: int = 10) -> LatencyCache:
    return LatencyCache(summary, ttl_s={"1h": 60, "default": 120}, max_entries=entries, clock=clock)  # type: ignore[arg-type]


async def test_an_answer_is_kept_for_the_time_of_its_window() -> None:
    summary, clock = Summary(), Clock()
    kept = cache(summary, clock)
    for clock.now in (0, 59, 61, 119, 121):
        await kept.get_latency_stats("1h")
        await kept.get_latency_stats("7d")
    assert summary.asked.count(("1h", None, None)) == 3
    assert summary.asked.count(("7d", None, None)) == 2


async def test_the_same_question_asked_at_once_is_asked_once() -> None:
    summary = Summary(wait_s=0.02)
    kept = cache(summary, Clock())
    await asyncio.gather(*(kept.get_latency_stats("1h", "a") for _ in range(50)), kept.get_latency_stats("1h", "b"))
    assert sorted(summary.asked, key=str) == [("1h", "a", None), ("1h", "b", None)]


async def test_somebody_who_goes_away_takes_the_answer_from_nobody() -> None:
    summary = Summary(wait_s=0.02)
    kept = cache(summary, Clock())
    first = asyncio.create_task(kept.get_latency_stats())
    await asyncio.sleep(0)
    second = asyncio.create_task(kept.get_latency_stats())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).stats == (LINE,)
    assert len(summary.asked) == 1


async def test_an_error_is_kept_for_nobody() -> None:
    summary = Summary(fault=BackendUnavailable("gone."))
    kept = cache(summary, Clock())
    with pytest.raises(BackendUnavailable):
        await kept.get_latency_stats()
    summary.fault = None
    assert (await kept.get_latency_stats()).stats == (LINE,)


async def test_the_entry_asked_for_longest_ago_goes_first() -> None:
    summary = Summary()
    kept = cache(summary, Clock(), entries=2)
    for window in ("1h", "2h", "1h", "3h", "1h", "2h"):
        await kept.get_latency_stats(window)
    assert [window for window, *_ in summary.asked] == ["1h", "2h", "3h", "2h"]


async def test_without_entries_nothing_is_kept() -> None:
    summary = Summary()
    kept = cache(summary, Clock(), entries=0)
    for _ in range(3):
        await kept.get_latency_stats()
    assert len(summary.asked) == 3


async def test_an_empty_answer_is_not_kept() -> None:
    summary = Summary(found=[])
    kept = cache(summary, Clock())
    assert (await kept.get_latency_stats("1h")).stats == ()
    summary.found = [LINE]
    assert (await kept.get_latency_stats("1h")).stats == (LINE,)
    assert len(summary.asked) == 2


async def test_a_kept_answer_says_when_the_table_was_asked() -> None:
    clock = Clock()
    kept = cache(Summary(), clock)
    before = datetime.now(UTC)
    first = await kept.get_latency_stats("1h")
    after = datetime.now(UTC)
    await asyncio.sleep(0.002)
    assert before <= first.as_of <= after
    assert (await kept.get_latency_stats("1h")).as_of == first.as_of
    clock.now = 61
    assert (await kept.get_latency_stats("1h")).as_of > after
