"""Least squares over the probability simplex: the weights of synthetic controls.

The nearest point of a convex hull is a non-negative least squares problem with one more row (Lawson & Hanson 1974, chapter 23):
with s = sum(u), min ||M u||² + (1'u - 1)² over u >= 0 separates into the direction u / s, which is the wanted one, and s.
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray

_DIRECT = 120
"""up to so many columns one call solves all; above, columns are let in as they are needed"""
_FEW_TARGETS = 3
"""up to so many a rough start costs more than it saves"""
_GRADIENT_STEPS = 80
_TOLERANCE = 1e-9


def simplex_weights(matrix: FloatArray, target: FloatArray, *, ridge: float = 0.0, intercept: bool = False) -> FloatArray:
    """The w in the simplex that minimises ||A w - b||² + ridge² ||w||².

    Parameters
    ----------
    matrix : A, shape (m, J), finite
    target : b, shape (m,), finite
    ridge : zeta, in the unit of A; 0 for none
    intercept : b may lie above or below A w by a constant

    Returns
    -------
    shape (J,), not negative, sum 1

    Examples
    --------
    >>> simplex_weights(np.eye(2), np.array([0.25, 0.75])).round(6).tolist()
    [0.25, 0.75]
    """
    return many_simplex_weights(matrix, target[:, None], ridge=ridge, intercept=intercept)[:, 0]


def many_simplex_weights(
    matrix: FloatArray, targets: FloatArray, *, ridge: float = 0.0, intercept: bool = False, allowed: BoolArray | None = None
) -> FloatArray:
    """`simplex_weights` for R right-hand sides over one matrix.

    Parameters
    ----------
    matrix : shape (m, J)
    targets : shape (m, R)
    allowed : shape (J, R), columns of the matrix that each right-hand side may use (a placebo must not use itself); default all

    Returns
    -------
    shape (J, R); every column is not negative and sums to 1
    """
    if intercept:
        matrix, targets = matrix - matrix.mean(axis=0), targets - targets.mean(axis=0)
    may = np.ones((matrix.shape[1], targets.shape[1]), dtype=np.bool_) if allowed is None else allowed
    out: FloatArray = np.zeros(may.shape)
    rough = _rough(matrix, targets, ridge, may) if len(may) > _DIRECT and targets.shape[1] > _FEW_TARGETS else None
    for k in range(targets.shape[1]):
        use = np.flatnonzero(may[:, k])
        points = matrix[:, use] - targets[:, k : k + 1]
        begin = np.arange(len(use)) if rough is None else np.flatnonzero(rough[use, k] > 0)
        out[use, k] = _nearest(points, ridge, begin)
    return out


def project_onto_simplex(values: FloatArray, allowed: BoolArray) -> FloatArray:
    """Nearest point of the simplex for every column, shape (J, R), with 0 where not allowed (Held, Wolfe & Crowder 1974)."""
    masked = np.where(allowed, values, -1e300)
    ordered = -np.sort(-masked, axis=0)
    excess = np.cumsum(ordered, axis=0) - 1.0
    count = np.sum(ordered * np.arange(1, len(values) + 1)[:, None] > excess, axis=0)
    level = excess[count - 1, np.arange(values.shape[1])] / count
    return np.asarray(np.maximum(masked - level, 0.0), dtype=np.float64)


def _nearest(points: FloatArray, ridge: float, columns: IntArray) -> FloatArray:
    """Weights of the point of the hull that is nearest to 0. A column outside that would still improve it is let in."""
    weights: FloatArray = np.zeros(points.shape[1])
    while True:
        weights[:] = 0.0
        weights[columns] = _hull(points[:, columns], ridge)
        if len(columns) == points.shape[1]:
            return weights
        gradient = points.T @ (points @ weights) + ridge**2 * weights
        level = float(gradient @ weights)
        size = float(np.max(np.sum(points**2, axis=0))) + ridge**2
        better = np.flatnonzero(gradient < level - _TOLERANCE * size)
        if len(better) == 0:
            return weights
        columns = np.union1d(columns, better[np.argsort(gradient[better])[:_DIRECT]])


def _hull(points: FloatArray, ridge: float) -> FloatArray:
    from scipy.optimize import nnls

    width = points.shape[1]
    rows = np.vstack([points, ridge * np.eye(width)]) if ridge > 0 else points
    scale = float(np.sqrt(np.min(np.sum(rows**2, axis=0))))
    if scale == 0.0:  # a column is the target itself
        return np.asarray(np.arange(width) == int(np.argmin(np.sum(rows**2, axis=0))), dtype=np.float64)
    system = np.vstack([rows / scale, np.ones(width)])
    aim = np.zeros(len(system))
    aim[-1] = 1.0
    raw = nnls(system, aim, maxiter=50 * width + 500)[0]
    return np.asarray(raw / raw.sum(), dtype=np.float64)


def _rough(matrix: FloatArray, targets: FloatArray, ridge: float, allowed: BoolArray) -> FloatArray:
    """A few steps of FISTA (Beck & Teboulle 2009) for all right-hand sides at once, only to find the likely support."""
    largest = float(np.linalg.norm(matrix, 2)) ** 2 + ridge**2
    linear = matrix.T @ targets
    weights: FloatArray = np.asarray(allowed / allowed.sum(axis=0), dtype=np.float64)
    momentum = weights
    pace = 1.0
    for _ in range(_GRADIENT_STEPS):
        gradient = matrix.T @ (matrix @ momentum) + ridge**2 * momentum - linear
        following = project_onto_simplex(momentum - gradient / max(largest, 1e-300), allowed)
        next_pace = (1.0 + float(np.sqrt(1.0 + 4.0 * pace**2))) / 2.0
        momentum = following + (pace - 1.0) / next_pace * (following - weights)
        weights, pace = following, next_pace
    return weights
