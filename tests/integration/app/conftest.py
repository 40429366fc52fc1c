"""The use cases on what bootstrap wires, with work done where it is asked instead of in worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doubles import Counter, Inline
from e2i import bootstrap, config
from e2i.app.study_steps import StudyPorts
from e2i.bootstrap import Platform
from e2i.engine.graph import Engine, RetryPolicy
from tracking import new_store

Opened = AbstractAsyncContextManager[tuple[StudyPorts, Platform]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Tracking URI of an MLflow store of this test's own."""
    return new_store(tmp_path / "mlflow")


@pytest.fixture
def opened(fresh_database: str, store: str, tmp_path: Path) -> Callable[..., Opened]:
    """Open the platform as one process would; `worker` does the model's work, `uri` is where MLflow is."""

    @asynccontextmanager
    async def open_ports(*, worker: Any = None, uri: str = store) -> AsyncIterator[tuple[StudyPorts, Platform]]:
        settings = config.load(
            home=tmp_path / "state",
            database={"url": fresh_database},
            mlflow={"tracking": {"uri": uri, "retry": {"max_attempts": 1}}},
        )
        async with AsyncExitStack() as stack:
            platform = await stack.enter_async_context(Platform.open(settings))
            workers = (worker or Inline(), Inline())
            ports = await bootstrap.study.study_ports(stack, platform, workers, on_step=lambda signal: None, progress=Counter())
            impatient = Engine(ports.engine._hooks, saver=ports.engine._saver, retry=RetryPolicy(attempts=1))
            yield replace(ports, engine=impatient), platform

    return open_ports
