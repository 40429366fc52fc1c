"""Checks of measure: numbers beyond all bounds, two units in one column, zeros for missing, one row or weight that decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.hazard_checks import EXTREME_TIMES, MIXED_SHARE, SCALE_GAP, extreme_outcome, mixed_units, two_scales
from e2i.causal.hazard_table import Action, Table, found, numbers, refuse
from e2i.domain.evidence import Hazard

_CARRIES, _CARRIES_ALL = 0.5, 0.95
"""of a dose's variance in one row: heavy tails in a few hundred rows reach the first, mistakes of a decimal point the second"""
_CODES = (7, 8, 9, 77, 88, 97, 98, 99, 777, 888, 997, 998, 999, 7777, 8888, 9999, 99999)
"""what questionnaires and registers write for "unknown", also with a minus; 7 and 8 only with one"""
_CODE_SHARE, _CODE_ROWS = 0.005, 5
_NINES, _TIMES = (99.0, 999.0, 9999.0, 99999.0), 4.0
_FEW_LEVELS, _STEPS_APART = 12, 3.0
_ZERO_MOST = 0.30
"""share of zeros above which an outcome simply has many"""
_WEIGHT = 0.20


def scale(table: Table) -> Iterator[Hazard]:
    """Numbers beyond all measure, in two units, or with a code such as -999 among them; zeros for missing; a dose that one row decides."""
    outcome = np.empty(0) if table.outcome is None else table.outcome[table.complete]
    if len(outcome) == 0 or np.ptp(outcome) == 0:
        return
    spec = table.spec
    dose = () if table.arm is not None or spec.reference is not None else (spec.treatment,)
    others = (*table.confounders, *spec.negative_controls, *spec.pre_outcomes, *spec.instruments)
    values = _finite(table, (spec.outcome, *dose, *others))
    for name, known in values.items():
        times = extreme_outcome(known)
        if times is not None:
            text = f"a value of `{name}` lies more than 10¹² times the usual distance from the median."
            yield refuse("extreme_value", text, "Correct it, or set it to missing.", times, EXTREME_TIMES)
            return
    for name, known in values.items():
        stands_for = missing_codes(known)
        if len(stands_for):
            yield _codes(name, known, stands_for, decides=name in (spec.outcome, *dose))
            continue
        yield from _spikes(name, known)
        yield from _units_of(name, known, decides=name in (spec.outcome, *dose))
    yield from _zeros(spec.outcome, values.get(spec.outcome, np.empty(0)))
    for name in dose:
        yield from carries_most(_from_mean(values.get(name, np.empty(0))), f"the variance of `{name}`", blocks=True)
    weights = None if spec.weights is None else numbers(table.frame[spec.weights])
    if weights is not None and (weights[table.complete] > 0).all():
        yield from about_weights(weights[table.complete], str(spec.weights))


