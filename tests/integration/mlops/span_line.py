"""From OpenTelemetry's SDK to the sinks, as in production: processor, spool on disk, shipper. Only the waiting times are shorter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from e2i.domain.telemetry import SinkAccount
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker
from e2i.telemetry import account
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.delivery import Route, ShipperSettings
from e2i.telemetry.processor import SpoolProcessor
from e2i.telemetry.redaction import Redactor, SpanLimits
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.shipper import run_shipper
from e2i.telemetry.sink import Exporter, ForeignSink, Sink
from e2i.telemetry.spool import SpoolSettings, SpoolWriter

LIMITS = SpanLimits(
    include_input=True,
    include_output=True,
    max_input_size_bytes=10_240,
    max_output_size_bytes=10_240,
    max_metadata_size_bytes=4096,
    redact_patterns=("password", "api_key", "secret", "token", "authorization"),
)
SOON = ShipperSettings(
    max_bytes=64 << 20, decision_wait_s=0.0, max_wait_s=0.0, retry_delay_s=0.02, max_delay_s=0.1, poll_s=0.01, drain_s=0.5
)
BREAKER = BreakerSettings(failure_threshold=5, reset_timeout_s=0.1, call_timeout_s=1.0)


@dataclass
class SpanLine:
    """Also `SinkAccounts`, as bootstrap wires it."""

    folder: Path
    sinks: tuple[str, ...] = ()

    @asynccontextmanager
    async def shipping(self, *ends: Exporter | Sink) -> AsyncIterator[dict[str, CircuitBreaker]]:
        """A shipper as a process of its own would run it; breakers by sink."""
        sinks = [end if hasattr(end, "deliver") else ForeignSink(end, CursorFile(self.folder, end.name)) for end in ends]
        self.sinks = tuple(sink.name for sink in sinks)
        breakers = {sink.name: CircuitBreaker(sink.name, BREAKER) for sink in sinks}
        routes = [Route(sink=sink, breaker=breakers[sink.name]) for sink in sinks]
        stop = asyncio.Event()
        task = asyncio.create_task(run_shipper(self.folder, routes, SOON, stop))
        try:
            yield breakers
        finally:
            stop.set()
            await task

    async def accounts(self) -> list[SinkAccount]:
        return await account.accounts(self.folder, self.sinks, decision_wait_s=SOON.decision_wait_s)

    async def account(self, sink: str) -> SinkAccount:
        (found,) = [one for one in await self.accounts() if one.sink == sink]
        return found

    async def troubled(self, sink: str, *, timeout_s: float = 20.0) -> None:
        """Return when a delivery to this sink has failed."""
        async with asyncio.timeout(timeout_s):
            while (await self.account(sink)).last_error is None:  # noqa: ASYNC110  # another process would tell no event either
                await asyncio.sleep(0.01)

    async def settled(self, *sinks: str, timeout_s: float = 20.0) -> list[SinkAccount]:
        """The accounts when these sinks have everything; the identity holds."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = [one for one in await self.accounts() if one.sink in sinks]
                if len(found) == len(sinks) and all(one.emitted and not one.in_spool for one in found):
                    break
                await asyncio.sleep(0.02)
        assert all(one.unexplained == 0 for one in found), found
        return found


@contextmanager
def span_line(folder: Path, *, silent_agents: Sequence[str] = (), rate: float = 1.0) -> Iterator[SpanLine]:
    """Every span that ends inside goes to the spool in `folder`."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=64 << 20, segment_bytes=1 << 20))
    processor = SpoolProcessor(
        writer,
        Redactor(LIMITS),
        Sampler(SamplingRules(rate=rate)),
        service="e2i",
        log_prompts=lambda agent: agent not in silent_agents,
    )
    provider.add_span_processor(processor)
    try:
        yield SpanLine(folder)
    finally:
        processor.shutdown()
