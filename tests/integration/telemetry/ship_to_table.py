"""A shipper process as `e2i trace ship` runs it, made by a fork server so that it begins within milliseconds."""

from __future__ import annotations

import asyncio
from typing import Any

from e2i import config
from e2i.bootstrap.observing import ship
from e2i.storage import migrate
from e2i.storage.repositories import span_shipments
from e2i.telemetry import shipper
from e2i.telemetry.sinks import mlflow, opik, otlp, postgres

__all__ = ["main", "migrate", "mlflow", "opik", "otlp", "postgres", "shipper", "span_shipments"]


def main(arguments: dict[str, Any]) -> None:
    """Ship until killed."""
    asyncio.run(_ship(config.load(**arguments)))


async def _ship(settings: config.Settings) -> None:
    await ship(settings, stop=asyncio.Event())
