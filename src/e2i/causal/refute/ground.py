"""The fast estimator that refuters fit many times over: least squares by arm, weighted by the fitted propensity.

Weighted by the inverse propensity, least squares with an intercept is doubly robust (Kang and Schafer 2007, section 3.3; Robins,
Sued, Lei-Gomez and Rotnitzky 2007), and for given treatment and covariates it is linear in the outcome: an estimate is one
inner product, so hundreds of outcomes cost one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Sample
from e2i.causal.estimators.doubly_robust import Fit, Propensity, Target, support
from e2i.causal.estimators.linear_models import logistic
from e2i.causal.hazards import dependent_rows

_JITTER = 1e-9
_CERTAIN = 1e-6
_BENDS = 40
"""numeric columns that also enter as squares; more cost time and hardly move a refuter"""


@dataclass(frozen=True, kw_only=True)
class Functional:
    """A doubly robust estimate as a linear function of the outcome, for one treatment, one propensity and one design."""

    estimand: Target
    treatment: FloatArray
    """shape (n,), 0 or 1"""
    design: FloatArray
    """shape (n, p), first column 1"""
    weights: FloatArray
    """shape (n,): inverse or overlap weights within the own arm, times sampling weights"""
    base: FloatArray
    """shape (n,): sampling weights, mean 1"""
    mass: FloatArray
    """shape (n,): how much each row counts in the population asked about"""

    @cached_property
    def target(self) -> FloatArray:
        """Mean design row of the population asked about, shape (p,)."""
        out: FloatArray = self.mass @ self.design / self.mass.sum()
        return out

    @cached_property
    def inverses(self) -> tuple[FloatArray, FloatArray]:
        """Inverse weighted Gram matrices of the untreated and the treated, shape (p, p) each."""
        untreated, treated = (_inverse(self.design[rows], self.weights[rows]) for rows in self.arms)
        return untreated, treated

    @cached_property
    def arms(self) -> tuple[IntArray, IntArray]:
        """Row numbers of the untreated and of the treated."""
        return np.flatnonzero(self.treatment == 0), np.flatnonzero(self.treatment == 1)

    @cached_property
    def coefficients(self) -> FloatArray:
        """Shape (n,): the estimate of an outcome y is `coefficients @ y`."""
        out = np.empty(len(self.treatment))
        for arm, (rows, inverse) in enumerate(zip(self.arms, self.inverses, strict=True)):
            sign = 1.0 if arm else -1.0
            out[rows] = sign * self.weights[rows] * (self.design[rows] @ (inverse @ self.target))
        if self.estimand == "ATT":
            treated = self.arms[1]
            out[treated] = self.base[treated] / self.base[treated].sum()
        return out

    def estimates(self, outcomes: FloatArray) -> FloatArray:
        """Effects on outcomes of shape (n,) or (n, m)."""
        out: FloatArray = self.coefficients @ _centred(outcomes)
        return out

    def slopes(self, outcomes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Regression coefficients of outcomes (n, m), less their means, among the untreated and the treated, shape (p, m) each."""
        outcomes = _centred(outcomes)
        untreated, treated = (
            inverse @ (self.design[rows].T @ (self.weights[rows, None] * outcomes[rows]))
            for rows, inverse in zip(self.arms, self.inverses, strict=True)
        )
        return untreated, treated

    def influence(self, outcomes: FloatArray) -> FloatArray:
        """Influence values of the effects on outcomes (n, m), same shape; se² = sum(influence²) / n²."""
        n = len(outcomes)
        outcomes = _centred(outcomes)
        untreated, treated = self.slopes(outcomes)
        low = self.design @ untreated
        effect = self.estimates(outcomes)
        scaled = n * self.coefficients[:, None]
        if self.estimand != "ATT":
            high = self.design @ treated
            fitted = np.where(self.treatment[:, None] == 1, high, low)
            both: FloatArray = (self.mass / self.mass.mean())[:, None] * (high - low - effect) + scaled * (outcomes - fitted)
            return both
        values: FloatArray = scaled * (outcomes - low) - self.treatment[:, None] * scaled * effect
        return values


def functional(
    treatment: FloatArray, chance: FloatArray, design: FloatArray, *, estimand: Target, base: FloatArray | None = None
) -> Functional:
    """The fast estimator for one treatment.

    Parameters
    ----------
    treatment : shape (n,), 0 or 1
    chance : shape (n,), probability of treatment within (0, 1)
    design : shape (n, p), first column 1
    base : shape (n,), sampling weights with mean 1
    """
    given = np.ones(len(treatment)) if base is None else base
    is_treated = treatment == 1
    if estimand == "ATE":
        odds, mass = np.where(is_treated, 1.0 / chance, 1.0 / (1.0 - chance)), given
    elif estimand == "ATO":
        odds, mass = np.where(is_treated, 1.0 - chance, chance), given * chance * (1.0 - chance)
    else:
        odds, mass = np.where(is_treated, 1.0, chance / (1.0 - chance)), given * treatment
    return Functional(estimand=estimand, treatment=treatment, design=design, weights=given * odds, base=given, mass=mass)


