"""Views of the covariates for different learners. They are built from covariates alone, so nothing leaks between folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray

Space = Literal["raw", "plain", "basis", "steps"]
_MAX_PRODUCTS = 350
_MAX_CELLS = 4_000_000
_LONG_TAIL = 1.0
_RARE_SHARE, _FEW_RARE = 0.05, 20
_DECILES = np.linspace(0.1, 0.9, 9)
_SINGLE_ROWS = 20_000
"""above it kept views are in single precision"""
_RECIPE_ROWS = 50_000
"""scales, cuts and the choice of columns are learned on at most so many rows, evenly spaced"""
_KEPT_ROWS = 100_000
"""above it views are not kept but built for the rows asked for"""
_CACHED_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class _Tail:
    """A long-tailed column on a log-like scale: log(1 + x / unit) for amounts and counts, arcsinh around the median for others."""

    column: int
    is_amount: bool
    middle: float
    unit: float

    def shorten(self, covariates: FloatArray) -> FloatArray:
        values = covariates[:, self.column]
        out: FloatArray = (
            np.log1p(np.maximum(values, 0.0) / self.unit) if self.is_amount else np.arcsinh((values - self.middle) / self.unit)
        )
        return out


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How a view's columns follow from the covariates; learned once, then used on any rows."""

    centre: FloatArray
    scale: FloatArray
    tails: tuple[_Tail, ...]
    tail_scale: FloatArray
    """shape (2, tails): mean and standard deviation of the shortened columns; `pair_scale` and `cut_scale` likewise"""
    pairs: IntArray
    pair_scale: FloatArray
    cuts: tuple[tuple[int, float], ...]
    cut_scale: FloatArray

    @property
    def plain_width(self) -> int:
        """Columns of `plain`."""
        return len(self.centre) + len(self.tails)

    def build(self, covariates: FloatArray, space: Space, *, single: bool = False) -> FloatArray:
        """The view of some rows, made in pieces that stay in the processor's cache; `single` for single precision."""
        if space == "raw":
            return covariates
        width = {"plain": 0, "basis": self.pairs.shape[1], "steps": len(self.cuts)}[space]
        out = np.empty((len(covariates), self.plain_width + width), dtype=np.float32 if single else np.float64)
        for start in range(0, len(covariates), _CACHED_ROWS):
            piece = covariates[start : start + _CACHED_ROWS]
            plain = self._plain(piece)
            rows = out[start : start + _CACHED_ROWS]
            rows[:, : self.plain_width] = plain
            if space == "basis":
                tame = self.tame(plain)
                rows[:, self.plain_width :] = (tame[:, self.pairs[0]] * tame[:, self.pairs[1]] - self.pair_scale[0]) / self.pair_scale[1]
            if space == "steps" and self.cuts:
                columns, cuts = zip(*self.cuts, strict=True)
                rows[:, self.plain_width :] = ((piece[:, columns] > np.array(cuts)) - self.cut_scale[0]) / self.cut_scale[1]
        return out

    def _plain(self, covariates: FloatArray) -> FloatArray:
        out = np.empty((len(covariates), self.plain_width))
        out[:, : len(self.centre)] = (covariates - self.centre) / self.scale
        for place, (tail, mean, deviation) in enumerate(zip(self.tails, *self.tail_scale, strict=True)):
            out[:, len(self.centre) + place] = (tail.shorten(covariates) - mean) / deviation
        return out

    def tame(self, plain: FloatArray) -> FloatArray:
        """One column per covariate; long-tailed ones on their log-like scale."""
        out = plain[:, : len(self.centre)].copy()
        for place, tail in enumerate(self.tails):
            out[:, tail.column] = plain[:, len(self.centre) + place]
        return out


