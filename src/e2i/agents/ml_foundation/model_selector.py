"""Choose an algorithm by cross-validation on train, against a baseline, with the record of past runs beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import polars as pl

from e2i.domain.experiments import FrameRef, ModelCandidate, ModelVersion, ProblemType, ScopeSpec, Selection
from e2i.domain.runs import Tier
from e2i.domain.study import SearchSpec
from e2i.engine.spec import AgentSpec
from e2i.errors import ConfigError
from e2i.ml.algorithms import ALGORITHMS, LINEAR, algorithm_spec
from e2i.ml.features import FeaturePlan, apply_features
from e2i.ml.folds import FoldScorer, baseline_scores, cross_validate, prepare_folds
from e2i.ports.compute import Executor, Progress
from e2i.ports.data import FrameStore
from e2i.ports.models import SearchDefaults, Tracker
from e2i.ports.records import ModelRecords, PastRun, TrainingRunRecords

DEFAULT_ALGORITHMS = ("logistic_regression", "ridge_regression", "random_forest", "xgboost", "lightgbm")
"""of which those that fit the kind of target are tried"""
INTERPRETABLE = 0.7
"""what `search.interpretable` asks of an algorithm's interpretability"""


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Frames, a worker, history, the registry and the tracker."""

    frames: FrameStore
    compute: Executor
    progress: Progress
    history: TrainingRunRecords
    models: ModelRecords
    tracker: Tracker
    search: SearchDefaults


@dataclass(frozen=True, kw_only=True)
class State:
    """What to choose from, and the choice."""

    run_id: str
    study_name: str
    scope: ScopeSpec
    plan: FeaturePlan
    train: FrameRef
    group: str | None
    wish: SearchSpec
    seed: int
    history: tuple[PastRun, ...] = ()
    candidates: tuple[ModelCandidate, ...] = ()
    baseline: dict[str, float] | None = None
    selection: Selection | None = None
    candidate: ModelVersion | None = None


async def analyze_historical(state: State, deps: Deps) -> State:
    """Completed runs on the same kind of problem; none is said as none."""
    past = await deps.history.history(problem_type=state.scope.problem_type)
    return replace(state, history=tuple(past))


async def run_benchmarks(state: State, deps: Deps) -> State:
    """Every algorithm with its defaults on the same folds of train."""
    frame = apply_features(deps.frames.read_split("train", reader="model_selector", purpose="benchmark"), state.plan)
    names = eligible(state.wish, state.scope.problem_type)
    shared = {
        "target": state.scope.prediction_target,
        "features": state.plan.selected,
        "problem_type": state.scope.problem_type,
        "group": state.group,
        "folds": deps.search.folds[state.scope.problem_type],
        "seed": state.seed,
    }
    candidates = []
    for done, name in enumerate(names):
        deps.progress.advance("algorithms", done=done, of=len(names), note=name)
        mean, std, seconds = await deps.compute.run(benchmark, frame, name, **shared)
        candidates.append(_candidate(name, deps.search, cv_mean=mean, cv_std=std, fit_seconds=seconds))
    deps.progress.advance("algorithms", done=len(names), of=len(names))
    baseline = await deps.compute.run(benchmark_baseline, frame, **shared)
    return replace(state, candidates=tuple(candidates), baseline=baseline)


async def select_primary_candidate(state: State, deps: Deps) -> State:
    """The highest mean over folds; the more interpretable one when two are within a standard error."""
    metric = deps.search.metric[state.scope.problem_type]
    ranked = rank(state.candidates, folds=deps.search.folds[state.scope.problem_type])
    if state.baseline is None:
        raise ConfigError("there is no baseline.", where="model_selector", advice="Run the benchmarks first.")
    selection = Selection(
        primary=ranked[0],
        alternatives=ranked[1:],
        metric=metric,
        baseline=state.baseline,
        history=describe_history(state.history),
        rationale=rationale(ranked, metric=metric, baseline=state.baseline),
        experiment_name=f"e2i_model_selection_{state.scope.experiment_id}",
        mlflow_run_id=None,
    )
    return replace(state, selection=selection)


async def register_selection(state: State, deps: Deps) -> State:
    """A tracked run with every score, and a candidate row that carries its id."""
    selection = state.selection
    if selection is None:
        raise ConfigError("nothing was selected.", where="model_selector", advice="Run the selection first.")
    key = f"{state.run_id}/model_selector"
    tags = {"e2i.run_id": state.run_id, "e2i.agent": "model_selector", "e2i.rationale": selection.rationale}
    async with deps.tracker.start_run(experiment_name=selection.experiment_name, run_name=state.run_id, key=key, tags=tags) as run:
        await run.log_params({"selected": selection.primary.algorithm, "metric": selection.metric, "history": selection.history})
        scores = {f"cv_{item.algorithm}": item.cv_mean for item in state.candidates}
        await run.log_metrics({**scores, **{f"baseline_{name}": value for name, value in selection.baseline.items()}})
        run_id = run.run_id
    primary = selection.primary
    candidate = await deps.models.register_model_candidate(
        experiment_id=state.scope.experiment_id,
        model_name=deps.search.model_name_pattern.format(experiment=state.study_name, algorithm=primary.algorithm),
        algorithm=primary.algorithm,
        hyperparameters=primary.defaults,
        key=f"{state.run_id}/model_trainer",
        mlflow_run_id=run_id,
    )
    return replace(state, selection=replace(selection, mlflow_run_id=run_id), candidate=candidate)


def eligible(wish: SearchSpec, problem_type: ProblemType) -> tuple[str, ...]:
    """The algorithms to try. Raises ConfigError for one that is unknown or for another kind of target, or when none is interpretable."""
    suited = tuple(name for name in DEFAULT_ALGORITHMS if problem_type in ALGORITHMS[name].problem_types)
    names = tuple(algorithm_spec(name).name for name in wish.algorithms or suited)
    for name in names:
        if problem_type not in ALGORITHMS[name].problem_types:
            raise ConfigError(
                f"{name} is not for {problem_type}.", where="search.algorithms", advice=f"Take {LINEAR[problem_type]} in its place."
            )
    kept = tuple(name for name in names if not wish.interpretable or ALGORITHMS[name].interpretability >= INTERPRETABLE)
    if not kept:
        raise ConfigError(
            f"none of {', '.join(names)} is interpretable enough.", where="search.interpretable", advice=f"Add {LINEAR[problem_type]}."
        )
    return kept


def benchmark(
    frame: pl.DataFrame,
    name: str,
    *,
    target: str,
    features: tuple[str, ...],
    problem_type: ProblemType,
    group: str | None,
    folds: int,
    seed: int,
) -> tuple[float, float, float]:
    """Cross-validated score of one algorithm with its defaults: mean, standard deviation, seconds per fit."""
    spec = algorithm_spec(name)
    prepared = prepare_folds(
        frame, target, features=features, problem_type=problem_type, seed=seed, folds=folds, scale=spec.needs_scaling, group=group
    )
    result = cross_validate(FoldScorer(folds=prepared, algorithm=name, problem_type=problem_type, seed=seed))
    return result.mean, result.std, result.fit_seconds


def benchmark_baseline(
    frame: pl.DataFrame, *, target: str, features: tuple[str, ...], problem_type: ProblemType, group: str | None, folds: int, seed: int
) -> dict[str, float]:
    """What a model must beat, on the same folds."""
    scaled = prepare_folds(frame, target, features=features, problem_type=problem_type, seed=seed, folds=folds, scale=True, group=group)
    return baseline_scores(scaled, problem_type=problem_type, seed=seed)


def rank(candidates: tuple[ModelCandidate, ...], *, folds: int) -> tuple[ModelCandidate, ...]:
    """Best first, but the most interpretable leads among those within one standard error of the best (Breiman et al. 1984)."""
    ordered = sorted(candidates, key=lambda item: item.cv_mean, reverse=True)
    leader = ordered[0]
    near = [item for item in ordered if item.cv_mean >= leader.cv_mean - leader.cv_std / math.sqrt(folds)]
    first = max(near, key=lambda item: (ALGORITHMS[item.algorithm].interpretability, item.cv_mean))
    return (first, *(item for item in ordered if item is not first))


def describe_history(history: tuple[PastRun, ...]) -> str:
    """One sentence on past runs of this kind of problem."""
    if not history:
        return "no history"
    counts: dict[str, int] = {}
    for run in history:
        counts[run.algorithm] = counts.get(run.algorithm, 0) + 1
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{len(history)} completed run{'s' if len(history) > 1 else ''} of this kind: {listed}"


def rationale(ranked: tuple[ModelCandidate, ...], *, metric: str, baseline: dict[str, float]) -> str:
    """Why the first one."""
    first = ranked[0]
    leader = max(ranked, key=lambda item: item.cv_mean)
    floor = max((value for value in baseline.values() if math.isfinite(value)), default=math.nan)
    reason = "highest cross-validated score"
    if first is not leader:
        reason = f"within one standard error of {leader.algorithm} ({leader.cv_mean:.4f}) and easier to explain"
    return f"{first.algorithm}: {metric} {first.cv_mean:.4f} ± {first.cv_std:.4f}, {reason}; baseline {floor:.4f}"


def _candidate(name: str, search: SearchDefaults, *, cv_mean: float, cv_std: float, fit_seconds: float) -> ModelCandidate:
    spec = algorithm_spec(name)
    return ModelCandidate(
        algorithm=name,
        framework=spec.framework,
        defaults=spec.defaults,
        search_space=search_space(name, search),
        cv_mean=cv_mean,
        cv_std=cv_std,
        fit_seconds=fit_seconds,
        rationale=f"interpretability {spec.interpretability}, scalability {spec.scalability}",
    )


def search_space(name: str, search: SearchDefaults) -> dict[str, dict[str, object]]:
    """The preset of an algorithm. Raises ConfigError when settings have none."""
    for preset in (f"{name}_classifier", name):
        if preset in search.spaces:
            return search.spaces[preset]
    raise ConfigError(
        f"no search space for {name}.", where="optuna.search_space_presets", advice=f"Presets: {', '.join(sorted(search.spaces))}."
    )


SPEC = AgentSpec(
    name="model_selector",
    tier=Tier.ML_FOUNDATION,
    kind="standard",
    budget_s=600,
    steps=[analyze_historical, run_benchmarks, select_primary_candidate, register_selection],
)
