"""Divide a scarce resource so that it brings the most, within what is allowed, or say which constraints cannot hold together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from e2i.domain.allocation import AllocationPlan, AllocationSpec, ConflictMember, ScenarioResult, SegmentResponse, Sensitivity
from e2i.domain.experiments import FrameRef
from e2i.domain.runs import Tier
from e2i.engine.spec import AgentSpec, known
from e2i.errors import ConfigError
from e2i.ml.allocation import conflicts, optimum, plan, problem, scenarios
from e2i.ml.allocation.curves import FloatArray
from e2i.ml.allocation.optimum import Optimum
from e2i.ml.allocation.problem import Problem
from e2i.ml.allocation.scenarios import Uncertainty
from e2i.ports.compute import Executor
from e2i.ports.data import FrameSource, FrameStore

USUAL_LIMIT_S = float(AllocationSpec.model_fields["time_limit_s"].default)
ENTITIES, SOLUTION, TRIED = "allocation_entities", "allocation_solution", "allocation_tried"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The entities' source, the frames of the run, and a worker process for the solver."""

    source: FrameSource
    frames: FrameStore
    compute: Executor


@dataclass(frozen=True, kw_only=True)
class Solved:
    """The optimum without its vector, which lies in a frame of the run."""

    value: float
    bound: float
    is_optimal: bool
    multipliers: dict[str, float]
    solver: str


@dataclass(frozen=True, kw_only=True)
class State:
    """`responses` are measured effects by segment, told only after the gate; `table` stands in where `spec` names no entities."""

    spec: AllocationSpec
    seed: int
    base: str = "."
    table: FrameRef | None = None
    responses: tuple[SegmentResponse, ...] = ()
    refusal: str | None = None
    """why the measured effect that `spec` asks for may not be told; there is no plan then"""
    entities: FrameRef | None = None
    solved: Solved | None = None
    solution: FrameRef | None = None
    conflict: tuple[ConflictMember, ...] = ()
    scenarios: tuple[ScenarioResult, ...] = ()
    sensitivity: Sensitivity | None = None
    tried: FrameRef | None = None
    plan: AllocationPlan | None = None


async def formulate(state: State, deps: Deps) -> State:
    """Load the entities and check that they make a problem, or refuse. Raises what FrameSource.load and `problem.read` raise."""
    if state.refusal is not None:
        return replace(state, plan=plan.refused(state.spec, state.refusal))
    given = deps.frames.load(state.table) if state.table is not None and state.spec.data is None and not state.spec.entities else None
    frame = await deps.compute.run(_load, deps.source, state.spec, given, responses=state.responses, base=state.base)
    return replace(state, entities=deps.frames.save(ENTITIES, frame))


async def optimize(state: State, deps: Deps) -> State:
    """The best plan, or the constraints that cannot hold together."""
    best, members = await deps.compute.run(_optimise, _entities(state, deps), state.spec, responses=state.responses)
    if best is None:
        return replace(state, conflict=members)
    solved = Solved(value=best.value, bound=best.bound, is_optimal=best.is_optimal, multipliers=best.multipliers, solver=best.solver)
    return replace(state, solved=solved, solution=deps.frames.save(SOLUTION, pl.DataFrame({"allocated": best.x})))


async def run_scenarios(state: State, deps: Deps) -> State:
    """Current, equal and focused spending beside the plan; the plan under draws of the responses."""
    x = _vector(state, deps)
    compared, uncertainty = await deps.compute.run(
        _compare, _entities(state, deps), state.spec, x, responses=state.responses, seed=state.seed
    )
    if uncertainty is None:
        return replace(state, scenarios=compared)
    columns = {"kept": uncertainty.kept} | ({} if uncertainty.robust is None else {"robust": uncertainty.robust})
    return replace(state, scenarios=compared, sensitivity=uncertainty.result, tried=deps.frames.save(TRIED, pl.DataFrame(columns)))


async def project(state: State, deps: Deps) -> State:
    """The plan in records."""
    asked = problem.read(_entities(state, deps), state.spec, responses=state.responses)
    if state.solved is None:
        return replace(state, plan=plan.infeasible(asked, state.spec, state.conflict))
    done = state.solved
    best = Optimum(
        x=_vector(state, deps),
        value=done.value,
        bound=done.bound,
        is_optimal=done.is_optimal,
        multipliers=done.multipliers,
        solver=done.solver,
    )
    found = plan.project(asked, state.spec, best, scenarios=state.scenarios, uncertainty=_uncertainty(state, deps))
    return replace(state, plan=found)


def asked_for(state: State) -> float:
    """Seconds beyond the budget: it has room for the usual limit of the search, and a longer one leaves it to all the rest."""
    return state.spec.time_limit_s if state.spec.time_limit_s > USUAL_LIMIT_S else 0.0


def after_formulate(state: State) -> Literal["optimize", "finish"]:
    """A refusal is finished."""
    return "optimize" if state.plan is None else "finish"


def after_optimize(state: State) -> Literal["run_scenarios", "project"]:
    """There is nothing to compare where nothing is feasible."""
    return "project" if state.solved is None else "run_scenarios"


def _load(
    source: FrameSource, spec: AllocationSpec, given: pl.DataFrame | None, *, responses: tuple[SegmentResponse, ...], base: str
) -> pl.DataFrame:
    if spec.data is not None:
        given = source.load(spec.data, base=Path(base)).frame
    elif spec.entities:
        given = pl.DataFrame(list(spec.entities), infer_schema_length=None)
    if given is None:
        raise ConfigError("there are no entities.", where="allocation", advice="Add `allocation.data`, or list `allocation.entities`.")
    problem.read(given, spec, responses=responses)
    return given


def _optimise(
    frame: pl.DataFrame, spec: AllocationSpec, *, responses: tuple[SegmentResponse, ...]
) -> tuple[Optimum | None, tuple[ConflictMember, ...]]:
    asked: Problem = problem.read(frame, spec, responses=responses)
    best = optimum.optimise(asked, spec)
    return best, conflicts.conflict(asked, spec) if best is None else ()


def _compare(
    frame: pl.DataFrame, spec: AllocationSpec, x: FloatArray, *, responses: tuple[SegmentResponse, ...], seed: int
) -> tuple[tuple[ScenarioResult, ...], Uncertainty | None]:
    asked = problem.read(frame, spec, responses=responses)
    return scenarios.compare(asked, spec, x, seed=seed), scenarios.sensitivity(asked, spec, x, seed=seed)


def _entities(state: State, deps: Deps) -> pl.DataFrame:
    return deps.frames.load(known(state.entities))


def _vector(state: State, deps: Deps) -> FloatArray:
    return deps.frames.load(known(state.solution))["allocated"].to_numpy()


def _uncertainty(state: State, deps: Deps) -> Uncertainty | None:
    if state.sensitivity is None or state.tried is None:
        return None
    tried = deps.frames.load(state.tried)
    robust = np.asarray(tried["robust"]) if "robust" in tried.columns else None
    return Uncertainty(result=state.sensitivity, kept=np.asarray(tried["kept"]), robust=robust)


SPEC = AgentSpec(
    name="resource_optimizer",
    tier=Tier.ML_PREDICTIONS,
    kind="standard",
    budget_s=20,
    steps=[formulate, optimize, run_scenarios, project],
    routes={"formulate": after_formulate, "optimize": after_optimize},
    asked_for=asked_for,
)
