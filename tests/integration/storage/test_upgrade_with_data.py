"""A database that an earlier release filled is brought up to date with everything that is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from databases import empty_database
from e2i.domain.runs import StudyRun
from e2i.storage import migrate
from e2i.storage.migrate import shipped_migrations
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository, SpanRetentionRepository
from e2i.storage.repositories.runs import RunRepository
from span_samples import DAY, a_span, hour_ago


@pytest.fixture
async def first(server_url: str) -> AsyncIterator[Database]:
    """A database as the first migration left it, with a run in it."""
    with empty_database(server_url) as url:
        database = Database(url)
        await database.open()
        await migrate.upgrade(database, migrations=shipped_migrations()[:1])
        run = StudyRun(
            run_id="run_1", study="lift", fingerprint="f", status="running", experiment_id=None, trace_id=None, started_at=datetime.now(UTC)
        )
        await RunRepository(database).claim(run)
        yield database
        await database.close()


async def test_runs_of_the_first_release_are_listed_by_this_one(first: Database) -> None:
    assert await migrate.upgrade(first) == [each.name for each in shipped_migrations()[1:]]
    assert [run.run_id for run in await RunRepository(first).recent()] == ["run_1"]
    assert await ObservabilitySpanRepository(first).insert_span(a_span(1)) is True


async def test_spans_dated_ahead_that_came_before_0004_age_from_the_upgrade(first: Database) -> None:
    spans = ObservabilitySpanRepository(first)
    await migrate.upgrade(first)
    await spans.insert_spans_batch(
        [a_span(1), a_span(2, started_ns=hour_ago(0) + 40_000 * DAY), a_span(3, started_ns=hour_ago(0) - 600 * DAY)]
    )
    async with first.transaction() as connection:
        await connection.execute("drop table telemetry_future_days")
        await connection.execute("delete from schema_migrations where version = 4")
    assert await migrate.current(first) == "0003_causal"
    today = datetime.now(UTC).date()
    assert await migrate.upgrade(first) == ["0004_future_days"]
    counts_from = [part.counts_from for part in await SpanRetentionRepository(first).strays()]
    assert counts_from[0] == datetime.fromtimestamp(hour_ago(600 * 24) / 1e9, UTC).date()
    assert today <= counts_from[1] <= today + timedelta(days=1)
    assert len(await spans.get_trace(a_span(1).trace_id)) == 3
