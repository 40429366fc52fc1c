"""Are the last periods of a panel complete? Projected and restated prescriptions arrive late."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.domain.evidence import Hazard

_LAST = 4
_FEWEST = 6
_SHARE = 0.10
_NOTHING = 1e-3
"""of the usual volume: where a period has nothing at all, its logarithm is taken from here"""
_TIMES = 5.0
_CLEAR_DRIFT = 4.0
"""usual changes, divided by the root of their number: about two standard errors of a median"""
_CYCLES = (4, 12, 13, 51, 52, 53)
"""quarters, months, four-week periods and weeks of a year; a holiday may move by a week"""
_FEWEST_BEFORE = 4
_AS_MUCH, _HALF = 0.8, 0.5


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
        outcomes fell as much, or by less than 10 % less, one year earlier.
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
    return None if worst is None else _told(worst, "of all units falls")


def late_reports_of_treated(time: IntArray, outcome: FloatArray, start: IntArray) -> Hazard | None:
    """The same fall among units under lasting treatment alone, against the others, long after their treatment began.

    What others report as well, a season or a holiday, cancels. An effect that begins late looks like it, and is for a person to tell.

    Parameters
    ----------
    time : shape (n,), 0 … T-1
    outcome : shape (n,), not negative
    start : shape (n,): first treated period of the row's unit, negative for never

    Returns
    -------
    Hazard or None
        `last_periods_incomplete` (review) when the ratio of the means of treated and never-treated units in the last 1-4 periods lies
        10 % or more below that in the four periods before, all of them under treatment, and 5 times its usual change.
    """
    periods = int(time.max()) + 1
    worst: tuple[float, int] | None = None
    for last in range(1, min(_LAST, periods // 3) + 1):
        early = (start >= 0) & (start <= periods - last - _LAST)
        ratio = _log_ratio(time, outcome, early, start < 0)
        if ratio is None:
            continue
        begun = int(start[early].max())
        steps = np.diff(ratio[:-last])
        usual = max(float(np.median(np.abs(steps))), float(np.median(np.abs(steps[begun:]))), 1e-12)
        flat = ratio - min(float(np.median(steps[begun:])), 0.0) * np.arange(float(periods))  # harm that grows goes on growing
        fall = float(np.median(flat[:-last][-_LAST:]) - flat[-last:].max())
        share = 1.0 - float(np.exp(-fall))
        if share > _SHARE and fall > _TIMES * usual * np.sqrt(last) and (worst is None or share > worst[0]):
            worst = share, last
    return None if worst is None else _told(worst, "of the treated falls, against the others,")


def _log_ratio(time: IntArray, outcome: FloatArray, some: BoolArray, others: BoolArray) -> FloatArray | None:
    """Of the means by period of two sets of rows, shape (T,); None where a period lacks one, or has no volume."""
    periods, means = int(time.max()) + 1, []
    for rows in (some, others):
        count = np.bincount(time[rows], minlength=periods)
        if (count == 0).any():
            return None
        means.append(np.bincount(time[rows], weights=outcome[rows], minlength=periods) / count)
    usual = [float(np.median(mean)) for mean in means]
    if min(usual) <= 0:
        return None
    logs = [np.log(np.maximum(mean, _NOTHING * size)) for mean, size in zip(means, usual, strict=True)]
    return np.asarray(logs[0] - logs[1])


def _told(worst: tuple[float, int], what: str) -> Hazard:
    share, last = worst
    when = "period" if last == 1 else f"{last} periods"
    return Hazard(
        code="last_periods_incomplete",
        action="review",
        text=f"the outcome {what} by {share:.0%} or more in the last {when}: are they fully reported?",
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
    """The same periods of the year before fell as much, or nearly: what lies beyond is less than what counts as a fall."""
    earlier = [volume[:-cycle] for cycle in _CYCLES if len(volume) - cycle - last >= _FEWEST_BEFORE]
    before = max((_fall(series, last)[0] for series in earlier), default=0.0)
    beyond = 1.0 - float(np.exp(before - fall))
    return before > _AS_MUCH * fall or (before > _HALF * fall and beyond <= _SHARE)
