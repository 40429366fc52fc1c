"""One HTTP address that takes batches: what each answer means for what was sent."""

from __future__ import annotations

import gzip
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from e2i.errors import BackendRejected, BackendUnavailable, E2IError
from e2i.telemetry.sink import Busy, Faulty

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

MAX_ANSWER = 65_536
"""bytes of an answer that are read; no sink has more to say"""
LONGEST_PATIENCE_S = 300.0
"""a Retry-After beyond this is cut: a wrong clock on the other side must not stop us for days"""
_COMPRESS_FROM = 1024
_MISCONFIGURED = {401, 402, 403, 404, 405, 407, 410, 421, 426, 431, 451}
_LATER = {408, 409, 423, 425, 429, 502, 503, 504, 507}
_SNIPPET = 300


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A 2xx answer."""

    status: int
    content_type: str
    body: bytes


class HttpEndpoint:
    """Connections are made on first use, belong to the running loop, and are closed by `close`."""

    def __init__(self, url: str, *, name: str, headers: Mapping[str, str], timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._name = name
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None

    async def send(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        """Send `body`, compressed when that pays.

        Raises
        ------
        BackendUnavailable
            Nobody there, no answer in time, overload, a fault of the server, a wrong address or password: not the fault of what was sent.
        BackendRejected
            The server read it and refuses it.
        """
        import httpx

        headers = {"Content-Type": content_type}
        if len(body) >= _COMPRESS_FROM:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        try:
            client = self._connected()
            async with client.stream(method, self.url + path, content=body, headers=headers) as response:
                text = await _beginning(response)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
            raise self._unsendable(f"the address {self._address()} is no http address.", path) from exc
        except (httpx.LocalProtocolError, UnicodeError) as exc:
            # Its text may show the header with the key.
            raise self._unsendable(f"the address {self._address()} is no http address, or a header for it cannot be sent.", path) from exc
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as exc:
            reason = str(exc).strip().rstrip(".") or type(exc).__name__
            raise BackendUnavailable(
                f"no answer: {reason}.", where=self._place(path), advice="What waits is sent when it answers again."
            ) from exc
        if 200 <= response.status_code < 300:
            return Answer(status=response.status_code, content_type=response.headers.get("content-type", ""), body=text)
        raise self._fault(response, text, path)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def unclear(self, path: str, answer: Answer) -> BackendUnavailable:
        """The error for an answer that confirms nothing."""
        return BackendUnavailable(
            f"the answer {answer.status} is not one that this service gives: {_snippet(answer.body) or 'it is empty.'}",
            where=self._place(path),
            advice="Check the address: something else may be listening there.",
        )

    def _connected(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(
                headers=self._headers,
                timeout=httpx.Timeout(self._timeout_s, connect=min(5.0, self._timeout_s)),
                verify=self.url.startswith("https"),
                limits=httpx.Limits(max_connections=4, max_keepalive_connections=2),
            )
        return self._client

    def _fault(self, response: httpx.Response, text: bytes, path: str) -> E2IError:
        status, where = response.status_code, self._place(path)
        what = f"answer {status}: {_snippet(text) or response.reason_phrase or 'no reason given.'}"
        if status in _LATER:
            busy = Busy(what, where=where, advice="It is sent again later.")
            busy.retry_after_s = retry_after_s(response.headers.get("retry-after"), time.time())
            return busy
        if status in (401, 403):
            return BackendUnavailable(
                what, where=where, advice="Check the key and its rights in the settings; nothing is thrown away meanwhile."
            )
        if status < 400 or status in _MISCONFIGURED:
            return BackendUnavailable(what, where=where, advice="Check the address in the settings; nothing is thrown away meanwhile.")
        if status >= 500:
            return Faulty(what, where=where, advice="See the other side's log.")
        return BackendRejected(what, where=where)

    def _unsendable(self, what: str, path: str) -> BackendUnavailable:
        return BackendUnavailable(
            what,
            where=self._place(path),
            advice="Write it as http://host:port or https://host/path in the settings; nothing is thrown away meanwhile.",
        )

    def _address(self) -> str:
        """Without a password."""
        scheme, mark, rest = self.url.rpartition("://")
        return f"{scheme}{mark}{rest.rsplit('@', 1)[-1]}"

    def _place(self, path: str) -> str:
        return f"{self._name} at {self._address().split('://', 1)[-1]}{path}"


def retry_after_s(header: str | None, now_s: float) -> float:
    """Seconds that a Retry-After header asks for: a number or an HTTP date; 0 for anything else."""
    if not header:
        return 0.0
    try:
        asked = float(header)
    except ValueError:
        try:
            asked = parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(asked, 0.0), LONGEST_PATIENCE_S) if asked == asked else 0.0  # noqa: PLR0124 - NaN


async def _beginning(response: httpx.Response) -> bytes:
    found = b""
    async for part in response.aiter_raw():
        found += part
        if len(found) >= MAX_ANSWER:
            break
    return found[:MAX_ANSWER]


def _snippet(body: bytes) -> str:
    text = " ".join(body[: 4 * _SNIPPET].decode("utf-8", "replace").split())
    return text if len(text) <= _SNIPPET else text[:_SNIPPET] + "…"
