"""Train under the quality gate, tune on train, choose on validation, judge once on test."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from e2i.agents.ml_foundation.model_trainer.nodes.fitting import FitOrder, fit_and_save
from e2i.agents.ml_foundation.model_trainer.nodes.judging import JudgeOrder, judge_model
from e2i.agents.ml_foundation.model_trainer.nodes.mlflow_logger import log_run, run_key
from e2i.agents.ml_foundation.model_trainer.state import READER, Deps, State
from e2i.domain.experiments import SPLIT_SHARES, SPLITS, ProblemType, Split, TrainedModel
from e2i.domain.runs import Tier
from e2i.engine.spec import AgentSpec, known
from e2i.errors import DataError, QualityGateFailed
from e2i.ml.algorithms import algorithm_spec, detect_imbalance
from e2i.ml.columns import target_values
from e2i.ml.evaluation import judge
from e2i.ml.features import apply_features
from e2i.ml.folds import FoldScorer, prepare_folds
from e2i.ml.meta_features import meta_features
from e2i.ports.models import SearchRequest

__all__ = ["SPEC", "Deps", "State"]

TOLERANCE = 0.02
"""how far a split may be from its share"""


async def check_qc_gate(state: State, deps: Deps) -> State:
    """No training without a passed gate; then a row in ml_training_runs."""
    if not state.qc.gate_passed:
        raise QualityGateFailed(
            f"the quality gate did not pass (score {state.qc.score}, {len(state.qc.blocking)} blocking issues).",
            where=f"report {state.qc.report_id}",
            advice="Mend what the report lists, then run again.",
        )
    row = await deps.training_runs.start(
        experiment_id=state.scope.experiment_id,
        run_name=state.run_id,
        algorithm=state.selection.primary.algorithm,
        training_samples=state.splits.rows["train"],
        feature_names=state.plan.selected,
        key=run_key(state.run_id),
    )
    return replace(state, training_run_id=row)


async def enforce_splits(state: State, deps: Deps) -> State:  # noqa: ARG001
    """Four splits, each within two points of its share, none empty."""
    kept = sum(state.splits.rows[name] for name in SPLITS)
    for name in SPLITS:
        share = state.splits.rows[name] / kept if kept else 0.0
        if name not in state.split_refs or abs(share - SPLIT_SHARES[name]) > TOLERANCE:
            raise DataError(
                f"split {name} holds {share:.1%} of the rows, not {SPLIT_SHARES[name]:.0%} ± {TOLERANCE:.0%}.",
                where="splits",
                advice="Give more distinct dates or smaller groups, so that the table can be divided.",
            )
    return state


async def detect_class_imbalance(state: State, deps: Deps) -> State:
    """How rare the rarer class is; weights answer it, rows are never invented."""
    if state.scope.problem_type == "regression":
        return replace(state, imbalance="none")
    train = deps.frames.read_split("train", reader=READER, purpose="imbalance", columns=[state.scope.prediction_target])
    share = float(target_values(train[state.scope.prediction_target], "binary_classification").mean())
    return replace(state, imbalance=detect_imbalance(min(share, 1 - share)))


async def tune_hyperparameters(state: State, deps: Deps) -> State:
    """Search on folds of train alone; validation and test stay unseen."""
    primary = state.selection.primary
    train = _split(state, deps, "train")
    scorer, meta = await deps.compute.run(
        prepare_search,
        train,
        primary.algorithm,
        target=state.scope.prediction_target,
        features=state.plan.selected,
        problem_type=state.scope.problem_type,
        folds=deps.search.folds[state.scope.problem_type],
        group=state.group,
        seed=state.seed,
    )
    request = SearchRequest(
        study_name=f"hpo_{state.study_name}_{primary.algorithm}_{state.run_id}",
        experiment_id=state.scope.experiment_id,
        algorithm=primary.algorithm,
        problem_type=state.scope.problem_type,
        metric=state.selection.metric,
        space=primary.search_space,
        defaults=primary.defaults,
        folds=deps.search.folds[state.scope.problem_type],
        n_trials=state.n_trials or deps.search.n_trials,
        seed=state.seed,
        meta_features=meta,
        score_fold=scorer,
    )

    def tell(done: int, of: int, best: float | None) -> None:
        deps.progress.advance("trials", done=done, of=of, note="" if best is None else f"best {best:.4f}")

    result, trials = await deps.optimizer.optimize(request, executor=deps.compute, progress=tell)
    return replace(state, search=result, trials=tuple(trials))


async def train_model(state: State, deps: Deps) -> State:
    """The final fit on train; validation stops it, calibrates it and sets its threshold."""
    order = FitOrder(
        algorithm=state.selection.primary.algorithm,
        params=known(state.search).best_params,
        target=state.scope.prediction_target,
        plan=state.plan,
        problem_type=state.scope.problem_type,
        seed=state.seed,
        folder=str(deps.frames.folder("model")),
    )
    fitted = await deps.compute.run(fit_and_save, _split(state, deps, "train"), _split(state, deps, "validation"), order, store=deps.store)
    return replace(state, fitted=fitted)


async def evaluate_model(state: State, deps: Deps) -> State:
    """Read test, once, for this model."""
    fitted = known(state.fitted)
    order = JudgeOrder(
        target=state.scope.prediction_target,
        features=state.plan.selected,
        problem_type=state.scope.problem_type,
        protected=state.protected,
        people=state.people,
        group=state.group,
        seed=state.seed,
        curves_path=str(deps.frames.folder("evaluation") / "curves.json"),
    )
    test = _split(state, deps, "test", purpose=fitted.digest)
    judgement = await deps.compute.run(
        judge_model, _split(state, deps, "train"), _split(state, deps, "validation"), test, fitted, order=order, store=deps.store
    )
    return replace(state, judgement=judgement)


async def log_to_mlflow(state: State, deps: Deps) -> State:
    """Everything that another person needs to judge or repeat the run."""
    fitted, judgement, search = known(state.fitted), known(state.judgement), known(state.search)
    logged = await log_run(state, deps, fitted=fitted, judgement=judgement, search=search)
    trained = TrainedModel(
        algorithm=state.selection.primary.algorithm,
        framework=fitted.framework,
        hyperparameters=fitted.params,
        features=state.plan.selected,
        model_ref=fitted.folder,
        model_sha256=fitted.digest,
        training_samples=state.splits.rows["train"],
        threshold=fitted.threshold,
        calibration=fitted.calibration,
        epochs=fitted.epochs,
        duration_s=fitted.seconds,
        metrics=judgement.metrics,
        train_metrics=judgement.train_metrics,
        validation_metrics=judgement.validation_metrics,
        baseline_metrics=judgement.baseline_metrics,
        fairness=judgement.fairness,
        success=judge(state.scope.success_criteria, judgement.metrics, baseline=judgement.baseline_metrics),
        mlflow_run_id=logged.run_id,
        model_uri=logged.model_uri,
        training_run_id=state.training_run_id,
        curves_ref=judgement.curves_path,
    )
    return replace(state, trained=trained)


async def save_checkpoint(state: State, deps: Deps) -> State:
    """Complete the training run and the candidate's row with what is now known."""
    trained, row = known(state.trained), known(state.training_run_id)
    await deps.training_runs.finish(row, model=trained, search=state.search, samples=state.splits.rows)
    version = await deps.models.register_model_candidate(
        experiment_id=state.scope.experiment_id,
        model_name=state.candidate.name,
        algorithm=trained.algorithm,
        hyperparameters=trained.hyperparameters,
        key=run_key(state.run_id),
        mlflow_run_id=trained.mlflow_run_id,
        mlflow_model_uri=trained.model_uri,
        training=trained,
    )
    return replace(state, candidate=version)


