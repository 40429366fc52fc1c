"""What every SpanShipments promises. Subclass it in a test file and give the fixture `shipments`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2i.domain.telemetry import SpanRecord

if TYPE_CHECKING:
    from e2i.ports.telemetry import SpanShipments


def span(number: int, **fields: Any) -> SpanRecord:
    """Span `number` of one trace."""
    start = 1_790_000_000_000_000_000 + number * 1_000_000
    given = {
        "trace_id": f"{1:032x}",
        "span_id": f"{number + 1:016x}",
        "parent_span_id": None if number == 0 else f"{1:016x}",
        "name": f"step {number}",
        "started_ns": start,
        "ended_ns": start + 5_000_000,
        "status": "ok",
        "attributes": {"e2i.agent.name": "causal_impact", "e2i.agent.tier": "causal_analytics", "number": number},
    }
    return SpanRecord(**{**given, **fields})


class SpanShipmentsContract:
    """Run against every implementation."""

    async def test_a_spool_that_never_shipped_has_no_state(self, shipments: SpanShipments) -> None:
        assert await shipments.shipped("a" * 32) is None

    async def test_the_state_that_came_with_the_spans_is_the_state_that_is_kept(self, shipments: SpanShipments) -> None:
        state = {"format": 1, "streams": {"1-00000000000000000001-7-abcdef01": [0, 812, 9, 0]}, "dropped": {"corrupt": 2}, "delivered": 9}
        assert await shipments.ship([span(0), span(1)], spool_id="a" * 32, state=state) == 2
        assert await shipments.shipped("a" * 32) == state
        assert await shipments.shipped("b" * 32) is None

    async def test_a_span_that_is_there_already_is_not_new(self, shipments: SpanShipments) -> None:
        assert await shipments.ship([span(0), span(1)], spool_id="a" * 32, state={"step": 1}) == 2
        assert await shipments.ship([span(1), span(2)], spool_id="a" * 32, state={"step": 2}) == 1
        assert await shipments.ship([span(1), span(2)], spool_id="b" * 32, state={"step": 1}) == 0
        assert await shipments.shipped("a" * 32) == {"step": 2}

    async def test_a_span_that_comes_twice_in_one_batch_is_new_once(self, shipments: SpanShipments) -> None:
        assert await shipments.ship([span(0), span(0), span(1)], spool_id="a" * 32, state={}) == 2

    async def test_a_state_can_move_without_spans(self, shipments: SpanShipments) -> None:
        assert await shipments.ship([], spool_id="a" * 32, state={"step": 1}) == 0
        assert await shipments.ship([], spool_id="a" * 32, state={"step": 2}) == 0
        assert await shipments.shipped("a" * 32) == {"step": 2}

    async def test_what_sampling_leaves_out_gets_no_row_and_blocks_nothing(self, shipments: SpanShipments) -> None:
        broken = span(3, started_ns="never", attributes={"e2i.agent.name": "a\0b"})
        assert await shipments.ship([span(0)], spool_id="a" * 32, state={"step": 1}, left_out=[span(1), broken]) == 1
        assert await shipments.ship([], spool_id="a" * 32, state={"step": 2}, left_out=[span(2)]) == 0
        assert await shipments.shipped("a" * 32) == {"step": 2}
        assert await shipments.ship([span(1), span(2)], spool_id="a" * 32, state={"step": 3}) == 2

    async def test_a_large_state_comes_back_whole(self, shipments: SpanShipments) -> None:
        state = {"format": 1, "streams": {f"1-{n:020d}-{n}-abcdef01": [n, n * 100, 2**53 + n, 0] for n in range(3000)}}
        await shipments.ship([], spool_id="a" * 32, state=state)
        assert await shipments.shipped("a" * 32) == state
