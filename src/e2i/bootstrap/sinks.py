"""Where this home's spans wait and go: the spool, the sinks of the settings, and their accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from e2i.config import Settings
    from e2i.domain.telemetry import SinkAccount, SpanRecord
    from e2i.mlops.circuit_breaker import CircuitBreaker
    from e2i.storage.postgres import Database
    from e2i.telemetry.delivery import Route
    from e2i.telemetry.sink import Exporter, Sink


def spool_folder(settings: Settings) -> Path:
    """Where this home's spans wait."""
    return settings.home.absolute() / "spool"


def sink_names(settings: Settings) -> list[str]:
    """The sinks that the settings ask for."""
    return ["postgres", *(exporter.name for exporter in _exporters(settings))]


def routes(settings: Settings, database: Database) -> list[Route]:
    """The sinks that the settings ask for, each with its breaker."""
    from e2i.telemetry.cursor import CursorFile
    from e2i.telemetry.delivery import Route
    from e2i.telemetry.sink import ForeignSink
    from e2i.telemetry.sinks.postgres import PostgresSink

    folder = spool_folder(settings)
    table = PostgresSink(
        MigratedShipments(database), CursorFile(folder, "postgres"), batch_size=settings.observability.database.insert_batch_size
    )
    sinks: list[Sink] = [table, *(ForeignSink(exporter, CursorFile(folder, exporter.name)) for exporter in _exporters(settings))]
    return [Route(sink=sink, breaker=breaker(settings, sink.name)) for sink in sinks]


def breaker(settings: Settings, name: str) -> CircuitBreaker:
    """A circuit breaker as `observability.circuit_breaker` says."""
    from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker

    section = settings.observability.circuit_breaker
    return CircuitBreaker(
        name,
        BreakerSettings(
            failure_threshold=section.failure_threshold,
            reset_timeout_s=section.reset_timeout_seconds,
            half_open_max_calls=section.half_open_max_calls,
            success_threshold=section.success_threshold,
        ),
    )


def _exporters(settings: Settings) -> list[Exporter]:
    from e2i.settings.sections import parse_headers
    from e2i.telemetry.sinks.mlflow import MlflowExporter
    from e2i.telemetry.sinks.opik import OpikExporter
    from e2i.telemetry.sinks.otlp import OtlpExporter

    observability, size = settings.observability, settings.observability.batching.max_batch_size
    found: list[Exporter] = []
    opik, otlp = observability.opik, observability.otlp
    if opik.enabled and opik.endpoint:
        found.append(
            OpikExporter(
                opik.endpoint,
                project_name=opik.project_name,
                workspace=opik.workspace,
                api_key=opik.api_key.get_secret_value(),
                batch_size=size,
            )
        )
    if otlp.enabled and otlp.endpoint:
        headers = parse_headers(otlp.headers.get_secret_value())
        found.append(OtlpExporter(f"{otlp.endpoint.rstrip('/')}/v1/traces", headers=headers, batch_size=size))
    uri = settings.mlflow.tracking.uri.get_secret_value()
    if observability.mlflow.enabled and uri.startswith(("http://", "https://")):
        tracking = settings.mlflow.tracking
        found.append(
            MlflowExporter(
                uri,
                experiment=observability.mlflow.experiment,
                user=(tracking.username, tracking.password.get_secret_value()),
                token=tracking.token.get_secret_value(),
                batch_size=size,
            )
        )
    return found


class MigratedShipments:
    """`SpanShipments` on a database that may be away, or be without our tables, when shipping begins."""

    def __init__(self, database: Database) -> None:
        from e2i.storage.repositories.span_shipments import SpanShipmentRepository

        self._database = database
        self._repository = SpanShipmentRepository(database)
        self._is_ready = False

    async def ship(
        self, spans: Sequence[SpanRecord], *, spool_id: str, state: Mapping[str, Any], left_out: Sequence[SpanRecord] = ()
    ) -> int:
        """See the port."""
        async with self._prepared():
            return await self._repository.ship(spans, spool_id=spool_id, state=state, left_out=left_out)

    async def shipped(self, spool_id: str) -> dict[str, Any] | None:
        """See the port."""
        async with self._prepared():
            return await self._repository.shipped(spool_id)

    @asynccontextmanager
    async def _prepared(self) -> AsyncIterator[None]:
        """Our tables are there; should they be gone, as after the database was replaced, the next call makes them."""
        from e2i.errors import MigrationNeeded
        from e2i.storage import migrate

        if not self._is_ready:
            await migrate.upgrade(self._database)
            self._is_ready = True
        try:
            yield
        except MigrationNeeded:
            self._is_ready = False
            raise


class Accounts:
    """`SinkAccounts` of this home."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def accounts(self) -> list[SinkAccount]:
        """See the port."""
        from e2i.storage.repositories.span_shipments import SpanShipmentRepository
        from e2i.telemetry.account import accounts

        return await accounts(
            spool_folder(self._settings),
            sink_names(self._settings),
            shipments=SpanShipmentRepository(self._database),
            decision_wait_s=self._settings.observability.sampling.decision_wait_seconds,
        )

    async def metrics(self) -> str:
        """The accounts for Prometheus."""
        from e2i.telemetry.account import metrics_text, spool_bytes

        return metrics_text(await self.accounts(), bytes_on_disk=spool_bytes(spool_folder(self._settings)))
