"""New columns from old ones, none of which knows more than its row knew at its time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from e2i.errors import SchemaMismatch
from e2i.ml.columns import infer_columns, require_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

StepKind = Literal["ratio", "product", "days_before", "month", "weekday", "missing_count", "lag", "rolling_mean"]
MISSING_COUNT = "n_missing"
LAGGED_COLUMNS = 8
"""at most so many columns get lags and rolling means"""
# Numerator and denominator by the words of a column's name: nrx_pre / trx_pre, samples / calls.
RATIO_WORDS: tuple[tuple[str, str], ...] = (
    ("nrx", "trx"),
    ("nbrx", "trx"),
    ("nbrx", "nrx"),
    ("refills", "trx"),
    ("samples", "calls"),
    ("conversions", "triggers"),
    ("responses", "triggers"),
)


@dataclass(frozen=True, kw_only=True)
class FeatureStep:
    """One generated column. `periods` is the lag or the window, in rows of the unit."""

    name: str
    kind: StepKind
    inputs: tuple[str, ...]
    periods: int = 0


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """What is generated and what goes to the model; plain data, so the same plan gives the same columns on any frame."""

    steps: tuple[FeatureStep, ...]
    selected: tuple[str, ...]
    dropped: dict[str, str]
    """column -> why it does not go to the model"""
    unit: str | None = None
    time: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeaturePlan:
        """The inverse of `to_dict`, also after a trip through JSON."""
        steps = tuple(FeatureStep(**{**step, "inputs": tuple(step["inputs"])}) for step in data["steps"])
        return cls(**{**data, "steps": steps, "selected": tuple(data["selected"]), "dropped": dict(data["dropped"])})


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How much to generate. Lags and windows are in rows of the unit."""

    lags: tuple[int, ...] = (1, 7, 30)
    windows: tuple[int, ...] = (7, 30)


def plan_features(
    frame: pl.DataFrame,
    *,
    features: Sequence[str],
    unit: str | None = None,
    time: str | None = None,
    event_time: str | None = None,
    settings: FeatureSettings | None = None,
) -> FeaturePlan:
    """Which columns to generate from `features`; the target plays no part.

    Ratios of prescription counts, the age of each date at `event_time` (default: `time`) with its month and
    weekday, the number of missing features of the row; with `unit` and `time`, lags and rolling means of numbers that change
    within a unit, always of earlier rows.

    Parameters
    ----------
    frame : shape (n, k), the train split
    features : columns that may be used

    Raises
    ------
    SchemaMismatch
        A column is missing or cannot be a feature.
    """
    settings = settings or FeatureSettings()
    moment = event_time or time
    require_columns(frame, [name for name in (unit, time, event_time) if name], where="feature roles")
    columns = infer_columns(frame, features)
    numbers = [column.name for column in columns if column.kind == "numeric"]
    dates = [column.name for column in columns if column.kind == "date" and column.name != moment]
    steps = [*_ratios(numbers), *_date_parts(dates, moment)]
    if any(frame[name].null_count() for name in features):
        steps.append(FeatureStep(name=MISSING_COUNT, kind="missing_count", inputs=tuple(features)))
    if unit is not None and time is not None:
        steps += _history(frame, numbers, unit=unit, settings=settings)
    taken = set(frame.columns)
    steps = [step for step in steps if step.name not in taken]
    return FeaturePlan(steps=tuple(steps), selected=(*features, *(step.name for step in steps)), dropped={}, unit=unit, time=time)


def _ratios(numbers: Sequence[str]) -> Iterator[FeatureStep]:
    known = set(numbers)
    for above, below in RATIO_WORDS:
        for name in numbers:
            words = name.lower().split("_")
            partner = "_".join(below if word == above else word for word in words)
            if above in words and partner in known:
                yield FeatureStep(name=f"{name}_per_{partner}", kind="ratio", inputs=(name, partner))


def _date_parts(dates: Sequence[str], moment: str | None) -> Iterator[FeatureStep]:
    for name in dates:
        if moment is not None:
            yield FeatureStep(name=f"{name}_days_before", kind="days_before", inputs=(name, moment))
        yield FeatureStep(name=f"{name}_month", kind="month", inputs=(name,))
        yield FeatureStep(name=f"{name}_weekday", kind="weekday", inputs=(name,))


