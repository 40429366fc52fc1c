"""Who is trained on, who chooses, who judges: 60/20/15/5 by time where there is time, one group in one split only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.experiments import SPLIT_SHARES, SPLITS, SplitPlan
from e2i.errors import SchemaMismatch, TooFewRows
from e2i.ml.columns import level_codes, require_columns

if TYPE_CHECKING:
    from e2i.ml.columns import FloatArray, IntArray, LabelArray

TOLERANCE = 0.02
MINIMUM_ROWS = 10
MINIMUM_PERIODS = 20
MAXIMUM_GAP_SHARE = 0.40
_SHARES: FloatArray = np.array([SPLIT_SHARES[name] for name in SPLITS])
# Windows proportional to share**power: 1 suits groups that live in one window, 0.5 keeps most rows when every group lives in all.
_WINDOW_POWERS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_LABELS = np.array([*SPLITS, ""])
_DROPPED = len(SPLITS)


@dataclass(frozen=True)
class _Layout:
    """An assignment of rows (codes 0 to 3, 4 for dropped) and how it came about."""

    codes: IntArray
    edges: tuple[tuple[int, int], ...] = ()

    @property
    def counts(self) -> IntArray:
        return np.bincount(self.codes, minlength=_DROPPED + 1)[:_DROPPED]

    @property
    def kept(self) -> int:
        return int(self.counts.sum())

    @property
    def deviation(self) -> float:
        """Largest distance from the wished share of the kept rows, in [0, 1]."""
        if self.kept == 0:
            return 1.0
        return float(np.abs(self.counts / self.kept - _SHARES).max())


def plan_splits(
    frame: pl.DataFrame,
    *,
    time: str | None = None,
    group: str | None = None,
    target: str | None = None,
    seed: int,
    gap_days: int = 7,
) -> tuple[SplitPlan, LabelArray]:
    """Divide rows into train, validation, test and holdout.

    By time when `time` has enough distinct values: all of train lies before all of validation and so on, with `gap_days` full
    days between them (one period where time is an integer). A group lives in one split only; a group that reaches over several
    windows is given to one of them, and its rows in the others are dropped and counted. Otherwise at random: by group where
    there is one, stratified where the target has at most ten values. Rows without target, time or group are dropped.

    Parameters
    ----------
    frame : shape (n, k)
    time : a date, datetime or integer column
    gap_days : days, at least 0

    Returns
    -------
    SplitPlan
        Row counts, boundaries (first and last time of each split; why time was not used, if so), rows dropped.
    labels : shape (n,), one of "train", "validation", "test", "holdout", or "" for a dropped row

    Raises
    ------
    TooFewRows
        A split would have fewer than 10 rows, lacks a class of a binary target, or groups are too few to divide.
    SchemaMismatch
        A column is missing, or time is neither date nor integer.
    """
    named = [name for name in (time, group, target) if name is not None]
    require_columns(frame, named, where="splits")
    usable = ~frame.select(pl.any_horizontal(pl.col(name).is_null() for name in named)).to_series().to_numpy() if named else None
    rows = np.arange(frame.height) if usable is None else np.flatnonzero(usable)
    kept = frame[rows] if usable is not None else frame
    _require_enough(kept, target)

    days = None if time is None else _days(kept[time])
    groups = None if group is None or kept[group].n_unique() == kept.height else level_codes(kept[group])[0]
    notes: dict[str, str] = {}
    layout, strategy = None, "chronological"
    if days is not None and time is not None:
        gap = gap_days if kept[time].dtype.is_temporal() else min(gap_days, 1)
        layout = _chronological(days, groups, gap=gap, seed=seed)
        if layout is None:
            notes["time_not_used"] = f"'{time}' has {len(np.unique(days))} distinct values; 60/20/15/5 with a gap is not possible on them"
    if layout is None:
        layout, strategy = _random(kept, groups, target=target, seed=seed)

    _require_splits(kept, layout, target=target, group=group if groups is not None else None)
    codes = np.full(frame.height, _DROPPED)
    codes[rows] = layout.codes
    notes |= _boundaries(kept, layout, time=time if strategy == "chronological" else None)
    if frame.height - len(rows):
        notes["rows_without_a_role"] = str(frame.height - len(rows))
    plan = SplitPlan(
        strategy=strategy,  # type: ignore[arg-type]  # one of the four literals by construction
        rows={name: int(count) for name, count in zip(SPLITS, layout.counts, strict=True)},
        boundaries=notes,
        gap_days=gap_days if strategy == "chronological" else 0,
        gap_rows=frame.height - layout.kept,
        seed=seed,
    )
    return plan, _LABELS[codes]


def _days(series: pl.Series) -> IntArray:
    if series.dtype == pl.Datetime:
        series = series.dt.date()
    if series.dtype == pl.Date or series.dtype.is_integer():
        return series.cast(pl.Int64).to_numpy()
    raise SchemaMismatch(
        f"the time column has type {series.dtype}.", where=series.name, advice="Give dates (YYYY-MM-DD), datetimes or integer periods."
    )


def _chronological(days: IntArray, groups: IntArray | None, *, gap: int, seed: int) -> _Layout | None:
    """The layout that keeps most rows within tolerance, or None when time is too coarse or too short."""
    periods, counts = np.unique(days, return_counts=True)
    if len(periods) < MINIMUM_PERIODS:
        return None
    best: _Layout | None = None
    for power in _WINDOW_POWERS if groups is not None else (1.0,):
        wished = _SHARES**power / (_SHARES**power).sum()
        edges = _windows(periods, counts, shares=wished, gap=gap)
        if edges is None:
            continue
        codes = _window_codes(days, edges)
        if (codes == _DROPPED).mean() > MAXIMUM_GAP_SHARE:
            continue
        if groups is not None:
            codes = _one_window_per_group(codes, groups, seed=seed)
        layout = _Layout(codes, edges)
        if layout.deviation <= TOLERANCE and (best is None or layout.kept > best.kept):
            best = layout
    return best


def _windows(periods: IntArray, counts: IntArray, *, shares: FloatArray, gap: int) -> tuple[tuple[int, int], ...] | None:
    """First and last day of each of the four windows so that their rows are nearest to `shares`; None when there is no room."""
    before = np.concatenate([[0], np.cumsum(counts)])
    best, smallest = None, np.inf
    # How many rows the gaps cost depends on where they lie, so try every total (in half per cents) and keep the best fit.
    for kept in np.linspace(1.0 - MAXIMUM_GAP_SHARE, 1.0, 81) * before[-1]:
        windows = _windows_of(periods, before, sizes=shares * kept, gap=gap)
        if windows is None:
            continue
        rows = np.array([before[last + 1] - before[first] for first, last in windows], dtype=float)
        deviation = float(np.abs(rows / rows.sum() - shares).max())
        if deviation < smallest:
            best, smallest = windows, deviation
    return None if best is None else tuple((int(periods[first]), int(periods[last])) for first, last in best)


def _windows_of(periods: IntArray, before: IntArray, *, sizes: FloatArray, gap: int) -> list[tuple[int, int]] | None:
    """Indices of first and last period of windows holding about `sizes` rows, the last one all that is left."""
    windows, start = [], 0
    for size in sizes[:-1]:
        if start >= len(periods):
            return None
        goal = before[start] + size
        end = int(np.searchsorted(before, goal))
        if end > 0 and end < len(before) and goal - before[end - 1] < before[end] - goal:
            end -= 1
        end = min(max(end - 1, start), len(periods) - 1)
        windows.append((start, end))
        start = int(np.searchsorted(periods, periods[end] + gap, side="right"))
    if start >= len(periods):
        return None
    return [*windows, (start, len(periods) - 1)]


def _window_codes(days: IntArray, edges: tuple[tuple[int, int], ...]) -> IntArray:
    codes = np.full(len(days), _DROPPED)
    for code, (first, last) in enumerate(edges):
        codes[(days >= first) & (days <= last)] = code
    return codes


def _one_window_per_group(codes: IntArray, groups: IntArray, *, seed: int) -> IntArray:
    """Give each group to one of the windows it has rows in, the one that lacks most; its other rows are dropped."""
    size = int(groups.max()) + 1
    held = np.bincount(groups * (_DROPPED + 1) + codes, minlength=size * (_DROPPED + 1)).reshape(size, -1)[:, :_DROPPED]
    touched = (held > 0).sum(axis=1)
    chosen = np.full(size, _DROPPED)
    chosen[touched == 1] = held[touched == 1].argmax(axis=1)
    filled = np.array([held[chosen == code, code].sum() for code in range(_DROPPED)], dtype=float)
    spanning = np.random.default_rng(seed).permutation(np.flatnonzero(touched > 1))
    for member in spanning:
        rows = held[member]
        lack = np.where(rows > 0, -(filled + rows) / _SHARES, -np.inf)
        chosen[member] = code = int(lack.argmax())
        filled[code] += rows[code]
    return np.where(codes == chosen[groups], codes, _DROPPED)


def _random(frame: pl.DataFrame, groups: IntArray | None, *, target: str | None, seed: int) -> tuple[_Layout, str]:
    strata = np.zeros(frame.height, dtype=np.int64)
    stratified = target is not None and frame[target].n_unique() <= 10
    if target is not None and stratified:
        strata = level_codes(frame[target])[0]
    if groups is not None:
        return _Layout(_random_groups(groups, strata, seed=seed)), "grouped"
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(_SHARES)[:-1]
    codes = np.empty(frame.height, dtype=np.int64)
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        codes[members] = np.searchsorted(cuts, (np.arange(len(members)) + 0.5) / len(members), side="right")
    return _Layout(codes), "random_stratified" if stratified else "random"


def _random_groups(groups: IntArray, strata: IntArray, *, seed: int) -> IntArray:
    """Whole groups, largest first, each to the split that lacks most of what the group brings."""
    size, kinds = int(groups.max()) + 1, int(strata.max()) + 1
    brings = np.bincount(groups * kinds + strata, minlength=size * kinds).reshape(size, kinds).astype(float)
    wished = _SHARES[:, None] * brings.sum(axis=0)
    order = np.random.default_rng(seed).permutation(size)
    order = order[np.argsort(-brings[order].sum(axis=1), kind="stable")]
    filled = np.zeros_like(wished)
    chosen = np.empty(size, dtype=np.int64)
    for member in order:
        room = ((wished - filled) / wished) @ (brings[member] / brings[member].sum())
        chosen[member] = code = int(room.argmax())
        filled[code] += brings[member]
    return chosen[groups]


def _is_binary(frame: pl.DataFrame, target: str | None) -> bool:
    return target is not None and frame[target].n_unique() <= 2


def _require_enough(frame: pl.DataFrame, target: str | None) -> None:
    if frame.height * SPLIT_SHARES["holdout"] < MINIMUM_ROWS:
        raise TooFewRows(
            f"{frame.height} usable rows; the holdout split (5 %) would have fewer than {MINIMUM_ROWS}.",
            where="splits",
            advice=f"At least {round(MINIMUM_ROWS / SPLIT_SHARES['holdout'])} rows with a known target are needed.",
        )
    if target is not None and frame[target].n_unique() < 2:
        raise TooFewRows(
            f"the target has one value only ({frame[target][0]}).", where=target, advice="Give data in which the event happens to some."
        )


def _require_splits(frame: pl.DataFrame, layout: _Layout, *, target: str | None, group: str | None) -> None:
    if group is not None and layout.deviation > TOLERANCE:
        raise TooFewRows(
            f"{frame[group].n_unique()} groups of uneven size cannot be divided 60/20/15/5 within {TOLERANCE:.0%}.",
            where=group,
            advice="Choose a finer group, or leave `group` out when rows of one group are independent.",
        )
    for name, count in zip(SPLITS, layout.counts, strict=True):
        if count < MINIMUM_ROWS:
            raise TooFewRows(
                f"the {name} split would have {count} rows; {MINIMUM_ROWS} are needed.",
                where="splits",
                advice="Give more rows or a longer period, or leave out `time` or `group`.",
            )
    if target is None or not _is_binary(frame, target):
        return
    for code, name in enumerate(SPLITS):
        values = frame[target].filter(pl.Series(layout.codes == code))
        if values.n_unique() < 2:
            raise TooFewRows(
                f"the {name} split holds one class only ({target} = {values[0]}).",
                where=target,
                advice="Give more rows of the rare class, a longer period, or an outcome that is less rare.",
            )


def _boundaries(frame: pl.DataFrame, layout: _Layout, *, time: str | None) -> dict[str, str]:
    if time is None:
        return {}
    is_date = frame[time].dtype.is_temporal()
    found: dict[str, str] = {}
    for name, edge in zip(SPLITS, layout.edges, strict=True):
        for suffix, value in zip(("start", "end"), edge, strict=True):
            found[f"{name}_{suffix}"] = (date(1970, 1, 1) + timedelta(days=value)).isoformat() if is_date else str(value)
    return found
