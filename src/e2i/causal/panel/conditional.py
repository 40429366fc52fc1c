"""One double difference given baseline covariates, for many outcome changes at once (Sant'Anna & Zhao 2020)."""

from __future__ import annotations

from typing import Literal, NoReturn

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.estimators.linear_models import sigmoid
from e2i.errors import PositivityViolated

Method = Literal["regression", "weighting", "doubly_robust"]
_TRIM = 0.995
"""controls with a higher propensity are left out, as in the R package DRDID"""
_CONTROLS_PER_TERM = 2


def conditional_difference(
    change: FloatArray, treated: BoolArray, covariates: FloatArray, *, weights: FloatArray, method: Method
) -> tuple[FloatArray, FloatArray, float]:
    """ATT of m changes, the influence of each row, and how many controls count.

    Parameters
    ----------
    change : shape (n, m), outcome minus outcome in the base period
    treated : shape (n,)
    covariates : shape (n, k), in the base period; an intercept is added
    weights : shape (n,), positive
    method : `regression` (eq. 2.2), `weighting` with normalised weights, `doubly_robust` (eq. 2.6) with logit and least squares

    Returns
    -------
    estimates, shape (m,); influence, shape (n, m), mean 0; effective number of controls under their weights (Kish)

    Raises
    ------
    PositivityViolated
        Covariates separate the treated from the controls, so weights do not exist.
    """
    design = _design(covariates, treated)
    d = treated.astype(np.float64)
    mass, rest = weights * d, weights * (1.0 - d)
    held = rest[:, None] * design
    if method != "weighting":
        bread = _inverse(design.T @ held)
        change = change - design @ (bread @ (held.T @ change))
    own = mass / mass.sum()
    odds, other = rest, np.zeros(len(d))
    loads, means = [own, -other], [own @ change, np.zeros(change.shape[1])]
    if method != "regression":
        propensity = _propensity(design, d, weights)
        odds = np.where(propensity < _TRIM, rest * propensity / (1.0 - np.minimum(propensity, _TRIM)), 0.0)
        _require_controls(odds)
        other = odds / odds.sum()
        of_controls = other @ change
        slope = (other[:, None] * design).T @ change - np.outer(design.T @ other, of_controls)
        information = _inverse(design.T @ ((weights * propensity * (1.0 - propensity))[:, None] * design))
        loads = [own, -other, *((weights * (d - propensity))[:, None] * (design @ information)).T]
        means = [means[0], of_controls, *slope]
    factor = own - other
    if method != "weighting":
        factor = factor - held @ (bread @ (design.T @ factor))
    # influence = change x factor - centres and the propensity's score: one pass over (n, m)
    inside = (len(d) * factor)[:, None] * change
    inside -= (len(d) * np.column_stack(loads)) @ np.vstack(means)
    return means[0] - means[1], inside, float(odds.sum() ** 2 / max(odds @ odds, 1e-300))


def weighted_or_regressed(
    change: FloatArray, treated: BoolArray, covariates: FloatArray, *, weights: FloatArray, method: Method
) -> tuple[tuple[FloatArray, FloatArray, float], bool]:
    """`conditional_difference`, and whether weights entered as asked.

    A cohort of a few units is easily separated from the controls by two confounders, and weights do not exist then. The controls'
    regression alone (Heckman, Ichimura & Todd 1997) carries such a cell; it needs twice as many controls as terms.
    """
    try:
        return conditional_difference(change, treated, covariates, weights=weights, method=method), True
    except PositivityViolated:
        if int((~treated).sum()) < _CONTROLS_PER_TERM * (covariates.shape[1] + 1):
            raise
        return conditional_difference(change, treated, covariates, weights=weights, method="regression"), False


def refuse_separation() -> NoReturn:
    """Raises PositivityViolated: no weights make controls resemble the treated."""
    raise PositivityViolated(
        "the confounders separate treated from control units.",
        where="effect.confounders",
        advice="Name fewer confounders, group rare levels, or leave out cohorts with few units.",
    )


def _design(covariates: FloatArray, treated: BoolArray) -> FloatArray:
    """Intercept and standardised columns, without those that are constant here.

    They are centred on the controls: where a column does not vary among these, its slope, which nothing shows, then comes out as zero
    and takes no part of their mean with it.
    """
    spread = covariates.std(axis=0)
    used = spread > 1e-12 * np.maximum(np.abs(covariates).max(axis=0, initial=0.0), 1e-300)
    scaled = (covariates[:, used] - covariates[np.ix_(~treated, used)].mean(axis=0)) / spread[used]
    return np.column_stack([np.ones(len(covariates)), scaled])


def _inverse(gram: FloatArray) -> FloatArray:
    """Pseudo-inverse of a symmetric matrix; directions without variation are left out."""
    values, vectors = np.linalg.eigh(gram)
    size = np.abs(values)
    used = size > 1e-11 * size.max()
    inverse: FloatArray = (vectors[:, used] / values[used]) @ vectors[:, used].T
    return inverse


def _require_controls(odds: FloatArray) -> None:
    if odds.sum() <= 0:
        raise PositivityViolated(
            "no control resembles the treated.", where="effect.confounders", advice="Name fewer confounders, or add controls."
        )


def _propensity(design: FloatArray, label: FloatArray, weights: FloatArray) -> FloatArray:
    """Logit by Newton steps, halved where the likelihood would fall."""
    coefficients: FloatArray = np.zeros(design.shape[1])
    mean = float(np.clip(weights @ label / weights.sum(), 1e-6, 1 - 1e-6))
    coefficients[0] = np.log(mean / (1 - mean))
    value = _log_likelihood(design @ coefficients, label, weights)
    for _ in range(50):
        chance = sigmoid(design @ coefficients)
        gradient = design.T @ (weights * (label - chance))
        curvature = design.T @ ((weights * chance * (1.0 - chance))[:, None] * design)
        step = _inverse(curvature) @ gradient
        while True:
            trial = _log_likelihood(design @ (coefficients + step), label, weights)
            if trial >= value - 1e-12 * abs(value) or np.abs(step).max() < 1e-12:
                break
            step = step / 2
        coefficients, value = coefficients + step, trial
        if np.abs(step).max() < 1e-9:
            break
    else:
        refuse_separation()
    return sigmoid(design @ coefficients)


def _log_likelihood(score: FloatArray, label: FloatArray, weights: FloatArray) -> float:
    return float(weights @ (label * score - np.logaddexp(0.0, score)))
