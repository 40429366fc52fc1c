"""What other teams' exporters brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2i.domain.telemetry import Received
from e2i.storage.sql import load

if TYPE_CHECKING:
    from datetime import datetime

    from e2i.storage.postgres import Database

_SQL = load("received_spans")


class ReceivedSpanRepository:
    """`ReceivedSpans` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def received_since(self, since: datetime) -> list[Received]:
        """By origin; reads the index of times."""
        return [Received(**row) for row in await self._db.rows(_SQL["received_since"], since=since)]
