"""An Outbox on SQLite for tests that kill processes; it passes the same contract as the one on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from e2i.domain.runs import OutboxMessage
from e2i.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TABLE = """
create table if not exists outbox (
  message_id integer primary key autoincrement, target text, key text, operation text, payload text, created_at text,
  status text not null default 'pending', attempts integer not null default 0, error text, result text)
"""
_COLUMNS = "message_id, target, key, operation, payload, attempts, error, created_at"


class SqliteOutbox:
    """One file; every call opens it, so that any process may die at any moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._open()) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute(_TABLE)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.execute("pragma synchronous = normal")
        return connection

    async def append(self, messages: Sequence[OutboxMessage]) -> list[int]:
        """See Outbox."""
        with closing(self._open()) as connection:
            connection.execute("begin immediate")
            rows = [(m.target, m.key, m.operation, json.dumps(m.payload), datetime.now(UTC).isoformat()) for m in messages]
            sql = "insert into outbox (target, key, operation, payload, created_at) values (?, ?, ?, ?, ?)"
            numbers = [int(connection.execute(sql, row).lastrowid or 0) for row in rows]
            connection.execute("commit")
        return numbers

    async def pending(self, target: str, *, limit: int = 100, key: str | None = None) -> list[OutboxMessage]:
        """See Outbox."""
        sql = f"""
            select {_COLUMNS} from outbox as message
            where target = ? and status = 'pending' and (? is null or key = ?) and not exists (
              select 1 from outbox as earlier where earlier.target = message.target and earlier.key = message.key
              and earlier.status = 'pending' and earlier.attempts > 0 and earlier.message_id < message.message_id)
            order by message_id limit ?"""
        with closing(self._open()) as connection:
            rows = connection.execute(sql, (target, key, key, limit)).fetchall()
        return [
            OutboxMessage(
                message_id=row[0],
                target=row[1],
                key=row[2],
                operation=row[3],
                payload=json.loads(row[4]),
                attempts=row[5],
                error=row[6],
                created_at=datetime.fromisoformat(row[7]),
            )
            for row in rows
        ]

    async def mark_delivered(self, message_id: int, result: Mapping[str, Any]) -> None:
        """See Outbox."""
        self._update(
            "update outbox set status = 'delivered', error = null, result = ? where message_id = ?", json.dumps(dict(result)), message_id
        )

    async def mark_failed(self, message_id: int, error: str, *, quarantine: bool) -> None:
        """See Outbox."""
        status = "quarantined" if quarantine else "pending"
        self._update("update outbox set attempts = attempts + 1, error = ?, status = ? where message_id = ?", error, status, message_id)

    async def results(self, target: str, key: str) -> dict[str, Any]:
        """See Outbox."""
        sql = "select result from outbox where target = ? and key = ? and status = 'delivered' order by message_id"
        with closing(self._open()) as connection:
            rows = connection.execute(sql, (target, key)).fetchall()
        return {name: value for row in rows for name, value in json.loads(row[0]).items()}

    async def counts(self, target: str) -> dict[str, int]:
        """See Outbox."""
        with closing(self._open()) as connection:
            rows = dict(connection.execute("select status, count(*) from outbox where target = ? group by status", (target,)).fetchall())
        return {status: int(rows.get(status, 0)) for status in ("pending", "delivered", "quarantined")}

    def _update(self, sql: str, *values: object) -> None:
        with closing(self._open()) as connection:
            if connection.execute(sql, values).rowcount != 1:
                raise NotFound("there is no such message.", where=f"outbox {values[-1]}", advice="Give a number that append returned.")
