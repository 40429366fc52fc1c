"""The only place where ports meet adapters. Importing it loads no vendor."""

from __future__ import annotations

from e2i.bootstrap.observing import observing, retention, ship, span_records
from e2i.bootstrap.operations import current_migration, doctor, down, status, up, upgrade_database, verify_audit
from e2i.bootstrap.platform import Platform
from e2i.bootstrap.study import BUNDLED_STUDY, run_study

__all__ = [
    "BUNDLED_STUDY",
    "Platform",
    "current_migration",
    "doctor",
    "down",
    "observing",
    "retention",
    "run_study",
    "ship",
    "span_records",
    "status",
    "up",
    "upgrade_database",
    "verify_audit",
]
