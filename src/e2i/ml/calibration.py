"""Scores into probabilities: is a map needed, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2i.ml.columns import FloatArray, IntArray

ISOTONIC_ROWS = 1_000
FOLDS = 5
# A map must earn its parameters: below this relative gain in the Brier score the simpler one stays.
WORTHWHILE_GAIN = 0.002
_CLIP = 1e-7


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A monotone map from a score in [0, 1] to a probability; plain numbers, so it can be kept as JSON.

    sigmoid: `slope` and `intercept` on the logit of the score (Platt 1999). isotonic: linear between the points (`x`, `y`).
    """

    method: Literal["none", "sigmoid", "isotonic"] = "none"
    slope: float | None = None
    intercept: float | None = None
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def apply(self, score: FloatArray) -> FloatArray:
        """Probabilities, shape (n,)."""
        if self.method == "sigmoid" and self.slope is not None and self.intercept is not None:
            return expit(self.intercept + self.slope * logit(score))
        if self.method == "isotonic":
            return np.interp(score, self.x, self.y).astype(np.float64)
        return score

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        if self.method == "sigmoid":
            return {"method": self.method, "slope": self.slope, "intercept": self.intercept}
        if self.method == "isotonic":
            return {"method": self.method, "x": list(self.x), "y": list(self.y)}
        return {"method": self.method}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        return cls(
            method=data["method"],
            slope=data.get("slope"),
            intercept=data.get("intercept"),
            x=tuple(data.get("x", ())),
            y=tuple(data.get("y", ())),
        )


def logit(p: FloatArray) -> FloatArray:
    """Log odds; probabilities are clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(p, _CLIP, 1.0 - _CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def expit(z: FloatArray) -> FloatArray:
    """The inverse of `logit`."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def fit_logistic_line(z: FloatArray, y: FloatArray, *, rounds: int = 50) -> tuple[float, float] | None:
    """Intercept and slope of a logistic regression of `y` on one predictor by Newton's method; None where it has no finite maximum.

    Parameters
    ----------
    z, y : shape (n,); y in [0, 1]
    """
    mean = float(np.clip(y.mean(), _CLIP, 1.0 - _CLIP))
    intercept, slope = float(np.log(mean / (1.0 - mean))), 0.0
    for _ in range(rounds):
        p = expit(intercept + slope * z)
        w = p * (1.0 - p)
        gradient = np.array([(y - p).sum(), ((y - p) * z).sum()])
        hessian = np.array([[w.sum(), (w * z).sum()], [(w * z).sum(), (w * z * z).sum()]])
        if np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        intercept, slope = intercept + float(step[0]), slope + float(step[1])
        if np.abs(step).max() < 1e-8:
            return intercept, slope
    return None


def _fit_sigmoid(y: FloatArray, score: FloatArray) -> Calibration | None:
    # Platt's targets, slightly inside 0 and 1, keep the line finite where the score separates the classes.
    positives, negatives = float(y.sum()), float(len(y) - y.sum())
    softened = np.where(y > 0.5, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    line = fit_logistic_line(logit(score), softened)
    if line is None or line[1] <= 0.0:
        return None
    return Calibration(method="sigmoid", intercept=line[0], slope=line[1])


def _fit_isotonic(y: FloatArray, score: FloatArray) -> Calibration | None:
    from sklearn.isotonic import IsotonicRegression

    # A step of 0 or 1 would call an event impossible or certain from a finite sample.
    margin = 1.0 / (len(y) + 2.0)
    fitted = IsotonicRegression(y_min=margin, y_max=1.0 - margin, out_of_bounds="clip").fit(score, y)
    if len(fitted.X_thresholds_) < 2:
        return None
    return Calibration(method="isotonic", x=tuple(fitted.X_thresholds_.tolist()), y=tuple(fitted.y_thresholds_.tolist()))


def _folds(y: FloatArray, seed: int) -> IntArray:
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    folds = np.empty(len(y), dtype=np.int64)
    folds[order] = np.arange(len(y)) % FOLDS
    return folds


def fit_calibration(y: FloatArray, score: FloatArray, *, seed: int = 0) -> Calibration:
    """Choose none, sigmoid or isotonic (from 1,000 rows on) by 5-fold cross-validated Brier score, and fit it on all rows.

    Parameters
    ----------
    y : shape (n,), 0 or 1, of the validation split
    score : shape (n,), in [0, 1]
    """
    fitters = [_fit_sigmoid]
    if len(y) >= ISOTONIC_ROWS:
        fitters.append(_fit_isotonic)
    folds = _folds(y, seed)
    best, best_loss = Calibration(), float(((score - y) ** 2).mean())
    for fitter in fitters:
        mapped = np.empty_like(score)
        for fold in range(FOLDS):
            inside = folds != fold
            part = fitter(y[inside], score[inside]) or Calibration()
            mapped[~inside] = part.apply(score[~inside])
        loss = float(((mapped - y) ** 2).mean())
        whole = fitter(y, score)
        if whole is not None and loss < best_loss * (1.0 - WORTHWHILE_GAIN):
            best, best_loss = whole, loss
    return best
