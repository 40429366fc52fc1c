"""study_runs and agent_steps."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from e2i.domain.runs import StudyRun
from e2i.errors import Conflict
from e2i.ports.records import StepSummary
from e2i.storage.postgres import as_json, our_errors
from e2i.storage.sql import load

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from e2i.domain.runs import StepRecord
    from e2i.storage.postgres import Database, Row

_SQL = load("runs")


@dataclass(frozen=True)
class _Claim:
    connection: AsyncConnection[Row]
    claims: int


class RunRepository:
    """`RunRecords` on PostgreSQL.

    A claim holds a lock of a connection of its own, so it is free the moment its process dies, and no clock decides who lives.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._held: dict[str, _Claim] = {}

    async def claim(self, run: StudyRun) -> StudyRun:
        """Start `run`, or take over the newest unfinished run with its fingerprint; the run to work on.

        Raises
        ------
        Conflict
            A live process runs it.
        """
        connection = await self._db.dedicated()
        try:
            with our_errors(self._db.where):
                row = await _take(connection, run)
        except BaseException:
            await connection.close()
            raise
        self._held[row["run_id"]] = _Claim(connection, row.pop("claims"))
        return StudyRun(**row)

    async def finish(self, run: StudyRun) -> None:
        """Write the end and release the lock; when the end cannot be written, the claim stays.

        Raises
        ------
        Conflict
            This repository did not claim the run, or another process has taken it over since.
        """
        claim = self._held.get(run.run_id)
        if claim is None:
            raise Conflict(f"run {run.run_id} was not claimed here.", where="study_runs", advice="Claim it first.")
        row = await self._db.row(_SQL["finish"], **_columns(run), claims=claim.claims)
        del self._held[run.run_id]
        await claim.connection.close()
        if row is None:
            raise Conflict(
                f"run {run.run_id} was taken over by another process.",
                where="study_runs",
                advice="The other process finishes it; nothing was written here.",
            )

    async def record_step(self, step: StepRecord) -> None:
        """Append. Raises NotFound when there is no such run."""
        error = as_json(step.error) if step.error is not None else None
        await self._db.run(_SQL["record_step"], **{**asdict(step), "tier": step.tier.value, "error": error})

    async def summarize(self, run_id: str) -> list[StepSummary]:
        """A run's steps by agent, in the order of the tiers; empty when nothing was recorded. Percentiles are interpolated."""
        return [StepSummary(**row) for row in await self._db.rows(_SQL["summarize"], run_id=run_id)]

    async def recent(self, limit: int = 20) -> list[StudyRun]:
        """Newest first."""
        return [StudyRun(**row) for row in await self._db.rows(_SQL["recent"], limit=limit)]


async def _take(connection: AsyncConnection[Row], run: StudyRun) -> Row:
    """The row to work on, once this session holds the lock of its fingerprint."""
    locked = await (await connection.execute(_SQL["lock_fingerprint"], {"fingerprint": run.fingerprint})).fetchone()
    unfinished = await (await connection.execute(_SQL["unfinished"], {"fingerprint": run.fingerprint})).fetchone()
    if locked is None or not locked["is_mine"]:
        raise _held_elsewhere(run, unfinished)
    holder = {"pid": os.getpid(), "host": socket.gethostname()}
    if unfinished is not None:
        cursor = await connection.execute(_SQL["take_over"], {"run_id": unfinished["run_id"], **holder})
    else:
        cursor = await connection.execute(_SQL["insert"], {**_columns(run), **holder})
    row = await cursor.fetchone()
    assert row is not None
    return row


def _columns(run: StudyRun) -> dict[str, object]:
    return {**vars(run), "error": as_json(run.error) if run.error is not None else None}


def _held_elsewhere(run: StudyRun, unfinished: Row | None) -> Conflict:
    if unfinished is None:  # between its lock and its row, or between its last write and the release
        what = f"another process is starting or ending study {run.study} right now."
    else:
        holder = f"pid {unfinished['holder_pid']} on {unfinished['holder_host']}"
        what = f"run {unfinished['run_id']} of study {run.study} is in the hands of another process ({holder})."
    return Conflict(what, where="study_runs", advice="Wait until it ends, or end that process; then the run goes on where it stopped.")
