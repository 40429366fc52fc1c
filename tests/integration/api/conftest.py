"""Fixtures of the receiver's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from receiving import application, calling, serving
from spans_in_memory import SpansInMemory


@pytest.fixture
def spans() -> SpansInMemory:
    return SpansInMemory()


@pytest_asyncio.fixture
async def client(spans: SpansInMemory) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the application."""
    async with calling(application(spans)) as client:
        yield client


@pytest_asyncio.fixture
async def wire(spans: SpansInMemory) -> AsyncIterator[httpx.AsyncClient]:
    """Reaches the receiver over the network."""
    async with serving(spans) as client:
        yield client
