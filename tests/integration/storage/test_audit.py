"""The audit chain: whatever is done to it, verification names the first bad entry."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest

from databases import scratch
from e2i.domain.runs import AuditEntry
from e2i.errors import BackendRejected, StorageError
from e2i.storage.audit import AuditFiles, AuditVerification, Link
from e2i.storage.postgres import Database
from e2i.storage.repositories import AuditRepository
from e2i.storage.sql import load

ENTRIES = 12
PLACES = (1, 6, 12)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = scratch("e2i-audit-")
    yield folder / "audit"
    shutil.rmtree(folder)


@pytest.fixture
def audit(database: Database, folder: Path) -> AuditRepository:
    return AuditRepository(database, AuditFiles(folder))


def entry(number: int = 1, **changes: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "actor": f"actor{number}",
        "action": "model.transition",
        "subject": f"model/{number}",
        "details": {"n": number, "share": 0.1, "big": 1e16, "deep": [{"ü": None}, True]},
    }
    return AuditEntry(**{**values, **changes})


async def fill(audit: AuditRepository, count: int = ENTRIES) -> None:
    for number in range(1, count + 1):
        await audit.append(entry(number))


class Tamperer:
    """Somebody who rules the database: he switches the guards off, changes what he likes, and can put everything back."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("set session_replication_role = replica")
        self.connection.execute("create table untouched as select * from audit_log")

    def do(self, statement: str, *values: object) -> None:
        done = self.connection.execute(statement, values)  # type: ignore[arg-type]
        assert done.rowcount != 0, f"nothing changed: {statement}"

    def restore(self) -> None:
        self.connection.execute("delete from audit_log")
        self.connection.execute("insert into audit_log select * from untouched")


@pytest.fixture
def tamperer(fresh_database: str) -> Iterator[list[Tamperer]]:
    made: list[Tamperer] = []
    yield made
    for one in made:
        one.connection.close()


