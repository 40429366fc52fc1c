"""A database that is replaced or put back while the spool is tended: what is gone is called by its name, what is there comes again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from spool_world import World, settle

from contracts.memory_shipments import MemoryShipments
from e2i.errors import BackendUnavailable
from e2i.telemetry.shipper import Shipper
from e2i.telemetry.spool import SpoolWriter


@dataclass
class TableFarAway(MemoryShipments):
    """While its answer to `shipped` is on the way, `meanwhile` happens once."""

    meanwhile: Callable[[], None] | None = None

    async def shipped(self, spool_id: str) -> dict[str, Any] | None:
        found = await super().shipped(spool_id)
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return found


@pytest.fixture
def table() -> TableFarAway:
    return TableFarAway()


@pytest.fixture
def world(tmp_path: Path, table: TableFarAway) -> World:
    return World(tmp_path / "spool", table=table)


def refuse() -> None:
    raise BackendUnavailable("connection refused", where="postgres")


async def put_back(world: World, shipper: Shipper, writer: SpoolWriter, earlier: MemoryShipments) -> None:
    """The contact breaks over one more span; behind it stands a database of an earlier time."""
    world.table.before = refuse
    world.emit(writer, 1)
    world.hands.advance(1)
    assert not (await shipper.step("postgres")).moved
    world.table.rows, world.table.states, world.table.before = dict(earlier.rows), dict(earlier.states), lambda: None
    world.hands.advance(600)


async def test_segments_deleted_while_an_empty_database_is_asked_are_no_damage(world: World, table: TableFarAway) -> None:
    writer = world.writer(segment_bytes=65_536)
    world.emit(writer, 3000)
    async with world.shipper() as shipper:
        await settle(world, shipper)
        await put_back(world, shipper, writer, MemoryShipments())
        table.meanwhile = shipper.tend
        await settle(world, shipper, "postgres")
        account = await world.account("postgres")
    assert table.meanwhile is None
    assert (account.dropped, account.in_spool, account.unexplained) == ({}, 0, 0)
    assert 1 < account.delivered == account.emitted == len(world.table.rows) < 3001


async def test_segments_deleted_while_a_restored_database_is_asked_are_lost_with_it(world: World, table: TableFarAway) -> None:
    writer = world.writer(segment_bytes=65_536)
    async with world.shipper() as shipper:
        world.emit(writer, 200)
        await settle(world, shipper)
        backup = world.table.backup()
        world.emit(writer, 3000)
        await settle(world, shipper)
        await put_back(world, shipper, writer, backup)
        table.meanwhile = shipper.tend
        await settle(world, shipper, "postgres")
        account = await world.account("postgres")
    rows = len(world.table.rows)
    assert 201 < rows < 3201
    assert (account.emitted, account.delivered, account.in_spool, account.unexplained) == (3201, rows, 0, 0)
    assert account.dropped == {"restored": 3201 - rows}


async def test_a_stream_that_is_retired_while_a_restored_database_is_asked_stays_in_the_account(world: World, table: TableFarAway) -> None:
    old, writer = world.writer(), world.writer()
    async with world.shipper() as shipper:
        world.emit(writer, 10)
        await settle(world, shipper)
        backup = world.table.backup()
        world.emit(old, 50)
        old.close()
        await settle(world, shipper)
        await put_back(world, shipper, writer, backup)
        table.meanwhile = shipper.tend
        await settle(world, shipper, "postgres")
        shipper.tend()
        account = await world.account("postgres")
    assert (account.emitted, account.delivered, account.in_spool, account.unexplained) == (61, 11, 0, 0)
    assert account.dropped == {"restored": 50}


@pytest.mark.parametrize("is_empty", [True, False])
async def test_what_a_dead_writer_left_for_another_sink_comes_again_to_a_database_put_back(world: World, is_empty: bool) -> None:
    """The stream was read to its end for the table; it is still there because a collector is away."""
    old, writer = world.writer(), world.writer()
    world.collector.fault = refuse
    async with world.shipper() as shipper:
        world.emit(writer, 10)
        await settle(world, shipper, "postgres")
        backup = MemoryShipments() if is_empty else world.table.backup()
        world.emit(old, 50)
        old.close()
        await settle(world, shipper, "postgres")
        shipper.tend()
        await put_back(world, shipper, writer, backup)
        await settle(world, shipper, "postgres")
        account = await world.account("postgres")
        assert len(world.table.rows) == 61
        assert (account.emitted, account.delivered, account.in_spool, account.dropped) == (61, 61, 0, {})
        world.collector.fault = lambda: None
        await settle(world, shipper)
        shipper.tend()
    for name in ("postgres", "otlp"):
        account = await world.account(name)
        assert (account.emitted, account.delivered, account.unexplained) == (61, 61, 0)


async def test_a_record_is_put_aside_once_although_its_place_could_not_be_kept_at_first(world: World) -> None:
    writer, file = world.writer(), world.folder / "quarantine" / "postgres.jsonl"
    bad = world.emit(writer, 5)[2]
    world.table.poison = {bad.span_id}
    failures: list[int] = []

    def fail_once_after_the_quarantine() -> None:
        if file.exists() and not failures:
            failures.append(1)
            refuse()

    world.table.before = fail_once_after_the_quarantine
    async with world.shipper() as shipper:
        for _ in range(40):
            world.hands.advance(40.0)
            await shipper.step("postgres")
    account = await world.account("postgres")
    assert failures == [1]
    assert (account.delivered, account.dropped, account.in_spool, account.unexplained) == (4, {"quarantined": 1}, 0, 0)
    assert len(file.read_text().splitlines()) == 1
