"""What the estimators of a cross-section share: requirements on the sample, folds, nuisances fitted once, repetitions joined."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import MINIMUM_PER_ARM, Average, Identification, Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.doubly_robust import Propensity, fit_propensity, outcome_means, repetitions_for
from e2i.causal.estimators.features import Features, make_features
from e2i.causal.hazards import dependent_rows
from e2i.causal.overlap import measure_overlap, require_overlap
from e2i.errors import NotIdentified, NoVariation, TooFewRows

MINIMUM_CLUSTERS = 10


@dataclass(frozen=True, kw_only=True)
class Nuisances:
    """Cross-fitted propensity and conditional means of one sample, for every estimator that needs them."""

    features: Features
    propensity: Propensity
    untreated: FloatArray
    """shape (repetitions, n)"""
    treated: FloatArray
    """shape (repetitions, n); NaN when only the untreated mean was asked for"""
    learners: dict[str, float]
    """weight by learner of the untreated arm's outcome model"""

    def diagnostics(self) -> dict[str, float]:
        """Weights of the learners by name."""
        named = {f"propensity_{name}": weight for name, weight in self.propensity.learners.items()}
        return named | {f"outcome_{name}": weight for name, weight in self.learners.items()}


def cross_fit(sample: Sample, *, estimand: Average = "ATE", repetitions: int | None = None, seed: int) -> Nuisances:
    """Propensity and conditional means by cross-validated stacking; clusters, and copies of a row, stay in one fold.

    Parameters
    ----------
    estimand : "ATT" leaves out the treated arm's mean
    repetitions : partitions into folds; default by the number of rows

    Raises
    ------
    NotIdentified
        Treatment is not 0/1 or nothing is adjusted for.
    NoVariation, TooFewRows
        Fewer than 30 rows in an arm, or fewer than 10 clusters.
    """
    require_binary(sample)
    require_covariates(sample)
    groups = fold_groups(sample)
    features = make_features(sample.covariates.matrix, sample.weights)
    rounds = repetitions_for(len(sample.outcome)) if repetitions is None else repetitions
    propensity = fit_propensity(features, sample.treatment, groups, outcome=sample.outcome, repetitions=rounds, seed=seed)
    arms = (0.0, 1.0) if estimand == "ATE" else (0.0,)
    means, learners = outcome_means(features, sample.outcome, sample.treatment, arms=arms, folds=propensity.folds, seed=seed)
    treated = means[1] if estimand == "ATE" else np.full_like(means[0], np.nan)
    return Nuisances(features=features, propensity=propensity, untreated=means[0], treated=treated, learners=learners)


def require_binary(sample: Sample, *, per_arm: int = MINIMUM_PER_ARM) -> None:
    """Treatment is 0/1 with enough rows in each arm, and everything is finite.

    Raises NotIdentified, NoVariation or TooFewRows.
    """
    require_finite(sample)
    if not np.isin(sample.treatment, (0.0, 1.0)).all():
        raise NotIdentified(
            "this estimator compares treated with untreated rows, and treatment has other values than 0 and 1.",
            where="treatment",
            advice="Use the partially linear model for a dose, or the multi-level estimator for several levels.",
        )
    treated = int(sample.treatment.sum())
    fewest = min(treated, len(sample.treatment) - treated)
    if fewest == 0:
        raise NoVariation(
            f"all rows are {'treated' if treated else 'untreated'}.",
            where="treatment",
            advice="An effect needs treated and untreated rows.",
        )
    if fewest < per_arm:
        raise TooFewRows(
            f"an arm has fewer than {per_arm} rows.", where="treatment", advice="Collect more rows or widen the definition of treatment."
        )


def require_finite(sample: Sample) -> None:
    """Outcome varies; outcome, treatment, covariates are finite; weights are positive. Raises NotIdentified or NoVariation."""
    named = (("outcome", sample.outcome), ("treatment", sample.treatment), ("covariates", sample.covariates.matrix))
    for name, values in named:
        if not np.isfinite(values).all():
            raise NotIdentified(f"the {name} holds missing or infinite values.", where=name, advice="Leave these rows out or correct them.")
    if sample.weights is not None and not (np.isfinite(sample.weights).all() and (sample.weights > 0).all()):
        raise NotIdentified("sampling weights must be positive numbers.", where="effect.weights", advice="Leave rows without weight out.")
    if sample.outcome.min() == sample.outcome.max():
        raise NoVariation(f"the outcome is {sample.outcome[0]:g} in every row.", where="outcome", advice="Check how the outcome was built.")


