"""Regression with robust and clustered variance, through influence values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Coefficients and each row's share in them."""

    coefficients: FloatArray
    residuals: FloatArray
    leverage: FloatArray
    """shape (n,), in 0-1"""
    influence: FloatArray
    """shape (n, d), mean 0 per column, HC0: var(b) = mean(influence²) / n"""


def independent_columns(design: FloatArray) -> IntArray:
    """Numbers of columns that are no combination of earlier ones, in order; the first are kept before later ones."""
    scale = np.sqrt((design**2).mean(axis=0))
    triangle: FloatArray = np.linalg.qr(design / np.where(scale > 0, scale, 1.0))[1]
    kept: list[int] = []
    for j in range(design.shape[1]):
        column = triangle[:, j]
        rest = column - triangle[:, kept] @ np.linalg.lstsq(triangle[:, kept], column, rcond=None)[0] if kept else column
        if np.linalg.norm(rest) > 1e-7 * np.sqrt(len(design)):
            kept.append(j)
    return np.array(kept, dtype=np.int64)


def least_squares(design: FloatArray, target: FloatArray, *, weights: FloatArray | None = None) -> Regression:
    """Weighted least squares.

    Parameters
    ----------
    design : shape (n, d), of full column rank
    target : shape (n,)
    weights : shape (n,), positive, mean 1
    """
    n = len(target)
    root = np.ones(n) if weights is None else np.sqrt(weights)
    rows = design * root[:, None]
    orthogonal, triangle = np.linalg.qr(rows)
    coefficients = np.linalg.solve(triangle, orthogonal.T @ (target * root))
    residuals = target - design @ coefficients
    inverse = np.linalg.inv(triangle)
    share = orthogonal @ inverse.T
    return Regression(
        coefficients=coefficients,
        residuals=residuals,
        leverage=np.sum(orthogonal**2, axis=1),
        influence=n * share * (root * residuals)[:, None],
    )
