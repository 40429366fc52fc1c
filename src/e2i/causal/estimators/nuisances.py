"""Conditional means out of fold: a small library of learners, weighted by their out-of-fold loss.

Weights are found on the cross-fitted predictions themselves ("short-stacking", Ahrens, Hansen, Schaffer and Wiemann 2024):
one non-negative least squares problem instead of a second layer of folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
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
    sparse_linear,
    sparse_linear_of,
    sparse_logistic,
)

if TYPE_CHECKING:
    import lightgbm as lgb

Kind = Literal["binary", "nonnegative", "continuous"]
FOLDS = 5
_BOOSTING_ROUNDS = (25, 60, 150)
_MANY_ROWS = 15_000
_MIN_WEIGHT = 0.03
_MAX_MAIN = 14
_SCREENED_ROWS = 5_000
_CHOICE_ROWS = (15_000, 50_000)
_JUDGED_FOLDS = 2
_ONE_FOLD_ROWS = 5_000
_JUDGED_ROWS = 200
_MIN_SHARE = 0.1
_TRAINING_ROWS = 200_000
"""a learner sees at most so many rows of its folds, drawn at random; predictions are made for all rows"""
_BLOCK = 50_000
_PENALTIES = (150.0, 20.0)
_LINEAR_ROWS = 50_000
_STEP_ROWS = 20_000
"""thresholds are chosen on at most so many rows"""


Predictor = Callable[[Features, IntArray], FloatArray]
"""(views, rows) -> predictions, shape (rows, columns)"""
Shared = TypeVar("Shared")
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
    candidates = [
        Candidate(name="linear", columns=2, fit=_logistic("plain", (30.0, 1.0)))
        if is_binary
        else Candidate(name="linear", columns=1, fit=_ridge("plain")),
        Candidate(name="quadratic", columns=2, fit=_logistic("basis", _PENALTIES))
        if is_binary
        else Candidate(name="quadratic", columns=1, fit=_ridge("basis")),
        Candidate(name="sparse_quadratic", columns=1, fit=_sparse(kind)),
        Candidate(name="sparse_steps", columns=1, fit=_sparse_with_products(kind)),
        Candidate(name="boosting", columns=len(_BOOSTING_ROUNDS), fit=_boosting(kind, seed)),
    ]
    if by_arm:
        candidates.append(Candidate(name="sparse_quadratic_by_arm", columns=1, fit=_each_arm(_sparse(kind))))
    if kind == "nonnegative":
        candidates.append(Candidate(name="log_linear", columns=1, fit=_poisson(1.0)))
    return tuple(each if each.name == "boosting" else replace(each, fit=_few_rows(each.fit)) for each in candidates)


def _ridge(space: Space) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix(space, (_ridge_start(views, space, train, target),))

    return fit


def _logistic(space: Space, penalties: tuple[float, ...]) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix(space, _logistic_path(views, space, train, target, penalties))

    return fit


def _poisson(penalty: float) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix("plain", (poisson(_matrix(views, "plain", train), target, penalty=penalty, weights=_weights(views, train)),))

    return fit


def _sparse(kind: Kind) -> Learner:
    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        return _of_matrix("basis", (_sparse_fit(kind, views, "basis", train, target, price=0.5 * np.log(len(train))),))

    return fit


def _sparse_with_products(kind: Kind) -> Learner:
    """Thresholds first, at the price of AIC; then the chosen ones and their products, at the price of BIC."""
    learner = sparse_logistic if kind == "binary" else sparse_linear

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        few = _thinned(len(train), _STEP_ROWS)
        main = _sparse_fit(kind, views, "steps", train[few], target[few], price=1.0)
        order = np.argsort(-np.abs(main.coefficients), kind="stable")[:_MAX_MAIN]
        chosen = np.sort(order[main.coefficients[order] != 0.0])
        if len(chosen) < 2:
            return _of_matrix("steps", (main,))
        kept, (first, second) = views.matrix("steps", train, chosen), np.triu_indices(len(chosen), k=1)
        wide = np.column_stack([kept, kept[:, first] * kept[:, second]])
        final = learner(wide, target, price=0.5 * np.log(len(train)), weights=_weights(views, train))
        products = np.zeros((len(chosen), len(chosen)))
        products[first, second] = final.coefficients[len(chosen) :]

        def predict(given: Features, rows: IntArray) -> FloatArray:
            kept = given.matrix("steps", rows, chosen)
            score = kept @ final.coefficients[: len(chosen)] + np.einsum("ij,ij->i", kept @ products, kept)
            return final.mean_at(score)[:, None]

        return predict

    return fit


def _sparse_fit(kind: Kind, views: Features, space: Space, train: IntArray, target: FloatArray, *, price: float) -> LinearFit:
    if kind != "binary":
        given = _moments(views, space, train, target)
        return sparse_linear_of(given, start=rough_ridge_of(given), price=price)
    path = f"logistic {space} {_PENALTIES}"
    start = _logistic_path(views, space, train, target, _PENALTIES)[-1] if _is_at_hand(views, path, train) else None
    return sparse_logistic(_matrix(views, space, train), target, price=price, weights=_weights(views, train), start=start)


def _thinned(rows: int, limit: int) -> slice:
    """Evenly spaced places, at most `limit`."""
    return slice(None, None, -(-rows // limit))


def _few_rows(learner: Learner) -> Learner:
    """The learner on at most 50,000 evenly spaced rows: a few hundred coefficients need no more."""

    def fit(views: Features, train: IntArray, target: FloatArray) -> Predictor:
        if len(train) <= _LINEAR_ROWS:
            return learner(views, train, target)
        few = _shared(views, "few rows", train, lambda: train[_thinned(len(train), _LINEAR_ROWS)])
        return learner(views, few, target[_thinned(len(train), _LINEAR_ROWS)])

    return fit


def _matrix(views: Features, space: Space, train: IntArray) -> FloatArray:
    return _shared(views, f"matrix {space}", train, lambda: views.matrix(space, train))


def _moments(views: Features, space: Space, train: IntArray, target: FloatArray) -> Moments:
    matrix = _matrix(views, space, train)
    return _shared(views, f"moments {space}", train, lambda: moments(matrix, target, weights=_weights(views, train)))


def _ridge_start(views: Features, space: Space, train: IntArray, target: FloatArray) -> LinearFit:
    return _shared(views, f"ridge {space}", train, lambda: ridge_of(_moments(views, space, train, target)))


def _logistic_path(
    views: Features, space: Space, train: IntArray, target: FloatArray, penalties: tuple[float, ...]
) -> tuple[LinearFit, ...]:
    """From the strongest penalty to the weakest, each started from the one before."""

    def path() -> tuple[LinearFit, ...]:
        matrix, weights = _matrix(views, space, train), _weights(views, train)
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


def _weights(views: Features, rows: IntArray) -> FloatArray | None:
    return None if views.weights is None else views.weights[rows]


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
        data = _binned(views, train, target, settings)
        booster = lgb.train(settings, data, max(_BOOSTING_ROUNDS))
        stages = list(zip((0, *_BOOSTING_ROUNDS[:-1]), np.diff((0, *_BOOSTING_ROUNDS)).tolist(), strict=True))

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

    weights = _weights(views, train)
    if views.binned is None or 2 * len(train) < len(views.covariates):
        return lgb.Dataset(_matrix(views, "raw", train), target, weight=weights, params=settings)
    if not views.binned:
        views.binned["all"] = lgb.Dataset(views.raw, np.zeros(len(views.covariates)), params=settings).construct()
    data = cast("lgb.Dataset", views.binned["all"]).subset(train, params=settings).construct()
    data.set_label(target)
    if weights is not None:
        data.set_weight(weights)
    return data


def _of_matrix(space: Space, fits: tuple[LinearFit, ...]) -> Predictor:
    def predict(given: Features, rows: IntArray) -> FloatArray:
        return np.column_stack([fit.mean_at(given.products(space, rows, fit.coefficients)) for fit in fits])

    return predict


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
    views: Features,
    target: FloatArray,
    *,
    folds: IntArray,
    candidates: tuple[Candidate, ...],
    asked: tuple[Features, ...] | None = None,
    training: BoolArray | None = None,
) -> FloatArray:
    """Predictions for every row from models that never saw its fold, shape (asked views, n, columns).

    Parameters
    ----------
    views : what models are fitted on
    asked : what predictions are made for, row by row; default: `views` itself
    training : shape (n,), rows that models may learn from; default: all. Above 200,000 rows a random part of that size is taken
    """
    asked = (views,) if asked is None else asked
    out = np.empty((len(asked), len(target), sum(candidate.columns for candidate in candidates)))
    binned: dict[str, object] = {}
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        train = np.flatnonzero(folds != fold if training is None else (folds != fold) & training)
        if len(train) > _TRAINING_ROWS:
            train = np.sort(np.random.default_rng(int(fold)).choice(train, _TRAINING_ROWS, replace=False))
        sharing = replace(views, memo={}, binned=binned)
        predictors = [candidate.fit(sharing, train, target[train]) for candidate in candidates]
        del sharing
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            out[:, part] = _predicted(predictors, asked, part)
    return out


def _predicted(predictors: list[Predictor], asked: tuple[Features, ...], rows: IntArray) -> FloatArray:
    """Shape (asked views, rows, columns). Large views are built for these rows alone, once for all."""
    places = rows
    if not asked[0].is_kept:
        kept: dict[Space, FloatArray] = {}
        asked, places = tuple(given.part(rows, kept) for given in asked), np.arange(len(rows))
    return np.stack([np.column_stack([predict(given, places) for predict in predictors]) for given in asked])


def screen(
    views: Features,
    target: FloatArray,
    *,
    folds: IntArray,
    candidates: tuple[Candidate, ...],
    arms: FloatArray | None = None,
    training: BoolArray | None = None,
) -> tuple[Candidate, ...]:
    """The candidates worth fitting in every fold: those with at least a tenth of a stack judged on a random part.

    Up to 5,000 rows all of them; the part is a half of 5,000 to 15,000 rows, then a tenth up to 50,000. Weights are found afterwards, on all rows.

    Parameters
    ----------
    arms : shape (n,), 0 or 1; each arm then has its own stack, and the random part holds both equally where it can
    training : shape (n,), rows that count; default: all
    """
    if len(target) <= _SCREENED_ROWS:
        return candidates
    rows = np.arange(len(target)) if training is None else np.flatnonzero(training)
    limit = int(np.clip(len(rows) // 10, *_CHOICE_ROWS))
    rows = _some(rows, None if arms is None else arms[rows], limit=min(limit, max(_SCREENED_ROWS, len(rows) // 2)))
    part = views.part(rows)
    last = 1 if len(rows) >= _ONE_FOLD_ROWS else _JUDGED_FOLDS
    judged = np.minimum(folds[rows], last)
    held = np.flatnonzero(judged < last)
    kinds = [held] if arms is None else [held[arms[rows][held] == arm] for arm in (0.0, 1.0)]
    if min(len(inside) for inside in kinds) < _JUDGED_ROWS:
        return candidates
    names: set[str] = set()
    predictions = np.empty((len(rows), sum(candidate.columns for candidate in candidates)))
    for fold in range(last):
        train, test = np.flatnonzero(judged != fold), np.flatnonzero(judged == fold)
        sharing = replace(part, memo={})
        predictors = [candidate.fit(sharing, train, target[rows][train]) for candidate in candidates]
        predictions[test] = np.column_stack([predict(part, test) for predict in predictors])
    for inside in kinds:
        shares = stack(predictions[inside], target[rows][inside], candidates=candidates).describe()
        names |= {name for name, share in shares.items() if share >= min(_MIN_SHARE, max(shares.values()))}
    return tuple(candidate for candidate in candidates if candidate.name in names)


def _some(rows: IntArray, arms: FloatArray | None, *, limit: int) -> IntArray:
    """At most `limit` of the rows, as many of each arm; sorted."""
    rng = np.random.default_rng(len(rows))
    kinds = [rows] if arms is None else [rows[arms == arm] for arm in (0.0, 1.0)]
    limit //= len(kinds)
    return np.sort(np.concatenate([kind if len(kind) <= limit else rng.choice(kind, limit, replace=False) for kind in kinds]))


def used(candidates: tuple[Candidate, ...], *stacks: Stack) -> tuple[tuple[Candidate, ...], BoolArray]:
    """The candidates with weight in any stack, and which prediction columns are theirs."""
    names = {name for chosen in stacks for name, weight in zip(chosen.names, chosen.weights, strict=True) if weight > 0}
    kept = tuple(candidate for candidate in candidates if candidate.name in names)
    return kept, np.array([candidate.name in names for candidate in candidates for _ in range(candidate.columns)])


def stack(
    predictions: FloatArray, target: FloatArray, *, candidates: tuple[Candidate, ...], row_weights: FloatArray | None = None
) -> Stack:
    """Convex weights with the least squared out-of-fold error; small weights are dropped.

    Parameters
    ----------
    predictions : shape (n, columns), out of fold
    target : shape (n,)
    row_weights : shape (n,), sampling weights
    """
    from scipy.optimize import nnls

    centre = target.mean()
    root = np.ones(len(target)) if row_weights is None else np.sqrt(row_weights)
    emphasis = 1e3 * max(float(np.abs(predictions - centre).max()), 1e-12) * np.sqrt(len(target))
    design = np.vstack([(predictions - centre) * root[:, None], np.full(predictions.shape[1], emphasis)])
    weights = nnls(design, np.append((target - centre) * root, emphasis))[0]
    weights[weights < _MIN_WEIGHT] = 0.0
    names = tuple(candidate.name for candidate in candidates for _ in range(candidate.columns))
    return Stack(names=names, weights=weights / weights.sum())