def _finite(table: Table, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """Finite numbers of the complete rows, by column; columns of text and columns that do not vary are left out."""
    out = {}
    for name in dict.fromkeys(names):
        values = numbers(table.frame[name])
        if values is None:
            continue
        known = values[table.complete & np.isfinite(values)]
        if len(known) and np.ptp(known) > 0:
            out[name] = known
    return out


def missing_codes(values: FloatArray) -> FloatArray:
    """Codes such as 9, 99 or -999 that lie outside all others by half of their range or more, each in 0.5 % of rows and 5 rows or more.

    Among few values a code must also be three of their steps away: doses of 0, 3, 6 and 9 have no code.

    >>> missing_codes(np.array([0.0, 1.0, 1.0, 0.0] + 5 * [9.0])).tolist()
    [9.0]
    >>> missing_codes(np.array([5.0, 7.0, 8.0] + 5 * [9.0])).tolist()
    []
    >>> missing_codes(np.array([0.0, 3.0, 6.0] + 5 * [9.0])).tolist()
    []

    The only negative value among many that are not negative is a code however near it is.

    >>> missing_codes(np.array([*range(40), *(5 * [-1.0])], dtype=float)).tolist()
    [-1.0]
    """
    if (lone := _lone_negative(values)) is not None:
        return np.array([lone])
    codes = np.array([*(-code for code in _CODES), *(code for code in _CODES if code > 8)], dtype=np.float64)
    is_code = np.isin(values, codes)
    if not is_code.any() or is_code.all():
        return np.empty(0)
    others = values[~is_code]
    low, high = float(others.min()), float(others.max())
    found_codes, counts = np.unique(values[is_code], return_counts=True)
    outside = np.maximum(low - found_codes, found_codes - high)
    levels = np.unique(others)
    step = float(np.diff(levels).max()) if 1 < len(levels) <= _FEW_LEVELS else 0.0
    codes_found: FloatArray = found_codes[
        (outside >= max(0.5 * (high - low), _STEPS_APART * step)) & (high > low) & (counts >= max(_CODE_ROWS, _CODE_SHARE * len(values)))
    ]
    return codes_found


def _lone_negative(values: FloatArray) -> float | None:
    """A whole number below zero that is the only negative one, where the others are many: counts and amounts have no -1."""
    negative = values[values < 0]
    is_one = len(negative) >= max(_CODE_ROWS, _CODE_SHARE * len(values)) and negative.min() == negative.max()
    if not is_one or negative[0] not in (-1.0, *(-code for code in _CODES)) or len(np.unique(values)) <= _FEW_LEVELS:
        return None
    return float(negative[0])


def _spikes(name: str, known: FloatArray) -> Iterator[Hazard]:
    """A value of nines inside the others that is several times as frequent as any value around it."""
    levels, counts = np.unique(known, return_counts=True)
    around = 0.1 * float(levels[-1] - levels[0])
    for code in (value for value in _NINES if len(levels) > _FEW_LEVELS and levels[0] < value):
        rows = float(counts[levels == code].sum())
        if rows < max(_CODE_ROWS, _CODE_SHARE * len(known)):
            continue
        beside = float(counts[(np.abs(levels - code) <= around) & (levels != code)].max(initial=1.0))
        if rows > _TIMES * beside + 3.0 * np.sqrt(beside):
            share = rows / len(known)
            times = rows / beside
            text = f"{share:.1%} of the values of `{name}` are {code:g}, {times:.0f} times any value near it: does it stand for missing?"
            yield found("missing_code", "review", text, "Set it to missing in the source.", measure=(share, _CODE_SHARE))


def _codes(name: str, known: FloatArray, stands_for: FloatArray, *, decides: bool) -> Hazard:
    share = float(np.isin(known, stands_for).mean())
    shown = ", ".join(f"{code:g}" for code in stands_for)
    where = "the only one below zero" if _lone_negative(known) is not None else "far from all others"
    text = f"{share:.1%} of the values of `{name}` are {shown}, {where}: do they stand for missing?"
    remedy = "Set them to missing in the source."
    return found("missing_code", "override" if decides else "review", text, remedy, measure=(share, _CODE_SHARE))


def _units_of(name: str, known: FloatArray, *, decides: bool) -> Iterator[Hazard]:
    """Outcome and dose in two units are refused; other columns only adjust or test badly then."""
    share = mixed_units(known)
    remedy = "Bring all rows to one unit, and set codes such as -999 to missing."
    if share is not None:
        text = (
            f"{share:.1%} of the values of `{name}` lie 100 times the usual distance or more from the median, after a gap: "
            "two units are mixed, or a code stands for missing."
        )
        yield found("units_mixed", "refuse" if decides else "review", text, remedy, measure=(share, MIXED_SHARE))
    elif (factor := two_scales(known)) is not None:
        text = f"the values of `{name}` fall into two groups about {factor:.0f} times apart, with nothing between: are two units mixed?"
        yield found("two_scales", "review", text, remedy, measure=(factor, SCALE_GAP))


def _zeros(name: str, known: FloatArray) -> Iterator[Hazard]:
    """Zeros below all other values of an outcome by half of their range or more; values of few levels say nothing."""
    zero = known == 0
    others = known[~zero]
    if not _CODE_SHARE * len(known) <= zero.sum() <= _ZERO_MOST * len(known) or zero.sum() < _CODE_ROWS:
        return
    if others.min() > 0.5 * np.ptp(others) and len(np.unique(others)) > _FEW_LEVELS:
        share = float(zero.mean())
        text = f"{share:.1%} of the values of `{name}` are 0, far below all others: does 0 stand for missing?"
        remedy = "Where nothing was reported, leave the value empty; a true zero may stay."
        yield found("zero_for_missing", "review", text, remedy, measure=(share, _CODE_SHARE))


def _from_mean(values: FloatArray) -> FloatArray:
    return values - values.mean() if len(values) else values


def carries_most(left: FloatArray, what: str, *, blocks: bool = False) -> Iterator[Hazard]:
    """One row with most of the sum of squares of `left`, shape (n,): it alone would decide; `blocks` where it is nearly all of it."""
    total = float(left @ left)
    share = float((left**2).max()) / total if total > 0 else 0.0
    if share > _CARRIES:
        text = f"one row carries {share:.0%} of {what}: it alone would decide."
        remedy = "Check this value; leave the row out if it is not meant."
        action: Action = "block" if blocks and share > _CARRIES_ALL else "review"
        yield found("one_row_decides", action, text, remedy, measure=(share, _CARRIES))


def about_weights(weights: FloatArray, name: str) -> Iterator[Hazard]:
    """Positive weights, shape (n,), of which one row has a fifth or more."""
    share = float(weights.max() / weights.sum())
    if share > _WEIGHT:
        text = f"one row has {share:.0%} of all weight in `{name}`."
        yield found("one_weight_decides", "review", text, "Check the weights; trim them if they are meant.", measure=(share, _WEIGHT))
