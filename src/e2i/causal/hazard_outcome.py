"""How an outcome's own values betray the table: rows kept by their outcome, values capped, treatment written from the outcome."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.hazard_table import Table, found, numbers
from e2i.domain.evidence import Hazard

_FEWEST = 30
_BEYOND = 0.05
_ABRUPT = 0.35
"""of the interquartile range between the last twentieth of the values and their end: a normal tail has 1.2, half a normal curve 0.1"""
_CAPPED = 0.08
_DISTINCT, _LEVELS = 50, 10
_ENDS = (0.0, 1.0, 10.0, 100.0)
"""amounts begin at zero; shares, marks and per cents end by themselves"""


def outcome_itself(table: Table) -> Iterator[Hazard]:
    """Whether the outcome stops where earlier ones do not, piles up at its top, or tells the arms apart."""
    outcome = np.empty(0) if table.outcome is None else table.outcome[table.complete]
    if len(outcome) < 2 * _FEWEST or np.ptp(outcome) == 0:
        return
    capped = tuple(_capped(table.spec.outcome, outcome))
    yield from capped
    yield from _kept_by_outcome(table, outcome, has_top=not capped)
    yield from _told_by_outcome(table, outcome)


def _kept_by_outcome(table: Table, outcome: FloatArray, *, has_top: bool) -> Iterator[Hazard]:
    """An end of the outcome beyond which every earlier outcome has more than 5 % of its values, and at which it stops abruptly.

    Parameters
    ----------
    has_top : the highest values are themselves, not where they were cut
    """
    given = [values for name in table.spec.pre_outcomes if (values := numbers(table.frame[name])) is not None]
    earlier = [known for values in given if len(known := values[table.complete & np.isfinite(values)]) >= _FEWEST]
    if not earlier:
        return
    for sign, side, end in ((1.0, "below", "lowest"), *(((-1.0, "above", "highest"),) if has_top else ())):
        last, middle = float((sign * outcome).min()), float(np.median(sign * outcome))
        if any(np.quantile(sign * values, 0.95) < middle for values in earlier):  # another scale
            continue
        share = min(float((sign * values < last).mean()) for values in earlier)
        if share > _BEYOND and not _ends_by_itself(sign * last, outcome) and _stops(sign * outcome):
            text = (
                f"{share:.0%} or more of the values of every earlier outcome lie {side} the {end} value of `{table.spec.outcome}`, "
                "which stops there abruptly: were rows kept by their outcome?"
            )
            remedy = "Keep every unit that was there before treatment, whatever its outcome became; nothing reported is a zero or a gap."
            yield found("kept_by_outcome", "review", text, remedy, measure=(share, _BEYOND))


def _ends_by_itself(end: float, outcome: FloatArray) -> bool:
    """Whether values that are not negative end at 0, 1, 10 or 100; the lowest of them ends by itself at 0 alone."""
    lowest = float(outcome.min())
    return lowest >= 0.0 and end in (_ENDS[:1] if end == lowest else _ENDS)


def _stops(values: FloatArray) -> bool:
    """Whether values end abruptly at their lowest."""
    low, twentieth, quarter, three_quarters = np.quantile(values, [0.0, 0.05, 0.25, 0.75])
    scale = three_quarters - quarter or values.std()
    return bool(twentieth - low < _ABRUPT * scale)


def _capped(name: str, outcome: FloatArray) -> Iterator[Hazard]:
    """More than 8 % of a measured quantity at its highest value."""
    highest = float(outcome.max())
    share = float((outcome == highest).mean())
    if share > _CAPPED and not _ends_by_itself(highest, outcome) and len(np.unique(outcome)) > _DISTINCT:
        text = (
            f"{share:.0%} of the values of `{name}` are its highest one: is it capped there? Then the effect on what was cut off is lost."
        )
        remedy = "Use the values before they were capped, or say that the answer is about capped values."
        yield found("outcome_capped", "review", text, remedy, measure=(share, _CAPPED))


def _told_by_outcome(table: Table, outcome: FloatArray) -> Iterator[Hazard]:
    """Every treated outcome above, or below, every untreated one."""
    if table.arm is None:
        return
    arm = table.arm[table.complete]
    if min(arm.sum(), (~arm).sum()) < _FEWEST or min(len(np.unique(outcome[rows])) for rows in (arm, ~arm)) < _LEVELS:
        return
    treated, untreated = outcome[arm], outcome[~arm]
    if treated.min() > untreated.max() or treated.max() < untreated.min():
        text = (
            f"one value of `{table.spec.outcome}` parts all treated from all untreated rows: was treatment written from the "
            "outcome, or is the outcome in another unit in one arm?"
        )
        yield found("outcome_parts_arms", "review", text, "Check how both columns were built.", measure=(1.0, 1.0))
