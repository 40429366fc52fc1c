"""Fit on train; stop, calibrate and choose the threshold on validation. Runs in the worker process."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from e2i.agents.ml_foundation.model_trainer.state import FitResult
from e2i.domain.experiments import ProblemType
from e2i.ml.calibration import Calibration, fit_calibration
from e2i.ml.columns import target_values
from e2i.ml.evaluation import choose_threshold
from e2i.ml.features import FeaturePlan, within_row
from e2i.ml.training import fit
from e2i.ports.models import ModelStore


@dataclass(frozen=True, kw_only=True)
class FitOrder:
    """What to fit and where to put it."""

    algorithm: str
    params: dict[str, float | int | str | bool | None]
    target: str
    plan: FeaturePlan
    problem_type: ProblemType
    seed: int
    folder: str


def fit_and_save(train: pl.DataFrame, validation: pl.DataFrame, order: FitOrder, *, store: ModelStore) -> FitResult:
    """The final fit with the best parameters, saved as files with a digest."""
    started = time.perf_counter()
    model = fit(
        order.algorithm,
        train,
        order.target,
        order.params,
        problem_type=order.problem_type,
        features=order.plan.selected,
        seed=order.seed,
        validation=validation,
    )
    calibration, threshold = Calibration(), None
    if order.problem_type == "binary_classification":
        y = target_values(validation[order.target], order.problem_type)
        score = model.raw_score(validation)
        calibration = fit_calibration(y, score, seed=order.seed)
        threshold = choose_threshold(y, calibration.apply(score))
    model = replace(model, calibration=calibration, threshold=threshold, steps=within_row(order.plan))
    digest = store.save(model, Path(order.folder))
    return FitResult(
        folder=order.folder,
        digest=digest,
        framework=model.framework,
        params=dict(model.params),
        epochs=model.epochs,
        calibration=calibration.method,
        threshold=threshold,
        seconds=time.perf_counter() - started,
    )
