"""The peer of `e2i run`: the same study, the same fits, the same logs and the same report, as one plain script.

Shared with E2I is what computes a number (the world, checks, splits, folds, algorithms, metrics, SHAP, the causal analysis)
and the report's writer, so the fits are the same and only the governance differs. Not here: the engine, checkpoints, worker
processes, PostgreSQL, our registry, outbox, audit trail, resumption, pattern memory, budgets. Cheaper here, as a plain script
would have it: the folds' matrices are made once for all algorithms, and the model is never read back from the disk.

python benchmarks/lean_run.py STATE_FOLDER [--trials N]    prints report.json
"""

from __future__ import annotations

import os

# As e2i.config sets them, before numpy and MLflow are loaded.
os.environ |= {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

import argparse
import json
import math
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import mlflow.sklearn
import numpy as np
import optuna
import yaml
from mlflow.entities import Metric, Param
from mlflow.models import infer_signature
from sklearn.pipeline import Pipeline

from e2i.causal import analysis
from e2i.data.sources import LocalFrameSource
from e2i.domain import report as reports
from e2i.domain.experiments import SPLITS, Explanation, SearchResult, SplitPlan, TrainedModel
from e2i.domain.quality import QCReport
from e2i.domain.scope import excluded_features
from e2i.domain.study import PredictionSpec, Study
from e2i.ml.algorithms import ALGORITHMS
from e2i.ml.baselines import train_baselines
from e2i.ml.calibration import fit_calibration
from e2i.ml.columns import level_codes, target_values
from e2i.ml.evaluation import choose_threshold, curves, evaluate, judge, point_metrics
from e2i.ml.fairness import fairness
from e2i.ml.features import apply_features, plan_features
from e2i.ml.folds import CrossValidation, Fold, FoldScorer, cross_validate, prepare_folds
from e2i.ml.leakage import LeakageRoles, find_leakage
from e2i.ml.selection import select_features
from e2i.ml.splits import plan_splits
from e2i.ml.training import FittedModel, fit
from e2i.mlops.data_quality import DataQualityValidator
from e2i.mlops.shap_explainer import ShapExplainer
from e2i.reporting.html import HtmlReportWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

STUDY = Path(__file__).parents[1] / "studies" / "speaker_program.yaml"
NAMES = ("logistic_regression", "random_forest", "xgboost", "lightgbm")
BINARY = "binary_classification"
TRIAL_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
TIMINGS: dict[str, float] = {}


@contextmanager
def timed(name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    TIMINGS[name] = round(time.perf_counter() - started, 3)


class Prepared(NamedTuple):
    """The table after the gate, and the four splits with the columns that a model may use."""

    table: pl.DataFrame
    sha256: str
    qc: QCReport
    splits: SplitPlan
    parts: dict[str, pl.DataFrame]
    fits: dict[str, Any]
    """what every fit is told: target, features, kind of problem, seed"""


class Chosen(NamedTuple):
    name: str
    scores: dict[str, CrossValidation]
    baseline: dict[str, float]
    folds: tuple[Fold, ...]


class Judged(NamedTuple):
    metrics: dict[str, Any]
    train: dict[str, float]
    validation: dict[str, float]
    baseline: dict[str, float]
    fairness: dict[str, dict[str, float]]
    curves: Path


def main() -> None:
    parser = argparse.ArgumentParser(description="The same work as `e2i run`, as a plain script.")
    parser.add_argument("state", type=Path, help="folder for MLflow's database and the report")
    parser.add_argument("--trials", type=int)
    asked = parser.parse_args()
    asked.state.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
    report = run(STUDY, asked.state, trials=asked.trials)
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))


def run(path: Path, state: Path, *, trials: int | None) -> reports.StudyReport:
    study = Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    settings = yaml.safe_load((files("e2i.settings") / "optuna_config.yaml").read_text(encoding="utf-8"))
    folder = state / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    folder.mkdir()
    with timed("data_preparer"):
        prepared = prepare(study, base=path.parent)
    with timed("model_selector"):
        chosen = choose(study, prepared, folds=settings["problem_types"][BINARY]["cv_folds"])
    with timed("search"):
        search, found = tune(study, chosen, settings, trials=trials or settings["optimization"]["default_n_trials"])
    with timed("train"):
        model, seconds = train(study, prepared, chosen.name, search.best_params)
    with timed("evaluate"):
        judged = judge_model(study, prepared, model, folder)
    with timed("mlflow"):
        trained = log(study, prepared, chosen, (search, found), (model, seconds), judged=judged, state=state)
    with timed("explain"):
        explanation = ShapExplainer().explain(model, prepared.parts["test"], folder=folder, seed=study.seed)
    with timed("causal_impact"):
        finding = analysis.analyse(prepared.table, effect=study.effect, unit=study.unit, seed=study.seed)
    return write(study, prepared, (trained, search, explanation), finding=finding, folder=folder)


