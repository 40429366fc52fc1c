"""Learners of conditional means, each from views of the covariates and training rows to a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.estimators.features import Features, Space
from e2i.causal.estimators.linear_models import (
    LinearFit,
    Moments,
    logistic,
    moments,
    poisson,
    ridge_of,
    rough_ridge_of,
    sigmoid,
    sparse_linear_of,
    sparse_logistic,
)

if TYPE_CHECKING:
    import lightgbm as lgb

Kind = Literal["binary", "nonnegative", "continuous"]
Predictor = Callable[[Features, IntArray], FloatArray]
"""(views, rows) -> predictions, shape (rows, columns)"""
Learner = Callable[[Features, IntArray, FloatArray], Predictor]
"""(views, training rows, target of the training rows) -> predictor"""
Shared = TypeVar("Shared")
BOOSTING_ROUNDS = (25, 60, 150)
PENALTIES = (150.0, 20.0)
_MANY_ROWS = 15_000
_LINEAR_ROWS = 50_000


def ridge_learner(space: Space) -> Learner:
    """Least squares with an L2 penalty by leave-one-out error."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return of_matrix(space, (_ridge_start(views, space, train, target),))

    return fit


def logistic_learner(space: Space, penalties: tuple[float, ...]) -> Learner:
    """Logistic regression under each penalty, strongest first; one column for each."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return of_matrix(space, _logistic_path(views, space, train, target, penalties))

    return fit


def poisson_learner(penalty: float) -> Learner:
    """Poisson regression with log link on `plain`."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return of_matrix("plain", (poisson(_matrix(views, "plain", train), target, penalty=penalty, weights=weights_of(views, train)),))

    return fit


def sparse_learner(kind: Kind) -> Learner:
    """Squares and products at the price of BIC."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return of_matrix("basis", (sparse_fit(kind, views, "basis", train, target, price=0.5 * np.log(len(train))),))

    return fit


def sparse_fit(kind: Kind, views: Features, space: Space, train: IntArray, target: FloatArray, *, price: float) -> LinearFit:
    """A view's columns at a price each; starts from what other learners of the fold have fitted."""
    if kind != "binary":
        given = _moments(views, space, train, target)
        return sparse_linear_of(given, start=rough_ridge_of(given), price=price)
    path = f"logistic {space} {PENALTIES}"
    start = _logistic_path(views, space, train, target, PENALTIES)[-1] if _is_at_hand(views, path, train) else None
    return sparse_logistic(_matrix(views, space, train), target, price=price, weights=weights_of(views, train), start=start)