def prepare_search(
    frame: pl.DataFrame,
    algorithm: str,
    *,
    target: str,
    features: tuple[str, ...],
    problem_type: ProblemType,
    folds: int,
    group: str | None,
    seed: int,
) -> tuple[FoldScorer, dict[str, float]]:
    """The scorer of a search, preprocessing fitted inside each fold, and what describes the data to pattern memory."""
    scale = algorithm_spec(algorithm).needs_scaling
    prepared = prepare_folds(frame, target, features=features, problem_type=problem_type, seed=seed, folds=folds, scale=scale, group=group)
    scorer = FoldScorer(folds=prepared, algorithm=algorithm, problem_type=problem_type, seed=seed)
    return scorer, meta_features(frame, features=features, target=target, problem_type=problem_type, seed=seed)


def _split(state: State, deps: Deps, split: Split, *, purpose: str = "training") -> pl.DataFrame:
    return apply_features(deps.frames.read_split(split, reader=READER, purpose=purpose), state.plan)


SPEC = AgentSpec(
    name=READER,
    tier=Tier.ML_FOUNDATION,
    kind="standard",
    budget_s=3600,
    steps=[
        check_qc_gate,
        enforce_splits,
        detect_class_imbalance,
        tune_hyperparameters,
        train_model,
        evaluate_model,
        log_to_mlflow,
        save_checkpoint,
    ],
)
