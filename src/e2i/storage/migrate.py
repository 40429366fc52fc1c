"""The schema: numbered SQL files, forward only, each applied once, in order, in a transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import psycopg

from e2i.errors import MigrationNeeded, StorageError
from e2i.storage.sql import FOLDER, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from psycopg import AsyncConnection

    from e2i.storage.postgres import Database, Row

_SQL = load("migrations")
OLDEST_SERVER = 150000


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file `0001_name.sql`."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Digest of the text; an applied migration must never change."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_migrations(folder: Path) -> tuple[Migration, ...]:
    """All migrations of a folder in order.

    Raises
    ------
    StorageError
        Numbers have a gap or are used twice.
    """
    files = sorted(folder.glob("*.sql"))
    found = tuple(Migration(version=int(file.name[:4]), name=file.stem, text=file.read_text(encoding="utf-8")) for file in files)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise StorageError("migrations must be numbered 0001, 0002 … without gaps", where=str(folder), advice="Rename the files.")
    return found


@cache
def shipped_migrations() -> tuple[Migration, ...]:
    """The migrations of this release."""
    return read_migrations(FOLDER / "migrations")


async def upgrade(db: Database, *, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing; names of what was applied. Several processes may do this at once.

    Raises
    ------
    MigrationNeeded
        The database is newer than this release, or an applied migration is not the one of this release.
    StorageError
        The server is older than 15, has no pgvector, or refused a migration; then nothing of that migration remains.
    """
    known = shipped_migrations() if migrations is None else migrations
    await _check_server(db)
    applied = []
    while (migration := await _next(db, known)) is not None:
        async with db.transaction() as connection:
            await connection.execute(_SQL["lock"])
            done = await _applied(connection, known)
            if done < migration.version:  # else another process was faster
                await _apply(connection, migration)
                applied.append(migration.name)
    return applied


async def current(db: Database, *, migrations: Sequence[Migration] | None = None) -> str | None:
    """Name of the newest applied migration; None for an empty database.

    Raises
    ------
    MigrationNeeded
        The database is newer than this release, or an applied migration is not the one of this release.
    """
    known = shipped_migrations() if migrations is None else migrations
    async with db.transaction() as connection:
        done = await _applied(connection, known)
    return known[done - 1].name if done else None


async def _next(db: Database, known: Sequence[Migration]) -> Migration | None:
    async with db.transaction() as connection:
        done = await _applied(connection, known)
    return known[done] if done < len(known) else None


async def _applied(connection: AsyncConnection[Row], known: Sequence[Migration]) -> int:
    """How many are applied, after checking that they are ours."""
    fresh = await (await connection.execute(_SQL["is_new"])).fetchone()
    if fresh is None or fresh["is_new"]:
        return 0
    rows = await (await connection.execute(_SQL["applied"])).fetchall()
    where = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    if len(rows) > len(known):
        raise MigrationNeeded(
            f"the database is newer than this release: it has {rows[len(known)]['name']}", where=where, advice="Install a newer E2I."
        )
    for row, migration in zip(rows, known, strict=False):
        if (row["version"], row["name"], row["sha256"]) != (migration.version, migration.name, migration.sha256):
            raise MigrationNeeded(
                f"migration {row['name']} was changed after it had been applied",
                where=where,
                advice=f"Restore {migration.name}.sql as it was released; a change of the schema is a new migration.",
            )
    return len(rows)


async def _apply(connection: AsyncConnection[Row], migration: Migration) -> None:
    try:
        await connection.execute(migration.text.encode())
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError, psycopg.IntegrityError) as exc:
        raise StorageError(
            f"migration {migration.name} failed and was undone: {exc.diag.message_primary or exc}",
            where=f"{migration.name}.sql",
            advice="The database user needs the right to create schemas, tables and the extension `vector`.",
        ) from exc
    await connection.execute(_SQL["record"], {"version": migration.version, "name": migration.name, "sha256": migration.sha256})


async def _check_server(db: Database) -> None:
    server = await db.row(_SQL["server"])
    if server is None or server["version"] < OLDEST_SERVER:
        raise StorageError(
            f"the server is PostgreSQL {server['version'] // 10000 if server else 'unknown'}, needed is 15 or newer",
            where=db.where,
            advice="Upgrade it, or leave DATABASE_URL out and the embedded server is used.",
        )
    if not server["has_vector"]:
        raise StorageError(
            "the server has no pgvector",
            where=db.where,
            advice="Install pgvector on the server, or leave DATABASE_URL out and the embedded server is used.",
        )
