"""ml_observability_spans: how fast spans get in, how fast the questions are answered.

python benchmarks/bench_span_table.py [--spans 1_000_000] [--home FOLDER]

1. rows per second through `ship`, beside psycopg's COPY of the same rows, prepared beforehand, into the same partitioned and indexed table
2. the latency summary, from the rollups and from the spans, at 100,000 spans and at `--spans`, over 24 hours and 30 days
3. a trace by its id
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from e2i.domain.telemetry import SpanRecord
from e2i.observability.mapping import columns_of
from e2i.storage import migrate
from e2i.storage.embedded import EmbeddedServer
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository, SpanShipmentRepository
from e2i.storage.sql import load, statements

FILL = statements((Path(__file__).parent / "span_table.sql").read_text(), where="span_table.sql")
COPY = load("spans")["copy_spans"]
WORDS = ("effect", "program", "of", "nrx", "Kisqali", "estimate", "0.31", "and", "HCP", "region", "lift", "because", "interval", "overlap")
TIERS = ("ml_foundation", "coordination", "causal_analytics", "monitoring", "ml_predictions", "self_improvement")
NOW_NS = time.time_ns()


def span(random_: random.Random, trace_id: str, *, has_text: bool) -> SpanRecord:
    agent = random_.randrange(18)
    attributes: dict[str, object] = {
        "e2i.agent.name": f"agent_{agent:02d}",
        "e2i.agent.tier": TIERS[agent % 6],
        "e2i.operation.type": "llm" if has_text else "agent",
        "e2i.run.id": trace_id[:12],
        "e2i.study": "speaker_program_lift",
        "e2i.brand": "Kisqali",
        "e2i.step.attempt": 1,
    }
    if has_text:
        attributes |= {
            "gen_ai.request.model": "claude",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.usage.input_tokens": random_.randrange(200, 900),
            "gen_ai.usage.output_tokens": random_.randrange(50, 300),
            "input.value": " ".join(random_.choices(WORDS, k=360)),
            "output.value": " ".join(random_.choices(WORDS, k=180)),
        }
    start = NOW_NS - random_.randrange(10**9)
    return SpanRecord(
        trace_id=trace_id,
        span_id=secrets.token_hex(8),
        parent_span_id=secrets.token_hex(8),
        name="estimate",
        started_ns=start,
        ended_ns=start + int(random_.lognormvariate(4, 1) * 1e6),
        attributes=attributes,
    )


def spans(number: int, *, seed: int, has_text: bool) -> list[SpanRecord]:
    """Traces of twenty spans."""
    random_ = random.Random(seed)
    traces = [secrets.token_hex(16) for _ in range(number // 20 + 1)]
    return [span(random_, traces[i // 20], has_text=has_text) for i in range(number)]


async def shipped(db: Database, records: list[SpanRecord], batch: int) -> float:
    """Spans per second."""
    shipments = SpanShipmentRepository(db)
    start = time.perf_counter()
    for at in range(0, len(records), batch):
        assert await shipments.ship(records[at : at + batch], spool_id="bench", state={"at": at}) == len(records[at : at + batch])
    return len(records) / (time.perf_counter() - start)


def prepared(records: list[SpanRecord]) -> list[tuple[object, ...]]:
    """The same rows as one hands them to psycopg."""
    rows = []
    for record in records:
        found = columns_of(record)
        start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=record.started_ns // 1000)
        end = start + timedelta(milliseconds=record.duration_ms or 0)
        rows.append(
            (
                record.trace_id, record.span_id, start.date(), start, end, record.duration_ms, found.input_tokens, found.output_tokens,
                found.total_cost, record.started_ns % 1000, 0, False, record.parent_span_id, found.agent_name, found.agent_tier,
                found.operation_type, record.name, record.kind, record.service, record.scope, record.origin, found.model_name, found.status,
                record.status, record.status_message, found.error_type, found.error_message, found.experiment_id, found.run_id,
                found.user_id, found.session_id, Jsonb([]), Jsonb(record.attributes), Jsonb([]), Jsonb([]),
            )
        )  # fmt: skip
    return rows


def copied(url: str, rows: list[tuple[object, ...]], batch: int) -> float:
    """Rows per second of psycopg's COPY, in its faster, binary form."""
    types = ["text"] * 2 + ["date"] + ["timestamptz"] * 2 + ["float8", "int8", "int8", "float8", "int2", "int2", "bool"]
    types += ["text"] * 19 + ["jsonb"] * 4
    with psycopg.connect(url, autocommit=True) as connection:
        start = time.perf_counter()
        for at in range(0, len(rows), batch):
            with connection.cursor().copy(COPY) as copy:
                copy.set_types(types)
                for row in rows[at : at + batch]:
                    copy.write_row(row)
        return len(rows) / (time.perf_counter() - start)


