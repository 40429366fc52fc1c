"""A local HTTP server that can be made sick: the ground of `opik_server` and `otlp_server`."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Mode(StrEnum):
    """What the server does with the next requests. `down`: `stop()` and `start()`."""

    HEALTHY = "healthy"
    SLOW = "slow"
    """answers after `slow_s`"""
    BUSY = "busy"
    """429 with Retry-After: `retry_after`"""
    FAILING = "failing"
    """500"""
    BLACK_HOLE = "black hole"
    """takes the request and never answers, until the mode changes"""
    GARBAGE = "garbage"
    """200 with bytes of another protocol"""
    UNAUTHORIZED = "unauthorized"
    """401"""
    MOVED = "moved"
    """404"""


@dataclass(frozen=True)
class Request:
    """What came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    """without its compression"""


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"


class Refused(Exception):
    """A body that this server does not take: the status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class FaultyServer:
    """Use as a context manager; set `mode` at any time.

    `poison` is the name of a span: a batch with such a span is refused with `poison_status`.
    Subclasses answer in `respond`, which runs under a lock.
    """

    mode: Mode = Mode.HEALTHY
    slow_s: float = 0.1
    retry_after: str = "1"
    poison: str | None = None
    poison_status: int = 400
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._open: set[socket.socket] = set()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def respond(self, request: Request) -> Reply:
        """What a healthy server answers. Raises Refused."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, always at the same port."""
        server = self

        class Handler(_Handler):
            owner = server

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Listener(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Go down: connections break, new ones are refused. What was received stays."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        for connection in tuple(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._thread.join()
        self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = Mode.HEALTHY
        self.stop()

    def answer(self, request: Request) -> Reply | None:
        """The reply in this mode; None: never."""
        self.requests.append(request)
        mode = self.mode
        if mode is Mode.BLACK_HOLE:
            while self.mode is Mode.BLACK_HOLE and self._server is not None:
                time.sleep(0.02)
            return None
        if mode is Mode.SLOW:
            time.sleep(self.slow_s)
        sick = {
            Mode.BUSY: Reply(429, b'{"message": "too many requests"}'),
            Mode.FAILING: Reply(500, b'{"message": "internal error"}'),
            Mode.GARBAGE: Reply(200, b"\x16\x03\x01<html>SSH-2.0 who are you?</html>", "text/html"),
            Mode.UNAUTHORIZED: Reply(401, b'{"message": "who are you?"}'),
            Mode.MOVED: Reply(404, b"no such page", "text/plain"),
        }
        if mode in sick:
            return sick[mode]
        try:
            with self._lock:
                return self.respond(request)
        except Refused as refusal:
            return Reply(refusal.status, str(refusal).encode(), "text/plain")


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.owner._open.add(self.connection)

    def finish(self) -> None:
        self.owner._open.discard(self.connection)
        super().finish()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = Request(self.command, self.path, {key.lower(): value for key, value in self.headers.items()}, body)
        reply = self.owner.answer(request)
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        if reply.status == 429:
            self.send_header("Retry-After", self.owner.retry_after)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    # the names that BaseHTTPRequestHandler calls
    do_GET = do_POST = do_PUT = do_PATCH = _handle  # noqa: N815

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        return
