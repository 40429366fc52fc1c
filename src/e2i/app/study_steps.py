"""What the use case needs, and one agent's turn in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2i.app.study_progress import Progress
from e2i.engine.graph import Engine
from e2i.engine.spec import AgentSpec
from e2i.ports.compute import Executor
from e2i.ports.data import FrameSource, FrameStore, LargeTable
from e2i.ports.records import AuditTrail, EvidenceRecords, RunRecords, TrainingRunRecords
from e2i.ports.reporting import ReportWriter


@dataclass(frozen=True, kw_only=True)
class StudyPorts:
    """What the use case needs. `fill` builds an agent's Deps from its types, with the run's own frames."""

    engine: Engine
    source: FrameSource
    runs: RunRecords
    training_runs: TrainingRunRecords
    evidence: EvidenceRecords
    audit: AuditTrail
    reports: ReportWriter
    frames: Callable[[str], FrameStore]
    fill: Callable[[type[Any], FrameStore], Any]
    causal_fill: Callable[[type[Any], FrameStore], Any]
    """as `fill`, with a worker of its own: the effect is estimated beside the model"""
    large: Callable[..., LargeTable | None]
    """the study's data as a table that is never held in memory, when they are large"""
    compute: Executor
    reports_folder: Path


async def run_agent(
    progress: Progress,
    ports: StudyPorts,
    spec: AgentSpec,
    state: Any,
    *,
    part: str | None = None,
    fill: Callable[[type[Any], FrameStore], Any] | None = None,
) -> Any:
    """Run an agent, or a part of it, on the run's own frames; its seconds are kept."""
    started = time.perf_counter()
    deps = (fill or ports.fill)(spec.deps_type, progress.frames)
    done = await ports.engine.run(spec, state, deps, run_id=progress.run.run_id, part=part)
    name = spec.name if part is None else f"{spec.name}.{part}"
    progress.timings[name] = round(time.perf_counter() - started, 3)
    return done
