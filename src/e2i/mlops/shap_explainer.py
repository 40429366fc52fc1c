"""SHAP of the model on the data: which features move its predictions, in which direction, and which of them together."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from e2i.domain.experiments import Explanation, FeatureImportance
from e2i.errors import DataError
from e2i.mlops.shap_values import Contributions, affordable_rows, contributions, xgboost_interactions
from e2i.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from e2i.ml.training import FittedModel

FloatArray = npt.NDArray[np.float64]
MAXIMUM_ROWS = 1000
TOP_INTERACTIONS = 10
_TOLERANCE = 1e-3
_WEAK = 0.3
_PAIRED_FEATURES = 8
_BINS = 10


class ShapExplainer:
    """`ModelExplainer` by native tree contributions, the linear closed form, and `shap` elsewhere."""

    def explain(self, model: FittedModel, frame: pl.DataFrame, *, folder: Path, seed: int, max_samples: int = MAXIMUM_ROWS) -> Explanation:
        """Explain `model` on at most `max_samples` (and 1,000) rows of `frame`, drawn by `seed`.

        Columns that were made from one feature (levels, a missing indicator) are summed back to it. Slow methods take fewer
        rows; `sample_size` says how many. Values are kept in `folder`/shap_values.npz: `values` (n, k), `data` (n, k; levels as
        codes, NaN where missing), `features` (k,) and `ordered` (k,), False where the data of a feature have no order.

        Returns
        -------
        Explanation
            `importance` is the mean absolute contribution on the model's raw scale (log-odds, probability or the target's
            unit, see `method`); an interaction's strength is on the same scale.

        Raises
        ------
        DataError
            There are no rows, or contributions and base value do not add up to the model's output.
        """
        started = time.perf_counter()
        if frame.height == 0:
            raise DataError("there are no rows to explain.", where=model.algorithm, advice="Give the split that the model is judged on.")
        chosen = np.random.default_rng(seed).permutation(frame.height)[: min(max_samples, MAXIMUM_ROWS)]
        sample = frame[chosen.tolist()]
        background = model.transform(sample)
        rows = affordable_rows(model, sample.height)
        sample, matrix = sample.head(rows), background[:rows]
        found = contributions(model, matrix, background=background, seed=seed)
        additivity_error = _check_additivity(model, found, matrix)
        member = _membership(model)
        values = found.values @ member
        data, ordered = _data_of(model, sample)
        importance = np.abs(values).mean(axis=0)
        order = np.argsort(-importance, kind="stable")
        top = tuple(
            FeatureImportance(
                feature=model.features[index],
                importance=float(importance[index]),
                direction=_direction(data[:, index], values[:, index]) if ordered[index] else "mixed",
            )
            for index in order
        )
        return Explanation(
            method=found.method,
            sample_size=rows,
            base_value=float(found.base.mean()),
            top_features=top,
            interactions=_interactions(model, matrix, values=values, data=data, member=member),
            additivity_error=additivity_error,
            seconds=time.perf_counter() - started,
            values_ref=str(_save(folder, values=values, data=data, features=model.features, ordered=ordered)),
        )


def _check_additivity(model: FittedModel, found: Contributions, matrix: FloatArray) -> float:
    """Largest distance between contributions plus base and the raw output, and between the raw output and the prediction."""
    total = found.values.sum(axis=1) + found.base
    error = float(np.abs(total - found.margin).max())
    limit = _TOLERANCE * max(1.0, float(np.abs(found.margin).max()))
    predicted = 1.0 / (1.0 + np.exp(-np.clip(total, -500, 500))) if found.scale == "log_odds" else total
    scores = model.score_matrix(matrix)
    distance = float(np.abs(predicted - scores).max())
    # Written so that NaN is refused, too.
    if not (error <= limit and distance <= _TOLERANCE * max(1.0, float(np.abs(scores).max()))):
        raise DataError(
            f"contributions do not add up to the prediction: off by {max(error, distance):.3g}.",
            where=f"SHAP of {model.algorithm} by {found.method}",
            advice="Do not use this explanation; the library and the fitted model disagree. Refit the model with the installed version.",
        )
    return error


def _membership(model: FittedModel) -> FloatArray:
    """Shape (matrix columns, features): 1 where a matrix column was made from a feature."""
    position = {name: index for index, name in enumerate(model.features)}
    member = np.zeros((len(model.feature_sources), len(model.features)))
    for row, source in enumerate(model.feature_sources):
        member[row, position[source]] = 1.0
    return member


def _data_of(model: FittedModel, sample: pl.DataFrame) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The features as numbers, shape (n, k), NaN where missing; and which of them have an order."""
    import polars as pl

    data = np.empty((sample.height, len(model.columns)))
    for index, column in enumerate(model.columns):
        series = sample[column.name]
        if column.kind == "categorical":
            series = series.cast(pl.String).rank("dense")
        elif column.kind == "date":
            series = series.cast(pl.Datetime("ms")).to_physical()
        data[:, index] = series.cast(pl.Float64).to_numpy()
    return data, np.array([column.kind != "categorical" for column in model.columns])


