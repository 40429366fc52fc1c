"""A span that was forced to the disk is delivered after the power went at any moment, whatever the disk made of the rest."""

from __future__ import annotations

import asyncio
import pickle
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import power_recorder
import pytest

from contracts.memory_shipments import MemoryShipments
from databases import scratch
from e2i.domain.telemetry import SpanRecord
from e2i.telemetry.sampling import Sampler, SamplingRules
from power_cut import Fate, Platter, moments
from unit.telemetry.spool_world import SETTINGS, Collector, World, settle

MOMENTS = 110
SAMPLER = Sampler(SamplingRules(rate=0.5, always_agents=frozenset({"causal_impact"})))
FATES = ("nothing", "nothing", "all", "part", "part")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that waits for no medium."""
    folder = scratch("e2i-power-")
    yield folder
    shutil.rmtree(folder)


@dataclass
class Told:
    """What the outside knows at a moment: spans ended and promised, and what the table and the collector have."""

    ended: dict[int, tuple[str, bool]] = field(default_factory=dict)
    safe: set[int] = field(default_factory=set)
    table: MemoryShipments = field(default_factory=MemoryShipments)
    got: list[SpanRecord] = field(default_factory=list)
    _by: dict[int, list[int]] = field(default_factory=dict)
    _asked: dict[int | None, list[int]] = field(default_factory=dict)

    def hear(self, entry: tuple[Any, ...]) -> None:
        """One entry of the journal."""
        kind, *told = entry
        if kind == "ended":
            who, number, trace_id, is_failed = told
            self.ended[number] = (trace_id, is_failed)
            self._by.setdefault(who, []).append(number)
        elif kind == "asked":
            (who,) = told
            self._asked[who] = list(self.ended) if who is None else list(self._by.get(who, []))
        elif kind == "safe":
            self.safe.update(self._asked[told[0]])
        elif kind == "commit":
            spans, spool_id, state, left_out = told
            asyncio.run(self.table.ship(spans, spool_id=spool_id, state=state, left_out=left_out))
        elif kind == "sent":
            self.got += told[0]

    def promised(self) -> set[int]:
        """Safe spans that must come to the sinks: of the sample, or of a trace with a safe error."""
        failed = {self.ended[number][0] for number in self.safe if self.ended[number][1]}
        return {number for number in self.safe if (trace := self.ended[number][0]) in failed or _is_sampled(trace)}


def _is_sampled(trace_id: str) -> bool:
    kind, _ = SAMPLER.classify(int(trace_id, 16), agent=None, is_error=False, root=None, is_entry=False)
    return kind.name == "KEPT"


def recorded(folder: Path, who: str, seed: int) -> list[tuple[Any, ...]]:
    journal = folder / "journal"
    command = [sys.executable, power_recorder.__file__, str(folder / "home" / "spool"), str(journal), str(seed), who]
    subprocess.run(command, check=True, timeout=120)
    found: list[tuple[Any, ...]] = pickle.loads(journal.read_bytes())
    return found


async def deliver(world: World) -> None:
    """Start on what is left, with a new writer, and go on until nothing is left to do."""
    writer = world.writer()
    world.emit(writer, 3)
    async with world.shipper() as shipper:
        for _ in range(2):
            await settle(world, shipper)
            shipper.tend()
            writer.close()
        assert not [stream for stream in shipper._streams if not stream.is_alive]


def check(world: World, told: Told) -> None:
    """Everything promised is there, once, and every number adds up."""
    table = {span.attributes["n"] for span in world.table.rows.values() if "n" in span.attributes}
    collector = {span.attributes["n"] for span in world.collector.got if "n" in span.attributes}
    assert not told.promised() - table, "a forced span is not in the table"
    assert not told.promised() - collector, "a forced span did not come to the collector"
    assert len(table) == sum("n" in span.attributes for span in world.table.rows.values())
    again = [key for key, count in Counter(span.key for span in world.table.left_out).items() if count > 1]
    assert not again, "a span that sampling leaves out is counted twice"
    for name in ("postgres", "otlp"):
        account = asyncio.run(world.account(name))
        assert (account.unexplained, account.in_spool) == (0, 0), account
        assert "restored" not in account.dropped, account
        if name == "postgres":
            assert account.emitted <= len(told.ended) + 2 + 3, account
            assert account.delivered == len(world.table.rows), account


@pytest.mark.parametrize("who", ["writer", "reader"])
def test_a_forced_span_is_delivered_after_a_power_cut_at_any_moment(memory: Path, who: str) -> None:
    journal = recorded(memory, who, seed=1)
    chance = random.Random(who)
    platter, told, done = Platter(memory), Told(), 0
    for number, moment in enumerate(moments(len(journal), MOMENTS, chance)):
        for entry in journal[done:moment]:
            platter.replay(entry)
            told.hear(entry)
        done = moment
        fate = Fate(FATES[number % len(FATES)], chance, has_rubbish=number % 2 == 0)
        place = memory / f"after_{moment}"
        platter.put(place, fate)
        collector = Collector(got=list(told.got))
        table, settings = told.table.backup(), replace(SETTINGS, decision_wait_s=0.0)
        world = World(place / "home" / "spool", table=table, collector=collector, settings=settings)
        asyncio.run(deliver(world))
        check(world, told)
        shutil.rmtree(place)
    assert told.safe
