"""Writes spans and their rollups: rows, rollups and whatever else belongs to them commit together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from psycopg import errors

from e2i.errors import BackendUnavailable
from e2i.storage.latency import Histograms, HistogramsDumper, rollup_parameters
from e2i.storage.span_rows import HEADER, TRAILER, day_of, row_of
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date
    from typing import LiteralString

    from psycopg import AsyncConnection

    from e2i.domain.telemetry import SpanRecord
    from e2i.storage.latency import Measure
    from e2i.storage.postgres import Database, Row

_SQL = load("spans")
_ATTEMPTS = 4
_BREATH = 50
"""rows that are made and sent at once: while the server takes them, the next ones are made"""


class Arrivals:
    """Spans in the order in which they are written: by day, trace and span, so that writers never wait in a circle.

    Of several with the same key the first counts. They are encoded when they are asked for, and not kept: memory that is used
    again at once is fast.

    Raises
    ------
    BackendRejected
        A span is no span; `data` may raise it, too.
    """

    def __init__(self, spans: Iterable[SpanRecord]) -> None:
        first: dict[tuple[str, str], SpanRecord] = {}
        for span in spans:
            first.setdefault(span.key, span)
        order = sorted((day_of(span), *key) for key, span in first.items())
        self._spans = [first[trace_id, span_id] for _, trace_id, span_id in order]
        self._days = [day for day, _, _ in order]
        self._measures: list[Measure | None] = []
        self.days = frozenset(self._days)

    def __len__(self) -> int:
        return len(self._spans)

    def data(self, start: int, stop: int, strays: frozenset[date]) -> bytes:
        """The tuples of some rows; whoever asks begins with the first and goes on where it stopped."""
        rows = [row_of(span) for span in self._spans[start:stop]]
        self._measures[start:stop] = [row.measure for row in rows]
        if not strays:
            return b"".join([row.data for row in rows])
        return b"".join([row.as_stray() if day in strays else row.data for row, day in zip(rows, self._days[start:stop], strict=True)])

    def measures(self, among: frozenset[tuple[str, str]] | None = None) -> list[Measure]:
        """What they, or only those with one of these keys, add to the rollups; known once `data` gave all of them."""
        both = zip(self._measures, self._spans, strict=True)
        return [measure for measure, span in both if measure and (among is None or span.key in among)]


_Write = Callable[["AsyncConnection[Row]", Arrivals, "frozenset[date]"], Awaitable[frozenset[tuple[str, str]]]]
Work = Callable[["AsyncConnection[Row]"], Awaitable[int]]
"""what is to be done in one transaction; repeated when others get in its way"""


class Overtaken(Exception):
    """What was looked at before is no longer so: the transaction begins again."""


class SpanWriter:
    """Writes spans and what belongs to them in one transaction. Remembers which days have a partition."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._days: set[date] = set()

    async def transact(self, days: frozenset[date], work: Work) -> int:
        """Have partitions for those of these days that are near today, then do the work.

        Raises
        ------
        BackendUnavailable
            Others got in its way again and again; nothing was written.
        """
        for _ in range(_ATTEMPTS):
            await self._make(days)
            try:
                # The second block: without it the savepoint in `_placed` would be the outermost one, and commit the rows alone.
                async with self._db.transaction() as connection, connection.transaction():
                    if not days <= self._days:
                        await self.keep_days(connection)
                    return await work(connection)
            except Overtaken:
                self._days.clear()
            except BackendUnavailable as exc:
                if not isinstance(exc.__cause__, errors.DeadlockDetected):
                    raise
        raise BackendUnavailable("other writers got in the way again and again", where="ml_observability_spans", advice="Try again.")

    async def keep_days(self, connection: AsyncConnection[Row]) -> None:
        """Nobody makes a day until the transaction ends. Before anything else is locked, so that nobody waits in a circle."""
        await connection.execute(_SQL["keep_days"])

    async def insert(self, connection: AsyncConnection[Row], arrivals: Arrivals, beside: Sequence[Measure] = ()) -> int:
        """How many were new; the others are there already and stay as they are. Rows and rollups, these with what is `beside` the rows."""
        if not arrivals:
            await self.roll_up(connection, beside)
            return 0
        try:
            await self.copy(connection, arrivals)
        except errors.UniqueViolation:
            new = await self._placed(connection, arrivals, _sift)
            await self.roll_up(connection, [*arrivals.measures(new), *beside])
            return len(new)
        await self.roll_up(connection, [*arrivals.measures(), *beside])
        return len(arrivals)

    async def copy(self, connection: AsyncConnection[Row], arrivals: Arrivals) -> None:
        """Straight into the table, all or nothing; the transaction can go on. Raises UniqueViolation when a span is there already."""
        await self._placed(connection, arrivals, _copy)

    async def roll_up(self, connection: AsyncConnection[Row], added: Iterable[Measure], removed: Iterable[Measure] = ()) -> None:
        """Last in a transaction, because other writers wait for these rows until it ends."""
        added, removed = list(added), list(removed)
        if not (added or removed):
            return
        kind = await (await connection.execute(_SQL["vector_oid"])).fetchone()
        assert kind is not None
        parameters = rollup_parameters(added, removed, vector_oid=kind["oid"])
        if parameters is not None:
            async with connection.cursor() as cursor:
                cursor.adapters.register_dumper(Histograms, HistogramsDumper)
                await cursor.execute(_SQL["roll_up"], parameters)

    async def _make(self, days: frozenset[date]) -> None:
        if not days <= self._days:
            made = await self._db.rows(_SQL["ensure_days"], days=sorted(days - self._days))
            self._days |= {row["day"] for row in made}

    async def _placed(self, connection: AsyncConnection[Row], arrivals: Arrivals, write: _Write) -> frozenset[tuple[str, str]]:
        strays = arrivals.days - self._days
        if strays:
            made = await (await connection.execute(_SQL["made_days"], {"days": sorted(strays)})).fetchall()
            strays -= {row["day"] for row in made}
        try:
            async with connection.transaction():
                new = await write(connection, arrivals, strays)
                if strays:
                    await connection.execute(_SQL["note_future_days"], {"days": sorted(strays)})
                return new
        except errors.CheckViolation:  # no such partition: the day was dropped
            raise Overtaken from None


async def _copy(connection: AsyncConnection[Row], arrivals: Arrivals, strays: frozenset[date]) -> frozenset[tuple[str, str]]:
    await _send(connection, _SQL["copy_spans"], arrivals, strays)
    return frozenset()


async def _sift(connection: AsyncConnection[Row], arrivals: Arrivals, strays: frozenset[date]) -> frozenset[tuple[str, str]]:
    await connection.execute(_SQL["make_arrivals"])
    await _send(connection, _SQL["copy_arrivals"], arrivals, strays)
    new = await (await connection.execute(_SQL["insert_arrivals"])).fetchall()
    return frozenset((row["trace_id"], row["span_id"]) for row in new)


async def _send(connection: AsyncConnection[Row], statement: LiteralString, arrivals: Arrivals, strays: frozenset[date]) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write(HEADER)
        for start in range(0, len(arrivals), _BREATH):
            await copy.write(arrivals.data(start, start + _BREATH, strays))
            await asyncio.sleep(0)
        await copy.write(TRAILER)
