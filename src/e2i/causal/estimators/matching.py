"""Pairs of alike units: one treated, one untreated, each used once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.balance import balance
from e2i.causal.encoding import Covariates
from e2i.domain.evidence import BalanceRow

Distance = Literal["propensity", "mahalanobis"]
_KEPT_SHARE = 0.95
_MAXIMUM_CANDIDATES = 500
_COMPACT_AT = 0.2


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Row numbers of matched units; pair j is (`treated[j]`, `untreated[j]`)."""

    treated: IntArray
    untreated: IntArray
    exact_on: tuple[str, ...]
    """columns on which both sides of every pair agree"""
    caliper: float
    """largest allowed distance on the logit of the propensity"""
    without_partner: int
    """eligible treated rows for which no untreated row was left within the caliper"""


def match_pairs(
    treatment: FloatArray, propensity: FloatArray, covariates: Covariates, *, eligible: BoolArray, distance: Distance, seed: int
) -> Pairs:
    """Greedy 1:1 nearest-neighbour matching without replacement, hardest treated first, within exact cells and a caliper.

    The caliper is 0.2 pooled standard deviations of the propensity's logit (Austin 2011); within it the nearest by Mahalanobis
    distance on all covariates (Rosenbaum and Rubin 1985) among the 500 nearest by propensity, or the nearest by propensity.
    Two-valued and categorical columns are matched exactly, the one that costs fewest pairs first, as long as at least 95 % of the
    pairs that are possible without them remain possible.

    Parameters
    ----------
    treatment, propensity : shape (n,)
    eligible : shape (n,), rows that may be matched
    seed : breaks ties, nothing else
    """
    logit = np.log(np.clip(propensity, 1e-6, 1 - 1e-6) / np.clip(1.0 - propensity, 1e-6, 1 - 1e-6))
    treated, untreated = np.flatnonzero(eligible & (treatment == 1)), np.flatnonzero(eligible & (treatment == 0))
    caliper = 0.2 * float(np.sqrt((logit[treated].var(ddof=1) + logit[untreated].var(ddof=1)) / 2.0))
    cells, exact_on = _cells(covariates, treatment, eligible)
    shuffled = np.random.default_rng(seed).permutation(len(treatment))
    points = _whitened(covariates.matrix, eligible) if distance == "mahalanobis" else None
    pairs: list[tuple[int, int]] = []
    for cell in np.unique(cells[treated]):
        wanting = treated[cells[treated] == cell]
        # Far-off units have the fewest partners: they choose first; equal ones in random order.
        wanting = wanting[np.lexsort((shuffled[wanting], -logit[wanting]))]
        offered = untreated[cells[untreated] == cell]
        offered = offered[np.lexsort((shuffled[offered], logit[offered]))]
        pairs += _greedy(wanting, offered, logit, caliper, points)
    found = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return Pairs(treated=found[:, 0], untreated=found[:, 1], exact_on=exact_on, caliper=caliper, without_partner=len(treated) - len(found))


def balance_of_pairs(covariates: Covariates, treatment: FloatArray, pairs: Pairs) -> tuple[BalanceRow, ...]:
    """Standardised mean differences before and after matching."""
    weight = np.zeros(len(treatment))
    np.add.at(weight, np.concatenate([pairs.treated, pairs.untreated]), 1.0)
    return balance(covariates, treatment, weight)


def _greedy(wanting: IntArray, offered: IntArray, logit: FloatArray, caliper: float, points: FloatArray | None) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    free, scores, gone = np.ones(len(offered), dtype=np.bool_), logit[offered], 0
    for unit in wanting:
        low, high = np.searchsorted(scores, (logit[unit] - caliper, logit[unit] + caliper), side="left")
        places = low + np.flatnonzero(free[low:high])
        if len(places) == 0:
            continue
        gaps = np.abs(scores[places] - logit[unit])
        if points is not None:
            if len(places) > _MAXIMUM_CANDIDATES:
                near = np.sort(np.argpartition(gaps, _MAXIMUM_CANDIDATES)[:_MAXIMUM_CANDIDATES])
                places = places[near]
            gaps = np.sum((points[offered[places]] - points[unit]) ** 2, axis=1)
        place = places[int(np.argmin(gaps))]
        pairs.append((int(unit), int(offered[place])))
        free[place] = False
        gone += 1
        if gone > _COMPACT_AT * len(offered):
            offered, scores = offered[free], scores[free]
            free, gone = np.ones(len(offered), dtype=np.bool_), 0
    return pairs


def _cells(covariates: Covariates, treatment: FloatArray, eligible: BoolArray) -> tuple[IntArray, tuple[str, ...]]:
    """Cell number per row, and the columns that the cells agree on."""
    cells = np.zeros(len(treatment), dtype=np.int64)
    most = _possible(cells, treatment, eligible)
    coded = {source: _codes(covariates, source) for source in dict.fromkeys(covariates.sources)}
    left = {source: codes for source, codes in coded.items() if codes is not None}
    exact: list[str] = []
    while left:
        joint = {source: np.unique(cells * (codes.max() + 1) + codes, return_inverse=True)[1] for source, codes in left.items()}
        possible = {source: _possible(trial, treatment, eligible) for source, trial in joint.items()}
        best = max(possible, key=lambda source: possible[source])
        if possible[best] < _KEPT_SHARE * most:
            break
        cells = joint[best]
        exact.append(best)
        del left[best]
    return cells, tuple(exact)


def _codes(covariates: Covariates, source: str) -> IntArray | None:
    """Level numbers of a categorical or two-valued column; None for a numeric one."""
    columns = [j for j, name in enumerate(covariates.sources) if name == source]
    matrix = covariates.matrix[:, columns]
    if not all(covariates.is_level[j] for j in columns) and not (len(columns) == 1 and len(np.unique(matrix)) <= 2):
        return None
    return np.unique(matrix, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _possible(cells: IntArray, treatment: FloatArray, eligible: BoolArray) -> int:
    """Pairs that the cells allow."""
    up = np.bincount(cells[eligible & (treatment == 1)], minlength=int(cells.max()) + 1)
    down = np.bincount(cells[eligible & (treatment == 0)], minlength=int(cells.max()) + 1)
    return int(np.minimum(up, down).sum())


def _whitened(matrix: FloatArray, eligible: BoolArray) -> FloatArray:
    """Rotated and scaled so that Euclidean distance is Mahalanobis distance; directions without spread are left out."""
    centred = matrix - matrix[eligible].mean(axis=0)
    scale = centred[eligible].std(axis=0)
    centred = centred / np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(np.cov(centred[eligible].T, ddof=1).reshape(matrix.shape[1], matrix.shape[1]))
    keep = values > 1e-10 * values.max()
    out: FloatArray = centred @ vectors[:, keep] / np.sqrt(values[keep])
    return out
