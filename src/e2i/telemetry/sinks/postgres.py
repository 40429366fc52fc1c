"""ml_observability_spans as a sink: rows and the place in the spool commit together, so that every span is there exactly once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from e2i.errors import BackendRejected, BackendUnavailable, E2IError, MigrationNeeded, StorageError
from e2i.telemetry.state import SinkState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.telemetry import SpanRecord
    from e2i.ports.telemetry import SpanShipments
    from e2i.telemetry.cursor import CursorFile

_log = logging.getLogger(__name__)
NAME = "postgres"
_VALUE_FAULTS = ("21", "22", "23", "54")
"""SQLSTATE classes that speak of what was written: cardinality, data, integrity, limits; all others speak of the server or of our rights"""


class PostgresSink:
    """A Sink on `SpanShipments`. The database's state is the truth; the cursor file is a copy for those who ask while it is away."""

    name = NAME
    batch_bytes = 3 * 1024 * 1024
    """a thousand spans of a language model: what a transaction costs besides its rows is then a tenth of them"""
    keeps_state_here = False
    wants_left_out = True

    def __init__(self, shipments: SpanShipments, cursor: CursorFile, *, batch_size: int = 1000) -> None:
        self.batch_size = batch_size
        self._shipments = shipments
        self._cursor = cursor
        self._spool_id = ""

    async def load(self, spool_id: str) -> SinkState | None:
        """See Sink."""
        self._spool_id = spool_id
        try:
            found = await self._shipments.shipped(spool_id)
        except E2IError as error:
            raise _unavailable(error) from error
        try:
            state = None if found is None else SinkState.from_json(found)
        except ValueError as error:
            raise BackendUnavailable(
                f"the kept place cannot be read: {error}.",
                where="postgres",
                advice="A later version of E2I ships this spool; use that one.",
            ) from error
        copy = self._cursor.read(spool_id)
        if state is not None and (copy is None or copy.accounted < state.accounted):
            await self._copy(state)  # a commit whose answer was lost
        return state

    def remembered(self) -> SinkState | None:
        """See Sink: ahead of `load` only when the database was put back to an earlier state."""
        return self._cursor.read(self._spool_id)

    async def deliver(self, spans: Sequence[SpanRecord], state: SinkState, left_out: Sequence[SpanRecord] = ()) -> int:
        """See Sink."""
        try:
            await self._shipments.ship(spans, spool_id=self._spool_id, state=state.to_json(), left_out=left_out)
        except E2IError as error:
            raise _classified(error) from error
        await self._copy(state)
        return 0

    async def save(self, state: SinkState) -> None:
        """See Sink."""
        try:
            await self._shipments.ship([], spool_id=self._spool_id, state=state.to_json())
        except E2IError as error:
            raise _unavailable(error) from error
        await self._copy(state)

    async def close(self) -> None:
        """The database belongs to whoever opened it."""

    async def _copy(self, state: SinkState) -> None:
        """A full disk here must not keep spans from the database: it is what empties the disk."""
        try:
            await self._cursor.write(state)
        except OSError as error:
            _log.warning("the copy of the place reached cannot be written: %s", error)


def _classified(error: E2IError) -> E2IError:
    """BackendRejected when the rows may be at fault, else BackendUnavailable: a full disk or a missing table is no row's fault."""
    if not isinstance(error, StorageError | BackendRejected) or isinstance(error, MigrationNeeded):
        return _unavailable(error)
    code = getattr(error.__cause__, "sqlstate", "")
    # "": refused before it reached the database. None: refused by the driver, which is a value's fault, or at the login, which is not.
    is_of_rows = code == "" or (isinstance(error, StorageError) if code is None else str(code).startswith(_VALUE_FAULTS))
    return BackendRejected(error.what, where=error.where, advice=error.advice) if is_of_rows else _unavailable(error)


def _unavailable(error: E2IError) -> BackendUnavailable:
    return error if isinstance(error, BackendUnavailable) else BackendUnavailable(error.what, where=error.where, advice=error.advice)
