"""Which columns go to the model; decided on train alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.ml.association import correlation, level_scores, rank_auc
from e2i.ml.columns import as_float, infer_columns, level_codes, target_values
from e2i.ml.features import FeaturePlan, FeatureStep, apply_features
from e2i.ml.training import fit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from e2i.domain.experiments import ProblemType
    from e2i.ml.algorithms import ParamValue
    from e2i.ml.columns import FloatArray

CONSTANT_SHARE = 0.995
MAXIMUM_CORRELATION = 0.95
MAXIMUM_CROSSES = 10
CROSSED_COLUMNS = 40
CROSS_ALPHA = 0.01
MAXIMUM_ROWS = 20_000


def select_features(
    train: pl.DataFrame,
    plan: FeaturePlan,
    *,
    target: str,
    problem_type: ProblemType,
    seed: int,
    maximum: int = 100,
) -> FeaturePlan:
    """Drop what tells nothing or tells it twice, add at most ten products that tell more than their parts.

    What goes: near-constant columns (one value in 99.5 % of the rows), duplicates, of each pair with absolute correlation from 0.95
    the generated one or else the one that alone says less about the target, and beyond `maximum` the least important in a
    boosted model.

    Parameters
    ----------
    train : shape (n, k)
        With the columns of `plan.steps` already added by `apply_features` to the whole history; what is missing is added here.
    plan : from `plan_features`

    Returns
    -------
    The plan with `selected` and `dropped` set, and only the steps that are needed.

    Raises
    ------
    SchemaMismatch, DataError
        A column is missing or unusable.
    """
    table = apply_features(train, plan)
    table = table[np.random.default_rng(seed).permutation(table.height)[:MAXIMUM_ROWS]]
    y = target_values(table[target], problem_type)
    dropped = dict(plan.dropped)
    kept = _varying(table, plan.selected, dropped)
    usefulness = {name: _usefulness(table[name], y, problem_type) for name in kept}
    generated = {step.name for step in plan.steps}
    kept = _unlike(table, kept, usefulness, dropped, generated=generated)
    crosses = _crosses(table, [name for name in kept if name not in generated], y)
    if crosses:
        plan = replace(plan, steps=(*plan.steps, *crosses))
        table = apply_features(table, plan)
        usefulness |= {step.name: _usefulness(table[step.name], y, problem_type) for step in crosses}
        generated |= {step.name for step in crosses}
        kept = _unlike(table, [*kept, *(step.name for step in crosses)], usefulness, dropped, generated=generated)
    if len(kept) > maximum:
        kept = _most_important(table, kept, dropped, target=target, problem_type=problem_type, seed=seed, maximum=maximum)
    chosen = set(kept)
    steps = tuple(step for step in plan.steps if step.name in chosen)
    return replace(plan, steps=steps, selected=tuple(kept), dropped=dropped)


def _varying(table: pl.DataFrame, names: Sequence[str], dropped: dict[str, str]) -> list[str]:
    kept = []
    for name in names:
        share = table[name].value_counts(sort=True)["count"][0] / table.height
        if share >= CONSTANT_SHARE:
            dropped[name] = f"nearly constant: one value in {share:.1%} of the rows"
        else:
            kept.append(name)
    return kept


def _numbers(series: pl.Series) -> FloatArray:
    values = as_float(series)
    finite = np.isfinite(values)
    return np.where(finite, values, np.median(values[finite]) if finite.any() else 0.0)


def _usefulness(series: pl.Series, y: FloatArray, problem_type: ProblemType) -> float:
    """How much the column alone says, in [0, 1]: |2 AUC - 1|, or absolute correlation."""
    is_category = series.dtype in (pl.String, pl.Categorical, pl.Enum)
    values = level_scores(*level_codes(series), y) if is_category else _numbers(series)
    if problem_type == "regression":
        return abs(correlation(values, y))
    area = rank_auc(values, y > 0.5)
    return abs(2.0 * area - 1.0) if np.isfinite(area) else 0.0


def _crosses(table: pl.DataFrame, names: Sequence[str], y: FloatArray) -> tuple[FeatureStep, ...]:
    """The strongest products of two numbers that tell more than the two and their squares do, at 1 % over all pairs together."""
    numbers = [column.name for column in infer_columns(table, names) if column.kind == "numeric"][:CROSSED_COLUMNS]
    if len(numbers) < 2:
        return ()
    z = np.column_stack([np.clip(_standard(_numbers(table[name])), -4.0, 4.0) for name in numbers])
    squares = z * z
    parts = np.column_stack([np.ones(len(y)), z, squares])
    residual = y - parts @ np.linalg.lstsq(parts, y, rcond=None)[0]
    # Covariance of every product with the residual, and every product's variance, as three matrix products.
    shared = z.T @ z / len(y)
    spread = np.sqrt(np.maximum(squares.T @ squares / len(y) - shared**2, 1e-12)) * max(float(residual.std()), 1e-12)
    strength = np.abs(z.T @ (z * residual[:, None]) / len(y)) / spread
    pairs = list(combinations(range(len(numbers)), 2))
    bound = NormalDist().inv_cdf(1.0 - CROSS_ALPHA / 2.0 / len(pairs)) / np.sqrt(len(y))
    ranked = sorted(pairs, key=lambda pair: -strength[pair])[:MAXIMUM_CROSSES]
    steps = [
        FeatureStep(name=f"{numbers[left]}_x_{numbers[right]}", kind="product", inputs=(numbers[left], numbers[right]))
        for left, right in ranked
        if strength[left, right] > bound
    ]
    return tuple(step for step in steps if step.name not in table.columns)


def _standard(values: FloatArray) -> FloatArray:
    spread = values.std()
    return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0))


def _unlike(
    table: pl.DataFrame, names: Sequence[str], usefulness: Mapping[str, float], dropped: dict[str, str], *, generated: Collection[str]
) -> list[str]:
    """The names left, in their order, when of each like pair one goes: a generated column before a given one, else the less useful."""
    columns = infer_columns(table, names)
    numbers = [column.name for column in columns if column.kind != "categorical"]
    order = {name: place for place, name in enumerate(names)}
    ranked = sorted(numbers, key=lambda name: (name in generated, -round(usefulness[name], 6), order[name]))
    matrix = np.column_stack([_standard(_numbers(table[name])) for name in ranked]) if ranked else np.empty((table.height, 0))
    likeness = np.abs(matrix.T @ matrix) / max(table.height, 1)
    taken: list[int] = []
    for index, name in enumerate(ranked):
        close = [other for other in taken if likeness[index, other] >= MAXIMUM_CORRELATION]
        if close:
            dropped[name] = f"correlation {likeness[index, close[0]]:.3f} with '{ranked[close[0]]}', which is kept"
        else:
            taken.append(index)
    keep = {ranked[index] for index in taken}
    seen: dict[bytes, str] = {}
    for column in columns:
        if column.kind == "categorical":
            twin = seen.setdefault(_fingerprint(table[column.name]), column.name)
            if twin == column.name:
                keep.add(column.name)
            else:
                dropped[column.name] = f"the same levels as '{twin}'"
    return [name for name in names if name in keep]


def _fingerprint(series: pl.Series) -> bytes:
    """Equal for columns that divide the rows alike, whatever the levels are called."""
    codes, n_levels = level_codes(series)
    _, first = np.unique(codes, return_index=True)
    renamed = np.empty(n_levels, dtype=np.int64)
    renamed[np.argsort(first)] = np.arange(n_levels)
    return renamed[codes].tobytes()


def _most_important(
    table: pl.DataFrame,
    names: Sequence[str],
    dropped: dict[str, str],
    *,
    target: str,
    problem_type: ProblemType,
    seed: int,
    maximum: int,
) -> list[str]:
    params: dict[str, ParamValue] = {"n_estimators": 60, "importance_type": "gain"}
    model = fit("lightgbm", table, target, params, problem_type=problem_type, features=names, seed=seed)
    gain = dict.fromkeys(names, 0.0)
    for source, value in zip(model.feature_sources, model.estimator.feature_importances_, strict=True):
        gain[source] += float(value)
    best = set(sorted(names, key=lambda name: -gain[name])[:maximum])
    for name in names:
        if name not in best:
            dropped[name] = f"less important than {maximum} others"
    return [name for name in names if name in best]
