"""A data set in twelve numbers, to find past searches on similar data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.ml.association import correlation, level_scores, rank_auc
from e2i.ml.columns import as_float, infer_columns, level_codes, target_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.experiments import ProblemType
    from e2i.ml.columns import FloatArray

META_FEATURES: tuple[str, ...] = (
    "log_rows",
    "log_features",
    "is_regression",
    "minority_share",
    "categorical_share",
    "mean_levels",
    "missing_share",
    "mean_abs_skew",
    "mean_abs_correlation",
    "landmark_best",
    "landmark_mean",
    "landmark_linear",
)
MAXIMUM_ROWS = 5_000


def meta_features(frame: pl.DataFrame, *, features: Sequence[str], target: str, problem_type: ProblemType, seed: int) -> dict[str, float]:
    """Size, shape and difficulty of the train split; keys are META_FEATURES, in that order, all finite.

    Logarithms are to base 10. Landmarks are AUCs in [0.5, 1] (regression: absolute correlations in [0, 1]) of the best single
    column, of single columns on average, and of a linear model fitted on one half and judged on the other. `mean_levels` is
    log10 of the mean number of levels of the categories, `mean_abs_skew` is capped at 10. Large frames are sampled to 5,000 rows.

    Raises
    ------
    SchemaMismatch
        A column is missing or the target unusable.
    """
    sample = frame[np.random.default_rng(seed).permutation(frame.height)[:MAXIMUM_ROWS]]
    y = target_values(sample[target], problem_type)
    columns = infer_columns(sample, features)
    categories = [column.name for column in columns if column.kind == "categorical"]
    numbers = [column.name for column in columns if column.kind != "categorical"]
    matrix = _filled(sample, numbers)
    levels = [sample[name].n_unique() for name in categories]
    encoded = [level_scores(*level_codes(sample[name]), y) for name in categories]
    single = [_strength(column, y, problem_type) for column in (*matrix.T, *encoded)]
    share = float(y.mean()) if problem_type == "binary_classification" else 0.5
    cells = max(sample.height * len(columns), 1)
    values = {
        "log_rows": float(np.log10(max(frame.height, 1))),
        "log_features": float(np.log10(max(len(columns), 1))),
        "is_regression": float(problem_type == "regression"),
        "minority_share": min(share, 1.0 - share),
        "categorical_share": len(categories) / max(len(columns), 1),
        "mean_levels": float(np.log10(np.mean(levels))) if levels else 0.0,
        "missing_share": sum(sample[column.name].null_count() for column in columns) / cells,
        "mean_abs_skew": _mean_abs_skew(matrix),
        "mean_abs_correlation": _mean_abs_correlation(matrix),
        "landmark_best": max(single, default=0.0),
        "landmark_mean": float(np.mean(single)) if single else 0.0,
        "landmark_linear": _linear_landmark(np.column_stack([matrix, *encoded]), y, problem_type),
    }
    return {name: values[name] for name in META_FEATURES}


def _filled(frame: pl.DataFrame, names: Sequence[str]) -> FloatArray:
    """Numbers with the median in place of what is missing or infinite, shape (n, k)."""
    matrix = np.empty((frame.height, len(names)))
    for index, name in enumerate(names):
        values = as_float(frame[name])
        finite = np.isfinite(values)
        matrix[:, index] = np.where(finite, values, np.median(values[finite]) if finite.any() else 0.0)
    return matrix


def _strength(values: FloatArray, y: FloatArray, problem_type: ProblemType) -> float:
    if problem_type == "regression":
        return abs(correlation(values, y))
    area = rank_auc(values, y > 0.5)
    return max(area, 1.0 - area) if np.isfinite(area) else 0.5


def _standardised(matrix: FloatArray) -> FloatArray:
    spread = matrix.std(axis=0)
    return np.asarray((matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _mean_abs_skew(matrix: FloatArray) -> float:
    if matrix.size == 0:
        return 0.0
    return float(np.minimum(np.abs((_standardised(matrix) ** 3).mean(axis=0)), 10.0).mean())


def _mean_abs_correlation(matrix: FloatArray) -> float:
    n, k = matrix.shape
    if k < 2 or n == 0:
        return 0.0
    scaled = _standardised(matrix)
    pairs = np.abs(scaled.T @ scaled / n)[np.triu_indices(k, 1)]
    return float(pairs.mean())


def _linear_landmark(matrix: FloatArray, y: FloatArray, problem_type: ProblemType) -> float:
    """Ridge regression on one half, judged on the other; for classes too (least squares ranks them well enough for a landmark)."""
    scaled = _standardised(matrix)
    half = len(y) // 2
    x, centre = scaled[:half], y[:half].mean() if half else 0.0
    coefficients = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y[:half] - centre))
    return _strength(scaled[half:] @ coefficients, y[half:], problem_type)
