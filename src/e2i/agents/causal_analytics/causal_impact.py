"""Estimate a treatment effect, try to refute it, and judge whether it may be told."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from e2i.causal import analysis
from e2i.causal.analysis import Estimation
from e2i.causal.design import Identification, identify
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.hazards import Concern
from e2i.domain.evidence import BalanceRow, CausalFinding, Effect, Overlap, Refutation
from e2i.domain.experiments import FrameRef
from e2i.domain.runs import Tier
from e2i.domain.study import Study
from e2i.engine.spec import AgentSpec
from e2i.errors import CausalError, ConfigError, NotFound, SchemaMismatch, SpecError
from e2i.ports.compute import Executor
from e2i.ports.data import FrameStore

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

T = TypeVar("T")
FOLDER = "causal"
NUISANCES = "nuisances.npz"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Frames of the run, and a worker process for the numerics."""

    frames: FrameStore
    compute: Executor


@dataclass(frozen=True, kw_only=True)
class State:
    """`table` is the whole prepared table, one row per unit. `finding` is the result, also when estimation was refused."""

    study: Study
    table: FrameRef
    seed: int
    identification: Identification | None = None
    effect: Effect | None = None
    overlap: Overlap | None = None
    balance: tuple[BalanceRow, ...] = ()
    concerns: tuple[Concern, ...] = ()
    nuisances_sha256: str | None = None
    """of the file with fitted nuisances beside the run, which `refute` reads"""
    refutations: tuple[Refutation, ...] = ()
    finding: CausalFinding | None = None


async def frame_question(state: State, deps: Deps) -> State:  # noqa: ARG001 - every step has this signature
    """Choose design, estimand and adjustment set; a question that no design answers is refused here.

    Raises ConfigError when the study asks for no effect, SchemaMismatch when a named column is not in the table.
    """
    if state.study.effect is None:
        raise ConfigError("the study has no `effect`.", where=f"study {state.study.name}", advice="Add `effect` with its roles.")
    try:
        found = identify(state.study.effect, columns=state.table.columns, unit=state.study.unit)
    except CausalError as error:
        return replace(state, finding=analysis.refused(error))
    return replace(state, identification=found)


async def estimate(state: State, deps: Deps) -> State:
    """Overlap, balance and the cross-fitted effect; data from which no effect can be learned are refused here.

    Raises DataError and its kin when the table itself is unfit.
    """
    identification = _known(state.identification)
    result = await deps.compute.run(
        analysis.estimate, _frame(state, deps), identification=identification, unit=state.study.unit, seed=state.seed
    )
    if isinstance(result, CausalFinding):
        return replace(state, finding=result)
    return replace(
        state,
        effect=result.effect,
        overlap=result.overlap,
        balance=result.balance,
        concerns=result.concerns,
        nuisances_sha256=_save(result, deps.frames.folder(FOLDER) / NUISANCES),
    )


async def refute(state: State, deps: Deps) -> State:
    """Placebo treatment, halves, random common cause, negative controls, and the bound on hidden confounding."""
    refutations = await deps.compute.run(
        analysis.refute,
        _frame(state, deps),
        _estimation(state, deps),
        identification=_known(state.identification),
        unit=state.study.unit,
        seed=state.seed,
    )
    return replace(state, refutations=refutations)


async def judge(state: State, deps: Deps) -> State:
    """Weigh all evidence: proceed, review or block."""
    return replace(state, finding=analysis.conclude(_estimation(state, deps), state.refutations))


def after_question(state: State) -> Literal["estimate", "finish"]:
    """A refused question is finished."""
    return "finish" if state.finding is not None else "estimate"


def after_estimate(state: State) -> Literal["refute", "finish"]:
    """There is nothing to refute in a refused estimate."""
    return "finish" if state.finding is not None else "refute"


def _frame(state: State, deps: Deps) -> pl.DataFrame:
    """The columns that the question needs."""
    asked = _known(state.identification)
    named = (asked.treatment, asked.outcome, *asked.adjustment, *asked.negative_controls)
    unit = () if state.study.unit is None else (state.study.unit,)
    return deps.frames.load(state.table, columns=list(dict.fromkeys((*unit, *named))))


def _save(estimation: Estimation, path: Path) -> str:
    """Write the fitted nuisances atomically; their sha256."""
    fit, propensity = estimation.fit, estimation.propensity
    learners = {"propensity": propensity.learners, "outcome": fit.learners}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        propensity=propensity.raw,
        folds=propensity.folds,
        estimates=fit.estimates,
        influence=fit.influence,
        untreated_mean=fit.untreated_mean,
        treated_mean=fit.treated_mean,
        learners=np.array(json.dumps(learners)),
    )
    content = buffer.getvalue()
    temporary = path.with_suffix(".part")
    temporary.write_bytes(content)
    temporary.replace(path)
    return hashlib.sha256(content).hexdigest()


def _estimation(state: State, deps: Deps) -> Estimation:
    """The estimation that `estimate` made, from state and file.

    Raises NotFound when the file is gone, SchemaMismatch when it is not the one that was written.
    """
    effect = _known(state.effect)
    path = deps.frames.folder(FOLDER) / NUISANCES
    if not path.is_file():
        raise NotFound("the fitted nuisances of this run are gone.", where=str(path), advice="Start the study anew.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != state.nuisances_sha256:
        raise SchemaMismatch("the fitted nuisances are not those of this run.", where=str(path), advice="Start the study anew.")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        learners = json.loads(str(arrays["learners"]))
        propensity = Propensity(raw=arrays["propensity"], folds=arrays["folds"], learners=learners["propensity"])
        fit = Fit(
            estimand=_known(state.identification).average,
            estimate=effect.estimate,
            standard_error=effect.standard_error,
            estimates=arrays["estimates"],
            influence=arrays["influence"],
            untreated_mean=arrays["untreated_mean"],
            treated_mean=arrays["treated_mean"],
            learners=learners["outcome"],
        )
    return Estimation(
        effect=effect, overlap=_known(state.overlap), balance=state.balance, concerns=state.concerns, propensity=propensity, fit=fit
    )


def _known(value: T | None) -> T:
    """A value that an earlier step has set."""
    if value is None:
        raise SpecError("a step ran before the step that feeds it.", where="agent causal_impact")
    return value


SPEC = AgentSpec(
    name="causal_impact",
    tier=Tier.CAUSAL_ANALYTICS,
    kind="standard",
    budget_s=120,
    steps=[frame_question, estimate, refute, judge],
    routes={"frame_question": after_question, "estimate": after_estimate},
)
