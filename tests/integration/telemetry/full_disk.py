# ruff: noqa: E402 - the tests' own modules are found only once their folders are known
"""A process whose spool's disk is full while a shipper serves it: `python full_disk.py FOLDER`; tells what became of the spans as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "unit" / "telemetry")]

import kill_emitter
from spool_world import SETTINGS, World, settle

from e2i.telemetry.spool import SpoolSettings, SpoolWriter


async def main(folder: Path) -> None:
    """A few spans on their way, then more than the disk holds, then the shipper, then a few more."""
    world = World(folder, settings=replace(SETTINGS, decision_wait_s=0.0))
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 29, segment_bytes=1 << 18))
    tracer = kill_emitter.provider(writer, rate=1.0).get_tracer("full")
    async with world.shipper() as shipper:
        tracer.start_span("before").end()
        await settle(world, shipper)
        shipper.tend()
    for number in range(12_000):
        tracer.start_span("much", attributes={"n": number, "text": "x" * 300}).end()
    async with world.shipper() as shipper:
        await settle(world, shipper)
        shipper.tend()
        tracer.start_span("after").end()
        await settle(world, shipper)
        shipper.tend()
    accounts = [
        asdict(await world.account(name)) | {"unexplained": (await world.account(name)).unexplained} for name in ("postgres", "otlp")
    ]
    names = sorted({span.name for span in world.table.rows.values()})
    print(json.dumps({"accounts": accounts, "rows": len(world.table.rows), "names": names}))  # noqa: T201


asyncio.run(main(Path(sys.argv[1])))
