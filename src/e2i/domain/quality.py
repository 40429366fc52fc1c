"""What the quality gate found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from e2i.domain.foreign_errors import without_words
from e2i.errors import E2IError

QCStatus = Literal["passed", "warning", "failed", "skipped"]
Severity = Literal["blocking", "warning", "info"]
GATE_SCORE = 0.80
SCORE_WEIGHTS = {"completeness": 0.25, "validity": 0.25, "consistency": 0.20, "uniqueness": 0.15, "timeliness": 0.15}
FEATURE_EXCLUDING_CHECKS = frozenset({"date_as_text"})
"""a warning of one of these checks takes its column out of the features"""
LEAKAGE_CHECKS = frozenset(
    {
        "target_copy",
        "target_near_copy",
        "target_suspect",
        "target_as_feature",
        "missingness_leak",
        "after_event_column",
        "date_after_event",
        "identifier_feature",
        "id_across_splits",
        "group_across_splits",
        "split_date_violation",
    }
)
"""findings which say that information reached the features that must not"""


@dataclass(frozen=True, kw_only=True)
class QCIssue:
    """One finding. `check` is a stable snake_case code; `advice` says how to mend the data or the study file."""

    check: str
    severity: Severity
    detail: str
    advice: str
    column: str | None = None
    value: float | None = None
    threshold: float | None = None


def crashed_check(name: str, error: Exception) -> QCIssue:
    """A check that did not end says nothing about the data, so it blocks. Words that are not ours may name cells and are not repeated."""
    told = str(error) if isinstance(error, E2IError) else without_words(error)
    return QCIssue(
        check="check_crashed",
        severity="blocking",
        detail=f"the check {name!r} did not end: {told}",
        advice="The data were not judged. Report this as a fault of E2I, with the study file.",
    )


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One expectation or schema check that ran: `family` is one of the five score families or `accuracy`."""

    suite: str
    expectation: str
    family: str
    passed: bool
    column: str | None = None
    observed: str | None = None
    unexpected_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class QCReport:
    """Scores are in [0, 1]; `score` is their weighted mean (see SCORE_WEIGHTS), None when a check crashed."""

    report_id: str
    table: str
    status: QCStatus
    score: float | None
    scores: dict[str, float]
    issues: tuple[QCIssue, ...]
    checks: tuple[CheckResult, ...]
    rows: int
    columns: int
    validated_at: datetime
    data_sha256: str

    @property
    def blocking(self) -> tuple[QCIssue, ...]:
        """The findings that stop the run."""
        return tuple(issue for issue in self.issues if issue.severity == "blocking")

    @property
    def success_rate(self) -> float | None:
        """Share of the rules that ran and passed, in 0-1; None when none ran."""
        return sum(check.passed for check in self.checks) / len(self.checks) if self.checks else None

    @property
    def leakage(self) -> tuple[QCIssue, ...]:
        """The blocking findings that are leakage."""
        return tuple(issue for issue in self.blocking if issue.check in LEAKAGE_CHECKS)

    @property
    def gate_passed(self) -> bool:
        """True only when every check ran, none blocks, and the score reaches GATE_SCORE."""
        return self.status in ("passed", "warning") and not self.blocking and self.score is not None and self.score >= GATE_SCORE


@dataclass(frozen=True, kw_only=True)
class FeatureBaseline:
    """Train-only statistics of one column; numbers for numeric columns, `levels` (share by value) otherwise."""

    column: str
    missing_share: float
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    maximum: float | None = None
    levels: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class BaselineMetrics:
    """Statistics of the train split alone; drift is measured against them later."""

    training_samples: int
    features: tuple[FeatureBaseline, ...]
    target_rate: float | None
    target_mean: float | None
    correlations: dict[str, dict[str, float]]
    computed_at: datetime
