"""PostgreSQL away, killed, frozen, crowded, full, locked, read-only, empty, shared; every test counts every span at the end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from observed_home import ObservedHome, check, complaint, delivered, moved, progress
from own_server import OwnServer, ask, fill_disk, give, name_of, small_disk
from ship_to_table import Shippers

from databases import administer, empty_database, with_name
from otlp_server import OtlpServer

GONE = "refused|terminat|closed|shut|starting|reset|lost|recovery|not yet accepting|crash"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    own = OwnServer()
    yield own
    own.close()


@pytest.fixture
def url(server: OwnServer) -> Iterator[str]:
    """A new database without tables on the server of its own: the shipper makes them."""
    with empty_database(server.url) as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, url: str) -> Iterator[ObservedHome]:
    made = ObservedHome(tmp_path / "home", url)
    yield made
    made.close()


async def elsewhere(work: object, *arguments: object) -> None:
    """What blocks runs beside the loop, in which the shipper and the emitter go on: it may wait for a lock that the shipper holds."""
    await asyncio.to_thread(work, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_a_server_that_is_stopped_and_started_again_has_every_span_once(server: OwnServer, home: ObservedHome, how: str) -> None:
    async with home.shipping() as shipper:
        for _ in range(2):
            await progress(shipper)
            await elsewhere(server.stop, how)
            await complaint(shipper, GONE)
            before = await home.account()
            await asyncio.sleep(0.2)
            assert (await home.account()).in_spool > before.in_spool
            await elsewhere(server.start)
            await progress(shipper)
    await check(home.url, home)


async def test_a_server_that_crashes_over_one_killed_backend_has_every_span_once(server: OwnServer, home: ObservedHome) -> None:
    async with home.shipping() as shipper:
        for _ in range(5):
            await progress(shipper)
            killed = await asyncio.to_thread(server.backends)
            assert killed
            for pid in killed:
                with suppress(ProcessLookupError):  # the server itself ends the others when one crashes
                    os.kill(pid, signal.SIGKILL)
        await progress(shipper)
    assert "was terminated by signal 9" in server.log()
    await check(home.url, home)


async def test_sessions_that_are_terminated_at_any_moment_lose_and_repeat_nothing(server: OwnServer, home: ObservedHome) -> None:
    chance, ended = random.Random(3), 0
    async with home.shipping() as shipper:
        await progress(shipper)
        for _ in range(40):
            await asyncio.sleep(chance.random() * 0.06)
            ended += await asyncio.to_thread(server.terminate)
        assert ended >= 1  # how many it hits is chance
    await check(home.url, home)


async def test_a_server_without_a_free_connection_is_waited_for(server: OwnServer, home: ObservedHome) -> None:
    async with home.shipping() as shipper:
        await progress(shipper)
        with ExitStack() as crowd:
            assert await asyncio.to_thread(crowd.enter_context, server.crowded()) > 150
            assert "too many" in await complaint(shipper, "too many clients|remaining connection slots")
            reached = (await home.account()).delivered
            await asyncio.sleep(0.3)
            assert (await home.account()).delivered == reached
    await check(home.url, home)


async def test_a_server_that_stands_still_is_cut_off_and_has_every_span_once(server: OwnServer, home: ObservedHome) -> None:
    async with home.shipping(call_timeout_s=0.5) as shipper:
        await progress(shipper)
        with server.frozen():
            await complaint(shipper, "no answer within|timeout")
            assert (await home.account()).in_spool
    await check(home.url, home)


async def test_a_table_on_a_full_disk_costs_no_span(server: OwnServer, tmp_path: Path) -> None:
    """A file system of 40 MB in memory is the tablespace; other files fill it."""
    name = f"small_{os.getpid()}"
    with small_disk(server.folder / "disk", 40) as disk:
        if disk is None:
            pytest.skip("this user may not mount a file system; see the test after this one")
        give(disk, server)
        administer(server.url, f"create tablespace {name} location '{disk}'", f"create database {name} tablespace {name}")
        home = ObservedHome(tmp_path / "home", with_name(server.url, name))
        async with home.shipping() as shipper:
            await progress(shipper)
            ballast = await asyncio.to_thread(fill_disk, disk)
            assert "disk is full" in await complaint(shipper, "No space left on device")
            reached = (await home.account()).delivered
            await asyncio.sleep(0.3)
            assert (await home.account()).delivered == reached
            ballast.unlink()
        await check(home.url, home)
        home.close()
        administer(server.url, f"drop database {name} with (force)", f"drop tablespace {name}")


async def test_a_server_that_goes_down_over_a_full_disk_has_every_span_once_when_there_is_room_again(tmp_path: Path) -> None:
    """Its whole folder is on a file system of 300 MB: no room for the write-ahead log ends the server itself."""
    with small_disk(tmp_path / "disk", 300) as disk:
        if disk is None:
            pytest.skip("this user may not mount a file system")
        server = OwnServer(disk)
        home = ObservedHome(tmp_path / "home", server.url)
        async with home.shipping() as shipper:
            await progress(shipper)
            ballast = await asyncio.to_thread(fill_disk, disk)
            await asyncio.to_thread(server.use_up_log)
            await complaint(shipper, GONE)
            assert (await home.account()).in_spool
            ballast.unlink()
            await elsewhere(server.start)
        await check(home.url, home)
        home.close()
        server.close()


@pytest.mark.parametrize("code", ["53100", "53200", "53400", "58030", "XX000", "57P05"])
async def test_what_the_server_lacks_is_no_records_fault(home: ObservedHome, code: str) -> None:
    """Disk full, out of memory, limit exceeded, I/O error, internal error: raised by a trigger in the middle of a batch."""
    async with home.shipping() as shipper:
        await progress(shipper)
        await elsewhere(
            administer,
            home.url,
            "create function sick() returns trigger language plpgsql as"
            f" $$ begin raise exception 'sick %', 1 using errcode = '{code}'; end $$",
            "create trigger sick before insert on ml_observability_spans for each row when (new.operation_type = 'tool')"
            " execute function sick()",
        )
        await complaint(shipper, "sick 1")
        await asyncio.sleep(0.3)
        # the table first, then its partitions, as writers do: the other way round they might wait for each other
        await elsewhere(
            administer, home.url, "begin; lock table ml_observability_spans; drop trigger sick on ml_observability_spans; commit"
        )
    await check(home.url, home)


async def test_statements_that_take_too_long_are_tried_again(server: OwnServer, home: ObservedHome) -> None:
    async with home.shipping() as shipper:
        await progress(shipper)
        database = name_of(home.url)
        await elsewhere(administer, home.url, f"alter database {database} set statement_timeout = '100ms'")
        await asyncio.to_thread(server.terminate)
        with psycopg.connect(home.url) as other:
            await elsewhere(other.execute, "lock table ml_observability_spans in access exclusive mode")
            await complaint(shipper, "statement timeout")
        await progress(shipper)
        await elsewhere(administer, home.url, f"alter database {database} set statement_timeout = '1ms'")
        await asyncio.to_thread(server.terminate)
        await complaint(shipper, "statement timeout")
        await elsewhere(administer, home.url, f"alter database {database} reset statement_timeout")
    await check(home.url, home)


async def test_a_database_that_is_read_only_for_a_while_has_every_span_once(server: OwnServer, home: ObservedHome) -> None:
    """Sessions that began meanwhile stay read-only: nobody ends them, the shipper has to."""
    async with home.shipping() as shipper:
        await progress(shipper)
        database = name_of(home.url)
        await elsewhere(administer, home.url, f"alter database {database} set default_transaction_read_only = on")
        await asyncio.to_thread(server.terminate)
        await complaint(shipper, "read-only")
        with psycopg.connect(home.url, autocommit=True, options="-c default_transaction_read_only=off") as other:
            other.execute(f"alter database {database} reset default_transaction_read_only")  # type: ignore[arg-type]
    await check(home.url, home)


async def test_shipping_begins_before_there_is_a_server_a_database_or_a_table(server: OwnServer, tmp_path: Path) -> None:
    name = f"later_{os.getpid()}"
    home = ObservedHome(tmp_path / "home", with_name(server.url, name))
    home.emit(50)
    server.stop("fast")
    async with home.shipping() as shipper:
        await complaint(shipper, "refused")
        await elsewhere(server.start)
        await complaint(shipper, "does not exist")
        assert (await home.account()).delivered == 0
        await elsewhere(administer, server.url, f"create database {name}")
        await progress(shipper)
    await check(home.url, home)
    home.close()
    administer(server.url, f"drop database {name} with (force)")


async def test_tables_that_this_user_may_not_make_are_waited_for(url: str, tmp_path: Path) -> None:
    user = f"clerk_{os.getpid()}"
    administer(url, f"create role {user} login password 'p'")
    home = ObservedHome(tmp_path / "home", f"postgresql://{user}:p@{url.partition('@')[2]}")
    async with home.shipping() as shipper:
        assert "needs the right to create" in await complaint(shipper, "permission denied")
        assert (await home.account()).delivered == 0
        await elsewhere(
            administer,
            url,
            "create extension vector",
            f"grant all on schema public to {user}",
            f"grant create on database {name_of(url)} to {user}",
        )
        await progress(shipper)
    await check(url, home)
    home.close()
    administer(url, f"drop owned by {user}", f"drop role {user}")


async def _migrate(url: str) -> None:
    from e2i.storage import migrate
    from e2i.storage.postgres import Database

    database = Database(url)
    await database.open()
    await migrate.upgrade(database)
    await database.close()


async def test_a_table_that_is_away_for_a_while_costs_no_span(home: ObservedHome) -> None:
    async with home.shipping() as shipper:
        for table in ("ml_observability_spans", "agent_latency_rollup", "telemetry_shipments"):
            await progress(shipper)
            await elsewhere(administer, home.url, f"alter table {table} rename to elsewhere")
            await complaint(shipper, f"{table}.* does not exist")
            await asyncio.sleep(0.1)
            await elsewhere(administer, home.url, f"alter table elsewhere rename to {table}")
    await check(home.url, home)


async def test_a_database_that_was_replaced_by_an_empty_one_gets_its_tables_and_what_the_spool_still_holds(
    server: OwnServer, home: ObservedHome
) -> None:
    async with home.shipping(emits=False) as shipper:
        home.emit(100)
        await delivered(shipper, 400)
        await elsewhere(administer, server.url, f"drop database {name_of(home.url)} with (force)", f"create database {name_of(home.url)}")
        home.emit(100)
        await delivered(shipper, 400)
    rows = set(ask(home.url, "select trace_id, span_id from ml_observability_spans"))
    assert rows >= set(home.emitted[400:])
    (account,) = await home.kept_accounts()
    assert (account.delivered, account.in_spool, account.unexplained) == (len(rows), 0, 0)


async def test_shippers_killed_at_any_moment_leave_every_span_in_the_table_once(home: ObservedHome) -> None:
    chance = random.Random(11)
    await _migrate(home.url)
    emitting = asyncio.create_task(home.keep_emitting(every_s=0.02))
    with Shippers() as shippers:
        for number in range(32):
            pid = await asyncio.to_thread(shippers.begin, home.settings)
            if number % 4:  # at work; the others at their start
                await moved(home)
            await asyncio.sleep(chance.random() * 0.05)
            os.kill(pid, signal.SIGKILL)
            assert await asyncio.to_thread(shippers.end) == signal.SIGKILL
            await home.account()
            ((rows, distinct),) = ask(home.url, "select count(*), count(distinct (trace_id, span_id)) from ml_observability_spans")
            assert rows == distinct
    emitting.cancel()
    async with home.shipping(emits=False):
        pass
    await check(home.url, home)


async def test_two_machines_ship_into_one_database_at_once(server: OwnServer, home: ObservedHome, tmp_path: Path) -> None:
    other = ObservedHome(tmp_path / "other", home.url)
    chance = random.Random(5)
    async with home.shipping() as first, other.shipping() as second:
        await asyncio.gather(progress(first), progress(second))
        for _ in range(10):
            await asyncio.sleep(chance.random() * 0.1)
            await asyncio.to_thread(server.terminate)
        await asyncio.gather(progress(first), progress(second))
    await check(home.url, home, other)
    other.close()


async def test_a_dead_collector_keeps_nothing_from_the_table_and_is_served_later(server: OwnServer, url: str, tmp_path: Path) -> None:
    collector = OtlpServer()
    home = ObservedHome(tmp_path / "home", url, otlp=collector.url)
    async with home.shipping() as shipper:
        await progress(shipper)
        await complaint(shipper, "no answer", sink="otlp")
        await elsewhere(server.stop, "immediate")
        await complaint(shipper, GONE)
        await elsewhere(server.start)
        await progress(shipper, 400)
        table, dead = await home.account(), await home.account("otlp")
        assert (dead.delivered, dead.in_spool) == (0, dead.emitted)
        assert table.delivered > 500
        collector.start()
        await delivered(shipper, len(home.emitted), sink="otlp")
    assert set(collector.spans) == set(home.emitted)
    collector.stop()
    await check(url, home)
    home.close()