def prepare(study: Study, *, base: Path) -> Prepared:
    """Load, check, divide, look for leakage, plan features on train."""
    asked: PredictionSpec = study.prediction
    snapshot = LocalFrameSource().load(study.data, base=base)
    table = snapshot.frame
    qc = DataQualityValidator().validate(table, study=study, table=snapshot.table, data_sha256=snapshot.sha256)
    excluded = excluded_features(study, table.columns)
    features = sorted(name for name in table.columns if name not in excluded)
    splits, labels = plan_splits(table, time=asked.event_time, group=study.unit, target=asked.target, seed=study.seed)
    moment = {"time": asked.event_time, "event_time": asked.event_time}
    roles = LeakageRoles(target=asked.target, problem_type=BINARY, unit=study.unit, after_event=asked.after_event, **moment)
    leaks = find_leakage(table, features=features, roles=roles, labels=labels, plan=splits)
    qc = replace(qc, issues=(*qc.issues, *leaks))
    if not qc.gate_passed:
        raise SystemExit(f"the quality gate is closed: {[issue.detail for issue in qc.blocking]}")
    parts = {name: table.filter(labels == name) for name in SPLITS}
    train_baselines(parts["train"], features=features, target=asked.target, problem_type=BINARY, computed_at=datetime.now(UTC))
    plan = plan_features(parts["train"], features=features, unit=study.unit, time=study.time, event_time=asked.event_time)
    plan = select_features(parts["train"], plan, target=asked.target, problem_type=BINARY, seed=study.seed)
    parts = {name: apply_features(part, plan) for name, part in parts.items()}
    fits = {"target": asked.target, "features": plan.selected, "problem_type": BINARY, "seed": study.seed}
    return Prepared(table=table, sha256=snapshot.sha256, qc=qc, splits=splits, parts=parts, fits=fits)


def choose(study: Study, prepared: Prepared, *, folds: int) -> Chosen:
    """Cross-validate the four algorithms with their defaults; the most interpretable one within a standard error of the best wins."""
    rows = prepared.parts["train"]
    matrices = {scale: prepare_folds(rows, **prepared.fits, folds=folds, scale=scale, group=study.unit) for scale in (True, False)}
    parts = {name: matrices[ALGORITHMS[name].needs_scaling] for name in NAMES}
    scores = {name: cross_validate(FoldScorer(folds=parts[name], algorithm=name, problem_type=BINARY, seed=study.seed)) for name in NAMES}
    leader = max(scores.values(), key=lambda score: score.mean)
    near = [name for name in NAMES if scores[name].mean >= leader.mean - leader.std / math.sqrt(folds)]
    best = max(near, key=lambda name: (ALGORITHMS[name].interpretability, scores[name].mean))
    baseline = {"constant": 0.5, "linear": scores["logistic_regression"].mean}
    return Chosen(name=best, scores=scores, baseline=baseline, folds=parts[best])


def tune(study: Study, chosen: Chosen, settings: dict[str, Any], *, trials: int) -> tuple[SearchResult, list[Any]]:
    """TPE with hyperband over the folds, in memory; the defaults go first, each trial has its own seed, as in E2I."""
    presets = settings["search_space_presets"]
    space = presets.get(f"{chosen.name}_classifier") or presets[chosen.name]
    kinds = {name: getattr(optuna.distributions, f"{spec.pop('type').title()}Distribution") for name, spec in space.items()}
    distributions = {name: kinds[name](**spec) for name, spec in space.items()}
    defaults = ALGORITHMS[chosen.name].defaults
    scorer = FoldScorer(folds=chosen.folds, algorithm=chosen.name, problem_type=BINARY, seed=study.seed)
    folds = len(chosen.folds)
    pruner = optuna.pruners.HyperbandPruner(max_resource=folds, **settings["pruner"]["hyperband"])
    search = optuna.create_study(study_name="search", direction="maximize", pruner=pruner)
    search.enqueue_trial({name: defaults[name] for name in space if name in defaults})
    startup = settings["sampler"]["tpe"]["n_startup_trials"]
    for number in range(trials):
        seed = int(np.random.SeedSequence([study.seed, number]).generate_state(1)[0])
        search.sampler = optuna.samplers.TPESampler(n_startup_trials=startup, multivariate=True, seed=seed)
        trial = search.ask(fixed_distributions=distributions)
        scores: list[float] = []
        while len(scores) < folds:
            scores.append(scorer({**defaults, **trial.params}, len(scores)))
            trial.report(math.fsum(scores) / len(scores), len(scores))
            if len(scores) < folds and trial.should_prune():
                search.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            search.tell(trial, math.fsum(scores) / len(scores))
    return search_result(search, chosen.name, defaults), search.trials


