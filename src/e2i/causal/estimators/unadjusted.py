"""Randomised assignment: difference in means, and regression adjustment that can only help."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Average, Identification, Sample
from e2i.causal.estimate import Estimate, from_influence
from e2i.causal.estimators.cross_fit import arm_counts, average_of, require_binary, with_error
from e2i.causal.estimators.least_squares import independent_columns, least_squares
from e2i.causal.estimators.whole_clusters import with_jackknife
from e2i.errors import NoVariation, TooFewRows

_MINIMUM_PER_ARM = 5
_ROWS_PER_COLUMN = 3


@dataclass(frozen=True, kw_only=True)
class DifferenceInMeans:
    """Treated minus untreated mean under randomised assignment (Neyman 1923).

    Variance HC2, which is s₁²/n₁ + s₀²/n₀, with Welch's degrees of freedom; with clusters the jackknife's.
    """

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG002 - nothing is drawn
        """Estimate with its interval. Raises NotIdentified, NoVariation, TooFewRows (fewer than 5 rows or 2 clusters in an arm)."""
        estimand = average_of(spec)
        require_binary(data, per_arm=_MINIMUM_PER_ARM)
        _require_clusters(data)
        given = np.ones(len(data.outcome)) if data.weights is None else data.weights
        treated = data.treatment == 1
        up, down = (float(np.average(data.outcome[arm], weights=given[arm])) for arm in (treated, ~treated))
        residual = data.outcome - np.where(treated, up, down)
        share = float(np.average(data.treatment, weights=given))
        signed = np.where(treated, 1.0 / share, -1.0 / (1.0 - share)) * given / given.mean()
        estimate = from_influence(
            up - down, signed * residual, estimator="difference in means", estimand=estimand, clusters=data.cluster, **arm_counts(data)
        )
        if data.cluster is not None:
            _require_spread(estimate.standard_error)
            return with_jackknife(estimate, data, np.empty((len(residual), 0)), estimand)
        per_arm = [given[arm] / given[arm].sum() for arm in (treated, ~treated)]
        parts = [
            float(np.sum(weight**2 * residual[arm] ** 2 / (1.0 - weight))) for weight, arm in zip(per_arm, (treated, ~treated), strict=True)
        ]
        degrees = sum(parts) ** 2 / max(
            sum(part**2 / (arm.sum() - 1) for part, arm in zip(parts, (treated, ~treated), strict=True)), 1e-300
        )
        _require_spread(sum(parts))
        found = with_error(estimate, float(np.sqrt(sum(parts))), degrees=float(degrees))
        return replace(found, interval_method=f"t with {degrees:.1f} degrees of freedom, HC2 (Welch)")


@dataclass(frozen=True, kw_only=True)
class RegressionAdjusted:
    """Lin (2013): least squares on treatment, centred covariates and their products; HC2, with clusters the jackknife.

    The variance also counts that the covariates' means are those of a sample (Negi and Wooldridge 2021).
    """

    def fit(self, data: Sample, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG002 - nothing is drawn
        """Estimate with its interval.

        Raises
        ------
        NotIdentified, NoVariation
            As `require_binary`.
        TooFewRows
            Fewer than 5 rows in an arm, 2 clusters in an arm, 3 rows in an arm per covariate, or 3 clusters in an arm per covariate
            that is the same throughout each cluster.
        """
        estimand = average_of(spec)
        require_binary(data, per_arm=_MINIMUM_PER_ARM)
        _require_clusters(data)
        matrix = data.covariates.matrix
        arms = [data.treatment == arm for arm in (0.0, 1.0)]
        fewest = int(min(arm.sum() for arm in arms))
        kept = independent_columns(matrix - matrix.mean(axis=0)) if matrix.shape[1] else np.empty(0, dtype=np.int64)
        if fewest < _ROWS_PER_COLUMN * (len(kept) + 1):
            raise TooFewRows(
                f"{len(kept)} covariates for the smaller arm: each needs {_ROWS_PER_COLUMN} rows of it.",
                where="effect.confounders",
                advice="Name fewer covariates, or use the difference in means.",
            )
        _require_clusters_for(data, matrix[:, kept])
        coefficient, influence, columns = _adjusted(data, matrix[:, kept], estimand)
        estimate = from_influence(
            coefficient,
            influence,
            estimator="regression adjustment, treatment by covariates (Lin)",
            estimand=estimand,
            clusters=data.cluster,
            diagnostics={"adjusted_columns": float(len(kept))},
            **arm_counts(data),
        )
        _require_spread(estimate.standard_error)
        if data.cluster is not None:
            return with_jackknife(estimate, data, matrix[:, kept], estimand)
        n = len(data.outcome)
        found = with_error(estimate, float(np.sqrt(np.sum(influence**2)) / n), degrees=float(n - columns))
        return replace(found, interval_method=f"t with {n - columns} degrees of freedom, HC2")


def _adjusted(data: Sample, matrix: FloatArray, estimand: Average) -> tuple[float, FloatArray, int]:
    """Coefficient, influence values scaled for HC2, and the number of regression columns."""
    given = np.ones(len(data.outcome)) if data.weights is None else data.weights
    target = given if estimand == "ATE" else given * data.treatment
    scale = np.maximum(matrix.std(axis=0), 1e-300)
    centred = (matrix - np.average(matrix, axis=0, weights=target)) / scale
    means: list[float] = []
    influence = np.zeros(len(data.outcome))
    slopes = []
    for arm, sign in ((0.0, -1.0), (1.0, 1.0)):
        inside = np.flatnonzero(data.treatment == arm)
        design = np.column_stack([np.ones(len(inside)), centred[inside]])
        used = independent_columns(design)
        fit = least_squares(design[:, used], data.outcome[inside], weights=given[inside] / given[inside].mean())
        means.append(float(fit.coefficients[0]))
        slope = np.zeros(design.shape[1])
        slope[used] = fit.coefficients
        slopes.append(slope[1:])
        correction = 1.0 if data.cluster is not None else 1.0 / np.sqrt(np.maximum(1.0 - fit.leverage, 1e-6))
        influence[inside] += sign * len(data.outcome) / len(inside) * fit.influence[:, 0] * correction
    gain = centred @ (slopes[1] - slopes[0])
    return means[1] - means[0], influence + target / target.mean() * gain, 2 * (matrix.shape[1] + 1)


def _require_clusters(data: Sample) -> None:
    if data.cluster is None:
        return
    for arm in (0.0, 1.0):
        if len(np.unique(data.cluster[data.treatment == arm])) < 2:
            raise TooFewRows(
                "an arm lies within one cluster, so its chance variation cannot be told from the effect.",
                where="effect.cluster",
                advice="Assign at least two clusters to each arm, or leave `cluster` out if rows are independent.",
            )


def _require_clusters_for(data: Sample, matrix: FloatArray) -> None:
    """A covariate of clusters has as many values as there are clusters: rows do not make it better known."""
    if data.cluster is None or matrix.shape[1] == 0:
        return
    order = np.argsort(data.cluster, kind="stable")
    same = np.diff(data.cluster[order]) == 0
    constant = int((np.diff(matrix[order], axis=0)[same] == 0).all(axis=0).sum())
    fewest = min(len(np.unique(data.cluster[data.treatment == arm])) for arm in (0.0, 1.0))
    if constant and fewest < _ROWS_PER_COLUMN * (constant + 1):
        raise TooFewRows(
            f"{constant} covariates of whole clusters for the {fewest} clusters of the smaller arm: each needs {_ROWS_PER_COLUMN} of them.",
            where="effect.confounders",
            advice="Name fewer covariates, or use the difference in means.",
        )


def _require_spread(variance: float) -> None:
    if not variance > 0:
        raise NoVariation("the outcome does not vary within the arms.", where="outcome", advice="Check how the outcome was built.")