def kept_within(estimand: Target, share: float) -> tuple[float, float]:
    """Bounds of a propensity that is used in weights: the support; overlap weights need none but the logit's."""
    return (_CERTAIN, 1.0 - _CERTAIN) if estimand == "ATO" else support(share)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One estimation, laid out for refuters: n rows."""

    sample: Sample
    fit: Fit
    propensity: Propensity
    between: Mapping[str, float] = field(default_factory=dict)
    """name of a control -> variance that missing confounders add to its effect; see `imputation.spread_of_controls`"""

    @cached_property
    def chance(self) -> FloatArray:
        """Fitted propensity within its bounds, shape (n,)."""
        out: FloatArray = np.clip(self.propensity.mean, *kept_within(self.fit.estimand, float(self.sample.treatment.mean())))
        return out

    @cached_property
    def basis(self) -> FloatArray:
        """Intercept, standardised covariates and bends of numeric ones, shape (n, p)."""
        return bent(self.sample.covariates.matrix)

    @cached_property
    def untreated(self) -> FloatArray:
        """Predicted outcome without treatment, shape (n,)."""
        out: FloatArray = self.fit.untreated_mean.mean(axis=0)
        return out

    @cached_property
    def treated(self) -> FloatArray:
        """Predicted outcome with treatment; for the ATT, which has no such model, the other one plus the effect."""
        out: FloatArray = self.fit.treated_mean.mean(axis=0) if self.fit.estimand != "ATT" else self.untreated + self.fit.estimate
        return out

    @cached_property
    def blended(self) -> FloatArray:
        """Predicted outcome whatever the treatment, shape (n,)."""
        return self.chance * self.treated + (1.0 - self.chance) * self.untreated

    @cached_property
    def residual(self) -> FloatArray:
        """Outcome minus the prediction for the own arm, shape (n,)."""
        return self.sample.outcome - np.where(self.sample.treatment == 1, self.treated, self.untreated)

    @cached_property
    def simple(self) -> Functional:
        """Reused propensity, outcomes fitted anew by least squares."""
        design = np.column_stack([self.basis, _standard(np.log(self.chance / (1.0 - self.chance)))])
        return self.over(self.sample.treatment, self.chance, design)

    @cached_property
    def full(self) -> Functional:
        """As `simple`, with the fitted outcome means as further columns: as sharp as the estimate itself."""
        means = [_standard(self.untreated)]
        if self.fit.estimand != "ATT":
            means.append(_standard(self.treated - self.untreated))
        return self.over(self.sample.treatment, self.chance, np.column_stack([self.simple.design, *means]))

    @cached_property
    def reference(self) -> FloatArray:
        """Propensity by logistic regression on `basis`, independent of the fitted one; shape (n,)."""
        return quick_propensity(self.basis, self.sample.treatment, estimand=self.fit.estimand)

    @cached_property
    def clusters(self) -> IntArray | None:
        """Equal for rows that are not independent, 0 … G-1; None when all are."""
        given = dependent_rows(self.sample) if self.sample.cluster is None else self.sample.cluster
        numbered = np.unique(given, return_inverse=True)[1].astype(np.int64)
        return None if int(numbered.max()) + 1 == len(numbered) else numbered

    def over(self, treatment: FloatArray, chance: FloatArray, design: FloatArray) -> Functional:
        """The fast estimator with the sample's weights."""
        return functional(treatment, chance, design, estimand=self.fit.estimand, base=self.sample.weights)

    def by_cluster(self, influence: FloatArray) -> FloatArray:
        """Influence values (n, m) summed within clusters; as they are when rows are independent."""
        return influence if self.clusters is None else sums_by(self.clusters, influence)


def bent(matrix: FloatArray) -> FloatArray:
    """Intercept, standardised columns, and squares of numeric ones on a scale that tames tails; shape (n, p)."""
    if matrix.shape[1] == 0:
        return np.ones((len(matrix), 1))
    spread = matrix.std(axis=0)
    kept = matrix[:, spread > 0]
    columns = (kept - kept.mean(axis=0)) / spread[spread > 0]
    low, high = kept.min(axis=0), kept.max(axis=0)
    numeric = np.flatnonzero(~((kept == low) | (kept == high)).all(axis=0))[:_BENDS]
    tame = np.arcsinh(columns[:, numeric])
    squares = tame**2
    return np.column_stack([np.ones(len(matrix)), columns, (squares - squares.mean(axis=0)) / np.maximum(squares.std(axis=0), 1e-12)])


def quick_propensity(basis: FloatArray, treatment: FloatArray, *, estimand: Target = "ATE") -> FloatArray:
    """Probability of treatment by logistic regression, within the bounds; `basis` has an intercept first."""
    low, high = kept_within(estimand, float(treatment.mean()))
    out: FloatArray = np.clip(logistic(basis[:, 1:], treatment, penalty=1.0).predict(basis[:, 1:]), low, high)
    return out


def sums_by(groups: IntArray, values: FloatArray) -> FloatArray:
    """Column sums of values (n, m) within groups numbered 0 … G-1; shape (G, m)."""
    return np.column_stack([np.bincount(groups, weights=column) for column in values.T])


def _centred(outcomes: FloatArray) -> FloatArray:
    """Less their means: an effect does not depend on where the outcome's zero lies, but digits are lost far from it."""
    out: FloatArray = outcomes - outcomes.mean(axis=0)
    return out


def _standard(column: FloatArray) -> FloatArray:
    spread = float(column.std())
    out: FloatArray = (column - column.mean()) / (spread if spread > 0 else 1.0)
    return out


def _inverse(design: FloatArray, weights: FloatArray) -> FloatArray:
    gram = design.T @ (design * weights[:, None])
    gram[np.diag_indices_from(gram)] += _JITTER * np.trace(gram) / len(gram) + 1e-12
    out: FloatArray = np.linalg.inv(gram).astype(np.float64)
    return out
