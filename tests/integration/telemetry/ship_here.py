"""A process that ships a spool to one collector until it is killed: `python ship_here.py FOLDER URL`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from e2i.mlops.circuit_breaker import CircuitBreaker
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.shipper import Route, ShipperSettings, run_shipper
from e2i.telemetry.sink import ForeignSink
from e2i.telemetry.sinks.otlp import OtlpExporter


async def main(folder: Path, url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    exporter = OtlpExporter(url, batch_size=50)
    route = Route(sink=ForeignSink(exporter, CursorFile(folder, exporter.name)), breaker=CircuitBreaker(exporter.name))
    await run_shipper(folder, [route], ShipperSettings(max_bytes=1 << 28, max_wait_s=0.02), stop)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
