"""Turn a study into a machine-checkable learning problem with success thresholds.

A study that asks only for an effect has no model; its scope names the outcome as the target, so that the quality gate
knows what must be there and how many rows are needed, requires the covariates, and sets no success criteria.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from e2i.domain.experiments import ProblemType, ScopeSpec
from e2i.domain.nearest import suggestion
from e2i.domain.runs import Tier
from e2i.domain.scope import (
    check_features,
    excluded_features,
    infer_problem_type,
    is_identifier,
    judged_column,
    minimum_samples,
    roles,
)
from e2i.domain.study import Study
from e2i.engine.spec import AgentSpec, known
from e2i.errors import ConfigError, SchemaMismatch
from e2i.ports.data import FrameSource
from e2i.ports.records import ExperimentRecords

DEFAULT_CRITERIA: dict[ProblemType, dict[str, float]] = {
    "binary_classification": {"minimum_auc": 0.75, "minimum_f1": 0.70, "minimum_lift": 0.10},
    "regression": {"minimum_r2": 0.60, "minimum_lift": 0.10},
}
"""An RMSE has the target's own unit, so it has no default; minimum_lift is the gain over the baseline."""
APPLICABLE: dict[ProblemType, frozenset[str]] = {
    "binary_classification": frozenset(
        {"minimum_auc", "minimum_precision_at_k", "maximum_fpr", "minimum_f1", "maximum_brier", "minimum_lift"}
    ),
    "regression": frozenset({"minimum_r2", "maximum_rmse", "minimum_lift"}),
}
_AMBITIOUS = {"minimum_auc": 0.95, "minimum_r2": 0.90}


@dataclass(frozen=True, kw_only=True)
class Deps:
    """`source` is asked for the target column alone, and only when the study does not say what kind of problem it is."""

    experiments: ExperimentRecords
    source: FrameSource


@dataclass(frozen=True, kw_only=True)
class State:
    """`columns` as FrameSource.columns gives them; `base` is the study file's folder; `rows` if they are known."""

    study: Study
    columns: dict[str, str]
    experiment_id: str
    rows: int | None = None
    base: str = "."
    problem_type: ProblemType | None = None
    scope: ScopeSpec | None = None


async def classify_problem(state: State, deps: Deps) -> State:
    """Binary or regression: as the study says, else by the target's distinct values. Raises SchemaMismatch."""
    study, target = state.study, judged_column(state.study)
    _require_columns(study, state.columns)
    declared = study.prediction.problem_type if study.prediction is not None else None
    levels = 2
    if declared is None and state.columns[target] != "boolean":
        snapshot = await asyncio.to_thread(deps.source.load, study.data, base=Path(state.base), columns=[target])
        levels = snapshot.frame[target].drop_nulls().n_unique()
    return replace(state, problem_type=infer_problem_type(study, levels))


async def build_scope_spec(state: State, deps: Deps) -> State:  # noqa: ARG001 - the signature of a step
    """Target, required and excluded features with reasons, minimum samples. Raises ConfigError."""
    study = state.study
    problem: ProblemType = known(state.problem_type)
    check_features(study)
    excluded = excluded_features(study, state.columns)
    excluded |= {name: "holds lists or records" for name, kind in state.columns.items() if kind == "other" and name not in excluded}
    if study.prediction is not None:
        required = tuple(name for name in study.prediction.features or state.columns if name not in excluded or _is_wanted(study, name))
    else:
        required = tuple(name for name, names in roles(study).items() if {"confounder", "modifier"} & set(names))
    scope = ScopeSpec(
        experiment_id=state.experiment_id,
        problem_type=problem,
        prediction_target=judged_column(study),
        required_features=required,
        excluded_features={name: why for name, why in excluded.items() if name not in required},
        minimum_samples=minimum_samples(study, problem),
        success_criteria={},
        horizon_days=study.prediction.horizon_days if study.prediction is not None else None,
        brand=study.brand,
        region=study.region,
    )
    return replace(state, scope=scope)


async def define_success_criteria(state: State, deps: Deps) -> State:  # noqa: ARG001 - the signature of a step
    """The study's own thresholds; the defaults of its kind of problem when it sets none. Raises ConfigError for one that does not apply."""
    scope = known(state.scope)
    own = {name: float(value) for name, value in state.study.success.model_dump(exclude_none=True).items()}
    problem = scope.problem_type
    wrong = sorted(set(own) - APPLICABLE[problem])
    if state.study.prediction is None:
        return state
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} cannot be judged: the target {scope.prediction_target!r} makes this a {problem.replace('_', ' ')}.",
            where=f"study {state.study.name}, success",
            advice=f"Choose from {', '.join(sorted(APPLICABLE[problem]))}, or set prediction.problem_type.",
        )
    return replace(state, scope=replace(scope, success_criteria=own or DEFAULT_CRITERIA[problem]))


async def finalize_scope(state: State, deps: Deps) -> State:
    """Add warnings and write the experiment."""
    scope = known(state.scope)
    scope = replace(scope, warnings=tuple(_warnings(state, scope)))
    await deps.experiments.save(scope, study=state.study, created_by=SPEC.name)
    return replace(state, scope=scope)


def _require_columns(study: Study, columns: dict[str, str]) -> None:
    for name, names in roles(study).items():
        if name not in columns:
            what = f"the study names {name!r} as {' and '.join(names)}; no such column."
            raise SchemaMismatch(what, where=study.name, advice=suggestion(name, columns))


def _is_wanted(study: Study, name: str) -> bool:
    """An identifier that the study itself lists as a feature stays, so that the quality gate can name it."""
    return is_identifier(name) and study.prediction is not None and name in (study.prediction.features or ())


def _warnings(state: State, scope: ScopeSpec) -> list[str]:
    found = []
    if state.rows is not None and state.rows < scope.minimum_samples:
        found.append(f"{state.rows:,} rows; {scope.minimum_samples:,} are needed.")
    for name, limit in _AMBITIOUS.items():
        if scope.success_criteria.get(name, 0.0) > limit:
            found.append(f"{name} above {limit} is seldom reached without leakage.")
    if state.study.prediction is None and state.study.success.model_dump(exclude_none=True):
        found.append("success criteria judge a model; this study asks only for an effect.")
    if state.study.prediction is not None and not scope.required_features:
        found.append("no column is left that may be a feature.")
    return found


SPEC = AgentSpec(
    name="scope_definer",
    tier=Tier.ML_FOUNDATION,
    kind="standard",
    budget_s=30,
    steps=[classify_problem, build_scope_spec, define_success_criteria, finalize_scope],
)
