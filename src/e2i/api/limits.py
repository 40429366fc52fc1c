"""How much the receiver takes at once: bytes of one body, bytes of all bodies, requests in work, time for a body to arrive."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from e2i.api.compression import Inflater, oversize
from e2i.api.problems import Refused, try_later

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

_LARGE_PIECE = 4096
"""bytes that may become four megabytes"""


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """Sizes in bytes, times in seconds."""

    max_bytes: int
    """of one body, as sent and after it was opened"""
    idle_s: float = 10.0
    """longest pause between two pieces of a body"""
    total_s: float = 60.0
    """longest time for a whole body"""


class Gate:
    """Counts what is in work and refuses with 429 before memory or time run out.

    A body that is still arriving holds only its bytes, so slow clients keep nobody else out.
    """

    def __init__(self, *, max_in_flight: int, max_buffered: int) -> None:
        self.max_in_flight = max_in_flight
        self.in_flight = 0
        self._max_buffered = max_buffered
        self._buffered = 0
        self._parsing = asyncio.Semaphore(1)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around reading spans out of a body and writing them. Raises Refused with 429."""
        if self.in_flight >= self.max_in_flight:
            raise self._full(f"{self.in_flight} requests are in work")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside `work`, around waiting for what another request brings: who waits must not hold the place that the other needs."""
        self.in_flight -= 1
        try:
            yield
        finally:
            self.in_flight += 1

    @property
    def parsing(self) -> asyncio.Semaphore:
        """Around opening a body's structure: one at a time, as a hostile body can take thirty times its size in memory."""
        return self._parsing

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        """Around a body's life in memory."""
        held = Buffer(self)
        try:
            yield held
        finally:
            self._buffered -= held.size

    def reserve(self, size: int) -> None:
        """Room for `size` more bytes. Raises Refused with 429."""
        if self._buffered + size > self._max_buffered:
            raise self._full(f"{self._buffered:,} bytes are waiting")
        self._buffered += size

    def _full(self, why: str) -> Refused:
        return try_later(HTTPStatus.TOO_MANY_REQUESTS, f"too much at once: {why}.", advice="Send it again after the time in Retry-After.")


class Buffer:
    """The bytes of one body."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._pieces = bytearray()
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Keep a piece. Raises Refused with 429."""
        self._gate.reserve(len(piece))
        self.size += len(piece)
        self._pieces += piece

    def content(self) -> bytes:
        """All of it."""
        return bytes(self._pieces)


async def read_body(request: Request, limits: BodyLimits, buffer: Buffer) -> bytes:
    """The whole body, opened where it came compressed.

    Raises
    ------
    Refused
        413 too big, 408 too slow, 415 and 400 for its encoding, 429 when all bodies together are too much.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    inflater = None if encoding in ("", "identity") else Inflater(encoding, limits.max_bytes)
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limits.max_bytes:
        raise oversize(limits.max_bytes)
    sent = 0
    pieces = request.stream()
    try:
        async with asyncio.timeout(limits.total_s):
            while True:
                async with asyncio.timeout(limits.idle_s):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                sent += len(piece)
                if sent > limits.max_bytes:
                    raise oversize(limits.max_bytes)
                buffer.add(await _opened(inflater, piece) if inflater else piece)
    except TimeoutError:
        raise Refused(
            f"the body did not arrive in time: {sent:,} bytes so far.",
            status=HTTPStatus.REQUEST_TIMEOUT,
            where="body",
            advice="Send it again in one go.",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Refused("the connection closed before the body was complete.", where="body") from None
    finally:
        await pieces.aclose()
    if inflater:
        inflater.finish()
    return buffer.content()


async def _opened(inflater: Inflater, piece: bytes) -> bytes:
    """What a piece opens to, a thousand times its size perhaps: beside the event loop when that could delay others."""
    return inflater.feed(piece) if len(piece) < _LARGE_PIECE else await asyncio.to_thread(inflater.feed, piece)
