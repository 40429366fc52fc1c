"""Latency rollups: what a span adds to its hour and its day, with durations in a histogram that can be added.

Bins grow by 2 % (as in DDSketch, Masson et al. 2019), so the middle of a bin is within 0.991 % of every value in it. Bin 0 is
below a microsecond and counts as 0; the last one ends at 28 hours. A histogram is kept cumulative, as a pgvector vector:
the sum of two is the histogram of both, and a percentile is a binary search in it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import numpy as np
    import numpy.typing as npt
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
    durations_ms: list[float] = field(default_factory=list)
    signs: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Histograms:
    """Cumulative histograms, one row each; travels as `vector[]`."""

    cumulative: list[npt.NDArray[np.float64]]
    element_oid: int
    """of the type `vector` in this database"""


class HistogramsDumper(Dumper):
    """PostgreSQL's binary form of an array of vectors."""

    format = Format.BINARY

    def dump(self, obj: Histograms) -> Buffer:
        """The bytes that array_recv and vector_recv read."""
        import numpy as np

        rows, width = len(obj.cumulative), BINS
        layout = np.dtype([("size", ">i4"), ("width", ">i2"), ("unused", ">i2"), ("values", ">f4", (width,))])
        packed = np.zeros(rows, dtype=layout)
        packed["size"], packed["width"] = 4 + 4 * width, width
        for row, cumulative in zip(packed["values"], obj.cumulative, strict=True):
            row[:] = cumulative
        return struct.pack("!iiIii", 1, 0, obj.element_oid, rows, 1) + packed.tobytes()


def rollup_parameters(added: Iterable[Measure], removed: Iterable[Measure] = (), *, vector_oid: int) -> dict[str, Any] | None:
    """Parameters of the statement `roll_up`, in the order of the key, so that writers never wait in a circle; None when nothing changes."""
    hours = _by_hour(added, removed)
    if not hours:
        return None
    histograms = dict(zip(hours, _cumulative(hours), strict=True))
    sums = {key: cell.sums for key, cell in hours.items()}
    for key, cell in hours.items():
        day = ("day", key[1] // 24, *key[2:])
        if day in sums:
            sums[day] = list(map(add, sums[day], cell.sums))
            histograms[day] = histograms[day] + histograms[key]
        else:
            sums[day], histograms[day] = cell.sums, histograms[key]
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
    for sign, measures in ((1, added), (-1, removed)):
        for measure in measures:
            key = ("hour", measure.started_ns // _HOUR_NS, measure.agent_name, measure.agent_tier)
            cell = hours.get(key)
            if cell is None:
                cell = hours[key] = _Cell()
            if not measure.is_part:
                cell.durations_ms.append(measure.duration_ms)
                cell.signs.append(sign)
            sums = cell.sums
            for place, amount in enumerate(_amounts(measure)):
                sums[place] += sign * amount
    return hours


def _amounts(measure: Measure) -> tuple[float, ...]:
    """In the order of _SUMS; of a part only the first ones."""
    cost = measure.total_cost
    amounts = (1, measure.input_tokens, measure.output_tokens, cost is not None, cost or 0.0)
    return amounts if measure.is_part else (*amounts, 1, measure.duration_ms, measure.is_error, measure.is_fallback)


def bins_of(durations_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin, from 0, of each duration."""
    import numpy as np

    logs = np.log(np.maximum(durations_ms, FLOOR_MS) / FLOOR_MS) / math.log(GROWTH)
    bins = np.minimum(logs.astype(np.int64) + 1, BINS - 1)
    bins[durations_ms < FLOOR_MS] = 0
    return bins


def _cumulative(hours: dict[_Key, _Cell]) -> npt.NDArray[np.float64]:
    """Shape (hours, BINS): how many calls more, or fewer, an hour has up to each bin."""
    import numpy as np

    cells = hours.values()
    rows = np.repeat(np.arange(len(hours)), [len(cell.signs) for cell in cells])
    places = rows * BINS + bins_of(np.array([ms for cell in cells for ms in cell.durations_ms]))
    signs = np.array([sign for cell in cells for sign in cell.signs], dtype=np.float64)
    counts: Any = np.bincount(places, weights=signs, minlength=len(hours) * BINS)
    return np.cumsum(counts.reshape(len(hours), BINS), axis=1, dtype=np.float64)
