"""From a table of entities to the arrays of an allocation problem; who opted out is gone before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.disclosure import counted, visible
from e2i.errors import ConfigError, SchemaMismatch, TooFewRows
from e2i.ml.allocation.curves import Curves, FloatArray
from e2i.ml.allocation.segment_match import match
from e2i.ml.columns import IntArray, require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.allocation import AllocationSpec, SegmentResponse

_YES = frozenset({"1", "1.0", "true", "t", "yes", "y", "opt_out", "opted_out"})
_NO = frozenset({"0", "0.0", "false", "f", "no", "n", ""})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Arrays of shape (n,), one row per eligible entity, in the order of the table.

    `coefficient_low` and `coefficient_high` are None where the responses have no interval; entities with the same `shared` number
    share one measured effect, and with it its error.
    """

    names: tuple[str, ...]
    curves: Curves
    coefficient_low: FloatArray | None
    coefficient_high: FloatArray | None
    shared: IntArray
    minimum: FloatArray
    minimum_if_selected: FloatArray | None
    maximum: FloatArray
    current: FloatArray
    cost: FloatArray
    groups: dict[str, tuple[str, ...]]
    gone: dict[str, frozenset[str]]
    """groups of which everybody opted out: a limit on them is no misspelling"""
    excluded: int | None
    """opted out; None for few, or where it would tell how few others are left out"""
    warnings: tuple[str, ...]

    @property
    def n(self) -> int:
        """Eligible entities."""
        return len(self.names)

    def take(self, index: IntArray, *, minimum: FloatArray) -> Problem:
        """Some of the entities, with other minimums and without groups."""
        curves = self.curves
        return replace(
            self,
            names=tuple(self.names[place] for place in index),
            curves=replace(curves, coefficient=curves.coefficient[index], scale=curves.scale[index], exponent=curves.exponent[index]),
            coefficient_low=None,
            coefficient_high=None,
            shared=self.shared[index],
            minimum=minimum,
            minimum_if_selected=None,
            maximum=self.maximum[index],
            current=self.current[index],
            cost=self.cost[index],
            groups={},
            gone={},
        )


def read(frame: pl.DataFrame, spec: AllocationSpec, *, responses: Sequence[SegmentResponse] = ()) -> Problem:
    """Check and convert.

    Raises
    ------
    SchemaMismatch
        A column is missing, a number is missing, infinite or out of its range, an entity appears twice, or a segment has no measured
        response.
    TooFewRows
        No eligible entity, or none of a segment with an effect.
    """
    require_columns(frame, _columns(spec), where="allocation")
    eligible, warnings = _eligible(frame, spec)
    if eligible.is_empty():
        raise TooFewRows("no entity may get anything.", where="allocation", advice="All rows are opted out, or the table is empty.")
    opted_out, asked = frame.height - eligible.height, eligible.height
    eligible, untold = _with_effect(eligible, spec, responses)
    names = eligible[spec.entity].cast(pl.String)
    if names.has_nulls() or names.n_unique() < names.len():
        shown = "an empty name" if names.has_nulls() else f"`{names.filter(names.is_duplicated())[0]}`"
        where = f"allocation, column {spec.entity}"
        raise SchemaMismatch(f"{shown} stands in several rows.", where=where, advice="Give one row per entity.")
    a, low, high, shared, notes = _responses(eligible, spec, responses)
    scale = _numbers(eligible, 1.0 if spec.response.scale is None else spec.response.scale, "response.scale")
    exponent = _numbers(eligible, spec.response.exponent, "response.exponent")
    _within(scale, "response.scale", above=0.0)
    _within(exponent, "response.exponent", above=0.0, upto=1.0)
    numbers = {name: _numbers(eligible, getattr(spec, name), name) for name in ("minimum", "current", "unit_cost")}
    for name, values in numbers.items():
        _within(values, name, low=0.0)
    maximum = np.full(eligible.height, np.inf) if spec.maximum is None else _numbers(eligible, spec.maximum, "maximum")
    _within(maximum, "maximum", low=0.0)
    once = None if spec.minimum_if_selected is None else _numbers(eligible, spec.minimum_if_selected, "minimum_if_selected")
    by = {*(item.by for item in spec.groups), *(item.by for item in spec.fairness)}
    return Problem(
        names=tuple(names),
        curves=Curves(kind=spec.response.curve, coefficient=a, scale=scale, exponent=exponent),
        coefficient_low=low,
        coefficient_high=high,
        shared=shared,
        minimum=numbers["minimum"],
        minimum_if_selected=once,
        maximum=maximum,
        current=numbers["current"],
        cost=numbers["unit_cost"],
        groups={column: _labels(eligible, column) for column in sorted(by)},
        gone={column: frozenset(_labels(frame, column)) - frozenset(_labels(eligible, column)) for column in sorted(by)},
        excluded=visible(opted_out) if visible(asked - eligible.height) is not None else None,
        warnings=(*warnings, *untold, *notes),
    )


