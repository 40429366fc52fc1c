"""One metric put together by cell: value with its standard error, target, people, and what its neighbours do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from e2i.domain.disclosure import visible_counts
from e2i.ml.kpi_rows import KEPT, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from e2i.domain.gaps import GapSpec, ProvenSpec

Z95 = 1.959963984540054
VOLUMES = frozenset({"trx", "nrx", "nbrx", "totaltrx", "totalnrx", "calls", "samples"})
# The KPI catalogue's measures whose target lies below their critical value.
LOWER_IS_BETTER = frozenset(
    {
        "geographicconsistency", "datalag", "datalagmedian", "timetorelease", "brierscore", "fairnessgap", "featuredrift", "falsealertrate",
        "overriderate", "leadtime", "changefailrate", "ahuncontrolled", "dxadoption",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric in one cell and period. `value_with_target` is the value over the rows that have a target."""

    key: tuple[str, ...]
    value: float
    standard_error: float | None
    low: float | None
    high: float | None
    target: float | None
    value_with_target: float | None
    benchmark: float | None
    rows: int
    target_rows: int
    dates: int
    people: int | None
    exposure: float | None
    """people summed over dates; None where a row does not tell"""
    times: float | None = None
    reach: float | None = None


def is_sum(metric: str, rows: pl.DataFrame, spec: GapSpec) -> tuple[bool, str | None]:
    """Whether rows of a metric add up, and a warning where that is a guess."""
    if metric in spec.aggregate:
        return spec.aggregate[metric] == "sum", None
    kinds = rows[f"{KEPT}kind"].drop_nulls().unique().to_list()
    if kinds:
        return kinds == ["volume"], None
    if plain(metric) in VOLUMES:
        return True, None
    return False, f"{metric} is averaged over rows: nothing says that it adds up. Set gaps.aggregate to `sum` if it does."


def cells(rows: pl.DataFrame, by: Sequence[str], *, adds_up: bool, metric: str, spec: GapSpec) -> tuple[Cell, ...]:
    """Every cell of one metric in one period, sorted by key."""
    found = []
    for key, part in rows.group_by(by, maintain_order=False):
        cell = dict(zip(by, (str(value) for value in key), strict=True))
        found.append(_cell(cell, part, adds_up=adds_up, metric=metric, spec=spec))
    return tuple(sorted(found, key=lambda cell: cell.key))


def links(spec: GapSpec, metric: str, cell: dict[str, str]) -> list[ProvenSpec]:
    """The effects that are linked to a metric and were measured in this cell, given as column -> value; the first is used."""
    return [item for item in spec.proven if item.metric == metric and all(cell.get(c) == v for c, v in item.where.items())]


def hidden(found: Iterable[Cell], by: Sequence[str], *, margins: Sequence[Sequence[str]]) -> set[tuple[str, ...]]:
    """Keys of cells with 1 to 10 people, and of those from which these could be found by subtraction.

    Parameters
    ----------
    margins : other segmentations that are shown, made of some of the columns `by`; their totals could be subtracted from
    """
    people = {cell.key: cell.people for cell in found if cell.people is not None}
    inside = [[by.index(name) for name in margin] for margin in margins if set(margin) < set(by)]
    gone: set[tuple[str, ...]] = set()
    for positions in ([], *inside):
        groups: dict[tuple[str, ...], dict[str, int]] = {}
        for key, count in people.items():
            groups.setdefault(tuple(key[place] for place in positions), {})["\x1f".join(key)] = 1 if key in gone else count
        for counts in groups.values():
            gone |= {tuple(name.split("\x1f")) for name, shown in visible_counts(counts).items() if shown is None}
    return gone


def _cell(cell: dict[str, str], part: pl.DataFrame, *, adds_up: bool, metric: str, spec: GapSpec) -> Cell:
    size = part[f"{KEPT}sample_size"]
    knows_size = not size.has_nulls() and float(size.sum()) > 0
    part = part.with_columns((size if knows_size and not adds_up else pl.Series([1.0] * part.height)).alias(f"{KEPT}weight"))
    value = _together(part, f"{KEPT}value", adds_up=adds_up)
    targeted = part.drop_nulls(f"{KEPT}target")
    targeted = targeted.filter(pl.col(f"{KEPT}target").is_finite())
    low, high, error = _interval(part, value, adds_up=adds_up, knows_size=knows_size)
    benchmark = spec.columns.benchmark
    ruled = part.drop_nulls(benchmark) if benchmark is not None else part.clear()
    worth, proven = spec.values.get(metric), links(spec, metric, cell)
    return Cell(
        key=tuple(cell.values()),
        value=value,
        standard_error=error,
        low=low,
        high=high,
        target=_together(targeted, f"{KEPT}target", adds_up=adds_up) if targeted.height else None,
        value_with_target=_together(targeted, f"{KEPT}value", adds_up=adds_up) if targeted.height else None,
        benchmark=_together(ruled, benchmark, adds_up=adds_up) if benchmark is not None and ruled.height == part.height else None,
        rows=part.height,
        target_rows=targeted.height,
        dates=part[f"{KEPT}date"].n_unique(),
        people=int(_largest(part, f"{KEPT}sample_size")) if size.null_count() < part.height else None,
        exposure=float(size.sum()) if knows_size else None,
        times=_times(part, worth.times) if worth is not None else None,
        reach=_reach(part, proven[0].reach) if proven else None,
    )


def _together(part: pl.DataFrame, column: str, *, adds_up: bool) -> float:
    values = part[column].cast(pl.Float64)
    if adds_up:
        return float(values.sum())
    weights = part[f"{KEPT}weight"]
    return float((values * weights).sum()) / float(weights.sum())


def _interval(part: pl.DataFrame, value: float, *, adds_up: bool, knows_size: bool) -> tuple[float | None, float | None, float | None]:
    """95 % interval and standard error: from the rows' own intervals, else Wilson's (1927) for a share of people, else unknown.

    Rows are taken as independent.
    """
    low, high = part[f"{KEPT}low"], part[f"{KEPT}high"]
    if not low.has_nulls() and not high.has_nulls():
        weights = pl.Series([1.0] * part.height) if adds_up else part[f"{KEPT}weight"] / float(part[f"{KEPT}weight"].sum())
        error = math.sqrt(float(((weights * (high - low) / (2 * Z95)) ** 2).sum()))
        return value - Z95 * error, value + Z95 * error, error
    values = part[f"{KEPT}value"]
    if adds_up or not knows_size or float(values.min()) < 0 or float(values.max()) > 1:  # type: ignore[arg-type]
        return None, None, None
    n = float(part[f"{KEPT}sample_size"].sum())
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half), half / Z95


def _largest(part: pl.DataFrame, column: str) -> float:
    """The largest total of one date: people of several dates may be the same people."""
    return float(part.group_by(f"{KEPT}date").agg(pl.col(column).sum())[column].max() or 0)  # type: ignore[arg-type]


def _times(part: pl.DataFrame, times: float | str) -> float | None:
    if not isinstance(times, str):
        return times
    mean = part[times].cast(pl.Float64, strict=False).mean()
    return float(mean) if isinstance(mean, float) else None


def _reach(part: pl.DataFrame, reach: float | str) -> float:
    return _largest(part.with_columns(pl.col(reach).cast(pl.Float64, strict=False)), reach) if isinstance(reach, str) else reach
