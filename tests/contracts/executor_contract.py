"""What every Executor promises. Subclass it in a test file and give the fixture `compute`."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec
from e2i.errors import NoVariation, StepFailed
from e2i.observability import propagation
from e2i.observability.spans import new_trace_id, trace_of
from e2i.ports.compute import Executor

EFFECT = EffectSpec(treatment="program", outcome="nrx", confounders=("decile", "region"))


def small_world(*, seed: int = 3, rows: int = 400) -> pl.DataFrame:
    """Decile moves treatment and outcome; the effect is 2."""
    rng = np.random.default_rng(seed)
    decile = rng.integers(1, 11, rows)
    program = (rng.random(rows) < 0.2 + 0.05 * decile).astype(int)
    region = np.array(["east", "south", "west"])[rng.integers(0, 3, rows)]
    return pl.DataFrame(
        {"program": program, "nrx": 2.0 * program + 0.5 * decile + rng.normal(size=rows), "decile": decile, "region": region}
    )


def refuse(rows: int) -> None:
    raise NoVariation(f"all {rows} rows are treated.", where="column program", advice="Add untreated rows.")


def sleep_and_write(path: Path, seconds: float) -> None:
    time.sleep(seconds)
    path.write_text("the work went on")


def traceparent() -> str:
    return propagation.carrier()["traceparent"]


def total(values: np.ndarray, *, factor: int) -> float:
    return float(values.sum()) * factor


class ExecutorContract:
    """Run against every implementation."""

    stops_when_cancelled = True
    is_another_process = True

    async def test_a_finding_is_the_same_to_the_last_bit_wherever_it_is_made(self, compute: Executor) -> None:
        here = analyse(small_world(), effect=EFFECT, seed=5)
        there = await compute.run(analyse, small_world(), effect=EFFECT, seed=5)
        assert isinstance(there, CausalFinding)
        assert here.effect is not None
        assert there == here

    async def test_arguments_by_place_and_by_name_reach_the_function_in_large_and_small(self, compute: Executor) -> None:
        assert await compute.run(total, np.ones(2_000_000), factor=3) == 6e6
        assert await compute.run(total, np.ones(2), factor=3) == 6.0
        scorer = partial(total, np.arange(200_000.0))
        assert [await compute.run(scorer, factor=factor) for factor in (1, 2)] == [19999900000.0, 39999800000.0]

    async def test_an_error_of_ours_comes_back_as_it_was_raised(self, compute: Executor) -> None:
        with pytest.raises(NoVariation) as caught:
            await compute.run(refuse, 7)
        assert (caught.value.what, caught.value.where, caught.value.advice) == (
            "all 7 rows are treated.",
            "column program",
            "Add untreated rows.",
        )

    async def test_any_other_error_is_a_fault_of_the_step_with_its_traceback(self, compute: Executor) -> None:
        with pytest.raises(StepFailed, match="ValueError") as caught:
            await compute.run(int, "seven")
        assert caught.value.where == "int"
        assert "invalid literal" not in str(caught.value)
        assert "invalid literal" in caught.value.__notes__[0]
        assert await compute.run(abs, -3) == 3

    async def test_calls_at_the_same_time_get_each_its_own_answer(self, compute: Executor) -> None:
        assert await asyncio.gather(*(compute.run(abs, -number) for number in range(20))) == list(range(20))

    async def test_the_work_belongs_to_the_callers_trace(self, compute: Executor) -> None:
        trace_id = new_trace_id()
        with trace_of(trace_id):
            assert (await compute.run(traceparent)).split("-")[1] == trace_id

    async def test_a_call_whose_caller_is_cancelled_leaves_the_executor_usable(self, compute: Executor, tmp_path: Path) -> None:
        await compute.run(abs, -1)
        began = time.monotonic()
        task = asyncio.create_task(compute.run(sleep_and_write, tmp_path / "done", 3.0))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 2.5
        assert await compute.run(abs, -3) == 3
        await asyncio.sleep(max(0.0, 4.0 - (time.monotonic() - began)))
        assert (tmp_path / "done").exists() is not self.stops_when_cancelled

    async def test_the_function_runs_where_the_executor_says(self, compute: Executor) -> None:
        assert (await compute.run(os.getpid) != os.getpid()) is self.is_another_process
