"""Estimate a treatment effect, try to refute it, and judge whether it may be told."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from e2i.causal import analysis
from e2i.causal.design import Identification, columns_of, require_roles
from e2i.causal.estimation import Estimation, refused
from e2i.causal.hazards import Concern
from e2i.causal.narrative import narrate
from e2i.causal.router import identify
from e2i.causal.stored import nuisances_from_bytes, nuisances_to_bytes
from e2i.domain.evidence import Answer, CausalFinding, Refutation
from e2i.domain.experiments import FrameRef
from e2i.domain.numbers import without_foreign_numbers
from e2i.domain.runs import Tier
from e2i.domain.study import EffectSpec, Study
from e2i.engine.kept_files import keep, kept
from e2i.engine.spec import AgentSpec, known
from e2i.errors import CausalError, ConfigError
from e2i.observability.spans import current_trace_id
from e2i.ports.compute import Executor
from e2i.ports.data import FrameStore
from e2i.ports.language import LanguageModel
from e2i.ports.records import EvidenceRecords

if TYPE_CHECKING:
    import polars as pl

FOLDER = "causal"
NUISANCES = "nuisances.npz"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Frames of the run, a worker process for the numerics, where findings are kept; `language` is None where none is configured."""

    frames: FrameStore
    compute: Executor
    evidence: EvidenceRecords
    language: LanguageModel | None


@dataclass(frozen=True, kw_only=True)
class State:
    """`table` is the whole prepared table. `finding` is the result, also when estimation was refused."""

    study: Study
    run_id: str
    table: FrameRef
    data_sha256: str
    seed: int
    identification: Identification | None = None
    answer: Answer | None = None
    concerns: tuple[Concern, ...] = ()
    nuisances_sha256: str | None = None
    """of the file with fitted nuisances beside the run, which `refute` reads; None where the design has none"""
    refutations: tuple[Refutation, ...] = ()
    finding: CausalFinding | None = None
    narrative: str | None = None
    removed_sentences: int = 0
    """of the language model's words, because of a number that no evidence holds"""
    path_id: str | None = None
    """row in causal_paths"""


async def build_graph(state: State, deps: Deps) -> State:
    """Choose design, estimand and adjustment set from roles, graph and data; a question that no design answers is refused here.

    Raises ConfigError when the study asks for no effect, DataError and its kin when a named column is not in the table.
    """
    if state.finding is not None:  # answered from the file itself, because it is too large to be held
        return state
    effect = state.study.effect
    if effect is None:
        raise ConfigError("the study has no `effect`.", where=f"study {state.study.name}", advice="Add `effect` with its roles.")
    try:
        require_roles(effect, state.table.columns, unit=state.study.unit, time=state.study.time)
    except CausalError as error:
        return replace(state, finding=refused(error))
    found = await deps.compute.run(_identify, _frame(state, deps), effect, state.study)
    if isinstance(found, CausalFinding):
        return replace(state, finding=found)
    return replace(state, identification=found)


async def estimate(state: State, deps: Deps) -> State:
    """The effect with its interval and diagnostics; data from which no effect can be learned are refused here.

    Raises DataError and its kin when the table itself is unfit.
    """
    result = await deps.compute.run(
        analysis.estimate, _frame(state, deps), effect=state.study.effect, identification=known(state.identification), seed=state.seed
    )
    if isinstance(result, CausalFinding):
        return replace(state, finding=result)
    digest = None
    if result.propensity is not None and result.fit is not None:
        digest = keep(deps.frames.folder(FOLDER) / NUISANCES, nuisances_to_bytes(result.propensity, result.fit))
    return replace(state, answer=result.answer, concerns=result.concerns, nuisances_sha256=digest)


async def refute(state: State, deps: Deps) -> State:
    """Every test that a wrong estimate of this design should fail, and how strong a hidden cause would have to be."""
    refutations = await deps.compute.run(
        analysis.refute,
        _frame(state, deps),
        _estimation(state, deps),
        identification=known(state.identification),
        seed=state.seed,
    )
    return replace(state, refutations=refutations)


async def judge(state: State, deps: Deps) -> State:
    """Weigh all evidence: proceed, review or block."""
    return replace(
        state, finding=analysis.conclude(_estimation(state, deps), state.refutations, identification=known(state.identification))
    )


async def interpret(state: State, deps: Deps) -> State:
    """Words for an effect that may be told, from its evidence alone; a blocked or refused one is never put into words.

    A language model, where one is configured, may say it better; sentences with a number that the evidence lacks are taken out.
    """
    finding = known(state.finding)
    effect = state.study.effect
    if finding.effect is None or finding.verdict.name != "proceed" or effect is None:
        return state
    told = narrate(finding, treatment=effect.treatment, outcome=effect.outcome)
    if deps.language is None:
        return replace(state, narrative=told.text)
    prompt = (
        "Tell a brand analyst in at most five sentences what was found and how sure it is. "
        f"Use only these facts and no other number, and claim nothing beyond them.\n{told.text}"
    )
    answer = (await deps.language.complete(prompt, max_tokens=300)).text
    kept, removed = without_foreign_numbers(answer, names=told.names, numbers=told.numbers)
    return replace(state, narrative=kept or told.text, removed_sentences=removed)


async def store(state: State, deps: Deps) -> State:
    """causal_paths and causal_validations, also for a blocked or refused effect."""
    finding = known(state.finding)
    path_id = await deps.evidence.save(
        finding, study=state.study, run_id=state.run_id, data_sha256=state.data_sha256, trace_id=current_trace_id()
    )
    return replace(state, path_id=path_id)


def after_graph(state: State) -> Literal["estimate", "store"]:
    """A refused question is stored."""
    return "store" if state.finding is not None else "estimate"


def after_estimate(state: State) -> Literal["refute", "store"]:
    """There is nothing to refute in a refused estimate."""
    return "store" if state.finding is not None else "refute"


def _identify(frame: pl.DataFrame, effect: EffectSpec, study: Study) -> Identification | CausalFinding:
    """In the worker."""
    try:
        return identify(effect, frame, unit=study.unit, time=study.time)
    except CausalError as error:
        return refused(error)


def _frame(state: State, deps: Deps) -> pl.DataFrame:
    """The columns that the question names."""
    named = columns_of(state.study)
    return deps.frames.load(state.table, columns=[name for name in named if name in state.table.columns])


def _estimation(state: State, deps: Deps) -> Estimation:
    """The estimation that `estimate` made, from state and file; see `kept` for what raises."""
    answer = known(state.answer)
    given = {each.name: getattr(answer, each.name) for each in fields(Answer)}
    if state.nuisances_sha256 is None:
        return Estimation(**given, concerns=state.concerns)
    propensity, fit = nuisances_from_bytes(kept(deps.frames.folder(FOLDER) / NUISANCES, state.nuisances_sha256))
    return Estimation(**given, concerns=state.concerns, propensity=propensity, fit=fit)


SPEC = AgentSpec(
    name="causal_impact",
    tier=Tier.CAUSAL_ANALYTICS,
    kind="hybrid",
    budget_s=120,
    steps=[build_graph, estimate, refute, judge, interpret, store],
    routes={"build_graph": after_graph, "estimate": after_estimate},
)
