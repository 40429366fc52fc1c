"""The database as the repositories see it: transactions on a small pool, and PostgreSQL's errors as ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg_pool
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from e2i.errors import BackendRejected, BackendUnavailable, Conflict, E2IError, MigrationNeeded, NotFound, StorageError
from e2i.storage.address import address, plain_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import LiteralString

    from psycopg import AsyncConnection

# What the driver logs, its callers get as an error; without a configured log nothing of it goes to the terminal.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

Row = dict[str, Any]
_FIRST_WAIT_S = 1.0
_FIRST_ANSWER_S = 2
_AGAIN = "Try again; `e2i status` shows whether the database is up."
_CHECK_URL = "Check DATABASE_URL: user, password, host, port and database."
_UPGRADE = "Run `e2i db upgrade`."
_OF_THE_SESSION = (errors.ReadOnlySqlTransaction, errors.QueryCanceled)
"""may come of what the session was told when it began; a new one hears what holds now"""
_TABLE: tuple[tuple[tuple[type[psycopg.Error], ...], type[E2IError], str], ...] = (
    (
        (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleInTransactionSessionTimeout),
        BackendUnavailable,
        _AGAIN,
    ),
    ((errors.TooManyConnections,), BackendUnavailable, "Close other programs that use this database, or raise max_connections."),
    ((errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable, errors.QueryCanceled), BackendUnavailable, _AGAIN),
    ((errors.ReadOnlySqlTransaction,), BackendUnavailable, "The server is a read-only copy just now; try again, or check DATABASE_URL."),
    ((errors.DiskFull,), StorageError, "The database server's disk is full: free some space and try again."),
    ((errors.OutOfMemory,), BackendUnavailable, "The database server is out of memory; end other programs and try again."),
    ((errors.ForeignKeyViolation,), NotFound, "Write the record that it refers to first."),
    ((errors.UniqueViolation, errors.ExclusionViolation), Conflict, "Use another name, or change the record that is there."),
    ((errors.CheckViolation, errors.NotNullViolation), Conflict, "The value breaks a rule of the table."),
    (
        (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedObject, errors.UndefinedFunction, errors.InvalidSchemaName),
        MigrationNeeded,
        _UPGRADE,
    ),
    ((errors.InsufficientPrivilege,), BackendRejected, "Grant the database user the right to do this."),
    ((errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName), BackendRejected, _CHECK_URL),
)


class Database:
    """PostgreSQL behind a URL. Connects on first use; belongs to the event loop that opens it.

    Parameters
    ----------
    url : `postgresql://user:password@host:port/database`; `postgres://` and `postgresql+psycopg://` mean the same
    max_connections : upper limit of the pool
    patience_s : how long to wait for a connection before BackendUnavailable

    Examples
    --------
    >>> async with Database("postgresql://…").transaction() as connection:   # doctest: +SKIP
    ...     await connection.execute(SQL["save"], {"name": "x"})
    """

    def __init__(self, url: str, *, max_connections: int = 10, patience_s: float = 10.0) -> None:
        self.url = plain_url(url)
        self.where = address(self.url)
        self._patience_s = patience_s
        self._dedicated: set[AsyncConnection[Row]] = set()
        self._pool: psycopg_pool.AsyncConnectionPool[AsyncConnection[Row]] = psycopg_pool.AsyncConnectionPool(
            self.url,
            kwargs={"row_factory": dict_row, "application_name": "e2i"},
            min_size=0,
            max_size=max_connections,
            max_idle=60.0,
            timeout=patience_s,
            reconnect_timeout=0.5,  # no waiting between attempts: the next caller makes the next attempt
            open=False,
            check=psycopg_pool.AsyncConnectionPool.check_connection,
        )

    async def open(self) -> None:
        """Make the pool ready; no connection is made yet. Safe to repeat."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection. A closed database stays closed."""
        for connection in tuple(self._dedicated):
            await connection.close()
        self._dedicated.clear()
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[Row]]:
        """A connection with an open transaction: committed at the end, rolled back by any exception.

        Raises
        ------
        BackendUnavailable
            The server cannot be reached, went away, or wants the transaction to be tried again.
        Conflict, NotFound, MigrationNeeded, BackendRejected, StorageError
            A statement was refused.
        """
        with our_errors(self.where):
            connection = await self._connection()
            try:
                async with connection:
                    yield connection
            except _OF_THE_SESSION:
                await connection.close()
                raise
            finally:
                await self._pool.putconn(connection)

    async def rows(self, statement: LiteralString, **parameters: object) -> list[Row]:
        """All rows of one statement in a transaction of its own."""
        async with self.transaction() as connection:
            return await (await connection.execute(statement, parameters)).fetchall()

    async def row(self, statement: LiteralString, **parameters: object) -> Row | None:
        """First row of one statement in a transaction of its own; None when there is none."""
        async with self.transaction() as connection:
            return await (await connection.execute(statement, parameters)).fetchone()

    async def run(self, statement: LiteralString, **parameters: object) -> None:
        """One statement without rows in a transaction of its own."""
        async with self.transaction() as connection:
            await connection.execute(statement, parameters)

    async def dedicated(self) -> AsyncConnection[Row]:
        """A connection outside the pool, in autocommit, for locks that end with the session. The caller closes it."""
        with our_errors(self.where):
            connection: AsyncConnection[Row] = await psycopg.AsyncConnection.connect(
                self.url, autocommit=True, row_factory=dict_row, application_name="e2i lock", connect_timeout=max(2, int(self._patience_s))
            )
        self._dedicated = {kept for kept in self._dedicated if not kept.closed} | {connection}
        return connection

    async def _connection(self) -> AsyncConnection[Row]:
        try:
            return await self._pool.getconn(_FIRST_WAIT_S)
        except psycopg_pool.PoolTimeout:
            silent = await self._tell_why()
        except psycopg_pool.PoolClosed as exc:
            raise StorageError("the database is closed", where=self.where, advice="Open it before use.") from exc
        try:
            return await self._pool.getconn(self._patience_s)
        except psycopg_pool.PoolTimeout:
            raise BackendUnavailable(
                f"no free database connection within {self._patience_s:g} s{silent}", where=self.where, advice=_AGAIN
            ) from None

    async def _tell_why(self) -> str:
        """The pool says only that it waited; a direct attempt says what is wrong. A busy machine may be as slow as a dead server."""
        try:
            connection = await psycopg.AsyncConnection.connect(self.url, connect_timeout=_FIRST_ANSWER_S)
        except errors.ConnectionTimeout:
            return f", and the server answered no new one within {_FIRST_ANSWER_S} s"
        await connection.close()
        return ""