def _history(frame: pl.DataFrame, numbers: Sequence[str], *, unit: str, settings: FeatureSettings) -> Iterator[FeatureStep]:
    if not numbers or frame.is_empty():
        return
    within = frame.group_by(unit).agg(pl.len(), *(pl.col(name).n_unique() for name in numbers))
    usual_length = within["len"].median()
    changing = [name for name in numbers if (within[name] > 1).any()][:LAGGED_COLUMNS]
    for name in changing:
        for lag in settings.lags:
            if isinstance(usual_length, float) and lag < usual_length:
                yield FeatureStep(name=f"{name}_lag_{lag}", kind="lag", inputs=(name,), periods=lag)
        for window in settings.windows:
            if isinstance(usual_length, float) and window < usual_length:
                yield FeatureStep(name=f"{name}_mean_{window}", kind="rolling_mean", inputs=(name,), periods=window)


def apply_features(frame: pl.DataFrame, plan: FeaturePlan) -> pl.DataFrame:
    """`frame` with the columns of `plan.steps` added, rows in the same order; columns that are there already stay as they are.

    Lags and rolling means look back within the frame: apply the plan to the whole history of the units, and divide into splits
    afterwards. Applied again to a split, it adds only what is missing (the products of `select_features`).

    Raises
    ------
    SchemaMismatch
        An input is missing, or a unit has two rows of the same time, so that "before" is not defined.
    """
    steps = [step for step in plan.steps if step.name not in frame.columns]
    looks_back = any(step.kind in ("lag", "rolling_mean") for step in steps)
    inputs = {name for step in steps for name in step.inputs}
    if looks_back and plan.unit is not None and plan.time is not None:
        inputs |= {plan.unit, plan.time}
        _require_one_row_per_time(frame, plan.unit, plan.time)
    require_columns(frame, sorted(inputs), where="feature plan")
    return frame.with_columns(_expression(step, plan).alias(step.name) for step in steps)


def within_row(plan: FeaturePlan) -> tuple[FeatureStep, ...]:
    """The steps that need one row alone, so that whoever has the row can repeat them; lags and means need the unit's history."""
    return tuple(step for step in plan.steps if step.kind not in ("lag", "rolling_mean"))


def add_columns(frame: pl.DataFrame, steps: Sequence[FeatureStep]) -> pl.DataFrame:
    """`frame` with the columns of `steps`, which are those of `within_row`. Raises SchemaMismatch when an input is missing."""
    return apply_features(frame, FeaturePlan(steps=tuple(steps), selected=(), dropped={}))


def _require_one_row_per_time(frame: pl.DataFrame, unit: str, time: str) -> None:
    require_columns(frame, [unit, time], where="feature plan")
    repeated = frame.height - frame.select(pl.struct(unit, time).n_unique()).item()
    if repeated:
        raise SchemaMismatch(
            f"{repeated} rows repeat a value of '{unit}' and '{time}'.", where="feature plan", advice="Keep one row for each unit and time."
        )


def _expression(step: FeatureStep, plan: FeaturePlan) -> pl.Expr:
    first = pl.col(step.inputs[0])
    match step.kind:
        case "missing_count":
            return pl.sum_horizontal(pl.col(name).is_null() for name in step.inputs)
        case "lag" | "rolling_mean":
            return _look_back(first, step).over(plan.unit, order_by=plan.time)
        case "month" | "weekday":
            return first.dt.month() if step.kind == "month" else first.dt.weekday()
        case "ratio" | "product" | "days_before":
            return _of_two(first, pl.col(step.inputs[1]), step.kind)


def _of_two(first: pl.Expr, second: pl.Expr, kind: Literal["ratio", "product", "days_before"]) -> pl.Expr:
    if kind == "ratio":
        return pl.when(second != 0).then(first / second)
    if kind == "product":
        return first.cast(pl.Float64) * second.cast(pl.Float64)
    return (second.cast(pl.Date) - first.cast(pl.Date)).dt.total_days()


def _look_back(column: pl.Expr, step: FeatureStep) -> pl.Expr:
    if step.kind == "lag":
        return column.shift(step.periods)
    # Shift first: the row's own value is not part of its mean.
    return column.cast(pl.Float64).shift(1).rolling_mean(step.periods, min_samples=1)
