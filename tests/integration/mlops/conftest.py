"""A real MLflow on a real PostgreSQL, without a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.sqlite_outbox import SqliteOutbox
from databases import administer, empty_database
from e2i.mlops.mlflow_connector import MLflowConnector, MlflowSettings, vendor_environment
from e2i.storage.address import sqlalchemy_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", autouse=True)
def vendor_variables() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(vendor_environment(MlflowSettings(tracking_uri="", state_folder=Path())))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def mlflow_database(database_url: str) -> Iterator[str]:
    """Tracking URI of a database with an empty schema `mlflow`."""
    with empty_database(database_url) as url:
        administer(url, "create schema mlflow")
        yield sqlalchemy_url(url, schema="mlflow")


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def outbox(tmp_path: Path) -> SqliteOutbox:
    return SqliteOutbox(tmp_path / "outbox.db")


@pytest.fixture
def settings(mlflow_database: str, artifacts: Path, tmp_path: Path) -> MlflowSettings:
    return MlflowSettings(
        tracking_uri=mlflow_database,
        state_folder=tmp_path / "mlflow",
        artifact_location=str(artifacts),
        default_tags={"project": "e2i_causal_analytics"},
        backoff_factor=0.01,
    )


@pytest.fixture
def connect(settings: MlflowSettings, outbox: SqliteOutbox) -> Callable[[], MLflowConnector]:
    """A connector as a new process would make it."""
    return lambda: MLflowConnector(settings, outbox)


@pytest.fixture
def connector(connect: Callable[[], MLflowConnector]) -> MLflowConnector:
    return connect()
