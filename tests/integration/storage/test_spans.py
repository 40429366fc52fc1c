"""ml_observability_spans on real servers: what goes in comes out, once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.span_shipments_contract import SpanShipmentsContract
from databases import until_one_waits_for_a_lock
from e2i.domain.telemetry import SpanQuery, SpanRecord
from e2i.errors import BackendRejected, BackendUnavailable, ConfigError, Conflict
from e2i.observability.mapping import columns_of
from e2i.storage.postgres import Database
from e2i.storage.repositories import ObservabilitySpanRepository, SpanShipmentRepository
from e2i.storage.span_rows import bounded
from span_samples import DAY, HOUR, a_span, dirty_spans, hour_ago, random_spans, spans

SPOOL = "a" * 32
STATS = (
    "total_spans",
    "calls",
    "avg_duration_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "error_rate",
    "fallback_rate",
    "input_tokens",
    "output_tokens",
)


@pytest.fixture
def repository(database: Database) -> ObservabilitySpanRepository:
    return ObservabilitySpanRepository(database)


@pytest.fixture
def shipments(database: Database) -> SpanShipmentRepository:
    return SpanShipmentRepository(database)


async def count(database: Database) -> int:
    return int((await database.rows("select count(*) as n from ml_observability_spans"))[0]["n"])


def known(row: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
    return {name: float(row[name]) for name in names if row[name] is not None}


async def assert_rollups_are_exact(database: Database) -> list[dict[str, Any]]:
    """Both views agree: counts exactly, percentiles within one percent, unknown is unknown in both."""
    kept = await database.rows("select * from v_agent_latency_summary order by agent_name, agent_tier")
    exact = await database.rows("select * from v_agent_latency_summary_exact order by agent_name, agent_tier")
    assert [(row["agent_name"], row["agent_tier"], row["calls"]) for row in kept] == [
        (row["agent_name"], row["agent_tier"], row["calls"]) for row in exact
    ]
    for one, other in zip(kept, exact, strict=True):
        assert {name for name in one if one[name] is None} == {name for name in other if other[name] is None}
        assert known(one, STATS) == pytest.approx(known(other, STATS), rel=0.00992, abs=0.001)
        exactly = ("avg_duration_ms", "error_rate", "fallback_rate", "input_tokens", "total_tokens_used", "total_cost")
        assert known(one, exactly) == pytest.approx(known(other, exactly), rel=1e-9, abs=1e-9)
    return kept


class TestSpanShipments(SpanShipmentsContract):
    """The contract of the shipper's side."""

    @pytest.fixture
    def shipments(self, database: Database) -> SpanShipmentRepository:
        return SpanShipmentRepository(database)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.mark.parametrize("kind", ["clean", "dirty"])
def test_what_is_read_back_is_what_was_written(fresh_database: str, runner: asyncio.Runner, kind: str) -> None:
    database = Database(fresh_database)
    runner.run(database.open())
    repository = ObservabilitySpanRepository(database)

    async def round_trip(written: list[SpanRecord]) -> None:
        async with database.transaction() as connection:
            await connection.execute("delete from ml_observability_spans")
        assert await repository.insert_spans_batch(written) == len(written)
        found = {row.span.key: row for row in (await repository.search(SpanQuery(limit=100))).spans}
        assert len(found) == len(written)
        for span in written:
            row = found[span.key]
            if kind == "clean":
                assert row.span == span
                assert row.columns == bounded(columns_of(span))
            else:
                assert await repository.insert_span(row.span) is False
                assert row.columns.operation_type

    @given(st.lists(spans if kind == "clean" else dirty_spans, min_size=1, max_size=8, unique_by=lambda span: span.key))
    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    def every(written: list[SpanRecord]) -> None:
        runner.run(round_trip(written))

    every()
    runner.run(database.close())


