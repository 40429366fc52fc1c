"""Refusals as application/problem+json (RFC 9457): what is wrong, where in the request, how to mend it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from e2i.errors import BackendError, CircuitOpen, ConfigError, Conflict, E2IError, NotFound, StorageError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_log = logging.getLogger(__name__)


class Refused(E2IError):
    """A request that is answered with `status` and a reason.

    Parameters
    ----------
    what, where, advice : as in every error of ours; `where` is a place in the request
    status : the HTTP status, 4xx or 503
    headers : further headers of the answer
    """

    category = "validation"

    def __init__(
        self,
        what: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        where: str | None = None,
        advice: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what, where=where, advice=advice)
        self.status = status
        self.headers = dict(headers or {})


def try_later(status: int, what: str, *, advice: str, after_s: int = RETRY_AFTER_S) -> Refused:
    """A refusal that passes. `RateLimit-Reset` is the header for which Opik's SDK keeps a message and sends it again."""
    headers = {"Retry-After": str(after_s), "RateLimit-Reset": str(after_s)}
    return Refused(what, status=status, advice=advice, headers=headers)


def refusal(error: E2IError) -> Refused:
    """How an error of ours is told to a client: never an address, a statement or a secret of the backend."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ConfigError):
        return Refused(error.what, where=error.where, advice=error.advice)
    if isinstance(error, NotFound | Conflict):
        status = HTTPStatus.NOT_FOUND if isinstance(error, NotFound) else HTTPStatus.CONFLICT
        return Refused(error.what, status=status, advice=error.advice)
    if isinstance(error, BackendError | StorageError):
        if not isinstance(error, CircuitOpen):  # what opened it was told; each call that is held back is not worth a line
            _log.warning("%s: %s", type(error).__name__, error)
        what = f"the database does not take this just now ({type(error).__name__})."
        return try_later(HTTPStatus.SERVICE_UNAVAILABLE, what, advice="Send it again later.")
    return Refused(error.what, status=HTTPStatus.INTERNAL_SERVER_ERROR, advice=error.advice)


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """The answer itself; members that are None are left out."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": detail, **more}
    content = orjson.dumps({key: value for key, value in body.items() if value is not None})
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def answer(error: E2IError) -> Response:
    """The answer for an error of ours."""
    told = refusal(error)
    kind = type(error).__name__
    return problem(told.status, printable(told.what), headers=told.headers, where=_printable(told.where), advice=told.advice, error=kind)


def install(app: FastAPI) -> None:
    """Every refusal of `app`, the framework's too, becomes problem+json."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, E2IError)
        return answer(error)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem(404, f"there is nothing at {printable(request.url.path)[:200]}.", advice="`/openapi.json` lists every path.")
        return problem(error.status_code, f"{error.detail}.".replace("..", "."), headers=error.headers)

    async def parameters(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(400, f"{first['msg']}.", where=printable(where), advice="`/openapi.json` describes every parameter.")

    async def unexpected(request: Request, error: Exception) -> Response:
        reference = secrets.token_hex(4)
        _log.error("unexpected error %s at %s", reference, request.url.path, exc_info=error)
        return problem(500, f"an error of E2I, logged as {reference}.", advice="Report it with the log around this reference.")

    app.add_exception_handler(E2IError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(Exception, unexpected)


def printable(text: str) -> str:
    """`text` without what UTF-8 and JSON cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def _printable(text: str | None) -> str | None:
    return None if text is None else printable(text)