async def writing(db: Database, *, rounds: int = 5) -> None:
    print(f"{'spans/s':34}{'ship':>10}{'raw COPY':>10}{'ratio':>8}")
    for has_text in (True, False):
        for batch in (100, 1000, 5000):
            ours, raw = [], []
            for seed in range(rounds + 1):
                number = max(4000, 2 * batch) if batch > 100 else 2000
                ours.append(await shipped(db, spans(number, seed=seed, has_text=has_text), batch))
                raw.append(copied(db.url, prepared(spans(number, seed=seed, has_text=has_text)), batch))
            ratio = statistics.median(a / b for a, b in zip(ours[1:], raw[1:], strict=True))
            kind = "with 3 KB of text" if has_text else "without text"
            print(f"{kind}, batches of {batch:<12}{statistics.median(ours[1:]):10,.0f}{statistics.median(raw[1:]):10,.0f}{ratio:8.2f}")


async def median_ms(ask, times: int = 9) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await ask()
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


async def reading(db: Database, number: int) -> list[float]:
    repository = ObservabilitySpanRepository(db)
    trace = (await db.rows(FILL["some_trace"]))[0]["trace_id"]
    figures = [
        await median_ms(lambda: repository.get_latency_stats("24h")),
        await median_ms(lambda: repository.get_latency_stats("30d")),
        await median_ms(lambda: db.rows(FILL["view"])),
        await median_ms(lambda: db.rows(FILL["exact_view"]), 3),
        await median_ms(lambda: repository.get_trace(trace)),
        await median_ms(lambda: repository.recent_traces(limit=20), 3),
    ]
    print(f"{number:>12,}" + "".join(f"{figure:12.2f}" for figure in figures), flush=True)
    return figures


async def filled(db: Database, *, first: int, last: int) -> None:
    """Spans first to last of a series that is spread over 30 days, and the rollups of all of them."""
    await db.run(FILL["make_days"])
    for at in range(first, last, 500_000):
        await db.run(FILL["fill"], first=at, last=min(at + 500_000, last) - 1)
    await db.run(FILL["clear_rollups"])
    await db.run(FILL["fill_rollups"])
    await db.run(FILL["fill_days"])
    async with await psycopg.AsyncConnection.connect(db.url, autocommit=True) as connection:
        await connection.execute(FILL["tidy"])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path)
    chosen = parser.parse_args()
    home = chosen.home or Path(tempfile.mkdtemp(prefix="e2i-bench-"))
    server = EmbeddedServer(home)
    db = Database(server.start())
    await db.open()
    await migrate.upgrade(db)
    await writing(db)
    await db.run(FILL["clear"])
    print(f"\n{'ms, spans':>12}" + "".join(f"{name:>12}" for name in ("24 h", "30 days", "view", "exact view", "trace", "20 traces")))
    small = min(100_000, chosen.spans)
    await filled(db, first=0, last=small)
    before = await reading(db, small)
    await filled(db, first=small, last=chosen.spans)
    after = await reading(db, chosen.spans)
    print(f"{'ratio':>12}" + "".join(f"{b / a:12.2f}" for a, b in zip(before, after, strict=True)))
    await db.close()
    server.release()


if __name__ == "__main__":
    asyncio.run(main())
