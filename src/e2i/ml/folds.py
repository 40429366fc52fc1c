"""Scores by cross-validation inside train: cheap enough for hundreds of trials, and picklable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.errors import TooFewRows
from e2i.ml.algorithms import LINEAR, Matrices, ParamValue, algorithm_spec, class_weights, row_weights
from e2i.ml.association import rank_auc
from e2i.ml.columns import infer_columns, level_codes, target_values
from e2i.ml.preprocessing import apply_preprocessor, fit_preprocessor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from e2i.domain.experiments import ProblemType
    from e2i.ml.columns import FloatArray, IntArray

METRICS: dict[ProblemType, str] = {"binary_classification": "roc_auc", "regression": "neg_root_mean_squared_error"}
MINIMUM_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold, ready to fit: matrices of the inside and of the outside. Shapes (n, k), (n,), (m, k), (m,)."""

    x: FloatArray
    y: FloatArray
    x_out: FloatArray
    y_out: FloatArray


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Scores over folds, higher is better; seconds are for one fit on average."""

    scores: tuple[float, ...]
    mean: float
    std: float
    fit_seconds: float


def assign_folds(y: FloatArray, *, folds: int, seed: int, problem_type: ProblemType, groups: IntArray | None = None) -> IntArray:
    """The fold of each row: classes spread evenly; with `groups`, whole groups. Shape (n,), values 0 to folds - 1.

    Raises
    ------
    TooFewRows
        Fewer than two rows (or groups, or rows of a class) for each fold.
    """
    rng = np.random.default_rng(seed)
    member = np.arange(len(y)) if groups is None else groups
    size = int(member.max(initial=-1)) + 1
    rows = np.bincount(member, minlength=size)
    if size < MINIMUM_CASES * folds:
        raise TooFewRows(f"{size} rows or groups cannot make {folds} folds.", where="train split", advice="Give more rows or fewer folds.")
    order = rng.permutation(size)
    if problem_type == "binary_classification":
        cases = int(min(y.sum(), len(y) - y.sum()))
        if cases < MINIMUM_CASES * folds:
            raise TooFewRows(
                f"{cases} rows of the rarer class cannot make {folds} folds.", where="train split", advice="Give more rows or fewer folds."
            )
        share = np.bincount(member, weights=y, minlength=size) / np.maximum(rows, 1)
        order = order[np.argsort(share[order], kind="stable")]
    fold_of = np.empty(size, dtype=np.int64)
    fold_of[order] = np.arange(size) % folds
    return fold_of[member]


def prepare_folds(
    frame: pl.DataFrame,
    target: str,
    *,
    features: Sequence[str],
    problem_type: ProblemType,
    seed: int,
    folds: int = 3,
    scale: bool = False,
    group: str | None = None,
) -> tuple[Fold, ...]:
    """Matrices of each fold, preprocessing fitted on the inside only; done once, then shared by every trial.

    Parameters
    ----------
    frame : shape (n, k), the train split
    scale : True for linear models, see `AlgorithmSpec.needs_scaling`
    group : column whose values must not be divided

    Raises
    ------
    SchemaMismatch, DataError, TooFewRows
    """
    y = target_values(frame[target], problem_type)
    columns = infer_columns(frame, features)
    groups = None if group is None else level_codes(frame[group])[0]
    fold_of = assign_folds(y, folds=folds, seed=seed, problem_type=problem_type, groups=groups)
    prepared = []
    for fold in range(folds):
        inside = fold_of != fold
        transformer, x = fit_preprocessor(frame.filter(inside), columns, scale=scale)
        x_out = apply_preprocessor(transformer, frame.filter(~inside), columns)
        prepared.append(Fold(x=x, y=y[inside], x_out=x_out, y_out=y[~inside]))
    return tuple(prepared)


@dataclass(frozen=True, kw_only=True)
class FoldScorer:
    """`scorer(params, fold)`: the score of `algorithm` on one fold, higher is better. Picklable; deterministic for a seed."""

    folds: tuple[Fold, ...]
    algorithm: str
    problem_type: ProblemType
    seed: int
    threads: int = 1

    def __call__(self, params: Mapping[str, ParamValue], fold: int) -> float:
        """Fit on the inside of `fold` with the defaults overridden by `params`, score on its outside."""
        spec = algorithm_spec(self.algorithm)
        part = self.folds[fold]
        is_class = self.problem_type == "binary_classification"
        weight = row_weights(part.y, class_weights(part.y)) if is_class else None
        data = Matrices(x=part.x, y=part.y, weight=weight)
        estimator = spec.fit({**spec.defaults, **params}, data, self.problem_type, self.seed, self.threads).estimator
        if is_class:
            return rank_auc(np.asarray(estimator.predict_proba(part.x_out)[:, 1], dtype=np.float64), part.y_out > 0.5)
        error = np.asarray(estimator.predict(part.x_out), dtype=np.float64) - part.y_out
        return -float(np.sqrt(np.mean(error**2)))


def cross_validate(scorer: FoldScorer) -> CrossValidation:
    """All folds of a scorer, with the algorithm's own parameters."""
    started = time.perf_counter()
    scores = tuple(scorer({}, fold) for fold in range(len(scorer.folds)))
    return CrossValidation(
        scores=scores,
        mean=float(np.mean(scores)),
        std=float(np.std(scores)),
        fit_seconds=(time.perf_counter() - started) / len(scores),
    )


def baseline_scores(scaled: Sequence[Fold], *, problem_type: ProblemType, seed: int) -> dict[str, float]:
    """What a model must beat, on the same folds (prepared with `scale`): `constant` (prevalence or mean) and `linear` (defaults)."""
    if problem_type == "binary_classification":
        constant = 0.5
    else:
        constant = float(np.mean([-np.sqrt(np.mean((part.y_out - part.y.mean()) ** 2)) for part in scaled]))
    scorer = FoldScorer(folds=tuple(scaled), algorithm=LINEAR[problem_type], problem_type=problem_type, seed=seed)
    return {"constant": constant, "linear": cross_validate(scorer).mean}
