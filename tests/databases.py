"""Databases for tests: a new one from a migrated template takes some tens of milliseconds."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from e2i.storage import migrate
from e2i.storage.postgres import Database

_numbers = itertools.count(1)


def scratch(prefix: str) -> Path:
    """A new folder with a short path, in memory where there is plenty: many databases are made and dropped."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2_000_000_000
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory if roomy else None))


@dataclass(frozen=True)
class Template:
    """A server and the name of a migrated, unused database on it."""

    server_url: str
    name: str


def with_name(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def administer(url: str, *statements: str) -> None:
    """Statements outside a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """URL of a new database without migrations, dropped afterwards."""
    name = f"empty_{os.getpid()}_{next(_numbers)}"
    administer(server_url, f"create database {name}")
    try:
        yield with_name(server_url, name)
    finally:
        administer(server_url, f"drop database {name} with (force)")


@contextmanager
def migrated_template(server_url: str) -> Iterator[Template]:
    """Make the template of one test process."""
    name = f"template_{os.getpid()}"
    administer(server_url, f"create database {name}")
    try:
        with ThreadPoolExecutor(1) as thread:  # never inside a loop that a test runs
            thread.submit(asyncio.run, _upgrade(with_name(server_url, name))).result()
        yield Template(server_url, name)
    finally:
        administer(server_url, f"drop database {name} with (force)")


@contextmanager
def copy_of(template: Template) -> Iterator[str]:
    """URL of a new database with all migrations applied, dropped afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    administer(template.server_url, f"create database {name} template {template.name}")
    try:
        yield with_name(template.server_url, name)
    finally:
        administer(template.server_url, f"drop database {name} with (force)")


async def _upgrade(url: str) -> None:
    db = Database(url)
    await db.open()
    try:
        await migrate.upgrade(db)
    finally:
        await db.close()


async def until_one_waits_for_a_lock(connection: psycopg.AsyncConnection[Any]) -> list[int]:
    """Process ids of the sessions of this database that wait for a lock; comes back when there is one."""
    while True:
        await connection.execute("select pg_stat_clear_snapshot()")  # a transaction sees the sessions of its first look only
        cursor = await connection.execute(
            "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        if waiting := await cursor.fetchall():
            return [row["pid"] for row in waiting]
        await asyncio.sleep(0.02)
