"""Gaps of a KPI against its target, its peers, the best tenth of its peers, and its own past.

A missing reference makes a gap unknown, never 0. A gap is above 0 when the current value is worse than the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.domain.gaps import GAP_TYPES, GapTable, GapType, PerformanceGap, Range, UnknownGap
from e2i.errors import TooFewRows
from e2i.ml.kpi_cells import LOWER_IS_BETTER, Z95, Cell, cells, hidden, is_sum
from e2i.ml.kpi_rows import KEPT, bounds, months_per_date, plain, reference_bounds, tidy, within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    import polars as pl

    from e2i.domain.gaps import GapSpec

POTENTIAL_QUANTILE = 0.9
FEWEST_PEERS = 4
"""cells from which a best tenth is taken"""


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """One metric in one segmentation: the cells now and in the reference period."""

    name: str
    by: tuple[str, ...]
    adds_up: bool
    is_lower_better: bool
    months_per_date: float
    now: tuple[Cell, ...]
    then: dict[tuple[str, ...], Cell]
    peers: tuple[int, ...]
    """positions in a cell's key within which cells are compared"""


@dataclass(frozen=True, kw_only=True)
class _Reference:
    current: float
    value: float
    standard_error: float | None = None
    note: str | None = None


def detect(frame: pl.DataFrame, spec: GapSpec) -> GapTable:
    """Every comparison that `spec` asks for.

    gap % = (reference - current) / reference · 100, with the sign turned for metrics of which less is better.

    Parameters
    ----------
    frame : one row is one metric of one cell at one date, as in `business_metrics`

    Returns
    -------
    GapTable
        Gaps of at least `minimum_gap_percent`, sorted by id; comparisons that cannot be made, with their reason; counts.

    Raises
    ------
    SchemaMismatch, ConfigError, TooFewRows
        See `kpi_rows.tidy`; TooFewRows also when the period has no rows.
    """
    known = tidy(frame, spec)
    last = known.frame[f"{KEPT}date"].max()
    span = bounds(spec.period, last)  # type: ignore[arg-type]
    rows = within(known.frame, span)
    if rows.is_empty():
        first = known.frame[f"{KEPT}date"].min()
        raise TooFewRows(f"no row lies in {span[0]} to {span[1]}.", where="gaps.period", advice=f"The table covers {first!s} to {last!s}.")
    before = reference_bounds(span, year_ago=spec.temporal_reference == "year_ago")
    earlier = within(known.frame, before)
    warnings = [*known.warnings]
    found: list[PerformanceGap | UnknownGap] = []
    n_cells = n_hidden = 0
    for name in rows[f"{KEPT}metric"].unique().sort():
        mine = rows.filter(rows[f"{KEPT}metric"] == name)
        adds_up, guess = is_sum(name, mine, spec)
        warnings += [guess] if guess else []
        for by in spec.segmentations:
            metric, gone = _metric(name, by, mine, earlier, adds_up=adds_up, spec=spec, span=span, all_rows=known.frame)
            n_cells, n_hidden = n_cells + len(metric.now), n_hidden + gone
            warnings += _late(metric, dates=mine[f"{KEPT}date"].n_unique())
            found += [_compare(metric, cell, kind) for cell in metric.now for kind in spec.gap_types]
        warnings += _partial(name, mine, earlier, spec)
    warnings += _unsized(rows)
    gaps = [item for item in found if isinstance(item, PerformanceGap)]
    return GapTable(
        period=(str(span[0]), str(span[1])),
        reference_period=(str(before[0]), str(before[1])) if "temporal" in spec.gap_types else None,
        gaps=tuple(sorted((gap for gap in gaps if gap.gap_percent >= spec.minimum_gap_percent and gap.gap_size > 0), key=_id)),
        unknown=tuple(item for item in found if isinstance(item, UnknownGap)),
        compared=len(gaps),
        cells=n_cells,
        suppressed_cells=n_hidden,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _id(gap: PerformanceGap) -> str:
    return gap.gap_id


def _metric(
    name: str,
    by: tuple[str, ...],
    rows: pl.DataFrame,
    earlier: pl.DataFrame,
    *,
    adds_up: bool,
    spec: GapSpec,
    span: tuple[date, date],
    all_rows: pl.DataFrame,
) -> tuple[_Metric, int]:
    """The metric's cells without the small ones, and how many those are."""
    now = cells(rows, by, adds_up=adds_up, metric=name, spec=spec)
    gone = hidden(now, by, margins=spec.segmentations)
    before = cells(earlier.filter(earlier[f"{KEPT}metric"] == name), by, adds_up=adds_up, metric=name, spec=spec)
    small_before = hidden(before, by, margins=spec.segmentations)
    within_equal = spec.peers if spec.peers is not None else (("brand",) if len(by) > 1 else ())
    dates = all_rows.filter(all_rows[f"{KEPT}metric"] == name)[f"{KEPT}date"]
    of_period = ((span[1] - span[0]).days + 1) / (365.25 / 12) / max(1, rows[f"{KEPT}date"].n_unique())
    return _Metric(
        name=name,
        by=by,
        adds_up=adds_up,
        is_lower_better=name in spec.lower_is_better or plain(name) in LOWER_IS_BETTER,
        months_per_date=months_per_date(dates) or of_period,
        now=tuple(cell for cell in now if cell.key not in gone),
        then={cell.key: cell for cell in before if cell.key not in small_before},
        peers=tuple(by.index(column) for column in within_equal if column in by),
    ), len(gone)


def _compare(metric: _Metric, cell: Cell, kind: GapType) -> PerformanceGap | UnknownGap:
    reference = _REFERENCES[kind](metric, cell)
    segment, value = " x ".join(metric.by), " x ".join(cell.key)
    if isinstance(reference, _Reference) and not reference.value > 0:
        reference = f"the reference is {reference.value:g}; a percentage needs one above 0"
    if isinstance(reference, str):
        return UnknownGap(metric=metric.name, segment=segment, segment_value=value, gap_type=kind, reason=reference)
    size = (reference.value - reference.current) * (-1 if metric.is_lower_better else 1)
    error = _both(cell.standard_error, reference.standard_error)
    return PerformanceGap(
        gap_id=f"{metric.name}|{segment}={value}|{kind}",
        metric=metric.name,
        segment=segment,
        segment_value=value,
        cell=dict(zip(metric.by, cell.key, strict=True)),
        gap_type=kind,
        current_value=_current(cell, reference.current),
        reference_value=reference.value,
        gap_size=size,
        gap_percent=size / reference.value * 100,
        is_lower_better=metric.is_lower_better,
        is_beyond_noise=None if error is None else abs(size) > Z95 * error,
        gap_standard_error=error,
        months=metric.months_per_date * cell.dates,
        dates=cell.dates,
        is_sum=metric.adds_up,
        sample_size=cell.people,
        value_times=cell.times,
        reach=cell.reach,
        note=reference.note,
    )


def _current(cell: Cell, current: float) -> Range:
    if current == cell.value:
        return Range(estimate=current, low=cell.low, high=cell.high)
    return Range(estimate=current)


def _both(first: float | None, second: float | None) -> float | None:
    return None if first is None else math.hypot(first, second or 0.0)


def _target(metric: _Metric, cell: Cell) -> _Reference | str:  # noqa: ARG001 - every reference has this signature
    if cell.target is None or cell.value_with_target is None:
        return "no target is set"
    note = None
    if cell.target_rows < cell.rows:
        note = f"A target is set for {cell.target_rows} of {cell.rows} rows; the others are left out on both sides."
    return _Reference(current=cell.value_with_target, value=cell.target, note=note)


def _benchmark(metric: _Metric, cell: Cell) -> _Reference | str:
    """The row's own benchmark, else the other cells pooled; volumes by head where the table tells how many people there are."""
    if cell.benchmark is not None:
        return _Reference(current=cell.value, value=cell.benchmark)
    others = [other for other in _peers(metric, cell) if other.key != cell.key]
    if not others:
        return "there is no other cell to compare with"
    weights, own = _exposures(metric, [*others, cell])
    rates = np.array([other.value for other in others]) / (weights[:-1] if metric.adds_up else 1.0)
    shares = weights[:-1] / weights[:-1].sum()
    errors = [other.standard_error for other in others]
    error = None
    if all(item is not None for item in errors):
        scaled = np.array(errors, dtype=float) / (weights[:-1] if metric.adds_up else 1.0)
        error = float(np.sqrt(np.sum((shares * scaled) ** 2))) * own
    return _Reference(current=cell.value, value=float(shares @ rates) * own, standard_error=error, note=_by_head(metric, [*others, cell]))


def _potential(metric: _Metric, cell: Cell) -> _Reference | str:
    """The best tenth of the peers: their 90th percentile, the 10th where less is better."""
    peers = _peers(metric, cell)
    if len(peers) < FEWEST_PEERS:
        return f"a best tenth needs {FEWEST_PEERS} cells or more, and there are {len(peers)}"
    weights, own = _exposures(metric, [*peers, cell])
    rates = np.array([peer.value for peer in peers]) / (weights[:-1] if metric.adds_up else 1.0)
    best = float(np.quantile(rates, 1 - POTENTIAL_QUANTILE if metric.is_lower_better else POTENTIAL_QUANTILE))
    note = f"The best of {len(peers)} cells are partly lucky: their next period will be nearer the middle."
    return _Reference(current=cell.value, value=best * own, note=" ".join(filter(None, (note, _by_head(metric, [*peers, cell])))))


def _temporal(metric: _Metric, cell: Cell) -> _Reference | str:
    before = metric.then.get(cell.key)
    if before is None:
        return "the reference period has no value, or too few people"
    scale = cell.dates / before.dates if metric.adds_up else 1.0
    error = None if before.standard_error is None else before.standard_error * scale
    return _Reference(current=cell.value, value=before.value * scale, standard_error=error)


_REFERENCES = dict(zip(GAP_TYPES, (_target, _benchmark, _potential, _temporal), strict=True))


def _peers(metric: _Metric, cell: Cell) -> list[Cell]:
    return [other for other in metric.now if all(other.key[place] == cell.key[place] for place in metric.peers)]


def _exposures(metric: _Metric, group: Sequence[Cell]) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """Weights of cells, and what a rate is multiplied with to be the last cell's value: 1 for averages; for volumes people, or
    dates where people are not known, so that a cell with late data is not behind for that alone.
    """  # noqa: D205
    if _knows_people(group):
        weights = np.array([cell.exposure for cell in group], dtype=float)
    else:
        weights = np.array([cell.dates if metric.adds_up else 1 for cell in group], dtype=float)
    return weights, float(weights[-1]) if metric.adds_up else 1.0


def _knows_people(group: Sequence[Cell]) -> bool:
    return all(cell.exposure is not None and cell.exposure > 0 for cell in group)


def _by_head(metric: _Metric, group: Sequence[Cell]) -> str | None:
    if not metric.adds_up:
        return None
    if _knows_people(group):
        return "Compared by head of sample_size."
    return "Volumes are compared by date, as they are: the table does not tell how many people there are."


def _partial(name: str, now: pl.DataFrame, earlier: pl.DataFrame, spec: GapSpec) -> list[str]:
    if "temporal" not in spec.gap_types:
        return []
    before = earlier.filter(earlier[f"{KEPT}metric"] == name)[f"{KEPT}date"].n_unique()
    have = now[f"{KEPT}date"].n_unique()
    if not 0 < have < before:
        return []
    return [f"{name} has {have} dates in the period and {before} in the reference period; volumes are compared by date."]


def _late(metric: _Metric, *, dates: int) -> list[str]:
    late = sum(cell.dates < dates for cell in metric.now)
    if not late:
        return []
    what = f"{metric.name} by {' x '.join(metric.by)}: {late} of {len(metric.now)} cells have fewer than {dates} dates of the period"
    return [f"{what}; they are judged by the dates that they have."]


def _unsized(rows: pl.DataFrame) -> list[str]:
    if rows[f"{KEPT}sample_size"].null_count() < rows.height:
        return []
    return ["No sample size is known: cells of 1 to 10 people cannot be recognised, and intervals of shares are unknown."]