def _labels(frame: pl.DataFrame, column: str) -> tuple[str, ...]:
    return tuple(frame[column].cast(pl.String).fill_null("(missing)"))


def _columns(spec: AllocationSpec) -> list[str]:
    response = spec.response
    named = [
        spec.current, spec.minimum, spec.minimum_if_selected, spec.maximum, spec.unit_cost,
        response.coefficient, response.low, response.high, response.scale, response.exponent, response.effect_by,
        *(item.by for item in spec.groups), *(item.by for item in spec.fairness),
    ]  # fmt: skip
    return [spec.entity, *(name for name in named if isinstance(name, str))]


def _eligible(frame: pl.DataFrame, spec: AllocationSpec) -> tuple[pl.DataFrame, list[str]]:
    """Rows that did not opt out. An unknown flag counts as opted out."""
    if spec.pdrp_column not in frame.columns:
        return frame, [f"The table has no column {spec.pdrp_column}: nobody could be left out for having opted out."]
    flags = frame[spec.pdrp_column].cast(pl.String).str.strip_chars().str.to_lowercase()
    odd = flags.drop_nulls().filter(~flags.drop_nulls().is_in(list(_YES | _NO)))
    if odd.len():
        where = f"allocation, column {spec.pdrp_column}"
        raise SchemaMismatch(f"`{odd[0]}` is neither yes nor no.", where=where, advice="Write 1 or 0, true or false.")
    warnings = []
    if flags.has_nulls() or (flags == "").any():
        warnings.append("Entities whose opt-out is unknown were treated as opted out.")
    return frame.filter(flags.is_in(list(_NO - {""}))), warnings


def _with_effect(frame: pl.DataFrame, spec: AllocationSpec, responses: Sequence[SegmentResponse]) -> tuple[pl.DataFrame, list[str]]:
    """Rows without those of segments whose effect could not be told, as they are too small or one arm is: nothing says what they give."""
    by, told = spec.response.effect_by, np.array([item.estimate is not None for item in responses], dtype=np.bool_)
    if by is None or told.all():
        return frame, []
    kept = told[match(frame[by], [item.segment for item in responses])[0]]
    if not kept.any():
        advice = "Name another column, give coefficients, or load more people."
        raise TooFewRows(f"no entity is of a {by} whose effect could be told.", where="allocation.response", advice=advice)
    if kept.all():
        return frame, []
    names = ", ".join(item.segment for item in responses if item.estimate is None)
    gone = counted(int((~kept).sum()), "entities")
    return frame.filter(kept), [f"{gone} get nothing and are not listed: the effect of their {by} could not be told ({names})."]


def _responses(
    frame: pl.DataFrame, spec: AllocationSpec, responses: Sequence[SegmentResponse]
) -> tuple[FloatArray, FloatArray | None, FloatArray | None, IntArray, tuple[str, ...]]:
    response = spec.response
    if response.effect_by is None:
        a = _numbers(frame, response.coefficient, "response.coefficient")
        shared = np.arange(frame.height)
        if response.low is None or response.high is None:
            return a, None, None, shared, ()
        low, high = _numbers(frame, response.low, "response.low"), _numbers(frame, response.high, "response.high")
        if np.any((low > a) | (high < a)):
            raise SchemaMismatch("a coefficient is outside its interval.", where="allocation.response", advice="Look at `low` and `high`.")
        return a, low, high, shared, ()
    shared, notes = match(frame[response.effect_by], [item.segment for item in responses])
    ends = np.array([(item.estimate, item.low, item.high) for item in responses], dtype=np.float64)
    a, low, high = ends[shared].T
    return a, low, high, shared, notes


def _numbers(frame: pl.DataFrame, given: str | float | None, role: str) -> FloatArray:
    if not isinstance(given, str):
        return np.full(frame.height, float(given or 0.0))
    values = frame[given].cast(pl.Float64, strict=False)
    bad = values.is_null() | ~values.is_finite()
    if bad.any():
        shown = frame[given].filter(bad)[0]
        advice = "Fill it in, or leave the entity out."
        raise SchemaMismatch(f"`{shown}` is no number ({role}).", where=f"allocation, column {given}", advice=advice)
    return values.to_numpy().astype(np.float64)


def _within(values: FloatArray, role: str, *, low: float = -np.inf, above: float = -np.inf, upto: float = np.inf) -> None:
    wrong = values[(values < low) | (values <= above) | (values > upto)]
    if len(wrong):
        limits = [f"{low:g} or more"] if np.isfinite(low) else [f"above {above:g}"]
        limits += [f"at most {upto:g}"] if np.isfinite(upto) else []
        raise ConfigError(f"{wrong[0]:g} is not {' and '.join(limits)}.", where=f"allocation.{role}", advice="Correct the value.")
