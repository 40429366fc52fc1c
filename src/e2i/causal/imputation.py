"""Confounders with missing values, drawn from what the rest of the row says; the interval grows by what the draws disagree.

Chained equations with predictive mean matching (van Buuren and Groothuis-Oudshoorn 2011; Little 1988): a missing value is that of a
row with a like prediction. The prediction uses treatment, outcome and every other column of the row, because draws that ignore the
outcome leave confounding behind (Moons, Donders, Stijnen and Harrell 2006). One completed table goes through the learners; how the
estimate differs over many completed tables is measured by the fast estimator, and joined by the rules of Rubin (1987).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.designs.controls import of_rows
from e2i.causal.estimators.doubly_robust import Target
from e2i.causal.refute.ground import bent, functional, quick_propensity

DRAWS = 10
_SWEEPS = 4
_DONORS = 5
_PENALTY = 1e-3
_MOST_ROWS = 50_000
_MOST_DONORS = 20_000


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What many completed tables say beyond the first one."""

    shift: float
    """mean over all tables less the estimate on the first, in the outcome's unit"""
    variance: float
    """(1 + 1/M) times the variance between tables (Rubin 1987)"""
    indicator_gap: float
    """the estimate with gaps set to the median and an indicator, less the mean over completed tables"""


def completed(sample: Sample, *, seed: int) -> Sample:
    """The sample with one draw in place of every gap; the sample itself where it has none. Indicators of missing values stay."""
    if not _gaps(sample):
        return sample
    matrix = _draw(sample, np.random.default_rng((seed, 0)))
    return replace(sample, covariates=replace(sample.covariates, matrix=matrix))


def spread(sample: Sample, *, estimand: Target, seed: int) -> Spread | None:
    """What `DRAWS` completed tables, the first of them that of `completed`, say; None where nothing is missing.

    Above 50,000 rows the tables are made from so many rows at random.

    Parameters
    ----------
    sample : as prepared, gaps at the median
    """
    if not _gaps(sample):
        return None
    n = len(sample.outcome)
    part = sample if n <= _MOST_ROWS else of_rows(sample, np.random.default_rng(seed).random(n) < _MOST_ROWS / n)
    found = np.array([_fast(part, matrix, estimand, part.outcome) for matrix in _tables(part, seed)])
    return Spread(
        shift=float(found.mean() - found[0]) if part is sample else 0.0,
        variance=float((1.0 + 1.0 / DRAWS) * found.var(ddof=1)) * len(part.outcome) / n,
        indicator_gap=float(_fast(part, part.covariates.matrix, estimand, part.outcome) - found.mean()),
    )


def _gaps(sample: Sample) -> dict[int, BoolArray]:
    """Column of the matrix -> rows in which it was missing."""
    place = {name: column for column, name in enumerate(sample.covariates.names)}
    return {place[name]: missing for name, missing in sample.covariates.gaps if name in place and missing.any()}


def spread_of_controls(sample: Sample, *, estimand: Target, seed: int) -> dict[str, float]:
    """By how much completed tables differ on what treatment cannot have moved: name -> variance, to be added to that of one table."""
    given = sample.negative_controls | sample.pre_outcomes
    if not _gaps(sample) or not given:
        return {}
    n = len(sample.outcome)
    part = sample if n <= _MOST_ROWS else of_rows(sample, np.random.default_rng(seed).random(n) < _MOST_ROWS / n)
    values = [np.where(np.isnan(each), np.nanmean(each), each) for each in (part.negative_controls | part.pre_outcomes).values()]
    found = np.array([_fast(part, matrix, estimand, np.column_stack(values)) for matrix in _tables(part, seed)])
    variances = (1.0 + 1.0 / DRAWS) * found.var(axis=0, ddof=1) * len(part.outcome) / n
    return dict(zip(given, variances.tolist(), strict=True))


def _tables(sample: Sample, seed: int) -> Iterator[FloatArray]:
    return (_draw(sample, np.random.default_rng((seed, number))) for number in range(DRAWS))


def _fast(sample: Sample, matrix: FloatArray, estimand: Target, outcomes: FloatArray) -> FloatArray:
    basis = bent(matrix)
    chance = quick_propensity(basis, sample.treatment, estimand=estimand)
    return functional(sample.treatment, chance, basis, estimand=estimand, base=sample.weights).estimates(outcomes)


def _draw(sample: Sample, rng: np.random.Generator) -> FloatArray:
    """One completed matrix by chained equations."""
    gaps = _gaps(sample)
    matrix = sample.covariates.matrix.copy()
    for column, missing in gaps.items():
        matrix[missing, column] = rng.choice(matrix[~missing, column], int(missing.sum()))
    sources, others = np.array(sample.covariates.sources), _beside(sample)
    for _ in range(_SWEEPS if len(gaps) > 1 else 1):
        for column, missing in gaps.items():
            kept = sources != sources[column]  # its own indicator says nothing among rows that have the value
            design = np.column_stack([bent(matrix[:, kept]), others])
            matrix[missing, column] = _matched(design, matrix[:, column], missing, rng)
    return matrix


def _beside(sample: Sample) -> FloatArray:
    """Treatment, outcome, what treatment does to its spread, and every further outcome of the row; standardised, gaps at the mean."""
    outcome = sample.outcome - sample.outcome.mean()
    given: Sequence[FloatArray] = (
        sample.treatment,
        outcome,
        np.arcsinh(outcome / max(float(outcome.std()), 1e-300)),
        (sample.treatment - sample.treatment.mean()) * outcome,
        *sample.negative_controls.values(),
        *sample.pre_outcomes.values(),
        *sample.negative_exposures.values(),
    )
    columns = []
    for values in given:
        known = ~np.isnan(values)
        if known.sum() < 2 or np.ptp(values[known]) == 0:
            continue
        mean, deviation = float(values[known].mean()), float(values[known].std())
        columns.append(np.where(known, (values - mean) / deviation, 0.0))
    return np.column_stack(columns)


def _matched(design: FloatArray, values: FloatArray, missing: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Values of donors: for each gap one of the five rows whose prediction is nearest, by a regression on a bootstrap of the rows."""
    known = np.flatnonzero(~missing)
    if len(known) > _MOST_DONORS:
        known = np.sort(rng.choice(known, _MOST_DONORS, replace=False))
    drawn = rng.choice(known, len(known))
    centre = float(values[known].mean())
    gram = design[drawn].T @ design[drawn]
    gram[np.diag_indices_from(gram)] += _PENALTY * np.trace(gram) / len(gram)
    drawn_slopes = np.linalg.solve(gram, design[drawn].T @ (values[drawn] - centre))
    gram = design[known].T @ design[known]
    gram[np.diag_indices_from(gram)] += _PENALTY * np.trace(gram) / len(gram)
    slopes = np.linalg.solve(gram, design[known].T @ (values[known] - centre))
    # Type 1 matching: donors by the point estimate, gaps by the draw, so that the draws differ as much as the parameters are unsure.
    offered, wanted = design[known] @ slopes, design[missing] @ drawn_slopes
    order = np.argsort(offered, kind="stable")
    place = np.searchsorted(offered[order], wanted) - _DONORS // 2 + rng.integers(0, _DONORS, int(missing.sum()))
    near: IntArray = order[np.clip(place, 0, len(known) - 1)]
    out: FloatArray = values[known[near]]
    return out
