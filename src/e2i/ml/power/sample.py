"""The user's own table as arrays: one row per unit, with what a planned analysis would use."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.errors import ConfigError, SchemaMismatch, TooFewRows
from e2i.ml.columns import BoolArray, FloatArray, IntArray, as_float, level_codes, require_columns

if TYPE_CHECKING:
    from e2i.domain.trials import ExperimentSpec, OutcomeType

WHERE = "experiment"
_FEWEST = 4
_DAYS_PER_WEEK = 7.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """n units whose outcome and covariates are known.

    `wide` (units x periods, NaN where absent) and `pre` (mean before) exist for panels; `y` is then the mean of the last `follow_up`
    periods, or their sum for a count. Where the panel is too short for the windows asked for, `window` says what it held.
    """

    names: tuple[str, ...]
    y: FloatArray
    outcome_type: OutcomeType
    x: FloatArray
    x_names: tuple[str, ...]
    pre: FloatArray | None
    strata: IntArray | None
    cluster: IntArray | None
    cluster_names: tuple[str, ...] | None
    event: FloatArray | None
    wide: FloatArray | None
    window: tuple[int, int] | None
    rows: int
    missing_outcome: float
    missing_covariates: float
    period_weeks: float | None
    lost_units: float | None
    """panel: share of units seen early and not in the last periods"""
    shared: dict[str, float]
    """column -> share of units that share its value with another unit"""

    @property
    def n(self) -> int:
        """Units."""
        return len(self.y)


def read_sample(frame: pl.DataFrame, spec: ExperimentSpec) -> Sample:
    """Arrays of the columns that the section names.

    Raises
    ------
    SchemaMismatch
        A named column is missing, text where a number is needed, infinite, or a unit (and period) stands twice.
    TooFewRows
        Fewer than four units with a known outcome, or fewer than two periods.
    ConfigError
        An outcome type that does not fit the table.
    """
    named = [spec.outcome, *spec.covariates, *spec.candidate_covariates, *spec.strata, *spec.shared]
    named += [name for name in (spec.unit, spec.time, spec.cluster, spec.event) if name is not None]
    require_columns(frame, named, where=WHERE)
    values = numbers(frame, spec.outcome)
    if spec.time is not None:
        return _panel(frame, values, spec)
    if spec.unit is not None and frame[spec.unit].n_unique() < frame.height:
        raise SchemaMismatch(
            "a unit stands in several rows.", where=f"{WHERE}, `{spec.unit}`", advice="Name `time`, or bring the table to one row per unit."
        )
    return _finish(frame, spec, y=values, kind=_kind(values, spec), pre=None, wide=None, window=None, period_weeks=None, rows=frame.height)


def _panel(frame: pl.DataFrame, values: FloatArray, spec: ExperimentSpec) -> Sample:
    if spec.unit is None:
        raise ConfigError("`time` makes the table a panel, and no `unit` is named.", where=WHERE, advice="Add `unit: COLUMN`.")
    if spec.outcome_type in ("binary", "time_to_event"):
        raise ConfigError(
            f"a panel's outcome is averaged over periods and cannot be {spec.outcome_type}.",
            where=WHERE,
            advice="Leave out `outcome_type`, or give a table with one row per unit.",
        )
    wide, rows, weeks = wide_panel(frame, unit=spec.unit, time=str(spec.time), values=values)
    periods = wide.shape[1]
    post = min(spec.follow_up, periods - 1)
    before = min(spec.pre_periods, periods - post)
    kind: OutcomeType = "count" if spec.outcome_type == "count" else "continuous"
    y, pre = _mean(wide[:, periods - post :]), _mean(wide[:, periods - post - before : periods - post])
    if kind == "count":
        y, pre = y * post, pre * before
    units = frame[_known_before(rows, periods - post).tolist()]
    return _finish(units, spec, y=y, kind=kind, pre=pre, wide=wide, window=(before, post), period_weeks=weeks, rows=frame.height)


def wide_panel(frame: pl.DataFrame, *, unit: str, time: str, values: FloatArray) -> tuple[FloatArray, IntArray, float | None]:
    """Units x periods (both sorted), the row of each cell (-1 where absent), and a period's weeks (None where times are no dates)."""
    for name in (unit, time):
        if frame[name].null_count():
            raise SchemaMismatch(f"{frame[name].null_count()} rows lack `{name}`.", where=WHERE, advice="Remove these rows.")
    who, n = level_codes(frame[unit])
    when, periods = level_codes(frame[time])
    if np.bincount(who * periods + when).max() > 1:
        raise SchemaMismatch("a unit has two rows in one period.", where=f"{WHERE}, `{unit}` and `{time}`", advice="Keep one row of each.")
    if periods < 2:
        raise TooFewRows(f"the panel has {periods} period.", where=WHERE, advice="Load at least two periods.")
    wide = np.full((n, periods), np.nan)
    wide[who, when] = values
    rows = np.full((n, periods), -1, dtype=np.int64)
    rows[who, when] = np.arange(len(who))
    return wide, rows, _weeks(frame[time])


