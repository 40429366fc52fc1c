"""Which trace an Opik span belongs to: a feedback score names the span alone, and may come before it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from e2i.api.opik_spans import OPIK_ID
from e2i.domain.telemetry import SpanQuery

if TYPE_CHECKING:
    from e2i.ports.telemetry import SpanRecords

_AROUND = timedelta(minutes=5)
_LONGEST_SEARCH_S = 5.0
_LATEST_MS = 4_102_444_800_000


class Whereabouts:
    """Span id -> trace id, in memory for spans that came lately and in the table for the rest.

    Parameters
    ----------
    patience_s : how long a span that nobody knows is waited for; it may be in another request just now
    remembered : spans kept in memory
    """

    def __init__(self, records: SpanRecords, *, patience_s: float, remembered: int = 50_000) -> None:
        self._records = records
        self._patience_s = patience_s
        self._remembered = remembered
        self._seen: OrderedDict[bytes, bytes] = OrderedDict()

    def note(self, span: UUID, trace: UUID) -> None:
        """Keep that `span` belongs to `trace`."""
        self._seen[span.bytes] = trace.bytes
        self._seen.move_to_end(span.bytes)
        while len(self._seen) > self._remembered:
            self._seen.popitem(last=False)

    async def traces_of(self, spans: Iterable[UUID]) -> dict[UUID, str]:
        """The trace ids in 32 digits; a span that did not come in time is missing."""
        found: dict[UUID, str] = {}
        missing = set(spans)
        self._recall(missing, found)
        await self._look_up(missing, found)
        until = time.monotonic() + self._patience_s
        while missing and time.monotonic() < until:
            await asyncio.sleep(0.05)
            self._recall(missing, found)
        await self._look_up(missing, found)
        return found

    def _recall(self, missing: set[UUID], found: dict[UUID, str]) -> None:
        for span in tuple(missing):
            trace = self._seen.get(span.bytes)
            if trace is not None:
                found[span] = trace.hex()
                missing.discard(span)

    async def _look_up(self, missing: set[UUID], found: dict[UUID, str]) -> None:
        """Ask the table, for a limited time: a search by id reads every span around the moment that the id names."""
        last = time.monotonic() + _LONGEST_SEARCH_S
        for span in tuple(missing):
            if time.monotonic() > last:
                return
            moment = _moment(span)
            query = SpanQuery(attributes={OPIK_ID: str(span)}, limit=1, since=moment - _AROUND, until=moment + _AROUND)
            page = await self._records.search(query)
            if page.spans:
                trace_id = page.spans[0].span.trace_id
                found[span] = trace_id
                missing.discard(span)
                self.note(span, UUID(trace_id))


def _moment(span: UUID) -> datetime:
    """When the span was made: Opik's ids are UUIDs of version 7 and begin with it. Others are looked for among the newest."""
    if span.version != 7:
        return datetime.now(UTC)
    return datetime.fromtimestamp(min(span.int >> 80, _LATEST_MS) / 1000, UTC)
