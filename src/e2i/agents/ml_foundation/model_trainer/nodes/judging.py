"""Judge a fitted model: test with intervals, once; train and validation as points. Runs in the worker process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from e2i.agents.ml_foundation.model_trainer.state import FitResult, Judgement
from e2i.domain.experiments import ProblemType
from e2i.ml.algorithms import LINEAR
from e2i.ml.columns import FloatArray, level_codes, target_values
from e2i.ml.evaluation import curves, evaluate, point_metrics
from e2i.ml.fairness import fairness
from e2i.ml.training import FittedModel, fit
from e2i.ports.models import ModelStore
from e2i.whole_files import replace_text


@dataclass(frozen=True, kw_only=True)
class JudgeOrder:
    """What to judge by."""

    target: str
    features: tuple[str, ...]
    problem_type: ProblemType
    protected: tuple[str, ...]
    people: str | None
    group: str | None
    seed: int
    curves_path: str


def judge_model(
    train: pl.DataFrame, validation: pl.DataFrame, test: pl.DataFrame, fitted: FitResult, *, order: JudgeOrder, store: ModelStore
) -> Judgement:
    """Metrics with intervals, fairness by protected attribute, and the curves for the report."""
    model = store.load(Path(fitted.folder), expected_digest=fitted.digest)
    y = target_values(test[order.target], order.problem_type)
    p = model.predict(test)
    groups = level_codes(test[order.group])[0] if order.group is not None else None
    is_class = order.problem_type == "binary_classification"
    if is_class:
        replace_text(Path(order.curves_path), json.dumps(curves(y, p).to_dict()))
    return Judgement(
        metrics=evaluate(y, p, problem_type=order.problem_type, seed=order.seed, threshold=model.threshold, groups=groups),
        train_metrics=_points(model, train, order),
        validation_metrics=_points(model, validation, order),
        baseline_metrics=point_metrics(y, _baseline(model, train, test, order), problem_type=order.problem_type),
        fairness=_fairness(model, test, order) if is_class else {},
        curves_path=order.curves_path if is_class else None,
    )


def _baseline(model: FittedModel, train: pl.DataFrame, test: pl.DataFrame, order: JudgeOrder) -> FloatArray:
    """What the simple rule says of test: a linear model with its defaults; for a linear model, the mean of train for everybody."""
    if model.algorithm == LINEAR[order.problem_type]:
        return np.full(test.height, target_values(train[order.target], order.problem_type).mean())
    rule = fit(
        LINEAR[order.problem_type], train, order.target, {}, problem_type=order.problem_type, features=order.features, seed=order.seed
    )
    return rule.predict(test)


def _points(model: FittedModel, frame: pl.DataFrame, order: JudgeOrder) -> dict[str, float]:
    y = target_values(frame[order.target], order.problem_type)
    return point_metrics(y, model.predict(frame), problem_type=order.problem_type, threshold=model.threshold)


def _fairness(model: FittedModel, test: pl.DataFrame, order: JudgeOrder) -> dict[str, dict[str, float]]:
    y = target_values(test[order.target], order.problem_type)
    decisions = model.decide(test)
    people = test[order.people] if order.people is not None else None
    return {name: fairness(y, decisions, test[name], people=people).to_dict() for name in order.protected}
