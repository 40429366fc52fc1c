"""A call of an agent is one trace through the engine, its steps and its worker process, and what was written survives in the spool."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from e2i import config
from e2i.bootstrap.observing import pipeline_settings
from e2i.domain.runs import Tier
from e2i.domain.telemetry import SpanRecord
from e2i.engine.executor import LocalExecutor
from e2i.engine.graph import Engine
from e2i.engine.hooks import TraceHook
from e2i.engine.ray_executor import RayExecutor
from e2i.engine.spec import AgentSpec
from e2i.errors import BudgetExceeded, StepFailed
from e2i.observability import attributes as names
from e2i.observability.spans import new_trace_id, span, trace_of
from e2i.ports.compute import Executor
from e2i.telemetry.frames import decode
from e2i.telemetry.pipeline import install, install_in_worker
from e2i.telemetry.reader import Position, SpoolReader


@dataclass(frozen=True, kw_only=True)
class State:
    note: str = "call 555-867-5309 or mail jane.doe@example.com"
    doubled: int = 0


@dataclass(kw_only=True)
class Deps:
    compute: Executor | None = None
    failures: list[Exception] = field(default_factory=list)


def double(number: int) -> int:
    with span("inside the worker", {"e2i.number": number}):
        return 2 * number


async def compute(state: State, deps: Deps) -> State:
    assert deps.compute is not None
    return replace(state, doubled=await deps.compute.run(double, 21))


async def conclude(state: State, deps: Deps) -> State:
    if deps.failures:
        raise deps.failures.pop()
    return state


async def dawdle(state: State, deps: Deps) -> State:
    await asyncio.sleep(30)
    return state


def agent(*steps: object, name: str = "gap_analyzer") -> AgentSpec:
    return AgentSpec(name=name, tier=Tier.CAUSAL_ANALYTICS, kind="standard", budget_s=20, steps=list(steps))  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose spool this process writes."""
    pipeline = install(pipeline_settings(config.load(home=tmp_path)))
    yield tmp_path
    pipeline.close()


def kept(home: Path) -> list[SpanRecord]:
    reader = SpoolReader(home / "spool")
    chunks = [reader.read(stream.name, Position(), max_frames=1000, max_bytes=1 << 24) for stream in reader.streams()]
    return [decode(payload) for chunk in chunks for _, payload in chunk.frames]


async def test_steps_and_the_workers_spans_hang_below_the_call_of_their_agent(home: Path) -> None:
    worker = LocalExecutor(initialize=partial(install_in_worker, pipeline_settings(config.load(home=home))))
    trace_id = new_trace_id()
    try:
        with trace_of(trace_id):
            done = await Engine([TraceHook()], agent_hooks=[TraceHook()]).run(
                agent(compute, conclude), State(), Deps(compute=worker), run_id="run_1"
            )
    finally:
        worker.close()
    assert done.doubled == 42
    found = {record.name: record for record in kept(home)}
    by_id = {record.span_id: record.name for record in found.values()}
    above = {name: by_id.get(record.parent_span_id or "") for name, record in found.items()}
    assert above == {
        "invoke_agent gap_analyzer": None,
        "gap_analyzer.compute": "invoke_agent gap_analyzer",
        "worker double": "gap_analyzer.compute",
        "inside the worker": "worker double",
        "gap_analyzer.conclude": "invoke_agent gap_analyzer",
    }
    assert {record.trace_id for record in found.values()} == {trace_id}
    call = found["invoke_agent gap_analyzer"].attributes
    assert (call[names.AGENT], call[names.TIER], call[names.RUN_ID]) == ("gap_analyzer", "causal_analytics", "run_1")
    assert '"doubled":42' in call[names.OUTPUT].replace(" ", "")


@pytest.fixture
def ray_worker(home: Path) -> Iterator[RayExecutor]:
    """Ray's workers cannot import a test: they get its code."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    worker = RayExecutor(initialize=partial(install_in_worker, pipeline_settings(config.load(home=home))), cores=2)
    yield worker
    worker.close()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra: pip install 'e2i[ray]'")
@pytest.mark.filterwarnings("default")  # Ray announces its own changes
async def test_spans_of_ray_tasks_hang_below_the_step_that_called_them_also_when_calls_cross(home: Path, ray_worker: RayExecutor) -> None:
    engine, traces = Engine([TraceHook()], agent_hooks=[TraceHook()]), [new_trace_id() for _ in range(4)]

    async def call(number: int) -> None:
        with trace_of(traces[number]):
            spec = replace(agent(compute), budget_s=120)
            await engine.run(spec, State(), Deps(compute=ray_worker), run_id=f"run_{number}")

    await asyncio.gather(*(ray_worker.run(abs, -3) for _ in range(2)))  # its workers take seconds to start
    await asyncio.gather(*(call(number) for number in range(4)))
    found = kept(home)
    by_id = {record.span_id: record for record in found}
    for trace_id in traces:
        above = {record.name: by_id.get(record.parent_span_id or "") for record in found if record.trace_id == trace_id}
        assert {name: parent and (parent.name, parent.trace_id) for name, parent in above.items()} == {
            "invoke_agent gap_analyzer": None,
            "gap_analyzer.compute": ("invoke_agent gap_analyzer", trace_id),
            "worker double": ("gap_analyzer.compute", trace_id),
            "inside the worker": ("worker double", trace_id),
        }
    assert len([record for record in found if record.trace_id in traces]) == 16


async def test_identifiers_in_a_state_never_reach_the_disk(home: Path) -> None:
    await Engine(agent_hooks=[TraceHook()]).run(agent(conclude), State(), Deps(), run_id="run_1")
    (call,) = kept(home)
    assert "[email]" in call.attributes[names.INPUT]
    on_disk = b"".join(path.read_bytes() for path in (home / "spool").rglob("*") if path.is_file())
    assert b"867" not in on_disk
    assert b"jane.doe" not in on_disk


async def test_an_agent_whose_prompts_are_not_logged_leaves_neither_input_nor_output(tmp_path: Path) -> None:
    settings = config.load(home=tmp_path, agents={"gap_analyzer": {"log_prompts": False}})
    pipeline = install(pipeline_settings(settings))
    try:
        await Engine(agent_hooks=[TraceHook()]).run(agent(conclude), State(note="zebra"), Deps(), run_id="run_1")
        await Engine(agent_hooks=[TraceHook()]).run(agent(conclude, name="explainer"), State(note="zebra"), Deps(), run_id="run_1")
    finally:
        pipeline.close()
    silent, open_ = kept(tmp_path)
    assert "zebra" not in str(silent.attributes)
    assert "zebra" in open_.attributes[names.INPUT]


async def test_a_failed_step_and_a_used_up_budget_are_errors_of_the_call(home: Path) -> None:
    with pytest.raises(StepFailed):
        await Engine([TraceHook()], agent_hooks=[TraceHook()]).run(
            agent(conclude), State(), Deps(failures=[ValueError("no")]), run_id="run_1"
        )
    with pytest.raises(BudgetExceeded, match=r"used up its 0\.05 s"):
        await Engine([TraceHook()], agent_hooks=[TraceHook()], budgets_s={"slow": 0.05}).run(
            agent(dawdle, name="slow"), State(), Deps(), run_id="run_2"
        )
    failed = {record.name: record for record in kept(home)}
    assert {name: record.status for name, record in failed.items()} == dict.fromkeys(
        ("gap_analyzer.conclude", "invoke_agent gap_analyzer", "slow.dawdle", "invoke_agent slow"), "error"
    )
    assert failed["invoke_agent slow"].attributes[names.ERROR_CATEGORY] == "timeout"
