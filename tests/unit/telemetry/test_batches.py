"""How many spans a sink is given at once, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from spool_world import Collector, World, settle

from e2i.telemetry.frames import encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from e2i.domain.telemetry import SpanRecord


@dataclass
class Batches(Collector):
    """Keeps each batch."""

    batches: list[list[SpanRecord]] = field(default_factory=list)

    async def send(self, spans: Sequence[SpanRecord]) -> int:
        """See Exporter."""
        self.batches.append(list(spans))
        return await super().send(spans)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "spool", collector=Batches())


async def test_what_is_left_after_full_batches_goes_at_once_and_small_ones_wait_while_more_spans_come(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 23)
    world.emit(writer, 250)
    async with world.shipper() as shipper:
        moved = [(await shipper.step("otlp", is_hurried=False)).moved for _ in range(4)]
        assert moved == [100, 100, 50, 0]
        sent_at, ends = [], world.hands.ticks + 3
        while world.hands.ticks < ends:
            world.emit(writer, 3)
            if (round_ := await shipper.step("otlp", is_hurried=False)).moved:
                sent_at.append(world.hands.ticks)
            world.hands.advance(round_.wait_s)
    gaps = [later - earlier for earlier, later in pairwise(sent_at)]
    assert len(gaps) >= 4
    assert gaps == pytest.approx([world.settings.max_wait_s] * len(gaps), abs=2 * world.settings.poll_s)


async def test_a_small_batch_that_no_others_come_to_join_does_not_wait(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 23)
    async with world.shipper() as shipper:
        for _ in range(5):
            world.emit(writer, 7)
            began = world.hands.ticks
            while not (round_ := await shipper.step("otlp", is_hurried=False)).moved:
                world.hands.advance(round_.wait_s)
            assert world.hands.ticks - began <= world.settings.poll_s


async def test_a_batch_that_is_full_does_not_wait(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 23)
    world.emit(writer, 1)
    async with world.shipper() as shipper:
        assert (await shipper.step("otlp", is_hurried=False)).moved == 1
        world.emit(writer, 99)
        assert (await shipper.step("otlp", is_hurried=False)).moved == 0
        world.emit(writer, 2)
        assert (await shipper.step("otlp", is_hurried=False)).moved == 100


async def test_large_spans_fill_a_batch_by_their_bytes_and_do_not_wait(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 23)
    world.emit(writer, 1, attributes={"text": "x" * 30_000})
    async with world.shipper() as shipper:
        assert (await shipper.step("otlp", is_hurried=False)).moved == 1
        world.emit(writer, 50, attributes={"text": "x" * 30_000})
        assert 30 <= (await shipper.step("otlp", is_hurried=False)).moved < 50


async def test_no_batch_holds_more_bytes_than_its_sink_takes_and_one_larger_span_goes_alone(world: World) -> None:
    writer = world.writer(segment_bytes=1 << 23)
    world.emit(writer, 150, attributes={"text": "x" * 30_000})
    world.emit(writer, 1, attributes={"text": "x" * 2_000_000})
    world.emit(writer, 20, attributes={"text": "x" * 30_000})
    async with world.shipper() as shipper:
        await settle(world, shipper, "otlp")
    assert isinstance(world.collector, Batches)
    sizes = [sum(len(encode(span)) for span in batch) for batch in world.collector.batches]
    assert sum(len(batch) for batch in world.collector.batches) == 171
    assert [size for size, batch in zip(sizes, world.collector.batches, strict=True) if len(batch) > 1 and size > 1 << 20] == []
    assert max(sizes) > 1 << 20


async def test_the_large_spans_of_one_process_leave_room_for_those_of_another(world: World) -> None:
    for place in range(2):
        world.emit(world.writer(segment_bytes=1 << 23), 100, attributes={"text": "x" * 30_000, "place": place})
    async with world.shipper() as shipper:
        await shipper.step("otlp")
    assert isinstance(world.collector, Batches)
    counts = [sum(span.attributes["place"] == place for span in world.collector.batches[0]) for place in range(2)]
    assert min(counts) >= 10