@dataclass(frozen=True, kw_only=True)
class Features:
    """The same n rows four times; all but `raw` have mean 0 and standard deviation 1 per column.

    `raw` is for trees; `plain` as encoded, long-tailed columns also on a log-like scale; `basis` adds squares and products,
    `steps` thresholds at the deciles.
    """

    covariates: FloatArray
    recipe: _Recipe
    treatment: FloatArray | None = None
    """shape (n,), 0 or 1; set by `under`"""
    scaled_treatment: FloatArray | None = None
    weights: FloatArray | None = None
    """sampling weights, shape (n,), positive, mean 1"""
    kept: dict[Space, FloatArray] = field(default_factory=dict, repr=False, compare=False)
    """whole views of the covariates, shared by all arms, where they are small enough to keep"""
    memo: dict[tuple[str, int], tuple[object, object]] | None = field(default=None, repr=False, compare=False)
    """what learners of one fold share; set by `out_of_fold`"""
    binned: dict[str, object] | None = field(default=None, repr=False, compare=False)
    """`raw` cut into bins for boosting, once for all folds; set by `out_of_fold`"""

    @property
    def raw(self) -> FloatArray:
        """Shape (n, k)."""
        return self.matrix("raw")

    @property
    def plain(self) -> FloatArray:
        """Shape (n, k plus long-tailed columns)."""
        return self.matrix("plain")

    @property
    def basis(self) -> FloatArray:
        """`plain` with squares and products."""
        return self.matrix("basis")

    @property
    def steps(self) -> FloatArray:
        """`plain` with thresholds."""
        return self.matrix("steps")

    def part(self, rows: IntArray, kept: dict[Space, FloatArray] | None = None) -> Features:
        """Some rows only, seen in the same way; `kept` is shared by parts of the same rows under other arms."""
        return Features(
            covariates=self.covariates[rows],
            recipe=self.recipe,
            treatment=None if self.treatment is None else self.treatment[rows],
            scaled_treatment=None if self.scaled_treatment is None else self.scaled_treatment[rows],
            weights=None if self.weights is None else self.weights[rows],
            kept={} if kept is None else kept,
        )

    @property
    def is_kept(self) -> bool:
        """Whether views are few enough rows to be kept."""
        return len(self.covariates) <= _KEPT_ROWS

    def matrix(self, space: Space, rows: IntArray | slice | None = None, columns: IntArray | None = None) -> FloatArray:
        """A view of some rows and columns (default all), with the treatment's columns where `under` has set one."""
        rows = slice(None) if rows is None else rows
        base = self._base(space, rows)
        own = np.asarray(self._treatment_columns(space, rows, base))
        if columns is None:
            return np.column_stack([base, own]).astype(np.float64, copy=False)
        inside = columns < base.shape[1]
        return np.column_stack([base[:, columns[inside]], own[:, columns[~inside] - base.shape[1]]]).astype(np.float64, copy=False)

    def products(self, space: Space, rows: IntArray, coefficients: FloatArray) -> FloatArray:
        """`matrix(space, rows) @ coefficients` without building the matrix, shape (rows,)."""
        base = self._base(space, rows)
        width = base.shape[1]
        out = (base @ coefficients[:width].astype(base.dtype)).astype(np.float64)
        if self.treatment is None or self.scaled_treatment is None:
            return out
        if space == "raw":
            return out + self.treatment[rows] * coefficients[width]
        if space == "steps":
            return out + self.scaled_treatment[rows] * coefficients[width]
        plain = base[:, : self.recipe.plain_width] @ coefficients[width + 1 :].astype(base.dtype)
        return out + self.scaled_treatment[rows] * (10.0 * coefficients[width] + plain)

    def _treatment_columns(self, space: Space, rows: IntArray | slice, base: FloatArray) -> FloatArray:
        if self.treatment is None or self.scaled_treatment is None:
            return base[:, :0]
        scaled = self.scaled_treatment[rows][:, None]
        if space == "raw":
            return self.treatment[rows][:, None]
        if space == "steps":
            return scaled
        return np.column_stack([10.0 * scaled, scaled * base[:, : self.recipe.plain_width]])

    def _base(self, space: Space, rows: IntArray | slice) -> FloatArray:
        if not self.is_kept:
            return self.recipe.build(self.covariates[rows], space)
        if space == "raw":
            return self.covariates[rows]
        if space not in self.kept:
            self.kept[space] = self.recipe.build(self.covariates, space, single=len(self.covariates) > _SINGLE_ROWS)
        return self.kept[space][rows]


def make_features(covariates: FloatArray, weights: FloatArray | None = None) -> Features:
    """All views of an encoded covariate matrix.

    Parameters
    ----------
    covariates : shape (n, k), finite, no constant column
    weights : shape (n,), positive sampling weights with mean 1; every learner then minimises its weighted loss
    """
    return Features(covariates=covariates, recipe=_recipe(covariates), weights=weights)


