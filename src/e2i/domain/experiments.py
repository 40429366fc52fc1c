"""Scope, splits, models and their metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProblemType = Literal["binary_classification", "regression"]
Split = Literal["train", "validation", "test", "holdout"]
Stage = Literal["development", "staging", "shadow", "production", "archived", "deprecated"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "holdout")
SPLIT_SHARES: dict[Split, float] = {"train": 0.60, "validation": 0.20, "test": 0.15, "holdout": 0.05}
ALLOWED_PROMOTIONS: dict[Stage, tuple[Stage, ...]] = {
    "development": ("staging", "archived"),
    "staging": ("shadow", "archived"),
    "shadow": ("production", "archived"),
    "production": ("archived",),
    "archived": ("deprecated",),
    "deprecated": (),
}


@dataclass(frozen=True, kw_only=True)
class ScopeSpec:
    """The study as a machine-checkable learning problem."""

    experiment_id: str
    problem_type: ProblemType
    prediction_target: str
    required_features: tuple[str, ...]
    excluded_features: dict[str, str]
    """column -> why it may not be a feature"""
    minimum_samples: int
    success_criteria: dict[str, float]
    """names as in SuccessSpec"""
    horizon_days: int | None
    brand: str | None
    region: str | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FrameRef:
    """A frame kept beside the run, never inside a state."""

    name: str
    path: str
    rows: int
    columns: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How rows were divided. `gap_rows` were dropped between time-ordered splits."""

    strategy: Literal["chronological", "random_stratified", "random", "grouped"]
    rows: dict[str, int]
    boundaries: dict[str, str]
    gap_days: int
    gap_rows: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """A metric with its 95 % interval (percentile bootstrap); bounds are None where none is defined."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCandidate:
    """An algorithm on the bench: k-fold score on train, mean and standard deviation over folds."""

    algorithm: str
    framework: str
    defaults: dict[str, float | int | str | bool | None]
    search_space: dict[str, dict[str, object]]
    cv_mean: float
    cv_std: float
    fit_seconds: float
    rationale: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which algorithm goes on, and why. `baseline` is the score of the rule that a model must beat."""

    primary: ModelCandidate
    alternatives: tuple[ModelCandidate, ...]
    metric: str
    baseline: dict[str, float]
    history: str
    rationale: str
    experiment_name: str
    mlflow_run_id: str | None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What hyperparameter search found."""

    study_name: str
    algorithm: str
    metric: str
    best_params: dict[str, float | int | str | bool | None]
    best_value: float
    best_trial: int
    n_complete: int
    n_pruned: int
    n_failed: int
    n_warm_start: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CriterionResult:
    """A success criterion against the test split."""

    required: float
    value: float | None
    met: bool


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A fitted model, where it is kept, and how good it is on data that fitting never saw."""

    algorithm: str
    framework: str
    hyperparameters: dict[str, float | int | str | bool | None]
    features: tuple[str, ...]
    model_ref: str
    """path of the model folder beside the run"""
    model_sha256: str
    training_samples: int
    threshold: float | None
    calibration: str | None
    epochs: int | None
    duration_s: float
    metrics: dict[str, MetricValue]
    train_metrics: dict[str, float]
    validation_metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    fairness: dict[str, dict[str, float]]
    success: dict[str, CriterionResult]
    mlflow_run_id: str | None
    model_uri: str | None
    training_run_id: str | None
    curves_ref: str | None = None
    """path of a JSON file with roc, pr and calibration points for the report"""


@dataclass(frozen=True, kw_only=True)
class FeatureImportance:
    """Mean absolute contribution; `direction` is the sign of the feature's association with its own contribution."""

    feature: str
    importance: float
    direction: Literal["positive", "negative", "mixed"]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """SHAP of the model on the data."""

    method: str
    sample_size: int
    base_value: float
    top_features: tuple[FeatureImportance, ...]
    interactions: tuple[tuple[str, str, float], ...]
    additivity_error: float
    seconds: float
    values_ref: str | None
    """path of an npz with `values` (n, k), `data` (n, k) and `features` (k,) for plots"""
    narrative: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A model in the registry."""

    registry_id: str
    name: str
    version: str
    stage: Stage
    is_champion: bool
    mlflow_run_id: str | None
    model_uri: str | None
