"""A small fitted model and the frame that it was fitted on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.ml.training import FittedModel, fit

if TYPE_CHECKING:
    from e2i.domain.experiments import ProblemType

FEATURES = ("decile", "calls", "specialty", "is_target", "last_call")


@cache
def frame(rows: int = 300) -> pl.DataFrame:
    """HCPs with numbers, levels, a boolean, a date and missing values."""
    chance = np.random.default_rng(7)
    calls = chance.poisson(3, rows).astype(float)
    specialty = chance.choice(["rheumatology", "dermatology", "allergy"], rows)
    days = chance.integers(0, 900, rows)
    score = 0.4 * calls + (specialty == "allergy") - 1.5
    return pl.DataFrame(
        {
            "decile": chance.integers(1, 11, rows),
            "calls": [None if missing else value for missing, value in zip(chance.random(rows) < 0.1, calls, strict=True)],
            "specialty": specialty.tolist(),
            "is_target": (chance.random(rows) < 0.5).tolist(),
            "last_call": pl.Series(days).cast(pl.Int32).cast(pl.Date),
            "converted": (chance.random(rows) < 1 / (1 + np.exp(-score))).astype(int),
            "nrx": calls * 2 + chance.normal(size=rows),
        }
    )


@cache
def model(algorithm: str = "xgboost", problem_type: ProblemType = "binary_classification") -> FittedModel:
    """Small on purpose."""
    size = {"xgboost": "n_estimators", "lightgbm": "n_estimators", "random_forest": "n_estimators"}
    params = {size[algorithm]: 12} if algorithm in size else {}
    target = "nrx" if problem_type == "regression" else "converted"
    return fit(algorithm, frame(), target, params, problem_type=problem_type, features=FEATURES, seed=3)
