"""Old days of spans, and the legal holds that keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from psycopg.types.json import set_json_loads

from e2i.errors import ConfigError, Conflict, NotFound
from e2i.ports.telemetry import Partition
from e2i.storage.span_rows import stored_span
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import date

    from psycopg import AsyncConnection

    from e2i.domain.telemetry import StoredSpan
    from e2i.storage.postgres import Database, Row

_SQL = load("span_retention")


class SpanRetentionRepository:
    """`SpanRetention` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def partitions(self) -> list[Partition]:
        """Oldest first, without the strays."""
        return [_partition(row) for row in await self._db.rows(_SQL["partitions"])]

    async def strays(self) -> list[Partition]:
        """Days, oldest first, that were too far from the day of their writing to be given a partition; they share one."""
        return [_partition(row) for row in await self._db.rows(_SQL["strays"])]

    async def read_day(self, day: date, *, batch: int = 5000) -> AsyncIterator[list[StoredSpan]]:
        """Every span of a day, by start, in batches; none when there is no such day. Close it when you do not read to the end."""
        async with self._db.transaction() as connection, connection.cursor(name="e2i_read_day") as cursor:
            set_json_loads(orjson.loads, cursor)
            await cursor.execute(_SQL["read_day"], {"day": day})
            while rows := await cursor.fetchmany(batch):
                yield [stored_span(row) for row in rows]

    async def drop_day(self, day: date, *, most: int | None = None) -> None:
        """Drop the partition, or the strays of a day that has none; rollups stay.

        Parameters
        ----------
        most : so many spans were counted and are safe elsewhere

        Raises
        ------
        Conflict
            A legal hold covers the day, or it holds more than `most` spans.
        NotFound
            There is no such day.
        BackendUnavailable
            Somebody reads the day for longer than we wait; nothing was dropped.
        """
        async with self._db.transaction() as connection:
            await connection.execute(_SQL["wait_briefly"])
            await connection.execute(_SQL["freeze_holds"])
            holds = await (await connection.execute(_SQL["holds_of_day"], {"day": day})).fetchall()
            if holds:
                raise Conflict(
                    f"{day} is under legal hold: {', '.join(hold['name'] for hold in holds)}.",
                    where="ml_observability_spans",
                    advice="Release the hold first.",
                )
            if most is not None:
                await _refuse_more(connection, day, most)
            found = await (await connection.execute(_SQL["is_partition"], {"day": day})).fetchone()
            if found and found["is_partition"]:
                await connection.execute(_SQL["drop_day"], {"day": day})
            elif not await (await connection.execute(_SQL["delete_strays"], {"day": day})).fetchall():
                raise NotFound(f"there are no spans of {day}.", where="ml_observability_spans", advice="See `e2i retention run --dry-run`.")
            await connection.execute(_SQL["forget_future_day"], {"day": day})

    async def hold(self, name: str, *, first: date, last: date, reason: str, actor: str) -> None:
        """Keep these days whatever the TTL says.

        Raises
        ------
        Conflict
            The name is taken.
        ConfigError
            The last day is before the first, or a text is empty.
        """
        if first > last or not name.strip() or not reason.strip():
            raise ConfigError(
                f"{name!r} from {first} to {last} is no legal hold.",
                where="telemetry_holds",
                advice="Give a name, a reason, and a last day that is not before the first.",
            )
        if await self._db.row(_SQL["hold"], name=name, first=first, last=last, reason=reason, actor=actor) is None:
            raise Conflict(f"there is a legal hold {name} already.", where="telemetry_holds", advice="Give another name.")

    async def release(self, name: str) -> None:
        """End a legal hold. Raises NotFound."""
        if await self._db.row(_SQL["release"], name=name) is None:
            raise NotFound(f"there is no legal hold {name}.", where="telemetry_holds", advice="See `e2i retention run --dry-run`.")


async def _refuse_more(connection: AsyncConnection[Row], day: date, most: int) -> None:
    """Late spans come until writers are stopped: counted before that, one that came in between would be dropped unseen."""
    await connection.execute(_SQL["freeze_spans"])
    counted = await (await connection.execute(_SQL["spans_of_day"], {"day": day})).fetchone()
    if counted is not None and counted["spans"] > most:
        raise Conflict(
            f"{day} has {counted['spans']} spans and {most} are safe: more came since they were counted.",
            where="ml_observability_spans",
            advice="The day was not dropped. Run again: late spans are added to the archive.",
        )


def _partition(row: Row) -> Partition:
    return Partition(**row | {"held_by": tuple(row["held_by"])})
