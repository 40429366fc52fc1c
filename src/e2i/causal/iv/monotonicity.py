"""Do instruments move treatment the other way somewhere: then two-stage least squares is no average over anybody.

Imbens and Angrist (1994) need monotonicity; its sign in groups of covariates can be tested (Farbmacher, Guber and Klaassen 2022,
"Instrument validity tests with causal forests"; here groups come from a linear first stage, learned on other rows).
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Sample
from e2i.causal.iv.residuals import Residuals, project_out
from e2i.domain.evidence import Hazard
from e2i.errors import NotIdentified

_FOLDS = 2
_MOST_ROWS, _MOST_COLUMNS, _FEWEST = 100_000, 40, 100
_SHARE, _REVIEW, _BLOCK = 0.05, 0.01, 0.0001


def about_direction(sample: Sample, residuals: Residuals, *, seed: int) -> tuple[Hazard, ...]:
    """Whether there are rows, found on other rows, in which the instruments move treatment the wrong way. Code: `monotonicity`.

    Parameters
    ----------
    sample : with instruments
    residuals : of all its rows
    seed : decides folds
    """
    if sample.covariates.matrix.shape[1] == 0 or len(sample.outcome) < 2 * _FEWEST:
        return ()
    index = residuals.instruments @ residuals.reduced_form[1]
    rng = np.random.default_rng(seed)
    rows = np.arange(len(index))
    if len(rows) > _MOST_ROWS:
        rows = np.sort(rng.choice(len(rows), _MOST_ROWS, replace=False))
    wrong = np.zeros(len(index), dtype=np.bool_)
    wrong[rows] = _predicted_wrong(sample, residuals, index, rows, rng)
    share = float(wrong[rows].mean())
    if wrong.sum() < _FEWEST or share < _SHARE:
        return ()
    slope, p_value = _first_stage(sample, index, wrong)
    slope /= residuals.treatment_scale
    if p_value > _REVIEW:
        return ()
    text = (
        f"for {share:.0%} of rows the instruments move treatment the other way (one-sided p = {max(p_value, 1e-4):.2g}"
        f"{'' if p_value >= 1e-4 else ' or less'}, its slope {slope:.2g} times the usual one): there are defiers."
    )
    remedy = "Look at the groups where it does and leave them out; without monotonicity the estimate is no effect on compliers."
    action = "block" if p_value < _BLOCK else "review"
    return (Hazard(code="monotonicity", action=action, text=text, remedy=remedy, measured=p_value, threshold=_REVIEW),)  # type: ignore[arg-type]


def _predicted_wrong(sample: Sample, residuals: Residuals, index: FloatArray, rows: np.ndarray, rng: np.random.Generator) -> BoolArray:
    """Rows whose first stage, predicted from other rows, is negative; the index points the right way by construction."""
    basis = _basis(sample.covariates.matrix[rows])
    groups = rows if sample.cluster is None else sample.cluster[rows]
    fold = rng.integers(0, _FOLDS, size=int(groups.max()) + 1)[groups]
    out = np.zeros(len(rows), dtype=np.bool_)
    design = np.column_stack([basis, index[rows, None] * basis])
    for number in range(_FOLDS):
        learn = fold != number
        gram = design[learn].T @ design[learn] / max(int(learn.sum()), 1)
        right = design[learn].T @ residuals.treatment[rows][learn] / max(int(learn.sum()), 1)
        slopes = np.linalg.lstsq(gram + 1e-6 * np.eye(len(gram)) * np.diag(gram).max(), right, rcond=None)[0][basis.shape[1] :]
        out[~learn] = basis[~learn] @ slopes < 0.0
    return out


def _basis(matrix: FloatArray) -> FloatArray:
    """A constant, standardised columns and, of numbers, their squares; shape (n, at most 2 · 40 + 1)."""
    columns = matrix[:, :_MOST_COLUMNS]
    scale = columns.std(axis=0)
    standard = np.clip((columns - columns.mean(axis=0)) / np.where(scale > 0, scale, 1.0), -5.0, 5.0)
    several = np.array([len(np.unique(column[:1000])) > 2 for column in columns.T], dtype=np.bool_)
    out: FloatArray = np.column_stack([np.ones(len(columns)), standard, standard[:, several] ** 2])
    return out


def _first_stage(sample: Sample, index: FloatArray, wrong: BoolArray) -> tuple[float, float]:
    """Slope of treatment on the index among those rows, and the one-sided p-value of a positive one."""
    from scipy.stats import t

    try:
        part = project_out(
            sample.treatment[wrong],
            index[wrong],
            index[wrong, None],
            covariates=sample.covariates.matrix[wrong],
            weights=None if sample.weights is None else sample.weights[wrong],
            clusters=None if sample.cluster is None else sample.cluster[wrong],
        )
    except NotIdentified:
        return 0.0, 1.0
    if part.degrees < 10:
        return 0.0, 1.0
    slope = float(part.treatment @ part.outcome) / len(part.outcome)
    scores = part.treatment * (part.outcome - slope * part.treatment) / len(part.outcome)
    error = float(np.sqrt(part.variance(scores, parameters=1)))
    if error == 0.0:
        return 0.0, 1.0
    return slope * part.unit, float(t.cdf(slope / error, part.degrees))
