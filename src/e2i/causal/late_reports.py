"""Are the last periods of a panel complete? Projected and restated prescriptions arrive late."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.domain.evidence import Hazard

_LAST = 4
_FEWEST = 6
_SHARE = 0.10
_NOTHING = 1e-3
"""of the usual volume: where a period has nothing at all, its logarithm is taken from here"""
_TIMES = 5.0
_CLEAR_DRIFT = 4.0
"""usual changes, divided by the root of their number: about two standard errors of a median"""
_CYCLES = (4, 12, 13, 52)
_FEWEST_BEFORE = 4
_AS_MUCH = 0.8


def late_reports(time: IntArray, outcome: FloatArray) -> Hazard | None:
    """A fall of all units together in the last periods, beyond their usual changes, their growth and what the season did before.

    Parameters
    ----------
    time : shape (n,), 0 … T-1
    outcome : shape (n,), finite

    Returns
    -------
    Hazard or None
        `last_periods_incomplete` (review) when the mean of the last 1-4 periods lies 10 % or more, and 5 times the usual
        period-to-period change, below the line through the periods before; None otherwise, with fewer than 6 periods, and where
        outcomes fell as much one year earlier (4 quarters, 12 months, 13 or 52 weeks before).
    """
    count = np.bincount(time)
    if len(count) < _FEWEST or (count == 0).any():
        return None
    means = np.bincount(time, weights=outcome) / count
    usual_volume = float(np.median(means))
    if usual_volume <= 0:
        return None
    volume = np.log(np.maximum(means, _NOTHING * usual_volume))
    worst: tuple[float, int] | None = None
    for last in range(1, min(_LAST, len(means) // 3) + 1):
        fall, usual = _fall(volume, last)
        share = 1.0 - float(np.exp(-fall))
        # The spread over a few periods of a random walk grows with the root of their number.
        is_large = share > _SHARE and fall > _TIMES * usual * np.sqrt(last)
        if is_large and not _has_season(volume, last, fall) and (worst is None or share > worst[0]):
            worst = share, last
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


def _fall(volume: FloatArray, last: int) -> tuple[float, float]:
    """How far all of the last periods lie below the line through those before, and the usual change around it, in logarithms.

    A drift that chance explains is none: carried on, it would accuse complete data.
    """
    steps = np.diff(volume[:-last])
    drift = float(np.median(steps))
    usual = max(float(np.median(np.abs(steps - drift))), 1e-12)
    if abs(drift) < _CLEAR_DRIFT * usual / np.sqrt(len(steps)):
        drift = 0.0
        usual = max(float(np.median(np.abs(steps))), 1e-12)
    flat = volume - drift * np.arange(1.0 - len(volume), 1.0)
    return float(np.median(flat[:-last][-_LAST:]) - flat[-last:].max()), usual


def _has_season(volume: FloatArray, last: int, fall: float) -> bool:
    """The same periods of the year before fell as much, or nearly."""
    earlier = [volume[:-cycle] for cycle in _CYCLES if len(volume) - cycle - last >= _FEWEST_BEFORE]
    return any(_fall(series, last)[0] > _AS_MUCH * fall for series in earlier)
