"""The emitting side in one process: OpenTelemetry's SDK in front, our processor and the spool behind it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2i.telemetry.redaction import Redactor, SpanLimits
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.spool import SpoolSettings, SpoolWriter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from e2i.telemetry.processor import SpoolProcessor
    from e2i.telemetry.relay import Relay

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """What a process needs to emit spans; picklable, so that workers get the same."""

    service: str
    spool: SpoolSettings
    limits: SpanLimits
    rules: SamplingRules
    silent_agents: frozenset[str] = frozenset()
    """agents whose prompts and answers are never kept, nor those of what happens inside them"""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What `install` put in place."""

    provider: TracerProvider
    processor: SpoolProcessor

    def close(self) -> None:
        """End this process's part: spans that end later are not kept. What ended before is in the spool already."""
        if _RELAYS and _RELAYS[0].target is self.processor:
            _RELAYS[0].target = None
        self.processor.shutdown()


def install(settings: PipelineSettings) -> Pipeline:
    """Send every span of this process to the spool, also those of libraries that OpenTelemetry instruments.

    A TracerProvider that is there already stays and gets our processor beside its own. A second call moves the process to the
    other spool.

    Raises
    ------
    OSError
        The spool's folder cannot be made or written.
    """
    # Its fork handler must be registered before the SDK's: that one submits to a pool in the child, and would wait for a lock that is
    # still held there.
    import concurrent.futures.thread  # noqa: F401

    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    from e2i.telemetry.ids import E2IIdGenerator
    from e2i.telemetry.processor import SpoolProcessor
    from e2i.telemetry.relay import Relay
    from e2i.telemetry.tracer import QuickProvider

    processor = SpoolProcessor(
        SpoolWriter(settings.spool),
        Redactor(settings.limits),
        Sampler(settings.rules),
        service=settings.service,
        log_prompts=lambda agent: agent not in settings.silent_agents,
        silent_agents=settings.silent_agents,
    )
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        # What is kept is decided behind the span's end, so that an error is never missed: a caller's "not sampled" is not ours.
        provider = QuickProvider(
            sampler=ALWAYS_ON, id_generator=E2IIdGenerator(), resource=Resource({"service.name": settings.service}), shutdown_on_exit=False
        )
        trace.set_tracer_provider(provider)
    if not _RELAYS:
        _RELAYS.append(Relay())
        provider.add_span_processor(_RELAYS[0])
    _RELAYS[0].target = processor
    return Pipeline(provider=provider, processor=processor)


def install_in_worker(settings: PipelineSettings) -> None:
    """As `install`, for a worker process: without a spool it works on and says so."""
    try:
        install(settings)
    except OSError as error:
        _log.warning("this worker's spans are lost: %s", error)


_RELAYS: list[Relay] = []
"""the one processor of ours at the provider, which cannot let go of a processor again"""
