"""Penalised linear, logistic and Poisson regression on wide feature matrices, fast enough to refit in every fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray

Link = Literal["identity", "logit", "log"]
_RIDGE_GRID = np.logspace(-4, 1.5, 12)
_NEWTON_STEPS = 25
_TOLERANCE = 1e-7
_REWEIGHTINGS = 20
_GONE = 1e-3
"""a coefficient below this many noise standard deviations per standard deviation of its feature is gone"""
_START_PENALTY = 8.0


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """Coefficients on standardised features. Predictions are kept within the range that training saw, widened by `slack`."""

    link: Link
    intercept: float
    coefficients: FloatArray
    low: float
    high: float

    def predict(self, features: FloatArray) -> FloatArray:
        """Conditional mean, shape (n,)."""
        score = features @ self.coefficients + self.intercept
        if self.link == "logit":
            return sigmoid(score)
        if self.link == "log":
            score = np.exp(np.minimum(score, 700.0))
        clipped: FloatArray = np.clip(score, self.low, self.high)
        return clipped


def sigmoid(score: FloatArray) -> FloatArray:
    """Logistic function without overflow."""
    out: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * score))
    return out


def ridge(features: FloatArray, target: FloatArray) -> LinearFit:
    """Least squares with an L2 penalty chosen by exact leave-one-out error.

    Parameters
    ----------
    features : shape (n, d), standardised
    target : shape (n,)
    """
    n = len(target)
    centre = features.mean(axis=0)
    centred = features - centre
    mean = float(target.mean())
    residual_target = target - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.maximum(values, 0.0)
    rotated = centred @ vectors
    projected = rotated.T @ residual_target
    squared = rotated**2
    best_error, best_shrunk = np.inf, np.zeros_like(values)
    for share in _RIDGE_GRID:
        shrink = 1.0 / (values + share * n)
        shrunk = shrink * projected
        leverage = np.minimum(squared @ shrink + 1.0 / n, 0.999)
        error = float(np.mean(((residual_target - rotated @ shrunk) / (1.0 - leverage)) ** 2))
        if error < best_error:
            best_error, best_shrunk = error, shrunk
    coefficients = vectors @ best_shrunk
    low, high = float(target.min()), float(target.max())
    slack = 0.5 * (high - low)
    return LinearFit(
        link="identity", intercept=mean - float(centre @ coefficients), coefficients=coefficients, low=low - slack, high=high + slack
    )


def logistic(features: FloatArray, target: FloatArray, *, penalty: float | FloatArray) -> LinearFit:
    """Logistic regression, minimising minus log likelihood + `penalty`/2 |coefficients|²; the intercept is free.

    Parameters
    ----------
    features : shape (n, d)
    target : shape (n,), 0 or 1
    penalty : one for all coefficients, or shape (d,)
    """
    return _newton(features, target, penalty=penalty, link="logit")


def poisson(features: FloatArray, target: FloatArray, *, penalty: float) -> LinearFit:
    """Poisson regression with log link for outcomes ≥ 0; `penalty` as in `logistic`, on outcomes over their mean."""
    scale = float(target.mean()) or 1.0
    fit = _newton(features, target / scale, penalty=penalty, link="log")
    return replace(fit, intercept=fit.intercept + float(np.log(scale)), high=fit.high * scale)


def sparse_linear(features: FloatArray, target: FloatArray, *, price: float) -> LinearFit:
    """Least squares in which every used feature costs `price` units of log likelihood (1 is AIC, log(n)/2 is BIC).

    Adaptive ridge: the penalty of each coefficient is reweighted by its last square until it is either free or gone
    (Frommlet and Nuel 2016), started from `ridge`.
    """
    start = ridge(features, target)
    centre, mean = features.mean(axis=0), float(target.mean())
    centred, residual_target = features - centre, target - mean
    gram, cross = centred.T @ centred, centred.T @ residual_target
    beta = start.coefficients.copy()
    noise = float(np.mean((target - start.predict(features)) ** 2))
    active = np.arange(len(beta))
    for _ in range(_REWEIGHTINGS):
        weight = 2.0 * price * noise / (beta[active] ** 2 + _GONE**2 * noise)
        part = gram[np.ix_(active, active)].copy()
        part[np.diag_indices_from(part)] += weight
        new = np.linalg.solve(part, cross[active])
        change = float(np.abs(new - beta[active]).max()) if len(active) else 0.0
        beta[:] = 0.0
        beta[active] = new
        active = active[np.abs(new) > _GONE * np.sqrt(noise)]
        if change < _GONE * np.sqrt(noise) or len(active) == 0:
            break
    beta = np.where(np.isin(np.arange(len(beta)), active), beta, 0.0)
    return LinearFit(link="identity", intercept=mean - float(centre @ beta), coefficients=beta, low=start.low, high=start.high)


def sparse_logistic(features: FloatArray, target: FloatArray, *, price: float) -> LinearFit:
    """Logistic regression with the same price per used feature as `sparse_linear`, started from a ridge fit."""
    start = logistic(features, target, penalty=_START_PENALTY)
    beta = start.coefficients.copy()
    active = np.arange(len(beta))
    fit = start
    for _ in range(_REWEIGHTINGS):
        weight = 2.0 * price / (beta[active] ** 2 + _GONE**2)
        fit = _newton(features[:, active], target, penalty=weight, link="logit", start=np.append(fit.intercept, beta[active]))
        change = float(np.abs(fit.coefficients - beta[active]).max()) if len(active) else 0.0
        beta[:] = 0.0
        beta[active] = fit.coefficients
        active = active[np.abs(fit.coefficients) > _GONE]
        if change < _GONE or len(active) == 0:
            break
    beta = np.where(np.isin(np.arange(len(beta)), active), beta, 0.0)
    return LinearFit(link="logit", intercept=fit.intercept, coefficients=beta, low=0.0, high=1.0)


def _newton(
    features: FloatArray, target: FloatArray, *, penalty: float | FloatArray, link: Link, start: FloatArray | None = None
) -> LinearFit:
    """Newton's method with step halving; the penalised likelihood is concave, so it converges from zero."""
    n, width = features.shape
    design = np.column_stack([np.ones(n), features])
    ridge_diagonal = np.append(1e-9, np.broadcast_to(penalty, width))
    mean = float(target.mean())
    beta = np.zeros(width + 1)
    if link == "logit":
        share = min(max(mean, 1e-6), 1 - 1e-6)
        beta[0] = np.log(share / (1.0 - share))
    else:
        beta[0] = np.log(max(mean, 1e-12))
    if start is not None:
        beta = start
    loss = _loss(design @ beta, target, link) + 0.5 * float(ridge_diagonal @ beta**2)
    for _ in range(_NEWTON_STEPS):
        score = design @ beta
        fitted = sigmoid(score) if link == "logit" else np.exp(np.clip(score, -30.0, 30.0))
        weight = np.maximum(fitted * (1.0 - fitted) if link == "logit" else fitted, 1e-9)
        gradient = design.T @ (fitted - target) + ridge_diagonal * beta
        hessian = (design * weight[:, None]).T @ design
        hessian[np.diag_indices_from(hessian)] += ridge_diagonal
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while True:
            candidate = beta - size * step
            new_loss = _loss(design @ candidate, target, link) + 0.5 * float(ridge_diagonal @ candidate**2)
            if new_loss <= loss or size < 1e-4:
                break
            size /= 2.0
        improvement = loss - new_loss
        beta, loss = candidate, new_loss
        if improvement < _TOLERANCE * n:
            break
    high = float(target.max())
    return LinearFit(link=link, intercept=float(beta[0]), coefficients=beta[1:], low=0.0, high=1.5 * high)


def _loss(score: FloatArray, target: FloatArray, link: Link) -> float:
    if link == "logit":
        return float(np.sum(np.logaddexp(0.0, score) - target * score))
    clipped = np.clip(score, -30.0, 30.0)
    return float(np.sum(np.exp(clipped) - target * clipped))
