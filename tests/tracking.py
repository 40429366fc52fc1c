"""An MLflow store of its own for every test: one is made per process (eight seconds), the others are copies of it."""

from __future__ import annotations

import asyncio
import atexit
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.sqlite_outbox import SqliteOutbox
from databases import scratch

if TYPE_CHECKING:
    from e2i.mlops.mlflow_connector import MLflowConnector

AWAY = "http://127.0.0.1:1"
"""an address at which no MLflow ever answers"""


def new_store(folder: Path) -> str:
    """Tracking URI of an empty store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_template(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@cache
def _template() -> Path:
    from e2i.config import set_vendor_environment
    from e2i.mlops.mlflow_connector import MLflowConnector, MlflowSettings, vendor_environment

    folder = scratch("e2i-mlflow-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = MlflowSettings(tracking_uri=f"sqlite:///{folder / 'template.db'}", state_folder=folder)
    set_vendor_environment(vendor_environment(settings))
    with ThreadPoolExecutor(1) as thread:  # never inside a loop that a test runs
        thread.submit(asyncio.run, _make_tables(MLflowConnector(settings, SqliteOutbox(folder / "outbox.db")))).result()
    return folder / "template.db"


async def _make_tables(connector: MLflowConnector) -> None:
    await connector.repeat("making the tables", lambda operations: operations.client.search_experiments(max_results=1))
