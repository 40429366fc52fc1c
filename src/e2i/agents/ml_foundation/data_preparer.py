"""Load the table, judge it, divide it and look for leakage; what blocks is a result, and the chain stops there.

Order: what is cheap comes first, and a blocked study goes straight to `finalize`. A finding is never taken back: later
steps only add to the report. A study that asks only for an effect has no splits, no leakage checks and no baselines.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl

from e2i.domain.experiments import SPLITS, FrameRef, ScopeSpec, SplitPlan
from e2i.domain.quality import FEATURE_EXCLUDING_CHECKS, BaselineMetrics, QCIssue, QCReport, crashed_check
from e2i.domain.runs import Tier
from e2i.domain.scope import used_columns
from e2i.domain.study import Study
from e2i.engine.spec import AgentSpec, known
from e2i.errors import SchemaMismatch, TooFewRows
from e2i.ml.baselines import train_baselines
from e2i.ml.features import apply_features, plan_features
from e2i.ml.leakage import LeakageRoles, find_leakage
from e2i.ml.splits import plan_splits
from e2i.ports.compute import Executor
from e2i.ports.data import FrameSource, FrameStore, Snapshot
from e2i.ports.models import QualityAlerter, QualityValidator
from e2i.ports.records import QualityRecords

TABLE = "table"
LABELS = "split_labels"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """`source` and `validator` travel to the worker process, so they must be picklable."""

    source: FrameSource
    frames: FrameStore
    validator: QualityValidator
    alerter: QualityAlerter
    quality: QualityRecords
    compute: Executor


@dataclass(frozen=True, kw_only=True)
class State:
    """`base` is the study file's folder. `scope` comes back with the features that the table itself rules out."""

    study: Study
    scope: ScopeSpec
    base: str = "."
    table: FrameRef | None = None
    table_name: str | None = None
    data_sha256: str | None = None
    is_synthetic: bool | None = None
    qc: QCReport | None = None
    plan: SplitPlan | None = None
    labels: FrameRef | None = None
    splits: dict[str, FrameRef] = field(default_factory=dict)
    baselines: BaselineMetrics | None = None


async def load_data(state: State, deps: Deps) -> State:
    """Take a snapshot of the study's data and keep it beside the run. Raises what FrameSource.load raises."""
    snapshot = await deps.compute.run(_load, deps.source, state.study, state.base)
    return replace(
        state,
        table=deps.frames.save(TABLE, snapshot.frame),
        table_name=snapshot.table,
        data_sha256=snapshot.sha256,
        is_synthetic=snapshot.is_synthetic,
    )


async def run_quality_checks(state: State, deps: Deps) -> State:
    """Schemas, suites and structural checks; columns that cannot be features leave the scope with their reason."""
    report = await deps.compute.run(
        _validate, deps.validator, _table(state, deps), state.study, known(state.table_name), known(state.data_sha256)
    )
    scope = _without_useless(state.scope, report)
    if state.study.prediction is not None and not scope.required_features:
        report = _with_issues(report, (_no_features(),))
    return replace(state, qc=report, scope=scope)


async def split_data(state: State, deps: Deps) -> State:
    """Plan 60/20/15/5; data that cannot be divided block the study."""
    planned = await deps.compute.run(_plan, _table(state, deps), state.study)
    if isinstance(planned, QCIssue):
        return replace(state, qc=_with_issues(known(state.qc), (planned,)))
    plan, labels = planned
    return replace(state, plan=plan, labels=deps.frames.save(LABELS, labels))


async def detect_leakage(state: State, deps: Deps) -> State:
    """Copies of the target, columns from after the event, identifiers, keys and dates across splits."""
    labels = deps.frames.load(known(state.labels))["split"]
    found = await deps.compute.run(_leakage, _table(state, deps), state.study, state.scope, plan=known(state.plan), labels=labels)
    report = _with_issues(known(state.qc), found)
    if any(issue.check == "check_crashed" for issue in found):
        report = replace(report, score=None)
    return replace(state, qc=report)


async def save_splits(state: State, deps: Deps) -> State:
    """Write the four splits, with the columns that the study uses and, for panels, what they say of earlier rows.

    Lags and rolling means are made before the table is divided: a unit's past may lie in front of its split.
    """
    table = await deps.compute.run(_with_history, _table(state, deps), state.study, state.scope)
    labels = deps.frames.load(known(state.labels))["split"]
    given = known(state.table).columns
    columns = [*used_columns(state.study, given), *(name for name in table.columns if name not in given)]
    splits: dict[str, FrameRef] = {split: deps.frames.save_split(split, table.filter(labels == split).select(columns)) for split in SPLITS}
    return replace(state, splits=splits)


async def compute_baseline_metrics(state: State, deps: Deps) -> State:
    """Statistics of the train split alone."""
    scope = state.scope
    train = deps.frames.read_split("train", reader=SPEC.name, purpose="baselines")
    baselines = await deps.compute.run(
        train_baselines,
        train,
        features=scope.required_features,
        target=scope.prediction_target,
        problem_type=scope.problem_type,
        computed_at=datetime.now(UTC),
    )
    return replace(state, baselines=baselines)


