"""What goes wrong in MLflow, in our words: the one table of its errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from e2i.errors import BackendError, BackendRejected, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.exceptions import MlflowException


class AccessRefused(BackendRejected):
    """MLflow refuses us, whatever we ask: wrong password, wrong address, schema of another version. Messages wait."""


_ACCESS = {
    "UNAUTHENTICATED": "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    "CUSTOMER_UNAUTHORIZED": "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    "PERMISSION_DENIED": "Ask for write access, or use another MLFLOW_TRACKING_URI.",
    "ENDPOINT_NOT_FOUND": "MLFLOW_TRACKING_URI does not lead to an MLflow server of this version; check address and version.",
}
_REJECTED = {
    "INVALID_PARAMETER_VALUE": "Log a value that MLflow accepts; a parameter keeps its first value for ever.",
    "BAD_REQUEST": "Log a value that MLflow accepts.",
    "RESOURCE_DOES_NOT_EXIST": "It was deleted in MLflow; `e2i doctor` shows and repairs the difference.",
    "NOT_FOUND": "It was deleted in MLflow; `e2i doctor` shows and repairs the difference.",
    "RESOURCE_ALREADY_EXISTS": "Choose another name.",
    "INVALID_STATE": "`e2i doctor` shows and repairs the difference.",
    "NOT_IMPLEMENTED": "This MLflow store cannot do that; use MLflow 3.17 or newer on PostgreSQL, SQLite or a server.",
}
_RETRY = "Nothing is lost: it is sent again when MLflow answers."


def code_of(error: BaseException) -> str:
    """MLflow's error code, or an empty text."""
    return str(getattr(error, "error_code", ""))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what MLflow and its libraries raise into ours.

    Raises
    ------
    BackendUnavailable
        Connection, time-out, 5xx, 429, database restarting.
    AccessRefused
        Credentials, address, schema version.
    BackendRejected
        This request will never be accepted.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise _translate(error, doing) from error
    except (SQLAlchemyError, OSError) as error:
        raise BackendUnavailable(f"{doing} failed: {_short(error)}", where="MLflow", advice=_RETRY) from error


def _translate(error: MlflowException, doing: str) -> BackendError:
    code = code_of(error)
    text = f"{doing} failed: {_short(error)}"
    if "out-of-date database schema" in str(error) or "Can't locate revision" in str(error):
        return AccessRefused(text, where="MLflow", advice="Run `mlflow db upgrade` with this MLflow version, or use another database.")
    if code in _ACCESS:
        return AccessRefused(text, where="MLflow", advice=_ACCESS[code])
    if code in _REJECTED and not _connection_broke(error):
        return BackendRejected(text, where="MLflow", advice=_REJECTED[code])
    return BackendUnavailable(text, where="MLflow", advice=_RETRY)


def _connection_broke(error: MlflowException) -> bool:
    """MLflow calls every database error but one a bad request; these are the ones where the database was not there."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    cause = error.__cause__
    if isinstance(cause, OperationalError | InterfaceError | PoolTimeout):
        return True
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


def _short(error: BaseException) -> str:
    """The first line, without the SQL and parameters that SQLAlchemy appends."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0][:300]
    return text if text.endswith((".", "!", "?")) else f"{text}."
