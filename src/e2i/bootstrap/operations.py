"""What an operator asks for: status, doctor, up, down, migrations, the audit."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from e2i.bootstrap.platform import Platform, check_disk, embedded_server, open_database
from e2i.errors import BackendError, ConfigError, E2IError, StorageError

if TYPE_CHECKING:
    from e2i.app.health import Check, HealthPorts
    from e2i.config import Settings


async def upgrade_database(settings: Settings) -> list[str]:
    """Apply missing migrations; returns their names."""
    from e2i.storage import migrate

    async with open_database(settings) as database:
        return await migrate.upgrade(database)


async def current_migration(settings: Settings) -> str | None:
    """The newest migration that the database has."""
    from e2i.storage import migrate

    async with open_database(settings) as database:
        return await migrate.current(database)


async def verify_audit(settings: Settings) -> dict[str, Any]:
    """`ok`, `entries`, `first_bad_sequence`, `reason`."""
    from dataclasses import asdict

    from e2i.ports.records import AuditTrail

    async with Platform.open(settings) as platform:
        return asdict(await platform.records[AuditTrail].verify())


async def status(settings: Settings) -> tuple[dict[str, Any], E2IError | None]:
    """The database, the schema, what MLflow is owed, where spans went, the latest runs; without the database, the spans alone and why."""
    from e2i.app.health import overview, sink_rows
    from e2i.bootstrap.sinks import sink_names, spool_folder
    from e2i.telemetry.account import accounts

    try:
        async with Platform.open(settings) as platform:
            return await overview(health_ports(platform)), None
    except (BackendError, StorageError) as error:
        found = await accounts(
            spool_folder(settings), sink_names(settings), decision_wait_s=settings.observability.sampling.decision_wait_seconds
        )
        return {"sinks": sink_rows(found)}, error


async def doctor(settings: Settings) -> list[Check]:
    """Examine everything that a run needs, deliver and mend what can be."""
    from e2i.app.health import Check, examine

    try:
        async with Platform.open(settings) as platform:
            return await examine(health_ports(platform))
    except E2IError as error:
        return [Check(check="database", ok=False, detail=error.what, advice=error.advice)]


def health_ports(platform: Platform) -> HealthPorts:
    """What status and doctor examine."""
    from e2i.app.health import HealthPorts
    from e2i.mlops.mlflow_mirror import MLflowMirror
    from e2i.mlops.reconcile import reconcile
    from e2i.ports.records import AuditTrail, Outbox, RunRecords
    from e2i.ports.telemetry import ReceivedSpans, SinkAccounts
    from e2i.storage import migrate
    from e2i.storage.repositories.ledger import LedgerRepository

    return HealthPorts(
        where=platform.database.where,
        schema=lambda: migrate.current(platform.database),
        verify_audit=platform.records[AuditTrail].verify,
        repair_tracker=lambda: reconcile(LedgerRepository(platform.database), MLflowMirror(platform.tracker)),
        free_bytes=lambda: shutil.disk_usage(platform.settings.home).free,
        outbox=platform.records[Outbox],
        runs=platform.records[RunRecords],
        sinks=platform.records[SinkAccounts],
        received=platform.records[ReceivedSpans],
    )


def up(settings: Settings) -> dict[str, Any]:
    """Start the embedded server and leave it running for others; where it answers, and its process.

    Raises
    ------
    ConfigError
        Settings name another database.
    StorageError
        It does not start, or the disk is full.
    """
    if settings.database.url.get_secret_value():
        raise ConfigError(
            "a database URL is set, so there is no embedded server to start.", where="database.url", advice="Unset DATABASE_URL."
        )
    check_disk(settings.home)
    server = embedded_server(settings)
    server.start(stays=True)
    found = server.status()
    return {"database": f"127.0.0.1:{found.port}", "pid": found.pid}


def down(settings: Settings) -> bool:
    """Stop the embedded server; whether there was one."""
    server = embedded_server(settings)
    running = server.status().is_running
    server.stop()
    return running
