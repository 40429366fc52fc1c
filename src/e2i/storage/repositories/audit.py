"""audit_log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from e2i.domain.runs import AuditEntry
from e2i.errors import StorageError
from e2i.storage.audit import AuditVerification, Head, Link, canonical_json, verify_link
from e2i.storage.postgres import our_errors
from e2i.storage.sql import load

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from e2i.storage.audit import AuditFiles
    from e2i.storage.postgres import Database, Row

_SQL = load("audit")
_BATCH = 2000


class AuditRepository:
    """`AuditTrail` on PostgreSQL.

    Parameters
    ----------
    db : where the chain is kept
    files : where its key and its head are kept; one folder per database
    """

    def __init__(self, db: Database, files: AuditFiles) -> None:
        self._db = db
        self._files = files

    async def append(self, entry: AuditEntry) -> AuditEntry:
        """Add a link; committed, and the head on disk, when this returns.

        Raises
        ------
        StorageError
            The chain was cut or changed at its head, or `details` have no canonical form.
        """
        async with self._db.transaction() as connection:
            link = await self.append_within(connection, entry)
        await self.anchor(link)
        return link

    async def append_within(self, connection: AsyncConnection[Row], entry: AuditEntry) -> AuditEntry:
        """Add a link in an open transaction; call `anchor` after its commit. Other writers wait for that commit."""
        details = canonical_json(entry.details)
        await connection.execute(_SQL["lock"])
        last = await (await connection.execute(_SQL["last"])).fetchone()
        await self._check_head(connection, last)
        link = Link(
            sequence=last["sequence"] + 1 if last else 1,
            occurred_at=(entry.occurred_at or datetime.now(UTC)).astimezone(UTC),
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            details=details,
            previous_hash=last["entry_hash"] if last else Head().entry_hash,
        )
        sealed = link.sealed(self._files.key(is_empty=last is None))
        parameters = {**vars(link), "entry_hash": sealed}
        await connection.execute(_SQL["append"], parameters)
        return replace(entry, sequence=link.sequence, occurred_at=link.occurred_at, previous_hash=link.previous_hash, entry_hash=sealed)

    async def anchor(self, link: AuditEntry) -> None:
        """Write the head after the commit. A crash before this leaves the chain ahead of its head, which is allowed."""
        assert link.sequence is not None
        assert link.entry_hash is not None
        await asyncio.to_thread(self._files.advance, Head(sequence=link.sequence, entry_hash=link.entry_hash, count=link.sequence))

    async def verify(self) -> AuditVerification:
        """Walk the whole chain and name the first bad entry.

        Raises
        ------
        BackendUnavailable
            The database cannot be reached. Whatever is wrong with the chain itself is a result.
        """
        async with self._db.transaction() as connection:
            last = await (await connection.execute(_SQL["last"])).fetchone()
            # The head is read before the walk: entries that arrive meanwhile only put the chain further ahead.
            try:
                head = await asyncio.to_thread(self._files.head, is_empty=last is None)
                key = self._files.key(is_empty=last is None)
            except StorageError as error:
                return AuditVerification(ok=False, entries=0, reason=f"{error.where}: {error.what}")
            return await self._walk(connection, key, head)

    async def _walk(self, connection: AsyncConnection[Row], key: bytes, head: Head) -> AuditVerification:
        before: Link | None = None
        count = 0
        with our_errors(self._db.where):
            async with connection.cursor(name="audit_walk") as cursor:
                cursor.itersize = _BATCH
                await cursor.execute(_SQL["walk"])
                async for row in cursor:
                    link = Link(**row)
                    reason = verify_link(link, before=before, key=key)
                    if reason is None and link.sequence == head.sequence and link.entry_hash != head.entry_hash:
                        reason = "it is not the entry that the head names"
                    if reason is not None:
                        return AuditVerification(ok=False, entries=count, first_bad_sequence=count + 1, reason=reason)
                    before, count = link, count + 1
        if count < head.count:
            reason = f"the chain ends at entry {count}, its head is entry {head.sequence}"
            return AuditVerification(ok=False, entries=count, first_bad_sequence=count + 1, reason=reason)
        return AuditVerification(ok=True, entries=count)

    async def _check_head(self, connection: AsyncConnection[Row], last: Row | None) -> None:
        """Refuse to write on: new entries would hide that old ones are gone."""
        head = self._files.head(is_empty=last is None)
        if head.sequence == 0:
            return
        known = await (await connection.execute(_SQL["hash_at"], {"sequence": head.sequence})).fetchone()
        if known is None or known["entry_hash"] != head.entry_hash:
            raise StorageError(
                f"the audit chain lacks its entry {head.sequence}, or it was changed",
                where="audit_log",
                advice="Run `e2i audit verify`, then restore the database from a backup.",
            )