def _known_before(rows: IntArray, start: int) -> IntArray:
    """Each unit's last row before period `start`, where its covariates are read; its first row where it came later."""
    present = rows >= 0
    before = present[:, :start]
    last = start - 1 - np.argmax(before[:, ::-1], axis=1)
    column = np.where(before.any(axis=1), last, np.argmax(present, axis=1))
    return np.asarray(rows[np.arange(len(rows)), column], dtype=np.int64)


def pairs_order(sample: Sample) -> FloatArray:
    """What units are sorted by before neighbours become pairs: the outcome predicted from covariates and pre-period; shape (n,)."""
    design = adjusters(sample)
    if design.shape[1] == 0:
        raise ConfigError(
            "there is nothing to match on.", where=WHERE, advice="Name `covariates`, or `time` for a panel with a pre-period."
        )
    return fitted(sample.y, design)


def adjusters(sample: Sample, *, covariates: bool = True) -> FloatArray:
    """Covariates, pre-period mean and stratum dummies, shape (n, k), constant and repeated columns left out."""
    parts = [sample.x, *([] if sample.pre is None else [sample.pre[:, None]])] if covariates else []
    if sample.strata is not None:
        parts.append((sample.strata[:, None] == np.arange(1, int(sample.strata.max()) + 1)).astype(np.float64))
    design = np.column_stack([np.empty((sample.n, 0)), *parts])
    spread = design.std(axis=0)
    design = (design[:, spread > 0] - design[:, spread > 0].mean(axis=0)) / spread[spread > 0]
    return np.asarray(design[:, _independent(design)], dtype=np.float64)


def fitted(y: FloatArray, design: FloatArray) -> FloatArray:
    """Least-squares prediction of y from a constant and `design`."""
    full = np.column_stack([np.ones(len(y)), design])
    return np.asarray(full @ np.linalg.lstsq(full, y, rcond=None)[0], dtype=np.float64)


def _independent(design: FloatArray) -> BoolArray:
    """Columns that are not combinations of earlier ones."""
    keep = np.zeros(design.shape[1], dtype=np.bool_)
    if design.shape[1]:
        diagonal = np.abs(np.diag(np.linalg.qr(design, mode="r")))
        keep[: len(diagonal)] = diagonal > 1e-8 * np.sqrt(len(design))
    return keep


def _finish(
    units: pl.DataFrame,
    spec: ExperimentSpec,
    *,
    y: FloatArray,
    kind: OutcomeType,
    pre: FloatArray | None,
    wide: FloatArray | None,
    **rest: object,
) -> Sample:
    known = np.isfinite(y) if pre is None else np.isfinite(y) & np.isfinite(pre)
    x = np.column_stack([np.empty((len(y), 0)), *(numbers(units, name) for name in spec.covariates)])
    whole = known & np.isfinite(x).all(axis=1)
    event = None if spec.event is None else numbers(units, spec.event)
    if event is not None:
        whole &= np.isin(event, (0.0, 1.0))
    if whole.sum() < _FEWEST:
        raise TooFewRows(
            f"{int(whole.sum())} units have a known outcome and covariates; {_FEWEST} are needed.", where=WHERE, advice="Load more units."
        )
    cluster, cluster_names = _labels(units, spec.cluster, whole)
    name = units[spec.unit] if spec.unit is not None else pl.Series(np.arange(units.height))
    return Sample(
        names=tuple(name.filter(pl.Series(whole)).cast(pl.String).to_list()),
        y=y[whole],
        outcome_type=kind,
        x=x[whole],
        x_names=spec.covariates,
        pre=None if pre is None else pre[whole],
        strata=_strata(units, spec.strata, whole),
        cluster=cluster,
        cluster_names=cluster_names,
        event=None if event is None else event[whole],
        wide=None if wide is None else wide[whole],
        lost_units=None if wide is None else _lost(wide),
        missing_outcome=float(1.0 - known.mean()),
        missing_covariates=float(1.0 - whole.sum() / max(known.sum(), 1)),
        shared={column: _share_shared(units[column].filter(pl.Series(whole))) for column in spec.shared},
        **rest,  # type: ignore[arg-type]
    )


