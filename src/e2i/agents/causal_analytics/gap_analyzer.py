"""Find where a KPI is behind, what closing each gap is worth, and in which order to look at them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from e2i.causal.panel.period_dates import dated
from e2i.domain.evidence import CausalFinding
from e2i.domain.experiments import FrameRef
from e2i.domain.gaps import GapReport, GapSpec, GapTable, Opportunity, RoiEstimate
from e2i.domain.runs import Tier
from e2i.engine.spec import AgentSpec, known
from e2i.errors import ConfigError
from e2i.ml import gaps, opportunities, roi
from e2i.ports.compute import Executor
from e2i.ports.data import FrameSource, FrameStore


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The KPI table's source, the frames of the run, and a worker process for the numerics."""

    source: FrameSource
    frames: FrameStore
    compute: Executor


@dataclass(frozen=True, kw_only=True)
class State:
    """`findings` are measured effects by the name that `spec.proven` uses; `table` stands in where `spec` names no data."""

    spec: GapSpec
    seed: int
    base: str = "."
    table: FrameRef | None = None
    findings: dict[str, CausalFinding] = field(default_factory=dict)
    detected: GapTable | None = None
    estimates: tuple[RoiEstimate, ...] = ()
    ranked: tuple[Opportunity, ...] = ()
    report: GapReport | None = None


async def detect_gaps(state: State, deps: Deps) -> State:
    """Compare every metric and cell with what was asked for. Raises what FrameSource.load and `gaps.detect` raise."""
    detected = await deps.compute.run(_detect, _rows(state, deps), deps.source, state.spec, base=state.base)
    return replace(state, detected=detected)


async def calculate_roi(state: State, deps: Deps) -> State:
    """Worth, cost, return and payback of every gap, with intervals."""
    found = known(state.detected).gaps
    estimates = await deps.compute.run(roi.estimate, found, state.spec, findings=state.findings, seed=state.seed)
    return replace(state, estimates=estimates)


async def prioritize(state: State, deps: Deps) -> State:  # noqa: ARG001 - every step has this signature
    """Order by return; mark quick wins and strategic bets."""
    return replace(state, ranked=opportunities.prioritise(known(state.detected).gaps, state.estimates))


async def format_findings(state: State, deps: Deps) -> State:
    """The report, with totals that count nothing twice."""
    report = await deps.compute.run(
        opportunities.report, known(state.detected), state.ranked, state.spec, findings=state.findings, seed=state.seed
    )
    return replace(state, report=report)


def _rows(state: State, deps: Deps) -> pl.DataFrame | None:
    """The study's own table, where the section names no other."""
    if state.spec.data is not None:
        return None
    if state.table is None:
        raise ConfigError("there is no KPI table.", where="gaps", advice="Add `gaps.data` with its source.")
    return deps.frames.load(state.table)


def _detect(frame: pl.DataFrame | None, source: FrameSource, spec: GapSpec, *, base: str) -> GapTable:
    if frame is None and spec.data is not None:
        frame = source.load(spec.data, base=Path(base)).frame
    return gaps.detect(_with_dates(known(frame), spec), spec)


def _with_dates(frame: pl.DataFrame, spec: GapSpec) -> pl.DataFrame:
    """Months, quarters and weeks, in text or as 202401, as their first days; what is no calendar is left for `detect` to refuse."""
    name = spec.columns.date
    if name not in frame.columns or frame.schema[name].is_temporal() or frame[name].null_count() == frame.height:
        return frame
    days = dated(frame[name])
    return frame.with_columns(days) if days.dtype == pl.Date else frame


SPEC = AgentSpec(
    name="gap_analyzer",
    tier=Tier.CAUSAL_ANALYTICS,
    kind="standard",
    budget_s=20,
    steps=[detect_gaps, calculate_roi, prioritize, format_findings],
)
