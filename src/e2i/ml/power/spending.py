"""Interim looks: boundaries by alpha spending, and what the looks cost in sample size.

Lan & DeMets (1983), with their O'Brien-Fleming and Pocock type functions spent half on each side. Crossing probabilities by
recursive integration of the score process over a continuation region (Armitage, McPherson & Rowe 1969; Jennison & Turnbull 2000,
chapter 19), Gauss-Legendre nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.trials import Spending
    from e2i.ml.columns import FloatArray

_NODES = 160
_WIDEST = 12.0
"""standard deviations; a boundary beyond it is never crossed in double precision"""


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """Two-sided boundaries at information fractions; `spent` is the cumulative type I error of both sides."""

    information: tuple[float, ...]
    z: tuple[float, ...]
    spent: tuple[float, ...]


def spent(information: float, *, alpha: float, spending: Spending) -> float:
    """Two-sided type I error spent by an information fraction in (0, 1].

    >>> round(spent(0.5, alpha=0.05, spending="obrien_fleming"), 5)
    0.00305
    """
    from scipy import special

    side = alpha / 2.0
    if spending == "obrien_fleming":
        return float(4.0 * special.ndtr(-special.ndtri(1.0 - side / 2.0) / math.sqrt(information)))
    return 2.0 * side * math.log(1.0 + (math.e - 1.0) * information)


def boundaries(information: Sequence[float], *, alpha: float, spending: Spending) -> Boundaries:
    """Z boundaries at each information fraction.

    Raises
    ------
    ConfigError
        Fractions that do not increase, or do not end at 1.

    Examples
    --------
    >>> boundaries([0.5, 1.0], alpha=0.05, spending="obrien_fleming").z
    (2.9626, 1.9686)
    """
    times = tuple(float(each) for each in information)
    if not times or times[0] <= 0 or any(b <= a for a, b in pairwise(times)) or abs(times[-1] - 1.0) > 1e-9:
        raise ConfigError(
            f"the information fractions are {list(times)}.", where="interim looks", advice="Let them increase from above 0 to 1."
        )
    goal = [spent(each, alpha=alpha, spending=spending) for each in times]
    process, z = _Process(), []
    for time, before, after in zip(times, [0.0, *goal[:-1]], goal, strict=True):
        bound = process.bound(time, after - before)
        process.advance(time, bound)
        z.append(round(bound, 4))
    return Boundaries(information=times, z=tuple(z), spent=tuple(goal))


def crossing(limits: Boundaries, *, drift: float) -> float:
    """Chance to cross either boundary at any look, when the final z has mean `drift`."""
    process, total = _Process(drift), 0.0
    for time, bound in zip(limits.information, limits.z, strict=True):
        total += process.exit(time, bound)
        process.advance(time, bound)
    return total


def inflation(limits: Boundaries, *, alpha: float, power: float) -> float:
    """Largest sample size of the sequential design over that of the fixed one, at equal power."""
    from scipy import optimize, special

    if len(limits.information) == 1:
        return 1.0
    fixed = float(special.ndtri(1.0 - alpha / 2.0) + special.ndtri(power))
    drift = optimize.brentq(lambda value: crossing(limits, drift=value) - power, 0.5 * fixed, 3.0 * fixed, xtol=1e-8)
    return float((drift / fixed) ** 2)


@cache
def _rule() -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes and weights on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


class _Process:
    """Density of the score process B(t), B(1) ~ N(drift, 1), over paths that have crossed nothing yet."""

    def __init__(self, drift: float = 0.0) -> None:
        self._drift, self._time = drift, 0.0
        self._points: FloatArray = np.zeros(1)
        self._mass: FloatArray = np.ones(1)

    def exit(self, time: float, bound: float) -> float:
        """Chance to be outside at `time`, having crossed nothing before."""
        from scipy import special

        sd = math.sqrt(time - self._time)
        centre = self._points + self._drift * (time - self._time)
        edge = bound * math.sqrt(time)
        return float(self._mass @ (special.ndtr((centre - edge) / sd) + special.ndtr((-edge - centre) / sd)))

    def advance(self, time: float, bound: float) -> None:
        """Go on from `time` with the paths inside."""
        sd = math.sqrt(time - self._time)
        centre = self._points + self._drift * (time - self._time)
        edge = min(bound, _WIDEST + abs(self._drift)) * math.sqrt(time)
        nodes, weights = _rule()
        points = edge * nodes
        density = np.exp(-0.5 * ((points[:, None] - centre[None, :]) / sd) ** 2) / (sd * math.sqrt(2.0 * math.pi))
        self._mass = np.asarray(edge * weights * (density @ self._mass), dtype=np.float64)
        self._points, self._time = points, time

    def bound(self, time: float, probability: float) -> float:
        """The boundary that is crossed at `time` with this probability."""
        from scipy import optimize

        if self.exit(time, _WIDEST) >= probability:
            return _WIDEST
        return float(optimize.brentq(lambda edge: self.exit(time, edge) - probability, 0.0, _WIDEST, xtol=1e-10))
