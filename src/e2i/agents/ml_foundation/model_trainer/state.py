"""What the trainer knows and needs."""

from __future__ import annotations

from dataclasses import dataclass

from e2i.domain.experiments import (
    FrameRef,
    MetricValue,
    ModelVersion,
    ScopeSpec,
    SearchResult,
    Selection,
    SplitPlan,
    TrainedModel,
)
from e2i.domain.quality import QCReport
from e2i.ml.features import FeaturePlan
from e2i.ports.compute import Executor, Progress
from e2i.ports.data import FrameStore
from e2i.ports.models import HyperparameterSearch, ModelStore, SearchDefaults, Tracker, TrialRecord
from e2i.ports.records import ExperimentRecords, ModelRecords, TrainingRunRecords

READER = "model_trainer"


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Frames, a worker, search, model files, tracking and records."""

    frames: FrameStore
    compute: Executor
    progress: Progress
    optimizer: HyperparameterSearch
    store: ModelStore
    tracker: Tracker
    experiments: ExperimentRecords
    training_runs: TrainingRunRecords
    models: ModelRecords
    search: SearchDefaults


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A fitted model on disk: choices made on validation, nothing yet known of test."""

    folder: str
    digest: str
    framework: str
    params: dict[str, float | int | str | bool | None]
    epochs: int | None
    calibration: str
    threshold: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What test (and, for comparison, train and validation) said of the model and of the baseline."""

    metrics: dict[str, MetricValue]
    train_metrics: dict[str, float]
    validation_metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    fairness: dict[str, dict[str, float]]
    curves_path: str | None


@dataclass(frozen=True, kw_only=True)
class State:
    """From a passed gate to a judged model."""

    run_id: str
    study_name: str
    scope: ScopeSpec
    qc: QCReport
    splits: SplitPlan
    split_refs: dict[str, FrameRef]
    plan: FeaturePlan
    selection: Selection
    candidate: ModelVersion
    protected: tuple[str, ...]
    people: str | None
    """column that says who a row is about, for small-cell suppression"""
    group: str | None
    n_trials: int | None
    seed: int
    training_run_id: str | None = None
    imbalance: str | None = None
    search: SearchResult | None = None
    trials: tuple[TrialRecord, ...] = ()
    fitted: FitResult | None = None
    judgement: Judgement | None = None
    trained: TrainedModel | None = None
