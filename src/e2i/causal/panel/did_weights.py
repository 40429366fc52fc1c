"""Unit weights, period weights and the weighted double difference of synthetic difference-in-differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.panel.block import Block
from e2i.causal.panel.simplex import many_simplex_weights, simplex_weights


@dataclass(frozen=True, kw_only=True)
class DoubleWeights:
    """One weighted double difference."""

    effect: float
    units: FloatArray
    """shape (N,), 0 outside the donors"""
    periods: FloatArray
    """shape (fit_end,)"""
    observed: FloatArray
    """shape (T,), mean of the treated"""
    gaps: FloatArray
    """shape (T,), observed less weighted donors, less the weighted mean of that before treatment"""


def noise_of(block: Block) -> float:
    """Standard deviation of the donors' changes from period to period before treatment (Arkhangelsky et al. 2021, equation 5)."""
    changes = np.diff(block.outcome[block.donors, : block.fit_end], axis=1)
    return float(changes.std(ddof=1)) if changes.size > 1 else 0.0


def double_weights(block: Block) -> DoubleWeights:
    """Weights and effect of the treated of one block (Arkhangelsky et al. 2021, algorithm 1)."""
    return many_double_weights(block, block.pooled(), block.others(block.pooled()), noise=noise_of(block), size=len(block.treated))[0]


def many_double_weights(block: Block, mixing: FloatArray, allowed: BoolArray, *, noise: float, size: int) -> tuple[DoubleWeights, ...]:
    """The same for R targets that are mixtures of units.

    Parameters
    ----------
    mixing, allowed : shape (N, R), targets and the donors that each may use
    noise : standard deviation of changes, which with the number of treated unit-periods sets the ridge
    size : treated units behind a target
    """
    before = block.outcome[:, : block.fit_end]
    ridge = (size * block.n_post) ** 0.25 * noise
    units = many_simplex_weights(before.T, before.T @ mixing, ridge=ridge * float(np.sqrt(block.fit_end)), intercept=True, allowed=allowed)
    after = block.outcome[:, block.start :].mean(axis=1)
    out = []
    for k in range(mixing.shape[1]):
        use = allowed[:, k]
        penalty = 1e-6 * noise * float(np.sqrt(use.sum()))
        periods = simplex_weights(before[use], after[use], ridge=penalty, intercept=True)
        out.append(weighted_difference(block, mixing[:, k], units[:, k], periods))
    return tuple(out)


def weighted_difference(block: Block, mixing: FloatArray, units: FloatArray, periods: FloatArray) -> DoubleWeights:
    """The double difference with given weights."""
    observed = mixing @ block.outcome
    gaps = observed - units @ block.outcome
    centred = gaps - float(gaps[: block.fit_end] @ periods)
    return DoubleWeights(effect=float(centred[block.start :].mean()), units=units, periods=periods, observed=observed, gaps=centred)
