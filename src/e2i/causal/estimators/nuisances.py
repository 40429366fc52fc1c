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
from e2i.causal.estimators.features import Features
from e2i.causal.estimators.linear_models import LinearFit, logistic, poisson, ridge, sparse_linear, sparse_logistic

Kind = Literal["binary", "nonnegative", "continuous"]
Space = Literal["plain", "basis", "steps"]
FOLDS = 5
_BOOSTING_ROUNDS = (25, 60, 150)
_MANY_ROWS = 15_000
_MIN_WEIGHT = 0.03
_MAX_MAIN = 14


Predictor = Callable[[Features, IntArray], FloatArray]
"""(views, rows) -> predictions, shape (rows, columns)"""
Learner = Callable[[Features, IntArray, FloatArray], Predictor]
"""(views, training rows, target of the training rows) -> predictor"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One learner; `columns` of its predictions are the settings that it tries at once."""

    name: str
    columns: int
    fit: Learner


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Convex weights of the library's candidates; columns follow the library's order."""

    names: tuple[str, ...]
    weights: FloatArray

    def describe(self) -> dict[str, float]:
        """Weight by learner name."""
        totals: dict[str, float] = {}
        for name, weight in zip(self.names, self.weights, strict=True):
            if weight > 0:
                totals[name] = totals.get(name, 0.0) + float(weight)
        return totals


def kind_of(target: FloatArray) -> Kind:
    """Which loss and links suit a target."""
    if set(np.unique(target[:1000])) <= {0.0, 1.0} and set(np.unique(target)) <= {0.0, 1.0}:
        return "binary"
    return "nonnegative" if target.min() >= 0 else "continuous"


def library(kind: Kind, *, seed: int, by_arm: bool = False) -> tuple[Candidate, ...]:
    """The learners for a kind of target; `by_arm` adds one that fits treated and untreated rows apart."""
    is_binary = kind == "binary"
    sparse = sparse_logistic if is_binary else sparse_linear
    candidates = [
        Candidate(name="linear", columns=2, fit=_logistic("plain", (1.0, 30.0)))
        if is_binary
        else Candidate(name="linear", columns=1, fit=_ridge("plain")),
        Candidate(name="quadratic", columns=2, fit=_logistic("basis", (20.0, 150.0)))
        if is_binary
        else Candidate(name="quadratic", columns=1, fit=_ridge("basis")),
        Candidate(name="sparse_quadratic", columns=1, fit=_sparse(sparse)),
        Candidate(name="sparse_steps", columns=1, fit=_sparse_with_products(sparse)),
        Candidate(name="boosting", columns=len(_BOOSTING_ROUNDS), fit=_boosting(kind, seed)),
    ]
    if by_arm:
        candidates.append(Candidate(name="sparse_quadratic_by_arm", columns=1, fit=_each_arm(_sparse(sparse))))
    if kind == "nonnegative":
        candidates.append(Candidate(name="log_linear", columns=1, fit=_poisson(1.0)))
    return tuple(candidates)


def _ridge(space: Space) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix(space, (ridge(_view(views, space)[train], target),))

    return fit


def _logistic(space: Space, penalties: tuple[float, ...]) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        matrix = _view(views, space)[train]
        return _of_matrix(space, tuple(logistic(matrix, target, penalty=penalty) for penalty in penalties))

    return fit


def _poisson(penalty: float) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix("plain", (poisson(views.plain[train], target, penalty=penalty),))

    return fit


def _sparse(learner: Callable[..., LinearFit]) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix("basis", (learner(views.basis[train], target, price=0.5 * np.log(len(train))),))

    return fit


def _sparse_with_products(learner: Callable[..., LinearFit]) -> Learner:
    """Thresholds first, at the price of AIC; then the chosen ones and their products, at the price of BIC."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        main = learner(views.steps[train], target, price=1.0)
        order = np.argsort(-np.abs(main.coefficients), kind="stable")[:_MAX_MAIN]
        chosen = np.sort(order[main.coefficients[order] != 0.0])
        if len(chosen) < 2:
            return _of_matrix("steps", (main,))
        first, second = np.triu_indices(len(chosen), k=1)

        def widen(given: Features, rows: IntArray) -> FloatArray:
            kept = given.steps[np.ix_(rows, chosen)]
            return np.column_stack([kept, kept[:, first] * kept[:, second]])

        final = learner(widen(views, train), target, price=0.5 * np.log(len(train)))
        return lambda given, rows: final.predict(widen(given, rows))[:, None]

    return fit


