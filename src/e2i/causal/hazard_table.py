"""A table of one row per unit with its question, as the checks before estimation see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.domain.disclosure import visible
from e2i.domain.evidence import Hazard
from e2i.domain.study import EffectSpec

Action = Literal["refuse", "override", "block", "review", "warn"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A frame with its question; columns that are not there were reported before."""

    frame: pl.DataFrame
    spec: EffectSpec
    unit: str | None

    @cached_property
    def confounders(self) -> tuple[str, ...]:
        """Named adjustment columns."""
        return tuple(dict.fromkeys((*self.spec.confounders, *self.spec.modifiers)))

    @cached_property
    def treatment(self) -> FloatArray | None:
        """As numbers; None for text."""
        return numbers(self.frame[self.spec.treatment])

    @cached_property
    def outcome(self) -> FloatArray | None:
        """As numbers; None for text."""
        return numbers(self.frame[self.spec.outcome])

    @cached_property
    def arm(self) -> BoolArray | None:
        """True where treated, for a 0/1 treatment without missing values among `complete`; None for another treatment."""
        if self.treatment is None:
            return None
        known = self.treatment[~np.isnan(self.treatment)]
        return self.treatment == 1 if len(known) and set(np.unique(known)) <= {0.0, 1.0} else None

    @cached_property
    def complete(self) -> BoolArray:
        """Rows with treatment and a finite outcome."""
        out = np.ones(self.frame.height, dtype=np.bool_)
        for values in (self.treatment, self.outcome):
            if values is not None:
                out &= np.isfinite(values)
        return out

    def matrix(self) -> tuple[tuple[str, ...], FloatArray]:
        """Numeric confounders on the complete rows, missing values at the median; names and shape (rows, k)."""
        names, columns = [], []
        for name in self.confounders:
            values = numbers(self.frame[name])
            if values is None:
                continue
            values = values[self.complete]
            known = values[np.isfinite(values)]
            if len(known) and np.ptp(known) > 0:
                names.append(name)
                columns.append(np.where(np.isfinite(values), values, np.median(known)))
        return tuple(names), np.column_stack(columns) if columns else np.empty((int(self.complete.sum()), 0))


def numbers(series: pl.Series) -> FloatArray | None:
    """Numbers, booleans and dates as floats, NaN where missing; None for any other type."""
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return series.cast(pl.Float64).to_numpy().astype(np.float64)
    if series.dtype in (pl.Date, pl.Datetime):
        return series.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64).to_numpy().astype(np.float64) / 86_400e6
    return None


def people(count: float) -> str:
    """A number of rows in words, without telling counts of 1-10."""
    return "fewer than 11 rows" if count < 11 else f"{count:.0f} rows"


def cell(count: float) -> float | None:
    """A number of rows as a measure, without telling counts of 1-10."""
    return None if visible(int(count)) is None else float(count)


def refuse(code: str, text: str, remedy: str, measured: float | None = None, threshold: float | None = None) -> Hazard:
    """A hazard that ends the analysis."""
    return found(code, "refuse", text, remedy, measure=(measured, threshold))


def found(code: str, action: Action, text: str, remedy: str, *, measure: tuple[float | None, float | None] = (None, None)) -> Hazard:
    """A hazard; `measure` holds what was measured and its threshold."""
    measured, threshold = (None if value is None else float(value) for value in measure)
    return Hazard(code=code, action=action, text=text, remedy=remedy, measured=measured, threshold=threshold)
