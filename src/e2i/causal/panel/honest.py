"""How far parallel trends may fail before an event study's conclusion does (Rambachan & Roth 2023).

Two restrictions on the difference in trends. Relative magnitudes: a step after treatment is at most Mbar times the largest step
before it. Smoothness: the slope changes by at most M from one period to the next. `relative.py` and `smooth.py` hold the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.panel.honest_relative import RelativeTest
from e2i.causal.panel.honest_smooth import SmoothFrontier
from e2i.domain.evidence import Refutation
from e2i.errors import DataError, NotIdentified

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0)
_Z90, _Z95 = 1.6448536269514722, 1.959963984540054
_STEPS_OF_SEARCH = 40
_MOST_WIDENING = 1.5
_SMALL = 0.25
"""of a standard deviation of the outcome: an effect no larger than that is as good as none"""
_FARTHEST = 1e3
"""multiples of the first bound tried at which the search for the breakdown value gives up"""


@dataclass(frozen=True, kw_only=True)
class SensitivityPoint:
    """What is left of the effect when trends may differ by `bound`."""

    bound: float
    """Mbar (a ratio) or M (outcome units per period²)"""
    low: float
    high: float
    """95 % interval, valid for every violation within the bound"""
    set_low: float
    set_high: float
    """the effects that the point estimates allow, without sampling error; NaN when they contradict the bound themselves"""

    @property
    def excludes_zero(self) -> bool:
        """Whether an effect of the estimate's sign is still proven."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Intervals over a grid of bounds, and the largest bound at which zero is still excluded."""

    restriction: Literal["relative_magnitudes", "smoothness"]
    method: str
    points: tuple[SensitivityPoint, ...]
    breakdown: float | None
    """None when zero is not excluded even without any violation; infinite when no bound brings it back"""
    estimate: float
    original: tuple[float, float]
    """the usual 95 % interval, which takes parallel trends for granted"""


@dataclass(frozen=True, kw_only=True)
class EventStudy:
    """Estimates per period relative to treatment, the reference (-1) left out, with their covariance."""

    periods: tuple[int, ...]
    """shape (p + q): consecutive, 0 the first treated period, without the reference"""
    estimates: FloatArray
    """shape (p + q,)"""
    covariance: FloatArray
    """shape (p + q, p + q)"""
    reference: int = -1

    def __post_init__(self) -> None:
        size = len(self.periods)
        if self.estimates.shape != (size,) or self.covariance.shape != (size, size):
            raise DataError(
                f"{size} periods, estimates of shape {self.estimates.shape} and covariance of shape {self.covariance.shape} do not fit.",
                where="event study",
                advice="Give one estimate per period and their full covariance, the reference period left out.",
            )
        if not (np.isfinite(self.estimates).all() and np.isfinite(self.covariance).all()):
            raise DataError("an estimate or covariance is not finite.", where="event study", advice="Leave out periods without estimate.")
        if size and float(np.linalg.eigvalsh(self.covariance)[0]) <= 0:
            raise DataError(
                "the covariance of the estimates is not positive definite.",
                where="event study",
                advice="More clusters than periods are needed; estimate fewer periods, or name a finer `cluster`.",
            )
        around = sorted((*self.periods, self.reference))
        if list(self.periods) != sorted(self.periods) or around != list(range(around[0], around[0] + size + 1)):
            raise NotIdentified(
                f"the periods {', '.join(map(str, self.periods))} beside the reference {self.reference} are not consecutive.",
                where="event study",
                advice="Bounds on steps and slopes need every period in between: fill the gap, or keep the stretch around treatment.",
            )
        if self.n_pre < 1 or self.n_pre == size:
            raise NotIdentified(
                f"{self.n_pre} estimates lie before the reference period and {size - self.n_pre} after it.",
                where="event study",
                advice="Bounds on trends are learned before treatment: at least one estimate is needed on each side.",
            )

    @property
    def n_pre(self) -> int:
        """p: estimates before the reference period."""
        return sum(period < self.reference for period in self.periods)

    def target(self, weights: Sequence[float] | None) -> FloatArray:
        """Weights of the periods after treatment, shape (q,); equal ones by default."""
        after = len(self.periods) - self.n_pre
        chosen = np.full(after, 1.0 / after) if weights is None else np.asarray(weights, dtype=np.float64)
        if chosen.shape != (after,) or not np.isfinite(chosen).all() or not chosen.any():
            raise DataError(
                f"{chosen.size} weights for {after} periods after treatment.",
                where="event study",
                advice="Give one finite weight per period after treatment, not all zero.",
            )
        return chosen


