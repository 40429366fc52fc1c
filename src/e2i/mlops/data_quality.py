"""The quality gate's evidence: Pandera schemas, Great Expectations suites and structural checks over one table.

Scores. Every rule that ran gives the share of values that obey it. A column counts with the worst of its rules in the
family, and the family's score is the mean over columns, so that rules that cannot fail do not lift it. A family
without a rule has no score: its weight is left out and the others are scaled up. Timeliness is one of those unless the
study says on which day the data claim to be current (`data.as_of`): old data that claim nothing are neither fresh nor stale.

Status. `failed` with a blocking finding, below 80 % of rules passed, or when a check crashed; `warning` with a warning or
below 95 %; else `passed`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TypeVar

import polars as pl

from e2i.domain.quality import GATE_SCORE, SCORE_WEIGHTS, CheckResult, QCIssue, QCReport, QCStatus, crashed_check
from e2i.domain.scope import infer_problem_type, judged_column
from e2i.domain.study import Study
from e2i.domain.vocabulary import BUSINESS_METRICS, TABLES
from e2i.mlops.quality_checks import (
    Findings,
    Subject,
    check_columns,
    check_dates,
    check_freshness,
    check_gaps,
    check_rows,
    check_size,
    check_stated_rates,
    check_variation,
    known,
)
from e2i.mlops.quality_findings import study_schema_findings, study_suite_findings, table_schema_findings, table_suite_findings
from e2i.mlops.quality_texts import check_identifiers, check_texts

FAILED_BELOW = 0.80
WARNING_BELOW = 0.95
CHECKS: tuple[Callable[[Subject], Findings], ...] = (
    check_columns,
    check_size,
    check_gaps,
    check_variation,
    check_rows,
    check_dates,
    check_freshness,
    check_identifiers,
    check_texts,
)
_SAID_BY = {"many_gaps": "all_missing_column"}
"""finding -> the stronger one that makes it needless"""
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass
class _Evidence:
    """Collects what checks find."""

    checks: list[CheckResult] = field(default_factory=list)
    issues: list[QCIssue] = field(default_factory=list)
    has_crashed: bool = False

    @property
    def is_blocked(self) -> bool:
        return any(issue.severity == "blocking" for issue in self.issues)

    def take(self, found: Findings) -> None:
        """Add what a check found; a second blocking message about the same column, or the same finding again, is left out."""
        self.checks += found.checks
        for issue in found.issues:
            same = any(other.column == issue.column and other.check in (issue.check, _SAID_BY.get(issue.check)) for other in self.issues)
            named = issue.column is not None and any(other.column == issue.column and other.severity == "blocking" for other in self.issues)
            if not same and not named:
                self.issues.append(issue)

    def crash(self, check: str, error: Exception) -> None:
        """A check that did not end."""
        issue = crashed_check(check, error)
        _log.error("data quality: %s", issue.detail)
        self.has_crashed = True
        self.issues.append(issue)


class DataQualityValidator:
    """Judges a table against a study's roles and, where its name is one, against a domain table's schema and suite.

    Parameters
    ----------
    today : the day after which a date lies in the future; by default the day of the call. A study's `data.as_of` goes first.
    """

    def __init__(self, *, today: date | None = None) -> None:
        self._today = today

    def validate(self, frame: pl.DataFrame, *, study: Study, table: str, data_sha256: str) -> QCReport:
        """See ports.models.QualityValidator.

        Great Expectations is asked only while nothing blocks: what it adds costs seconds and cannot open a closed gate.
        """
        evidence = _Evidence()
        domain = TABLES.get(table)
        subject = _guard(evidence, "roles", lambda: self._subject(frame, study))
        if subject is not None:
            for check in CHECKS:
                _judge(evidence, check.__name__, check, subject)
            _judge(evidence, "pandera:study", study_schema_findings, subject)
        if domain is not None:
            _judge(evidence, f"pandera:{table}", table_schema_findings, frame, table)
            if table == BUSINESS_METRICS.name:
                _judge(evidence, "stated_rates", check_stated_rates, frame)
        if subject is not None and not evidence.is_blocked:
            _judge(evidence, "great_expectations:study", study_suite_findings, subject)
            if domain is not None and domain.suite is not None:
                _judge(evidence, f"great_expectations:{domain.suite}", table_suite_findings, frame, domain.suite)
        return _report(evidence, frame=frame, table=table, data_sha256=data_sha256)

    def _subject(self, frame: pl.DataFrame, study: Study) -> Subject:
        column = judged_column(study)
        levels = known(frame[column]).n_unique() if column in frame.columns else 0
        reference = study.data.as_of or self._today or datetime.now(UTC).date()
        return Subject.of(frame, study=study, problem=infer_problem_type(study, levels), reference=reference)


def _judge(evidence: _Evidence, name: str, check: Callable[..., Findings], *arguments: object) -> None:
    found = _guard(evidence, name, lambda: check(*arguments))
    if found is not None:
        evidence.take(found)


def _guard(evidence: _Evidence, name: str, work: Callable[[], T]) -> T | None:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever a check stumbles over, the gate must close and say which check it was
        evidence.crash(name, error)
        return None


def _report(evidence: _Evidence, *, frame: pl.DataFrame, table: str, data_sha256: str) -> QCReport:
    scores = _scores(evidence.checks)
    score = None if evidence.has_crashed else _weighted(scores)
    passed = [check.passed for check in evidence.checks]
    rate = sum(passed) / len(passed) if passed else 0.0
    if not evidence.is_blocked and (rate < FAILED_BELOW or score is None or score < GATE_SCORE):
        evidence.issues.append(_low(rate, score, scores))
    return QCReport(
        report_id=f"qc_{uuid.uuid4().hex[:12]}",
        table=table,
        status=_status(evidence, rate),
        score=score,
        scores=scores,
        issues=tuple(evidence.issues),
        checks=tuple(evidence.checks),
        rows=frame.height,
        columns=frame.width,
        validated_at=datetime.now(UTC),
        data_sha256=data_sha256,
    )


def _scores(checks: list[CheckResult]) -> dict[str, float]:
    worst: dict[str, dict[str | None, float]] = {}
    for check in checks:
        bad = check.unexpected_share if check.unexpected_share is not None else float(not check.passed)
        columns = worst.setdefault(check.family, {})
        columns[check.column] = min(columns.get(check.column, 1.0), 1 - bad)
    return {family: sum(columns.values()) / len(columns) for family, columns in sorted(worst.items())}


def _weighted(scores: dict[str, float]) -> float | None:
    weights = {family: weight for family, weight in SCORE_WEIGHTS.items() if family in scores}
    total = sum(weights.values())
    return sum(weight * scores[family] for family, weight in weights.items()) / total if total else None


def _status(evidence: _Evidence, rate: float) -> QCStatus:
    if evidence.is_blocked:
        return "failed"
    warned = any(issue.severity == "warning" for issue in evidence.issues)
    return "warning" if warned or rate < WARNING_BELOW else "passed"


def _low(rate: float, score: float | None, scores: dict[str, float]) -> QCIssue:
    worst = min(scores, key=lambda family: scores[family]) if scores else "no family"
    return QCIssue(
        check="low_quality_score",
        severity="blocking",
        detail=f"score {'unknown' if score is None else f'{score:.3f}'} (gate {GATE_SCORE}), {rate:.0%} of the rules passed "
        f"(gate {FAILED_BELOW:.0%}); weakest: {worst}{f' {scores[worst]:.3f}' if scores else ''}.",
        advice="Mend the findings listed as warnings, the largest shares first.",
        value=score,
        threshold=GATE_SCORE,
    )
