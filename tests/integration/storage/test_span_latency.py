"""Percentiles from the rollups against the truth, on real servers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from e2i.storage.latency import Measure
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository, SpanShipmentRepository
from e2i.storage.span_writer import SpanWriter
from span_samples import HOUR, a_span, hour_ago

SHARES = (0.50, 0.95, 0.99)
TOLERANCE = 0.00992


def shapes(seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Durations in ms, by the name of their shape."""
    rng = np.random.default_rng(seed)
    return {
        "lognormal": rng.lognormal(5, 2, 400),
        "bimodal": np.concatenate([rng.normal(3, 0.1, 197), rng.normal(40_000, 5_000, 203)]).clip(0.001),
        "constant": np.full(50, 17.3),
        "one": rng.lognormal(3, 3, 1),
        "two": np.array([1.0, 1000.0]) * rng.uniform(1, 2),
        "three": rng.lognormal(0, 4, 3),
        "zeros": np.zeros(9),
        "half zeros": np.concatenate([np.zeros(20), rng.uniform(1, 2, 20)]),
        "microseconds": rng.uniform(0.001, 0.01, 99),
        "pareto": rng.pareto(1.1, 300) + 0.5,
    }


def measures(agent: str, durations_ms: Any, *, started_ns: int) -> list[Measure]:
    return [Measure(agent, "monitoring", started_ns, float(ms), False, False, 1, 2, 0.5) for ms in durations_ms]


async def roll_up(database: Database, *batches: list[Measure]) -> None:
    writer = SpanWriter(database)
    for batch in batches:
        async with database.transaction() as connection:
            await writer.roll_up(connection, batch)


async def test_percentiles_are_within_one_percent_of_the_exact_ones(database: Database) -> None:
    truth: dict[str, Any] = {}
    for seed in range(12):
        for name, values in shapes(seed).items():
            truth[f"{name} {seed}"] = values
            half = len(values) // 2
            await roll_up(
                database,
                measures(f"{name} {seed}", values[:half], started_ns=hour_ago(1)),
                measures(f"{name} {seed}", values[half:], started_ns=hour_ago(20)),
            )
    lines = {line.agent_name: line for line in await ObservabilitySpanRepository(database).get_latency_stats("24h")}
    assert lines.keys() == truth.keys()
    for name, values in truth.items():
        line = lines[name]
        assert line.calls == len(values)
        assert line.avg_ms == pytest.approx(values.mean(), rel=1e-9)
        assert (line.input_tokens, line.output_tokens, line.total_cost) == (len(values), 2 * len(values), pytest.approx(len(values) / 2))
        for found, share in zip((line.p50_ms, line.p95_ms, line.p99_ms), SHARES, strict=True):
            assert found == pytest.approx(np.percentile(values, 100 * share), rel=TOLERANCE, abs=0.001), (name, share)


@dataclass(frozen=True)
class Call:
    at: datetime
    ms: float


async def test_any_window_counts_its_full_hours_and_no_others(database: Database) -> None:
    rng = np.random.default_rng(1)
    start = datetime(2026, 3, 27, 21, tzinfo=UTC)  # summer time begins in Europe on the 29th; UTC does not care
    calls = [
        Call(start + timedelta(minutes=float(m)), float(ms))
        for m, ms in zip(rng.uniform(0, 6 * 1440, 800), rng.lognormal(3, 1, 800), strict=True)
    ]
    await roll_up(database, [m for c in calls for m in measures("a", [c.ms], started_ns=int(c.at.timestamp() * 1e9))])
    for _ in range(60):
        since, until = sorted(start + timedelta(minutes=int(m)) for m in rng.integers(-300, 7 * 1440, 2))
        since_hour = since.replace(minute=0)
        until_hour = until.replace(minute=0) + timedelta(hours=1) if until.minute else until
        inside = [call.ms for call in calls if since_hour <= call.at < until_hour]
        rows = await database.rows("select calls, p95_ms from agent_latency_stats(%(since)s, %(until)s)", since=since, until=until)
        assert [row["calls"] for row in rows] == ([len(inside)] if inside else []), (since, until)
        if inside:
            assert rows[0]["p95_ms"] == pytest.approx(np.percentile(inside, 95), rel=TOLERANCE)


async def test_an_index_answers_the_summary_whatever_the_window(database: Database) -> None:
    await roll_up(database, *(measures("a", [1.0], started_ns=hour_ago(h)) for h in range(60)))
    stats = ObservabilitySpanRepository(database)
    for window, calls in (("1h", 2), ("24h", 25), ("2d", 49), ("30d", 60)):
        assert [line.calls for line in await stats.get_latency_stats(window)] == [calls]
    assert await stats.get_latency_stats("30d", agent="b") == []
    assert await stats.get_latency_stats("30d", tier="coordination") == []


async def test_beyond_what_a_real_can_count_a_new_part_begins_and_counts_stay_exact(database: Database) -> None:
    now = hour_ago(0)
    await roll_up(database, measures("a", [10.0], started_ns=now))
    await database.run(
        "update agent_latency_rollup set calls = calls * 16777216, duration_sum_ms = duration_sum_ms * 16777216,"
        " histogram = (select array_agg(v * 16777216 order by i) from unnest(histogram::real[]) with ordinality u (v, i))::vector"
    )
    assert [line.calls for line in await ObservabilitySpanRepository(database).get_latency_stats()] == [16777216]
    for _ in range(30):
        await roll_up(database, measures("a", [5000.0] * 1000, started_ns=now))
    parts = await database.rows(
        "select part, calls, (histogram::real[])[1280]::bigint as last from agent_latency_rollup where level = 'hour' order by part"
    )
    assert [(row["part"], row["calls"], row["last"]) for row in parts] == [(0, 16777216, 16777216), (1, 30000, 30000)]
    (line,) = await ObservabilitySpanRepository(database).get_latency_stats()
    assert line.calls == 16777216 + 30000
    assert line.p50_ms == pytest.approx(10, rel=TOLERANCE)
    rows = await database.rows(
        "select latency_percentile(sum(histogram)::real[], 0.9985) as p from agent_latency_rollup where level = 'hour'"
    )
    assert rows[0]["p"] == pytest.approx(5000, rel=TOLERANCE)


async def test_the_server_and_python_agree_on_the_bins(database: Database) -> None:
    from e2i.storage.latency import BINS, bin_of

    rows = await database.rows("select bin, latency_of_bin(bin::integer) as ms from generate_series(0, %(last)s) bin", last=BINS - 1)
    found = [bin_of(row["ms"]) for row in rows]
    assert found == [row["bin"] for row in rows]


async def test_merges_and_corrections_leave_exact_percentiles(database: Database) -> None:
    shipments = SpanShipmentRepository(database)
    start = hour_ago(2)
    made = [a_span(n, started_ns=start + n, ended_ns=start + (n + 1) * HOUR // 1000) for n in range(100)]
    await shipments.ship(made, spool_id="s", state={})
    await shipments.merge([a_span(n, started_ns=start + n, ended_ns=start + 3_000_000) for n in range(0, 100, 2)])
    (line,) = await ObservabilitySpanRepository(database).get_latency_stats()
    rows = await database.rows("select p50_ms, p95_ms, p99_ms, calls from v_agent_latency_summary_exact")
    assert rows == [pytest.approx({"p50_ms": line.p50_ms, "p95_ms": line.p95_ms, "p99_ms": line.p99_ms, "calls": 100}, rel=TOLERANCE)]