async def test_a_span_is_inserted_once(repository: ObservabilitySpanRepository, database: Database) -> None:
    assert await repository.insert_span(a_span(1)) is True
    assert await repository.insert_span(replace(a_span(1), name="other")) is False
    assert await repository.insert_spans_batch([]) == 0
    assert await repository.insert_spans_batch([a_span(n % 4) for n in range(12)]) == 3
    stats = await repository.get_latency_stats()
    assert [(line.agent_name, line.calls) for line in stats] == [("causal_impact", 4)]
    assert (await repository.get_trace(f"{1:032x}"))[1].span.name == "step 1"
    await assert_rollups_are_exact(database)


async def test_a_batch_with_a_span_that_is_none_leaves_nothing(repository: ObservabilitySpanRepository, database: Database) -> None:
    with pytest.raises(BackendRejected, match="cannot be stored"):
        await repository.insert_spans_batch([*(a_span(n) for n in range(500)), a_span(500, span_id="")])
    assert await count(database) == 0
    assert await repository.get_latency_stats() == []
    assert await repository.insert_spans_batch([a_span(n) for n in range(500)]) == 500


@pytest.mark.parametrize("seed", range(4))
async def test_rollups_agree_with_the_spans_whatever_comes_late_or_twice(seed: int, database: Database) -> None:
    dice, shipments = random.Random(seed), SpanShipmentRepository(database)
    made = random_spans(700, seed=seed)
    sent = [*made, *dice.sample(made, 300)]
    dice.shuffle(sent)
    new = [await shipments.ship(sent[at : at + 130], spool_id=SPOOL, state={"at": at}) for at in range(0, len(sent), 130)]
    assert sum(new) == await count(database) == 700
    assert sum(row["calls"] for row in await assert_rollups_are_exact(database)) > 300


async def test_writers_at_once_count_each_span_once(fresh_database: str) -> None:
    made = random_spans(600, seed=9)
    async with AsyncExitStack() as stack:
        databases = []
        for _ in range(8):
            database = Database(fresh_database, max_connections=2)
            await database.open()
            stack.push_async_callback(database.close)
            databases.append(database)

        async def write(number: int, database: Database) -> int:
            dice, shipments, new = random.Random(number), SpanShipmentRepository(database), 0
            for at in range(6):
                batch = dice.sample(made, 150)
                new += await shipments.ship(batch, spool_id=f"{number:032x}", state={"at": at})
            return new

        new = await asyncio.gather(*(write(number, database) for number, database in enumerate(databases)))
        assert sum(new) == await count(databases[0]) == 600
        await assert_rollups_are_exact(databases[0])


async def test_writers_that_race_for_a_new_day_make_one_partition(fresh_database: str) -> None:
    async with AsyncExitStack() as stack:
        repositories = []
        for _ in range(8):
            database = Database(fresh_database, max_connections=1)
            await database.open()
            stack.push_async_callback(database.close)
            repositories.append(ObservabilitySpanRepository(database))
        batches = [[a_span(n * 10 + m, started_ns=hour_ago(24 * m + 1)) for m in range(4)] for n in range(8)]
        written = await asyncio.gather(*(r.insert_spans_batch(batch) for r, batch in zip(repositories, batches, strict=True)))
        assert written == [4] * 8
        names = await database.rows("select relname from pg_class where relname ~ '^ml_observability_spans_[0-9]{8}$' and relkind = 'r'")
        assert len(names) == 4


@pytest.mark.parametrize("knows_the_days", [True, False])
async def test_a_writer_that_dies_before_the_commit_counts_nothing(
    shipments: SpanShipmentRepository, database: Database, knows_the_days: bool
) -> None:
    made = random_spans(50, seed=3)
    if knows_the_days:
        await shipments.ship(made, spool_id="other", state={})
        await database.run("truncate ml_observability_spans, agent_latency_rollup")
    other = Database(database.url)
    await other.open()
    async with other.transaction() as connection:  # the writer has written spans and rollups, and waits for this row
        await connection.execute("insert into telemetry_shipments (spool_id, state) values (%s, '{}')", [SPOOL])
        task = asyncio.create_task(shipments.ship(made, spool_id=SPOOL, state={"at": 50}))
        for waiting in await until_one_waits_for_a_lock(connection):
            await connection.execute("select pg_terminate_backend(%s)", [waiting])
        with pytest.raises(BackendUnavailable):
            await task
        await connection.execute("delete from telemetry_shipments")
    assert await count(database) == 0
    assert await database.rows("select * from agent_latency_rollup") == []
    assert await shipments.shipped(SPOOL) is None
    assert await shipments.ship(made, spool_id=SPOOL, state={"at": 50}) == 50
    await assert_rollups_are_exact(database)
    await other.close()


