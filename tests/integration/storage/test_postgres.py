"""Transactions, and what becomes of PostgreSQL's errors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from databases import administer, with_name
from e2i.errors import BackendRejected, BackendUnavailable, Conflict, E2IError, MigrationNeeded, NotFound, StorageError
from e2i.storage.address import sqlalchemy_url, url_in_schema
from e2i.storage.postgres import Database, as_json


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    await database.run("create table t (n integer primary key)")

    async def half() -> None:
        async with database.transaction() as connection:
            await connection.execute("insert into t values (1)")
            raise KeyError("ours")

    with pytest.raises(KeyError):
        await half()
    assert await database.rows("select * from t") == []
    async with database.transaction() as connection:
        await connection.execute("insert into t values (2)")
    assert await database.row("select n from t") == {"n": 2}


@pytest.mark.parametrize(
    ("statement", "ours"),
    [
        ("insert into t values (1, 1), (1, 1)", Conflict),
        ("insert into t values (2, -1)", Conflict),
        ("insert into t values (null, 1)", Conflict),
        ("insert into child values (7)", NotFound),
        ("select * from nowhere", MigrationNeeded),
        ("select nothing from t", MigrationNeeded),
        ("select nothing()", MigrationNeeded),
        ("select * from nowhere.t", MigrationNeeded),
        ("insert into t values (99999999999, 1)", StorageError),
        ("select 1 / 0", StorageError),
        ("selekt", StorageError),
        ("select pg_terminate_backend(pg_backend_pid())", BackendUnavailable),
        ("do $$ begin raise exception 'x' using errcode = 'serialization_failure'; end $$", BackendUnavailable),
        ("do $$ begin raise exception 'x' using errcode = 'deadlock_detected'; end $$", BackendUnavailable),
        ("do $$ begin raise exception 'x' using errcode = 'too_many_connections'; end $$", BackendUnavailable),
        ("do $$ begin raise exception 'x' using errcode = 'cannot_connect_now'; end $$", BackendUnavailable),
        ("do $$ begin raise exception 'x' using errcode = 'connection_failure'; end $$", BackendUnavailable),
        ("do $$ begin raise exception 'x' using errcode = 'insufficient_privilege'; end $$", BackendRejected),
        ("set statement_timeout = 20; select pg_sleep(2)", BackendUnavailable),
        ("set transaction_read_only = on; create table u ()", BackendUnavailable),
    ],
)
async def test_each_error_of_the_server_becomes_the_one_that_says_what_to_do(
    database: Database, statement: str, ours: type[E2IError]
) -> None:
    await database.run("create table t (n integer primary key, p integer check (p > 0)); create table child (n integer references t)")
    with pytest.raises(E2IError) as caught:
        await database.run(statement)  # type: ignore[arg-type]
    assert type(caught.value) is ours
    assert caught.value.advice
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert "/test_" in str(caught.value.where)
    assert await database.row("select 1 as one") == {"one": 1}, "the next transaction works"


async def test_a_full_disk_says_so(database: Database) -> None:
    with pytest.raises(StorageError, match="disk is full") as caught:
        await database.run("do $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$")
    assert "free some space" in str(caught.value.advice)


async def test_a_deadlock_ends_in_an_error_that_may_be_tried_again(database: Database) -> None:
    await database.run("create table t as select generate_series(1, 2) as n, 0 as v")

    async def update(first: int, second: int, met: asyncio.Barrier) -> None:
        async with database.transaction() as connection:
            await connection.execute("set local deadlock_timeout = '50ms'")
            await connection.execute("update t set v = v + 1 where n = %(n)s", {"n": first})
            await met.wait()
            await connection.execute("update t set v = v + 1 where n = %(n)s", {"n": second})

    met = asyncio.Barrier(2)
    results = await asyncio.gather(update(1, 2, met), update(2, 1, met), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["BackendUnavailable", "NoneType"]


async def test_a_server_that_is_not_there_is_said_soon_and_without_the_password() -> None:
    db = Database("postgresql://me:secret@127.0.0.1:1/e2i")
    await db.open()
    with pytest.raises(BackendUnavailable, match="Connection refused") as caught:
        await asyncio.wait_for(db.run("select 1"), 5)
    assert caught.value.where == "127.0.0.1:1/e2i"
    assert "secret" not in str(caught.value)
    await db.close()


async def test_a_wrong_password_and_a_wrong_database_are_no_passing_faults(database_url: str, server_url: str) -> None:
    for url in (with_name(server_url, "nowhere"), database_url.replace("e2i:", "e2i:x")):
        db = Database(url)
        await db.open()
        with pytest.raises(BackendRejected, match=r"Check DATABASE_URL"):
            await db.run("select 1")
        with pytest.raises(BackendRejected):
            await db.dedicated()
        await db.close()


async def test_connections_that_the_server_dropped_are_replaced_unseen(database: Database) -> None:
    await asyncio.gather(*(database.run("select pg_sleep(0.05)") for _ in range(5)))
    administer(
        database.url,
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    await asyncio.gather(*(database.run("select pg_sleep(0.01)") for _ in range(5)))


async def test_waiting_for_a_free_connection_ends(fresh_database: str) -> None:
    db = Database(fresh_database, max_connections=1, patience_s=0.1)
    await db.open()
    async with db.transaction():
        with pytest.raises(BackendUnavailable, match="no free database connection"):
            await db.run("select 1")
    await db.run("select 1")
    await db.close()
    with pytest.raises(StorageError, match="closed"):
        await db.run("select 1")


async def test_what_json_cannot_hold_is_refused_before_it_is_sent(database: Database) -> None:
    import numpy as np

    await database.run("create table t (j jsonb)")
    await database.run("insert into t values (%(j)s)", j=as_json({"n": np.int64(3), "f": np.float32(0.5), "ü": [1, None, (2,)]}))
    assert await database.row("select j from t") == {"j": {"n": 3, "f": 0.5, "ü": [1, None, [2]]}}
    for wrong in (float("nan"), float("inf"), object(), {1, 2}):
        with pytest.raises(StorageError, match="JSON"):
            await database.run("insert into t values (%(j)s)", j=as_json(wrong))
    with pytest.raises(StorageError, match="value was refused"):
        await database.run("insert into t values (%(j)s)", j=as_json("nul \x00"))
    with pytest.raises(StorageError, match="value was refused"):
        await database.run("select %(t)s", t="nul \x00")


async def test_a_url_in_a_schema_makes_its_tables_there_and_sees_no_others(database: Database) -> None:
    with psycopg.connect(url_in_schema(f"{database.url.split('?')[0]}?options=-cstatement_timeout%3D4321", schema="mlflow")) as connection:
        connection.execute("create table visitors (n integer)")
        assert connection.execute("show statement_timeout").fetchone() == ("4321ms",)
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("select * from ml_experiments")
        connection.rollback()
        connection.execute("create table visitors (n integer)")
    assert await database.rows("select table_schema as s from information_schema.tables where table_name = 'visitors'") == [{"s": "mlflow"}]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, from SQLAlchemy 2.1
def test_mlflow_keeps_its_tables_in_its_own_schema(fresh_database: str, tmp_path: Path) -> None:
    import mlflow
    from mlflow.tracking import MlflowClient

    client = MlflowClient(
        tracking_uri=sqlalchemy_url(fresh_database, schema="mlflow"), registry_uri=sqlalchemy_url(fresh_database, schema="mlflow")
    )
    experiment = client.create_experiment("e", artifact_location=str(tmp_path))
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "auc", 0.8)
    assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.8}
    assert mlflow.__version__
    assert _tables(fresh_database, "runs") == ["mlflow"]
    assert _tables(fresh_database, "alembic_version") == ["mlflow"]
    client._tracking_client.store.engine.dispose()


def test_optuna_keeps_its_tables_in_its_own_schema(fresh_database: str) -> None:
    import optuna

    storage = optuna.storages.RDBStorage(sqlalchemy_url(fresh_database, schema="optuna"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(optuna.load_study(storage=storage, study_name="s").trials) == 2
    storage.engine.dispose()
    assert _tables(fresh_database, "trials") == ["optuna"]
    assert _tables(fresh_database, "alembic_version") == ["optuna"]


def _tables(url: str, name: str) -> list[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("select table_schema from information_schema.tables where table_name = %s order by 1", (name,))
        return [row[0] for row in found]
