"""Latency rollups: what a span adds to its hour and its day, with durations in a histogram that can be added.

Bins grow by 2 % (as in DDSketch, Masson et al. 2019), so the middle of a bin is within 0.991 % of every value in it. Bin 0 is
below a microsecond and counts as 0; the last one ends at 28 hours. A histogram is kept cumulative, as a pgvector vector:
the sum of two is the histogram of both, and a percentile is a binary search in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from math import log
from operator import add, sub
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from psycopg.abc import Buffer

GROWTH = 1.02
FLOOR_MS = 0.001
BINS = 1280
UNKNOWN_TIER = "unknown"
"""of agents that other teams' spans name without a tier"""
NOT_CALLS = frozenset({"step", "metric", "feedback"})
"""operations that never count: their calls do"""
_HOUR_NS = 3_600_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUMS = ("spans", "inputs", "outputs", "priced", "costs", "calls", "durations", "errors", "fallbacks")
_REALS = ("costs", "durations")
"""the driver takes no lists of whole numbers and others mixed"""
_LOG_GROWTH = log(GROWTH)
_array_head = Struct("!iiIii").pack
_vector = Struct(f"!ihh{BINS}f").pack
_Key = tuple[str, int, str, str]


class Measure(NamedTuple):
    """What one span adds to the rollups: a call everything, a part of a call its tokens and cost."""

    agent_name: str
    agent_tier: str
    started_ns: int
    duration_ms: float
    is_error: bool
    is_fallback: bool
    input_tokens: int
    output_tokens: int
    total_cost: float | None
    """US dollars; None where unknown"""
    is_part: bool = False
    """it happened inside a call of the same agent"""


@dataclass(slots=True)
class _Cell:
    """The changes of one hour; `sums` in the order of _SUMS."""

    sums: list[float] = field(default_factory=lambda: [0.0 if name in _REALS else 0 for name in _SUMS])
    calls: list[float] = field(default_factory=lambda: [0.0] * BINS)
    """how many more, or fewer, each bin has; floats, because whole numbers take three times as long to pack"""


@dataclass(frozen=True)
class Histograms:
    """Cumulative histograms, one row each; travels as `vector[]`."""

    cumulative: list[list[float]]
    element_oid: int
    """of the type `vector` in this database"""


class HistogramsDumper(Dumper):
    """PostgreSQL's binary form of an array of vectors."""

    format = Format.BINARY

    def dump(self, obj: Histograms) -> Buffer:
        """The bytes that array_recv and vector_recv read."""
        head = _array_head(1, 0, obj.element_oid, len(obj.cumulative), 1)
        return head + b"".join([_vector(4 + 4 * BINS, BINS, 0, *each) for each in obj.cumulative])


def rollup_parameters(added: Iterable[Measure], removed: Iterable[Measure] = (), *, vector_oid: int) -> dict[str, Any] | None:
    """Parameters of the statement `roll_up`, in the order of the key, so that writers never wait in a circle; None when nothing changes."""
    hours = _by_hour(added, removed)
    if not hours:
        return None
    sums: dict[_Key, list[float]] = {}
    histograms: dict[_Key, list[float]] = {}
    for hour, cell in hours.items():
        day = ("day", hour[1] // 24, *hour[2:])
        sums[hour], histograms[hour] = cell.sums, list(accumulate(cell.calls))
        if day in sums:
            sums[day] = list(map(add, sums[day], cell.sums))
            histograms[day] = list(map(add, histograms[day], histograms[hour]))
        else:
            sums[day], histograms[day] = sums[hour], histograms[hour]
    cells = sorted(sums)
    return {
        "levels": [cell[0] for cell in cells],
        "buckets": [_EPOCH + timedelta(hours=cell[1] * (1 if cell[0] == "hour" else 24)) for cell in cells],
        **{name: [cell[place] for cell in cells] for place, name in ((2, "agents"), (3, "tiers"))},
        **{name: [sums[cell][place] for cell in cells] for place, name in enumerate(_SUMS)},
        "histograms": Histograms([histograms[cell] for cell in cells], vector_oid),
    }


def _by_hour(added: Iterable[Measure], removed: Iterable[Measure]) -> dict[_Key, _Cell]:
    hours: dict[_Key, _Cell] = {}
    for change, measures in ((add, added), (sub, removed)):
        for measure in measures:
            key = ("hour", measure.started_ns // _HOUR_NS, measure.agent_name, measure.agent_tier)
            cell = hours.get(key)
            if cell is None:
                cell = hours[key] = _Cell()
            if not measure.is_part:
                place = bin_of(measure.duration_ms)
                cell.calls[place] = change(cell.calls[place], 1.0)
            cell.sums = list(map(change, cell.sums, _amounts(measure)))
    return hours


def _amounts(measure: Measure) -> tuple[float, ...]:
    """In the order of _SUMS; a part is no call."""
    cost = measure.total_cost
    of_call = (0, 0.0, 0, 0) if measure.is_part else (1, measure.duration_ms, measure.is_error, measure.is_fallback)
    return 1, measure.input_tokens, measure.output_tokens, cost is not None, cost or 0.0, *of_call


def bin_of(duration_ms: float) -> int:
    """The bin, from 0, of a duration."""
    if duration_ms < FLOOR_MS:
        return 0
    return min(int(log(duration_ms / FLOOR_MS) / _LOG_GROWTH) + 1, BINS - 1)
