"""A spool, its shipper and its sinks in virtual time: days pass in no time, and every span is counted at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contracts.memory_shipments import MemoryShipments
from e2i.domain.telemetry import SinkAccount, SpanRecord
from e2i.mlops.circuit_breaker import BreakerSettings, CircuitBreaker
from e2i.telemetry.account import accounts
from e2i.telemetry.cursor import CursorFile
from e2i.telemetry.delivery import Round
from e2i.telemetry.frames import encode
from e2i.telemetry.gather import Clock
from e2i.telemetry.shipper import Route, Shipper, ShipperSettings
from e2i.telemetry.sink import ForeignSink, Sink
from e2i.telemetry.sinks.postgres import PostgresSink
from e2i.telemetry.spool import SpanClass, SpoolSettings, SpoolWriter

SETTINGS = ShipperSettings(max_bytes=1 << 30, decision_wait_s=150.0, max_wait_s=0.5, retry_delay_s=1.0, max_delay_s=30.0)
START_NS = 1_800_000_000_000_000_000


@dataclass
class Hands:
    """Both clocks, moved by the test. `jump_s` moves only the wall."""

    wall_ns: int = START_NS
    ticks: float = 0.0

    def advance(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)
        self.ticks += seconds

    def jump(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)

    @property
    def clock(self) -> Clock:
        return Clock(now_ns=lambda: self.wall_ns, monotonic=lambda: self.ticks)


@dataclass
class Collector:
    """An Exporter that keeps what it is given. `fault` is called before each call and may raise; `poison` are span ids it refuses."""

    name: str = "otlp"
    batch_size: int = 100
    fault: Callable[[], None] = lambda: None
    poison: set[str] = field(default_factory=set)
    rejects: Callable[[str], Exception] = ValueError
    got: list[SpanRecord] = field(default_factory=list)
    calls: int = 0

    async def send(self, spans: Sequence[SpanRecord]) -> int:
        self.calls += 1
        self.fault()
        if any(span.span_id in self.poison for span in spans):
            raise self.rejects("a bad record")
        self.got += spans
        return 0

    async def close(self) -> None:
        return None

    @property
    def distinct(self) -> set[tuple[str, str]]:
        return {span.key for span in self.got}


@dataclass
class World:
    """Make one with `World(tmp_path)`; `async with world.shipper()` opens the shipper."""

    folder: Path
    hands: Hands = field(default_factory=Hands)
    table: MemoryShipments = field(default_factory=MemoryShipments)
    collector: Collector = field(default_factory=Collector)
    settings: ShipperSettings = SETTINGS
    emitted: int = 0
    _writers: list[SpoolWriter] = field(default_factory=list)

    def writer(self, *, segment_bytes: int = 65_536, max_bytes: int = 1 << 30) -> SpoolWriter:
        made = SpoolWriter(SpoolSettings(folder=self.folder, max_bytes=max_bytes, segment_bytes=segment_bytes))
        self._writers.append(made)
        return made

    def emit(self, writer: SpoolWriter, spans: int, *, kind: SpanClass = SpanClass.KEPT, **fields: Any) -> list[SpanRecord]:
        """Write `spans` spans that end now."""
        made = []
        for _ in range(spans):
            self.emitted += 1
            one = self.record(self.emitted, **fields)
            assert writer.write(encode(one), kind)
            made.append(one)
        return made

    def record(self, number: int, **fields: Any) -> SpanRecord:
        given = SpanRecord(
            trace_id=f"{number:032x}",
            span_id=f"{number:016x}",
            parent_span_id=None,
            name="step",
            started_ns=self.hands.wall_ns - 5_000_000,
            ended_ns=self.hands.wall_ns,
            status="ok",
            attributes={"e2i.agent.name": "causal_impact", "number": number},
        )
        return replace(given, **fields)

    def sinks(self) -> list[Sink]:
        """Fresh objects, as a new process has them; what lies behind them stays."""
        return [
            PostgresSink(self.table, CursorFile(self.folder, "postgres"), batch_size=200),
            ForeignSink(self.collector, CursorFile(self.folder, self.collector.name)),
        ]

    def shipper(self, sinks: Sequence[Sink] | None = None) -> Shipper:
        routes = [Route(sink=sink, breaker=self._breaker(sink.name)) for sink in (self.sinks() if sinks is None else sinks)]
        return Shipper(self.folder, routes, self.settings, clock=self.hands.clock, chance=lambda: 0.5)

    async def account(self, name: str, *, live: bool = True) -> SinkAccount:
        """`live`: with the database's own state."""
        (found,) = await accounts(
            self.folder,
            [name],
            shipments=self.table if live else None,
            decision_wait_s=self.settings.decision_wait_s,
            now_ns=lambda: self.hands.wall_ns,
        )
        return found

    def _breaker(self, name: str) -> CircuitBreaker:
        return CircuitBreaker(name, BreakerSettings(), clock=lambda: self.hands.ticks, chance=lambda: 0.5)


async def settle(world: World, shipper: Shipper, *names: str, limit: int = 10_000) -> int:
    """Step each sink, letting time pass where it asks for it, until it has nothing more to do; returns the spans moved."""
    moved = 0
    for name in names or tuple(shipper._deliveries):
        idle = 0
        for _ in range(limit):
            round_ = await shipper.step(name)
            moved += round_.moved
            if round_.wait_s:
                world.hands.advance(round_.wait_s)
            idle = idle + 1 if is_idle(shipper, name, round_) else 0
            if idle >= 2:
                break
        else:
            raise AssertionError(f"{name} did not settle: {shipper.delivery(name).last_error}")
    return moved


def is_idle(shipper: Shipper, name: str, round_: Round) -> bool:
    """Nothing moved, and not because of a fault."""
    return not round_.moved and 0 < round_.wait_s <= SETTINGS.poll_s and shipper.delivery(name).health().breaker != "open"
