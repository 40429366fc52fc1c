"""Response curves: value, slope, and where to cut them into lines. Every curve is 0 at 0 and, for a >= 0, concave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from e2i.domain.allocation import Curve

FloatArray = npt.NDArray[np.float64]
_HALVINGS = 60
_FLAT = 40.0
"""scales after which a saturating curve is flat"""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One curve per entity; arrays of shape (n,). `scale` is above 0, `exponent` in (0, 1]."""

    kind: Curve
    coefficient: FloatArray
    scale: FloatArray
    exponent: FloatArray

    def value(self, x: FloatArray) -> FloatArray:
        """Outcome at `x`, shape (n,) or (n, k)."""
        a, b, n = self._like(x)
        if self.kind == "linear":
            return np.asarray(a * x)
        if self.kind == "saturating":
            return np.asarray(-a * np.expm1(-x / b))
        if self.kind == "log":
            return np.asarray(a * np.log1p(x / b))
        power = (x / b) ** n
        return np.asarray(a * power / (1 + power))

    def slope(self, x: FloatArray) -> FloatArray:
        """Derivative at `x`; for a Hill curve with n < 1 it is infinite at 0."""
        a, b, n = self._like(x)
        if self.kind == "linear":
            return np.asarray(a + 0 * x)
        if self.kind == "saturating":
            return np.asarray(a / b * np.exp(-x / b))
        if self.kind == "log":
            return np.asarray(a / (b + x))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = x / b
            slope = a * n / b * ratio ** (n - 1) / (1 + ratio**n) ** 2
        return np.where(a == 0, 0.0, slope)

    def scaled(self, coefficient: FloatArray) -> Curves:
        """The same shapes with other coefficients."""
        return replace(self, coefficient=coefficient)

    def best(self, price: FloatArray, weight: float, low: FloatArray, high: FloatArray) -> FloatArray:
        """Where weight · f(x) - price · x is largest on [low, high], shape (n,). Infinite `high` needs a price above the last slope."""
        if self.kind == "linear":
            return np.where(weight * self.coefficient > price, high, low)
        inner = self._inverse(price, weight, low, high)
        ends = np.stack([low, np.clip(inner, low, high), high])
        gains = np.stack([weight * self.value(x) - price * x for x in ends])
        return np.asarray(np.take_along_axis(ends, np.argmax(gains, axis=0)[None, :], axis=0)[0])

    def cuts(self, low: FloatArray, high: FloatArray, *, pieces: int) -> FloatArray:
        """Points that cut [low, high] into `pieces` lines of about equal error, shape (n, pieces + 1).

        The error of a chord grows with the square of its length times the curvature, so the points are equally spaced in the
        integral of the root of the curvature. A line, and a curve that bends the other way (a < 0), is one piece: the others are empty.
        """
        steps = np.linspace(0.0, 1.0, pieces + 1)[None, :]
        b = self.scale[:, None]
        if self.kind == "linear":
            points = np.where(steps > 0, high[:, None], low[:, None])
        elif self.kind == "saturating":
            bent = np.minimum(high, low + _FLAT * self.scale)[:, None] - low[:, None]
            points = low[:, None] - 2 * b * np.log1p(steps * np.expm1(-bent / (2 * b)))
        elif self.kind == "log":
            start, end = np.log1p(low[:, None] / b), np.log1p(high[:, None] / b)
            points = b * np.expm1(start + steps * (end - start))
        else:
            n = self.exponent[:, None]
            start, end = (1 - (1 + (x[:, None] / b) ** n) ** -0.5 for x in (low, high))
            points = b * np.maximum((1 - (start + steps * (end - start))) ** -2 - 1, 0.0) ** (1 / n)
        bends_up = (self.coefficient < 0)[:, None]
        points = np.where(bends_up & (steps > 0), high[:, None], points)
        points[:, 0], points[:, -1] = low, high
        return np.maximum.accumulate(np.clip(points, low[:, None], high[:, None]), axis=1)

    def chord_error(self, points: FloatArray) -> FloatArray:
        """The largest distance of a curve from its chords, per entity: found where the slope equals the chord's."""
        worst = np.zeros(len(points))
        for left, right in zip(points.T[:-1], points.T[1:], strict=True):
            width = right - left
            real = (width > 0) & (self.coefficient > 0) & np.isfinite(width)
            if self.kind == "linear" or not real.any():
                continue
            safe = np.where(real, width, 1.0)
            chord = np.where(real, (self.value(np.where(real, right, left)) - self.value(left)) / safe, 0.0)
            at = self._inverse(chord, 1.0, left, np.where(real, right, left))
            worst = np.maximum(worst, np.where(real, self.value(at) - self.value(left) - chord * (at - left), 0.0))
        return worst

    def _inverse(self, price: FloatArray, weight: float, low: FloatArray, high: FloatArray) -> FloatArray:
        """Where weight · f' equals the price, inside [low, high]; closed forms, bisection for Hill curves with n < 1."""
        a, b = weight * np.maximum(self.coefficient, 0.0), self.scale
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.kind == "saturating":
                found = -b * np.log(price * b / a)
            elif self.kind == "log":
                found = a / price - b
            elif np.all(self.exponent == 1.0):
                found = np.sqrt(a * b / price) - b
            else:
                return self._bisect(price, weight, low, high)
        found = np.where(price <= 0, high, np.where(a == 0, low, found))
        return np.asarray(np.clip(found, low, high))

    def _bisect(self, price: FloatArray, weight: float, low: FloatArray, high: FloatArray) -> FloatArray:
        left, right = low.copy(), high.copy()
        for _ in range(_HALVINGS):
            middle = (left + right) / 2
            above = weight * self.slope(middle) > price
            left, right = np.where(above, middle, left), np.where(above, right, middle)
        return (left + right) / 2

    def _like(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        parts = self.coefficient, self.scale, self.exponent
        return parts if x.ndim == 1 else (parts[0][:, None], parts[1][:, None], parts[2][:, None])
