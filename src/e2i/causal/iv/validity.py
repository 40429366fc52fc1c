"""What a valid 0/1 instrument cannot do to the joint distribution of a 0/1 treatment and its outcome.

Kitagawa (2015), "A test for instrument validity": with exclusion, random assignment and monotonicity the instrument can only add treated
rows to any range of outcomes, and only take untreated ones away. Ranges here are of the outcome less what covariates predict (Mourifié
and Wan 2017 condition on covariates); the test is one-sided, Bonferroni's over ranges.
"""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Sample
from e2i.causal.iv.residuals import project_out
from e2i.domain.evidence import Refutation
from e2i.errors import NotIdentified

_RANGES = 6
_FEWEST = 500
_LEVEL = 0.01
_MOST_ROWS = 500_000
_MOST_COLUMNS = 60


def kitagawa(sample: Sample, *, seed: int) -> tuple[Refutation, ...]:
    """Whether treated rows vanish from, or untreated rows gather in, a range of outcomes where the instrument is on.

    Parameters
    ----------
    sample : with instruments; nothing is told unless there is one, of two values, a 0/1 treatment, and 500 rows
    seed : which rows are looked at above half a million
    """
    if not _applies(sample):
        return ()
    assert sample.instruments is not None
    rows = np.arange(len(sample.outcome))
    if len(rows) > _MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), _MOST_ROWS, replace=False))
    try:
        part = project_out(
            sample.outcome[rows],
            sample.treatment[rows],
            sample.instruments[rows],
            covariates=_curved(sample.covariates.matrix[rows]),
            weights=None if sample.weights is None else sample.weights[rows],
            clusters=None if sample.cluster is None else sample.cluster[rows],
        )
    except NotIdentified:
        return ()
    root = np.ones(len(rows)) if sample.weights is None else np.sqrt(sample.weights[rows])
    lift = part.instruments[:, 0] * float(np.sign(part.reduced_form[1][0]))
    ranges = _ranges(part.outcome / root)
    treated = sample.treatment[rows][:, None]
    # Each column's slope on the instrument may not be negative.
    columns = np.column_stack([ranges * treated, -ranges * (1.0 - treated)])
    columns = (columns - columns.mean(axis=0)) * root[:, None]
    slopes = lift @ columns / len(rows)
    scores = lift[:, None] * (columns - lift[:, None] * slopes) / len(rows)
    errors = np.sqrt(part.correction(1) * np.sum(part.sums(scores) ** 2, axis=0))
    used = errors > 0
    return (_told(slopes[used] / errors[used], part.degrees),) if used.any() else ()


def _applies(sample: Sample) -> bool:
    if sample.instruments is None or sample.instruments.shape[1] != 1 or len(sample.outcome) < _FEWEST:
        return False
    return len(np.unique(sample.instruments)) == 2 and bool(np.isin(sample.treatment, (0.0, 1.0)).all())


def _curved(matrix: FloatArray) -> FloatArray:
    """Columns, and squares of the first that are numbers: the instrument's share may bend with them."""
    several = [column for column in matrix.T[:_MOST_COLUMNS] if len(np.unique(column[:1000])) > 2]
    squares = [((column - column.mean()) / (column.std() or 1.0)) ** 2 for column in several]
    out: FloatArray = np.column_stack([matrix, *squares])
    return out


def _ranges(values: FloatArray) -> FloatArray:
    """0/1 columns: between neighbouring sixths, or the values themselves where there are few; shape (n, ranges)."""
    levels = np.unique(values)
    if len(levels) <= _RANGES:
        return np.asarray(values[:, None] == levels, dtype=np.float64)
    cuts = np.unique(np.quantile(values, np.linspace(0.0, 1.0, _RANGES + 1)[1:-1]))
    place = np.searchsorted(cuts, values, side="left")
    return np.asarray(place[:, None] == np.arange(len(cuts) + 1), dtype=np.float64)


def _told(z: FloatArray, degrees: int) -> Refutation:
    from scipy.stats import t

    worst = float(z.min())
    p_value = min(1.0, len(z) * float(t.cdf(worst, degrees)))
    passed = p_value >= _LEVEL
    ending = (
        "the joint distribution of treatment and outcome allows a valid instrument."
        if passed
        else "no valid instrument can do that: it reaches the outcome past the treatment, is confounded, or has defiers."
    )
    what = "Kitagawa's test of ranges of the outcome that gain untreated or lose treated rows where the instrument is on"
    shown = f"p = {p_value:.2g}" if p_value >= 1e-4 else "p < 0.0001"
    return Refutation(test="instrument_validity", passed=passed, detail=f"{what}: {shown}; {ending}", statistic=worst, p_value=p_value)
