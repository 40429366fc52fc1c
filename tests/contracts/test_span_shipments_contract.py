"""The SpanShipments contract on the implementation that the shipper's tests use."""

from __future__ import annotations

import pytest

from contracts.memory_shipments import MemoryShipments
from contracts.span_shipments_contract import SpanShipmentsContract


class TestMemoryShipments(SpanShipmentsContract):
    """The one that the tests of the shipper use."""

    @pytest.fixture
    def shipments(self) -> MemoryShipments:
        return MemoryShipments()
