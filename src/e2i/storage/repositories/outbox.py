"""outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.types.json import Json

from e2i.domain.runs import OutboxMessage
from e2i.errors import NotFound
from e2i.storage.postgres import as_json, json_text
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from e2i.storage.postgres import Database, Row

_SQL = load("outbox")


class OutboxRepository:
    """`Outbox` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def append(self, messages: Sequence[OutboxMessage]) -> list[int]:
        """Durable when this returns; the numbers in the order of the messages."""
        async with self._db.transaction() as connection:
            return await append_within(connection, messages)

    async def pending(self, target: str, *, limit: int = 100, key: str | None = None) -> list[OutboxMessage]:
        """Oldest first; a message behind a failed one of the same key waits."""
        return [OutboxMessage(**row) for row in await self._db.rows(_SQL["pending"], target=target, limit=limit, key=key)]

    async def mark_delivered(self, message_id: int, result: Mapping[str, Any]) -> None:
        """After the foreign system has confirmed; keeps `result`. Raises NotFound."""
        row = await self._db.row(_SQL["mark_delivered"], message_id=message_id, result=as_json(dict(result)))
        _expect(row, message_id)

    async def mark_failed(self, message_id: int, error: str, *, quarantine: bool) -> None:
        """Count the attempt; a quarantined message blocks nothing any more. Raises NotFound."""
        _expect(await self._db.row(_SQL["mark_failed"], message_id=message_id, error=error, quarantine=quarantine), message_id)

    async def results(self, target: str, key: str) -> dict[str, Any]:
        """Merged results of the delivered messages of a key; the later message wins."""
        merged: dict[str, Any] = {}
        for row in await self._db.rows(_SQL["results"], target=target, key=key):
            merged |= row["result"]
        return merged

    async def counts(self, target: str) -> dict[str, int]:
        """`pending`, `delivered`, `quarantined`."""
        return dict(await self._db.row(_SQL["counts"], target=target) or {})


async def append_within(connection: AsyncConnection[Row], messages: Sequence[OutboxMessage]) -> list[int]:
    """Append in an open transaction. The locks are taken in one order, so that two writers never wait for each other."""
    for target, key in sorted({(message.target, message.key) for message in messages}):
        await connection.execute(_SQL["lock_key"], {"target": target, "key": key})
    numbers = []
    for message in messages:
        parameters = {
            "target": message.target,
            "key": message.key,
            "operation": message.operation,
            "payload": Json(message.payload, dumps=json_text),
        }
        row = await (await connection.execute(_SQL["append"], parameters)).fetchone()
        assert row is not None
        numbers.append(int(row["message_id"]))
    return numbers


def _expect(row: Row | None, message_id: int) -> None:
    if row is None:
        raise NotFound(f"no message {message_id}.", where="outbox", advice="Give a number that `append` returned.")
