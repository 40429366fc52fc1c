"""A run belongs to one live process; a dead one's run goes on where it stopped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from databases import administer
from e2i.domain.runs import StudyRun
from e2i.errors import BackendUnavailable, Conflict
from e2i.storage.postgres import Database
from e2i.storage.repositories import RunRepository

NOW = datetime(2026, 3, 6, tzinfo=UTC)
HOLDER = """
import asyncio, sys
from datetime import UTC, datetime
from e2i.domain.runs import StudyRun
from e2i.storage.postgres import Database
from e2i.storage.repositories import RunRepository

async def main():
    db = Database(sys.argv[1])
    await db.open()
    run = await RunRepository(db).claim(StudyRun(run_id=sys.argv[2], study="lift", fingerprint=sys.argv[3], status="running",
        experiment_id=None, trace_id="t", started_at=datetime(2026, 3, 6, tzinfo=UTC)))
    print(run.run_id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def holders() -> Iterator[list[subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


def hold(url: str, run_id: str, fingerprint: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url, run_id, fingerprint], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == run_id
    return process


def a_run(run_id: str, fingerprint: str = "f", **changes: object) -> StudyRun:
    run = StudyRun(
        run_id=run_id, study="lift", fingerprint=fingerprint, status="running", experiment_id=None, trace_id=None, started_at=NOW
    )
    return replace(run, **changes)  # type: ignore[arg-type]


async def claim_soon(runs: RunRepository, run: StudyRun) -> StudyRun:
    deadline = time.monotonic() + 5
    while True:
        try:
            return await runs.claim(run)
        except Conflict:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def test_a_run_in_live_hands_is_refused_and_a_killed_one_is_taken_over_at_once(
    database: Database, holders: list[subprocess.Popen[str]]
) -> None:
    runs = RunRepository(database)
    holders.append(hold(database.url, "r1", "f"))
    with pytest.raises(Conflict, match=rf"run r1 of study lift is in the hands of another process \(pid {holders[0].pid} on "):
        await runs.claim(a_run("r2"))
    assert (await runs.claim(a_run("r3", "another"))).run_id == "r3"
    holders[0].kill()
    begun = time.monotonic()
    run = await claim_soon(runs, a_run("r2"))
    assert time.monotonic() - begun < 1.0
    assert (run.run_id, run.trace_id, run.status) == ("r1", "t", "running"), "it is the old run that goes on"
    assert [run.run_id for run in await runs.recent()].count("r2") == 0
    await runs.finish(replace(run, status="completed", finished_at=NOW))


async def test_a_run_is_running_as_long_as_its_process_and_interrupted_after_it(
    database: Database, holders: list[subprocess.Popen[str]]
) -> None:
    runs, ours = RunRepository(database), [f"f{number}" for number in range(8)]  # locks with either sign
    for fingerprint in ours:
        await runs.claim(a_run(f"of {fingerprint}", fingerprint))
    holders.append(hold(database.url, "theirs", "f"))
    assert {run.status for run in await runs.recent()} == {"running"}
    holders[0].kill()
    holders[0].wait()
    deadline = time.monotonic() + 5
    while {run.run_id: run.status for run in await runs.recent()} != {f"of {name}": "running" for name in ours} | {"theirs": "interrupted"}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_one_process_claims_a_run_once(database: Database) -> None:
    runs = RunRepository(database)
    claims = await asyncio.gather(*(runs.claim(a_run(f"r{number}")) for number in range(6)), return_exceptions=True)
    assert [type(claim).__name__ for claim in claims].count("StudyRun") == 1
    assert [type(claim).__name__ for claim in claims].count("Conflict") == 5
    assert len(await runs.recent()) == 1


async def test_a_finished_run_is_not_taken_over(database: Database) -> None:
    runs = RunRepository(database)
    run = await runs.claim(a_run("r1"))
    await runs.finish(replace(run, status="blocked", finished_at=NOW + timedelta(seconds=1), report_path="report.json"))
    assert (await runs.claim(a_run("r2"))).run_id == "r2"
    newer = await runs.recent(1)
    assert len(newer) == 1


async def test_the_newest_of_several_unfinished_runs_is_taken_over(database: Database) -> None:
    for number, age in (("r1", 2), ("r2", 0), ("r3", 1)):
        other = Database(database.url)
        await other.open()
        await RunRepository(other).claim(a_run(number, f"f{number}", started_at=NOW - timedelta(hours=age)))
        await other.close()
    await database.run("update study_runs set fingerprint = 'f'")
    assert (await claim_soon(RunRepository(database), a_run("r4"))).run_id == "r2"


async def test_who_lost_the_run_to_another_process_cannot_finish_it(database: Database) -> None:
    first, second = RunRepository(database), RunRepository(database)
    run = await first.claim(a_run("r1"))
    administer(
        database.url,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'e2i lock' and datname = current_database()",
    )
    taken = await claim_soon(second, a_run("r2"))
    assert taken.run_id == "r1"
    with pytest.raises(Conflict, match="taken over by another process"):
        await first.finish(replace(run, status="failed", finished_at=NOW))
    assert (await first.recent())[0].status == "running"
    await second.finish(replace(taken, status="completed", finished_at=NOW))


async def test_a_run_whose_connection_was_dropped_and_that_nobody_took_is_finished_by_its_process(database: Database) -> None:
    runs = RunRepository(database)
    run = await runs.claim(a_run("r1"))
    administer(
        database.url,
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    await runs.finish(replace(run, status="completed", finished_at=NOW))
    assert (await runs.recent())[0].status == "completed"


async def test_a_claim_on_a_server_that_is_not_there_is_a_passing_fault() -> None:
    db = Database("postgresql://me@127.0.0.1:1/x")
    with pytest.raises(BackendUnavailable):
        await RunRepository(db).claim(a_run("r1"))
