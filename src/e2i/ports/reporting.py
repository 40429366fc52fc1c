"""The report at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from e2i.domain.report import ReportEvidence, StudyReport


class ReportWriter(Protocol):
    """Turns results into files for people and programs."""

    def write_report(self, report: StudyReport, evidence: ReportEvidence, folder: Path) -> tuple[Path, Path]:
        """Write `report.html` and `report.json` atomically; returns their paths."""
        ...
