"""Tracking, tuning, explaining and judging models and data, by role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import polars as pl

    from e2i.domain.experiments import Explanation, ProblemType, SearchResult
    from e2i.domain.quality import QCReport
    from e2i.domain.study import Study
    from e2i.ml.training import FittedModel
    from e2i.ports.compute import Executor


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model that a ModelStore has saved; whoever passes it on need not build it."""

    folder: Path
    digest: str


class TrackedRun(Protocol):
    """One run in the tracker; usable inside its `async with` only."""

    @property
    def key(self) -> str:
        """Our own id of the run; always known, also while the tracker is down."""
        ...

    @property
    def run_id(self) -> str | None:
        """The tracker's id; None until the tracker has confirmed."""
        ...

    async def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; a hyperparameter's name starts with `hp_`."""
        ...

    async def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics; refuses values that are not finite."""
        ...

    async def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file or a folder."""
        ...

    async def log_model(self, model: FittedModel | StoredModel, name: str, *, example: pl.DataFrame) -> str | None:
        """Log a model with signature, input example and digests; its URI, None until the tracker has confirmed."""
        ...


class Tracker(Protocol):
    """Experiment tracking and a registry."""

    async def get_or_create_experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str | None:
        """Id of the experiment `name`; None while the tracker is down."""
        ...

    def start_run(
        self, *, experiment_name: str, run_name: str, key: str, tags: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[TrackedRun]:
        """A run, idempotent by `key`: the same key continues the same run."""
        ...

    async def log_trials(self, parent: TrackedRun, trials: Sequence[TrialRecord]) -> None:
        """Search trials as nested runs, idempotent by parent key and trial number."""
        ...

    async def register_model(self, *, name: str, run: TrackedRun, model_uri: str | None, tags: Mapping[str, str]) -> str | None:
        """A version of registered model `name`, idempotent by run key; None while the tracker is down."""
        ...

    async def transition_model_stage(self, *, name: str, version: str, stage: str) -> None:
        """Mirror a stage of our registry (an alias and a tag)."""
        ...

    async def search_runs(self, experiment_name: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Runs of an experiment: `run_id`, `key`, `status`, `params`, `metrics`, `tags`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of a search."""

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    intermediate: dict[int, float]
    started_ms: int
    finished_ms: int


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What to search. `score_fold(params, fold)` must be picklable; higher is better."""

    study_name: str
    experiment_id: str
    algorithm: str
    problem_type: ProblemType
    metric: str
    space: Mapping[str, Mapping[str, object]]
    defaults: Mapping[str, Any]
    folds: int
    n_trials: int
    seed: int
    meta_features: Mapping[str, float]
    score_fold: Callable[[Mapping[str, Any], int], float]


@dataclass(frozen=True, kw_only=True)
class SearchDefaults:
    """Settings of search and selection that agents need, by problem type and by algorithm."""

    n_trials: int
    metric: dict[str, str]
    folds: dict[str, int]
    spaces: dict[str, dict[str, dict[str, object]]]
    model_name_pattern: str
    """with `{experiment}` and `{algorithm}`"""


class HyperparameterSearch(Protocol):
    """Finds hyperparameters; resumes a search of the same name."""

    async def optimize(
        self, request: SearchRequest, *, executor: Executor, progress: Callable[[int, int, float | None], None]
    ) -> tuple[SearchResult, list[TrialRecord]]:
        """Search. `progress(done, of, best)` is called after each trial. Raises BackendUnavailable."""
        ...


class ModelStore(Protocol):
    """Fitted models as folders of files, never as pickles."""

    def save(self, model: FittedModel, folder: Path) -> str:
        """Write the model; returns its digest (sha256 over the manifest of all files)."""
        ...

    def load(self, folder: Path, *, expected_digest: str) -> FittedModel:
        """Verify every file against `expected_digest` before any of it is parsed. Raises BackendRejected when it is another model."""
        ...


class ModelExplainer(Protocol):
    """Contributions of features to predictions."""

    def explain(self, model: FittedModel, frame: pl.DataFrame, *, folder: Path, seed: int, max_samples: int = 1000) -> Explanation:
        """SHAP values of `model` on rows of `frame`. Raises DataError when contributions do not add up to the prediction."""
        ...


class QualityValidator(Protocol):
    """Runs schemas and suites over a frame."""

    def validate(self, frame: pl.DataFrame, *, study: Study, table: str, data_sha256: str) -> QCReport:
        """The report. A crash inside a check is a blocking issue, never an exception and never a pass."""
        ...


class QualityAlerter(Protocol):
    """Tells people about a report."""

    async def alert(self, report: QCReport) -> None:
        """Send to every configured channel; a channel that fails is reported in the log, not raised."""
        ...
