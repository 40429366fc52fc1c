"""Regression of one series with serially correlated errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.estimate import LEVEL
from e2i.errors import NotIdentified

_GRID = np.linspace(-0.9, 0.99, 190)
_BISECTIONS = 50
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One linear combination of coefficients with its 95 % interval."""

    estimate: float
    standard_error: float
    low: float
    high: float
    p_value: float
    method: str
    diagnostics: dict[str, float] = field(default_factory=dict)


def by_newey_west(design: FloatArray, outcome: FloatArray, contrasts: FloatArray, *, lags: int | None = None) -> tuple[Contrast, ...]:
    """Least squares with Bartlett-kernel errors (Newey & West 1987), factor T / (T - k), t with T - k degrees.

    Parameters
    ----------
    design : shape (T, k), of full rank
    contrasts : shape (c, k)
    lags : default 0.75 T^(1/3), rounded up (Stock & Watson 2011, equation 15.17)
    """
    from scipy.stats import t

    _require_rank(design)
    periods, width = design.shape
    lags = int(np.ceil(0.75 * periods ** (1 / 3))) if lags is None else lags
    bread = np.linalg.inv(design.T @ design)
    slopes = bread @ (design.T @ outcome)
    scores = design * (outcome - design @ slopes)[:, None]
    meat = scores.T @ scores
    for lag in range(1, lags + 1):
        cross = scores[lag:].T @ scores[:-lag]
        meat += (1.0 - lag / (lags + 1.0)) * (cross + cross.T)
    covariance = bread @ meat @ bread * (periods / (periods - width))
    degrees = periods - width
    critical = float(t.ppf(0.5 + LEVEL / 2, degrees))
    out = []
    for row in contrasts:
        value, error = float(row @ slopes), float(np.sqrt(max(row @ covariance @ row, 0.0)))
        p_value = float(2.0 * t.sf(abs(value) / error, degrees)) if error > 0 else 1.0
        out.append(
            Contrast(
                estimate=value,
                standard_error=error,
                low=value - critical * error,
                high=value + critical * error,
                p_value=p_value,
                method=f"Newey-West, {lags} lags, t with {degrees} degrees of freedom",
            )
        )
    return tuple(out)


def by_autoregression(design: FloatArray, outcome: FloatArray, contrasts: FloatArray, *, step: IntArray) -> tuple[Contrast, ...]:
    """First-order autoregressive errors with the autocorrelation integrated out (Zellner & Tiao 1964).

    For every autocorrelation on a grid the series is whitened and solved; the answers are weighed by their restricted likelihood
    (a flat prior), so that the interval holds what is not known about the autocorrelation. Plugging in one value covers too
    rarely in short series.

    Parameters
    ----------
    design : shape (T, k), of full rank
    contrasts : shape (c, k)
    step : shape (T,), whole time steps; a gap lets the correlation fade
    """
    from scipy.stats import t

    _require_rank(design)
    periods, width = design.shape
    gap = np.diff(step).astype(np.float64)
    logs: FloatArray = np.empty(len(_GRID))
    values: FloatArray = np.empty((len(_GRID), len(contrasts)))
    errors: FloatArray = np.empty((len(_GRID), len(contrasts)))
    for k, correlation in enumerate(_GRID):
        carried = np.sign(correlation) ** gap * np.abs(correlation) ** gap
        fresh = np.sqrt(1.0 - carried**2)
        both = np.column_stack([design, outcome])
        white = np.vstack([both[:1], (both[1:] - carried[:, None] * both[:-1]) / fresh[:, None]])
        triangle = np.asarray(np.linalg.qr(white, mode="r"), dtype=np.float64)
        inner, rest = triangle[:width, :width], float(triangle[width, width] ** 2)
        logs[k] = -np.sum(np.log(fresh)) - np.sum(np.log(np.abs(np.diagonal(inner)))) - 0.5 * (periods - width) * np.log(rest + 1e-300)
        values[k] = contrasts @ np.linalg.solve(inner, triangle[:width, width])
        errors[k] = np.sqrt(np.sum(np.linalg.solve(inner.T, contrasts.T) ** 2, axis=0) * rest / (periods - width))
    weights = np.exp(logs - logs.max())
    likely = weights > _NEGLIGIBLE
    weights, values, errors = weights[likely] / weights[likely].sum(), values[likely], errors[likely]
    degrees = periods - width
    means = weights @ values
    spreads = np.sqrt(weights @ (errors**2 * degrees / (degrees - 2) + (values - means) ** 2))
    level = (1.0 - LEVEL) / 2
    low, high = (_mixture_quantile(weights, values, errors, degrees, share) for share in (level, 1.0 - level))
    below = weights @ t.cdf(-values / np.maximum(errors, 1e-300), degrees)
    told = {"autocorrelation": float(weights @ _GRID[likely])}
    return tuple(
        Contrast(
            estimate=float(means[c]),
            standard_error=float(spreads[c]),
            low=float(low[c]),
            high=float(high[c]),
            p_value=float(2.0 * min(below[c], 1.0 - below[c])),
            method=f"AR(1) errors, autocorrelation integrated out, t with {degrees} degrees of freedom",
            diagnostics=told,
        )
        for c in range(len(contrasts))
    )


def _mixture_quantile(weights: FloatArray, values: FloatArray, errors: FloatArray, degrees: int, share: float) -> FloatArray:
    """Quantiles of mixtures of t distributions, one per contrast, by bisection."""
    from scipy.stats import t

    reach = 50.0 * errors.max(axis=0) + 1e-12
    low, high = values.min(axis=0) - reach, values.max(axis=0) + reach
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        is_below = weights @ t.cdf((middle - values) / np.maximum(errors, 1e-300), degrees) < share
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return np.asarray(0.5 * (low + high), dtype=np.float64)


def _require_rank(design: FloatArray) -> None:
    if int(np.linalg.matrix_rank(design)) < design.shape[1]:
        raise NotIdentified(
            "a term of the regression (trend, season, control) copies others.",
            where="confounders",
            advice="Leave out controls that are a straight line, repeat each other or change only with treatment.",
        )
