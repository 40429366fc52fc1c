"""A dose, or one of several levels, that chance assigned: nothing needs adjustment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.design import Identification, Sample
from e2i.causal.estimate import LEVEL, Estimate, from_influence
from e2i.causal.estimators.cross_fit import arm_counts, average_of, require_finite
from e2i.causal.estimators.dose_bend import bend
from e2i.causal.estimators.least_squares import independent_columns, least_squares
from e2i.causal.estimators.multi_level import simultaneous
from e2i.causal.estimators.unadjusted import DifferenceInMeans
from e2i.causal.estimators.within_strata import centred_within
from e2i.errors import NoVariation

_FLAT = 1e-9


def slope(data: Sample) -> Estimate:
    """Least squares of the outcome on a randomised dose: the average slope.

    Doses are skewed, and few rows or clusters with high ones decide the slope. So the variance is the jackknife's over rows or clusters
    (HC3, CV3; MacKinnon, Nielsen and Webb 2023), and t has as many degrees of freedom as there are effective ones: (Σ λ)² / Σ λ² with
    λ the squared sum of centred doses in each (Carter, Schnepel and Steigerwald 2017).
    """
    require_finite(data)
    found = least_squares(np.column_stack([np.ones(len(data.outcome)), data.treatment]), data.outcome, weights=data.weights)
    plain = from_influence(
        float(found.coefficients[1]),
        found.influence[:, 1],
        estimator="least squares on a randomised dose",
        estimand="APE",
        clusters=data.cluster,
        diagnostics=bend(data.treatment - np.average(data.treatment, weights=data.weights), data.outcome, data),
        **arm_counts(data),
    )
    return _with_effective_degrees(plain, data)


def slope_within(data: Sample) -> Estimate:
    """The average slope of a dose that chance drew within strata, covariates adjusted for: each stratum has a level of its own.

    Dose, outcome and covariates are taken as departures from their stratum's means, and the covariates are regressed out of both
    (Frisch and Waugh 1933); strata count by the spread of the dose within them. Then as `slope`.

    Raises
    ------
    NoVariation
        The dose is the same throughout each stratum.
    """
    assert data.strata is not None
    require_finite(data)
    dose, outcome = (centred_within(data.strata, values, data.weights) for values in (data.treatment, data.outcome))
    matrix = centred_within(data.strata, data.covariates.matrix, data.weights)
    kept = independent_columns(matrix) if matrix.shape[1] else np.empty(0, dtype=np.int64)
    if len(kept):
        dose, outcome = (
            values - matrix[:, kept] @ least_squares(matrix[:, kept], values, weights=data.weights).coefficients
            for values in (dose, outcome)
        )
    if float(np.ptp(dose)) <= _FLAT * max(float(np.ptp(data.treatment)), 1e-300):
        what = "the dose is the same throughout each stratum, so nothing can be compared within strata."
        raise NoVariation(what, where="effect.randomised_within", advice="Name coarser strata, or leave `randomised_within` out.")
    spent = int(data.strata.max()) + 1 + len(kept)
    found = slope(replace(data, treatment=dose, outcome=outcome, strata=None))
    wider = 1.0 if data.cluster is not None else float(np.sqrt(len(dose) / max(len(dose) - spent, 1)))
    low, high = (found.estimate + (end - found.estimate) * wider for end in found.interval)
    return replace(
        found,
        estimator="least squares on a dose randomised within strata",
        standard_error=found.standard_error * wider,
        interval=(low, high),
        diagnostics=found.diagnostics | {"strata": float(data.strata.max()) + 1.0, "adjusted_columns": float(len(kept))},
        n_treated=int((data.treatment != 0).sum()),
        n_untreated=int((data.treatment == 0).sum()),
    )


def _with_effective_degrees(plain: Estimate, data: Sample) -> Estimate:
    from scipy.stats import t

    given = np.ones(len(data.outcome)) if data.weights is None else data.weights
    dose, outcome = (values - np.average(values, weights=given) for values in (data.treatment, data.outcome))
    group = np.arange(len(given)) if data.cluster is None else np.unique(data.cluster, return_inverse=True)[1]
    sums = [np.bincount(group, weights=given * part) for part in (np.ones(len(given)), dose, outcome, dose**2, dose * outcome)]
    mass, first, second, square, product = (part.sum() - part for part in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (product - first * second / mass) / (square - first**2 / mass)
    if not np.isfinite(without).all():
        return replace(plain, notes=(*plain.notes, "one cluster carries all doses: the interval may be too narrow"))
    error = float(np.sqrt((len(without) - 1) / len(without) * np.sum((without - plain.estimate) ** 2)))
    degrees = float(np.sum(sums[1] ** 2) ** 2 / np.sum(sums[1] ** 4))
    half = float(t.ppf(0.5 + LEVEL / 2, degrees)) * error
    return replace(
        plain,
        standard_error=error,
        interval=(plain.estimate - half, plain.estimate + half),
        interval_method=f"t with {degrees:.1f} effective degrees of freedom, jackknife{'' if data.cluster is None else ' over clusters'}",
        p_value=float(2.0 * t.sf(abs(plain.estimate) / error, degrees)) if error > 0 else None,
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