async def test_entries_come_back_linked_and_the_chain_verifies(audit: AuditRepository, database: Database, folder: Path) -> None:
    moment = datetime(2026, 3, 6, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=9)))
    first = await audit.append(entry(1, occurred_at=moment))
    second = await audit.append(entry(2))
    assert (first.sequence, second.sequence) == (1, 2)
    assert (first.previous_hash, second.previous_hash) == ("0" * 64, first.entry_hash)
    assert first.occurred_at == moment
    assert first.occurred_at.utcoffset() == timedelta(0)
    assert await audit.verify() == AuditVerification(ok=True, entries=2)
    row = (await database.rows("select details::text as details from audit_log where sequence = 1"))[0]
    assert row["details"] == '{"big":1e+16,"deep":[{"ü":null},true],"n":1,"share":0.1}'
    for name in ("audit.key", "audit.head"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    key = (folder / "audit.key").read_text().strip()
    assert len(key) == 64
    assert key not in json.dumps(await database.rows("select * from audit_log"), default=str)


async def test_an_empty_chain_verifies(audit: AuditRepository) -> None:
    assert await audit.verify() == AuditVerification(ok=True, entries=0)


async def test_the_table_refuses_updates_deletions_and_truncation(audit: AuditRepository, database: Database) -> None:
    await fill(audit, 2)
    for statement in ("update audit_log set actor = 'x'", "delete from audit_log", "truncate audit_log"):
        with pytest.raises(BackendRejected, match="append-only"):
            await database.run(statement)  # type: ignore[arg-type]
    assert (await audit.verify()).ok


EDITS = {
    "occurred_at": ["occurred_at = occurred_at + interval '1 microsecond'", "occurred_at = occurred_at - interval '1 day'"],
    "actor": ["actor = actor || ' '", "actor = ''", "actor = upper(actor)"],
    "action": ["action = 'model.champion'", "(actor, action) = (left(actor, -1), right(actor, 1) || action)"],
    "subject": ["subject = subject || '0'", "(action, subject) = (action || left(subject, 1), substr(subject, 2))"],
    "details": [
        """details = replace(details::text, '"share":0.1', '"share":0.2')::json""",
        """details = replace(details::text, '"share":0.1', '"share":"0.1"')::json""",
        """details = replace(details::text, '"share":0.1', '"share":0.10')::json""",
        "details = replace(details::text, ',', ', ')::json",
        "details = details::jsonb::text::json",
        "details = 'null'::json",
    ],
    "previous_hash": ["previous_hash = repeat('0', 63) || '1'", "previous_hash = upper(previous_hash)"],
    "entry_hash": ["entry_hash = repeat('f', 64)", "entry_hash = reverse(entry_hash)"],
    "sequence": ["sequence = sequence + 100"],
}


async def test_every_edit_of_every_column_is_found_at_its_entry(
    audit: AuditRepository, database: Database, tamperer: list[Tamperer]
) -> None:
    await fill(audit)
    villain = Tamperer(database.url)
    tamperer.append(villain)
    columns = {
        row["c"] for row in await database.rows("select column_name as c from information_schema.columns where table_name = 'audit_log'")
    }
    assert columns == set(EDITS), "a new column needs its edits here"
    for edit in (edit for edits in EDITS.values() for edit in edits):
        for place in PLACES:
            if place == 1 and edit == "previous_hash = upper(previous_hash)":
                continue  # zeros have no upper case
            villain.do(f"update audit_log set {edit} where sequence = %s", place)
            found = await audit.verify()
            assert not found.ok, f"{edit} at {place} was not found"
            assert found.first_bad_sequence == place, f"{edit} at {place}: {found}"
            assert found.reason
            villain.restore()
    assert await audit.verify() == AuditVerification(ok=True, entries=ENTRIES)


async def test_removal_truncation_reorder_and_insertion_are_found_at_the_first_entry_concerned(
    audit: AuditRepository, database: Database, tamperer: list[Tamperer]
) -> None:
    await fill(audit)
    villain = Tamperer(database.url)
    tamperer.append(villain)
    swap = """
        update audit_log a set occurred_at = b.occurred_at, actor = b.actor, action = b.action, subject = b.subject,
            details = b.details, previous_hash = b.previous_hash, entry_hash = b.entry_hash || ''
        from untouched b where (a.sequence, b.sequence) in ((%s, %s), (%s, %s))"""
    insertion = "insert into audit_log select {}, occurred_at, {} from untouched where sequence = {}"
    campaign: list[tuple[int, list[tuple[str, tuple[object, ...]]]]] = [
        *((place, [("delete from audit_log where sequence = %s", (place,))]) for place in PLACES),
        *((ENTRIES - cut + 1, [("delete from audit_log where sequence > %s", (ENTRIES - cut,))]) for cut in (1, 5, ENTRIES)),
        (1, [("truncate audit_log", ())]),
        (3, [("delete from audit_log where sequence between 3 and 9", ())]),
        (
            3,
            [
                ("delete from audit_log where sequence = 3", ()),
                ("update audit_log set sequence = sequence + 1000 where sequence > 3", ()),
                ("update audit_log set sequence = sequence - 1001 where sequence > 1000", ()),
            ],
        ),
        (3, [("alter table audit_log drop constraint audit_log_entry_hash_key", ()), (swap, (3, 9, 9, 3))]),
        (5, [("update audit_log set sequence = 99 where sequence = 5", ()), ("update audit_log set sequence = 5 where sequence = 6", ())]),
        (
            4,
            [
                ("update audit_log set sequence = sequence + 1000 where sequence >= 4", ()),
                ("update audit_log set sequence = sequence - 999 where sequence >= 1000", ()),
                (insertion.format(4, "'me', action, subject, details, previous_hash, md5('x') || md5('y')", 4), ()),
            ],
        ),
        (13, [(insertion.format(13, "actor, action, subject, details, entry_hash, md5('x') || md5('y')", 12), ())]),
        (13, [(insertion.format(13, "actor, action, subject, details, previous_hash, entry_hash", 5), ())]),
    ]  # fmt: skip
    for bad, steps in campaign:
        for statement, values in steps:
            if statement.startswith(("truncate", "alter")):
                villain.connection.execute(statement)  # type: ignore[arg-type]
            else:
                villain.do(statement, *values)
        found = await audit.verify()
        assert (found.ok, found.first_bad_sequence) == (False, bad), f"{steps}: {found}"
        villain.restore()
    assert (await audit.verify()).ok


async def test_a_chain_rewritten_with_another_key_is_bad_from_its_first_changed_entry(
    audit: AuditRepository, database: Database, tamperer: list[Tamperer]
) -> None:
    await fill(audit)
    villain = Tamperer(database.url)
    tamperer.append(villain)
    rows = await database.rows(load("audit")["walk"])
    for start in (1, 7):
        previous = rows[start - 1]["previous_hash"]
        for row in rows[start - 1 :]:
            link = replace(Link(**row), actor="nobody", previous_hash=previous)
            sealed = link.sealed(b"a guess")
            villain.do(
                "update audit_log set actor = 'nobody', previous_hash = %s, entry_hash = %s where sequence = %s",
                previous,
                sealed,
                row["sequence"],
            )
            previous = sealed
        found = await audit.verify()
        assert (found.ok, found.first_bad_sequence) == (False, start)
        villain.restore()


async def test_a_cut_chain_is_not_written_on(audit: AuditRepository, database: Database, tamperer: list[Tamperer]) -> None:
    """New entries under the old numbers would hide the cut."""
    await fill(audit, 5)
    villain = Tamperer(database.url)
    tamperer.append(villain)
    villain.do("delete from audit_log where sequence > 3")
    with pytest.raises(StorageError, match=r"lacks its entry 5.*e2i audit verify"):
        await audit.append(entry(6))
    assert (await audit.verify()).first_bad_sequence == 4
    villain.restore()
    await audit.append(entry(6))
    assert await audit.verify() == AuditVerification(ok=True, entries=6)


async def test_a_crash_between_commit_and_head_leaves_a_chain_that_verifies_and_goes_on(
    audit: AuditRepository, database: Database, folder: Path
) -> None:
    for expected in (1, 3):
        async with database.transaction() as connection:
            await audit.append_within(connection, entry())  # and no anchor: the process died here
        again = AuditRepository(database, AuditFiles(folder))
        assert await again.verify() == AuditVerification(ok=True, entries=expected)
        await again.append(entry())
        assert await again.verify() == AuditVerification(ok=True, entries=expected + 1)
        assert json.loads((folder / "audit.head").read_text())["sequence"] == expected + 1


async def test_an_entry_of_a_transaction_that_fails_is_never_there(audit: AuditRepository, database: Database) -> None:
    await audit.append(entry(1))

    async def fails() -> None:
        async with database.transaction() as connection:
            await audit.append_within(connection, entry(2))
            raise KeyError

    with pytest.raises(KeyError):
        await fails()
    assert await audit.verify() == AuditVerification(ok=True, entries=1)
    assert (await audit.append(entry(3))).sequence == 2


async def test_writers_at_once_make_one_chain(audit: AuditRepository, fresh_database: str, folder: Path) -> None:
    other = Database(fresh_database)
    await other.open()
    writers = [audit, AuditRepository(other, AuditFiles(folder))]
    try:
        links = await asyncio.gather(*(writers[number % 2].append(entry(number)) for number in range(60)))
    finally:
        await other.close()
    assert sorted(link.sequence or 0 for link in links) == list(range(1, 61))
    assert await audit.verify() == AuditVerification(ok=True, entries=60)
    assert json.loads((folder / "audit.head").read_text())["count"] == 60


async def test_lost_or_forged_files_are_said(audit: AuditRepository, database: Database, folder: Path) -> None:
    await fill(audit, 3)
    head = (folder / "audit.head").read_text()
    for damage in ("", "{}", head.replace('"sequence": 3', '"sequence": 2'), head[:-20]):
        (folder / "audit.head").write_text(damage)
        found = await audit.verify()
        assert (found.ok, found.first_bad_sequence) == (False, None)
        assert "audit.head" in str(found.reason)
        with pytest.raises(StorageError, match=r"audit\.head"):
            await audit.append(entry(4))
    (folder / "audit.head").unlink()
    assert not (await audit.verify()).ok
    (folder / "audit.head").write_text(head)
    assert (await audit.verify()).ok
    (folder / "audit.key").unlink()
    stranger = AuditRepository(database, AuditFiles(folder))
    assert "key is gone" in str((await stranger.verify()).reason)
    with pytest.raises(StorageError, match="key is gone"):
        await stranger.append(entry(4))


async def test_details_without_one_text_are_refused(audit: AuditRepository) -> None:
    for wrong in ({1: "x"}, {"x": float("nan")}, {"x": {1, 2}}, {"x": datetime(2026, 1, 1)}, {"x": "\ud800"}):  # noqa: DTZ001
        with pytest.raises(StorageError, match="details"):
            await audit.append(entry(details=wrong))
    await audit.append(entry(details={"at": datetime(2026, 1, 1, tzinfo=UTC), "nul": "\x00", "pair": (1, 2)}))
    assert await audit.verify() == AuditVerification(ok=True, entries=1)
