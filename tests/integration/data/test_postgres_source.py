"""Tables and queries of a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import psycopg
import pytest

from databases import administer, empty_database
from e2i.data.sources import LocalFrameSource
from e2i.domain.data_spec import DataSpec
from e2i.errors import BackendRejected, BackendUnavailable, NotFound, SchemaMismatch, TooFewRows
from e2i.ports.data import Snapshot

SOURCE = LocalFrameSource()
ROWS = """
create table "Visits 2024" (
  npi text, decile int, share numeric(8,3), score double precision, seen date, at timestamptz,
  plain timestamp, ok boolean, "odd ""name" text
);
insert into "Visits 2024" values
  ('B', 2, 1.250, 'Infinity', '2024-01-12', '2024-01-05 12:00+02', '2024-01-05 10:00:00.5', false, E'x,\\n"y"'),
  ('A', 1, 0.500, 'NaN', '2024-01-05', '2024-01-05 10:00+00', '2024-01-05 10:00', true, ''),
  (null, null, null, null, null, null, null, null, null);
create table nothing (a int);
create schema sales;
create table sales.panel (a int);
insert into sales.panel select generate_series(1, 1000);
"""


@pytest.fixture(scope="module")
def url(database_url: str) -> Iterator[str]:
    with empty_database(database_url) as name:
        administer(name, ROWS)
        yield name


def load(url: str, columns: list[str] | None = None, **what: str) -> Snapshot:
    return SOURCE.load(DataSpec(source=url, **what), base=Path(), columns=columns)  # type: ignore[arg-type]


def test_a_table_keeps_types_gaps_and_awkward_names(url: str) -> None:
    frame = load(url, table="Visits 2024").frame
    first, second, third = frame.rows()
    assert first == (
        "A",
        1,
        0.5,
        None,
        date(2024, 1, 5),
        datetime(2024, 1, 5, 10, tzinfo=UTC),
        datetime.fromisoformat("2024-01-05T10:00:00"),
        True,
        "",
    )
    assert second[3:] == (
        float("inf"),
        date(2024, 1, 12),
        datetime(2024, 1, 5, 10, tzinfo=UTC),
        datetime.fromisoformat("2024-01-05T10:00:00.500000"),
        False,
        'x,\n"y"',
    )
    assert third == (None,) * 9
    assert frame.columns[-1] == 'odd "name'


def test_the_kinds_are_told_without_reading_rows_and_agree_with_what_is_loaded(url: str) -> None:
    from e2i.data.frames import column_kind

    data = DataSpec(source=url, table="Visits 2024")
    kinds = SOURCE.columns(data, base=Path())
    assert kinds == {name: column_kind(kind) for name, kind in load(url, table="Visits 2024").frame.schema.items()}
    assert list(kinds.values()) == ["text", "integer", "number", "number", "date", "datetime", "datetime", "boolean", "text"]


def test_a_query_a_schema_and_a_projection(url: str) -> None:
    assert load(url, table="sales.panel").frame["a"].to_list() == list(range(1, 1001))
    query = "select decile, npi from \"Visits 2024\" where npi like '%A%'"
    for end in ("", " ;\n", " -- the end"):
        assert load(url, query=query + end).frame.rows() == [(1, "A")]
    assert load(url, ["npi"], table="Visits 2024").frame.columns == ["npi"]


def test_the_snapshot_does_not_depend_on_the_servers_order(url: str) -> None:
    one = load(url, query="select * from sales.panel order by a")
    two = load(url, query="select * from sales.panel order by a desc")
    assert one.sha256 == two.sha256
    assert one.frame.equals(two.frame)
    assert load(url, query="select a + 1 as a from sales.panel").sha256 != one.sha256


def test_the_server_is_asked_for_the_named_columns_alone(url: str) -> None:
    query = "select a, 1 / (a - a) as broken from sales.panel"
    with pytest.raises(SchemaMismatch, match="division by zero"):
        load(url, query=query)
    assert load(url, ["a"], query=query).sha256 == load(url, table="sales.panel").sha256
    with pytest.raises(SchemaMismatch, match=r"no column `brocken`.*Did you mean `broken`\?"):
        load(url, ["a", "brocken"], query=query)


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("select npi::int as n from \"Visits 2024\" where npi = 'A'", "invalid input syntax for type integer."),
        ("select '2024-13-41'::text::date as d from sales.panel", "date/time field value out of range."),
        ("select (a || '99999999999')::int as n from sales.panel", "NumericValueOutOfRange."),
    ],
)
def test_a_value_that_cannot_be_cast_is_refused_without_being_told(url: str, query: str, what: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        load(url, query=query)
    assert caught.value.what == what


def test_a_missing_table_comes_with_the_nearest_name(url: str) -> None:
    with pytest.raises(NotFound, match=r"Did you mean `sales.panel`\?"):
        load(url, table="sales.pannel")
    with pytest.raises(NotFound, match=r"Did you mean `Visits 2024`\?"):
        load(url, table="visits 2024")


def test_no_rows_a_repeated_column_and_a_bad_query_are_refused(url: str) -> None:
    with pytest.raises(TooFewRows):
        load(url, table="nothing")
    with pytest.raises(SchemaMismatch, match="`a` more than once"):
        load(url, query="select a, a from sales.panel")
    with pytest.raises(SchemaMismatch, match="syntax error"):
        load(url, query="selec 1")
    with pytest.raises(SchemaMismatch, match="column"):
        load(url, query="select b from sales.panel")
    with pytest.raises(SchemaMismatch, match=r"cannot be held.*column 'd'") as caught:
        load(url, query="select 'infinity'::date as d")
    assert "infinity" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "insert into nothing values (1) returning a",
        "with new as (insert into nothing values (1) returning a) select * from new",
        "delete from sales.panel returning a",
        "select 1; drop table nothing",
        "select 1) to program 'touch /tmp/e2i_was_here' --",
        "select nextval('s')",
    ],
)
def test_a_query_cannot_write_or_leave_its_brackets(url: str, query: str) -> None:
    administer(url, "create sequence if not exists s")
    with pytest.raises(SchemaMismatch):
        load(url, query=query)
    assert not Path("/tmp/e2i_was_here").exists()
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from nothing").fetchone() == (0,)
        assert connection.execute("select count(*) from sales.panel").fetchone() == (1000,)


def test_a_table_name_is_an_identifier_not_text_of_a_query(url: str) -> None:
    with pytest.raises(NotFound):
        load(url, table='nothing"; drop table nothing; --')


def test_a_server_that_is_away_may_be_tried_again_and_no_password_is_told() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        load("postgresql://me:secret@127.0.0.1:1/x", table="t")
    assert "secret" not in str(caught.value)
    assert caught.value.where == "postgresql://127.0.0.1/x table t"


def test_a_wrong_password_or_database_is_a_lasting_refusal(url: str) -> None:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    wrong = urlunsplit(parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}"))
    with pytest.raises(BackendRejected, match="password"):
        load(wrong, table="t")
    with pytest.raises(BackendRejected, match="does not exist"):
        load(urlunsplit(parts._replace(path="/nosuchdb")), table="t")


def test_a_single_column_of_gaps_keeps_its_rows(url: str) -> None:
    assert load(url, query="select null::text as t from generate_series(1, 3)").frame.equals(
        pl.DataFrame({"t": [None] * 3}, schema={"t": pl.String})
    )
