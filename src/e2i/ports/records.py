"""What is written down, by whom it is needed; storage implements these on PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2i.domain.evidence import CausalFinding, ProvenEffect
    from e2i.domain.experiments import Explanation, ModelVersion, ScopeSpec, SearchResult, Stage, TrainedModel
    from e2i.domain.quality import QCReport
    from e2i.domain.runs import AuditEntry, OutboxMessage, StepRecord, StudyRun
    from e2i.domain.study import Study


class ExperimentRecords(Protocol):
    """ml_experiments."""

    async def save(self, scope: ScopeSpec, *, study: Study, created_by: str) -> str:
        """Insert or update by scope.experiment_id (the experiment_name); returns the row's uuid as text."""
        ...

    async def set_mlflow_id(self, experiment_id: str, mlflow_experiment_id: str) -> None:
        """Link to MLflow's experiment."""
        ...


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A completed training run, for history."""

    algorithm: str
    problem_type: str
    metrics: dict[str, float]
    completed_at: datetime


class TrainingRunRecords(Protocol):
    """ml_training_runs."""

    async def start(
        self, *, experiment_id: str, run_name: str, algorithm: str, training_samples: int, feature_names: Sequence[str], key: str
    ) -> str:
        """Insert, idempotent by `key`; returns the row's uuid."""
        ...

    async def finish(
        self,
        training_run_id: str,
        *,
        model: TrainedModel,
        search: SearchResult | None,
        samples: Mapping[str, int],
        outbox: Sequence[OutboxMessage] = (),
    ) -> None:
        """Complete the row; outbox messages are written in the same transaction."""
        ...

    async def fail(self, training_run_id: str, error: str) -> None:
        """Mark as failed, by the row's uuid or by its key. Raises NotFound."""
        ...

    async def history(self, *, problem_type: str, limit: int = 200) -> list[PastRun]:
        """Completed runs of the same kind of problem, newest first; empty when there is no history."""
        ...


class ModelRecords(Protocol):
    """ml_model_registry; promotion keeps one champion per model."""

    async def register_model_candidate(
        self,
        *,
        experiment_id: str,
        model_name: str,
        algorithm: str,
        hyperparameters: Mapping[str, Any],
        key: str,
        mlflow_run_id: str | None,
        mlflow_model_uri: str | None = None,
        training: TrainedModel | None = None,
    ) -> ModelVersion:
        """A new version in `development`, idempotent by `key`; the same key with `training` completes the row."""
        ...

    async def get(self, registry_id: str) -> ModelVersion:
        """Raises NotFound."""
        ...

    async def transition(self, registry_id: str, *, to: Stage, actor: str, reason: str) -> ModelVersion:
        """Move along ALLOWED_PROMOTIONS with an audit entry in one transaction. Raises Conflict when the map forbids it."""
        ...

    async def promote_champion(self, registry_id: str, *, actor: str, reason: str) -> ModelVersion:
        """Make it the champion of its model name in one transaction; the previous champion steps down."""
        ...

    async def champion(self, model_name: str) -> ModelVersion | None:
        """The champion, if there is one."""
        ...

    async def versions(self, model_name: str | None = None) -> list[ModelVersion]:
        """All versions, newest first."""
        ...


class QualityRecords(Protocol):
    """ml_data_quality_reports."""

    async def save(self, report: QCReport, *, study: Study, split: str) -> str:
        """Insert by report_id; returns the row's uuid."""
        ...


class ExplanationRecords(Protocol):
    """ml_shap_analyses."""

    async def save(self, explanation: Explanation, *, registry_id: str, split: str) -> str:
        """Insert, or replace the analysis of this model on this split; returns the row's uuid."""
        ...


class EvidenceRecords(Protocol):
    """causal_paths and causal_validations."""

    async def save(self, finding: CausalFinding, *, study: Study, run_id: str, data_sha256: str, trace_id: str | None) -> str:
        """The finding with its tests, also a refused one; a repeated step replaces what it wrote. Returns the path's id."""
        ...

    async def proven(self, outcome: str, *, brand: str | None) -> list[ProvenEffect]:
        """The newest effect on `outcome` that passed the gate, per cause; empty when nothing is proven."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A past search worth starting from; `similarity` in [0, 1]."""

    pattern_id: str
    params: dict[str, Any]
    value: float
    similarity: float


class SearchRecords(Protocol):
    """ml_hpo_studies and hpo_pattern_memory."""

    async def save_study(
        self, result: SearchResult, *, experiment_id: str, problem_type: str, space: Mapping[str, Any], sampler: str, pruner: str
    ) -> None:
        """Insert or update by study_name."""
        ...

    async def remember(self, result: SearchResult, *, problem_type: str, meta_features: Mapping[str, float]) -> None:
        """Keep the best parameters as a pattern, one per study_name."""
        ...

    async def similar(
        self, *, algorithm: str, problem_type: str, meta_features: Mapping[str, float], minimum: float, limit: int
    ) -> list[Pattern]:
        """Patterns by cosine similarity of standardised meta-features, best first."""
        ...


class DeploymentRecords(Protocol):
    """ml_deployments."""

    async def save(self, *, registry_id: str, name: str, environment: str, status: str, deployed_by: str, config: Mapping[str, Any]) -> str:
        """Insert, or update this model's current deployment under the name and environment; returns the row's uuid."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepSummary:
    """Recorded steps of one agent in one window, from real rows only; latencies in ms."""

    agent: str
    tier: str
    steps: int
    errors: int
    avg_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    input_tokens: int
    output_tokens: int


class RunRecords(Protocol):
    """study_runs and agent_steps."""

    async def claim(self, run: StudyRun) -> StudyRun:
        """Start `run`, or take over an unfinished run with the same fingerprint whose process is gone.

        Holds a session lock on the fingerprint until `finish` or the end of the process. Raises Conflict when a live process runs it.
        """
        ...

    async def finish(self, run: StudyRun) -> None:
        """Write the end and release the lock."""
        ...

    async def record_step(self, step: StepRecord) -> None:
        """Append."""
        ...

    async def summarize(self, run_id: str) -> list[StepSummary]:
        """A run's steps by agent; empty when nothing was recorded."""
        ...

    async def recent(self, limit: int = 20) -> list[StudyRun]:
        """Newest first; a running one whose process is gone is `interrupted`."""
        ...


class AuditTrail(Protocol):
    """The audit chain."""

    async def append(self, entry: AuditEntry) -> AuditEntry:
        """Add a link; committed and durable when this returns."""
        ...


class Outbox(Protocol):
    """Writes that foreign systems owe us."""

    async def append(self, messages: Sequence[OutboxMessage]) -> list[int]:
        """Durable when this returns."""
        ...

    async def pending(self, target: str, *, limit: int = 100, key: str | None = None) -> list[OutboxMessage]:
        """Oldest first; a message behind a failed one of the same key waits."""
        ...

    async def mark_delivered(self, message_id: int, result: Mapping[str, Any]) -> None:
        """After the foreign system has confirmed; keeps `result` (for instance the foreign id)."""
        ...

    async def mark_failed(self, message_id: int, error: str, *, quarantine: bool) -> None:
        """Count the attempt; a quarantined message blocks nothing any more."""
        ...

    async def results(self, target: str, key: str) -> dict[str, Any]:
        """Merged results of the delivered messages of a key (`run_id`, `model_uri`, `version` …)."""
        ...

    async def counts(self, target: str) -> dict[str, int]:
        """`pending`, `delivered`, `quarantined`."""
        ...