@contextmanager
def our_errors(where: str) -> Iterator[None]:
    """Turn PostgreSQL's errors into ours. `where` names the database, without the password."""
    try:
        yield
    except psycopg.Error as exc:
        raise translated(exc, where) from exc


def translated(error: psycopg.Error, where: str) -> E2IError:
    """Our error for one of psycopg's."""
    what = _message(error)
    for kinds, ours, advice in _TABLE:
        if isinstance(error, kinds):
            return ours(what, where=_place(error, where), advice=advice)
    state = error.sqlstate or ""
    if state.startswith("22"):
        return StorageError(f"a value was refused: {what}", where=_place(error, where), advice="Mend the value and try again.")
    if not state and any(mark in what for mark in ("authentication failed", "does not exist", "no pg_hba.conf entry")):
        return BackendRejected(what, where=where, advice=_CHECK_URL)
    if not state and isinstance(error, psycopg.DataError):
        return StorageError(f"a value was refused: {what}", where=where, advice="Mend the value and try again.")
    if state.startswith("08") or (not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)):
        return BackendUnavailable(what, where=where, advice=_AGAIN)
    return StorageError(what, where=_place(error, where), advice="See `e2i doctor`.")


def _message(error: psycopg.Error) -> str:
    primary, detail = error.diag.message_primary, error.diag.message_detail
    if isinstance(error, (errors.CheckViolation, errors.NotNullViolation)):
        detail = None  # it is the whole row
    text = f"{primary} ({detail.rstrip('.')})" if primary and detail else primary or " ".join(str(error).split())
    return text.rstrip(".") + "."


def _place(error: psycopg.Error, where: str) -> str:
    parts = (error.diag.table_name, error.diag.column_name or error.diag.constraint_name)
    inside = ".".join(part for part in parts if part)
    return f"{where}, {inside}" if inside else where


def as_json(value: object) -> Jsonb:
    """A value for a jsonb parameter. Numbers of NumPy become plain ones; what JSON cannot hold raises StorageError."""
    return Jsonb(value, dumps=json_text)


def json_text(value: object) -> str:
    """JSON text. Raises StorageError for NaN, infinities and types that JSON does not know."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as exc:
        raise StorageError(
            f"a value cannot be stored as JSON: {exc}.", advice="Numbers must be finite; leave out what is unknown."
        ) from exc


def _plain(value: object) -> object:
    if callable(item := getattr(value, "item", None)):
        return item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not plain data")
