"""What the engine adds to a step, beside bare LangGraph with the same checkpointer in the same process.

python benchmarks/bench_engine.py
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, replace
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from e2i.domain.experiments import MetricValue
from e2i.domain.runs import AuditEntry, StepRecord, Tier
from e2i.engine.checkpoint import JsonSerializer
from e2i.engine.graph import Engine
from e2i.engine.hooks import AuditHook, RecordHook, Signal, SignalHook, TraceHook
from e2i.engine.spec import AgentSpec

STEPS, RUNS = 20, 30


@dataclass(frozen=True, kw_only=True)
class State:
    """About as much as a trained model's state holds."""

    count: int = 0
    metrics: dict[str, MetricValue]


@dataclass(frozen=True)
class Deps:
    pass


class Kept:
    """Records kept in a list: the cost of the database is the database's."""

    def __init__(self) -> None:
        self.rows: list[StepRecord | AuditEntry] = []

    async def record_step(self, step: StepRecord) -> None:
        self.rows.append(step)

    async def append(self, entry: AuditEntry) -> AuditEntry:
        self.rows.append(entry)
        return entry


def _step(number: int):
    async def step(state: State, deps: Deps) -> State:  # noqa: ARG001
        return replace(state, count=state.count + 1)

    step.__name__ = f"step_{number}"
    return step


class Bare(TypedDict):
    count: int
    metrics: dict[str, dict[str, float]]


def _bare():
    builder = StateGraph(Bare)
    names = [f"step_{i}" for i in range(STEPS)]
    for name in names:

        async def node(state: Bare) -> dict[str, int]:
            return {"count": state["count"] + 1}

        builder.add_node(name, node)
    builder.add_edge(START, names[0])
    for source, target in zip(names, [*names[1:], END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(checkpointer=InMemorySaver(serde=JsonSerializer()))


async def main() -> None:
    trace.set_tracer_provider(TracerProvider())
    metrics = {f"metric_{i}": MetricValue(value=0.5, low=0.4, high=0.6) for i in range(20)}
    kept, heard = Kept(), list[Signal]()
    hooks = [
        TraceHook(),
        RecordHook(kept),
        AuditHook(kept, "bench"),
        SignalHook(heard.append),
    ]
    spec = AgentSpec(name="bench", tier=Tier.ML_FOUNDATION, kind="standard", budget_s=60, steps=[_step(i) for i in range(STEPS)])
    engine = Engine(hooks, saver=InMemorySaver(serde=JsonSerializer()))
    bare = _bare()
    plain = {name: {"value": m.value, "low": m.low, "high": m.high} for name, m in metrics.items()}
    ours, theirs = [], []
    for i in range(RUNS + 3):
        began = time.perf_counter()
        await engine.run(spec, State(metrics=metrics), Deps(), run_id=f"run-{i}")
        middle = time.perf_counter()
        await bare.ainvoke(
            {"count": 0, "metrics": plain}, {"configurable": {"thread_id": f"run-{i}"}, "recursion_limit": 100}, durability="sync"
        )
        end = time.perf_counter()
        if i >= 3:
            ours.append((middle - began) / STEPS * 1e3)
            theirs.append((end - middle) / STEPS * 1e3)
    mine, bare_ms = statistics.median(ours), statistics.median(theirs)
    print(f"engine {mine:.3f} ms per step, bare LangGraph {bare_ms:.3f} ms, ratio {mine / bare_ms:.2f}")
    print(f"overhead {mine - bare_ms:.3f} ms per step (medians of {RUNS} runs of {STEPS} steps)")


if __name__ == "__main__":
    asyncio.run(main())
