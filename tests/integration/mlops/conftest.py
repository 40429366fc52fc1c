"""A real MLflow on a real PostgreSQL, without a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "contracts"))

from e2i.mlops.mlflow_connector import MLflowConnector, MlflowSettings, vendor_environment
from e2i.storage.embedded import EmbeddedServer
from sqlite_outbox import SqliteOutbox

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
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a database with an empty schema `mlflow`."""
    server = EmbeddedServer(tmp_path_factory.mktemp("postgres"))
    url = server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create schema mlflow")
    yield url.replace("postgresql://", "postgresql+psycopg://", 1) + "&options=-csearch_path%3Dmlflow"
    server.stop()


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
