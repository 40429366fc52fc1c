"""Latency summaries kept for a short while: many dashboards ask the same question at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2i.domain.telemetry import LatencyStats
    from e2i.ports.telemetry import SpanRecords

Question = tuple[str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class LatencyAnswer:
    """What the table said, and when."""

    stats: tuple[LatencyStats, ...]
    as_of: datetime


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: LatencyAnswer
    until: float


class LatencyCache:
    """`SpanRecords.get_latency_stats` behind a cache; the same question asked twice at once is asked once.

    An empty answer is not kept: whoever has just sent the first spans must not wait to see them.

    Parameters
    ----------
    ttl_s : seconds by window, and `default` for every other one
    max_entries : the entry asked for longest ago goes first; 0 keeps nothing
    """

    def __init__(
        self, records: SpanRecords, *, ttl_s: Mapping[str, float], max_entries: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._kept: OrderedDict[Question, _Kept] = OrderedDict()
        self._asked: dict[Question, asyncio.Task[LatencyAnswer]] = {}

    async def get_latency_stats(self, window: str = "24h", agent: str | None = None, tier: str | None = None) -> LatencyAnswer:
        """As `SpanRecords.get_latency_stats`; an error is kept for nobody."""
        question = (window, agent, tier)
        kept = self._kept.get(question)
        if kept is not None and kept.until > self._clock():
            self._kept.move_to_end(question)
            return kept.answer
        task = self._asked.get(question)
        if task is None:
            task = asyncio.create_task(self._ask(question))
            self._asked[question] = task
            task.add_done_callback(partial(self._answered, question))
        # Shielded: a client that goes away must not take the answer from the others.
        return await asyncio.shield(task)

    def _answered(self, question: Question, task: asyncio.Task[LatencyAnswer]) -> None:
        self._asked.pop(question, None)
        if not task.cancelled():
            task.exception()  # everybody who asked may have gone away meanwhile

    async def _ask(self, question: Question) -> LatencyAnswer:
        as_of = datetime.now(UTC)
        answer = LatencyAnswer(tuple(await self._records.get_latency_stats(*question)), as_of)
        ttl_s = self._ttl_s.get(question[0], self._ttl_s.get("default", 0.0))
        if answer.stats and ttl_s > 0 and self._max_entries > 0:
            self._kept[question] = _Kept(answer, self._clock() + ttl_s)
            self._kept.move_to_end(question)
            while len(self._kept) > self._max_entries:
                self._kept.popitem(last=False)
        return answer