def relative_magnitudes(study: EventStudy, *, weights: Sequence[float] | None = None, grid: Sequence[float] = MAGNITUDES) -> Sensitivity:
    """Intervals when a step after treatment is at most Mbar times the largest step before it.

    Confidence sets by the conditional test with a least-favourable first stage (C-LF hybrid; Andrews, Roth & Pakes 2023), united
    over the period and sign of the largest step.

    Parameters
    ----------
    weights : shape (q,), of the periods after treatment; default their average
    grid : values of Mbar, at least 0

    Raises
    ------
    NotIdentified
        No estimate before the reference period, or a gap between the periods.
    """
    test = RelativeTest(estimates=study.estimates, covariance=study.covariance, n_pre=study.n_pre, target=study.target(weights))
    points = tuple(_point(bound, test.interval(bound), test.identified(bound)) for bound in _checked(grid))
    return Sensitivity(
        restriction="relative_magnitudes",
        method="conditional least-favourable hybrid (C-LF)",
        points=points,
        breakdown=_breakdown(test.excludes_zero, 1.0),
        estimate=test.estimate,
        original=_usual(test.estimate, test.standard_error),
    )


def smoothness(study: EventStudy, *, weights: Sequence[float] | None = None, grid: Sequence[float] | None = None) -> Sensitivity:
    """Intervals when the slope of the difference in trends changes by at most M from one period to the next.

    Fixed-length intervals around the affine estimator that makes them shortest (Rambachan & Roth 2023, section 4.1).

    Parameters
    ----------
    weights : shape (q,), of the periods after treatment; default their average
    grid : values of M, at least 0; default five from 0 to the largest change of slope that the periods before treatment allow

    Raises
    ------
    NotIdentified
        No estimate before the reference period, or a gap between the periods.
    """
    target = study.target(weights)
    frontier = SmoothFrontier.trace(study.estimates, study.covariance, n_pre=study.n_pre, target=target)
    largest = largest_bend(study)
    chosen = np.linspace(0.0, largest, 5) if grid is None else grid
    after = study.covariance[study.n_pre :, study.n_pre :]
    estimate = float(target @ study.estimates[study.n_pre :])
    points = tuple(_point(bound, frontier.interval(bound), frontier.identified(bound)) for bound in _checked(chosen))
    return Sensitivity(
        restriction="smoothness",
        method="optimal fixed-length interval (FLCI)",
        points=points,
        breakdown=_breakdown(frontier.excludes_zero, largest),
        estimate=estimate,
        original=_usual(estimate, float(np.sqrt(target @ after @ target))),
    )


def largest_bend(study: EventStudy) -> float:
    """Upper 95 % bound of the largest change of slope before treatment; with one period, of the step itself."""
    before = slice(0, study.n_pre)
    steps = np.diff(np.eye(study.n_pre + 1), axis=0)[:, : study.n_pre]  # the reference is zero
    bends = np.diff(steps, axis=0) if study.n_pre > 1 else steps
    spread = np.sqrt(np.diag(bends @ study.covariance[before, before] @ bends.T))
    return float((np.abs(bends @ study.estimates[before]) + _Z90 * spread).max())


