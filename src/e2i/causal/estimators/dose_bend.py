"""Does one unit more of a dose do the same at low and at high doses: the slope at either side, and whether they differ beyond chance."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Sample
from e2i.causal.estimators.least_squares import independent_columns, least_squares

_FARTHEST, _SEVERAL = 3.0, 5
_HOPELESS = 1e8
_SIDES = (15.87, 84.13)
"""percentiles one standard deviation from the middle of a normal distribution"""


def bend(freed: FloatArray, rest: FloatArray, data: Sample, *, expected: FloatArray | None = None) -> dict[str, float]:
    """Slopes one spread below and above the expected dose, with their standard errors, and the p-value of no bend.

    The outcome that covariates leave is regressed on the dose that they leave and on its square, of which what the expected dose tells
    is taken out first: where the effect is one slope, the square adds nothing, whatever the outcome model missed of the dose's spread
    (Robinson 1988; the regression test of a partially linear model). Doses beyond three spreads have a slope of their own, so that a few
    large ones decide nothing else. Empty where most doses are the same.

    Parameters
    ----------
    freed, rest : shape (n,), dose and outcome less what covariates predict
    expected : shape (n,), the dose that covariates predict; None where chance drew it

    Returns
    -------
    `slope_low`, `slope_low_se`, `slope_high`, `slope_high_se`, `bend_p`
    """
    from scipy.stats import chi2

    low, high = np.percentile(freed, _SIDES)
    scale = float(high - low) / 2.0
    if scale <= 1e-9 * float(np.abs(freed).max()):
        return {}
    near = np.clip(freed / scale, -_FARTHEST, _FARTHEST)
    design = np.column_stack([np.ones(len(near)), near, _square(near, expected), *_far(freed / scale - near)])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return {}
    covariance, slopes = _fitted(design, rest, data)
    # One slope: no square, and beyond three spreads the same slope as within.
    same = np.array([[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]])[: design.shape[1] - 2, : design.shape[1]]
    gap = same @ slopes
    out = {"bend_p": float(chi2.sf(gap @ np.linalg.pinv(same @ covariance @ same.T, hermitian=True) @ gap, len(gap)))}
    for side, sign in (("slope_low", -2.0), ("slope_high", 2.0)):
        contrast = np.array([0.0, 1.0, sign, 0.0])[: design.shape[1]] / scale
        out |= {side: float(contrast @ slopes), f"{side}_se": float(np.sqrt(contrast @ covariance @ contrast))}
    return out


def bend_through(data: Sample) -> dict[str, float]:
    """The same question of a dose that instruments move: slopes one spread below and above the mean dose, by two-stage least squares.

    Dose and its square are both instrumented, by the instruments and their squares (Wooldridge 2010, section 9.5). Where the instruments
    hardly move the square, its error is large and nothing is said. Empty where every instrument is 0/1, or the dose has no spread: one
    step of the instrument shows one slope.

    Returns
    -------
    As `bend`.
    """
    from scipy.stats import norm

    assert data.instruments is not None
    scale = float(data.treatment.std())
    several = [column for column in data.instruments.T if len(np.unique(column)) > 2]
    if scale <= 0 or not several:
        return {}
    dose = (data.treatment - data.treatment.mean()) / scale
    squares = np.column_stack([((column - column.mean()) / column.std()) ** 2 for column in several])
    given = np.ones(len(dose)) if data.weights is None else data.weights
    before = np.column_stack([np.ones(len(dose)), data.covariates.matrix])
    before = before[:, independent_columns(before)]
    root = np.sqrt(given)[:, None]
    columns = np.column_stack([data.outcome, dose, dose**2, data.instruments, squares]) * root
    left = columns - before * root @ np.linalg.lstsq(before * root, columns, rcond=None)[0]
    moved, asked = left[:, 3:], left[:, 1:3]
    moved = moved[:, independent_columns(moved)]
    if moved.shape[1] < 2:
        return {}
    fitted = moved @ np.linalg.lstsq(moved, asked, rcond=None)[0]
    if np.linalg.cond(fitted) > _HOPELESS:
        return {}
    inverse = np.linalg.inv(fitted.T @ fitted)
    slopes = inverse @ fitted.T @ left[:, 0]
    influence = fitted @ inverse * (left[:, 0] - asked @ slopes)[:, None]
    if data.cluster is not None:
        place = np.unique(data.cluster, return_inverse=True)[1]
        influence = np.column_stack([np.bincount(place, weights=column) for column in influence.T])
    covariance = influence.T @ influence
    out = {"bend_p": float(2.0 * norm.sf(abs(slopes[1]) / np.sqrt(covariance[1, 1])))}
    for side, sign in (("slope_low", -2.0), ("slope_high", 2.0)):
        contrast = np.array([1.0, sign]) / scale
        out |= {side: float(contrast @ slopes), f"{side}_se": float(np.sqrt(contrast @ covariance @ contrast))}
    return out


def _square(near: FloatArray, expected: FloatArray | None) -> FloatArray:
    """Of the dose within three spreads, less what a curve of the expected dose tells of it."""
    known = [np.ones(len(near))]
    if expected is not None and np.ptp(expected) > 0:
        middle = (expected - expected.mean()) / expected.std()
        known += [middle, middle**2]
    before = np.column_stack(known)
    out: FloatArray = near**2 - before @ np.linalg.lstsq(before, near**2, rcond=None)[0]
    return out


def _far(beyond: FloatArray) -> list[FloatArray]:
    """What lies beyond three spreads, where several rows do: a few large doses must not draw the slope of all others."""
    return [beyond] if np.count_nonzero(beyond) >= _SEVERAL else []


def _fitted(design: FloatArray, rest: FloatArray, data: Sample) -> tuple[FloatArray, FloatArray]:
    """Covariance (HC3, or clustered) and coefficients."""
    weights = None if data.weights is None else data.weights / data.weights.mean()
    found = least_squares(design, rest, weights=weights)
    influence = found.influence / np.maximum(1.0 - found.leverage, 1e-6)[:, None]
    if data.cluster is not None:
        place = np.unique(data.cluster, return_inverse=True)[1]
        influence = np.column_stack([np.bincount(place, weights=column) for column in influence.T])
    covariance: FloatArray = influence.T @ influence / len(rest) ** 2
    return covariance, found.coefficients
