"""Find for whom an effect is larger, whom to treat, and what that would bring, when the average effect may be told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from e2i.causal import heterogeneity, targeting
from e2i.causal.cate.stored import Predicted, from_bytes, to_bytes
from e2i.causal.design import Identification, columns_of
from e2i.causal.heterogeneity import ForestName, Heterogeneity, Hierarchy
from e2i.causal.profiles import Parts, compose, refused
from e2i.causal.segments import SegmentEffects
from e2i.causal.stored import nuisances_from_bytes
from e2i.causal.targeting import MONEY, Terms
from e2i.domain.evidence import CausalFinding
from e2i.domain.experiments import FrameRef
from e2i.domain.runs import Tier
from e2i.domain.segments import HeterogeneityReport, Policy
from e2i.domain.study import EffectSpec, Study
from e2i.engine.kept_files import keep, kept
from e2i.engine.spec import AgentSpec, known
from e2i.errors import CausalError, ConfigError, DataError
from e2i.ports.compute import Executor
from e2i.ports.data import FrameStore

if TYPE_CHECKING:
    import polars as pl

FOLDER = "causal"
NUISANCES = "nuisances.npz"
"""as causal_impact left them"""
EFFECTS = "unit_effects.npz"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Frames of the run, and a worker process for the numerics."""

    frames: FrameStore
    compute: Executor


@dataclass(frozen=True, kw_only=True)
class State:
    """The first seven fields are what causal_impact was given and left; `report` is the result, also when segments are refused."""

    study: Study
    table: FrameRef
    seed: int
    finding: CausalFinding | None
    identification: Identification | None
    nuisances_sha256: str | None
    budget_share: float | None = None
    """at most this share of people may be treated by the policy"""
    forest: ForestName = "own"
    """`econml` takes unit effects from CausalForestDML, for comparison"""
    effects_sha256: str | None = None
    """of the file with scores and unit effects beside the run"""
    found: Heterogeneity | None = None
    segments: SegmentEffects | None = None
    hierarchy: Hierarchy | None = None
    policy: Policy | None = None
    report: HeterogeneityReport | None = None


async def estimate_cate(state: State, deps: Deps) -> State:
    """Scores and effects of single units, and whether their differences are real; what cannot be divided is refused here.

    Raises ConfigError when the study asks for no effect, NotFound or SchemaMismatch when causal_impact's file is gone or another.
    """
    effect = _effect(state)
    against = heterogeneity.reason_against(state.identification, state.finding, has_nuisances=state.nuisances_sha256 is not None)
    if against is not None:
        return replace(state, report=refused(effect.treatment, effect.outcome, against))
    nuisances = nuisances_from_bytes(kept(deps.frames.folder(FOLDER) / NUISANCES, state.nuisances_sha256))
    try:
        predicted, found = await deps.compute.run(
            heterogeneity.predict_effects,
            _frame(state, deps),
            identification=known(state.identification),
            nuisances=nuisances,
            forest=state.forest,
            seed=state.seed,
        )
    except (CausalError, DataError) as error:
        return replace(state, report=refused(effect.treatment, effect.outcome, str(error)))
    return replace(state, found=found, effects_sha256=keep(deps.frames.folder(FOLDER) / EFFECTS, to_bytes(predicted)))


async def analyze_segments(state: State, deps: Deps) -> State:
    """The effect in every segment of every modifier, with multiplicity control and shrinkage; small cells suppressed."""
    segments = await deps.compute.run(
        heterogeneity.analyze_segments,
        _frame(state, deps),
        _predicted(state, deps),
        identification=known(state.identification),
        seed=state.seed,
    )
    return replace(state, segments=segments)


async def hierarchical_analysis(state: State, deps: Deps) -> State:
    """Thirds of the predicted effect, pooled by their variance, with I² and τ²."""
    return replace(state, hierarchy=heterogeneity.pool_hierarchy(_predicted(state, deps), seed=state.seed))


async def learn_policy(state: State, deps: Deps) -> State:
    """Whom to treat by at most two questions, its value out of sample and against present practice."""
    policy = await deps.compute.run(
        targeting.learn_policy,
        _frame(state, deps),
        _predicted(state, deps),
        known(state.segments),
        identification=known(state.identification),
        terms=_terms(state),
        seed=state.seed,
    )
    return replace(state, policy=policy)


async def generate_profiles(state: State, deps: Deps) -> State:  # noqa: ARG001 - every step has this signature
    """High and low responders, insights, warnings: the report."""
    effect = _effect(state)
    parts = Parts(
        treatment=effect.treatment,
        outcome=effect.outcome,
        finding=known(state.finding),
        found=known(state.found),
        segments=known(state.segments),
        hierarchy=state.hierarchy,
        policy=state.policy,
        more_is_better=state.study.business is None or state.study.business.value_per_unit >= 0,
    )
    return replace(state, report=compose(parts))


def after_cate(state: State) -> Literal["analyze_segments", "finish"]:
    """A refusal is finished."""
    return "finish" if state.report is not None else "analyze_segments"


def _effect(state: State) -> EffectSpec:
    if state.study.effect is None:
        raise ConfigError("the study has no `effect`.", where=f"study {state.study.name}", advice="Add `effect` with its roles.")
    return state.study.effect


def _terms(state: State) -> Terms:
    business = state.study.business
    if business is None:
        return Terms(budget_share=state.budget_share)
    return Terms(
        value_per_unit=business.value_per_unit,
        cost_per_treated=business.cost_per_treated,
        unit=MONEY,
        budget_share=state.budget_share,
    )


def _frame(state: State, deps: Deps) -> pl.DataFrame:
    """The columns that the question names."""
    return deps.frames.load(state.table, columns=[name for name in columns_of(state.study) if name in state.table.columns])


def _predicted(state: State, deps: Deps) -> Predicted:
    return from_bytes(kept(deps.frames.folder(FOLDER) / EFFECTS, state.effects_sha256))


SPEC = AgentSpec(
    name="heterogeneous_optimizer",
    tier=Tier.CAUSAL_ANALYTICS,
    kind="standard",
    budget_s=180,
    steps=[estimate_cate, analyze_segments, hierarchical_analysis, learn_policy, generate_profiles],
    routes={"estimate_cate": after_cate},
)