def _each_arm(learner: Learner) -> Learner:
    """Fit treated and untreated rows apart."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        treatment = _arm_of(views)
        predictors = {arm: learner(views, train[treatment[train] == arm], target[treatment[train] == arm]) for arm in (0.0, 1.0)}

        def predict(given: Features, rows: IntArray) -> FloatArray:
            chosen = _arm_of(given)[rows] == 1.0
            return np.where(chosen[:, None], predictors[1.0](given, rows), predictors[0.0](given, rows))

        return predict

    return fit


def _boosting(kind: Kind, seed: int) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        import lightgbm as lgb

        settings = {
            "objective": "binary" if kind == "binary" else "regression",
            "num_leaves": 4 if len(train) < _MANY_ROWS else 16,
            "learning_rate": 0.1,
            "min_data_in_leaf": 20,
            "lambda_l2": 5.0,
            "feature_fraction": 0.8,
            "max_bin": 63,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        booster = lgb.train(settings, lgb.Dataset(views.raw[train], target, params=settings), max(_BOOSTING_ROUNDS))

        def predict(given: Features, rows: IntArray) -> FloatArray:
            matrix = given.raw[rows]
            return np.column_stack([np.asarray(booster.predict(matrix, num_iteration=k)) for k in _BOOSTING_ROUNDS])

        return predict

    return fit


def _view(views: Features, space: Space) -> FloatArray:
    return {"plain": views.plain, "basis": views.basis, "steps": views.steps}[space]


def _of_matrix(space: Space, fits: tuple[LinearFit, ...]) -> Predictor:
    return lambda given, rows: np.column_stack([fit.predict(_view(given, space)[rows]) for fit in fits])


def _arm_of(views: Features) -> FloatArray:
    assert views.treatment is not None, "learners by arm need views with treatment"
    return views.treatment


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
    views: Features, target: FloatArray, *, folds: IntArray, candidates: tuple[Candidate, ...], asked: tuple[Features, ...] | None = None
) -> FloatArray:
    """Predictions for every row from models that never saw its fold, shape (asked views, n, columns).

    Parameters
    ----------
    views : what models are fitted on
    asked : what predictions are made for, row by row; default: `views` itself
    """
    asked = (views,) if asked is None else asked
    out = np.empty((len(asked), len(target), sum(candidate.columns for candidate in candidates)))
    for fold in range(FOLDS):
        rows, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        predictors = [candidate.fit(views, train, target[train]) for candidate in candidates]
        for place, given in enumerate(asked):
            out[place, rows] = np.column_stack([predict(given, rows) for predict in predictors])
    return out


def used(candidates: tuple[Candidate, ...], *stacks: Stack) -> tuple[tuple[Candidate, ...], BoolArray]:
    """The candidates with weight in any stack, and which prediction columns are theirs."""
    names = {name for chosen in stacks for name, weight in zip(chosen.names, chosen.weights, strict=True) if weight > 0}
    kept = tuple(candidate for candidate in candidates if candidate.name in names)
    return kept, np.array([candidate.name in names for candidate in candidates for _ in range(candidate.columns)])


def stack(predictions: FloatArray, target: FloatArray, *, candidates: tuple[Candidate, ...]) -> Stack:
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
    return Stack(names=names, weights=weights / weights.sum())
