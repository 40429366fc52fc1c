"""`examine` and `overview`: what is said to be in order is, and what is not says how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from e2i import bootstrap
from e2i.app.health import Check, examine, overview
from e2i.domain.runs import AuditEntry, StudyRun
from e2i.ports.records import AuditTrail
from tracking import AWAY

MIGRATIONS = Path(bootstrap.__file__).parent.parent / "storage" / "sql" / "migrations"


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.check: check for check in checks}


async def test_a_new_platform_is_in_order(opened: Callable[..., Any]) -> None:
    async with opened() as (_, platform):
        found = by_name(await examine(bootstrap.operations.health_ports(platform)))
    assert list(found) == ["database", "schema", "disk", "audit", "spans to postgres", "mlflow"]
    assert all(check.ok and check.advice is None for check in found.values())
    assert found["mlflow"].detail == "0 delivered, 0 waiting, 0 refused"
    assert found["spans to postgres"].detail == "0 delivered, 0 waiting, 0 sampled out, 0 lost"


async def test_a_disk_that_is_nearly_full_is_told(opened: Callable[..., Any]) -> None:
    async with opened() as (_, platform):
        ports = replace(bootstrap.operations.health_ports(platform), free_bytes=lambda: 100 * 1024**2)
        disk = by_name(await examine(ports))["disk"]
    assert (disk.ok, disk.detail) == (False, "100 MB free")
    assert disk.advice is not None
    assert "500 MB" in disk.advice


async def test_an_audit_trail_that_somebody_changed_is_told_with_its_first_bad_entry(
    opened: Callable[..., Any], fresh_database: str
) -> None:
    async with opened() as (_, platform):
        for action in ("one", "two", "three"):
            await platform.records[AuditTrail].append(AuditEntry(actor="a", action=action, subject="s"))
        with psycopg.connect(fresh_database) as connection:
            connection.execute("alter table audit_log disable trigger user")
            connection.execute("update audit_log set actor = 'b' where sequence = 2")
        audit = by_name(await examine(bootstrap.operations.health_ports(platform)))["audit"]
    assert not audit.ok
    assert "entry 2" in audit.detail
    assert audit.advice


async def test_what_waits_for_mlflow_is_told_and_delivered_when_it_is_back(opened: Callable[..., Any]) -> None:
    async with opened(uri=AWAY) as (_, platform):
        async with platform.tracker.start_run(experiment_name="e2i_model_trainer_x", run_name="r", key="r/model_trainer") as run:
            await run.log_metrics({"roc_auc": 0.7})
        away = by_name(await examine(bootstrap.operations.health_ports(platform)))["mlflow"]
        owed = await overview(bootstrap.operations.health_ports(platform))
    assert not away.ok
    assert away.detail.endswith("3 messages wait.")
    assert away.advice
    assert owed["outbox"] == {"pending": 3, "delivered": 0, "quarantined": 0}
    async with opened() as (_, platform):
        back = await examine(bootstrap.operations.health_ports(platform))
        logged = await platform.tracker.search_runs("e2i_model_trainer_x")
    assert by_name(back)["mlflow"].detail == "3 delivered, 0 waiting, 0 refused"
    assert by_name(back)["mlflow"].ok
    assert logged[0]["metrics"] == {"roc_auc": 0.7}


async def test_the_overview_names_the_latest_runs_first(opened: Callable[..., Any]) -> None:
    async with opened() as (ports, platform):
        for day, name in ((1, "early"), (2, "late")):
            started = datetime(2026, 1, day, tzinfo=UTC)
            run = StudyRun(
                run_id=name, study="s", fingerprint=name, status="running", experiment_id=None, trace_id=None, started_at=started
            )
            await ports.runs.claim(run)
            await ports.runs.finish(replace(run, status="blocked", finished_at=started, report_path=f"{name}.html"))
        shown = await overview(bootstrap.operations.health_ports(platform))
    assert [(run["run_id"], run["status"], run["report"]) for run in shown["runs"]] == [
        ("late", "blocked", "late.html"),
        ("early", "blocked", "early.html"),
    ]
    assert shown["schema"] == max(path.stem for path in MIGRATIONS.glob("*.sql"))
