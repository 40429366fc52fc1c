"""Are the last periods of a panel complete? Projected and restated prescriptions arrive late."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.domain.evidence import Hazard

_LAST = 4
_FEWEST = 6
_SHARE = 0.10
_TIMES = 5.0


def late_reports(time: IntArray, outcome: FloatArray) -> Hazard | None:
    """A fall of all units together in the last periods, beyond what earlier periods ever showed.

    Parameters
    ----------
    time : shape (n,), 0 … T-1
    outcome : shape (n,), finite

    Returns
    -------
    Hazard or None
        `last_periods_incomplete` (review) when the mean of the last 1-4 periods lies 10 % or more, and 5 times the usual
        period-to-period change, below the periods before; None otherwise, and with fewer than 6 periods.
    """
    count = np.bincount(time)
    if len(count) < _FEWEST or (count == 0).any():
        return None
    means = np.bincount(time, weights=outcome) / count
    worst: tuple[float, int] | None = None
    for last in range(1, min(_LAST, len(means) // 3) + 1):
        before = means[:-last]
        usual = max(float(np.median(np.abs(np.diff(before)))), 1e-12)
        level = float(np.median(before[-_LAST:]))
        fall = level - float(means[-last:].max())
        # The spread over a few periods of a random walk grows with the root of their number.
        if level > 0 and fall > _SHARE * level and fall > _TIMES * usual * np.sqrt(last) and (worst is None or fall / level > worst[0]):
            worst = fall / level, last
    if worst is None:
        return None
    share, last = worst
    when = "period" if last == 1 else f"{last} periods"
    return Hazard(
        code="last_periods_incomplete",
        action="review",
        text=f"the outcome of all units falls by {share:.0%} or more in the last {when}: are they fully reported?",
        remedy="Leave out the periods that the source still restates, or say as of which day the data are complete.",
        measured=share,
        threshold=_SHARE,
    )
