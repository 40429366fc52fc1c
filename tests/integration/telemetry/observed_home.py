"""A home that emits through OpenTelemetry's SDK and our processor, ships with what `bootstrap` wires, and is counted at the end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from own_server import ask

from e2i import config
from e2i.bootstrap.observing import pipeline_settings, shipper_settings
from e2i.bootstrap.platform import open_database
from e2i.bootstrap.sinks import Accounts, routes, sink_names, spool_folder
from e2i.domain.telemetry import SinkAccount
from e2i.telemetry.account import accounts
from e2i.telemetry.processor import SpoolProcessor
from e2i.telemetry.redaction import Redactor
from e2i.telemetry.sampling import Sampler
from e2i.telemetry.shipper import Shipper
from e2i.telemetry.spool import SpoolWriter

QUICK: dict[str, Any] = {
    "sampling": {"agent_overrides": {}},
    "batching": {
        "max_wait_seconds": 0.02,
        "flush_timeout_seconds": 3.0,
        "retry": {"retry_delay_seconds": 0.02, "max_delay_seconds": 0.2},
    },
    "circuit_breaker": {"reset_timeout_seconds": 0.1},
    "database": {"insert_batch_size": 100},
    "spool": {"segment_bytes": 65_536, "fsync_interval_seconds": 0},
}
_PATIENCE_S = 40.0
_CALLS = "agent_name is not null and duration_ms is not null and operation_type not in ('step', 'metric', 'feedback')"


@dataclass
class ObservedHome:
    """One machine's home folder, and what its programs were told to be safe."""

    folder: Path
    url: str
    otlp: str = ""
    emitted: list[tuple[str, str]] = field(default_factory=list)
    """of every span whose `end` returned"""
    calls: int = 0
    """those that count in the rollups"""

    def __post_init__(self) -> None:
        observability = {**QUICK, "otlp": {"endpoint": self.otlp}}
        self.settings = config.load(home=self.folder, database={"url": self.url}, observability=observability)
        self.spool = spool_folder(self.settings)
        pipeline = pipeline_settings(self.settings)
        self._writer = SpoolWriter(pipeline.spool)
        processor = SpoolProcessor(
            self._writer, Redactor(pipeline.limits), Sampler(pipeline.rules), service="e2i", log_prompts=lambda agent: True
        )
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("faults")

    def emit(self, traces: int) -> None:
        """Four spans each: an agent, a step of it that is no call, a model's call, and a tool that fails now and then."""
        for _ in range(traces):
            number = len(self.emitted) // 4
            agent = {"e2i.agent.name": f"agent_{number % 3}", "e2i.agent.tier": "monitoring"}
            root = self._tracer.start_span("run", attributes={**agent, "e2i.operation.type": "agent", "number": number})
            inside = trace.set_span_in_context(root)
            for kind in ("step", "llm", "tool"):
                child = self._tracer.start_span(
                    kind, inside, attributes={**agent, "e2i.operation.type": kind, "gen_ai.usage.input_tokens": number % 100}
                )
                if kind == "tool" and number % 7 == 0:
                    child.set_status(trace.StatusCode.ERROR, "broke")
                self._end(child)
            self._end(root)
            self.calls += 3

    def _end(self, span: Any) -> None:
        span.end()
        self.emitted.append((f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"))

    async def keep_emitting(self, *, every_s: float = 0.01, traces: int = 2) -> None:
        while True:
            self.emit(traces)
            await asyncio.sleep(every_s)

    def close(self) -> None:
        self._writer.close()

    @asynccontextmanager
    async def shipping(self, *, call_timeout_s: float = 2.0, emits: bool = True) -> AsyncIterator[Shipper]:
        """Ship, and with `emits` emit, while the test does its worst; afterwards what was emitted is waited for."""
        stop, chosen = asyncio.Event(), replace(shipper_settings(self.settings), call_timeout_s=call_timeout_s)
        async with (
            open_database(self.settings) as database,
            Shipper(self.spool, routes(self.settings, database), chosen) as shipper,
        ):
            running = asyncio.create_task(shipper.run(stop))
            emitting = asyncio.create_task(self.keep_emitting() if emits else asyncio.sleep(0))
            try:
                yield shipper
                emitting.cancel()
                for name in sink_names(self.settings):
                    await delivered(shipper, len(self.emitted), sink=name)
            finally:
                emitting.cancel()
                stop.set()
                await asyncio.gather(running, emitting, return_exceptions=True)

    async def account(self, sink: str = "postgres") -> SinkAccount:
        """From the folder alone, as `e2i status` sees it while the database is away; what must hold at every moment is checked."""
        (found,) = await accounts(self.spool, [sink])
        assert (found.unexplained, found.dropped, found.sampled_out) == (0, {}, 0), found
        assert found.emitted == len(self.emitted), found
        return found

    async def kept_accounts(self) -> list[SinkAccount]:
        """With the database's own state."""
        async with open_database(self.settings) as database:
            return await Accounts(self.settings, database).accounts()


async def delivered(shipper: Shipper, spans: int, *, sink: str = "postgres") -> None:
    """Wait until the sink confirmed so many, those included that went to a database which is gone."""
    delivery, deadline = shipper.delivery(sink), time.monotonic() + _PATIENCE_S
    while delivery.state is None or delivery.state.delivered + sum(each.base for each in delivery.state.streams.values()) < spans:
        assert time.monotonic() < deadline, (delivery.state, spans, delivery.last_error)
        await asyncio.sleep(0.01)


async def progress(shipper: Shipper, spans: int = 200, *, sink: str = "postgres") -> None:
    """Wait until so many more are confirmed."""
    state = shipper.delivery(sink).state
    await delivered(shipper, spans + (state.delivered if state is not None else 0), sink=sink)


async def moved(home: ObservedHome) -> None:
    """Wait until another process has shipped something more."""
    before, deadline = (await home.account()).delivered, time.monotonic() + _PATIENCE_S
    while (await home.account()).delivered == before:
        assert time.monotonic() < deadline, before
        await asyncio.sleep(0.01)


async def complaint(shipper: Shipper, words: str, *, sink: str = "postgres") -> str:
    """Wait until the sink's last error says so: the fault is felt."""
    delivery, deadline = shipper.delivery(sink), time.monotonic() + _PATIENCE_S
    while not re.search(words, delivery.last_error or ""):
        assert time.monotonic() < deadline, delivery.last_error
        await asyncio.sleep(0.005)
    return str(delivery.last_error)


async def check(url: str, *homes: ObservedHome) -> None:
    """Every span is in the table once, the rollups count each call once, and nothing is unexplained."""
    rows = ask(url, "select trace_id, span_id from ml_observability_spans")
    emitted = [key for home in homes for key in home.emitted]
    assert len(set(emitted)) == len(emitted)
    assert len(rows) == len(set(rows)), "a span is there twice"
    assert set(rows) == set(emitted), f"{len(set(emitted) - set(rows))} missing, {len(set(rows) - set(emitted))} strange"
    exact = ask(
        url,
        "select agent_name, agent_tier, count(*), count(*) filter (where status = 'error'), coalesce(sum(input_tokens), 0)::bigint,"
        f" count(*) from ml_observability_spans where {_CALLS} group by 1, 2 order by 1, 2",
    )
    assert sum(int(str(row[2])) for row in exact) == sum(home.calls for home in homes)
    for level in ("hour", "day"):
        kept = ask(
            url,
            "select agent_name, agent_tier, sum(calls)::bigint, sum(errors)::bigint, sum(input_tokens)::bigint,"
            " sum((histogram::real[])[1280])::bigint from agent_latency_rollup where level = %s group by 1, 2 order by 1, 2",
            level,
        )
        assert kept == exact, level
    for home in homes:
        for found in await home.kept_accounts():
            assert (found.delivered, found.in_spool, found.sampled_out, found.dropped) == (len(home.emitted), 0, 0, {}), found
            assert (found.emitted, found.unexplained) == (len(home.emitted), 0), found
        assert not (home.spool / "quarantine").exists() or not list((home.spool / "quarantine").iterdir())