def as_refutation(found: Sensitivity) -> Refutation:
    """The breakdown value in words. It is told, never a criterion: no bound is right for every study."""
    names = {"relative_magnitudes": "steps before treatment, times", "smoothness": "a change of slope per period of"}
    if found.breakdown is None:
        detail = f"The interval {_shown(found.original)} includes zero, or nearly so, even if trends are parallel."
    elif np.isinf(found.breakdown):
        detail = "No violation of parallel trends of this form explains the effect away."
    else:
        detail = f"Zero is excluded as long as trends differ by at most {names[found.restriction]} {found.breakdown:.2g} ({found.method})."
    return Refutation(
        test=f"parallel_trends:{found.restriction}",
        passed=found.breakdown is not None,
        detail=detail,
        statistic=None if found.breakdown is None or np.isinf(found.breakdown) else found.breakdown,
        estimate=found.estimate,
        is_reported_only=True,
    )


def drift_robustness(found: Sensitivity, told: tuple[float, float], *, spread: float) -> Refutation:
    """Whether the answer stands when the treated drift by a straight line that the periods before treatment do not exclude.

    A test of those periods that finds nothing has often too little power to find a drift that matters (Roth 2022). So the
    interval that allows for any linear drift (smoothness bound 0) must lead to the same answer: an effect stays away from zero on
    the same side; "no effect" still includes zero and is at most half as wide again, or any effect is small: within a quarter of a
    standard deviation of the outcome (an equivalence test; Hartman and Hidalgo 2018).

    Parameters
    ----------
    found : of a grid with 0 in it
    told : the 95 % interval that the study tells
    spread : standard deviation of the outcome within periods
    """
    (point,) = (each for each in found.points if each.bound == 0.0)
    low, high = told
    is_effect = low > 0.0 or high < 0.0
    same = (point.low > 0.0 and low > 0.0) or (point.high < 0.0 and high < 0.0)
    is_small = max(abs(point.low), abs(point.high)) <= _SMALL * spread
    is_alike = point.low <= 0.0 <= point.high and point.high - point.low <= _MOST_WIDENING * (high - low)
    passed = same if is_effect else is_small or is_alike
    allowed = _shown((point.low, point.high))
    shown = f"Allowing for a linear drift that the periods before treatment do not exclude, the interval is {allowed}"
    if passed:
        ending = "the answer stands."
    elif is_effect:
        ending = "an effect on that side is no longer proven: such a drift could explain it."
    else:
        ending = f"another answer than {_shown(told)}, and not within {_SMALL * spread:.3g} of zero: a drift could hide an effect."
    return Refutation(test="drift_robustness", passed=passed, detail=f"{shown}; {ending}", estimate=(point.low + point.high) / 2.0)


def _breakdown(excludes: Callable[[float], bool], first: float) -> float | None:
    """Largest bound whose interval excludes zero, by doubling, then bisection to three digits."""
    if not excludes(0.0):
        return None
    inner, outer = 0.0, first if first > 0 else 1.0
    limit = _FARTHEST * outer
    while excludes(outer):
        inner, outer = outer, 2 * outer
        if outer > limit:
            return float("inf")
    for _ in range(_STEPS_OF_SEARCH):
        if outer - inner <= 1e-3 * outer:
            break
        middle = 0.5 * (inner + outer)
        inner, outer = (middle, outer) if excludes(middle) else (inner, middle)
    return inner


def _point(bound: float, interval: tuple[float, float], identified: tuple[float, float]) -> SensitivityPoint:
    return SensitivityPoint(bound=bound, low=interval[0], high=interval[1], set_low=identified[0], set_high=identified[1])


def _checked(grid: Sequence[float] | FloatArray) -> list[float]:
    values = [float(bound) for bound in grid]
    if not values or min(values) < 0 or not np.isfinite(values).all():
        raise DataError("a bound on the violation of parallel trends is negative or not finite.", where="grid", advice="Give bounds >= 0.")
    return values


def _usual(estimate: float, error: float) -> tuple[float, float]:
    return estimate - _Z95 * error, estimate + _Z95 * error


def _shown(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3g} to {interval[1]:.3g}"
