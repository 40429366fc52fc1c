"""Design an experiment that can answer the question: design, size, markets, assignment, monitoring, threats, pre-registration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from e2i.causal.panel.period_dates import dated
from e2i.causal.panel.simplex import simplex_weights
from e2i.domain.experiments import FrameRef
from e2i.domain.numbers import numbers_in, without_foreign_numbers
from e2i.domain.runs import Tier
from e2i.domain.trials import Assignment, ExperimentPlan, ExperimentSpec, RedesignStep, SimulatedPower, ValidityThreat
from e2i.engine.spec import AgentSpec, known
from e2i.errors import ConfigError
from e2i.ml.power import cautions, documents, market_plan, monitoring, planning
from e2i.ml.power.assignment import assign
from e2i.ml.power.planning import Draft
from e2i.ml.power.sample import read_sample
from e2i.ml.power.simulation import simulate_power
from e2i.ml.power.threats import find_threats, judge
from e2i.ports.compute import Executor
from e2i.ports.data import FrameSource, FrameStore
from e2i.ports.language import LanguageModel

ASSIGNED = "experiment_assignment"
_LEAST_UNITS = 20
"""units that a resample of the own table needs to say anything"""


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The own table's source, the frames of the run, a worker process; `language` is None where none is configured."""

    source: FrameSource
    frames: FrameStore
    compute: Executor
    language: LanguageModel | None


@dataclass(frozen=True, kw_only=True)
class State:
    """`table` stands in where `spec` names no data; without both the plan rests on `spec.baseline`."""

    spec: ExperimentSpec
    name: str
    seed: int
    base: str = "."
    table: FrameRef | None = None
    draft: Draft | None = None
    redesigns: tuple[RedesignStep, ...] = ()
    is_final: bool = False
    """no further redesign is due or helps"""
    assignment: Assignment | None = None
    assigned: FrameRef | None = None
    """the list: unit, arm, block, cluster"""
    threats: tuple[ValidityThreat, ...] = ()
    claim: str | None = None
    removed_sentences: int = 0
    """of the language model's words, because of a number that the plan lacks"""
    plan: ExperimentPlan | None = None


async def design(state: State, deps: Deps) -> State:
    """Choose design and analysis, measure the table, solve for size, effect and power.

    Raises what FrameSource.load raises, ConfigError for numbers that nobody has given, SchemaMismatch, TooFewRows.
    """
    frame = _frame(state, deps)
    return replace(state, draft=await deps.compute.run(_design, frame, deps.source, state.spec, base=state.base, seed=state.seed))


async def redesign(state: State, deps: Deps) -> State:
    """One change that gains power, where power falls short and the section admits one."""
    current = known(state.draft)
    if len(state.redesigns) >= state.spec.max_redesign_iterations:
        return replace(state, is_final=True)
    frame = _frame(state, deps)
    better = await deps.compute.run(_redesign, frame, deps.source, current, base=state.base, seed=state.seed)
    if better is None:
        return replace(state, is_final=True)
    return replace(state, draft=better[0], redesigns=(*state.redesigns, better[1]))


async def simulate(state: State, deps: Deps) -> State:
    """Try the plan on resamples of the own table, and draw the assignment."""
    frame, current = _frame(state, deps), known(state.draft)
    simulated, drawn = await deps.compute.run(_try_out, frame, deps.source, current, base=state.base, seed=state.seed)
    state = replace(state, draft=replace(current, power=replace(current.power, simulated=simulated)))
    if drawn is None:
        return state
    return replace(state, assignment=drawn[0], assigned=deps.frames.save(ASSIGNED, drawn[1]))


async def audit(state: State, deps: Deps) -> State:  # noqa: ARG001 - every step has this signature
    """Threats to validity, by rules over measured facts."""
    return replace(state, threats=find_threats(known(state.draft)))


async def word(state: State, deps: Deps) -> State:
    """The hypothesis; a language model, where one is configured, may say it better, with the plan's numbers only."""
    current = known(state.draft)
    claim = documents.hypothesis(current)
    if deps.language is None:
        return replace(state, claim=claim)
    prompt = f"Say this hypothesis in one plain sentence, with the same numbers and no others.\nQuestion: {state.spec.question}\n{claim}"
    answer = (await deps.language.complete(prompt, max_tokens=150)).text
    names = (state.spec.treatment, state.spec.outcome)
    kept, removed = without_foreign_numbers(answer, names=names, numbers=numbers_in(claim))
    return replace(state, claim=kept or claim, removed_sentences=removed)


async def write(state: State, deps: Deps) -> State:  # noqa: ARG001 - every step has this signature
    """The plan with its pre-registration, monitoring plan and analysis study."""
    return replace(state, plan=_plan(state, known(state.draft)))


def after_redesign(state: State) -> Literal["redesign", "simulate"]:
    """Again, until power suffices or nothing helps."""
    return "simulate" if state.is_final else "redesign"