def require_covariates(sample: Sample) -> None:
    """Raises NotIdentified when nothing is adjusted for."""
    if sample.covariates.matrix.shape[1] == 0:
        raise NotIdentified(
            "no covariate is left to adjust for.",
            where="effect.confounders",
            advice="Name confounders, or say `randomised: true` for the difference in means.",
        )


def fold_groups(sample: Sample) -> IntArray:
    """What must not be split between folds: clusters where there are any, else copies of a row.

    Raises TooFewRows below 10 clusters: neither folds nor an interval can be built from fewer.
    """
    if sample.cluster is None:
        return dependent_rows(sample)
    clusters = len(np.unique(sample.cluster))
    if clusters < MINIMUM_CLUSTERS:
        raise TooFewRows(
            f"{clusters} clusters; cross-fitting with a clustered interval needs {MINIMUM_CLUSTERS}.",
            where="effect.cluster",
            advice="Choose a finer cluster, or leave `cluster` out if rows are independent.",
        )
    return sample.cluster


def refuse_without_overlap(sample: Sample, propensity: Propensity, estimand: Average) -> None:
    """Raises PositivityViolated as `overlap.require_overlap` does."""
    chance = propensity.mean
    require_overlap(measure_overlap(sample.treatment, chance, estimand), propensity=chance, estimand=estimand)


def joined(sample: Sample, estimates: FloatArray, influence: FloatArray, *, estimator: str, estimand: str, **others: object) -> Estimate:
    """Repetitions joined by the median rule (Chernozhukov et al. 2018, section 3.4): median of se² + (estimate - median)².

    Parameters
    ----------
    estimates : shape (repetitions,)
    influence : shape (repetitions, n)
    others : further fields of `Estimate`
    """
    middle = float(np.median(estimates))
    single = [
        from_influence(middle, values, estimator=estimator, estimand=estimand, clusters=sample.cluster, **others) for values in influence
    ]
    variances = np.array([each.standard_error**2 for each in single])
    error = float(np.sqrt(np.median(variances + (estimates - middle) ** 2)))
    return with_error(
        from_influence(middle, influence.mean(axis=0), estimator=estimator, estimand=estimand, clusters=sample.cluster, **others),
        error,
        clusters=sample.cluster,
    )


def with_error(given: Estimate, error: float, *, clusters: IntArray | None = None, degrees: float | None = None) -> Estimate:
    """The estimate with another standard error; interval, p-value and influence values follow it.

    Parameters
    ----------
    degrees : of freedom of Student's t; default: the number of clusters minus 1, or the normal distribution
    """
    from scipy.stats import norm, t

    if degrees is None and clusters is not None:
        degrees = len(np.unique(clusters)) - 1
    law = norm() if degrees is None else t(degrees)
    half = float(law.ppf(0.975)) * error
    assert given.influence is not None
    return replace(
        given,
        standard_error=error,
        interval=(given.estimate - half, given.estimate + half),
        p_value=float(2.0 * law.sf(abs(given.estimate) / error)) if error > 0 else None,
        influence=given.influence * (error / given.standard_error) if given.standard_error > 0 else given.influence,
    )


def arm_counts(sample: Sample) -> dict[str, int]:
    """Fields of `Estimate`: rows by arm."""
    treated = int((sample.treatment != 0).sum())
    return {"n_treated": treated, "n_untreated": len(sample.treatment) - treated}


def average_of(spec: Identification, answered: tuple[Average, ...] = ("ATE", "ATT")) -> Average:
    """The asked average, or a refusal when it is none of `answered`. Raises NotIdentified."""
    if spec.estimand not in answered:
        raise NotIdentified(
            f"estimand {spec.estimand} is not what this estimator answers ({', '.join(answered)}).",
            where="effect.estimand",
            advice=f"Ask for {answered[0]}, or choose another estimator.",
        )
    return spec.average
