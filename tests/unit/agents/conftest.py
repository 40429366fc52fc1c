"""A workshop per test, and two finished chains that many tests look at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from databases import Template, copy_of
from doubles import Inline
from e2i.domain.study import Study
from e2i.storage.postgres import Database
from tracking import AWAY, new_store
from workshop import AMOUNT, Chain, Workshop, open_workshop, study, workshop_on


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Tracking URI of an MLflow store of this test's own."""
    return new_store(tmp_path / "mlflow")


@pytest.fixture
def workshop(database: Database, fresh_database: str, store: str, tmp_path: Path) -> Workshop:
    return workshop_on(database, tmp_path, fresh_database, store, compute=Inline())


@pytest.fixture
def alone(database: Database, fresh_database: str, tmp_path: Path) -> Callable[[str], Workshop]:
    """Workshops side by side in one database, with an MLflow that never answers."""
    return lambda run_id: workshop_on(database, tmp_path / run_id, fresh_database, AWAY, run_id=run_id)


def _finished(template: Template, folder: Path, asked: Study) -> Iterator[Chain]:
    async def run(url: str) -> Chain:
        async with open_workshop(folder, url, store, study=asked) as workshop:
            return await workshop.chain()

    store = new_store(folder / "mlflow")
    with copy_of(template) as url:
        yield _apart(run, url)


def _apart(function: Callable[..., Coroutine[Any, Any, Chain]], *arguments: Any) -> Chain:
    """In a loop of its own, never inside one that a test runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, function(*arguments)).result()


@pytest.fixture(scope="session")
def chain(database_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """All model agents on a binary target, in a database and an MLflow of their own."""
    yield from _finished(database_template, tmp_path_factory.mktemp("binary"), study())


@pytest.fixture(scope="session")
def amount_chain(database_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The same on a continuous target."""
    yield from _finished(database_template, tmp_path_factory.mktemp("amount"), study(AMOUNT))
