"""Ways to weigh donors: by outcomes before treatment, by predictors, and with ridge augmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.panel.block import Block
from e2i.causal.panel.predictors import Predictor, Search, fit_predictors, predictor_matrix, starting_importances
from e2i.causal.panel.simplex import many_simplex_weights

_BRIEF = 60
_PENALTIES = 10.0 ** np.linspace(1.0, -3.0, 17)


class Weighing(Protocol):
    """Gives donor weights for targets that are mixtures of units."""

    def __call__(self, block: Block, mixing: FloatArray) -> FloatArray:
        """Weights, shape (N, R), of targets, shape (N, R); 0 outside the donors, sum 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class ByOutcomes:
    """Least squares over the simplex on every fitted outcome."""

    def __call__(self, block: Block, mixing: FloatArray) -> FloatArray:
        """See `Weighing`."""
        before = block.outcome[:, : block.fit_end]
        return many_simplex_weights(before.T, before.T @ mixing, allowed=block.others(mixing))

    def residuals(self, paths: FloatArray, targets: FloatArray, allowed: BoolArray) -> FloatArray:
        """Targets (G, T) less their synthetic controls when all T periods of `paths` (N, T) are fitted."""
        weights = many_simplex_weights(paths.T, targets.T, allowed=np.repeat(allowed, len(targets), axis=1))
        return np.asarray(targets - weights.T @ paths, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class RidgeAugmented:
    """Simplex weights corrected by a ridge regression on the remaining imbalance (Ben-Michael, Feller & Rothstein 2021)."""

    penalty: float
    """of the ridge, relative to the largest eigenvalue of the donors' second moments"""

    def __call__(self, block: Block, mixing: FloatArray) -> FloatArray:
        """See `Weighing`; weights may be negative."""
        weights = ByOutcomes()(block, mixing)
        before = block.outcome[:, : block.fit_end]
        return _augment(before, (mixing - weights).T @ before, weights, block.others(mixing), self.penalty)

    def residuals(self, paths: FloatArray, targets: FloatArray, allowed: BoolArray) -> FloatArray:
        """As in `ByOutcomes`."""
        each = np.repeat(allowed, len(targets), axis=1)
        weights = many_simplex_weights(paths.T, targets.T, allowed=each)
        augmented = _augment(paths, targets - weights.T @ paths, weights, each, self.penalty)
        return np.asarray(targets - augmented.T @ paths, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ByPredictors:
    """The classic way: predictors, with importances searched for each target (Abadie, Diamond & Hainmueller 2010)."""

    predictors: tuple[Predictor, ...]
    outcome: str
    seed: int
    evaluations: int = 300
    """importances that one search tries"""
    restarts: int = 1
    """searches, from the best starts"""

    def __call__(self, block: Block, mixing: FloatArray) -> FloatArray:
        """See `Weighing`."""
        return self.search(block, mixing)[0]

    def before(self, periods: tuple[str, ...]) -> Weighing:
        """The same with the predictors that are known in these periods, searched briefly; by outcomes when there are none."""
        known = tuple(one for one in self.predictors if set(one.periods) <= set(periods))
        return replace(self, predictors=known, evaluations=_BRIEF) if known else ByOutcomes()

    def search(self, block: Block, mixing: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weights, shape (N, R), and importances, shape (k, R)."""
        matrix = predictor_matrix(block, self.predictors, self.outcome)
        search = Search(starts=starting_importances(block, matrix, seed=self.seed), evaluations=self.evaluations, restarts=self.restarts)
        allowed = block.others(mixing)
        found = [fit_predictors(block, matrix, mixing[:, k], allowed=allowed[:, k], search=search) for k in range(mixing.shape[1])]
        return np.column_stack([one.weights for one in found]), np.column_stack([one.importance for one in found])


def chosen_penalty(block: Block, mixing: FloatArray) -> float:
    """The relative ridge penalty that predicts left-out periods before treatment best, by one standard error.

    Every fitted period is left out once; the largest penalty within one standard error of the best is taken.
    """
    before, allowed = block.outcome[:, : block.fit_end], block.others(mixing)
    errors = np.empty((len(_PENALTIES), block.fit_end))
    for period in range(block.fit_end):
        rest = np.delete(before, period, axis=1)
        weights = many_simplex_weights(rest.T, rest.T @ mixing, allowed=allowed)
        imbalance = (mixing - weights).T @ rest
        for k, penalty in enumerate(_PENALTIES):
            augmented = _augment(rest, imbalance, weights, allowed, float(penalty))
            errors[k, period] = float(np.mean(((mixing - augmented).T @ before[:, period]) ** 2))
    mean, error = errors.mean(axis=1), errors.std(axis=1, ddof=1) / np.sqrt(block.fit_end)
    best = int(np.argmin(mean))
    return float(_PENALTIES[int(np.flatnonzero(mean <= mean[best] + error[best])[0])])


def _augment(paths: FloatArray, imbalance: FloatArray, weights: FloatArray, allowed: BoolArray, penalty: float) -> FloatArray:
    """Add to each column of `weights` (N, R) what a ridge regression on `paths` (N, m) makes of its `imbalance` (R, m)."""
    out = weights.copy()
    for k in range(weights.shape[1]):
        use = np.flatnonzero(allowed[:, k])
        centred = paths[use] - paths[use].mean(axis=0)
        moments = centred.T @ centred
        moments[np.diag_indices_from(moments)] += penalty * float(np.linalg.eigvalsh(moments)[-1]) + 1e-300
        out[use, k] += centred @ np.linalg.solve(moments, imbalance[k])
    return out
