"""Kill -9 at random moments: every span whose `end` had returned must be in the spool, once, and the account must hold.

python benchmarks/campaign_kill.py                          # 200 kills, at least 10,000 spans each
python benchmarks/campaign_kill.py --kills 20 --spans 3000
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from e2i.telemetry.frames import decode
from e2i.telemetry.processor import SpoolProcessor
from e2i.telemetry.reader import Position, SpoolReader
from e2i.telemetry.redaction import Redactor, SpanLimits
from e2i.telemetry.relay import Relay
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.spool import SpoolSettings, SpoolWriter
from e2i.telemetry.tracer import QuickProvider

SIZE = 10_240
LIMITS = SpanLimits(
    include_input=True,
    include_output=True,
    max_input_size_bytes=SIZE,
    max_output_size_bytes=SIZE,
    max_metadata_size_bytes=4096,
    redact_patterns=("password",),
)
RULES = SamplingRules(rate=0.5, always_agents=frozenset({"causal_impact"}))
SLOT = struct.Struct("<Q")


@dataclass
class Outcome:
    """What one kill left."""

    acknowledged: int
    missing: int
    twice: int
    lost: dict[str, int]
    unexplained: int


def emit(folder: Path, told: mmap.mmap, redactor: Redactor) -> None:
    """End spans for ever; after each the number of those that returned goes into shared memory."""
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 30, segment_bytes=1 << 19))
    provider, relay = QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False), Relay()
    relay.target = SpoolProcessor(writer, redactor, Sampler(RULES), service="e2i", log_prompts=lambda _: True)
    provider.add_span_processor(relay)
    tracer = provider.get_tracer("campaign")
    number = 0
    while True:
        agent = "causal_impact" if number % 20 == 0 else "gap_analyzer"
        span = tracer.start_span("step", attributes={"n": number, "e2i.agent.name": agent, "text": "x" * (number * 37 % 2000)})
        span.end()
        number += 1
        SLOT.pack_into(told, 0, number)


def kill_once(folder: Path, spans: int, pause_s: float, redactor: Redactor) -> Outcome:
    """One process, killed somewhen after its first `spans` spans."""
    told = mmap.mmap(-1, 4096)
    child = os.fork()
    if child == 0:
        emit(folder, told, redactor)
    while SLOT.unpack_from(told)[0] < spans:
        time.sleep(0.001)
    time.sleep(pause_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return examine(folder, SLOT.unpack_from(told)[0])


def examine(folder: Path, acknowledged: int) -> Outcome:
    """Read all that is left."""
    reader = SpoolReader(folder)
    numbers: list[int] = []
    lost: dict[str, int] = {}
    emitted = sum(count for reasons in reader.writer_drops().values() for count in reasons.values())
    accounted = emitted
    for stream in reader.streams():
        position = Position()
        while True:
            chunk = reader.read(stream.name, position, max_frames=5000, max_bytes=1 << 20)
            numbers += [decode(payload).attributes["n"] for _, payload in chunk.frames]
            for reason, count in chunk.lost.items():
                lost[reason] = lost.get(reason, 0) + count
            position = chunk.position
            if chunk.at_end and not chunk.frames:
                break
        emitted += max(position.sequence, stream.acknowledged)
    accounted += len(numbers) + sum(lost.values())
    there = set(numbers)
    missing = sum(number not in there for number in range(acknowledged))
    return Outcome(acknowledged, missing, len(numbers) - len(there), lost, emitted - accounted)


def main() -> int:
    """Run the campaign; 1 when anything was lost."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--spans", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    moments, redactor = random.Random(chosen.seed), Redactor(LIMITS)
    outcomes = []
    for number in range(chosen.kills):
        folder = Path(tempfile.mkdtemp(prefix="e2i-kill-"))
        outcomes.append(kill_once(folder, chosen.spans, moments.uniform(0, 0.2), redactor))
        if outcomes[-1].missing or outcomes[-1].unexplained or outcomes[-1].lost or outcomes[-1].twice:
            print(f"kill {number}: {outcomes[-1]}; the spool is kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    total = {
        "kills": len(outcomes),
        "acknowledged": sum(found.acknowledged for found in outcomes),
        "fewest_per_kill": min(found.acknowledged for found in outcomes),
        "missing": sum(found.missing for found in outcomes),
        "twice": sum(found.twice for found in outcomes),
        "counted_as_lost": sum(sum(found.lost.values()) for found in outcomes),
        "unexplained": sum(abs(found.unexplained) for found in outcomes),
    }
    print(json.dumps(total, indent=1))
    return int(bool(total["missing"] or total["twice"] or total["unexplained"]))


if __name__ == "__main__":
    sys.exit(main())
