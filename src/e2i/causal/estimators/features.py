"""Views of the covariates for different learners. They are built from covariates alone, so nothing leaks between folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray

_MAX_PRODUCTS = 350
_MAX_CELLS = 4_000_000
_LONG_TAIL = 1.0
_DECILES = np.linspace(0.1, 0.9, 9)


@dataclass(frozen=True, kw_only=True)
class Features:
    """The same n rows four times; all but `raw` have mean 0 and standard deviation 1 per column."""

    raw: FloatArray
    """for trees"""
    plain: FloatArray
    """as encoded; long-tailed columns also on a log-like scale"""
    basis: FloatArray
    """with squares and products"""
    steps: FloatArray
    """with thresholds at the deciles"""
    treatment: FloatArray | None = None
    """shape (n,), 0 or 1; set by `under`"""


def make_features(covariates: FloatArray) -> Features:
    """All views of an encoded covariate matrix.

    Parameters
    ----------
    covariates : shape (n, k), finite, no constant column
    """
    linear = _standardise(covariates)
    binary = np.array([len(np.unique(column)) <= 2 for column in covariates.T], dtype=np.bool_)
    long_tailed = ~binary & (np.abs(np.mean(linear**3, axis=0)) > _LONG_TAIL)
    tame = linear.copy()
    for j in np.flatnonzero(long_tailed):
        tame[:, [j]] = _standardise(_shorten_tail(covariates[:, j])[:, None])
    plain = np.column_stack([linear, tame[:, long_tailed]])
    basis = np.column_stack([plain, _products(tame, binary)])
    steps = np.column_stack([plain, _thresholds(covariates, binary)])
    return Features(raw=covariates, plain=plain, basis=_standardise(basis), steps=_standardise(steps))


def under(features: Features, treatment: FloatArray, *, arm: float | None = None) -> Features:
    """The views with treatment and its products with `plain` added: as observed, or as if everybody were in `arm`.

    The treatment column is scaled up tenfold so that ridge penalties hardly shrink the effect itself.

    Parameters
    ----------
    treatment : shape (n,), 0 or 1, as observed
    arm : 0, 1, or None for the observed one
    """
    given = treatment if arm is None else np.full(len(treatment), arm)
    scaled = ((given - treatment.mean()) / treatment.std())[:, None]
    products = scaled * features.plain
    return Features(
        raw=np.column_stack([features.raw, given]),
        plain=np.column_stack([features.plain, 10.0 * scaled, products]),
        basis=np.column_stack([features.basis, 10.0 * scaled, products]),
        steps=np.column_stack([features.steps, scaled]),
        treatment=given,
    )


def _standardise(columns: FloatArray) -> FloatArray:
    """Mean 0, standard deviation 1; columns without spread are left out."""
    centred = columns - columns.mean(axis=0)
    scale = centred.std(axis=0)
    varies = scale > 1e-12 * np.abs(columns).max(axis=0, initial=0.0)
    out: FloatArray = centred[:, varies] / scale[varies]
    return out


def _shorten_tail(column: FloatArray) -> FloatArray:
    """A log-like scale. Amounts and counts: log(1 + x / 10 % quantile of the positive values); others: arcsinh around the median."""
    if column.min() >= 0:
        return np.log1p(column / np.quantile(column[column > 0], 0.1))
    centred = column - np.median(column)
    spread = float(np.median(np.abs(centred))) or float(centred.std())
    return np.arcsinh(centred / spread)


def _products(tame: FloatArray, binary: BoolArray) -> FloatArray:
    """Squares of numeric columns and pairwise products, numeric columns first; at most 350, fewer above 11,000 rows to bound time."""
    numeric = np.flatnonzero(~binary)
    order = np.concatenate([numeric, np.flatnonzero(binary)])
    squares = [tame[:, j] ** 2 for j in numeric]
    pairs = [(a, b) for position, b in enumerate(order) for a in order[:position]]
    room = min(_MAX_PRODUCTS, max(_MAX_CELLS // len(tame), len(squares) + 15))
    columns = squares + [tame[:, a] * tame[:, b] for a, b in pairs[: max(room - len(squares), 0)]]
    return np.column_stack(columns) if columns else np.empty((len(tame), 0))


def _thresholds(covariates: FloatArray, binary: BoolArray) -> FloatArray:
    """Indicators of lying above each distinct decile of each numeric column."""
    columns = [covariates[:, j] > cut for j in np.flatnonzero(~binary) for cut in np.unique(np.quantile(covariates[:, j], _DECILES))]
    return np.column_stack(columns).astype(np.float64) if columns else np.empty((len(covariates), 0))
