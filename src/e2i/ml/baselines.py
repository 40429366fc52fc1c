"""What the training rows look like: the statistics against which drift is measured later."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.domain.quality import BaselineMetrics, FeatureBaseline
from e2i.ml.association import correlation
from e2i.ml.columns import as_float, kind_of, require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from e2i.domain.experiments import ProblemType
    from e2i.ml.columns import ColumnKind, FloatArray

KEPT_LEVELS = 50
MINIMUM_PAIRS = 30
"""rows known in both columns below which no correlation is told"""


def train_baselines(
    train: pl.DataFrame, *, features: Sequence[str], target: str, problem_type: ProblemType, computed_at: datetime
) -> BaselineMetrics:
    """Statistics of `features` and the target over the rows of the train split.

    Quantiles interpolate linearly; dates count as days since 1970; of a category the 50 most frequent levels are kept, as
    shares of the known values; correlations are Pearson's over rows known in both columns, each pair once.

    Parameters
    ----------
    train : shape (n, k), the train split and nothing else
    computed_at : stamped on the result; the function reads no clock

    Raises
    ------
    SchemaMismatch
        A column is missing.
    """
    require_columns(train, [*features, target], where="baselines")
    kinds = {name: kind_of(train.schema[name], name) for name in features}
    numbers = {name: as_float(train[name]) for name in (*features, target) if kinds.get(name, "numeric") != "categorical"}
    rate = float(np.nanmean(numbers[target])) if train.height else None
    return BaselineMetrics(
        training_samples=train.height,
        features=tuple(_feature(train[name], kinds[name]) for name in features),
        target_rate=rate if problem_type == "binary_classification" else None,
        target_mean=rate if problem_type == "regression" else None,
        correlations=_correlations(numbers),
        computed_at=computed_at,
    )


def _feature(series: pl.Series, kind: ColumnKind) -> FeatureBaseline:
    if kind == "categorical":
        known = series.drop_nulls().cast(pl.String)
        counts = known.value_counts(sort=True).head(KEPT_LEVELS)
        levels = {str(level): count / len(known) for level, count in counts.iter_rows()}
        return FeatureBaseline(column=series.name, missing_share=series.null_count() / max(len(series), 1), levels=levels)
    values = as_float(series)
    known_values = values[~np.isnan(values)]
    missing_share = 1 - len(known_values) / max(len(values), 1)
    if not len(known_values):
        return FeatureBaseline(column=series.name, missing_share=missing_share)
    p25, p50, p75 = np.quantile(known_values, [0.25, 0.50, 0.75])
    return FeatureBaseline(
        column=series.name,
        missing_share=missing_share,
        mean=float(known_values.mean()),
        std=float(known_values.std(ddof=1)) if len(known_values) > 1 else None,
        minimum=float(known_values.min()),
        p25=float(p25),
        p50=float(p50),
        p75=float(p75),
        maximum=float(known_values.max()),
    )


def _correlations(numbers: dict[str, FloatArray]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for first, second in combinations(numbers, 2):
        both = ~(np.isnan(numbers[first]) | np.isnan(numbers[second]))
        one, other = numbers[first][both], numbers[second][both]
        if len(one) >= MINIMUM_PAIRS and one.min() < one.max() and other.min() < other.max():
            found.setdefault(first, {})[second] = correlation(one, other)
    return found
