"""Doubly robust scores of every row's effect, and their best linear projection on modifiers.

Kennedy (2023), "Towards optimal doubly robust estimation of heterogeneous causal effects"; Semenova and Chernozhukov (2021),
"Debiased machine learning of conditional average treatment effects and other causal functions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.cate.sums import cluster_sums, critical_value, numbered
from e2i.causal.design import Average, Sample
from e2i.causal.estimators.doubly_robust import Fit, Propensity, outcome_means
from e2i.causal.estimators.features import make_features
from e2i.errors import SchemaMismatch

_RIDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Doubly robust scores of n rows, averaged over partitions.

    Over any set of rows chosen by covariates, `effect` averages to the mean effect there, and `asked.sum() / mass.sum()` to the
    mean effect of the estimand there (ATT: among the set's treated).
    """

    estimand: Average
    effect: FloatArray
    """shape (n,), on the outcome's scale"""
    treated_effect: FloatArray
    """shape (n,), averages to E[T (Y1 - Y0)]: what the present assignment of treatment brings"""
    treatment: FloatArray
    """shape (n,), 0 or 1"""
    weights: FloatArray
    """shape (n,), sampling weights with mean 1"""
    cluster: IntArray | None = None
    """shape (n,), equal for rows that are not independent"""

    @property
    def asked(self) -> FloatArray:
        """Numerator of the estimand, shape (n,)."""
        out: FloatArray = self.weights * (self.effect if self.estimand == "ATE" else self.treated_effect)
        return out

    @property
    def mass(self) -> FloatArray:
        """Denominator of the estimand, shape (n,)."""
        out: FloatArray = self.weights * (1.0 if self.estimand == "ATE" else self.treatment)
        return out

    def part(self, rows: IntArray) -> Scores:
        """The scores of some rows."""
        return Scores(
            estimand=self.estimand,
            effect=self.effect[rows],
            treated_effect=self.treated_effect[rows],
            treatment=self.treatment[rows],
            weights=self.weights[rows],
            cluster=None if self.cluster is None else self.cluster[rows],
        )


def make_scores(sample: Sample, fit: Fit, propensity: Propensity, *, seed: int) -> Scores:
    """Scores from nuisances that are fitted already; for the ATT, whose fit knows no treated mean, that one is added.

    Parameters
    ----------
    sample : the rows on which `fit` and `propensity` were fitted, in their order
    seed : as given to the fit

    Raises
    ------
    SchemaMismatch
        The nuisances belong to another number of rows.
    """
    outcome, treatment = sample.outcome, sample.treatment
    if fit.influence.shape[1] != len(outcome):
        raise SchemaMismatch(
            f"the fitted nuisances have {fit.influence.shape[1]} rows, the sample has {len(outcome)}.",
            where="heterogeneous effects",
            advice="Estimate the average effect on the same rows first.",
        )
    treated_mean = fit.treated_mean
    if fit.estimand == "ATT":
        features = make_features(sample.covariates.matrix, sample.weights)
        treated_mean = outcome_means(features, outcome, treatment, arms=(1.0,), folds=propensity.folds, seed=seed)[0][0]
    weights = np.ones(len(outcome)) if sample.weights is None else sample.weights / sample.weights.mean()
    chance = propensity.clipped
    up, down = weights * treatment / chance, weights * (1.0 - treatment) / (1.0 - chance)
    # Normalised weights, as in the average effect: the scores then average to it.
    up, down = up / up.mean(axis=1, keepdims=True) / weights, down / down.mean(axis=1, keepdims=True) / weights
    effect = treated_mean - fit.untreated_mean + up * (outcome - treated_mean) - down * (outcome - fit.untreated_mean)
    odds = weights * (1.0 - treatment) * chance / (1.0 - chance)
    share = float((weights * treatment).mean())
    balance = treatment - odds / odds.mean(axis=1, keepdims=True) * share / weights
    return Scores(
        estimand="ATT" if fit.estimand == "ATT" else "ATE",  # units by overlap (ATO): the effect of each unit is that of everybody
        effect=effect.mean(axis=0),
        treated_effect=(balance * (outcome - fit.untreated_mean)).mean(axis=0),
        treatment=treatment,
        weights=weights,
        cluster=sample.cluster,
    )


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The best linear predictor of the effect, in modifiers centred at their means: the intercept is the average effect."""

    names: tuple[str, ...]
    centre: FloatArray
    coefficients: FloatArray
    """shape (k + 1,), intercept first"""
    covariance: FloatArray
    """shape (k + 1, k + 1), robust to unequal variance (HC3) or clustered"""
    critical: float
    interval_method: str

    def predict(self, modifiers: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Projected effect and its standard error, shape (m,) each, for modifiers of shape (m, k)."""
        design = np.column_stack([np.ones(len(modifiers)), modifiers - self.centre])
        error = np.sqrt(np.einsum("ij,jk,ik->i", design, self.covariance, design))
        return design @ self.coefficients, error

    def interval(self, place: int) -> tuple[float, float]:
        """95 % interval of one coefficient; 0 is the average effect."""
        half = self.critical * float(np.sqrt(self.covariance[place, place]))
        return float(self.coefficients[place]) - half, float(self.coefficients[place]) + half


def project(scores: Scores, modifiers: FloatArray, *, names: tuple[str, ...] = ()) -> Projection:
    """Regress the scores on modifiers.

    Parameters
    ----------
    modifiers : shape (n, k), finite, no constant column; k may be 0
    """
    centre = np.average(modifiers, axis=0, weights=scores.weights) if modifiers.shape[1] else np.empty(0)
    design = np.column_stack([np.ones(len(modifiers)), modifiers - centre])
    coefficients, covariance = least_squares(scores.effect, design, weights=scores.weights, cluster=scores.cluster)
    critical, method = critical_value(scores.cluster)
    return Projection(
        names=names,
        centre=centre,
        coefficients=coefficients,
        covariance=covariance,
        critical=critical,
        interval_method=f"best linear projection, {'HC3, ' if scores.cluster is None else ''}{method}",
    )


def least_squares(
    target: FloatArray, design: FloatArray, *, weights: FloatArray, cluster: IntArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Weighted coefficients and their covariance: HC3 (MacKinnon and White 1985) over rows, CR1 over clusters.

    A ridge of 1e-6 of each column's own sum of squares keeps near-collinear columns apart.
    """
    gram = (design * weights[:, None]).T @ design
    gram[np.diag_indices_from(gram)] *= 1.0 + _RIDGE
    bread = np.linalg.pinv(gram, hermitian=True)
    coefficients = bread @ (design.T @ (weights * target))
    residual = weights * (target - design @ coefficients)
    if cluster is None:
        leverage = weights * np.einsum("ij,jk,ik->i", design, bread, design)
        pieces = design * (residual / np.clip(1.0 - leverage, 0.05, 1.0))[:, None]
        return coefficients, bread @ (pieces.T @ pieces) @ bread
    sums = cluster_sums(design * residual[:, None], cluster)
    groups = numbered(cluster)[1]
    return coefficients, bread @ (sums.T @ sums) @ bread * groups / max(groups - 1, 1)
