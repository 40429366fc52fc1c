"""Register the model and move it to staging when it has earned it; nothing is said to serve that does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from e2i.domain.experiments import ALLOWED_PROMOTIONS, ModelVersion, ScopeSpec, Stage, TrainedModel
from e2i.domain.runs import Tier
from e2i.engine.spec import AgentSpec
from e2i.ports.models import SearchDefaults, Tracker
from e2i.ports.records import DeploymentRecords, ModelRecords

ACTOR = "model_deployer"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The registry, its mirror, and where deployments are written down."""

    models: ModelRecords
    deployments: DeploymentRecords
    tracker: Tracker
    search: SearchDefaults


@dataclass(frozen=True, kw_only=True)
class State:
    """A trained candidate on its way."""

    run_id: str
    study_name: str
    scope: ScopeSpec
    trained: TrainedModel
    version: ModelVersion
    target: Stage = "staging"
    refusal: str | None = None
    """why it stays where it is"""
    mlflow_version: str | None = None
    deployment_id: str | None = None


def registered_name(pattern: str, *, study: str, algorithm: str) -> str:
    """The model's name in the registries, for instance `e2i_speaker_program_lift_lightgbm`."""
    return pattern.format(experiment=study, algorithm=algorithm)


async def register_model(state: State, deps: Deps) -> State:
    """A version in the tracker's registry, once per run."""
    name = registered_name(deps.search.model_name_pattern, study=state.study_name, algorithm=state.trained.algorithm)
    experiment = f"e2i_model_trainer_{state.scope.experiment_id}"
    async with deps.tracker.start_run(experiment_name=experiment, run_name=state.run_id, key=f"{state.run_id}/model_trainer") as run:
        version = await deps.tracker.register_model(
            name=name, run=run, model_uri=state.trained.model_uri, tags={"e2i.registry_id": state.version.registry_id}
        )
    return replace(state, mlflow_version=version)


async def validate_promotion(state: State, deps: Deps) -> State:
    """Staging asks for a stage that leads there and for every success criterion."""
    current = await deps.models.get(state.version.registry_id)
    unmet = [name for name, result in state.trained.success.items() if not result.met]
    refusal = None
    if current.stage != state.target and state.target not in ALLOWED_PROMOTIONS[current.stage]:
        refusal = f"no step leads from {current.stage} to {state.target}"
    elif unmet:
        refusal = "success criteria not met: " + ", ".join(unmet)
    return replace(state, version=current, refusal=refusal)


def promote_or_finish(state: State) -> Literal["promote_stage", "finish"]:
    """A refused model stays in development; that is a result."""
    return "finish" if state.refusal else "promote_stage"


async def promote_stage(state: State, deps: Deps) -> State:
    """Our registry first, with its audit entry in one transaction; the tracker's alias mirrors it."""
    version = state.version
    if version.stage != state.target:
        version = await deps.models.transition(
            version.registry_id, to=state.target, actor=ACTOR, reason=f"run {state.run_id}: every success criterion met"
        )
    if state.mlflow_version is not None:
        await deps.tracker.transition_model_stage(name=version.name, version=state.mlflow_version, stage=state.target)
    return replace(state, version=version)


async def record_deployment(state: State, deps: Deps) -> State:
    """A deployment that is pending: the model may be served, and nothing serves it yet."""
    deployment = await deps.deployments.save(
        registry_id=state.version.registry_id,
        name=f"{state.version.name}:{state.version.version}",
        environment=state.target,
        status="pending",
        deployed_by=ACTOR,
        config={"run_id": state.run_id, "model_sha256": state.trained.model_sha256},
    )
    return replace(state, deployment_id=deployment)


SPEC = AgentSpec(
    name="model_deployer",
    tier=Tier.ML_FOUNDATION,
    kind="standard",
    budget_s=60,
    steps=[register_model, validate_promotion, promote_stage, record_deployment],
    routes={"validate_promotion": promote_or_finish},
)
