"""With sampling on, the summary is still that of everything that ran."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from e2i.domain.telemetry import SpanRecord
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker
from e2i.storage.repositories import SpanShipmentRepository
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.frames import encode
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.shipper import Route, Shipper, ShipperSettings
from e2i.telemetry.sinks.postgres import PostgresSink
from e2i.telemetry.spool import SpoolSettings, SpoolWriter

if TYPE_CHECKING:
    from pathlib import Path

    from e2i.storage.postgres import Database

SPANS, FAILED = 2000, 40
SETTINGS = ShipperSettings(max_bytes=1 << 28, decision_wait_s=0.0, max_wait_s=0.0)


def emit(folder: Path) -> set[tuple[str, str]]:
    """Two calls a trace, one span in fifty failed, a tenth of the traces in the sample; gives the keys of those to be kept."""
    dice = random.Random(5)
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 28, segment_bytes=65_536))
    sampler, kept = Sampler(SamplingRules(0.1)), set()
    failed = set(dice.sample(range(SPANS), FAILED))
    for first in range(0, SPANS, 2):
        trace, in_sample = dice.getrandbits(128) | 1, False
        for number in (first, first + 1):
            now, is_error = time.time_ns(), number in failed
            kind, is_noted = sampler.classify(trace, agent="causal_impact", is_error=is_error)
            if is_noted:
                writer.note_kept(f"{trace:032x}")
            in_sample |= is_noted or kind.name != "MAYBE"
            span = SpanRecord(
                trace_id=f"{trace:032x}",
                span_id=f"{number + 1:016x}",
                parent_span_id=None,
                name="call",
                started_ns=now - 7_000_000,
                ended_ns=now,
                status="error" if is_error else "ok",
                attributes={"e2i.agent.name": "causal_impact", "e2i.agent.tier": "causal_analytics", "gen_ai.usage.input_tokens": 3},
            )
            assert writer.write(encode(span), kind)
        if in_sample:
            kept |= {(f"{trace:032x}", f"{number + 1:016x}") for number in (first, first + 1)}
    writer.close()
    return kept


async def ship_all(folder: Path, database: Database) -> None:
    breaker = CircuitBreaker("postgres", BreakerSettings())
    sink = PostgresSink(SpanShipmentRepository(database), CursorFile(folder, "postgres"), batch_size=50)
    async with Shipper(folder, [Route(sink=sink, breaker=breaker)], SETTINGS) as shipper:
        while (await shipper.step("postgres")).moved:
            pass


async def test_spans_outside_the_sample_count_in_the_summary_once_and_have_no_rows(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "spool"
    kept = emit(folder)
    assert 2 * FAILED < len(kept) < SPANS / 5
    for _ in range(2):
        await ship_all(folder, database)
        rows = await database.rows("select trace_id, span_id from ml_observability_spans")
        assert {(row["trace_id"], row["span_id"]) for row in rows} == kept
        (line,) = await database.rows("select * from v_agent_latency_summary")
        assert (line["calls"], line["total_spans"], line["total_tokens_used"]) == (SPANS, SPANS, 3 * SPANS)
        assert line["error_rate"] == pytest.approx(FAILED / SPANS)
        (exact,) = await database.rows("select * from v_agent_latency_summary_exact")
        assert exact["calls"] == len(kept)
