"""Runs, steps, outbox messages and audit entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

RunStatus = Literal["running", "interrupted", "completed", "blocked", "failed"]
"""`interrupted` is never written: it is what a running one is called whose process is gone; the same command takes it up again"""


class Tier(StrEnum):
    """The six tiers, in order."""

    ML_FOUNDATION = "ml_foundation"
    COORDINATION = "coordination"
    CAUSAL_ANALYTICS = "causal_analytics"
    MONITORING = "monitoring"
    ML_PREDICTIONS = "ml_predictions"
    SELF_IMPROVEMENT = "self_improvement"


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One pass of a study through the chain. `fingerprint` is what must be equal for a run to be resumed."""

    run_id: str
    study: str
    fingerprint: str
    status: RunStatus
    experiment_id: str | None
    trace_id: str | None
    started_at: datetime
    finished_at: datetime | None = None
    report_path: str | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One execution of one step of one agent, as it really happened.

    Tokens are those of the language models that it asked; None when it asked none, or one that does not say.
    """

    run_id: str
    agent: str
    tier: Tier
    step: str
    attempt: int
    status: Literal["success", "error", "timeout", "cancelled"]
    started_at: datetime
    duration_ms: float
    trace_id: str | None = None
    span_id: str | None = None
    error: dict[str, Any] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class OutboxMessage:
    """A write that another system owes us. `key` groups messages of one foreign object; order within a key is kept."""

    target: str
    """`mlflow`"""
    key: str
    operation: str
    payload: dict[str, Any]
    message_id: int | None = None
    attempts: int = 0
    error: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class LedgerRun:
    """A row of ours that has, or should have, a run in MLflow; the model fields only for a row of the registry."""

    key: str
    status: Literal["running", "completed", "failed"]
    run_id: str | None
    model_uri: str | None = None
    model_name: str | None = None
    stage: str | None = None
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One link of the audit chain. `entry_hash` is HMAC-SHA256 over the previous hash and canonical JSON of all columns."""

    actor: str
    action: str
    subject: str
    details: dict[str, Any] = field(default_factory=dict)
    sequence: int | None = None
    occurred_at: datetime | None = None
    previous_hash: str | None = None
    entry_hash: str | None = None
