"""A dose, or one of several levels, that chance assigned: nothing needs adjustment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.cross_fit import arm_counts, average_of, require_finite
from e2i.causal.estimators.least_squares import least_squares
from e2i.causal.estimators.multi_level import simultaneous
from e2i.causal.estimators.unadjusted import DifferenceInMeans


def slope(data: Sample) -> Estimate:
    """Least squares of the outcome on a randomised dose: the average slope, with a robust (clustered) variance (White 1980)."""
    require_finite(data)
    found = least_squares(np.column_stack([np.ones(len(data.outcome)), data.treatment]), data.outcome, weights=data.weights)
    return from_influence(
        float(found.coefficients[1]),
        found.influence[:, 1],
        estimator="least squares on a randomised dose",
        estimand="APE",
        clusters=data.cluster,
        **arm_counts(data),
    )


def plain_contrasts(data: Sample, spec: Identification, *, seed: int) -> tuple[Estimate, ...]:
    """Mean of each level minus the mean of level 0; 95 % intervals hold for all at once.

    Raises
    ------
    NotIdentified, NoVariation, TooFewRows
        As `DifferenceInMeans`, for each level with the reference.
    """
    average_of(spec, ("ATE",))
    return simultaneous(
        tuple(_contrast(data, spec, place, seed=seed) for place in range(1, len(data.levels))), clusters=data.cluster, seed=seed
    )


def _contrast(data: Sample, spec: Identification, place: int, *, seed: int) -> Estimate:
    rows = np.isin(data.treatment, (0.0, float(place)))
    part = replace(
        data,
        outcome=data.outcome[rows],
        treatment=(data.treatment[rows] == place) * 1.0,
        groups=data.groups[rows],
        cluster=None if data.cluster is None else data.cluster[rows],
        weights=None if data.weights is None else data.weights[rows],
    )
    found = DifferenceInMeans().fit(part, spec, seed=seed)
    assert found.influence is not None
    influence = np.zeros(len(rows))
    influence[rows] = found.influence * len(rows) / rows.sum()
    return replace(found, influence=influence, estimator=f"difference in means, level {data.levels[place]} against {data.levels[0]}")
