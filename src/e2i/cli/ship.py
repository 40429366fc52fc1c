"""`e2i trace ship`: the process that brings spans from the spool to the sinks."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_json, print_note

if TYPE_CHECKING:
    from e2i.config import Settings
    from e2i.domain.telemetry import SinkAccount


def ship(
    home: Home = None,
    once: Annotated[bool, typer.Option("--once", help="Deliver what can be delivered now, then stop.")] = False,
    settings_on_stdin: Annotated[bool, typer.Option("--settings-on-stdin", hidden=True)] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver spans from the spool to PostgreSQL, Opik and OpenTelemetry collectors until stopped.

    `e2i run` and `e2i serve` do this by themselves; one process per home is enough, a second one says so and stops.
    """
    from e2i import config

    if settings_on_stdin:
        config.set_vendor_environment()
        asyncio.run(_until_parent_ends(config.load(**json.loads(sys.stdin.readline()))))
        return
    found = asyncio.run(_until_stopped(settings(home), once=once))
    if as_json:
        print_json([asdict(account) for account in found])
    print_note(f"Delivered: {', '.join(f'{account.sink} {account.delivered}' for account in found)}.")
    for account in found:
        if account.in_spool:
            print_note(f"{account.sink}: {account.in_spool} waiting. {account.last_error or 'Not all were confirmed in time.'}")
    if once and any(account.in_spool and account.last_error for account in found):
        raise typer.Exit(1)


async def _until_stopped(chosen: Settings, *, once: bool) -> list[SinkAccount]:
    from e2i import bootstrap

    stop = asyncio.Event()
    if once:  # however much there is: a signal ends it at once, which loses nothing
        stop.set()
        return await bootstrap.ship(chosen, stop=stop, drain_s=math.inf)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await bootstrap.ship(chosen, stop=stop)


async def _until_parent_ends(chosen: Settings) -> None:
    """The parent holds the other end of our standard input, also when it is killed."""
    from e2i import bootstrap

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stop.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await bootstrap.ship(chosen, stop=stop, waits=True)
    finally:
        loop.remove_reader(sys.stdin.fileno())
