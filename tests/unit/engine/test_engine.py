"""The engine on real LangGraph."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from e2i.domain.runs import AuditEntry, StepRecord, Tier
from e2i.engine.checkpoint import JsonSerializer
from e2i.engine.executor import LocalExecutor
from e2i.engine.graph import Engine, RetryPolicy
from e2i.engine.hooks import AuditHook, RecordHook, Signal, SignalHook, TraceHook
from e2i.engine.spec import AgentSpec
from e2i.engine.usage import count
from e2i.errors import BackendRejected, BackendUnavailable, BudgetExceeded, CircuitOpen, SpecError, StepFailed, StorageError


@dataclass(frozen=True, kw_only=True)
class State:
    count: int = 0
    path: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Deps:
    compute: LocalExecutor | None = None
    failures: list[Exception] = field(default_factory=list)
    calls: int = 0


async def first(state: State, deps: Deps) -> State:
    return replace(state, count=state.count + 1, path=(*state.path, "first"))


async def second(state: State, deps: Deps) -> State:
    deps.calls += 1
    if deps.failures:
        raise deps.failures.pop(0)
    return replace(state, count=state.count + 1, path=(*state.path, "second"))


async def third(state: State, deps: Deps) -> State:
    return replace(state, path=(*state.path, "third"))


async def compute_for_ever(state: State, deps: Deps) -> State:
    assert deps.compute is not None
    await deps.compute.run(time.sleep, 60)
    return state


def again_or_third(state: State) -> Literal["second", "third"]:
    return "second" if state.count < 4 else "third"


def to_nowhere(state: State) -> Literal["nowhere"]:
    return "nowhere"


def spec(*steps: object, **more: object) -> AgentSpec:
    return AgentSpec(**{"name": "tried", "tier": Tier.ML_FOUNDATION, "kind": "standard", "budget_s": 20, "steps": list(steps), **more})  # type: ignore[arg-type]


FAST = RetryPolicy(attempts=3, first_s=0.01)


async def test_steps_run_in_list_order_and_routes_override_the_next_step() -> None:
    done = await Engine().run(spec(first, second, third, routes={"second": again_or_third}), State(), Deps(), run_id="r")
    assert done.path == ("first", "second", "second", "second", "third")


def test_a_route_to_an_unknown_step_fails_when_the_agent_is_described() -> None:
    with pytest.raises(SpecError, match="nowhere"):
        spec(first, second, routes={"second": to_nowhere})


def test_a_step_that_is_not_async_fails_when_the_agent_is_described() -> None:
    def plain(state: State, deps: Deps) -> State:
        return state

    with pytest.raises(SpecError, match="async"):
        spec(plain)


def test_a_step_with_the_name_that_ends_an_agent_is_refused() -> None:
    async def finish(state: State, deps: Deps) -> State:
        return state

    with pytest.raises(SpecError, match="'finish'"):
        spec(first, finish)


async def test_a_transient_fault_is_tried_again_and_a_refusal_is_not() -> None:
    deps = Deps(failures=[BackendUnavailable("down"), BackendUnavailable("down")])
    done = await Engine(retry=FAST).run(spec(first, second), State(), deps, run_id="r")
    assert (done.count, deps.calls) == (2, 3)
    for refusal in (BackendRejected("no"), CircuitOpen("open")):
        deps = Deps(failures=[refusal, refusal])
        with pytest.raises(type(refusal)):
            await Engine(retry=FAST).run(spec(first, second), State(), deps, run_id="r")
        assert deps.calls == 1


async def test_a_transient_fault_that_stays_is_told_after_the_last_attempt() -> None:
    deps = Deps(failures=[BackendUnavailable("down") for _ in range(5)])
    with pytest.raises(BackendUnavailable):
        await Engine(retry=FAST).run(spec(first, second), State(), deps, run_id="r")
    assert deps.calls == 3


async def test_a_foreign_error_leaves_the_engine_as_step_failed_with_its_cause() -> None:
    with pytest.raises(StepFailed, match="second") as caught:
        await Engine().run(spec(first, second), State(), Deps(failures=[ZeroDivisionError("x")]), run_id="r")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_what_the_engine_says_of_a_foreign_error_names_its_kind_and_place_and_no_value_of_the_data() -> None:
    for error in (ValueError("could not convert string to float: 'Jane Doe'"), TimeoutError("reading 'Jane Doe'")):
        with pytest.raises(StepFailed, match=type(error).__name__) as caught:
            await Engine().run(spec(first, second), State(), Deps(failures=[error]), run_id="r")
        assert "Jane" not in str(caught.value)
        assert "graph.py:" in str(caught.value)
        assert caught.value.__cause__ is error


async def test_an_interrupted_run_goes_on_at_the_step_that_failed_and_a_finished_one_is_not_run_again() -> None:
    engine, deps = Engine(saver=InMemorySaver(serde=JsonSerializer())), Deps(failures=[ValueError("crash")])
    with pytest.raises(StepFailed):
        await engine.run(spec(first, second, third), State(), deps, run_id="r")
    done = await engine.run(spec(first, second, third), State(count=100), deps, run_id="r")
    assert (done.path, done.count) == (("first", "second", "third"), 2)
    assert (await engine.run(spec(first, second, third), State(count=100), deps, run_id="r")).count == 2
    assert deps.calls == 2


async def test_a_budget_stops_the_work_and_not_only_the_waiting() -> None:
    compute = LocalExecutor()
    await compute.run(os.getpid)
    worker = compute._process
    assert worker is not None
    began = time.monotonic()
    with pytest.raises(BudgetExceeded, match="tried"):
        await Engine().run(spec(compute_for_ever, budget_s=0.5), State(), Deps(compute=compute), run_id="r")
    assert time.monotonic() - began < 10
    assert not worker.is_alive()
    assert await compute.run(abs, -3) == 3
    compute.close()


async def test_a_study_that_asks_for_a_longer_search_gets_its_seconds_beside_the_budget() -> None:
    async def wait(state: State, deps: Deps) -> State:
        await asyncio.sleep(0.5)
        return state

    with pytest.raises(BudgetExceeded, match=r"used up its 0\.2 s"):
        await Engine().run(spec(wait, budget_s=0.2), State(count=5), Deps(), run_id="short")
    patient = spec(wait, budget_s=0.2, asked_for=lambda state: float(state.count))
    assert (await Engine().run(patient, State(count=5), Deps(), run_id="long")).count == 5


async def test_a_worker_that_dies_is_a_transient_fault_and_is_replaced() -> None:
    compute = LocalExecutor()
    with pytest.raises(BackendUnavailable, match="ended with code"):
        await compute.run(os._exit, 9)
    assert await compute.run(abs, -3) == 3
    compute.close()


async def test_an_error_in_the_worker_comes_back_with_its_traceback() -> None:
    compute = LocalExecutor()
    with pytest.raises(StepFailed, match="ValueError") as caught:
        await compute.run(int, "seven")
    assert "invalid literal" in caught.value.__notes__[0]
    compute.close()


def what_no_process_can_be_sent() -> object:
    return lambda: 1


def fill_the_disk() -> None:
    Path("/dev/full").write_text("x" * 100_000)


async def test_a_disk_that_is_full_is_the_users_to_mend_and_no_fault_of_ours_in_a_worker_and_here() -> None:
    async def write(state: State, deps: Deps) -> State:
        fill_the_disk()
        return state

    compute = LocalExecutor()
    with pytest.raises(StorageError, match="No space left"):
        await compute.run(fill_the_disk)
    compute.close()
    with pytest.raises(StorageError, match="agent tried, step write"):
        await Engine().run(spec(write), State(), Deps(), run_id="r")


async def test_a_result_that_cannot_be_sent_is_told_and_leaves_the_worker_at_work() -> None:
    compute = LocalExecutor()
    with pytest.raises(StepFailed, match="cannot pass between processes"):
        await compute.run(what_no_process_can_be_sent)
    process = await compute.run(os.getpid)
    assert process == await compute.run(os.getpid)
    compute.close()


async def test_a_call_that_is_cancelled_while_its_worker_starts_is_stopped_too() -> None:
    compute = LocalExecutor()
    for milliseconds in (0, 1, 2, 4, 8, 16, 32):
        compute.stop()
        task = asyncio.create_task(compute.run(time.sleep, 60))
        await asyncio.sleep(milliseconds / 1e3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(40):
            assert await compute.run(abs, -7) == 7
    compute.close()


@dataclass
class KeptRecords:
    steps: list[StepRecord] = field(default_factory=list)
    entries: list[AuditEntry] = field(default_factory=list)
    audit_is_down: bool = False

    async def record_step(self, step: StepRecord) -> None:
        self.steps.append(step)

    async def append(self, entry: AuditEntry) -> AuditEntry:
        if self.audit_is_down:
            raise StorageError("the audit trail cannot be written")
        self.entries.append(entry)
        return entry


async def test_every_attempt_is_recorded_with_its_outcome_and_every_finished_step_is_audited() -> None:
    kept, heard = KeptRecords(), list[Signal]()
    engine = Engine([TraceHook(), RecordHook(kept), AuditHook(kept, "tester"), SignalHook(heard.append)], retry=FAST)  # type: ignore[arg-type]
    await engine.run(spec(first, second), State(), Deps(failures=[BackendUnavailable("down")]), run_id="r")
    assert [(s.step, s.attempt, s.status) for s in kept.steps] == [
        ("first", 1, "success"),
        ("second", 1, "error"),
        ("second", 2, "success"),
    ]
    assert kept.steps[1].error is not None
    assert kept.steps[1].error["what"] == "down"
    assert [e.subject for e in kept.entries] == ["r/tried/first", "r/tried/second"]
    assert kept.entries[0].details["state_sha256"] != kept.entries[1].details["state_sha256"]
    assert [(s.step, s.phase) for s in heard][-2:] == [("second", "started"), ("second", "finished")]


async def test_a_step_is_recorded_with_the_tokens_of_its_language_models_and_a_step_that_asked_none_without() -> None:
    async def asks(state: State, deps: Deps) -> State:
        count(input_tokens=40, output_tokens=2)
        count(input_tokens=60, output_tokens=3)
        if deps.failures:
            raise deps.failures.pop(0)
        return state

    kept = KeptRecords()
    await Engine([RecordHook(kept)], retry=FAST).run(spec(asks, third), State(), Deps(failures=[BackendUnavailable("down")]), run_id="r")  # type: ignore[arg-type]
    assert [(s.step, s.status, s.input_tokens, s.output_tokens) for s in kept.steps] == [
        ("asks", "error", 100, 5),
        ("asks", "success", 100, 5),
        ("third", "success", None, None),
    ]


async def test_a_step_whose_audit_cannot_be_written_fails() -> None:
    kept = KeptRecords(audit_is_down=True)
    with pytest.raises(StorageError):
        await Engine([AuditHook(kept, "tester")]).run(spec(first, second), State(), Deps(), run_id="r")  # type: ignore[arg-type]


async def test_a_listener_that_fails_never_fails_the_run() -> None:
    def broken(_: Signal) -> None:
        raise ValueError("display is gone")

    assert (await Engine([SignalHook(broken)]).run(spec(first), State(), Deps(), run_id="r")).count == 1


def test_a_checkpoint_that_is_not_json_is_refused_before_it_is_read() -> None:
    with pytest.raises(BackendRejected):
        JsonSerializer().loads_typed(("pickle", b"cos\nsystem\n(S'true'\ntR."))
    with pytest.raises(SpecError):
        JsonSerializer().dumps_typed(object())


async def test_cancelling_a_run_is_not_an_error_of_the_step() -> None:
    kept, compute = KeptRecords(), LocalExecutor()
    engine = Engine([RecordHook(kept)])  # type: ignore[arg-type]
    task = asyncio.create_task(engine.run(spec(compute_for_ever), State(), Deps(compute=compute), run_id="r"))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [s.status for s in kept.steps] == ["cancelled"]
    compute.close()