def search_result(search: optuna.Study, algorithm: str, defaults: dict[str, Any]) -> SearchResult:
    states = [trial.state.name for trial in search.trials]
    return SearchResult(
        study_name=search.study_name,
        algorithm=algorithm,
        metric="roc_auc",
        best_params={**defaults, **search.best_params},
        best_value=search.best_value,
        best_trial=search.best_trial.number,
        n_complete=states.count("COMPLETE"),
        n_pruned=states.count("PRUNED"),
        n_failed=states.count("FAIL"),
        n_warm_start=0,
        seconds=sum(trial.duration.total_seconds() for trial in search.trials),
    )


def train(study: Study, prepared: Prepared, algorithm: str, params: dict[str, Any]) -> tuple[FittedModel, float]:
    """Fit on train; validation stops, calibrates and sets the threshold."""
    started = time.perf_counter()
    validation = prepared.parts["validation"]
    model = fit(algorithm, prepared.parts["train"], params=params, **prepared.fits, validation=validation)
    y, score = target_values(validation[study.prediction.target], BINARY), model.raw_score(validation)
    calibration = fit_calibration(y, score, seed=study.seed)
    model = model.with_calibration(calibration, threshold=choose_threshold(y, calibration.apply(score)))
    return model, time.perf_counter() - started


def judge_model(study: Study, prepared: Prepared, model: FittedModel, folder: Path) -> Judged:
    """Test with intervals, train and validation as points, the baseline on the same rows, fairness, curves."""
    asked, test = study.prediction, prepared.parts["test"]
    y, p = target_values(test[asked.target], BINARY), model.predict(test)

    def points(part: pl.DataFrame) -> dict[str, float]:
        return point_metrics(target_values(part[asked.target], BINARY), model.predict(part), problem_type=BINARY, threshold=model.threshold)

    path = folder / "curves.json"
    path.write_text(json.dumps(curves(y, p).to_dict()), encoding="utf-8")
    decisions = (p >= model.threshold).astype(np.int64)
    people = test[study.unit]
    return Judged(
        metrics=evaluate(y, p, problem_type=BINARY, seed=study.seed, threshold=model.threshold, groups=level_codes(people)[0]),
        train=points(prepared.parts["train"]),
        validation=points(prepared.parts["validation"]),
        baseline=point_metrics(y, baseline(study, prepared, model), problem_type=BINARY),
        fairness={name: fairness(y, decisions, test[name], people=people).to_dict() for name in asked.protected},
        curves=path,
    )


def baseline(study: Study, prepared: Prepared, model: FittedModel) -> Any:
    """What the simple rule says of test: the linear model with its defaults, or, for a linear model, the mean of train."""
    rows, test = prepared.parts["train"], prepared.parts["test"]
    if model.algorithm == "logistic_regression":
        return np.full(test.height, target_values(rows[study.prediction.target], BINARY).mean())
    return fit("logistic_regression", rows, params={}, **prepared.fits).predict(test)


def log(
    study: Study,
    prepared: Prepared,
    chosen: Chosen,
    searched: tuple[SearchResult, list[Any]],
    fitted: tuple[FittedModel, float],
    *,
    judged: Judged,
    state: Path,
) -> TrainedModel:
    """Two runs with parameters and metrics, the trials as nested runs, curves, the model with its signature, a registered version."""
    (search, trials), (model, seconds), name = searched, fitted, f"lean_{study.name}_{chosen.name}"
    mlflow.set_tracking_uri(f"sqlite:///{state.absolute() / 'mlflow.db'}")
    location = (state.absolute() / "mlartifacts").as_uri()
    client = mlflow.MlflowClient()
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    with mlflow.start_run(experiment_id=client.create_experiment(f"selection_{stamp}", location)):
        mlflow.log_params({"selected": chosen.name, "metric": "roc_auc"})
        scores = {f"cv_{name}": score.mean for name, score in chosen.scores.items()}
        mlflow.log_metrics({**scores, **{f"baseline_{name}": value for name, value in chosen.baseline.items()}})
    experiment = client.create_experiment(f"training_{stamp}", location)
    with mlflow.start_run(experiment_id=experiment, tags={"data_sha256": prepared.sha256}) as run:
        told = {name: getattr(model, name) for name in ("algorithm", "framework", "threshold", "training_samples", "seed")}
        told |= {"calibration": model.calibration.method, "features": len(model.features)}
        mlflow.log_params({f"hp_{name}": value for name, value in model.params.items()} | told)
        mlflow.log_metrics(metric_values(judged, search, seconds))
        mlflow.log_artifact(str(judged.curves))
        for trial in trials:
            log_trial(client, experiment, run.info.run_id, trial)
        logged = log_model(model, prepared, name=name)
    success = judge(study.success.model_dump(exclude_none=True), judged.metrics, baseline=judged.baseline)
    if all(result.met for result in success.values()):
        client.set_registered_model_alias(name, "staging", logged.registered_model_version)
    return TrainedModel(
        algorithm=model.algorithm,
        framework=model.framework,
        hyperparameters=dict(model.params),
        features=model.features,
        model_ref=logged.model_uri,
        model_sha256="",
        training_samples=prepared.splits.rows["train"],
        threshold=model.threshold,
        calibration=model.calibration.method,
        epochs=model.epochs,
        duration_s=seconds,
        metrics=judged.metrics,
        train_metrics=judged.train,
        validation_metrics=judged.validation,
        baseline_metrics=judged.baseline,
        fairness=judged.fairness,
        success=success,
        mlflow_run_id=run.info.run_id,
        model_uri=logged.model_uri,
        training_run_id=None,
        curves_ref=str(judged.curves),
    )


