"""How sure a synthetic control is: test inversion over time (conformal) or over units (placebo in space)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.estimate import LEVEL

_PERFECT = 1e6
ALPHA = 1.0 - LEVEL
_GRID = 33
_WIDENINGS = 12
_HALVINGS = 10
_TIE = 1e-9

Residuals = Callable[[FloatArray], FloatArray]
"""hypothesised effects, shape (G,) -> residuals of the treated when that effect is imposed and all periods are fitted, shape (G, T)"""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A 95 % interval by test inversion, with the p-value of no effect."""

    interval: tuple[float, float]
    p_value: float
    method: str
    smallest_p: float = 0.0
    """the least p-value that so many periods or placebos can give"""


@dataclass(frozen=True, kw_only=True)
class Placebos:
    """Gaps of units (or groups of them) that were not treated, as if they had been; K placebos."""

    names: tuple[str, ...]
    gaps: FloatArray
    """shape (K, T)"""
    pre_rmspe: FloatArray
    """shape (K,)"""
    effect: FloatArray
    """shape (K,), mean gap in the treated periods"""
    ratio: FloatArray
    """shape (K,), RMSPE after over RMSPE before"""
    dropped: int
    """placebos left out because their fit before treatment was more than 5 times worse than that of the treated"""
    drawn_from: int = 0
    """donors that groups share among them; 0 where each placebo is a unit of its own"""
    handicap: float = 1.0
    """RMSPE before treatment of the treated when they lack as many donors as a group of them does, over that with all donors"""

    @property
    def stretch(self) -> float:
        """How much wider groups that share units must be taken: so few donors know their spread no better than t (Donald & Lang 2007)."""
        from scipy.stats import norm, t

        return float(t.ppf(1.0 - ALPHA / 2.0, self.drawn_from - 1) / norm.ppf(1.0 - ALPHA / 2.0)) if self.drawn_from > 1 else 1.0


def can_be_conformal(periods: int) -> bool:
    """The smallest p-value over T shifts is 1 / T, so 95 % needs 20 periods."""
    return periods * ALPHA >= 1.0


def can_be_placebo(placebos: int) -> bool:
    """The smallest p-value over K placebos is 1 / (K + 1), so 95 % needs 19."""
    return (placebos + 1) * ALPHA >= 1.0 - _TIE


def conformal(residuals: Residuals, treated: BoolArray, *, centre: float, unit: float) -> Inference:
    """Effects that a permutation test over time does not reject (Chernozhukov, Wüthrich & Zhu 2021, moving blocks).

    The effect is imposed, the control is fitted to all periods, and the sum of residuals in the treated block is compared with
    that of every block of the same length (cyclic shifts). The size is exact for exchangeable residuals and approximate for
    stationary, weakly dependent ones. With effects that vary over time the interval is for their average.

    Parameters
    ----------
    treated : shape (T,), True in the treated periods, which come last
    centre : the estimate, where the search starts
    unit : a length on the outcome's scale, for instance the RMSPE before treatment; the search widens from it
    """
    length = int(treated.sum())
    step = max(unit, _TIE)
    width = 4.0 * step
    for _ in range(_WIDENINGS):
        grid = centre + np.linspace(-width, width, _GRID)
        accepted = block_p_values(residuals(grid), length) > ALPHA
        if not accepted[0] and not accepted[-1]:
            break
        width *= 2.0
    p_value = float(block_p_values(residuals(np.zeros(1)), length)[0])
    inside = np.flatnonzero(accepted) if accepted.any() else np.array([_GRID // 2])
    edges = (
        _edge(residuals, length, float(grid[inside[0]]), float(grid[inside[0] - 1])) if inside[0] > 0 else -np.inf,
        _edge(residuals, length, float(grid[inside[-1]]), float(grid[inside[-1] + 1])) if inside[-1] < _GRID - 1 else np.inf,
    )
    return Inference(
        interval=(float(edges[0]), float(edges[1])),
        p_value=p_value,
        method=f"conformal, moving blocks over {len(treated)} periods",
        smallest_p=1.0 / len(treated),
    )


def block_p_values(residuals: FloatArray, length: int) -> FloatArray:
    """Share of cyclic blocks of `length` periods whose absolute sum is at least that of the last block.

    Parameters
    ----------
    residuals : shape (G, T)

    Returns
    -------
    shape (G,), in [1 / T, 1]
    """
    periods = residuals.shape[1]
    running = np.concatenate([np.zeros((len(residuals), 1)), np.cumsum(np.hstack([residuals, residuals]), axis=1)], axis=1)
    sums = np.abs(running[:, length : length + periods] - running[:, :periods])
    observed = sums[:, periods - length : periods - length + 1]
    return np.asarray((sums >= observed * (1.0 - _TIE) - 1e-300).mean(axis=1), dtype=np.float64)


def placebo_interval(effect: float, pre_rmspe: float, placebos: Placebos) -> Inference:
    """Constant effects that a rank test over units does not reject (Firpo & Possebom 2018; Abadie, Diamond & Hainmueller 2010).

    The statistic is the mean gap over the pre-treatment RMSPE. Exact when, without the effect, the treated unit could have been
    any of them; groups that share units are no independent draws, so their ranks are widened, and they have fewer donors to fit by, so
    the fit of the treated is taken with as few. Infinite with fewer than 19 placebos.
    """
    spread = np.maximum(placebos.pre_rmspe, 1e-300)
    statistics = np.sort(np.abs(placebos.effect) / spread)[::-1]
    count = len(statistics)
    stretch = placebos.stretch * placebos.handicap
    own = abs(effect) / max(pre_rmspe, 1e-300) / stretch
    p_value = float((1 + np.sum(statistics >= own * (1.0 - _TIE))) / (1 + count))
    needed = int(np.floor(ALPHA * (count + 1) + _TIE))
    half = stretch * float(statistics[needed - 1]) * pre_rmspe if needed >= 1 else np.inf
    if half > _PERFECT * float(np.abs(placebos.effect).max(initial=abs(effect))):  # placebos that fit perfectly bound nothing
        half = np.inf
    shared = f"groups of {placebos.drawn_from} donors, widened for shared ones" if placebos.drawn_from else "units"
    method = f"placebo in space, rank among {count + 1} {shared}"
    return Inference(interval=(effect - half, effect + half), p_value=p_value, method=method, smallest_p=1.0 / (1 + count))


def unbounded(effect: float) -> Inference:
    """Too few periods and too few donors for any test at 5 %."""
    return Inference(interval=(-np.inf, np.inf), p_value=1.0, method=f"none: too few periods and donors to bound {effect:.4g} at 95 %")


def rank_p_value(own: float, others: FloatArray) -> float:
    """(1 + number of placebos at least as extreme) / (1 + K)."""
    return float((1 + np.sum(others >= own * (1.0 - _TIE))) / (1 + len(others)))


def _edge(residuals: Residuals, length: int, inside: float, outside: float) -> float:
    """Bisection between an accepted and a rejected effect; gives the rejected end, so the interval is not too short."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (inside + outside)
        if block_p_values(residuals(np.array([middle])), length)[0] > ALPHA:
            inside = middle
        else:
            outside = middle
    return outside
