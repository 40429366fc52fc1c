"""How spans come into ml_observability_spans from a spool, and in pieces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from psycopg import errors
from psycopg.types.json import Json, set_json_loads

from e2i.domain.telemetry import SpanRecord
from e2i.errors import BackendUnavailable
from e2i.storage.postgres import json_text
from e2i.storage.span_rows import measure_alone, measure_of, row_of, stored_span
from e2i.storage.span_writer import Arrivals, Overtaken, SpanWriter
from e2i.storage.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from e2i.domain.telemetry import StoredSpan
    from e2i.storage.postgres import Database, Row

_SQL = load("spans")
_NOTHING_SAID: Mapping[str, object] = {
    "parent_span_id": None,
    "name": "",
    "started_ns": 0,
    "ended_ns": None,
    "status": "unset",
    "status_message": None,
    "kind": "internal",
    "service": "e2i",
    "scope": "",
    "origin": "e2i",
}


class SpanShipmentRepository:
    """`SpanShipments` and `SpanMerges` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._writer = SpanWriter(db)
        self._told: dict[str, dict[str, Any] | None] = {}
        """the state of each spool as it was last told to, or by, whoever ships through us"""

    async def ship(
        self, spans: Sequence[SpanRecord], *, spool_id: str, state: Mapping[str, Any], left_out: Sequence[SpanRecord] = ()
    ) -> int:
        """Insert what is new, count `left_out` in the rollups alone and keep `state` for `spool_id`, in one transaction; how many were new.

        `left_out` counts with the state: not again when this very state is kept already. What cannot be measured is not counted.

        Raises
        ------
        BackendRejected
            A span is no span; nothing is written.
        BackendUnavailable
            A commit that was given up for lost came after the state had been asked for, or the database was put back; nothing is written.
        """
        kept = Json(dict(state), dumps=json_text)
        arrivals = Arrivals(spans)
        measured = [measure for span in left_out if (measure := measure_alone(span))]

        async def work(connection: AsyncConnection[Row]) -> int:
            is_counted = bool(measured) and await _is_kept(connection, spool_id, kept)
            new = await self._writer.insert(connection, arrivals, () if is_counted else measured)
            await self._keep(connection, spool_id, kept)
            return new

        new = await self._writer.transact(arrivals.days, work)
        self._told[spool_id] = dict(state)
        return new

    async def shipped(self, spool_id: str) -> dict[str, Any] | None:
        """The state kept by the latest `ship`; None for a spool that never shipped."""
        row = await self._db.row(_SQL["state"], spool_id=spool_id)
        self._told[spool_id] = None if row is None else dict(row["state"])
        return None if row is None else dict(row["state"])

    async def _keep(self, connection: AsyncConnection[Row], spool_id: str, state: Json) -> None:
        """In the place of the state that the parcel was made from; of another one it would count a part twice."""
        parameters: dict[str, object] = {"spool_id": spool_id, "state": state}
        if spool_id not in self._told:
            await connection.execute(_SQL["keep_state"], parameters)
            return
        before = self._told[spool_id]
        if before is None:
            moved = await connection.execute(_SQL["begin_state"], parameters)
        else:
            moved = await connection.execute(_SQL["move_state"], parameters | {"before": Json(before, dumps=json_text)})
        if await moved.fetchone() is None:
            raise BackendUnavailable(
                "the place reached in the spool is not what it was when this parcel was made.",
                where="telemetry_shipments",
                advice="It is asked for again; nothing is lost.",
            )

    async def merge(self, spans: Sequence[SpanRecord]) -> int:
        """Insert or update by (trace_id, span_id); how many were new.

        What is set in the newer piece replaces, attributes are united, an ended span stays ended; a start of 0 is not known yet.
        A span whose start is corrected moves to its day. The rollups lose what the old span added and gain what the new one adds.

        Raises
        ------
        BackendRejected
            A span is no span; nothing is written.
        """
        pieces: dict[tuple[str, str], SpanRecord] = {}
        for span in spans:
            row_of(span)  # refuses what is no span before anything is locked
            pieces[span.key] = united(pieces[span.key], span) if span.key in pieces else span
        return await self._writer.transact(Arrivals(pieces.values()).days, lambda connection: self._merge(connection, pieces))

    async def _merge(self, connection: AsyncConnection[Row], pieces: Mapping[tuple[str, str], SpanRecord]) -> int:
        keys = {"trace_ids": [trace for trace, _ in pieces], "span_ids": [span for _, span in pieces]}
        await self._writer.keep_days(connection)
        await connection.execute(_SQL["lock_traces"], keys)
        stored = await _stored(connection, keys)
        olds = {old.span.key: old.span for old in stored}
        whole = [united(olds[key], piece) if key in olds else piece for key, piece in pieces.items()]
        changed = {span.key: span for span in whole if span != olds.get(span.key)}
        gone = [old for old in stored if old.span.key in changed]
        arrivals = Arrivals(changed.values())
        if not arrivals:
            return 0
        await connection.execute(
            _SQL["delete_pieces"], {"trace_ids": [old.span.trace_id for old in gone], "span_ids": [old.span.span_id for old in gone]}
        )
        try:
            await self._writer.copy(connection, arrivals)
        except errors.UniqueViolation:
            raise Overtaken from None  # somebody inserted one of them after we had looked
        removed = [measure for old in gone if (measure := measure_of(old.span, old.columns))]
        await self._writer.roll_up(connection, arrivals.measures(), removed)
        return len(changed.keys() - olds.keys())


def united(old: SpanRecord, new: SpanRecord) -> SpanRecord:
    """One span from two pieces; the newer one wins where it says something."""
    said = {name: value for name, nothing in _NOTHING_SAID.items() if (value := getattr(new, name)) != nothing}
    return replace(
        old,
        **said,
        attributes={**old.attributes, **new.attributes},
        events=old.events + tuple(event for event in new.events if event not in old.events),
        links=old.links + tuple(link for link in new.links if link not in old.links),
    )


async def _is_kept(connection: AsyncConnection[Row], spool_id: str, state: Json) -> bool:
    """Whether this very state is kept already: its delivery succeeded, and its answer was lost."""
    row = await (await connection.execute(_SQL["state_to_replace"], {"spool_id": spool_id})).fetchone()
    return row is not None and bool(row["state"] == orjson.loads(json_text(state.obj)))


async def _stored(connection: AsyncConnection[Row], keys: Mapping[str, list[str]]) -> list[StoredSpan]:
    async with connection.cursor() as cursor:
        set_json_loads(orjson.loads, cursor)
        rows = await (await cursor.execute(_SQL["stored_pieces"], keys)).fetchall()
    return [stored_span(row) for row in rows]
