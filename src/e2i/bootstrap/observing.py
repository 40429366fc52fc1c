"""Spans: what a process needs to emit them, the process that ships them, and what opens their table."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from e2i import config
from e2i.bootstrap.platform import Platform, open_database
from e2i.bootstrap.sinks import Accounts, routes, spool_folder

if TYPE_CHECKING:
    from e2i.app.retention import RetentionPorts
    from e2i.config import Settings
    from e2i.domain.telemetry import SinkAccount
    from e2i.ports.telemetry import SpanRecords
    from e2i.telemetry.delivery import ShipperSettings
    from e2i.telemetry.pipeline import Pipeline, PipelineSettings
    from e2i.telemetry.redaction import Redactor, SpanLimits

_GOODBYE_S = 2.0
_STAND_BY_S = 0.3
_LAST_TRIES = 3
_LOG = "shipper.log"


def span_limits(settings: Settings) -> SpanLimits:
    """What may be kept of a span."""
    from e2i.telemetry.redaction import SpanLimits

    spans = settings.observability.spans
    return SpanLimits(
        include_input=spans.include_input,
        include_output=spans.include_output,
        max_input_size_bytes=spans.max_input_size_bytes,
        max_output_size_bytes=spans.max_output_size_bytes,
        max_metadata_size_bytes=spans.max_metadata_size_bytes,
        redact_patterns=spans.redact_patterns,
        secrets=config.secrets(settings),
    )


def redactor(settings: Settings) -> Redactor:
    """For spans that come from elsewhere."""
    from e2i.telemetry.redaction import Redactor

    return Redactor(span_limits(settings))


def pipeline_settings(settings: Settings) -> PipelineSettings:
    """What a process needs to emit spans."""
    from e2i.telemetry.pipeline import PipelineSettings
    from e2i.telemetry.sampling import SamplingRules
    from e2i.telemetry.spool import SpoolSettings

    observability, sampling = settings.observability, settings.observability.sampling
    is_production = sampling.environment_aware and settings.environment == "production"
    return PipelineSettings(
        service=observability.service_name,
        spool=SpoolSettings(
            folder=spool_folder(settings), max_bytes=observability.spool.max_bytes, segment_bytes=observability.spool.segment_bytes
        ),
        limits=span_limits(settings),
        rules=SamplingRules(
            rate=sampling.production_rate if is_production else sampling.default_rate,
            agent_rates=sampling.agent_overrides,
            always_agents=frozenset(sampling.always_sample_agents),
            always_errors=sampling.always_sample_errors,
        ),
        silent_agents=frozenset(name for name, agent in settings.agents.items() if not agent.log_prompts),
    )


@contextmanager
def observing(settings: Settings, *, deliver: bool = True) -> Iterator[Pipeline]:
    """Spans that end inside go to the spool; with `deliver` a shipper process brings them to the sinks meanwhile.

    At the end the shipper is given `batching.flush_timeout_seconds` for what is left; what it does not manage stays in the spool.
    """
    from e2i.telemetry.pipeline import install

    with _telling_disk_faults(settings):
        pipeline = install(pipeline_settings(settings))
    shipper = _start_shipper(settings) if deliver else None
    try:
        yield pipeline
    finally:
        pipeline.close()
        if shipper is not None:
            _end_shipper(shipper, settings.observability.batching.flush_timeout_seconds)


@contextmanager
def _telling_disk_faults(settings: Settings) -> Iterator[None]:
    from e2i.errors import StorageError

    try:
        yield
    except OSError as error:
        advice = "Make the folder writable, or set E2I_HOME to another place."
        raise StorageError(f"the spool cannot be written: {error}.", where=str(spool_folder(settings)), advice=advice) from error


def _start_shipper(settings: Settings) -> subprocess.Popen[str]:
    """A process of its own, which outlives a kill of this one: it ends when its standard input does."""
    folder = spool_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "e2i", "trace", "ship", "--settings-on-stdin"]
    with open(folder / _LOG, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
        shipper = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, text=True, start_new_session=True
        )
    assert shipper.stdin is not None
    with suppress(BrokenPipeError):  # it ended at once; its log says why, and the spool keeps everything
        shipper.stdin.write(json.dumps(config.as_arguments(settings)) + "\n")
        shipper.stdin.flush()
    return shipper


def _end_shipper(shipper: subprocess.Popen[str], patience_s: float) -> None:
    assert shipper.stdin is not None
    with suppress(BrokenPipeError):
        shipper.stdin.close()
    try:
        shipper.wait(patience_s + _GOODBYE_S)
    except subprocess.TimeoutExpired:
        shipper.terminate()


async def ship(settings: Settings, *, stop: asyncio.Event, waits: bool = False, drain_s: float | None = None) -> list[SinkAccount]:
    """Ship this home's spool until `stop`, then drain; where every span went.

    Parameters
    ----------
    drain_s : seconds for what is left after `stop`, `batching.flush_timeout_seconds` by default; a sink that fails is not asked again
    waits : while another process ships this spool, stand by to take over until `stop`

    Raises
    ------
    Conflict
        Another process ships it.
    """
    from e2i.errors import Conflict
    from e2i.telemetry.shipper import Shipper

    last_tries, how = _LAST_TRIES, shipper_settings(settings)
    if drain_s is not None:
        how = replace(how, drain_s=drain_s)
    async with open_database(settings) as database:
        while True:
            try:
                async with Shipper(spool_folder(settings), routes(settings, database), how) as shipper:
                    await shipper.run(stop)
                break
            except Conflict:
                if not waits:
                    raise
                if not last_tries:
                    break  # the other one stays at work, and sees everything that is here
                if stop.is_set():  # it may be ending as well, with its eyes closed already
                    last_tries -= 1
                    await asyncio.sleep(_STAND_BY_S)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _STAND_BY_S)
        return await Accounts(settings, database).accounts()


def shipper_settings(settings: Settings) -> ShipperSettings:
    """How the spool is emptied."""
    from e2i.telemetry.delivery import ShipperSettings

    observability, batching = settings.observability, settings.observability.batching
    return ShipperSettings(
        max_bytes=observability.spool.max_bytes,
        fsync_interval_s=observability.spool.fsync_interval_seconds,
        quarantine_after=observability.spool.quarantine_after,
        decision_wait_s=observability.sampling.decision_wait_seconds,
        max_wait_s=batching.max_wait_seconds,
        retry_delay_s=batching.retry.retry_delay_seconds,
        max_delay_s=batching.retry.max_delay_seconds,
        drain_s=batching.flush_timeout_seconds,
    )


@asynccontextmanager
async def span_records(settings: Settings) -> AsyncIterator[SpanRecords]:
    """The span table of this home."""
    from e2i.storage import migrate
    from e2i.storage.repositories.spans import ObservabilitySpanRepository

    async with open_database(settings) as database:
        await migrate.upgrade(database)
        yield ObservabilitySpanRepository(database)


@asynccontextmanager
async def retention(settings: Settings) -> AsyncIterator[RetentionPorts]:
    """What retention needs."""
    from pathlib import Path

    from e2i.app.retention import RetentionPorts
    from e2i.data.span_archive import ParquetSpanArchive
    from e2i.ports.records import AuditTrail
    from e2i.storage.repositories.span_retention import SpanRetentionRepository

    section = settings.observability.retention
    folder = Path(section.archive.destination) if section.archive.destination else settings.home.absolute() / "archive"
    async with Platform.open(settings) as platform:
        yield RetentionPorts(
            retention=SpanRetentionRepository(platform.database),
            archive=ParquetSpanArchive(folder) if section.archive.enabled else None,
            audit=platform.records[AuditTrail],
            ttl_days=section.span_ttl_days,
            actor=getpass.getuser(),
        )