def _strata(units: pl.DataFrame, columns: tuple[str, ...], keep: BoolArray) -> IntArray | None:
    """Codes of the crossed levels, missing a level of its own."""
    if not columns:
        return None
    crossed = np.zeros(int(keep.sum()), dtype=np.int64)
    for column in columns:
        codes, levels = level_codes(units[column].filter(pl.Series(keep)))
        crossed = crossed * levels + codes
    return np.unique(crossed, return_inverse=True)[1].astype(np.int64)


def _lost(wide: FloatArray) -> float:
    """Share of units seen in the first quarter of the panel and not in the last."""
    known = np.isfinite(wide)
    edge = max(1, wide.shape[1] // 4)
    early = known[:, :edge].any(axis=1)
    return float(1.0 - known[early][:, -edge:].any(axis=1).mean()) if early.any() else 0.0


def _labels(units: pl.DataFrame, column: str | None, keep: BoolArray) -> tuple[IntArray | None, tuple[str, ...] | None]:
    if column is None:
        return None, None
    labels = units[column].filter(pl.Series(keep))
    if labels.null_count():
        raise SchemaMismatch(
            f"{labels.null_count()} units have no `{column}`.", where=WHERE, advice="Fill it in; nobody can be assigned without."
        )
    codes, _ = level_codes(labels)
    _, first = np.unique(codes, return_index=True)
    return codes, tuple(labels[first.tolist()].cast(pl.String).to_list())


def _share_shared(values: pl.Series) -> float:
    known = values.drop_nulls()
    if known.len() == 0:
        return 0.0
    counts = known.value_counts()["count"].to_numpy()
    return float(counts[counts > 1].sum() / values.len())


def _kind(values: FloatArray, spec: ExperimentSpec) -> OutcomeType:
    known = values[np.isfinite(values)]
    is_binary = bool(np.isin(known, (0.0, 1.0)).all())
    if spec.outcome_type == "auto":
        return "binary" if is_binary else "continuous"
    if spec.outcome_type == "binary" and not is_binary:
        raise SchemaMismatch("a binary outcome has values other than 0 and 1.", where=f"{WHERE}, `{spec.outcome}`", advice="Recode it.")
    if spec.outcome_type in ("count", "time_to_event") and bool((known < 0).any()):
        raise SchemaMismatch(
            f"a {spec.outcome_type} outcome has values below 0.", where=f"{WHERE}, `{spec.outcome}`", advice="Correct these rows."
        )
    if spec.outcome_type == "time_to_event" and spec.event is None:
        raise ConfigError("the table needs a 0/1 column that says whether the event was seen.", where=WHERE, advice="Add `event: COLUMN`.")
    return spec.outcome_type


def numbers(frame: pl.DataFrame, name: str) -> FloatArray:
    """A numeric column as float64, missing as NaN. Raises SchemaMismatch for text and infinite values."""
    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        advice = "Name a number, or put it under `strata` if it is a category."
        raise SchemaMismatch(f"column `{name}` holds {column.dtype}, not numbers.", where=WHERE, advice=advice)
    values = as_float(column)
    if np.isinf(values).any():
        raise SchemaMismatch(f"column `{name}` has infinite values.", where=WHERE, advice="Correct these rows.")
    return values


def _mean(block: FloatArray) -> FloatArray:
    """Row means over what is there; NaN where nothing is."""
    known = np.isfinite(block)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, block, 0.0).sum(axis=1) / known.sum(axis=1), dtype=np.float64)


def _weeks(times: pl.Series) -> float | None:
    if times.dtype not in (pl.Date, pl.Datetime):
        return None
    gaps = times.unique().sort().diff().drop_nulls().median()
    return gaps / dt.timedelta(days=_DAYS_PER_WEEK) if isinstance(gaps, dt.timedelta) else None