def thinned(rows: int, limit: int) -> slice:
    """Evenly spaced places, at most `limit`."""
    return slice(None, None, -(-rows // limit))


def on_few_rows(learner: Learner) -> Learner:
    """The learner on at most 50,000 evenly spaced rows, or a fifth of all: a few hundred coefficients need no more."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        limit = max(_LINEAR_ROWS, len(views.covariates) // 5)
        if len(train) <= limit:
            return learner(views, train, target)
        places = thinned(len(train), limit)
        return learner(views, _shared(views, "few rows", train, lambda: train[places]), target[places])

    return fit


def _matrix(views: Features, space: Space, train: IntArray) -> FloatArray:
    return _shared(views, f"matrix {space}", train, lambda: views.matrix(space, train))


def _moments(views: Features, space: Space, train: IntArray, target: FloatArray) -> Moments:
    matrix = _matrix(views, space, train)
    return _shared(views, f"moments {space}", train, lambda: moments(matrix, target, weights=weights_of(views, train)))


def _ridge_start(views: Features, space: Space, train: IntArray, target: FloatArray) -> LinearFit:
    return _shared(views, f"ridge {space}", train, lambda: ridge_of(_moments(views, space, train, target)))


def _logistic_path(
    views: Features, space: Space, train: IntArray, target: FloatArray, penalties: tuple[float, ...]
) -> tuple[LinearFit, ...]:
    """From the strongest penalty to the weakest, each started from the one before."""

    def path() -> tuple[LinearFit, ...]:
        matrix, weights = _matrix(views, space, train), weights_of(views, train)
        fits: list[LinearFit] = []
        for penalty in penalties:
            fits.append(logistic(matrix, target, penalty=penalty, weights=weights, start=fits[-1] if fits else None))
        return tuple(fits)

    return _shared(views, f"logistic {space} {penalties}", train, path)


def _shared(views: Features, name: str, train: IntArray, make: Callable[[], Shared]) -> Shared:
    """Made once for all learners of a fold. The key holds on to `train`, so its identity stays its own."""
    if views.memo is None:
        return make()
    key = (name, id(train))
    if key not in views.memo:
        views.memo[key] = (train, make())
    return cast("Shared", views.memo[key][1])


def _is_at_hand(views: Features, name: str, train: IntArray) -> bool:
    return views.memo is not None and (name, id(train)) in views.memo


def weights_of(views: Features, rows: IntArray) -> FloatArray | None:
    """Sampling weights of some rows, shape (rows,)."""
    return None if views.weights is None else views.weights[rows]


def by_arm_learner(learner: Learner) -> Learner:
    """Fit treated and untreated rows apart."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        treatment = _arm_of(views)
        predictors = {arm: learner(views, train[treatment[train] == arm], target[treatment[train] == arm]) for arm in (0.0, 1.0)}

        def predict(given: Features, rows: IntArray) -> FloatArray:
            chosen = _arm_of(given)[rows] == 1.0
            return np.where(chosen[:, None], predictors[1.0](given, rows), predictors[0.0](given, rows))

        return predict

    return fit


def boosting_learner(kind: Kind, seed: int) -> Learner:
    """Gradient boosted trees after 25, 60 and 150 rounds; one column for each."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        import lightgbm as lgb

        settings: dict[str, object] = {
            "objective": "binary" if kind == "binary" else "regression",
            "num_leaves": 4 if len(train) < _MANY_ROWS else 16,
            "learning_rate": 0.1,
            "min_data_in_leaf": 20,
            "lambda_l2": 5.0,
            "feature_fraction": 0.8,
            "max_bin": 63 if len(views.covariates) < _MANY_ROWS else 255,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        data = _binned(views, train, target, settings)
        booster = lgb.train(settings, data, max(BOOSTING_ROUNDS))
        stages = list(zip((0, *BOOSTING_ROUNDS[:-1]), np.diff((0, *BOOSTING_ROUNDS)).tolist(), strict=True))

        def predict(given: Features, rows: IntArray) -> FloatArray:
            matrix = given.matrix("raw", rows)
            gained = [booster.predict(matrix, start_iteration=first, num_iteration=k, raw_score=True) for first, k in stages]
            score = np.cumsum(np.column_stack(gained), axis=1)
            return sigmoid(score) if kind == "binary" else score

        return predict

    return fit


def _binned(views: Features, train: IntArray, target: FloatArray, settings: dict[str, object]) -> lgb.Dataset:
    """Training rows for boosting. Bins follow from covariates and treatment alone, so folds may share them."""
    import lightgbm as lgb

    weights = weights_of(views, train)
    if views.binned is None or 2 * len(train) < len(views.covariates):
        return lgb.Dataset(_matrix(views, "raw", train), target, weight=weights, params=settings)
    if not views.binned:
        views.binned["all"] = lgb.Dataset(views.raw, np.zeros(len(views.covariates)), params=settings).construct()
    data = cast("lgb.Dataset", views.binned["all"]).subset(train, params=settings).construct()
    data.set_label(target)
    if weights is not None:
        data.set_weight(weights)
    return data


def of_matrix(space: Space, fits: tuple[LinearFit, ...]) -> Predictor:
    """Predictions of linear models on one view, one column for each."""

    def predict(given: Features, rows: IntArray) -> FloatArray:
        return np.column_stack([fit.mean_at(given.products(space, rows, fit.coefficients)) for fit in fits])

    return predict


def _arm_of(views: Features) -> FloatArray:
    assert views.treatment is not None, "learners by arm need views with treatment"
    return views.treatment
