"""People who stand in several rows of a table that should hold each of them once."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray, equal_rows
from e2i.causal.design import Sample

_DISTINCT = 50
_UNCOMMON = 0.01
_ALIKE = 0.8
_BY_CHANCE = 0.01


def varies_within(group: IntArray, values: FloatArray) -> BoolArray:
    """Rows of groups, numbered 0 … G-1 and none of them empty, whose values are not all the same, shape (n,)."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    low, high = np.minimum.reduceat(values[order], starts), np.maximum.reduceat(values[order], starts)
    out: BoolArray = (low < high)[group]
    return out


def repeated_share(sample: Sample) -> tuple[float, tuple[str, str]] | None:
    """Share of rows that agree with another row in every confounder although chance would hardly let them, and two telling columns.

    Two unalike columns of many values tell people apart: where a row shares uncommon values of both with another row, it is the same
    unit most likely, or all confounders belong to a group that the rows share. Rows of one named cluster are known to belong together.
    None where no two such columns stand among the confounders, or where their values are so coarse that rows meet by chance.
    """
    matrix = sample.covariates.matrix
    pair = _telling(sample)
    if pair is None:
        return None
    (first, rare_first), (second, rare_second) = ((place, _shares(matrix[:, place])) for place in pair)
    uncommon = (rare_first <= _UNCOMMON) & (rare_second <= _UNCOMMON)
    if not uncommon.any() or float(rare_first[uncommon].mean() * rare_second[uncommon].mean()) * len(matrix) > _BY_CHANCE:
        return None
    told_apart = matrix if sample.cluster is None else np.column_stack([matrix, sample.cluster])
    together, alone = equal_rows(matrix), equal_rows(told_apart)
    partners = np.bincount(together)[together] - (0 if sample.cluster is None else np.bincount(alone)[alone] - 1) - 1
    share = float((uncommon & (partners > 0)).mean())
    return share, (sample.covariates.names[first], sample.covariates.names[second])


def _telling(sample: Sample) -> tuple[int, int] | None:
    """The column with the most distinct values, and the one next to it that does not go with it."""
    matrix, is_level = sample.covariates.matrix, np.array(sample.covariates.is_level, dtype=np.bool_)
    distinct = np.array([0 if level else len(np.unique(column)) for column, level in zip(matrix.T, is_level, strict=True)])
    order = [int(place) for place in np.argsort(-distinct, kind="stable") if distinct[place] > _DISTINCT]
    if len(order) < 2:
        return None
    ranks = {place: _ranks(matrix[:, place]) for place in order}
    for other in order[1:]:
        if float(np.corrcoef(ranks[order[0]], ranks[other])[0, 1]) ** 2 < _ALIKE:
            return order[0], other
    return None


def _ranks(column: FloatArray) -> IntArray:
    out: IntArray = np.unique(column, return_inverse=True)[1].astype(np.int64)
    return out


def _shares(column: FloatArray) -> FloatArray:
    """Share of rows that have each row's value, shape (n,)."""
    place, counts = np.unique(column, return_inverse=True, return_counts=True)[1:]
    out: FloatArray = counts[place] / len(column)
    return out


def in_both_arms(sample: Sample) -> IntArray:
    """Number of the group of rows that are equal in outcome and every confounder, where they stand in several arms; shape (n,).

    Every other row is a group of its own.
    """
    group = equal_rows(np.column_stack([sample.outcome, sample.covariates.matrix]))
    out: IntArray = np.where(varies_within(group, sample.treatment), group, int(group.max()) + 1 + np.arange(len(group)))
    return out
