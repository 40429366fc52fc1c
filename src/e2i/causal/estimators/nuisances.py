"""Conditional means out of fold: a small library of learners, weighted by their out-of-fold loss.

Weights are found on the cross-fitted predictions themselves ("short-stacking", Ahrens, Hansen, Schaffer and Wiemann 2024):
one non-negative least squares problem instead of a second layer of folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimators.features import Features, Space
from e2i.causal.estimators.learners import (
    BOOSTING_ROUNDS,
    PENALTIES,
    Kind,
    Learner,
    Predictor,
    boosting_learner,
    by_arm_learner,
    logistic_learner,
    on_few_rows,
    poisson_learner,
    ridge_learner,
    sparse_learner,
)
from e2i.causal.estimators.steps import sparse_steps_learner

FOLDS = 5
_MIN_WEIGHT = 0.03
_SCREENED_ROWS = 5_000
_CHOICE_ROWS = (15_000, 50_000)
_JUDGED_FOLDS = 2
_ONE_FOLD_ROWS = 5_000
_JUDGED_ROWS = 200
_MIN_SHARE = 0.1
_TRAINING_ROWS = 200_000
"""a learner sees at most so many rows of its folds, drawn at random; predictions are made for all rows"""
_BLOCK = 50_000


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
        Candidate(name="linear", columns=2, fit=logistic_learner("plain", (30.0, 1.0)))
        if is_binary
        else Candidate(name="linear", columns=1, fit=ridge_learner("plain")),
        Candidate(name="quadratic", columns=2, fit=logistic_learner("basis", PENALTIES))
        if is_binary
        else Candidate(name="quadratic", columns=1, fit=ridge_learner("basis")),
        Candidate(name="sparse_quadratic", columns=1, fit=sparse_learner(kind)),
        Candidate(name="sparse_steps", columns=1, fit=sparse_steps_learner(kind)),
        Candidate(name="boosting", columns=len(BOOSTING_ROUNDS), fit=boosting_learner(kind, seed)),
    ]
    if by_arm:
        candidates.append(Candidate(name="sparse_quadratic_by_arm", columns=1, fit=by_arm_learner(sparse_learner(kind))))
    if kind == "nonnegative":
        candidates.append(Candidate(name="log_linear", columns=1, fit=poisson_learner(1.0)))
    return tuple(each if each.name == "boosting" else replace(each, fit=on_few_rows(each.fit)) for each in candidates)


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

    Up to 5,000 rows all of them; the part is a half of 5,000 to 15,000 rows, then a tenth up to 50,000. Weights
    are found afterwards, on all rows.

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
