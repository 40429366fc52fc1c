"""The HTTP face: one FastAPI application, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from e2i.api import opik_ingest, otlp, probes, problems, traces
from e2i.api.access import Access
from e2i.api.receiver import Receiver, ReceiverPorts, ReceiverSettings, refuse_open_door
from e2i.api.watching import Counting, Tracing
from e2i.errors import ConfigError

__all__ = ["ReceiverPorts", "ReceiverSettings", "create_app", "serve"]

_GRACE_S = 10
_BACKLOG = 512
# Ours is in `watching`; the framework's would make spans of the requests that bring spans.
_UNTRACED: TelemetryConfig = {"tracing": False, "metrics": False}


def create_app(ports: ReceiverPorts, settings: ReceiverSettings) -> FastAPI:
    """All routes over `ports`.

    Raises
    ------
    ConfigError
        `settings.host` can be reached by others and no key is configured.
    """
    receiver = Receiver(ports, settings)
    app = FastAPI(title="E2I", version=_version(), docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=_UNTRACED)
    app.state.receiver = receiver
    for router in (probes, otlp, opik_ingest, traces):
        app.include_router(router.routes(receiver))
    app.include_router(opik_ingest.rest())
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(Tracing, prefix=traces.PREFIX + "/", but=opik_ingest.PREFIX)
    app.add_middleware(Access, api_key=settings.api_key)
    app.add_middleware(Counting, counters=receiver.counters)
    return app


async def serve(app: FastAPI, host: str, port: int, stop: asyncio.Event, *, started: Callable[[str, int], None] | None = None) -> None:
    """Serve until `stop` is set; requests in work are finished first, for at most ten seconds.

    Parameters
    ----------
    port : 0 takes a free one
    started : told the address and the port once connections are taken

    Raises
    ------
    ConfigError
        The address cannot be listened on, or others can reach it and no key is configured.
    """
    refuse_open_door(host, app.state.receiver.settings.api_key)
    listening = _listen(host, port)
    server = _Server(
        started,
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_GRACE_S,
        ),
    )
    with contextlib.closing(listening):
        running = asyncio.create_task(server.serve(sockets=[listening]))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            server.should_exit = True
            await running


class _Server(uvicorn.Server):
    """Says where it listens, and leaves signals to the command that serves."""

    def __init__(self, started: Callable[[str, int], None] | None, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self._told is not None and sockets:
            self._told(*sockets[0].getsockname()[:2])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _cannot_listen(host, port, error) from error
    listening.setblocking(False)
    return listening


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host}:{port}: {error.strerror or error}.",
        where="observability.receiver",
        advice="End what listens there, or choose another port; 0 takes a free one.",
    )


def _version() -> str:
    from importlib.metadata import version

    return version("e2i")