def _plan(state: State, draft: Draft) -> ExperimentPlan:
    spec, power = draft.spec, draft.power
    score, recommendation = judge(draft, state.threats)
    watch = monitoring.monitoring_plan(draft)
    study = documents.analysis_study(draft, name=state.name)
    claim = known(state.claim)
    document = documents.preregistration(
        draft, claim=claim, threats=state.threats, monitoring=watch, assignment=state.assignment, redesigns=state.redesigns, study=study
    )
    return ExperimentPlan(
        refined_hypothesis=claim,
        treatment=spec.treatment,
        outcome=spec.outcome,
        outcome_type=power.outcome_type,
        design_type=draft.design,
        design_rationale=draft.rationale,
        stratification_vars=spec.strata,
        blocking_strategy=_blocking(draft),
        anticipated_confounders=tuple(dict.fromkeys((*spec.covariates, *spec.strata))),
        required_sample_size=power.required_n,
        achievable_mde=power.mde,
        power=power.achieved_power,
        estimated_duration_weeks=monitoring.duration_weeks(draft),
        power_analysis_details=power,
        threats=state.threats,
        external_validity_limits=cautions.limits(draft),
        statistical_concerns=cautions.concerns(draft),
        validity_score=score,
        proceed_recommendation=recommendation,
        redesigns=state.redesigns,
        monitoring=watch,
        assignment=state.assignment,
        markets=draft.markets,
        causal_dag=documents.causal_dag(draft),
        preregistration_doc=document,
        analysis_study=study,
        warnings=cautions.warnings(draft, removed_sentences=state.removed_sentences),
    )


def _blocking(draft: Draft) -> str | None:
    if draft.design == "matched_pairs":
        return "pairs of neighbours in the outcome predicted before the experiment"
    if draft.design == "cluster_rct":
        return f"whole levels of `{draft.spec.cluster}`" if draft.spec.cluster else "whole clusters"
    return f"within levels of {', '.join(draft.spec.strata)}" if draft.design == "stratified" and draft.spec.strata else None


def _frame(state: State, deps: Deps) -> pl.DataFrame | None:
    """The study's own table, where the section names no other."""
    return None if state.spec.data is not None or state.table is None else deps.frames.load(state.table)


def _loaded(frame: pl.DataFrame | None, source: FrameSource, spec: ExperimentSpec, *, base: str) -> pl.DataFrame | None:
    """The table, its periods as dates or numbers: as text, M10 would stand before M2."""
    table = source.load(spec.data, base=Path(base)).frame if frame is None and spec.data is not None else frame
    if table is None or spec.time is None or spec.time not in table.columns:
        return table
    return table.with_columns(dated(table[spec.time]))


def _design(frame: pl.DataFrame | None, source: FrameSource, spec: ExperimentSpec, *, base: str, seed: int) -> Draft:
    """In the worker."""
    table = _loaded(frame, source, spec, base=base)
    sample = None if table is None or spec.design not in ("auto", "geo") else read_sample(table, spec)
    _, chosen, rationale = planning.choose(spec, sample)
    if chosen == "geo":
        if table is None:
            raise ConfigError("test markets are chosen from a panel, and there is none.", where="experiment", advice="Add `data`.")
        return market_plan.draft_markets(spec, table, rationale=rationale, weights=simplex_weights, seed=seed)
    return planning.draft(spec, table)


def _redesign(
    frame: pl.DataFrame | None, source: FrameSource, current: Draft, *, base: str, seed: int
) -> tuple[Draft, RedesignStep] | None:
    """In the worker."""
    table = _loaded(frame, source, current.spec, base=base)
    if current.design == "geo" and table is not None:
        return market_plan.redesign_markets(current, table, weights=simplex_weights, seed=seed)
    return planning.redesign(current, table)


def _try_out(
    frame: pl.DataFrame | None, source: FrameSource, current: Draft, *, base: str, seed: int
) -> tuple[SimulatedPower | None, tuple[Assignment, pl.DataFrame] | None]:
    """In the worker."""
    table = _loaded(frame, source, current.spec, base=base)
    if table is None or current.design == "geo":
        return None, None
    sample = read_sample(table, current.spec)
    n = min(current.power.planned_n, sample.n)
    can_assign = current.design != "cluster_rct" or sample.cluster is not None
    drawn = assign(sample, current.design, treated=current.spec.treated_share, n=n, seed=seed) if can_assign else None
    planned = planning.trial_on(current, sample) if sample.n >= _LEAST_UNITS else None
    if planned is None:
        return None, drawn
    trial, nominal = planned
    return simulate_power(sample, trial, nominal=nominal, simulations=current.spec.simulations, seed=seed), drawn


SPEC = AgentSpec(
    name="experiment_designer",
    tier=Tier.MONITORING,
    kind="hybrid",
    budget_s=60,
    steps=[design, redesign, simulate, audit, word, write],
    routes={"redesign": after_redesign},
)