def metric_values(judged: Judged, search: SearchResult, seconds: float) -> dict[str, float]:
    values = {name: metric.value for name, metric in judged.metrics.items()}
    values |= {f"{name}_low": metric.low for name, metric in judged.metrics.items() if metric.low is not None}
    values |= {f"{name}_high": metric.high for name, metric in judged.metrics.items() if metric.high is not None}
    for prefix, found in (("train", judged.train), ("validation", judged.validation), ("baseline", judged.baseline)):
        values |= {f"{prefix}_{name}": value for name, value in found.items()}
    for attribute, measures in judged.fairness.items():
        values |= {f"fairness_{attribute}_{name}": value for name, value in measures.items() if "[" not in name}
    return values | {"duration_seconds": seconds, "search_seconds": search.seconds, "search_best_value": search.best_value}


def log_trial(client: mlflow.MlflowClient, experiment: str, parent: str, trial: Any) -> None:
    start, end = (round(moment.timestamp() * 1000) for moment in (trial.datetime_start, trial.datetime_complete))
    tags = {"mlflow.parentRunId": parent}
    nested = client.create_run(experiment, start_time=start, tags=tags, run_name=f"trial {trial.number}").info.run_id
    metrics = [Metric("intermediate", value, end, step) for step, value in trial.intermediate_values.items()]
    metrics += [Metric("value", trial.value, end, 0)] if trial.state.name == "COMPLETE" else []
    client.log_batch(nested, metrics=metrics, params=[Param(f"hp_{name}", str(value)) for name, value in trial.params.items()])
    client.set_terminated(nested, TRIAL_STATUS[trial.state.name], end_time=end)


def log_model(model: FittedModel, prepared: Prepared, *, name: str) -> Any:
    rows = prepared.parts["train"].select(model.features).head(5)
    needs = ("mlflow", "numpy", "pandas", "scikit-learn", "xgboost", "lightgbm")
    return mlflow.sklearn.log_model(
        Pipeline([("preprocess", model.preprocessor), ("estimate", model.estimator)]),
        name="model",
        signature=infer_signature(rows.to_pandas(), model.predict(rows)),
        input_example=rows.to_pandas(),
        pip_requirements=[f"{package}=={version(package)}" for package in needs],
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
        registered_model_name=name,
    )


def write(
    study: Study, prepared: Prepared, modelled: tuple[TrainedModel, SearchResult, Explanation], *, finding: Any, folder: Path
) -> reports.StudyReport:
    trained, search, explanation = modelled
    report = reports.StudyReport(
        study=study.name,
        status="completed",
        run_id=folder.name,
        experiment_id=None,
        trace_id=None,
        synthetic=study.data.source == "synthetic",
        created_at=datetime.now(UTC),
        description=study.description,
        brand=study.brand,
        data=reports.DataSummary(rows=prepared.table.height, columns=prepared.table.width, sha256=prepared.sha256),
        qc=reports.QCSummary.of(prepared.qc),
        splits=prepared.splits,
        model=reports.ModelSummary(target=study.prediction.target, problem_type=BINARY, trained=trained, search=search),
        explanation=reports.ExplanationSummary(explanation=explanation),
        effect=reports.EffectSummary(treatment=study.effect.treatment, outcome=study.effect.outcome, finding=finding),
        timings_s=TIMINGS,
    )
    evidence = reports.ReportEvidence(curves_ref=trained.curves_ref, shap_ref=explanation.values_ref, overlap=finding.overlap)
    HtmlReportWriter().write_report(report, evidence, folder)
    return report


if __name__ == "__main__":
    main()