async def test_a_day_ends_at_midnight_in_utc_to_the_nanosecond(repository: ObservabilitySpanRepository, database: Database) -> None:
    midnight = hour_ago(0) // DAY * DAY
    edges = [
        a_span(n, started_ns=at) for n, at in enumerate((midnight - 1, midnight, midnight - DAY, midnight - HOUR, midnight + HOUR - 1))
    ]
    assert await repository.insert_spans_batch(edges) == 5
    rows = await database.rows("select span_id, day, tableoid::regclass::text as name from ml_observability_spans order by span_id")
    today = datetime.fromtimestamp(midnight // 10**9, tz=UTC).date()
    yesterday = today - timedelta(days=1)
    assert [row["day"] for row in rows] == [yesterday, today, yesterday, yesterday, today]
    assert [row["name"] for row in rows] == [f"ml_observability_spans_{row['day']:%Y%m%d}" for row in rows]
    hours = await database.rows(
        "select extract(epoch from bucket)::bigint as at, sum(calls)::int as n from agent_latency_rollup"
        " where level = 'hour' group by 1 order by 1"
    )
    second, hour = midnight // 10**9, 3600
    assert [(row["at"], row["n"]) for row in hours] == [(second - 24 * hour, 1), (second - hour, 2), (second, 2)]


async def test_spans_far_from_now_share_a_partition_and_are_found(repository: ObservabilitySpanRepository, database: Database) -> None:
    far = [hour_ago(24 * days) for days in (500, 800, 5000, -3, -400)] + [0, 2**63 - 1]
    made = [a_span(n, started_ns=at, ended_ns=at) for n, at in enumerate(far)]
    assert await repository.insert_spans_batch([*made, a_span(8)]) == 8
    assert await repository.insert_spans_batch(made) == 0
    where = await database.rows("select tableoid::regclass::text as name, count(*) as n from ml_observability_spans group by 1 order by n")
    assert [row["n"] for row in where] == [1, 7]
    assert where[1]["name"] == "ml_observability_spans_stray"
    found = (await repository.search(SpanQuery(limit=10))).spans
    assert [row.span.started_ns for row in found] == sorted([*far, a_span(8).started_ns], reverse=True)
    assert len((await repository.search(SpanQuery(until=datetime.now(UTC) - timedelta(days=400)))).spans) == 4
    assert len(await repository.get_trace(f"{1:032x}")) == 8


async def test_a_stray_moves_into_its_day_when_the_day_is_made(repository: ObservabilitySpanRepository, database: Database) -> None:
    stray = a_span(1, started_ns=hour_ago(72))
    await repository.insert_span(stray)
    await database.run("update ml_observability_spans set day = 'infinity'")
    async with database.transaction() as connection:
        await connection.execute("select drop_span_day((now() at time zone 'UTC')::date - 3)")
    fresh = ObservabilitySpanRepository(database)
    assert await fresh.insert_spans_batch([stray, replace(stray, span_id="b" * 16)]) == 1
    assert [row["day"] for row in await database.rows("select distinct day from ml_observability_spans")] == [
        datetime.fromtimestamp(stray.started_ns // 10**9, tz=UTC).date()
    ]


async def test_a_writer_goes_on_after_a_day_was_dropped_under_it(repository: ObservabilitySpanRepository, database: Database) -> None:
    await repository.insert_span(a_span(1, started_ns=hour_ago(48)))
    await database.run("select drop_span_day((now() at time zone 'UTC')::date - 2)")
    assert await repository.insert_spans_batch([a_span(2, started_ns=hour_ago(48)), a_span(3)]) == 2
    await database.run("select drop_span_day((now() at time zone 'UTC')::date - 2)")
    assert await repository.insert_spans_batch([a_span(2, started_ns=hour_ago(48)), a_span(3)]) == 1


async def test_merges_beside_inserts_of_the_same_spans_never_wait_in_a_circle(fresh_database: str) -> None:
    async with AsyncExitStack() as stack:
        databases = []
        for _ in range(6):
            database = Database(fresh_database, max_connections=1)
            await database.open()
            stack.push_async_callback(database.close)
            databases.append(database)

        async def write(number: int, made: list[SpanRecord]) -> int:
            some = random.Random(number).sample(made, 30)
            if number % 2:
                return await ObservabilitySpanRepository(databases[number]).insert_spans_batch(some)
            return await SpanShipmentRepository(databases[number]).merge([replace(span, service=f"s{number}") for span in some])

        for turn in range(8):
            made = [a_span(turn * 100 + n, started_ns=hour_ago(24 * turn + 1)) for n in range(40)]
            new = await asyncio.gather(*(write(number, made) for number in range(6)))
            assert sum(new) == len({span.key for number in range(6) for span in random.Random(number).sample(made, 30)})
        assert await databases[0].rows("select sum(calls)::int as n from agent_latency_stats(now() - interval '30 days', now())") == [
            {"n": await count(databases[0])}
        ]


async def test_pieces_of_a_span_come_together_in_any_order(
    shipments: SpanShipmentRepository, repository: ObservabilitySpanRepository, database: Database
) -> None:
    whole = a_span(1, status="error", status_message="no", also={"output": "a"})
    created = replace(
        whole, ended_ns=None, status="unset", status_message=None, attributes={k: v for k, v in whole.attributes.items() if k != "output"}
    )
    ended = SpanRecord(
        trace_id=whole.trace_id, span_id=whole.span_id, parent_span_id=None, name="", started_ns=0, ended_ns=whole.ended_ns,
        status="error", status_message="no", attributes={"output": "a"},
    )  # fmt: skip
    for pieces in ([created, ended], [ended, created], [created, created, ended, created, ended]):
        for at_once in (True, False):
            await database.run("truncate ml_observability_spans, agent_latency_rollup")
            if at_once:
                assert await shipments.merge(pieces) == 1
            else:
                assert [await shipments.merge([piece]) for piece in pieces] == [1] + [0] * (len(pieces) - 1)
            (found,) = await repository.get_trace(whole.trace_id)
            assert found.span == whole
            (line,) = await repository.get_latency_stats()
            assert (line.calls, line.error_rate) == (1, 1)
            assert line.p50_ms == pytest.approx(5, rel=0.01)


async def test_a_corrected_span_moves_to_its_day_and_its_agent(
    shipments: SpanShipmentRepository, repository: ObservabilitySpanRepository, database: Database
) -> None:
    first = a_span(1, started_ns=hour_ago(30), ended_ns=hour_ago(29))
    await shipments.merge([first, a_span(2)])
    late = hour_ago(2)
    changed = replace(
        first, started_ns=late, ended_ns=late + 7_000_000, attributes={"e2i.agent.name": "explainer", "e2i.agent.tier": "self_improvement"}
    )
    assert await shipments.merge([changed]) == 0
    assert await count(database) == 2
    lines = {line.agent_name: line for line in await repository.get_latency_stats("48h")}
    assert {name: line.calls for name, line in lines.items()} == {"causal_impact": 1, "explainer": 1}
    assert lines["explainer"].avg_ms == pytest.approx(7)
    await assert_rollups_are_exact(database)


@pytest.mark.parametrize("seed", range(3))
async def test_merges_at_once_leave_rollups_that_agree_with_the_spans(seed: int, fresh_database: str) -> None:
    made = random_spans(60, seed=seed)
    async with AsyncExitStack() as stack:
        databases = []
        for _ in range(4):
            database = Database(fresh_database, max_connections=2)
            await database.open()
            stack.push_async_callback(database.close)
            databases.append(database)

        async def write(number: int, database: Database) -> None:
            dice, shipments = random.Random(seed * 10 + number), SpanShipmentRepository(database)
            for _ in range(6):
                pieces = [
                    replace(
                        span,
                        started_ns=dice.choice([0, span.started_ns, span.started_ns - DAY]),
                        ended_ns=dice.choice([None, span.ended_ns]),
                    )
                    for span in dice.sample(made, 20)
                ]
                await shipments.merge(pieces)

        await asyncio.gather(*(write(number, database) for number, database in enumerate(databases)))
        assert await count(databases[0]) == len(await databases[0].rows("select distinct trace_id, span_id from ml_observability_spans"))
        await SpanShipmentRepository(databases[0]).merge(made)
        assert await count(databases[0]) == 60
        await assert_rollups_are_exact(databases[0])


async def test_the_address_of_a_trace_may_be_short_or_a_uuid(repository: ObservabilitySpanRepository) -> None:
    ids = ["abcdef" + "0" * 26, "abcdef" + "1" * 26, "0123456789abcdef" * 2]
    await repository.insert_spans_batch([a_span(n, trace_id=trace) for n, trace in enumerate(ids)])
    for text in (ids[2], ids[2][:6], "01234567-89ab-cdef-0123-456789abcdef", f" {ids[2].upper()} "):
        assert [row.span.trace_id for row in await repository.get_trace(text)] == [ids[2]]
    assert await repository.get_trace("ffffff") == []
    assert await repository.get_trace("nonsense%") == []
    with pytest.raises(Conflict, match=f"abcdef is the beginning of {ids[0]}, {ids[1]}"):
        await repository.get_trace("abcdef")
    for short in ("01234", "", "%"):
        with pytest.raises(ConfigError, match="too short"):
            await repository.get_trace(short)


async def test_pages_miss_nothing_and_repeat_nothing_while_spans_arrive(repository: ObservabilitySpanRepository) -> None:
    base = hour_ago(5)
    made = [a_span(n, started_ns=base + n // 7 * HOUR // 7) for n in range(100)]
    await repository.insert_spans_batch(made)
    seen, cursor = [], None
    for page_number in range(100):
        page = await repository.search(SpanQuery(limit=9, cursor=cursor, since=datetime.fromtimestamp(base // 10**9, tz=UTC)))
        seen += [row.span.key for row in page.spans]
        cursor = page.next_cursor
        if cursor is None:
            break
        await repository.insert_span(a_span(1000 + page_number))
    old = {span.key for span in made}
    assert [key for key in seen if key in old] == [span.key for span in sorted(made, key=lambda s: (s.started_ns, *s.key), reverse=True)]
    assert len(seen) == len(set(seen))


async def test_search_finds_what_holds_in_every_respect(repository: ObservabilitySpanRepository) -> None:
    made = random_spans(300, seed=5)
    await repository.insert_spans_batch(made)
    since, until = (datetime.fromtimestamp(hour_ago(hours) // 10**9, tz=UTC) for hours in (15, 3))
    agents = {span.key: span.attributes["e2i.agent.name"] for span in made}

    def operation(span: SpanRecord) -> str:
        return str(span.attributes["e2i.operation.type"])

    cases: list[tuple[dict[str, Any], Any]] = [
        ({"agent": "agent_1"}, lambda s: agents[s.key] == "agent_1"),
        ({"tier": "monitoring", "status": "error"}, lambda s: s.attributes["e2i.agent.tier"] == "monitoring" and s.status == "error"),
        ({"operation": "llm", "minimum_ms": 100.0}, lambda s: operation(s) == "llm" and (s.duration_ms or 0) >= 100),
        ({"since": since, "until": until}, lambda s: since.timestamp() * 1e9 <= s.started_ns < until.timestamp() * 1e9),
        ({"attributes": {"number": 7}}, lambda s: s.attributes["number"] == 7),
        ({"attributes": {"number": 9, "e2i.agent.name": agents[made[9].key]}}, lambda s: s is made[9]),
        ({"attributes": {"number": 9, "e2i.agent.name": "other"}}, lambda _: False),
        ({"attributes": {"number": "7"}}, lambda _: False),
        ({"attributes": {"e2i.fallback.chain": "a"}}, lambda _: False),
        ({"trace_id": made[0].trace_id}, lambda s: s is made[0]),
        ({"agent": "' or 1=1 --"}, lambda _: False),
    ]  # fmt: skip
    for query, holds in cases:
        page = await repository.search(SpanQuery(limit=1000, **query))
        assert {row.span.key for row in page.spans} == {span.key for span in made if holds(span)}, query
        assert page.next_cursor is None


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 10**9}, {"cursor": "nonsense"}, {"since": datetime(2026, 1, 1)}])  # noqa: DTZ001
async def test_a_wrong_question_is_refused_with_advice(repository: ObservabilitySpanRepository, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Give"):
        await repository.search(SpanQuery(**wrong))


async def test_recent_traces_are_sums_of_what_has_arrived(repository: ObservabilitySpanRepository) -> None:
    also = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1, "e2i.cost.usd": 0.5}
    begin = hour_ago(3)
    made = [a_span(n, started_ns=begin + n * HOUR // 60, also=also, status="error" if n == 4 else "ok") for n in range(10)]
    running = [a_span(20 + n, started_ns=begin - n * HOUR) for n in range(1, 4)]  # their root has not arrived
    remote = [a_span(30, parent_span_id="f" * 16, name="POST /ask"), a_span(31)]  # its parent never will
    await repository.insert_spans_batch([*made, *running, *remote])
    newest, whole, rootless = await repository.recent_traces()
    assert (whole.trace_id, whole.root_name, whole.spans, whole.errors, whole.agents) == (
        made[0].trace_id,
        "step 0",
        10,
        1,
        ("causal_impact",),
    )
    assert (whole.input_tokens, whole.output_tokens, whole.total_cost) == (100, 10, pytest.approx(5.0))
    assert whole.duration_ms == pytest.approx(9 * 60_000 + 5)
    assert whole.started_at == datetime.fromtimestamp(begin / 10**9, tz=UTC).replace(microsecond=begin // 1000 % 10**6)
    assert (newest.root_name, newest.spans) == ("POST /ask", 2)
    assert (rootless.root_name, rootless.spans) == (None, 3)
    assert [trace.root_name for trace in await repository.recent_traces(limit=1)] == ["POST /ask"]
    assert await repository.recent_traces(agent="nobody") == []
    assert len(await repository.recent_traces(since=datetime.now(UTC) - timedelta(hours=2))) == 1


async def test_an_unknown_cost_stays_unknown_everywhere(database: Database, repository: ObservabilitySpanRepository) -> None:
    free = {"e2i.agent.name": "free", "e2i.cost.usd": 0.0}
    await repository.insert_spans_batch([a_span(0), a_span(10, also=free), a_span(11, also={"e2i.agent.name": "free"})])
    assert {line.agent_name: line.total_cost for line in await repository.get_latency_stats()} == {"causal_impact": None, "free": 0.0}
    assert {trace.trace_id[-1]: trace.total_cost for trace in await repository.recent_traces()} == {"1": None, "2": 0.0}
    shipments = SpanShipmentRepository(database)
    await shipments.merge([a_span(0, also={"e2i.cost.usd": 0.25})])
    assert [line.total_cost for line in await repository.get_latency_stats(agent="causal_impact")] == [0.25]
    await shipments.merge([a_span(0, also={"e2i.cost.usd": "unknown"})])
    assert [line.total_cost for line in await repository.get_latency_stats(agent="causal_impact")] == [None]
    await assert_rollups_are_exact(database)


async def test_a_part_of_a_call_counts_with_its_tokens_and_is_no_call(database: Database, repository: ObservabilitySpanRepository) -> None:
    part = {"e2i.agent.is_part": True, "e2i.operation.type": "llm", "gen_ai.usage.input_tokens": 100, "e2i.cost.usd": 0.5}
    lone = {**part, "e2i.agent.name": "still_at_work"}
    silent = {"e2i.agent.is_part": True, "e2i.agent.name": "silent"}
    failed = [a_span(n, also=part, status="error") for n in (1, 2)]
    await repository.insert_spans_batch([a_span(0), *failed, a_span(10, also=lone), a_span(20, also=silent)])
    mine, other = await repository.get_latency_stats()
    assert (mine.agent_name, mine.calls, mine.error_rate, mine.input_tokens, mine.total_cost) == ("causal_impact", 1, 0.0, 200, 1.0)
    assert mine.p50_ms == pytest.approx(5, rel=0.01)
    assert (other.agent_name, other.calls, other.avg_ms, other.p99_ms, other.error_rate) == ("still_at_work", 0, 0.0, 0.0, 0.0)
    assert (other.input_tokens, other.total_cost) == (100, 0.5)
    rows = {row["agent_name"]: row for row in await assert_rollups_are_exact(database)}
    assert {name: (row["total_spans"], row["calls"]) for name, row in rows.items()} == {
        "causal_impact": (3, 1), "still_at_work": (1, 0), "silent": (1, 0)
    }  # fmt: skip
    assert {rows["silent"][name] for name in ("avg_duration_ms", "p50_ms", "p99_ms", "error_rate", "fallback_rate")} == {None}


async def test_what_sampling_leaves_out_counts_once_and_has_no_row(database: Database, shipments: SpanShipmentRepository) -> None:
    repository = ObservabilitySpanRepository(database)
    broken = a_span(9, started_ns="noon", ended_ns=None)
    for _ in range(3):  # the answer to the first was lost
        await shipments.ship([a_span(0)], spool_id=SPOOL, state={"at": 1}, left_out=[a_span(1), a_span(2), broken])
    await shipments.ship([], spool_id=SPOOL, state={"at": 2}, left_out=[a_span(3, also={"e2i.agent.name": "a\0b"})])
    assert await count(database) == 1
    assert sum(line.calls for line in await repository.get_latency_stats()) == 4
    with pytest.raises(BackendRejected):
        await shipments.ship([a_span(5, span_id="")], spool_id=SPOOL, state={"at": 3}, left_out=[a_span(4)])
    assert sum(line.calls for line in await repository.get_latency_stats()) == 4


async def test_the_newest_traces_are_told_by_their_first_span_however_long_they_run(repository: ObservabilitySpanRepository) -> None:
    dice, made = random.Random(1), []
    for trace in range(60):
        begin = hour_ago(20) + trace * HOUR // 4
        made += [
            a_span(
                n,
                trace_id=f"{trace + 1:032x}",
                span_id=f"{trace:08x}{n:08x}",
                started_ns=begin + dice.randrange(9 * HOUR) * bool(n),
                parent_span_id=None,
            )
            for n in range(80)
        ]
    await repository.insert_spans_batch(made)
    expected = [f"{60 - n:032x}" for n in range(60)]
    for limit in (1, 7, 20, 100):
        assert [trace.trace_id for trace in await repository.recent_traces(limit=limit)] == expected[:limit]


async def test_spans_of_other_teams_need_no_tier(repository: ObservabilitySpanRepository, database: Database) -> None:
    await repository.insert_spans_batch(
        [
            a_span(1, attributes={"gen_ai.agent.name": "theirs"}, origin="otlp"),
            a_span(2, attributes={}),
            a_span(3, attributes={"e2i.agent.name": "a", "e2i.operation.type": "step"}),
        ]
    )
    assert [(line.agent_name, line.agent_tier, line.calls) for line in await repository.get_latency_stats(tier="unknown")] == [
        ("theirs", "unknown", 1)
    ]
    await assert_rollups_are_exact(database)


async def test_times_without_a_zone_and_empty_windows_are_refused(repository: ObservabilitySpanRepository) -> None:
    for window in ("", "24", "h", "0h", "-1d", "1.5h", "24 h", "1w", "9999999999d", "24h; drop table x", "٣h"):
        with pytest.raises(ConfigError, match=r"is no window.*24h"):
            await repository.get_latency_stats(window)
    for window in ("1h", "24h", "7d", "30d", "999999d"):
        assert await repository.get_latency_stats(window) == []
