"""Migrations on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from databases import administer, empty_database, with_name
from e2i.errors import BackendRejected, MigrationNeeded, StorageError
from e2i.storage import migrate
from e2i.storage.migrate import Migration, shipped_migrations
from e2i.storage.postgres import Database
from e2i.storage.sql import FOLDER

MORE = (
    *shipped_migrations(),
    Migration(version=len(shipped_migrations()) + 1, name="9998_more", text="create table more (n integer); insert into more values (1);"),
)
CATALOG = """
select 'column' as kind, table_schema || '.' || table_name || '.' || column_name as name,
    concat_ws(' ', ordinal_position, data_type, udt_name, character_maximum_length, numeric_precision, numeric_scale, is_nullable,
        column_default, is_identity, identity_generation) as content
from information_schema.columns where table_schema not in ('pg_catalog', 'information_schema')
union all
select 'type', format('%I.%I', a.attrelid::regclass, a.attname), format_type(a.atttypid, a.atttypmod)
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0
union all
select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
from pg_constraint where connamespace = 'public'::regnamespace
union all
select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
union all
select 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
union all
select 'function', proname, pg_get_functiondef(oid) from pg_proc p
where pronamespace = 'public'::regnamespace and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
union all
select 'enum', t.typname || '.' || e.enumsortorder, e.enumlabel from pg_enum e join pg_type t on t.oid = e.enumtypid
union all
select 'schema', nspname, '' from pg_namespace where nspname !~ '^pg_'
order by 1, 2, 3
"""


@pytest.fixture
def empty(server_url: str) -> Iterator[str]:
    with empty_database(server_url) as url:
        yield url


@pytest.fixture
async def db(empty: str) -> AsyncIterator[Database]:
    database = Database(empty)
    await database.open()
    yield database
    await database.close()


def catalog(url: str) -> list[tuple[str, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(CATALOG).fetchall()  # type: ignore[arg-type]


async def test_an_empty_database_is_upgraded_once(db: Database) -> None:
    assert await migrate.current(db) is None
    assert await migrate.upgrade(db) == [migration.name for migration in shipped_migrations()]
    assert await migrate.upgrade(db) == []
    assert await migrate.current(db) == shipped_migrations()[-1].name


async def test_the_sum_of_the_migrations_is_the_schema_file(db: Database, server_url: str) -> None:
    await migrate.upgrade(db)
    with empty_database(server_url) as other:
        administer(other, (FOLDER / "schema.sql").read_text())
        built = catalog(db.url)
        assert built == catalog(other)
        assert len([row for row in built if row[0] == "column"]) > 150
        administer(other, "alter table outbox alter column attempts set default 1")
        assert built != catalog(other), "the comparison sees a changed default"


async def test_starters_that_race_apply_everything_once(empty: str) -> None:
    databases = [Database(empty) for _ in range(4)]
    for database in databases:
        await database.open()
    applied = await asyncio.gather(*(migrate.upgrade(database, migrations=MORE) for database in databases))
    assert sorted(name for names in applied for name in names) == [migration.name for migration in MORE]
    assert (await databases[0].rows("select count(*) as n from more"))[0]["n"] == 1
    for database in databases:
        await database.close()


async def test_a_migration_edited_after_it_was_applied_is_named(db: Database) -> None:
    await migrate.upgrade(db, migrations=MORE)
    edited = (*MORE[:-1], replace(MORE[-1], text=MORE[-1].text + "-- harmless"))
    for call in (migrate.current, migrate.upgrade):
        with pytest.raises(MigrationNeeded, match="migration 9998_more was changed"):
            await call(db, migrations=edited)


async def test_a_database_newer_than_the_code_is_refused(db: Database) -> None:
    await migrate.upgrade(db, migrations=MORE)
    for call in (migrate.current, migrate.upgrade):
        with pytest.raises(MigrationNeeded, match=r"newer than this release: it has 9998_more.*Install a newer E2I"):
            await call(db)


async def test_a_migration_that_fails_leaves_nothing_behind(db: Database) -> None:
    broken = (*MORE[:-1], replace(MORE[-1], text="create table half (n integer); select 1 / 0;"))
    with pytest.raises(StorageError, match=r"9998_more failed and was undone: division by zero"):
        await migrate.upgrade(db, migrations=broken)
    assert await migrate.current(db) == MORE[-2].name
    assert (await db.rows("select to_regclass('half') is null as gone"))[0]["gone"]
    assert await migrate.upgrade(db, migrations=MORE) == ["9998_more"]


async def test_a_migrator_killed_in_the_middle_leaves_nothing_behind(db: Database) -> None:
    slow = (replace(MORE[0], text="create table half (n integer); select pg_sleep(20);"),)
    task = asyncio.create_task(migrate.upgrade(db, migrations=slow))
    other = Database(db.url)
    await other.open()
    stopped: list[dict[str, object]] = []
    while not stopped:
        await asyncio.sleep(0.02)
        stopped = await other.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
        )
    with pytest.raises(Exception, match="terminating connection"):
        await task
    assert await migrate.current(other) is None
    assert await migrate.upgrade(other) == [migration.name for migration in shipped_migrations()]
    await other.close()


async def test_a_server_without_pgvector_is_refused_with_advice(database_url: str) -> None:
    with empty_database(database_url) as url:
        name = url.split("?")[0].rsplit("/", 1)[1]
        administer(with_name(database_url, "postgres"), f"alter database {name} set extension_control_path = '/nowhere'")
        database = Database(url)
        await database.open()
        with pytest.raises(StorageError, match=r"no pgvector.*Install pgvector"):
            await migrate.upgrade(database)
        await database.close()


async def test_a_user_who_may_not_make_tables_is_told_so(server_url: str) -> None:
    with empty_database(server_url) as url:
        administer(url, "create role weak login password 'weak'")
        try:
            scheme, rest = url.split("://")
            database = Database(f"{scheme}://weak:weak@{rest.split('@')[1]}")
            await database.open()
            with pytest.raises((StorageError, BackendRejected), match=r"right to"):
                await migrate.upgrade(database)
            await database.close()
        finally:
            administer(url, "drop role weak")


def test_numbers_with_a_gap_are_refused(tmp_path: Path) -> None:
    for name in ("0001_a.sql", "0003_c.sql"):
        (tmp_path / name).write_text("select 1;")
    with pytest.raises(StorageError, match="without gaps"):
        migrate.read_migrations(tmp_path)
