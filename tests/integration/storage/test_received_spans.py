"""How an operator sees that other teams' spans arrive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from e2i.domain.telemetry import Received
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository
from e2i.storage.repositories.received_spans import ReceivedSpanRepository
from span_samples import DAY, a_span, hour_ago


def at(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds % 10**9 // 1000)


async def test_spans_of_others_are_counted_by_who_brought_them(database: Database) -> None:
    records, received = ObservabilitySpanRepository(database), ReceivedSpanRepository(database)
    since = datetime.now(UTC) - timedelta(hours=1)
    assert await received.received_since(since) == []
    newest = hour_ago(0.25)
    spans = [
        a_span(1),
        a_span(2, origin="e2i", started_ns=hour_ago(0.1)),
        a_span(3, origin="otlp", started_ns=hour_ago(0.5)),
        a_span(4, origin="otlp", started_ns=newest),
        a_span(5, origin="opik", started_ns=newest),
        a_span(6, origin="otlp", started_ns=hour_ago(1.5)),
        a_span(7, origin="opik", started_ns=hour_ago() + 3 * DAY),
    ]
    await records.insert_spans_batch(spans)
    await records.insert_spans_batch(spans)
    assert await received.received_since(since) == [
        Received(origin="opik", spans=1, newest=at(newest)),
        Received(origin="otlp", spans=2, newest=at(newest)),
    ]
