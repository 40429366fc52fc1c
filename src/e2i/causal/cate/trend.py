"""The smooth part of an effect: linear in the modifiers, or with squares and products where these predict better."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.cate.dr_learner import Scores

_ROWS_PER_TERM = 25
_MOST_TERMS = 90
_RIDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Terms of a regression on standardised modifiers; `pairs` are products, (j, j) a square."""

    centre: FloatArray
    scale: FloatArray
    pairs: tuple[tuple[int, int], ...] = ()

    def design(self, modifiers: FloatArray) -> FloatArray:
        """Shape (m, 1 + k + pairs)."""
        plain = np.clip((modifiers - self.centre) / self.scale, -5.0, 5.0)
        products = [plain[:, a] * plain[:, b] for a, b in self.pairs]
        return np.column_stack([np.ones(len(plain)), plain, *products])

    def coefficients(self, design: FloatArray, scores: Scores, members: BoolArray) -> FloatArray:
        """Weighted least squares on some rows."""
        rows = np.flatnonzero(members)
        weighted = design[rows] * scores.weights[rows, None]
        gram = weighted.T @ design[rows]
        gram[np.diag_indices_from(gram)] += _RIDGE * len(rows)
        return np.asarray(np.linalg.solve(gram, weighted.T @ scores.effect[rows]), dtype=np.float64)


def choose_trend(modifiers: FloatArray, scores: Scores) -> Trend:
    """The terms with the smaller leave-one-out error (PRESS, Allen 1974)."""
    centre: FloatArray = modifiers.mean(axis=0)
    scale: FloatArray = np.maximum(modifiers.std(axis=0), 1e-12)
    linear = Trend(centre=centre, scale=scale)
    room = min(len(modifiers) // _ROWS_PER_TERM, _MOST_TERMS) - modifiers.shape[1]
    numeric = [j for j in range(modifiers.shape[1]) if len(np.unique(modifiers[:, j])) > 2]
    pairs = [(j, j) for j in numeric] + list(combinations(range(modifiers.shape[1]), 2))
    binary_only = [(a, b) for a, b in pairs if a not in numeric and b not in numeric]
    pairs = [pair for pair in pairs if pair not in binary_only]
    if not pairs or len(pairs) > room:
        pairs = pairs[: len(numeric)] if len(numeric) <= room else []
    if not pairs:
        return linear
    curved = Trend(centre=centre, scale=scale, pairs=tuple(pairs))
    return min((linear, curved), key=lambda trend: _press(trend.design(modifiers), scores))


def _press(design: FloatArray, scores: Scores) -> float:
    weights = scores.weights
    gram = (design * weights[:, None]).T @ design
    gram[np.diag_indices_from(gram)] += _RIDGE * len(design)
    inverse = np.linalg.inv(gram)
    residual = scores.effect - design @ (inverse @ (design.T @ (weights * scores.effect)))
    leverage = weights * np.einsum("ij,jk,ik->i", design, inverse, design)
    return float(np.sum(weights * (residual / np.clip(1.0 - leverage, 0.05, 1.0)) ** 2))