async def finalize(state: State, deps: Deps) -> State:
    """Write the report down and tell people about it."""
    report = known(state.qc)
    await deps.quality.save(report, study=state.study, split="unassigned")
    await deps.alerter.alert(report)
    return state


def after_checks(state: State) -> Literal["split_data", "finalize"]:
    """A closed gate ends the work; without a prediction there is nothing to divide."""
    return "split_data" if known(state.qc).gate_passed and state.study.prediction is not None else "finalize"


def after_split(state: State) -> Literal["detect_leakage", "finalize"]:
    """Data that cannot be divided end the work."""
    return "detect_leakage" if known(state.qc).gate_passed else "finalize"


def after_leakage(state: State) -> Literal["save_splits", "finalize"]:
    """Leakage ends the work before a split is written."""
    return "save_splits" if known(state.qc).gate_passed else "finalize"


def _load(source: FrameSource, study: Study, base: str) -> Snapshot:
    return source.load(study.data, base=Path(base))


def _validate(validator: QualityValidator, frame: pl.DataFrame, study: Study, table: str, sha256: str) -> QCReport:
    return validator.validate(frame, study=study, table=table, data_sha256=sha256)


def _plan(frame: pl.DataFrame, study: Study) -> tuple[SplitPlan, pl.DataFrame] | QCIssue:
    prediction = known(study.prediction)
    time, group = prediction.event_time or study.time, prediction.group or study.unit
    try:
        plan, labels = plan_splits(frame, time=time, group=group, target=prediction.target, seed=study.seed)
    except (TooFewRows, SchemaMismatch) as error:
        return QCIssue(
            check="splits_impossible",
            severity="blocking",
            column=error.where if error.where in frame.columns else None,
            detail=f"the rows cannot be divided into train, validation, test and holdout: {error.what}",
            advice=error.advice or "Load more rows.",
        )
    return plan, pl.DataFrame({"split": labels.tolist()}, schema={"split": pl.String})


def _with_history(frame: pl.DataFrame, study: Study, scope: ScopeSpec) -> pl.DataFrame:
    if study.unit is None or study.time is None:
        return frame
    plan = plan_features(frame, features=scope.required_features, unit=study.unit, time=study.time)
    return apply_features(frame, replace(plan, steps=tuple(step for step in plan.steps if step.kind in ("lag", "rolling_mean"))))


def _leakage(frame: pl.DataFrame, study: Study, scope: ScopeSpec, *, plan: SplitPlan, labels: pl.Series) -> tuple[QCIssue, ...]:
    prediction = known(study.prediction)
    roles = LeakageRoles(
        target=prediction.target,
        problem_type=scope.problem_type,
        time=prediction.event_time or study.time,
        event_time=prediction.event_time,
        unit=study.unit,
        group=prediction.group,
        after_event=prediction.after_event,
    )
    try:
        return find_leakage(frame, features=scope.required_features, roles=roles, labels=labels.to_numpy().astype(str), plan=plan)
    except Exception as error:  # noqa: BLE001 - whatever a check stumbles over, the gate must close and say which check it was
        return (crashed_check("find_leakage", error),)


def _without_useless(scope: ScopeSpec, report: QCReport) -> ScopeSpec:
    useless = {
        issue.column: f"{issue.check.replace('_', ' ')}: {issue.detail}"
        for issue in report.issues
        if issue.column in scope.required_features and issue.severity == "warning" and issue.check in FEATURE_EXCLUDING_CHECKS
    }
    kept = tuple(name for name in scope.required_features if name not in useless)
    return replace(scope, required_features=kept, excluded_features=scope.excluded_features | {str(k): why for k, why in useless.items()})


def _with_issues(report: QCReport, issues: tuple[QCIssue, ...]) -> QCReport:
    """The report with more findings; none is removed, and a blocking one makes the status `failed`."""
    there = {(issue.check, issue.column) for issue in report.issues}
    merged = replace(report, issues=report.issues + tuple(issue for issue in issues if (issue.check, issue.column) not in there))
    if merged.blocking:
        return replace(merged, status="failed")
    warned = any(issue.severity == "warning" for issue in merged.issues)
    return replace(merged, status="warning") if warned and merged.status == "passed" else merged


def _no_features() -> QCIssue:
    return QCIssue(
        check="no_features",
        severity="blocking",
        detail="no column is left that may be a feature.",
        advice="Add columns that describe the rows, or look at the reasons why the others are excluded.",
    )


def _table(state: State, deps: Deps) -> pl.DataFrame:
    return deps.frames.load(known(state.table))


SPEC = AgentSpec(
    name="data_preparer",
    tier=Tier.ML_FOUNDATION,
    kind="standard",
    budget_s=300,
    steps=[load_data, run_quality_checks, split_data, detect_leakage, save_splits, compute_baseline_metrics, finalize],
    routes={"run_quality_checks": after_checks, "split_data": after_split, "detect_leakage": after_leakage},
)
