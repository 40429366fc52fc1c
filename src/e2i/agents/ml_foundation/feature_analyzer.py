"""Generate and select features before training; explain the trained model on the data after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from e2i.domain.experiments import Explanation, ModelVersion, ScopeSpec, TrainedModel
from e2i.domain.numbers import without_foreign_numbers
from e2i.domain.runs import Tier
from e2i.engine.spec import AgentSpec, known
from e2i.errors import DataError
from e2i.ml.features import FeaturePlan, apply_features, plan_features
from e2i.ml.selection import select_features
from e2i.ports.compute import Executor
from e2i.ports.data import FrameStore
from e2i.ports.language import LanguageModel
from e2i.ports.models import ModelExplainer, ModelStore
from e2i.ports.records import ExplanationRecords

READER = "feature_analyzer"
LOOKS_BACK = ("lag", "rolling_mean")


@dataclass(frozen=True, kw_only=True)
class Deps:
    """`language` is None where no model is configured; then there is no narrative."""

    frames: FrameStore
    compute: Executor
    store: ModelStore
    explainer: ModelExplainer
    explanations: ExplanationRecords
    language: LanguageModel | None


@dataclass(frozen=True, kw_only=True)
class State:
    """Before training: `scope`. After it also `plan`, `trained` and `version`."""

    run_id: str
    scope: ScopeSpec
    unit: str | None
    time: str | None
    event_time: str | None
    seed: int
    plan: FeaturePlan | None = None
    trained: TrainedModel | None = None
    version: ModelVersion | None = None
    explanation: Explanation | None = None
    removed_sentences: int = 0
    """of the narrative, because of a number that no evidence holds"""
    analysis_id: str | None = None


async def choose_part(state: State, deps: Deps) -> State:  # noqa: ARG001
    """Nothing to do: the route decides."""
    return state


def part(state: State) -> Literal["generate_features", "compute_shap"]:
    """With a trained model there is something to explain."""
    return "generate_features" if state.trained is None else "compute_shap"


async def generate_features(state: State, deps: Deps) -> State:
    """Ratios, ages of dates, missing counts; for panels lags and means of earlier rows. Planned on train."""
    if not state.scope.required_features:
        raise DataError("no column is left as a feature.", where=f"run {state.run_id}", advice="Exclude less, or add columns.")
    train = deps.frames.read_split("train", reader=READER, purpose="features")
    plan = await deps.compute.run(plan_on_train, train, state.scope, unit=state.unit, time=state.time, event_time=state.event_time)
    return replace(state, plan=plan)


def plan_on_train(train: pl.DataFrame, scope: ScopeSpec, *, unit: str | None, time: str | None, event_time: str | None) -> FeaturePlan:
    """The plan for the table's own columns, in the worker.

    What looks back was made on the whole history before the table was divided; here it is only named. A step whose column is
    not there is left out: within a split it would find the unit's past cut off.
    """
    made = {name for name in train.columns if name not in scope.required_features and name not in scope.excluded_features}
    plan = plan_features(train.drop(made), features=scope.required_features, unit=unit, time=time, event_time=event_time)
    cut_off = {step.name for step in plan.steps if step.kind in LOOKS_BACK and step.name not in made}
    return replace(
        plan,
        steps=tuple(step for step in plan.steps if step.name not in cut_off),
        selected=tuple(name for name in plan.selected if name not in cut_off),
    )


async def select_on_train(state: State, deps: Deps) -> State:
    """Drop what tells nothing or tells it twice; at most ten products."""
    plan = known(state.plan)
    train = deps.frames.read_split("train", reader=READER, purpose="features")
    chosen = await deps.compute.run(
        generate_and_select, train, plan, target=state.scope.prediction_target, problem_type=state.scope.problem_type, seed=state.seed
    )
    return replace(state, plan=chosen)


def generate_and_select(train: pl.DataFrame, plan: FeaturePlan, *, target: str, problem_type: str, seed: int) -> FeaturePlan:
    """Selection on the generated train split, in the worker."""
    return select_features(apply_features(train, plan), plan, target=target, problem_type=problem_type, seed=seed)  # type: ignore[arg-type]


async def compute_shap(state: State, deps: Deps) -> State:
    """Contributions of the model that was judged, on the rows that judged it."""
    trained, plan = known(state.trained), known(state.plan)
    frame = apply_features(deps.frames.read_split("test", reader=READER, purpose=trained.model_sha256), plan)
    explanation = await deps.compute.run(
        explain_stored, deps.store, deps.explainer, trained, frame, folder=str(deps.frames.folder("explanation")), seed=state.seed
    )
    return replace(state, explanation=explanation)


def explain_stored(
    store: ModelStore, explainer: ModelExplainer, trained: TrainedModel, frame: pl.DataFrame, *, folder: str, seed: int
) -> Explanation:
    """Load the verified model and explain it, in the worker."""
    model = store.load(Path(trained.model_ref), expected_digest=trained.model_sha256)
    return explainer.explain(model, frame, folder=Path(folder), seed=seed)


async def narrate_importance(state: State, deps: Deps) -> State:
    """Words by a language model, where there is one; numbers that are not in the evidence are taken out."""
    explanation = known(state.explanation)
    if deps.language is None:
        return state
    listed = "\n".join(f"{item.feature}: {_shown(item.importance)}, {item.direction}" for item in explanation.top_features)
    target = state.scope.prediction_target
    prompt = (
        "Explain in at most five sentences, for a brand analyst, which features move the model's predictions. "
        f"Use only these facts and no other number. Target: {target}.\n{listed}"
    )
    text = (await deps.language.complete(prompt, max_tokens=300)).text
    names = (target, *(item.feature for item in explanation.top_features))
    told, removed = without_foreign_numbers(text, names=names, numbers={_shown(item.importance) for item in explanation.top_features})
    return replace(state, explanation=replace(explanation, narrative=told or None), removed_sentences=removed)


def _shown(importance: float) -> str:
    return f"{importance:.4g}"


async def store_analysis(state: State, deps: Deps) -> State:
    """One row in ml_shap_analyses, on the model's registry row."""
    row = await deps.explanations.save(known(state.explanation), registry_id=known(state.version).registry_id, split="test")
    return replace(state, analysis_id=row)


def after_selection(state: State) -> Literal["finish"]:  # noqa: ARG001
    """Training comes next, in another agent."""
    return "finish"


SPEC = AgentSpec(
    name=READER,
    tier=Tier.ML_FOUNDATION,
    kind="hybrid",
    budget_s=300,
    steps=[choose_part, generate_features, select_on_train, compute_shap, narrate_importance, store_analysis],
    routes={"choose_part": part, "select_on_train": after_selection},
)
