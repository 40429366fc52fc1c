"""The estimator on outcomes that treatment cannot move: later ones it does not reach, and earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Sample
from e2i.causal.estimate import Estimate
from e2i.domain.evidence import Refutation
from e2i.errors import CausalError, DataError

LEVEL = 0.05
_FEWEST_ROWS = 60


def placebo_outcomes(sample: Sample, fit: Callable[[Sample], Estimate]) -> tuple[Refutation, ...]:
    """Negative controls and outcomes before treatment; together they raise a false alarm in 5 % of sound studies at most."""
    controls = {f"negative_control:{name}": values for name, values in sample.negative_controls.items()}
    controls |= {f"pre_period_placebo:{name}": values for name, values in sample.pre_outcomes.items()}
    return tuple(_placebo(test, values, sample, fit, level=LEVEL / len(controls)) for test, values in controls.items())


def told_placebo(test: str, found: Estimate, *, level: float) -> Refutation:
    """One such effect in words."""
    name = test.rsplit(":", maxsplit=1)[-1]
    low, high = found.interval
    p_value = 1.0 if found.p_value is None else found.p_value
    passed = p_value >= level
    ending = "zero is allowed, as it must be." if passed else "it should be zero: something else moves it together with treatment."
    return Refutation(
        test=test,
        passed=passed,
        detail=f"The effect on `{name}` is {found.estimate:.3g} (95 % {low:.3g} to {high:.3g}, p = {p_value:.3f}); {ending}",
        statistic=found.estimate / found.standard_error if found.standard_error > 0 else None,
        p_value=p_value,
        estimate=found.estimate,
    )


def untested(test: str, why: str) -> Refutation:
    """A control that could not be used: told, and it proves nothing."""
    kind, _, name = test.partition(":")
    return Refutation(test=f"untested_{kind}:{name}", passed=True, detail=f"`{name}` could not be tested: {why}", is_reported_only=True)


def _placebo(test: str, values: FloatArray, sample: Sample, fit: Callable[[Sample], Estimate], *, level: float) -> Refutation:
    known = ~np.isnan(values)
    if known.sum() < _FEWEST_ROWS or len(np.unique(values[known])) < 2:
        return untested(test, "it hardly varies or has hardly any values.")
    try:
        return told_placebo(test, fit(replace(of_rows(sample, known), outcome=values[known])), level=level)
    except (CausalError, DataError) as error:
        return untested(test, str(error))


def of_rows(sample: Sample, rows: BoolArray) -> Sample:
    """Some of the rows; columns that no longer vary are left out."""
    matrix = sample.covariates.matrix[rows]
    varies = np.ptp(matrix, axis=0) > 0 if len(matrix) else np.zeros(matrix.shape[1], dtype=np.bool_)
    kept = np.flatnonzero(varies)
    covariates = replace(
        sample.covariates,
        matrix=matrix[:, kept],
        names=tuple(sample.covariates.names[place] for place in kept),
        sources=tuple(sample.covariates.sources[place] for place in kept),
        is_level=tuple(sample.covariates.is_level[place] for place in kept),
    )
    return replace(
        sample,
        outcome=sample.outcome[rows],
        treatment=sample.treatment[rows],
        covariates=covariates,
        groups=sample.groups[rows],
        cluster=None if sample.cluster is None else sample.cluster[rows],
        weights=None if sample.weights is None else sample.weights[rows],
        instruments=None if sample.instruments is None else sample.instruments[rows],
        negative_controls={name: values[rows] for name, values in sample.negative_controls.items()},
        pre_outcomes={name: values[rows] for name, values in sample.pre_outcomes.items()},
        negative_exposures={name: values[rows] for name, values in sample.negative_exposures.items()},
    )
