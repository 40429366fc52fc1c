"""The estimator on outcomes that treatment cannot move: later ones it does not reach, and earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.encoding import Covariates
from e2i.causal.estimate import Estimate
from e2i.causal.refute.normal import two_sided
from e2i.causal.refute.witness import (
    FOLLOWS,
    NO_WITNESS,
    TOO_FEW,
    copies_of,
    decided_by_treatment,
    follows,
    goes_with,
    is_treatment,
    untested,
)
from e2i.domain.evidence import Refutation
from e2i.errors import CausalError, DataError

__all__ = ["LEVEL", "of_rows", "placebo_outcomes", "told_placebo", "untested", "without_copies"]

LEVEL = 0.05
_FEWEST_ROWS = 60


def placebo_outcomes(sample: Sample, fit: Callable[[Sample], Estimate]) -> tuple[Refutation, ...]:
    """Negative controls and outcomes before treatment; together they raise a false alarm in 5 % of sound studies at most."""
    controls = {f"negative_control:{name}": values for name, values in sample.negative_controls.items()}
    controls |= {f"pre_period_placebo:{name}": values for name, values in sample.pre_outcomes.items()}
    return tuple(_placebo(test, values, sample, fit, level=LEVEL / len(controls)) for test, values in controls.items())


def told_placebo(test: str, found: Estimate, *, level: float) -> Refutation:
    """One such effect in words.

    Parameters
    ----------
    level : 0.05 over the number of tests; the p-value told is that number times its own (Bonferroni), to be held against 0.05
    """
    name = test.rsplit(":", maxsplit=1)[-1]
    low, high = found.interval
    p_value = min(1.0, _p_value(found) * LEVEL / level)
    passed = p_value >= LEVEL
    ending = "zero is allowed, as it must be." if passed else "it should be zero: something else moves it together with treatment."
    return Refutation(
        test=test,
        passed=passed,
        detail=f"The effect on `{name}` is {found.estimate:.3g} (95 % {low:.3g} to {high:.3g}, p = {p_value:.3f}); {ending}",
        statistic=found.estimate / found.standard_error if found.standard_error > 0 else None,
        p_value=p_value,
        estimate=found.estimate,
    )


def _p_value(found: Estimate) -> float:
    """Its own; where it has none the normal one, and 0 for an effect without any spread."""
    if found.p_value is not None:
        return found.p_value
    if found.standard_error > 0:
        return two_sided(found.estimate / found.standard_error)
    return 0.0 if found.standard_error == 0 and found.estimate != 0 else 1.0


def _placebo(test: str, values: FloatArray, sample: Sample, fit: Callable[[Sample], Estimate], *, level: float) -> Refutation:
    known = ~np.isnan(values)
    if known.sum() < _FEWEST_ROWS or len(np.unique(values[known])) < 2:
        return untested(test, TOO_FEW)
    if is_treatment(values, sample.treatment):
        return decided_by_treatment(test)
    if not goes_with(values, _outcome_and_prediction(sample), sample.treatment):
        return untested(test, NO_WITNESS)
    kind, _, name = test.partition(":")
    part = of_rows(sample, known)
    part = part if kind == "negative_control" else without_copies(part, values[known], name)
    if follows(values[known], part.covariates.matrix):
        return untested(test, FOLLOWS)
    try:
        return told_placebo(test, fit(replace(part, outcome=values[known])), level=level)
    except (CausalError, DataError) as error:
        return untested(test, str(error))


def _outcome_and_prediction(sample: Sample) -> FloatArray:
    """The outcome and, where there are covariates, what least squares on them predicts and leaves; shape (n, 1) or (n, 3)."""
    outcome: FloatArray = sample.outcome - sample.outcome.mean()
    matrix = sample.covariates.matrix
    if matrix.shape[1] == 0:
        return outcome.reshape(-1, 1)
    design = np.column_stack([np.ones(len(outcome)), sample.treatment, (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)])
    slopes = np.linalg.lstsq(design, outcome, rcond=None)[0]
    predicted = design[:, 2:] @ slopes[2:]
    out: FloatArray = np.column_stack([outcome, predicted, outcome - design @ slopes])
    return out


def without_copies(sample: Sample, values: FloatArray, name: str) -> Sample:
    """Without the covariates that are the outcome under trial; see `witness.copies_of`."""
    own = copies_of(sample.covariates, values, (name,))
    kept = np.array([source not in own for source in sample.covariates.sources], dtype=np.bool_)
    return sample if kept.all() else replace(sample, covariates=_of_columns(sample.covariates, np.flatnonzero(kept)))


def of_rows(sample: Sample, rows: BoolArray) -> Sample:
    """Some of the rows; columns that no longer vary are left out."""
    matrix = sample.covariates.matrix[rows]
    varies = np.ptp(matrix, axis=0) > 0 if len(matrix) else np.zeros(matrix.shape[1], dtype=np.bool_)
    gaps = tuple((name, missing[rows]) for name, missing in sample.covariates.gaps)
    return replace(
        sample,
        outcome=sample.outcome[rows],
        treatment=sample.treatment[rows],
        covariates=_of_columns(replace(sample.covariates, matrix=matrix, gaps=gaps), np.flatnonzero(varies)),
        groups=sample.groups[rows],
        cluster=None if sample.cluster is None else sample.cluster[rows],
        strata=None if sample.strata is None else np.unique(sample.strata[rows], return_inverse=True)[1].astype(np.int64),
        weights=None if sample.weights is None else sample.weights[rows],
        instruments=None if sample.instruments is None else sample.instruments[rows],
        negative_controls={name: values[rows] for name, values in sample.negative_controls.items()},
        pre_outcomes={name: values[rows] for name, values in sample.pre_outcomes.items()},
        negative_exposures={name: values[rows] for name, values in sample.negative_exposures.items()},
    )


def _of_columns(covariates: Covariates, kept: IntArray) -> Covariates:
    return replace(
        covariates,
        matrix=covariates.matrix[:, kept],
        names=tuple(covariates.names[place] for place in kept),
        sources=tuple(covariates.sources[place] for place in kept),
        is_level=tuple(covariates.is_level[place] for place in kept),
    )
