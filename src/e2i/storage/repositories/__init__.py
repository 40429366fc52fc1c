"""Records on PostgreSQL, one class per port of `e2i.ports.records`."""

from e2i.storage.repositories.audit import AuditRepository
from e2i.storage.repositories.deployments import DeploymentRepository
from e2i.storage.repositories.experiments import ExperimentRepository
from e2i.storage.repositories.explanations import ShapAnalysisRepository
from e2i.storage.repositories.models import MLModelRegistryRepository
from e2i.storage.repositories.outbox import OutboxRepository
from e2i.storage.repositories.quality import DataQualityRepository
from e2i.storage.repositories.runs import RunRepository
from e2i.storage.repositories.search import HpoRepository
from e2i.storage.repositories.span_retention import SpanRetentionRepository
from e2i.storage.repositories.span_shipments import SpanShipmentRepository
from e2i.storage.repositories.spans import ObservabilitySpanRepository
from e2i.storage.repositories.training_runs import TrainingRunRepository

__all__ = [
    "AuditRepository",
    "DataQualityRepository",
    "DeploymentRepository",
    "ExperimentRepository",
    "HpoRepository",
    "MLModelRegistryRepository",
    "ObservabilitySpanRepository",
    "OutboxRepository",
    "RunRepository",
    "ShapAnalysisRepository",
    "SpanRetentionRepository",
    "SpanShipmentRepository",
    "TrainingRunRepository",
]
