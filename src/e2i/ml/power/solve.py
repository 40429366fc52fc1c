"""Solve a planned comparison for sample size, detectable effect, or power."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from e2i.domain.trials import PowerPoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.ml.power.formulas import Comparison

LARGEST = 10**9
"""units; beyond this no sample size is named"""


def required_n(comparison: Comparison, effect: float, *, alpha: float, power: float, at_least: int = 4) -> int | None:
    """Smallest n over both arms with at least `power`; None where not even 10^9 units reach it, or the effect is impossible.

    >>> from e2i.ml.power.formulas import Means
    >>> required_n(Means(sd=1.0), 0.5, alpha=0.05, power=0.8)
    128
    """
    if effect == comparison.null or not comparison.is_possible(effect):
        return None
    if comparison.power(effect, at_least, alpha=alpha) >= power:
        return at_least
    low, high = at_least, at_least
    while comparison.power(effect, high, alpha=alpha) < power:
        low, high = high, high * 2
        if high > LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if comparison.power(effect, middle, alpha=alpha) < power else (low, middle)
    return high


def detectable(comparison: Comparison, n: float, *, alpha: float, power: float, up: bool = True) -> float | None:
    """Smallest effect (away from no effect, upwards or downwards) that n units find with `power`; None where none can be.

    >>> from e2i.ml.power.formulas import Means
    >>> round(detectable(Means(sd=2.0), 128, alpha=0.05, power=0.8), 3)
    0.998
    """
    is_ratio = comparison.null == 1.0
    sign = 1.0 if up else -1.0

    def at(distance: float) -> float:
        return math.exp(sign * distance) if is_ratio else sign * distance

    low, high = 0.0, 1e-6
    while comparison.is_possible(at(high)) and comparison.power(at(high), n, alpha=alpha) < power:
        low, high = high, high * 2.0
        if high > (700.0 if is_ratio else 1e300):
            return None
    # at the edge of what is possible (a share of 1) the bracket is cut there
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if not comparison.is_possible(at(middle)) or comparison.power(at(middle), n, alpha=alpha) >= power:
            high = middle
        else:
            low = middle
    found = at(high)
    possible = comparison.is_possible(found) and comparison.power(found, n, alpha=alpha) >= power - 1e-9
    return found if possible else None


def curve(comparison: Comparison, effect: float, sizes: Sequence[int], *, alpha: float, counted: float = 1.0) -> tuple[PowerPoint, ...]:
    """Power at each of `sizes`, of which a share `counted` remains after attrition and looks."""
    return tuple(PowerPoint(n=n, effect=effect, power=comparison.power(effect, n * counted, alpha=alpha)) for n in sizes)
