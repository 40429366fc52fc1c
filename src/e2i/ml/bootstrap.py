"""Metrics under resampling, all resamples at once: a resample is a row of counts, a metric a function of counts.

Percentile bootstrap (Efron and Tibshirani 1993, chapter 13). Rows are drawn as pairs, so the share of events varies between
resamples as it would between samples; holding it fixed makes intervals of the Brier score and of precision too narrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from e2i.ml.calibration import expit, fit_logistic_line, logit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2i.ml.columns import FloatArray, IntArray

_CELLS = 4_000_000
_BINS = 500
PRECISION_AT = (100, 500, 1000)


def count_weights(n: int, *, resamples: int, seed: int, groups: IntArray | None = None) -> Iterator[FloatArray]:
    """Blocks of how often each row is drawn; shape (block, n), rows sum to n (with `groups`, whole groups are drawn).

    Parameters
    ----------
    groups : shape (n,), codes from 0; for rows of one person or one HCP that belong together
    """
    rng = np.random.default_rng(seed)
    members = n if groups is None else int(groups.max()) + 1
    block = max(1, min(resamples, _CELLS // max(n, 1)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, members, size=(size, members)) + np.arange(size)[:, None] * members
        counts = np.bincount(drawn.ravel(), minlength=size * members).reshape(size, members).astype(np.float64)
        yield counts if groups is None else counts[:, groups]


class BinaryMetrics:
    """Metrics of probabilities against classes, for the sample itself and for blocks of count weights.

    Parameters
    ----------
    y : shape (n,), 0 or 1
    p : shape (n,), in [0, 1]
    threshold : decisions are p >= threshold; None leaves out the metrics of decisions
    """

    def __init__(self, y: FloatArray, p: FloatArray, threshold: float | None) -> None:
        order = np.argsort(-p, kind="stable")
        self._order, self._y, self._p = order, y[order], p[order]
        self._starts = np.flatnonzero(np.concatenate([[True], self._p[1:] != self._p[:-1]]))
        self._chosen = None if threshold is None else (self._p >= threshold).astype(np.float64)
        self._z = logit(self._p)
        self._bins = np.unique(np.linspace(0, len(y), _BINS, endpoint=False).astype(np.int64))
        clipped = np.clip(self._p, 1e-15, 1.0 - 1e-15)
        self._log_loss = -(self._y * np.log(clipped) + (1.0 - self._y) * np.log1p(-clipped))
        self._line = fit_logistic_line(self._z, self._y) if self._p.min() < self._p.max() else None

    def __call__(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Each metric for each row of `weights` (shape (b, n)); shape (b,), NaN where it is not defined."""
        ordered = weights[:, self._order]
        total = ordered.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "brier": ordered @ (self._p - self._y) ** 2 / total,
                "log_loss": ordered @ self._log_loss / total,
            }
            found |= self._ranking(ordered)
            if self._chosen is not None:
                found |= self._decisions(ordered, total, self._chosen)
            found |= self._calibration(ordered)
        return found

    def _ranking(self, weights: FloatArray) -> dict[str, FloatArray]:
        """ROC-AUC, average precision and precision among the first k; rows of equal probability are one step."""
        positives = np.add.reduceat(weights * self._y, self._starts, axis=1)
        everyone = np.add.reduceat(weights, self._starts, axis=1)
        caught, seen = np.cumsum(positives, axis=1), np.cumsum(everyone, axis=1)
        n_positive, n = caught[:, -1], seen[:, -1]
        negatives = everyone - positives
        below = (n - n_positive)[:, None] - (seen - caught) + negatives / 2.0
        found = {
            "roc_auc": (positives * below).sum(axis=1) / (n_positive * (n - n_positive)),
            "pr_auc": (positives * np.divide(caught, seen, out=np.zeros_like(caught), where=seen > 0)).sum(axis=1) / n_positive,
        }
        size = weights.shape[1]
        wanted = {f"precision_at_{k}": float(k) for k in PRECISION_AT if k <= size}
        wanted["precision_at_decile"] = float(np.ceil(size / 10))
        hit_rate = np.divide(positives, everyone, out=np.zeros_like(positives), where=everyone > 0)
        for name, k in wanted.items():
            taken = np.clip(k - (seen - everyone), 0.0, everyone)
            found[name] = (taken * hit_rate).sum(axis=1) / np.minimum(k, n)
        return found

    def _decisions(self, weights: FloatArray, total: FloatArray, chosen: FloatArray) -> dict[str, FloatArray]:
        hits, picked, events = (weights @ column for column in (chosen * self._y, chosen, self._y))
        false_alarms = picked - hits
        return {
            "precision": np.where(picked > 0, hits / picked, 0.0),
            "recall": hits / events,
            "f1": 2.0 * hits / (picked + events),
            "accuracy": (hits + (total - events) - false_alarms) / total,
            "false_positive_rate": false_alarms / (total - events),
        }

    def _calibration(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Slope of logit(p), and calibration in the large: the intercept with the slope held at 1 (Van Calster et al. 2019)."""
        z, counts, events = self._z, weights, weights * self._y
        if len(weights) > 1 and len(self._bins) < len(z):
            # Neighbours in p share a bin when resampling: the sample's own value is exact, its interval moves by less than 1 %.
            z = np.add.reduceat(z, self._bins) / np.diff(self._bins, append=len(z))
            counts, events = np.add.reduceat(counts, self._bins, axis=1), np.add.reduceat(events, self._bins, axis=1)
        found = {"calibration_intercept": _in_the_large(z, counts, events)}
        if self._line is not None:
            found["calibration_slope"] = _slope(z, counts, events, start=self._line)
        return found


def _in_the_large(z: FloatArray, counts: FloatArray, events: FloatArray) -> FloatArray:
    happened, n = events.sum(axis=1), counts.sum(axis=1)
    shift = np.where((happened > 0) & (happened < n), 0.0, np.nan)[:, None]
    for _ in range(8):
        p = expit(shift + z)
        step = (happened - (counts * p).sum(axis=1)) / (counts * p * (1.0 - p)).sum(axis=1)
        shift = shift + np.clip(step, -2.0, 2.0)[:, None]
        if np.nanmax(np.abs(step), initial=0.0) < 1e-6:
            break
    return np.asarray(shift[:, 0])


def _slope(z: FloatArray, counts: FloatArray, events: FloatArray, *, start: tuple[float, float]) -> FloatArray:
    """Newton's method for all resamples together, from the fit on the sample itself."""
    a, b = np.full(len(counts), start[0]), np.full(len(counts), start[1])
    for _ in range(6):
        p = expit(a[:, None] + b[:, None] * z)
        residual, spread = events - counts * p, counts * p * (1.0 - p)
        g0, g1 = residual.sum(axis=1), residual @ z
        h00, h01, h11 = spread.sum(axis=1), spread @ z, spread @ (z * z)
        det = h00 * h11 - h01 * h01
        step_a, step_b = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        a, b = a + step_a, b + step_b
        if np.nanmax(np.abs(step_b), initial=0.0) < 1e-5:
            break
    return np.asarray(b)


class RegressionMetrics:
    """Metrics of predicted against observed values; `mape` is left out where a target is zero.

    Parameters
    ----------
    y, p : shape (n,), in the target's unit
    """

    def __init__(self, y: FloatArray, p: FloatArray) -> None:
        self._y, self._error = y, p - y

    def __call__(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Each metric for each row of `weights` (shape (b, n)); shape (b,)."""
        total = weights.sum(axis=1)
        squared = weights @ self._error**2
        centre = weights @ self._y / total
        spread = weights @ self._y**2 - total * centre**2
        found = {
            "rmse": np.sqrt(squared / total),
            "mae": weights @ np.abs(self._error) / total,
        }
        with np.errstate(invalid="ignore", divide="ignore"):
            found["r2"] = np.where(spread > 0, 1.0 - squared / spread, np.nan)
        if (self._y != 0.0).all():
            found["mape"] = weights @ np.abs(self._error / self._y) / total
        return found
