"""Who may come in: a key when one is configured, this machine only when none is."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from e2i.api.problems import Refused, answer
from e2i.api.receiver import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = frozenset({"/livez", "/readyz", "/api/is-alive/ping"})
"""probes carry no key and tell nothing"""
_KEY_HEADERS = (b"authorization", b"x-api-key")


class Access:
    """ASGI middleware. Refuses with 401 what has not the key, with 403 what reached a keyless receiver under a foreign name.

    The second keeps web pages out whose name was pointed at this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._digest = _digest(api_key.encode()) if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and (error := self._refusal(scope)):
            await answer(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refused | None:
        if self._digest is None:
            return _foreign_name(scope["headers"])
        if scope["path"] in OPEN_PATHS or any(hmac.compare_digest(_digest(key), self._digest) for key in _keys(scope["headers"])):
            return None
        return Refused(
            "the API key is missing or wrong.",
            status=401,
            where="Authorization",
            advice="Send `Authorization: Bearer KEY`, `x-api-key: KEY`, or set OPIK_API_KEY for Opik's SDK.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _keys(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """What the request offers: Opik's SDK sends its key bare, everybody else behind `Bearer`."""
    return [value[7:].strip() if value[:7].lower() == b"bearer " else value.strip() for name, value in headers if name in _KEY_HEADERS]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _foreign_name(headers: Iterable[tuple[bytes, bytes]]) -> Refused | None:
    host = next((value for name, value in headers if name == b"host"), b"localhost").decode("latin-1").strip()
    name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.rpartition(":")[0] or host
    if is_loopback(name.lower()):
        return None
    return Refused(
        f"this receiver asks for no key, so it answers to names of this machine only, not to {host[:80]!r}.",
        status=403,
        where="Host",
        advice="Set E2I_RECEIVER_KEY, or call it as 127.0.0.1.",
    )
