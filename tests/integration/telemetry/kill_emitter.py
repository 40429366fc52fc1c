"""A process that ends spans and tells, one byte per span, that `end` returned. Killed from outside, or by itself at a chosen system call.

python kill_emitter.py FOLDER SPANS [KILL_AT before|after] [--workers N]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from e2i.telemetry.processor import SpoolProcessor
from e2i.telemetry.redaction import Redactor, SpanLimits
from e2i.telemetry.relay import Relay
from e2i.telemetry.sampling import Sampler, SamplingRules
from e2i.telemetry.spool import SpoolSettings, SpoolWriter
from e2i.telemetry.tracer import QuickProvider

SEGMENT_BYTES = 8_000
LIMITS = SpanLimits(
    include_input=True,
    include_output=True,
    max_input_size_bytes=10240,
    max_output_size_bytes=10240,
    max_metadata_size_bytes=4096,
    redact_patterns=("password",),
)


def provider(writer: SpoolWriter, *, rate: float = 0.5) -> TracerProvider:
    """As the pipeline installs it: our provider with our processor alone."""
    sampler = Sampler(SamplingRules(rate=rate, always_agents=frozenset({"causal_impact"})))
    made, relay = QuickProvider(sampler=ALWAYS_ON, shutdown_on_exit=False), Relay()
    relay.target = SpoolProcessor(writer, Redactor(LIMITS), sampler, service="e2i", log_prompts=lambda agent: True)
    made.add_span_processor(relay)
    return made


def main(folder: Path, spans: int, kill_at: int = 0, when: str = "before") -> None:
    """End spans, one byte to stdout after each; `sync` every hundred."""
    disk = None
    if kill_at:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from spool_faults import Watched, killed_at

        disk = (Watched(before=killed_at(kill_at)) if when == "before" else Watched(after=killed_at(kill_at))).disk()
    writer = SpoolWriter(SpoolSettings(folder=folder, max_bytes=1 << 26, segment_bytes=SEGMENT_BYTES), disk=disk)
    tracer = provider(writer).get_tracer("kill")
    for number in range(spans):
        agent = "causal_impact" if number % 10 == 0 else "gap_analyzer"
        span = tracer.start_span(f"span {number}", attributes={"e2i.agent.name": agent, "n": number, "text": "x" * (number % 700)})
        span.end()
        os.write(1, b".")
        if number % 100 == 99:
            writer.sync()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *(int(found) if found.isdecimal() else found for found in sys.argv[3:5]))
