"""A shipment is built on the state that was told last: what was committed meanwhile, or taken back, makes it begin again."""

from __future__ import annotations

import asyncio

import pytest

from databases import until_one_waits_for_a_lock
from e2i.errors import BackendUnavailable
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository, SpanShipmentRepository
from span_samples import a_span

SPOOL = "c" * 32


async def counted(database: Database) -> tuple[int, int]:
    """Rows, and calls in the rollups."""
    (rows,) = await database.rows("select count(*) as n from ml_observability_spans")
    return int(rows["n"]), sum(line.calls for line in await ObservabilitySpanRepository(database).get_latency_stats())


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_commit_that_lands_after_its_answer_was_given_up_counts_once(database: Database, is_first: bool) -> None:
    """What sampling left out has no row that would show a repetition."""
    late, now = SpanShipmentRepository(database), SpanShipmentRepository(database)
    if not is_first:
        await late.ship([], spool_id=SPOOL, state={"at": 0})
    before = await now.shipped(SPOOL)
    assert await late.ship([a_span(0)], spool_id=SPOOL, state={"at": 3}, left_out=[a_span(1), a_span(2)]) == 1
    with pytest.raises(BackendUnavailable, match="place reached in the spool"):
        await now.ship([a_span(0), a_span(3)], spool_id=SPOOL, state={"at": 5}, left_out=[a_span(1), a_span(2), a_span(4)])
    assert before == (None if is_first else {"at": 0})
    assert await counted(database) == (1, 3)
    assert await now.shipped(SPOOL) == {"at": 3}
    assert await now.ship([a_span(3)], spool_id=SPOOL, state={"at": 5}, left_out=[a_span(4)]) == 1
    assert await counted(database) == (2, 5)


async def test_a_commit_that_is_still_on_its_way_is_waited_for_and_counts_once(database: Database) -> None:
    shipments, other = SpanShipmentRepository(database), Database(database.url)
    await shipments.ship([], spool_id=SPOOL, state={"at": 0})
    await other.open()
    async with other.transaction() as connection:
        await connection.execute("update telemetry_shipments set state = '{\"at\": 2}' where spool_id = %s", [SPOOL])
        assert await shipments.shipped(SPOOL) == {"at": 0}
        task = asyncio.create_task(shipments.ship([], spool_id=SPOOL, state={"at": 4}, left_out=[a_span(0)]))
        await until_one_waits_for_a_lock(connection)
    with pytest.raises(BackendUnavailable):
        await task
    await other.close()
    assert await counted(database) == (0, 0)
    assert await shipments.shipped(SPOOL) == {"at": 2}


async def test_a_database_put_back_under_a_shipper_is_noticed_without_a_broken_contact(database: Database) -> None:
    shipments = SpanShipmentRepository(database)
    await shipments.ship([a_span(0)], spool_id=SPOOL, state={"at": 1})
    await database.run("truncate ml_observability_spans, agent_latency_rollup, telemetry_shipments")
    with pytest.raises(BackendUnavailable):
        await shipments.ship([a_span(1)], spool_id=SPOOL, state={"at": 2})
    assert await counted(database) == (0, 0)
    assert await shipments.shipped(SPOOL) is None
    assert await shipments.ship([a_span(0), a_span(1)], spool_id=SPOOL, state={"at": 2}) == 2
