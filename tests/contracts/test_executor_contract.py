"""The Executor contract on each implementation."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from contracts import executor_contract
from contracts.executor_contract import ExecutorContract, sleep_and_write
from e2i.engine.executor import LocalExecutor
from e2i.engine.in_process import InProcessExecutor
from e2i.engine.ray_executor import RayExecutor
from e2i.errors import BackendUnavailable, MissingExtra, StepFailed

HAS_RAY = find_spec("ray") is not None


class TestLocalExecutor(ExecutorContract):
    """A worker process, the default."""

    @pytest.fixture
    def compute(self) -> Iterator[LocalExecutor]:
        executor = LocalExecutor()
        yield executor
        executor.close()


class TestInProcessExecutor(ExecutorContract):
    """A thread."""

    stops_when_cancelled = False
    is_another_process = False

    @pytest.fixture
    def compute(self) -> Iterator[InProcessExecutor]:
        executor = InProcessExecutor()
        yield executor
        executor.close()

    async def test_who_stops_waiting_is_told_that_the_work_goes_on(self, tmp_path, caplog) -> None:
        executor = InProcessExecutor()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(executor.run(sleep_and_write, tmp_path / "done", 0.5), timeout=0.1)
        assert "sleep_and_write goes on although nobody waits for it" in caplog.text
        executor.close()


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    """One for all tests: it starts in ten seconds. Workers cannot import the functions of a test file: they get their code."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(executor_contract)
    executor = RayExecutor(cores=2)
    yield executor
    executor.close()


@pytest.mark.skipif(not HAS_RAY, reason="Ray is an extra: pip install 'e2i[ray]'")
@pytest.mark.filterwarnings("default")  # Ray announces its own changes
class TestRayExecutor(ExecutorContract):
    """Ray on this machine."""

    @pytest.fixture
    def compute(self, ray_executor: RayExecutor) -> RayExecutor:
        return ray_executor

    async def test_a_worker_that_dies_is_a_transient_fault_and_is_replaced(self, compute: RayExecutor) -> None:
        with pytest.raises(BackendUnavailable, match="the Ray worker ended"):
            await compute.run(os._exit, 9)
        assert await compute.run(abs, -3) == 3

    async def test_a_result_that_cannot_travel_is_a_fault_of_the_step(self, compute: RayExecutor) -> None:
        with pytest.raises(StepFailed, match="did not pass between processes"):
            await compute.run(threading.Lock)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
async def test_without_ray_the_extra_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'e2i\[ray\]'"):
        await RayExecutor().run(abs, -3)
    with pytest.raises(MissingExtra):
        RayExecutor().start()
