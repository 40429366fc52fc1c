"""`e2i serve`: the application over this home's platform, and the shipper beside it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2i.api.receiver import ReceiverSettings
    from e2i.config import Settings


async def serve(settings: Settings, *, host: str | None, port: int | None, on_listening: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. Raises ConfigError for an address that cannot be had or that needs a key."""
    from e2i.api.app import create_app
    from e2i.api.app import serve as run
    from e2i.api.receiver import ReceiverPorts, refuse_open_door
    from e2i.bootstrap.observing import observing, redactor
    from e2i.bootstrap.platform import Platform
    from e2i.bootstrap.sinks import Accounts, breaker
    from e2i.ports.telemetry import SpanRecords
    from e2i.storage.repositories.span_shipments import SpanShipmentRepository

    chosen = receiver_settings(settings, host)
    refuse_open_door(chosen.host, chosen.api_key)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Platform.open(settings) as platform:
        with observing(settings):
            ports = ReceiverPorts(
                spans=platform.records[SpanRecords],
                merges=SpanShipmentRepository(platform.database),
                redactor=redactor(settings),
                metrics=Accounts(settings, platform.database).metrics,
                breaker=breaker(settings, "receiver"),
            )
            wanted = settings.observability.receiver.port if port is None else port
            await run(create_app(ports, chosen), chosen.host, wanted, stop, started=lambda *at: on_listening(_address(*at)))


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def receiver_settings(settings: Settings, host: str | None) -> ReceiverSettings:
    """`observability.receiver` and `observability.cache`, with another address where one is given."""
    from e2i.api.receiver import ReceiverSettings

    section, cache = settings.observability.receiver, settings.observability.cache
    return ReceiverSettings(
        host=section.host if host is None else host,
        api_key=section.api_key.get_secret_value(),
        max_body_bytes=section.max_body_bytes,
        max_in_flight=section.max_in_flight,
        cache_ttl_s=cache.ttl,
        cache_entries=cache.max_entries,
        silent_agents=frozenset(name for name, agent in settings.agents.items() if not agent.log_prompts),
    )
