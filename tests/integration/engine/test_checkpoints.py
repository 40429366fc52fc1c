"""Checkpoints in a real PostgreSQL that goes away, or loses its tables, in the middle of an agent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import psycopg
import pytest

from e2i.domain.runs import Tier
from e2i.engine.checkpoint import postgres_checkpoints
from e2i.engine.graph import Engine
from e2i.engine.spec import AgentSpec
from e2i.errors import BackendUnavailable, StorageError

OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


@dataclass(frozen=True, kw_only=True)
class State:
    path: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Deps:
    url: str
    harm: list[str] = field(default_factory=list)


async def first(state: State, deps: Deps) -> State:
    return replace(state, path=(*state.path, "first"))


async def second(state: State, deps: Deps) -> State:
    for statement in deps.harm:
        with psycopg.connect(deps.url, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]
    return replace(state, path=(*state.path, "second"))


SPEC = AgentSpec(name="tried", tier=Tier.ML_FOUNDATION, kind="standard", budget_s=60, steps=[first, second])


async def test_a_database_that_goes_away_under_an_agent_may_come_back_and_the_agent_goes_on(fresh_database: str) -> None:
    deps = Deps(url=fresh_database, harm=[OTHERS])
    async with postgres_checkpoints(fresh_database) as saver:
        with pytest.raises(BackendUnavailable, match="checkpoint"):
            await Engine(saver=saver).run(SPEC, State(), deps, run_id="r")
    deps.harm.clear()
    async with postgres_checkpoints(fresh_database) as saver:
        done = await Engine(saver=saver).run(SPEC, State(), deps, run_id="r")
    assert done.path == ("first", "second")


async def test_checkpoints_that_lost_their_tables_are_an_error_of_ours(fresh_database: str) -> None:
    deps = Deps(url=fresh_database, harm=["alter schema langgraph rename to gone"])
    async with postgres_checkpoints(fresh_database) as saver:
        with pytest.raises(StorageError, match="checkpoint"):
            await Engine(saver=saver).run(SPEC, State(), deps, run_id="r")
