"""Penalised linear, logistic and Poisson regression on wide feature matrices, fast enough to refit in every fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray

Link = Literal["identity", "logit", "log"]
_RIDGE_GRID = np.logspace(-4, 1.5, 12)
_NEWTON_STEPS = 25
_TOLERANCE = 1e-9
_CLOSE = 1e-3
_REWEIGHTINGS = 20
_QUADRATICS = 6
_SETTLED = 0.05
_ROUGH_STEPS = 4
_COARSE_ROWS, _COARSE = 20_000, 8
"""from so many rows on, logistic regression starts from a fit on every eighth row"""
_GONE = 1e-3
"""a coefficient below this many noise standard deviations per standard deviation of its feature is gone"""
_START_PENALTY = 8.0
_JUDGED_ROWS = 2_500
"""rows, evenly spaced, whose leave-one-out errors choose the ridge penalty"""


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """Coefficients on standardised features. Predictions are kept within the range that training saw, widened by `slack`."""

    link: Link
    intercept: float
    coefficients: FloatArray
    low: float
    high: float

    @property
    def vector(self) -> FloatArray:
        """Intercept and coefficients, shape (d + 1,)."""
        return np.append(self.intercept, self.coefficients)

    def predict(self, features: FloatArray) -> FloatArray:
        """Conditional mean, shape (n,)."""
        return self.mean_at(features @ self.coefficients)

    def mean_at(self, products: FloatArray) -> FloatArray:
        """Conditional mean where the features' products with the coefficients are at hand, shape (n,)."""
        score = products + self.intercept
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


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What least squares needs, centred at the weighted means; rows are scaled by the root of their weight."""

    features: FloatArray
    """shape (n, d)"""
    target: FloatArray
    centre: FloatArray
    mean: float
    gram: FloatArray
    cross: FloatArray
    weights: FloatArray | None
    bounds: tuple[float, float]
    """predictions are kept within"""


def moments(features: FloatArray, target: FloatArray, *, weights: FloatArray | None = None) -> Moments:
    """Centred rows, their Gram matrix and products with the target.

    Parameters
    ----------
    features : shape (n, d)
    target : shape (n,)
    weights : shape (n,), positive, mean about 1; None for equal ones
    """
    centre = np.average(features, axis=0, weights=weights) if weights is not None else features.mean(axis=0)
    mean = float(np.average(target, weights=weights))
    rows, values = features - centre, target - mean
    if weights is not None:
        root = np.sqrt(weights)
        rows *= root[:, None]
        values = values * root
    low, high = float(target.min()), float(target.max())
    slack = 0.5 * (high - low)
    return Moments(
        features=rows,
        target=values,
        centre=centre,
        mean=mean,
        gram=rows.T @ rows,
        cross=rows.T @ values,
        weights=weights,
        bounds=(low - slack, high + slack),
    )


def ridge(features: FloatArray, target: FloatArray, *, weights: FloatArray | None = None) -> LinearFit:
    """Least squares with an L2 penalty chosen by exact leave-one-out error, judged on at most 2,500 rows.

    Parameters
    ----------
    features : shape (n, d), standardised
    target : shape (n,)
    weights : shape (n,), positive, mean about 1
    """
    return ridge_of(moments(features, target, weights=weights))


def ridge_of(given: Moments) -> LinearFit:
    """`ridge` from moments at hand."""
    n = len(given.target)
    values, vectors = np.linalg.eigh(given.gram)
    shrink = 1.0 / (np.maximum(values, 0.0)[:, None] + _RIDGE_GRID * n)
    shrunk = shrink * (vectors.T @ given.cross)[:, None]
    some = slice(None, None, -(-n // _JUDGED_ROWS))
    rotated = given.features[some] @ vectors
    own = 1.0 / n if given.weights is None else given.weights[some, None] / n
    residual = given.target[some, None] - rotated @ shrunk
    error = np.sum((residual / (1.0 - np.minimum(rotated**2 @ shrink + own, 0.999))) ** 2, axis=0)
    return _linear_fit(given, vectors @ shrunk[:, int(np.argmin(error))])


def rough_ridge_of(given: Moments) -> LinearFit:
    """Ridge with its penalty by generalised cross-validation (Golub, Heath and Wahba 1979), which needs no look at the rows.

    Several times quicker than `ridge_of`; good enough to start `sparse_linear_of` from.
    """
    n = len(given.target)
    values, vectors = np.linalg.eigh(given.gram)
    values, along = np.maximum(values, 0.0)[:, None], (vectors.T @ given.cross)[:, None]
    shrink = 1.0 / (values + _RIDGE_GRID * n)
    left = float(given.target @ given.target) - np.sum(along**2 * shrink * (2.0 - values * shrink), axis=0)
    free = np.maximum(1.0 - (1.0 + np.sum(values * shrink, axis=0)) / n, 1e-3)
    best = int(np.argmin(np.maximum(left, 0.0) / free**2))
    return _linear_fit(given, vectors @ (shrink[:, [best]] * along)[:, 0])


def _linear_fit(given: Moments, coefficients: FloatArray) -> LinearFit:
    low, high = given.bounds
    intercept = given.mean - float(given.centre @ coefficients)
    return LinearFit(link="identity", intercept=intercept, coefficients=coefficients, low=low, high=high)


def logistic(
    features: FloatArray,
    target: FloatArray,
    *,
    penalty: float | FloatArray,
    weights: FloatArray | None = None,
    start: LinearFit | None = None,
    steps: int = _NEWTON_STEPS,
) -> LinearFit:
    """Logistic regression, minimising minus log likelihood + `penalty`/2 |coefficients|²; the intercept is free.

    Parameters
    ----------
    features : shape (n, d)
    target : shape (n,), 0 or 1
    penalty : one for all coefficients, or shape (d,)
    weights : shape (n,), positive, mean about 1
    start : a fit on the same features, for speed; the solution does not depend on it
    steps : at most so many of Newton's method
    """
    if start is None and len(target) >= _COARSE_ROWS and np.ptp(target[::_COARSE]) > 0:
        some = None if weights is None else weights[::_COARSE]
        start = logistic(features[::_COARSE], target[::_COARSE], penalty=np.divide(penalty, _COARSE), weights=some)
    first = None if start is None else start.vector
    return _newton(features, target, penalty=penalty, link="logit", weights=weights, start=first, steps=steps)


def poisson(features: FloatArray, target: FloatArray, *, penalty: float, weights: FloatArray | None = None) -> LinearFit:
    """Poisson regression with log link for outcomes ≥ 0; `penalty` as in `logistic`, on outcomes over their mean."""
    scale = float(target.mean()) or 1.0
    fit = _newton(features, target / scale, penalty=penalty, link="log", weights=weights)
    return replace(fit, intercept=fit.intercept + float(np.log(scale)), high=fit.high * scale)


def sparse_linear(features: FloatArray, target: FloatArray, *, price: float, weights: FloatArray | None = None) -> LinearFit:
    """Least squares in which every used feature costs `price` units of log likelihood (1 is AIC, log(n)/2 is BIC).

    Adaptive ridge: the penalty of each coefficient is reweighted by its last square until it is either free or gone
    (Frommlet and Nuel 2016), started from ridge.
    """
    given = moments(features, target, weights=weights)
    return sparse_linear_of(given, start=rough_ridge_of(given), price=price)


def sparse_linear_of(given: Moments, *, start: LinearFit, price: float) -> LinearFit:
    """`sparse_linear` from moments and a ridge fit at hand."""
    beta = start.coefficients.copy()
    noise = float(np.mean((given.target - given.features @ beta) ** 2))
    active = np.arange(len(beta))
    for _ in range(_REWEIGHTINGS):
        weight = 2.0 * price * noise / (beta[active] ** 2 + _GONE**2 * noise)
        part = given.gram[np.ix_(active, active)].copy()
        part[np.diag_indices_from(part)] += weight
        new = np.linalg.solve(part, given.cross[active])
        change = float(np.abs(new - beta[active]).max()) if len(active) else 0.0
        beta[:] = 0.0
        beta[active] = new
        active = active[np.abs(new) > _GONE * np.sqrt(noise)]
        if change < _GONE * np.sqrt(noise) or len(active) == 0:
            break
    return _linear_fit(given, np.where(np.isin(np.arange(len(beta)), active), beta, 0.0))


def sparse_logistic(
    features: FloatArray, target: FloatArray, *, price: float, weights: FloatArray | None = None, start: LinearFit | None = None
) -> LinearFit:
    """Logistic regression with the same price per used feature as `sparse_linear`, started from a ridge fit (`start`, or a new one).

    The penalties are reweighted on the quadratic that touches the likelihood at the last fit; what is left is fitted by Newton's
    method, and so on until nothing more goes: the rows are seen a few times only.
    """
    fit = logistic(features, target, penalty=_START_PENALTY, weights=weights, steps=_ROUGH_STEPS) if start is None else start
    active, penalty = np.arange(features.shape[1]), np.full(features.shape[1], _START_PENALTY)
    vector = fit.vector
    for _ in range(_QUADRATICS):
        part = features if len(active) == features.shape[1] else features[:, active]
        kept, penalty = _reweighted(*_quadratic(part, target, vector, weights), start=vector, price=price)
        stable = len(kept) == len(active)
        active = active[kept]
        part = part if stable else part[:, kept]
        fit = _newton(part, target, penalty=penalty, link="logit", weights=weights, start=vector[np.append(0, kept + 1)])
        vector = fit.vector
        if len(active) == 0 or (stable and np.allclose(penalty * (vector[1:] ** 2 + _GONE**2), 2.0 * price, rtol=_SETTLED)):
            break
    beta = np.zeros(features.shape[1])
    beta[active] = vector[1:]
    return LinearFit(link="logit", intercept=fit.intercept, coefficients=beta, low=0.0, high=1.0)


def _quadratic(features: FloatArray, target: FloatArray, vector: FloatArray, weights: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Hessian H and slope s with minus log likelihood = b'Hb/2 - s'b near `vector`; the intercept comes first."""
    given = 1.0 if weights is None else weights
    fitted = sigmoid(features @ vector[1:] + vector[0])
    curvature = given * np.maximum(fitted * (1.0 - fitted), 1e-9)
    design = np.empty((len(features), len(vector)))
    design[:, 0], design[:, 1:] = 1.0, features
    gradient = design.T @ (given * (fitted - target))
    design *= np.sqrt(curvature)[:, None]
    hessian = design.T @ design
    return hessian, hessian @ vector - gradient