def _direction(data: FloatArray, values: FloatArray) -> Literal["positive", "negative", "mixed"]:
    """Sign of the rank correlation of a feature with its contribution; `mixed` below 0.3, where a sign would mislead."""
    correlation = _rank_correlation(data, values)
    if abs(correlation) < _WEAK:
        return "mixed"
    return "positive" if correlation > 0 else "negative"


def _rank_correlation(first: FloatArray, second: FloatArray) -> float:
    from scipy.stats import rankdata

    known = np.isfinite(first)
    if known.sum() < 3:
        return 0.0
    a, b = rankdata(first[known]), rankdata(second[known])
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _interactions(
    model: FittedModel, matrix: FloatArray, *, values: FloatArray, data: FloatArray, member: FloatArray
) -> tuple[tuple[str, str, float], ...]:
    """At most ten pairs, strongest first: mean absolute interaction value for xgboost, else by correlation. A linear model has none."""
    if hasattr(model.estimator, "coef_") and model.framework == "sklearn":
        return ()
    names = model.features
    if model.framework == "xgboost":
        # (m, k, k) to features; both halves of a pair belong to it.
        paired = np.einsum("ai,nab,bj->nij", member, xgboost_interactions(model, matrix), member, optimize=True)
        strength = np.abs(paired + paired.transpose(0, 2, 1)).mean(axis=0)
        pairs = [(names[a], names[b], float(strength[a, b])) for a, b in itertools.combinations(range(len(names)), 2)]
    else:
        top = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:_PAIRED_FEATURES]
        pairs = [
            (
                names[a],
                names[b],
                _paired_strength(values[:, a], data[:, a], data[:, b]) + _paired_strength(values[:, b], data[:, b], data[:, a]),
            )
            for a, b in itertools.combinations(sorted(top.tolist()), 2)
        ]
    found = [pair for pair in pairs if pair[2] > 0]
    return tuple(sorted(found, key=lambda pair: -pair[2])[:TOP_INTERACTIONS])


def _paired_strength(contribution: FloatArray, own: FloatArray, other: FloatArray) -> float:
    """How far one feature's contribution moves with another one's value while its own value hardly changes.

    Within bins of its own value: standard deviation of the contribution that is explained by the other feature, after both were
    freed of the own value (the idea of shap's `approximate_interactions`); 0 where chance explains it.
    """
    known = np.isfinite(own) & np.isfinite(other)
    contribution, own, other = contribution[known], own[known], other[known]
    if len(own) < 5 * _BINS:
        return 0.0
    edges = np.unique(np.quantile(own, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, own, side="right")
    explained, statistic, used = 0.0, 0.0, 0
    for bin_ in range(len(edges) + 1):
        inside = bins == bin_
        if inside.sum() < 10:
            continue
        left, right = _freed_of(own[inside], contribution[inside]), _freed_of(own[inside], other[inside])
        spread = float(left.std() * right.std())
        if spread < 1e-12:
            continue
        size, share = len(left), float(np.mean(left * right) / spread) ** 2
        used += 1
        statistic += size * share
        explained += size * float(left.var()) * (share - (1 - share) / size)
    # By chance the statistic is chi-squared: `used` on average, with variance 2 * `used`.
    if statistic < used + 4 * np.sqrt(2 * used) or explained <= 0:
        return 0.0
    return float(np.sqrt(explained / len(own)))


def _freed_of(cause: FloatArray, values: FloatArray) -> FloatArray:
    """Residuals of the straight line of `values` on `cause`."""
    centred, values = cause - cause.mean(), values - values.mean()
    square = float(centred @ centred)
    return values if square < 1e-12 else values - centred * (float(centred @ values) / square)


def _save(folder: Path, *, values: FloatArray, data: FloatArray, features: Sequence[str], ordered: npt.NDArray[np.bool_]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shap_values.npz"
    with replacing(path) as (part,), part.open("wb") as file:
        np.savez_compressed(file, values=values.astype(np.float32), data=data, features=np.array(features, dtype=np.str_), ordered=ordered)
    return path
