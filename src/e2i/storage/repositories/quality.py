"""ml_data_quality_reports."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from e2i.domain.quality import LEAKAGE_CHECKS
from e2i.storage.postgres import as_json
from e2i.storage.sql import load

if TYPE_CHECKING:
    from e2i.domain.quality import QCReport
    from e2i.domain.study import Study
    from e2i.storage.postgres import Database

_SQL = load("quality")
_FAMILIES = ("completeness", "validity", "uniqueness", "consistency", "timeliness", "accuracy")


class DataQualityRepository:
    """`QualityRecords` on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, report: QCReport, *, study: Study, split: str) -> str:
        """Insert by `report_id`; the row's uuid. `split` is a data_split_type (`unassigned` for the whole table)."""
        failed = [check for check in report.checks if not check.passed]
        leaks = [asdict(issue) for issue in report.issues if issue.check in LEAKAGE_CHECKS]
        evaluated = len(report.checks)
        row = await self._db.row(
            _SQL["save"],
            key=report.report_id,
            report_name=f"{study.name}.{report.table}",
            suites=", ".join(dict.fromkeys(check.suite for check in report.checks))[:255] or None,
            table=report.table,
            brand=study.brand,
            region=study.region,
            status=report.status,
            score=report.score,
            evaluated=evaluated,
            passed=evaluated - len(failed),
            failed=len(failed),
            success_rate=(evaluated - len(failed)) / evaluated if evaluated else None,
            failed_expectations=as_json([asdict(check) for check in failed]),
            issues=as_json([asdict(issue) for issue in report.issues]),
            **{family: report.scores.get(family) for family in _FAMILIES},
            leakage_detected=bool(leaks),
            leakage_details=as_json(leaks),
            rows=report.rows,
            columns=report.columns,
            data_sha256=report.data_sha256,
            run_by="data_preparer",
            run_at=report.validated_at,
            split=split,
        )
        assert row is not None
        return str(row["id"])
