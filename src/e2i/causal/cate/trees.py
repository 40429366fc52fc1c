"""Many honest regression trees at once, level by level, on binned columns: counting instead of sorting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray

BINS = 32


@dataclass(frozen=True, kw_only=True)
class Growth:
    """When a tree stops: `depth` levels, `leaf` rows that choose splits; `columns` is the share tried per node."""

    depth: int
    leaf: int
    columns: float


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Complete binary trees of the same depth, arrays of shape (trees, nodes); node i has children 2i + 1 and 2i + 2.

    A leaf above the last level has column -1; rows stay there.
    """

    column: IntArray
    cut: IntArray
    """a row goes left when its bin is at most this"""
    value: FloatArray
    """mean of the honest rows; of the parent where a node has none"""

    def predict(self, codes: IntArray) -> FloatArray:
        """Leaf values, shape (trees, m), for bins of shape (m, k)."""
        return np.stack([self.value[tree][_leaves(self.column[tree], self.cut[tree], codes)] for tree in range(len(self.value))])


def bin_edges(columns: FloatArray) -> list[FloatArray]:
    """Upper edges of at most 32 bins per column: all values where they are few, else quantiles."""
    found = []
    for column in columns.T:
        values = np.unique(column)
        inner = values if len(values) <= BINS else np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)[1:]))
        found.append((inner[:-1] + inner[1:]) / 2 if len(values) <= BINS else inner[:-1])
    return found


def to_bins(columns: FloatArray, edges: list[FloatArray]) -> IntArray:
    """Bin numbers, shape (n, k)."""
    out = np.empty(columns.shape, dtype=np.int64, order="F")
    for place, cuts in enumerate(edges):
        out[:, place] = np.searchsorted(cuts, columns[:, place], side="left")
    return out


def grow(
    codes: IntArray,
    target: FloatArray,
    weights: FloatArray,
    drawn: tuple[IntArray, IntArray],
    *,
    growth: Growth,
    rng: np.random.Generator,
) -> Trees:
    """One tree per row of `drawn`.

    Parameters
    ----------
    codes : shape (n, k), bins
    target, weights : shape (n,)
    drawn : rows that choose splits and rows that fill leaves, shape (trees, size) each
    """
    trees, nodes = len(drawn[0]), 2 ** (growth.depth + 1) - 1
    column = np.full((trees, nodes), -1, dtype=np.int64)
    cut = np.zeros((trees, nodes), dtype=np.int64)
    value = np.zeros((trees, nodes))
    rows = [side.ravel() for side in drawn]
    tree = [np.repeat(np.arange(trees), side.shape[1]) for side in drawn]
    place = [np.zeros(len(side), dtype=np.int64) for side in rows]
    for level in range(growth.depth + 1):
        first, width = 2**level - 1, 2**level
        slots = [tree[side] * width + place[side] - first for side in (0, 1)]
        _fill(value, slots[1], rows[1], target, weights, first=first, width=width)
        if level == growth.depth or not len(rows[0]):
            break
        chosen, edge = _best_splits(codes, target * weights, rows, slots, trees * width, growth=growth, rng=rng)
        column[:, first : first + width] = chosen.reshape(trees, width)
        cut[:, first : first + width] = edge.reshape(trees, width)
        for side in (0, 1):
            split = chosen[slots[side]] >= 0
            rows[side], tree[side], slot, at = rows[side][split], tree[side][split], slots[side][split], place[side][split]
            right = codes[rows[side], chosen[slot]] > edge[slot]
            place[side] = 2 * at + 1 + right
    return Trees(column=column, cut=cut, value=value)


def _fill(value: FloatArray, slots: IntArray, rows: IntArray, target: FloatArray, weights: FloatArray, *, first: int, width: int) -> None:
    """Honest means of the level's nodes; a node without honest rows takes its parent's."""
    trees = len(value)
    mass = np.bincount(slots, weights=weights[rows], minlength=trees * width).reshape(trees, width)
    total = np.bincount(slots, weights=weights[rows] * target[rows], minlength=trees * width).reshape(trees, width)
    parents = value[:, (np.arange(first, first + width) - 1) // 2] if first else np.zeros((trees, 1))
    value[:, first : first + width] = np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), parents)


def _best_splits(
    codes: IntArray,
    target: FloatArray,
    rows: list[IntArray],
    slots: list[IntArray],
    count: int,
    *,
    growth: Growth,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray]:
    """Column and bin with the largest gain per node, column -1 where no split leaves enough rows."""
    best, chosen, edge = np.full(count, 0.0), np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    live = np.flatnonzero(
        (np.bincount(slots[0], minlength=count) >= 2 * growth.leaf) & (np.bincount(slots[1], minlength=count) >= 2 * growth.leaf)
    )
    number = np.full(count, -1, dtype=np.int64)
    number[live] = np.arange(len(live))
    kept = number[slots[0]] >= 0
    base, inside = number[slots[0]][kept] * BINS, rows[0][kept]
    values = target[inside]
    allowed = rng.random((len(live), codes.shape[1])) < growth.columns
    for column in range(codes.shape[1]) if len(live) else ():
        gain = _gains(base + codes[:, column][inside], values, len(live), leaf=growth.leaf)
        gain[~allowed[:, column]] = -np.inf
        where = gain.argmax(axis=1)
        top = gain[np.arange(len(live)), where]
        better = top > best[live]
        best[live[better]], chosen[live[better]], edge[live[better]] = top[better], column, where[better]
    return chosen, edge


def _gains(keys: IntArray, values: FloatArray, nodes: int, *, leaf: int) -> FloatArray:
    """Drop of the sum of squares by cut, shape (nodes, bins - 1), -inf where a side has too few rows."""
    size = nodes * BINS
    counts = np.bincount(keys, minlength=size).reshape(nodes, BINS).cumsum(axis=1)
    sums = np.bincount(keys, weights=values, minlength=size).reshape(nodes, BINS).cumsum(axis=1)
    n, total = counts[:, -1:], sums[:, -1:]
    left, right = counts[:, :-1], n - counts[:, :-1]
    enough = (left >= leaf) & (right >= leaf)
    mean_gap = sums[:, :-1] / np.maximum(left, 1) - (total - sums[:, :-1]) / np.maximum(right, 1)
    return np.where(enough, left * right / n * mean_gap**2, -np.inf)


def _leaves(column: IntArray, cut: IntArray, codes: IntArray) -> IntArray:
    """Where each row ends up in one tree, shape (m,)."""
    place = np.zeros(len(codes), dtype=np.int64)
    moving = np.arange(len(codes))
    while len(moving):
        at = place[moving]
        moving = moving[column[at] >= 0]
        at = place[moving]
        place[moving] = 2 * at + 1 + (codes[moving, column[at]] > cut[at])
    return place
