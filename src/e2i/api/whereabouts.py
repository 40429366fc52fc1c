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

_AROUND = timedelta(days=1)
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
        for span in tuple(missing):
            await self._look_up(span, missing, found)
        until = time.monotonic() + self._patience_s
        while missing and time.monotonic() < until:
            await asyncio.sleep(0.05)
            self._recall(missing, found)
        for span in tuple(missing):
            await self._look_up(span, missing, found)
        return found

    def _recall(self, missing: set[UUID], found: dict[UUID, str]) -> None:
        for span in tuple(missing):
            trace = self._seen.get(span.bytes)
            if trace is not None:
                found[span] = trace.hex()
                missing.discard(span)

    async def _look_up(self, span: UUID, missing: set[UUID], found: dict[UUID, str]) -> None:
        since, until = _around(span)
        page = await self._records.search(SpanQuery(attributes={OPIK_ID: str(span)}, limit=1, since=since, until=until))
        if page.spans:
            trace_id = page.spans[0].span.trace_id
            found[span] = trace_id
            missing.discard(span)
            self.note(span, UUID(trace_id))


def _around(span: UUID) -> tuple[datetime, datetime] | tuple[None, None]:
    """The days around the moment that a UUID of version 7 names, so that few partitions are searched."""
    if span.version != 7:
        return None, None
    moment = datetime.fromtimestamp(min(span.int >> 80, _LATEST_MS) / 1000, UTC)
    return moment - _AROUND, moment + _AROUND
