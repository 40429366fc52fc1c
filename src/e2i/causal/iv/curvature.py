"""Does the estimate rest on covariates acting in straight lines.

Blandhol, Bonney, Mogstad and Torgovnitsky (2022), "When is TSLS actually LATE?": with covariates, two-stage least squares is an average
effect on compliers only where the instrument's mean is linear in them. Squares and products of the covariates are added, and the two
estimates compared on the same rows (Hausman 1978, with the robust variance of the difference).
"""

from __future__ import annotations

from itertools import combinations
from math import erfc, sqrt

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Sample
from e2i.causal.iv.residuals import Residuals, project_out
from e2i.causal.iv.two_stage import LinearFit, two_stage
from e2i.domain.evidence import Hazard
from e2i.errors import NotIdentified

_MOST_ROWS, _MOST_BENT, _ROWS_PER_COLUMN = 200_000, 10, 20
_REVIEW, _BLOCK = 1e-3, 1e-6


def about_curvature(sample: Sample, *, seed: int) -> tuple[Hazard, ...]:
    """Whether squares and products of the covariates change the estimate beyond chance. Code: `curved_covariates`.

    Parameters
    ----------
    sample : with instruments
    seed : which rows are looked at above 200,000
    """
    rows = np.arange(len(sample.outcome))
    if len(rows) > _MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), _MOST_ROWS, replace=False))
    matrix = sample.covariates.matrix[rows]
    more = _bent(matrix)
    if more.shape[1] == 0 or len(rows) < _ROWS_PER_COLUMN * (matrix.shape[1] + more.shape[1]):
        return ()
    try:
        straight, first = _fit(sample, rows, matrix)
        bent, second = _fit(sample, rows, np.column_stack([matrix, more]))
    except NotIdentified:
        return ()
    gap = second.estimate * bent.unit - first.estimate * straight.unit
    error = sqrt(bent.variance(second.scores * bent.unit - first.scores * straight.unit, parameters=1))
    p_value = erfc(abs(gap) / error / sqrt(2.0)) if error > 0 else 1.0
    if p_value >= _REVIEW:
        return ()
    text = (
        f"with squares and products of the confounders the estimate moves by {gap:.3g}, beyond chance (p < 0.001): the instrument depends "
        "on them in curves, which two-stage least squares does not take out."
    )
    remedy = "Add the curves as columns of their own (squares, products, levels of a number), or name the instrument's real conditions."
    action = "block" if p_value < _BLOCK else "review"
    return (Hazard(code="curved_covariates", action=action, text=text, remedy=remedy, measured=p_value, threshold=_REVIEW),)  # type: ignore[arg-type]


def _fit(sample: Sample, rows: np.ndarray, covariates: FloatArray) -> tuple[Residuals, LinearFit]:
    assert sample.instruments is not None
    left = project_out(
        sample.outcome[rows],
        sample.treatment[rows],
        sample.instruments[rows],
        covariates=covariates,
        weights=None if sample.weights is None else sample.weights[rows],
        clusters=None if sample.cluster is None else sample.cluster[rows],
    )
    return left, two_stage(left)


def _bent(matrix: FloatArray) -> FloatArray:
    """Squares and products of the first columns, standardised and clipped at five deviations; shape (n, at most 55)."""
    columns = matrix[:, :_MOST_BENT]
    scale = columns.std(axis=0)
    standard = np.clip((columns - columns.mean(axis=0)) / np.where(scale > 0, scale, 1.0), -5.0, 5.0)
    squares = [column**2 for column in standard.T if len(np.unique(column[:1000])) > 2]
    products = [left * right for left, right in combinations(standard.T, 2)]
    made = [column for column in (*squares, *products) if np.ptp(column) > 0]
    return np.column_stack(made) if made else np.empty((len(matrix), 0))
