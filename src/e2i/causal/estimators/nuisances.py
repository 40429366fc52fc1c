"""Conditional means out of fold: a small library of learners, weighted by their out-of-fold loss.

Weights are found on the cross-fitted predictions themselves ("short-stacking", Ahrens, Hansen, Schaffer and Wiemann 2024):
one non-negative least squares problem instead of a second layer of folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimators.linear_models import LinearFit, logistic, poisson, ridge, sparse_linear, sparse_logistic

Kind = Literal["binary", "nonnegative", "continuous"]
FOLDS = 5
_MAX_PRODUCTS = 350
_BOOSTING_ROUNDS = (25, 60, 150)
_STEPS = np.linspace(0.1, 0.9, 9)
_MIN_WEIGHT = 0.03


@dataclass(frozen=True, kw_only=True)
class Features:
    """Standardised columns: `plain` as encoded, `basis` with squares and products, `steps` with
    thresholds at the deciles, `raw` for trees; each shape (n, ·)."""

    raw: FloatArray
    plain: FloatArray
    basis: FloatArray
    steps: FloatArray


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One learner with its setting; `columns` of its predictions are the settings it tries at once."""

    name: str
    columns: int
    predict: Callable[[Features, IntArray, IntArray, FloatArray], FloatArray]
    """(features, training rows, rows to predict, target of the training rows) -> shape (rows to predict, columns)"""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Convex weights of the library's candidates; columns follow the library's order."""

    kind: Kind
    names: tuple[str, ...]
    weights: FloatArray

    def describe(self) -> dict[str, float]:
        """Weight by learner name."""
        totals: dict[str, float] = {}
        for name, weight in zip(self.names, self.weights, strict=True):
            if weight > 0:
                totals[name] = totals.get(name, 0.0) + float(weight)
        return totals


def make_features(covariates: FloatArray) -> Features:
    """Standardise, tame long tails with a signed logarithm, add squares and products. Uses covariates only, so nothing leaks.

    Parameters
    ----------
    covariates : shape (n, k), finite, no constant column
    """
    plain = _standardise(covariates)
    skew = np.abs(np.mean(plain**3, axis=0))
    long_tailed = skew > 2.0
    binary = np.array([len(np.unique(column[:200])) <= 2 and len(np.unique(column)) <= 2 for column in covariates.T])
    tame = np.where(long_tailed & ~binary, np.sign(plain) * np.log1p(np.abs(plain - np.median(plain, axis=0))), plain)
    tame = _standardise(tame)
    extra = tame[:, long_tailed & ~binary]
    products = _products(tame, binary)
    basis = _standardise(np.column_stack([plain, extra, products]))
    return Features(raw=covariates, plain=plain, basis=basis, steps=_standardise(np.column_stack([plain, _thresholds(covariates, binary)])))


def _standardise(columns: FloatArray) -> FloatArray:
    centred = columns - columns.mean(axis=0)
    scale = centred.std(axis=0)
    return centred[:, scale > 1e-10] / scale[scale > 1e-10]


def _products(tame: FloatArray, binary: BoolArray) -> FloatArray:
    """Squares of numeric columns and pairwise products, the numeric columns first, at most 350 products."""
    numeric = np.flatnonzero(~binary)
    order = np.concatenate([numeric, np.flatnonzero(binary)])
    squares = [tame[:, j] ** 2 for j in numeric]
    pairs = [(a, b) for position, b in enumerate(order) for a in order[:position]]
    keep = pairs[: max(_MAX_PRODUCTS - len(squares), 0)]
    columns = squares + [tame[:, a] * tame[:, b] for a, b in keep]
    return np.column_stack(columns) if columns else np.empty((len(tame), 0))


def _thresholds(covariates: FloatArray, binary: BoolArray) -> FloatArray:
    """Indicators of lying above each distinct decile of each numeric column."""
    columns = [covariates[:, j] > cut for j in np.flatnonzero(~binary) for cut in np.unique(np.quantile(covariates[:, j], _STEPS))]
    return np.column_stack(columns).astype(np.float64) if columns else np.empty((len(covariates), 0))


def kind_of(target: FloatArray) -> Kind:
    """Which loss and links suit a target."""
    if set(np.unique(target[:1000])) <= {0.0, 1.0} and set(np.unique(target)) <= {0.0, 1.0}:
        return "binary"
    return "nonnegative" if target.min() >= 0 else "continuous"


def library(kind: Kind, *, seed: int) -> tuple[Candidate, ...]:
    """The learners for a kind of target."""
    trees = Candidate(name="boosting", columns=len(_BOOSTING_ROUNDS), predict=_boosting(kind, seed))
    if kind == "binary":
        return (
            Candidate(name="linear", columns=1, predict=_logistic("plain", (1.0,))),
            Candidate(name="quadratic", columns=2, predict=_logistic("basis", (8.0, 60.0))),
            Candidate(name="sparse_quadratic", columns=1, predict=_sparse(sparse_logistic, "basis")),
            Candidate(name="sparse_steps", columns=1, predict=_sparse(sparse_logistic, "steps")),
            trees,
        )
    squares = (
        Candidate(name="linear", columns=1, predict=_ridge("plain")),
        Candidate(name="quadratic", columns=1, predict=_ridge("basis")),
        Candidate(name="sparse_quadratic", columns=1, predict=_sparse(sparse_linear, "basis")),
        Candidate(name="sparse_steps", columns=1, predict=_sparse(sparse_linear, "steps")),
    )
    if kind == "continuous":
        return (*squares, trees)
    return (*squares, Candidate(name="log_linear", columns=1, predict=_poisson("plain", 1.0)), trees)


def _ridge(space: Literal["plain", "basis"]) -> Callable[[Features, IntArray, IntArray, FloatArray], FloatArray]:
    def predict(features: Features, train: IntArray, rows: IntArray, target: FloatArray) -> FloatArray:
        matrix: FloatArray = getattr(features, space)
        return ridge(matrix[train], target).predict(matrix[rows])[:, None]

    return predict


def _logistic(
    space: Literal["plain", "basis"], penalties: tuple[float, ...]
) -> Callable[[Features, IntArray, IntArray, FloatArray], FloatArray]:
    def predict(features: Features, train: IntArray, rows: IntArray, target: FloatArray) -> FloatArray:
        matrix: FloatArray = getattr(features, space)
        fits = [logistic(matrix[train], target, penalty=penalty) for penalty in penalties]
        return np.column_stack([fit.predict(matrix[rows]) for fit in fits])

    return predict


def _sparse(learner: Callable[..., LinearFit], space: Literal["basis", "steps"]) -> Callable[[Features, IntArray, IntArray, FloatArray], FloatArray]:
    def predict(features: Features, train: IntArray, rows: IntArray, target: FloatArray) -> FloatArray:
        matrix: FloatArray = getattr(features, space)
        return learner(matrix[train], target, price=0.5 * np.log(len(train))).predict(matrix[rows])[:, None]

    return predict


def _poisson(space: Literal["plain", "basis"], penalty: float) -> Callable[[Features, IntArray, IntArray, FloatArray], FloatArray]:
    def predict(features: Features, train: IntArray, rows: IntArray, target: FloatArray) -> FloatArray:
        matrix: FloatArray = getattr(features, space)
        return poisson(matrix[train], target, penalty=penalty).predict(matrix[rows])[:, None]

    return predict


def _boosting(kind: Kind, seed: int) -> Callable[[Features, IntArray, IntArray, FloatArray], FloatArray]:
    def predict(features: Features, train: IntArray, rows: IntArray, target: FloatArray) -> FloatArray:
        import lightgbm as lgb

        settings = {
            "objective": "binary" if kind == "binary" else "regression",
            "num_leaves": 4 if len(train) < 1500 else 8 if len(train) < 15_000 else 16,
            "learning_rate": 0.1,
            "min_data_in_leaf": 20,
            "lambda_l2": 5.0,
            "feature_fraction": 0.5,
            "max_bin": 63,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        data = lgb.Dataset(features.raw[train], target, params=settings)
        booster = lgb.train(settings, data, max(_BOOSTING_ROUNDS))
        return np.column_stack([np.asarray(booster.predict(features.raw[rows], num_iteration=k)) for k in _BOOSTING_ROUNDS])

    return predict


def make_folds(groups: IntArray, strata: IntArray, *, seed: int) -> IntArray:
    """Fold number 0-4 of each row: rows of one group (exact copies) stay together, strata are spread evenly.

    Parameters
    ----------
    groups : shape (n,), equal for rows that must not be split
    strata : shape (n,), small integers
    """
    rng = np.random.default_rng(seed)
    first = np.unique(groups, return_index=True)[1]
    fold_of_group = np.empty(len(first), dtype=np.int64)
    for stratum in np.unique(strata[first]):
        members = rng.permutation(np.flatnonzero(strata[first] == stratum))
        fold_of_group[members] = (np.arange(len(members)) + rng.integers(FOLDS)) % FOLDS
    return fold_of_group[np.searchsorted(groups[first], groups)]


def out_of_fold(
    features: Features, target: FloatArray, eligible: BoolArray, *, folds: IntArray, candidates: tuple[Candidate, ...]
) -> FloatArray:
    """Predictions for every row from models that saw only `eligible` rows of the other folds; shape (n, columns)."""
    out = np.empty((len(target), sum(candidate.columns for candidate in candidates)))
    for fold in range(FOLDS):
        rows = np.flatnonzero(folds == fold)
        train = np.flatnonzero((folds != fold) & eligible)
        parts = [candidate.predict(features, train, rows, target[train]) for candidate in candidates]
        out[rows] = np.column_stack(parts)
    return out


def stack(predictions: FloatArray, target: FloatArray, *, kind: Kind, candidates: tuple[Candidate, ...]) -> Stack:
    """Convex weights with the least squared out-of-fold error; small weights are dropped.

    Parameters
    ----------
    predictions : shape (n, columns), out of fold
    target : shape (n,)
    """
    from scipy.optimize import nnls

    centre = target.mean()
    emphasis = 1e3 * max(float(np.abs(predictions - centre).max()), 1e-12) * np.sqrt(len(target))
    design = np.vstack([predictions - centre, np.full(predictions.shape[1], emphasis)])
    weights = nnls(design, np.append(target - centre, emphasis))[0]
    weights[weights < _MIN_WEIGHT] = 0.0
    names = tuple(candidate.name for candidate in candidates for _ in range(candidate.columns))
    return Stack(kind=kind, names=names, weights=weights / weights.sum())


def apply_stack(
    features: Features, target: FloatArray, eligible: BoolArray, *, folds: IntArray, candidates: tuple[Candidate, ...], weights: Stack
) -> FloatArray:
    """Out-of-fold predictions of a known stack on other folds; learners without weight are not fitted. Shape (n,)."""
    active = tuple(candidate for candidate in candidates if any(w > 0 and n == candidate.name for n, w in zip(weights.names, weights.weights, strict=True)))
    kept = {candidate.name for candidate in active}
    columns = np.array([name in kept for name in weights.names])
    result: FloatArray = out_of_fold(features, target, eligible, folds=folds, candidates=active) @ weights.weights[columns]
    return result
