"""Effects of single units with intervals: honest trees on doubly robust scores, around a smooth trend.

Honest trees and the bootstrap of little bags are those of Athey, Tibshirani and Wager (2019), "Generalized random forests";
the trend is taken away first, as local linear forests do (Friedberg, Tibshirani, Athey and Wager 2021).
Every bag is a random half of the units. Its trend and its trees see that half only, so the spread between bags measures
the error of both (half-sampling: the variance of a half's estimate around the whole's equals the whole's own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.sums import LEVEL, halves
from e2i.causal.cate.trees import Growth, Trees, bin_edges, grow, to_bins
from e2i.causal.cate.trend import Trend, choose_trend
from e2i.errors import TooFewRows

BAGS = 100
TREES_PER_BAG = 4
MINIMUM_ROWS = 100
_SUBSAMPLE = 0.5
_MOST_PER_TREE = 25_000
_DEEPEST = 12
_COLUMNS_TRIED = 0.67


@dataclass(frozen=True, kw_only=True)
class UnitEffects:
    """Effects of m units with pointwise 95 % intervals."""

    estimate: FloatArray
    standard_error: FloatArray
    low: FloatArray
    high: FloatArray
    interval_method: str


class CateModel(Protocol):
    """A fitted model of effects."""

    def predict(self, modifiers: FloatArray) -> UnitEffects:
        """Effects at modifiers of shape (m, k)."""
        ...


class CateLearner(Protocol):
    """Learns effects of single units from scores of n rows and their modifiers, shape (n, k)."""

    def fit(self, modifiers: FloatArray, scores: Scores, *, seed: int) -> CateModel:
        """Raises TooFewRows."""
        ...


@dataclass(frozen=True, kw_only=True)
class HonestForest:
    """`bags` halves with `trees` honest trees each; `leaf` None: rows per leaf grow with the data."""

    bags: int = BAGS
    trees: int = TREES_PER_BAG
    leaf: int | None = None

    def fit(self, modifiers: FloatArray, scores: Scores, *, seed: int) -> ForestModel:
        """Grow the forest.

        Parameters
        ----------
        modifiers : shape (n, k), finite

        Raises
        ------
        TooFewRows
            Fewer than 100 rows.
        """
        rows = len(modifiers)
        if rows < MINIMUM_ROWS:
            raise TooFewRows(f"{rows} rows; effects of single units need {MINIMUM_ROWS}.", where="forest", advice="Look at the average.")
        rng = np.random.default_rng(seed)
        inside = halves(rows, scores.cluster, draws=self.bags, rng=rng)
        trend = choose_trend(modifiers, scores)
        design = trend.design(modifiers)
        lines = np.stack([trend.coefficients(design, scores, members) for members in inside])
        edges = bin_edges(modifiers)
        growth = Growth(depth=_DEEPEST, leaf=self.leaf or _leaf(rows), columns=_COLUMNS_TRIED)
        codes = to_bins(modifiers, edges)
        grown = [
            grow(codes, scores.effect - design @ line, scores.weights, self._draw(members, rng), growth=growth, rng=rng)
            for line, members in zip(lines, inside, strict=True)
        ]
        return ForestModel(trend=trend, lines=lines, edges=edges, trees=grown, inside=inside)

    def _draw(self, members: BoolArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Honest halves for each tree of a bag: rows that choose the splits, rows that fill the leaves."""
        pool = np.flatnonzero(members)
        size = min(int(_SUBSAMPLE * len(pool)), _MOST_PER_TREE)
        drawn = np.stack([rng.permutation(pool)[: 2 * size] for _ in range(self.trees)])
        return drawn[:, :size], drawn[:, size:]


@dataclass(frozen=True, kw_only=True)
class ForestModel:
    """A fitted forest; it also predicts its own rows from the bags that did not see them."""

    trend: Trend
    lines: FloatArray
    """the trend's coefficients, shape (bags, terms)"""
    edges: list[FloatArray]
    trees: list[Trees]
    inside: BoolArray
    """shape (bags, n)"""

    def predict(self, modifiers: FloatArray) -> UnitEffects:
        """Effects at new rows, shape (m, k)."""
        return self._predict(modifiers, None)

    def out_of_bag(self, modifiers: FloatArray, *, rows: IntArray | None = None) -> UnitEffects:
        """Effects of (some) rows the forest was grown on, each from the bags without it; `modifiers` are those rows' own."""
        return self._predict(modifiers, ~(self.inside if rows is None else self.inside[:, rows]))

    def _predict(self, modifiers: FloatArray, counted: BoolArray | None) -> UnitEffects:
        """Mean over bags; variance between bags less what few trees per bag add to it."""
        codes = to_bins(modifiers, self.edges)
        design = self.trend.design(modifiers)
        rows = len(modifiers)
        count, total, square, within = (np.zeros(rows) for _ in range(4))
        for place, (line, trees) in enumerate(zip(self.lines, self.trees, strict=True)):
            each = trees.predict(codes)
            bag = design @ line + each.mean(axis=0)
            used = np.ones(rows) if counted is None else counted[place].astype(np.float64)
            count += used
            total += used * bag
            square += used * bag**2
            within += used * each.var(axis=0, ddof=1)
        mean = total / count
        between = np.maximum(square / count - mean**2, 0.0) * count / np.maximum(count - 1, 1)
        noise = within / count / len(self.trees[0].value)
        return _with_interval(mean, _positive_part(between, noise, count), count)


def _positive_part(between: FloatArray, noise: FloatArray, bags: FloatArray) -> FloatArray:
    """Between-bag variance without the Monte Carlo part, kept above zero by a flat prior on it (as grf's objective debiasing)."""
    from scipy.stats import norm

    raw = between - noise
    spread = np.maximum(between, noise) * np.sqrt(2.0 / np.maximum(bags, 2.0))
    ratio = raw / np.maximum(spread, 1e-300)
    # Mean of a normal around `raw` that is cut off below zero; far above zero nothing changes.
    out: FloatArray = raw + spread * np.exp(norm.logpdf(ratio) - norm.logcdf(ratio))
    return out


def _with_interval(mean: FloatArray, variance: FloatArray, bags: FloatArray) -> UnitEffects:
    from scipy.stats import t

    error = np.sqrt(variance)
    half = t.ppf(0.5 + LEVEL / 2, np.maximum(bags - 1, 1)) * error
    return UnitEffects(
        estimate=mean,
        standard_error=error,
        low=mean - half,
        high=mean + half,
        interval_method="bootstrap of little bags (half-sampling) over trend and honest trees, t; "
        "95 % where the effect is linear or quadratic in the modifiers, 81 to 87 % measured where it jumps or waves",
    )


def _leaf(rows: int) -> int:
    """Rows of each honest half in a leaf: few, so that leaves are narrow; bags and trees average the noise away."""
    return max(5, int(0.05 * np.sqrt(rows)))
