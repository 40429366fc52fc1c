"""Follow spans as they arrive: each one once, also when it is long, late, or out of order."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from e2i.app.trace_lookup import PAGE, pages
from e2i.domain.telemetry import SpanQuery

if TYPE_CHECKING:
    from typing import Literal

    from e2i.domain.telemetry import StoredSpan
    from e2i.ports.telemetry import SpanRecords

NEAR = timedelta(seconds=15)
"""each look reads what started within this"""
LATE = timedelta(hours=1)
"""and the wide look, now and then, what started within this, so that a span may be this late"""
LONG = timedelta(days=7)
"""and, of what started longer ago, the spans that took longer than `NEAR`"""
_NEAR_NS = int(NEAR.total_seconds()) * 10**9
_KEEP_SHORT_NS = int((LATE + 4 * NEAR).total_seconds()) * 10**9
_KEEP_LONG_NS = int((LONG + LATE).total_seconds()) * 10**9
_WIDE_EVERY = timedelta(seconds=10)
_WIDE_SHARE = 10
"""a wide look may take one tenth of the time"""


class TraceTail:
    """New spans at each `look`, oldest first.

    New is what ends after `start`. Spans are searched by when they started, and they arrive after they ended, in any order: so each look
    reads the last seconds again and tells what it has not told, and a wide look goes back further.
    """

    def __init__(
        self, records: SpanRecords, *, start: datetime, agent: str | None = None, status: Literal["success", "error"] | None = None
    ) -> None:
        self._records = records
        self._start = start
        self._agent, self._status = agent, status
        self._told: dict[tuple[str, str], int] = {}
        self._wide_at = start
        self._is_first = True

    async def look(self, now: datetime) -> list[StoredSpan]:
        """What is new since the look before."""
        if now >= self._wide_at:
            began = time.perf_counter()
            edge = self._start - NEAR if self._is_first else max(self._start - NEAR, now - LATE)
            found = [*await self._read(since=edge), *await self._long(edge, now)]
            self._is_first = False
            self._wide_at = now + max(_WIDE_EVERY, timedelta(seconds=(time.perf_counter() - began) * _WIDE_SHARE))
            self._forget(now)
        else:
            found = await self._read(since=now - NEAR)
        return sorted(found, key=lambda each: (each.span.ended_ns or each.span.started_ns, each.span.span_id))

    async def _long(self, edge: datetime, now: datetime) -> list[StoredSpan]:
        """What started before `edge` and can have ended since: the longer ago, the longer it must have taken."""
        found: list[StoredSpan] = []
        middle, far = edge - 8 * NEAR, edge - LATE
        for until, since, least in ((edge, middle, NEAR), (middle, far, 8 * NEAR), (far, min(far, now) - LONG, LATE)):
            found += await self._read(since=since, until=until, minimum_ms=least.total_seconds() * 1000)
        return found

    async def _read(self, *, since: datetime, until: datetime | None = None, minimum_ms: float | None = None) -> list[StoredSpan]:
        query = SpanQuery(agent=self._agent, status=self._status, since=since, until=until, minimum_ms=minimum_ms, limit=PAGE)
        new: list[StoredSpan] = []
        start_ns = _ns(self._start)
        async for page in pages(self._records, query):
            for each in page:
                span = each.span
                ended = span.started_ns if span.ended_ns is None else span.ended_ns
                if span.key not in self._told and ended >= start_ns:
                    self._told[span.key] = ended + (_KEEP_SHORT_NS if ended - span.started_ns < _NEAR_NS else _KEEP_LONG_NS)
                    new.append(each)
        return new

    def _forget(self, now: datetime) -> None:
        """Drop what no look can find again."""
        at = _ns(now)
        self._told = {key: until for key, until in self._told.items() if until >= at}


def _ns(moment: datetime) -> int:
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 10**9 + since_epoch.microseconds * 1000
