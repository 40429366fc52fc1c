"""What the receiver stands on: the ports behind it, its settings, and the way of a span from a body into the table."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from e2i.api.cache import LatencyCache
from e2i.api.counters import Counters
from e2i.api.limits import BodyLimits, Gate, read_body
from e2i.errors import ConfigError

if TYPE_CHECKING:
    from starlette.requests import Request

    from e2i.domain.telemetry import SpanRecord
    from e2i.ports.telemetry import Breaker, SpanMerges, SpanRecords
    from e2i.telemetry.redaction import Redactor

Taken = TypeVar("Taken")
_LARGE = 262_144


@dataclass(frozen=True, kw_only=True)
class ReceiverPorts:
    """What stands behind the HTTP face."""

    spans: SpanRecords
    merges: SpanMerges
    redactor: Redactor
    metrics: Callable[[], Awaitable[str]]
    """the pipeline's metrics as Prometheus text"""
    breaker: Breaker | None = None
    """around every write"""


@dataclass(frozen=True, kw_only=True)
class ReceiverSettings:
    """`observability.receiver` and `observability.cache`."""

    host: str = "127.0.0.1"
    api_key: str = field(default="", repr=False)
    """empty: none is asked for"""
    max_body_bytes: int = 10_485_760
    max_in_flight: int = 16
    max_spans: int = 50_000
    """of one request"""
    idle_s: float = 10.0
    """longest pause between two pieces of a body"""
    body_s: float = 60.0
    """longest time for a whole body"""
    patience_s: float = 2.0
    """how long a score waits for a span that nobody knows yet"""
    cache_ttl_s: Mapping[str, float] = field(default_factory=lambda: {"default": 120.0})
    cache_entries: int = 1000
    silent_agents: frozenset[str] = frozenset()
    """those for which `log_prompts` says no, whoever sends their spans"""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_door(host: str, api_key: str) -> None:
    """Raise ConfigError when others could write without a key."""
    if not api_key and not is_loopback(host):
        raise ConfigError(
            f"other machines reach {host or 'every address'!r}, and no key is asked for.",
            where="observability.receiver",
            advice="Set E2I_RECEIVER_KEY, or listen on 127.0.0.1.",
        )


class Receiver:
    """One per application; belongs to the event loop that serves it."""

    def __init__(self, ports: ReceiverPorts, settings: ReceiverSettings) -> None:
        refuse_open_door(settings.host, settings.api_key)
        self.ports = ports
        self.settings = settings
        self.counters = Counters()
        self.latency = LatencyCache(ports.spans, ttl_s=settings.cache_ttl_s, max_entries=settings.cache_entries)
        self.gate = Gate(max_in_flight=settings.max_in_flight, max_buffered=settings.max_in_flight * settings.max_body_bytes)
        self._limits = BodyLimits(max_bytes=settings.max_body_bytes, idle_s=settings.idle_s, total_s=settings.body_s)

    @asynccontextmanager
    async def intake(self, request: Request, read: Callable[[bytes], Taken]) -> AsyncIterator[Taken]:
        """What `read` makes of the body; around everything that is done with it.

        `read` runs beside the event loop, so that a large body delays nobody's probe.
        """
        with self.gate.buffer() as buffer:
            body = await read_body(request, self._limits, buffer)
            self.counters.body(request.scope["route"].path, len(body))
            with self.gate.work():
                if len(body) < _LARGE:
                    yield await asyncio.to_thread(read, body)
                    return
                async with self.gate.parsing:
                    taken = await asyncio.to_thread(read, body)
                yield taken

    async def store(self, spans: Sequence[SpanRecord]) -> int:
        """Write whole spans; returns when they are committed. The number of new ones."""
        async with self._guarded():
            return await self.ports.spans.insert_spans_batch(spans)

    async def merge(self, spans: Sequence[SpanRecord]) -> int:
        """Write spans that come in pieces; returns when they are committed."""
        async with self._guarded():
            return await self.ports.merges.merge(spans)

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        if self.ports.breaker is None:
            yield
            return
        async with self.ports.breaker.guard():
            yield
