"""Which rows are one draw of a stratified lottery, and what the draws say about the variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Rows of strata that hold both arms; m rows, S strata."""

    strata: IntArray
    """shape (m,), 0 to S - 1"""
    cell: IntArray
    """shape (m,), 2 x stratum + 1 for treated rows, 2 x stratum for untreated; -1 for rows of other levels"""
    given: FloatArray
    """shape (m,), sampling weights"""
    target: FloatArray
    """shape (m,), whom the effect is averaged over"""
    unit: IntArray
    """shape (m,), equal for rows that are one observation"""
    is_single: BoolArray
    """shape (S,), strata with one unit of an arm: they count as one observation"""
    base: IntArray
    """shape (m,), what chance drew: the row, or its cluster"""

    def share_of_cell(self) -> FloatArray:
        """Weight of a row's unit in the arm of its stratum, shape (m,); 0 for rows of other levels."""
        used = self.cell >= 0
        keys, place = np.unique(np.column_stack([self.cell, self.unit])[used], axis=0, return_inverse=True)
        sums = np.bincount(place.ravel(), weights=self.given[used])
        out = np.zeros(len(self.cell))
        out[used] = (sums / np.bincount(self.cell[used], weights=self.given[used])[keys[:, 0]])[place.ravel()]
        return out


@dataclass(frozen=True, kw_only=True)
class Variance:
    """Of an average of differences within strata."""

    total: float
    degrees: float
    """Welch's, of Student's t"""
    units: int
    """independent draws"""
    influence: FloatArray
    """shape (m,): what each row adds to the estimate's error"""


def units_of(strata: IntArray | None, cluster: IntArray | None, single: BoolArray) -> IntArray:
    """Rows that are one observation, shape (n,): clusters, strata where `single` says so, and what they hold in common."""
    n = len(single)
    if strata is None or not single.any():
        return np.arange(n) if cluster is None else cluster
    own = np.where(single, strata, int(strata.max()) + 1 + np.arange(n))
    if cluster is None:
        return own
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = np.unique(own, return_inverse=True)[1], np.unique(cluster, return_inverse=True)[1]
    size = int(left.max()) + 1
    links = coo_array((np.ones(n), (left, right + size)), shape=(size + int(right.max()) + 1,) * 2)
    labels: IntArray = connected_components(links, directed=False)[1][left].astype(np.int64)
    return labels


def variance_within(draw: Draw, residual: FloatArray, gaps: FloatArray, *, gain: FloatArray, columns: int) -> Variance:
    """Chance within strata, HC2 or by whole units, and effects that differ between strata, less what chance makes them differ.

    Parameters
    ----------
    residual : shape (m,), outcome less the mean of its arm in its stratum, and less what covariates tell
    gaps : shape (S,), each stratum's effect less their average
    gain : shape (m,), what covariates tell of effects that differ within strata
    columns : number of slopes that were fitted
    """
    place = np.unique(draw.unit, return_inverse=True)[1].astype(np.int64)
    whole = draw.target.sum()
    share = np.bincount(draw.strata, weights=draw.target) / whole
    single = draw.is_single[draw.strata]
    used = (draw.cell >= 0) & ~single
    of_cell = draw.share_of_cell()
    own = np.zeros(len(residual))
    own[used] = np.where(draw.cell[used] % 2 == 1, 1.0, -1.0) * (share[draw.strata] * draw.given * residual)[used]
    own[used] /= np.bincount(draw.cell[used], weights=draw.given[used])[draw.cell[used]] * np.sqrt(np.maximum(1.0 - of_cell[used], 1e-6))
    units = int(place.max()) + 1
    free = units - len(np.unique(draw.cell[used])) - int(draw.is_single.sum())
    own *= np.sqrt(free / max(free - columns, 1.0)) if columns and free > 0 else 1.0
    of_single = np.where(single, draw.target / whole * gaps[draw.strata], 0.0)
    sums = np.bincount(place, weights=own).astype(np.float64)
    of_pairs = np.bincount(place, weights=of_single + own)
    is_pair: BoolArray = np.bincount(place, weights=single) > 0
    pairs = int(is_pair.sum())
    from_pairs = pairs / max(pairs - 1 - columns, 1) * float(np.sum(of_pairs[is_pair] ** 2))
    between, shrink = _between(draw, np.where(is_pair, 0.0, sums)[place] * ~single, gaps, place=place)
    moved = float(np.sum(np.bincount(place, weights=draw.target / whole * gain) ** 2))
    total = float(np.sum(sums[~is_pair] ** 2)) + from_pairs + between + moved
    told = _degrees(draw, sums, place, of_cell=of_cell, is_pair=is_pair) + (
        [(from_pairs, max(pairs - 1.0 - columns, 1.0))] if pairs > 1 else []
    )
    welch = total**2 / max(sum(part**2 / degrees for part, degrees in told), 1e-300)
    influence = own + of_single + draw.target / whole * (np.where(single, 0.0, shrink * gaps[draw.strata]) + gain)
    return Variance(total=total, degrees=float(np.clip(welch, 1.0, max(units - 1.0, 1.0))), units=units, influence=influence)


def _between(draw: Draw, sums: FloatArray, gaps: FloatArray, *, place: IntArray) -> tuple[float, float]:
    """Variance because strata are a sample of everybody and their effects differ, and the root of its share in the gaps seen."""
    count, whole = len(gaps), draw.target.sum()
    keys, where, part = np.unique(np.column_stack([draw.strata, place]), axis=0, return_index=True, return_inverse=True)
    mass = np.bincount(part.ravel(), weights=draw.target)
    weight = np.bincount(keys[:, 0], weights=(mass / whole) ** 2, minlength=count) * ~draw.is_single
    chance = np.bincount(keys[:, 0], weights=sums[where] ** 2, minlength=count)
    share = np.bincount(draw.strata, weights=draw.target, minlength=count) / whole
    noise = chance / np.maximum(share, 1e-300) ** 2 * (1.0 - 2.0 * share) + chance.sum()
    seen = float(weight @ gaps**2)
    found = max(seen - float(weight @ noise), 0.0)
    return found, float(np.sqrt(found / seen)) if seen > 0 else 0.0


def _degrees(draw: Draw, sums: FloatArray, place: IntArray, *, of_cell: FloatArray, is_pair: BoolArray) -> list[tuple[float, float]]:
    """Variance and degrees of freedom of each arm of each stratum; of all together where units lie in several."""
    used = (draw.cell >= 0) & ~is_pair[place]
    if not used.any():
        return []
    keys, first = np.unique(np.column_stack([draw.cell, place])[used], axis=0, return_index=True)
    if len(np.unique(keys[:, 1])) < len(keys):
        return [(float(np.sum(sums[~is_pair] ** 2)), max(float((~is_pair).sum()) - 1.0, 1.0))]
    shares = of_cell[used][first]
    parts = np.bincount(keys[:, 0], weights=sums[keys[:, 1]] ** 2)
    effective = 1.0 / np.maximum(np.bincount(keys[:, 0], weights=shares**2), 1e-300) - 1.0
    return [(float(part), float(max(degrees, 0.5))) for part, degrees in zip(parts, effective, strict=True) if part > 0]
