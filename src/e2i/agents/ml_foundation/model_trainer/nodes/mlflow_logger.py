"""What an experiment logs: parameters with `hp_`, metrics, trials as nested runs, curves, the model itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from e2i.agents.ml_foundation.model_trainer.state import READER, Deps, FitResult, Judgement, State
from e2i.domain.experiments import SearchResult
from e2i.ml.features import apply_features
from e2i.ports.models import StoredModel

EXAMPLE_ROWS = 5
_UNFIT = re.compile(r"[^\w .:/-]")
"""characters of a column's name that a metric's name may not have"""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Ids that the tracker confirmed; None while it is down."""

    run_id: str | None
    model_uri: str | None


def run_key(run_id: str) -> str:
    """Our id of the training run in the tracker."""
    return f"{run_id}/{READER}"


def metric_values(judgement: Judgement, fitted: FitResult, search: SearchResult) -> dict[str, float]:
    """Test metrics with their bounds, train and validation with a prefix, fairness, duration and epochs."""
    values = {name: metric.value for name, metric in judgement.metrics.items()}
    values |= {f"{name}_low": m.low for name, m in judgement.metrics.items() if m.low is not None}
    values |= {f"{name}_high": m.high for name, m in judgement.metrics.items() if m.high is not None}
    values |= {f"train_{name}": value for name, value in judgement.train_metrics.items()}
    values |= {f"validation_{name}": value for name, value in judgement.validation_metrics.items()}
    values |= {f"baseline_{name}": value for name, value in judgement.baseline_metrics.items()}
    for attribute, measures in judgement.fairness.items():
        values |= {f"fairness_{_UNFIT.sub('_', attribute)}_{name}": value for name, value in measures.items() if "[" not in name}
    values |= {"duration_seconds": fitted.seconds, "search_seconds": search.seconds, "search_best_value": search.best_value}
    return values | ({"epochs": float(fitted.epochs)} if fitted.epochs is not None else {})


async def log_run(state: State, deps: Deps, *, fitted: FitResult, judgement: Judgement, search: SearchResult) -> Logged:
    """One run, idempotent by its key; everything goes through the outbox, so it also arrives when the tracker is down now."""
    experiment = f"e2i_{READER}_{state.scope.experiment_id}"
    tags = {
        "e2i.run_id": state.run_id,
        "e2i.agent": READER,
        "e2i.data_sha256": state.qc.data_sha256,
        "e2i.model_sha256": fitted.digest,
        "e2i.registry_id": state.candidate.registry_id,
    }
    example = apply_features(deps.frames.read_split("train", reader=READER, purpose="example"), state.plan).head(EXAMPLE_ROWS)
    async with deps.tracker.start_run(experiment_name=experiment, run_name=state.run_id, key=run_key(state.run_id), tags=tags) as run:
        await run.log_params({f"hp_{name}": value for name, value in fitted.params.items()})
        await run.log_params(
            {
                "algorithm": state.selection.primary.algorithm,
                "framework": fitted.framework,
                "threshold": fitted.threshold,
                "calibration": fitted.calibration,
                "imbalance": state.imbalance,
                "training_samples": state.splits.rows["train"],
                "features": len(state.plan.selected),
                "seed": state.seed,
            }
        )
        await run.log_metrics(metric_values(judgement, fitted, search))
        if judgement.curves_path is not None:
            await run.log_artifact(Path(judgement.curves_path))
        await deps.tracker.log_trials(run, state.trials)
        uri = await run.log_model(StoredModel(folder=Path(fitted.folder), digest=fitted.digest), "model", example=example)
        mlflow_id = await deps.tracker.get_or_create_experiment(experiment)
        if mlflow_id is not None:
            await deps.experiments.set_mlflow_id(state.scope.experiment_id, mlflow_id)
        return Logged(run_id=run.run_id, model_uri=uri)
