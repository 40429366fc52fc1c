"""A real PostgreSQL for every test that wants one: one embedded server per session, a new database per test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

# As in e2i.config: spinning BLAS threads cost six times the CPU on small matrices. Set before anybody imports numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test reads a clock: a busy machine is no failure. The same examples every time, so that a commit passes or fails by what it says;
# `pytest --hypothesis-profile explore` draws new ones.
_CLOCKLESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.register_profile("e2i", _CLOCKLESS, derandomize=True)
settings.register_profile("explore", _CLOCKLESS)
settings.load_profile("e2i")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Unprintable bytes are named by their argument: packed ones hold the time, and every worker must collect the same names."""
    printable = not isinstance(val, bytes) or (val.isascii() and val.decode("ascii").isprintable())
    return None if printable else argname


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """URL of the session's embedded server; test processes that run side by side share it. Waits for no disk."""
    from databases import administer, scratch
    from e2i.storage.embedded import EmbeddedServer

    shared = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    home = Path(tempfile.gettempdir()) / f"e2i-{shared}" if shared else scratch("e2i-")
    server = EmbeddedServer(home)
    url = server.start()
    administer(url, "alter system set fsync = off", "select pg_reload_conf()")
    yield url
    server.release()
    if not server.status().is_running:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def database_template(database_url: str) -> Iterator[object]:
    """The migrated database that `fresh_database` copies."""
    from databases import migrated_template

    with migrated_template(database_url) as template:
        yield template


@pytest.fixture
def fresh_database(database_template: object) -> Iterator[str]:
    """URL of a new database with all migrations applied, dropped afterwards."""
    from databases import Template, copy_of

    assert isinstance(database_template, Template)
    with copy_of(database_template) as url:
        yield url


@pytest_asyncio.fixture
async def database(fresh_database: str) -> AsyncIterator[object]:
    """An open `Database` on `fresh_database`."""
    from e2i.storage.postgres import Database

    db = Database(fresh_database)
    await db.open()
    yield db
    await db.close()
