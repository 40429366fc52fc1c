"""A PostgreSQL table or query: read once, in one read-only transaction, through COPY."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import IO, TYPE_CHECKING, LiteralString

import polars as pl

from e2i.data.frames import column_kind, frame_sha256, plain_types, reader_reason
from e2i.domain.nearest import check_columns, did_you_mean, listed
from e2i.errors import BackendRejected, BackendUnavailable, E2IError, NotFound, SchemaMismatch, TooFewRows
from e2i.ports.data import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg
    from psycopg.sql import Composable

CONNECT_TIMEOUT_S = 10
BOOLEAN, INTEGERS, NUMBERS, DATE, TIMESTAMP, TIMESTAMP_ZONED = 16, (20, 21, 23, 26), (700, 701, 1700), 1082, 1114, 1184
"""PostgreSQL's type numbers (catalog pg_type); every other type is read as text"""


@dataclass(frozen=True, kw_only=True)
class PostgresTable:
    """`table` or `query` at `url`; exactly one of the two is given."""

    url: str
    table: str | None
    query: str | None

    def columns(self) -> dict[str, str]:
        """Column -> kind, as the server describes it; no row is read."""
        with self._connect() as connection:
            return {name: column_kind(_dtype(oid)) for name, oid in self._describe(connection).items()}

    def identity(self) -> str:
        """The place and the table or query; whether its rows changed, only `load` can tell."""
        return f"{self._where}: {self.table or self.query}"

    def load(self, columns: Sequence[str] | None) -> Snapshot:
        """The rows of `columns`, sorted by all of them: a server promises no order, and the same rows shall be the same snapshot."""
        with self._connect() as connection, tempfile.TemporaryFile() as file:
            types = self._describe(connection)
            if columns is not None:
                check_columns(columns, types, where=self._where)
                types = {name: types[name] for name in columns}
            self._copy(connection, file, list(types))
            frame = self._parse(file, types)
        if frame.height == 0:
            raise TooFewRows("there are no rows.", where=self._where, advice="Check the table, or the condition of the query.")
        frame = frame.sort(pl.all(), nulls_last=True)
        return Snapshot(
            frame=frame,
            sha256=frame_sha256(frame),
            table=self.table or "query",
            is_synthetic=False,
        )

    @property
    def _where(self) -> str:
        """The place without user and password."""
        from psycopg.conninfo import conninfo_to_dict

        parts = conninfo_to_dict(self.url)
        place = f"postgresql://{parts.get('host', 'localhost')}/{parts.get('dbname', '')}"
        return f"{place} table {self.table}" if self.table else f"{place} query"

    @contextmanager
    def _connect(self) -> Iterator[psycopg.Connection]:
        import psycopg

        try:
            with psycopg.connect(
                self.url, connect_timeout=CONNECT_TIMEOUT_S, options="-c TimeZone=UTC -c DateStyle=ISO -c client_encoding=UTF8"
            ) as connection:
                connection.read_only = True
                yield connection
        except psycopg.Error as error:
            raise self._ours(error) from error

    def _statement(self) -> Composable:
        from psycopg import sql

        if self.table is not None:
            return sql.SQL(_sql("select_table")).format(table=sql.Identifier(*self.table.split(".")))
        query: LiteralString = (self.query or "").strip().rstrip(";")
        return sql.SQL(query)

    def _describe(self, connection: psycopg.Connection) -> dict[str, int]:
        """Prepared alone, without running it: the server refuses more than one statement and unbalanced brackets."""
        import psycopg
        from psycopg import pq

        connection.execute("")  # opens the read-only transaction
        raw = connection.pgconn
        statement = self._statement().as_bytes(connection)
        for result in (raw.prepare(b"e2i_source", statement), raw.describe_prepared(b"e2i_source")):
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
        names = [(result.fname(place) or b"").decode() for place in range(result.nfields)]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated or not names:
            what = f"the query gives column `{repeated[0]}` more than once." if repeated else "the query gives no columns."
            raise SchemaMismatch(what, where=self._where, advice="Name the columns one by one, each with its own name.")
        return {name: result.ftype(place) for place, name in enumerate(names)}

    def _copy(self, connection: psycopg.Connection, file: IO[bytes], columns: Sequence[str]) -> None:
        from psycopg import sql

        chosen = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL(_sql("copy_query")).format(columns=chosen, query=self._statement())
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for block in copy:
                file.write(block)
        file.seek(0)

    def _parse(self, file: IO[bytes], types: dict[str, int]) -> pl.DataFrame:
        if not file.read(1):
            return pl.DataFrame(schema={name: _dtype(oid) for name, oid in types.items()})
        file.seek(0)
        text = pl.read_csv(file, has_header=False, new_columns=list(types), infer_schema=False)
        try:
            return plain_types(text.lazy().with_columns(_parsed(name, oid) for name, oid in types.items())).collect()
        except pl.exceptions.InvalidOperationError as error:
            what = f"a value cannot be held: {reader_reason(error)}."
            raise SchemaMismatch(what, where=self._where, advice="Cast that column to text.") from error

    def _ours(self, error: psycopg.Error) -> E2IError:
        from psycopg import errors

        message = (error.diag.message_primary or str(error).strip().splitlines()[0]).rstrip(".")
        if isinstance(error, errors.DataError):
            message = reader_reason(error)
        if isinstance(error, errors.UndefinedTable):
            return NotFound(f"{message}.", where=self._where, advice=self._table_advice())
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return SchemaMismatch("the query writes.", where=self._where, advice="A study only reads: give a query that selects.")
        rejected = (errors.InvalidAuthorizationSpecification, errors.InsufficientPrivilege, errors.InvalidCatalogName)
        # a refused connection carries no code, only the server's sentence
        refused = error.sqlstate is None and ("authentication failed" in message or "does not exist" in message)
        if isinstance(error, rejected) or refused:
            return BackendRejected(f"{message}.", where=self._where, advice="Check the address, user, password and rights.")
        if isinstance(error, errors.OperationalError):
            return BackendUnavailable(f"{message}.", where=self._where, advice="Is the server running and reachable? Try again.")
        return SchemaMismatch(f"{message}.", where=self._where, advice="Try the query by itself in psql.")

    def _table_advice(self) -> str:
        with self._connect() as connection:
            found = [f"{schema}.{name}" for schema, name in connection.execute(_sql("list_tables")).fetchall()]
        tables = [name.removeprefix("public.") for name in found]
        return did_you_mean(self.table or "", tables) or f"The database has {listed(tables) or 'no tables'}."


def _sql(name: str) -> LiteralString:
    return resources.files("e2i.data").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def _dtype(oid: int) -> pl.DataType:
    if oid == BOOLEAN:
        return pl.Boolean()
    if oid in INTEGERS:
        return pl.Int64()
    if oid in NUMBERS:
        return pl.Float64()
    if oid == DATE:
        return pl.Date()
    if oid in (TIMESTAMP, TIMESTAMP_ZONED):
        return pl.Datetime("us", "UTC" if oid == TIMESTAMP_ZONED else None)
    return pl.String()


def _parsed(name: str, oid: int) -> pl.Expr:
    column = pl.col(name)
    if oid == BOOLEAN:
        return column == "t"
    if oid == DATE:
        return column.str.to_date("%Y-%m-%d")
    if oid == TIMESTAMP:
        return column.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us")
    if oid == TIMESTAMP_ZONED:
        return column.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", time_zone="UTC")
    return column.cast(_dtype(oid))