def _reweighted(hessian: FloatArray, slope: FloatArray, *, start: FloatArray, price: float) -> tuple[IntArray, FloatArray]:
    """Adaptive ridge on a quadratic: which coefficients stay, and their last penalties."""
    kept, beta = np.arange(len(start) - 1), start
    for _ in range(_REWEIGHTINGS):
        penalty = 2.0 * price / (beta[1:] ** 2 + _GONE**2)
        inside = np.append(0, kept + 1)
        part = hessian[np.ix_(inside, inside)]
        part[np.diag_indices_from(part)] += np.append(1e-9, penalty)
        new = np.linalg.solve(part, slope[inside])
        change = float(np.abs(new[1:] - beta[1:]).max(initial=0.0))
        stays = np.abs(new[1:]) > _GONE
        kept, beta = kept[stays], new[np.append(True, stays)]
        if change < _GONE or len(kept) == 0:
            break
    return kept, 2.0 * price / (beta[1:] ** 2 + _GONE**2)


def _newton(
    features: FloatArray,
    target: FloatArray,
    *,
    penalty: float | FloatArray,
    link: Link,
    weights: FloatArray | None = None,
    start: FloatArray | None = None,
    steps: int = _NEWTON_STEPS,
) -> LinearFit:
    """Newton's method with step halving; the penalised likelihood is concave, so it converges from any start."""
    n, width = features.shape
    design = np.empty((n, width + 1))
    design[:, 0], design[:, 1:] = 1.0, features
    ridge_diagonal = np.append(1e-9, np.broadcast_to(penalty, width))
    given = np.ones(n) if weights is None else weights
    beta = _intercept_only(float(np.average(target, weights=weights)), width, link) if start is None else start
    score = design @ beta
    loss = _loss(score, target, link, given) + 0.5 * float(ridge_diagonal @ beta**2)
    scaled = np.empty_like(design)
    improvement, hessian = np.inf, np.empty(0)
    for _ in range(steps):
        fitted = sigmoid(score) if link == "logit" else np.exp(np.clip(score, -30.0, 30.0))
        curvature = given * np.maximum(fitted * (1.0 - fitted) if link == "logit" else fitted, 1e-9)
        gradient = design.T @ (given * (fitted - target)) + ridge_diagonal * beta
        if improvement > _CLOSE * n:
            # Near the solution the curvature hardly changes, and computing it is nearly all the work.
            np.multiply(design, np.sqrt(curvature)[:, None], out=scaled)
            hessian = scaled.T @ scaled
            hessian[np.diag_indices_from(hessian)] += ridge_diagonal
        step = np.linalg.solve(hessian, gradient)
        along, size = design @ step, 1.0
        while True:
            candidate = beta - size * step
            new_loss = _loss(score - size * along, target, link, given) + 0.5 * float(ridge_diagonal @ candidate**2)
            if new_loss <= loss or size < 1e-4:
                break
            size /= 2.0
        improvement = loss - new_loss
        beta, loss, score = candidate, new_loss, score - size * along
        if improvement < _TOLERANCE * n:
            break
    return LinearFit(link=link, intercept=float(beta[0]), coefficients=beta[1:], low=0.0, high=1.5 * float(target.max()))


def _intercept_only(mean: float, width: int, link: Link) -> FloatArray:
    beta = np.zeros(width + 1)
    share = min(max(mean, 1e-6), 1 - 1e-6)
    beta[0] = np.log(share / (1.0 - share)) if link == "logit" else np.log(max(mean, 1e-12))
    return beta


def _loss(score: FloatArray, target: FloatArray, link: Link, weights: FloatArray) -> float:
    if link == "logit":
        return float(weights @ (np.logaddexp(0.0, score) - target * score))
    clipped = np.clip(score, -30.0, 30.0)
    return float(weights @ (np.exp(clipped) - target * clipped))