def under(features: Features, treatment: FloatArray, *, arm: float | None = None) -> Features:
    """The views with treatment and its products with `plain` added: as observed, or as if everybody were in `arm`.

    The treatment column is scaled up tenfold so that ridge penalties hardly shrink the effect itself.

    Parameters
    ----------
    treatment : shape (n,), 0 or 1, as observed
    arm : 0, 1, or None for the observed one
    """
    given = treatment if arm is None else np.full(len(treatment), arm)
    return Features(
        covariates=features.covariates,
        recipe=features.recipe,
        treatment=given,
        scaled_treatment=(given - treatment.mean()) / treatment.std(),
        weights=features.weights,
        kept=features.kept,
    )


def _recipe(covariates: FloatArray) -> _Recipe:
    some = covariates[:: -(-len(covariates) // _RECIPE_ROWS)] if len(covariates) > _RECIPE_ROWS else covariates
    centre, scale = _moments(some)
    linear = (some - centre) / np.where(scale > 0, scale, 1.0)
    binary = np.array([len(np.unique(column)) <= 2 for column in some.T], dtype=np.bool_)
    tails = tuple(_tail(some[:, j], int(j)) for j in np.flatnonzero(~binary & (np.abs(np.mean(linear**3, axis=0)) > _LONG_TAIL)))
    tail_scale = np.empty((2, len(tails)))
    for place, tail in enumerate(tails):
        short = tail.shorten(some)
        tail_scale[:, place] = short.mean(), short.std() or 1.0
        linear[:, tail.column] = (short - tail_scale[0, place]) / tail_scale[1, place]
    pairs = _pairs(binary, _rare(some, binary), room=max(_MAX_CELLS // len(covariates), int((~binary).sum()) + 15))
    pair_scale = np.array([_moments(linear[:, [a]] * linear[:, [b]]) for a, b in pairs.T]).reshape(-1, 2).T
    varies = pair_scale[1] > 0
    cuts = [(int(j), float(cut)) for j in np.flatnonzero(~binary) for cut in np.unique(np.quantile(some[:, j], _DECILES))]
    above = np.array([[np.mean(some[:, j] > cut)] for j, cut in cuts]).reshape(-1)
    inside = (above > 0) & (above < 1)
    return _Recipe(
        centre=centre,
        scale=np.where(scale > 0, scale, 1.0),
        tails=tails,
        tail_scale=tail_scale,
        pairs=pairs[:, varies],
        pair_scale=pair_scale[:, varies],
        cuts=tuple(cut for cut, used in zip(cuts, inside, strict=True) if used),
        cut_scale=np.stack([above[inside], np.sqrt(above[inside] * (1.0 - above[inside]))]),
    )


def _moments(columns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation per column; 0 for one without spread beyond rounding."""
    centre = columns.mean(axis=0)
    scale = (columns - centre).std(axis=0)
    return centre, np.where(scale > 1e-12 * np.abs(columns).max(axis=0, initial=0.0), scale, 0.0)


def _tail(column: FloatArray, number: int) -> _Tail:
    if column.min() >= 0:
        return _Tail(column=number, is_amount=True, middle=0.0, unit=float(np.quantile(column[column > 0], 0.1)))
    middle = float(np.median(column))
    spread = float(np.median(np.abs(column - middle))) or float(column.std())
    return _Tail(column=number, is_amount=False, middle=middle, unit=spread)


def _rare(covariates: FloatArray, binary: BoolArray) -> BoolArray:
    """Two-valued columns whose rarer value less than 5 % of rows hold, where there are more than 20 of them: levels of long lists."""
    share = np.mean(covariates == covariates.min(axis=0), axis=0)
    rare: BoolArray = binary & (np.minimum(share, 1.0 - share) < _RARE_SHARE)
    return rare if rare.sum() > _FEW_RARE else np.zeros_like(rare)


def _pairs(binary: BoolArray, rare: BoolArray, *, room: int) -> IntArray:
    """Squares of numeric columns and pairwise products, numeric columns first; at most 350, fewer above 11,000 rows to bound time.

    Rare levels of long lists enter no product: it would be learned from a handful of rows, and there are hundreds of them.
    """
    numeric = np.flatnonzero(~binary)
    order = np.concatenate([numeric, np.flatnonzero(binary & ~rare)])
    products = [(j, j) for j in numeric] + [(a, b) for position, b in enumerate(order) for a in order[:position]]
    limit = max(min(_MAX_PRODUCTS, room), len(numeric))
    return np.array(products[:limit], dtype=np.int64).reshape(-1, 2).T
