"""The algorithms on offer: what they are good for, how they start, how they are fitted."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from e2i.domain.nearest import suggestion
from e2i.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from e2i.domain.experiments import ProblemType
    from e2i.ml.columns import FloatArray

ParamValue = float | int | str | bool | None
Imbalance = Literal["none", "moderate", "severe", "extreme"]
EARLY_STOPPING_ROUNDS = 20
BOTH: tuple[ProblemType, ...] = ("binary_classification", "regression")
LINEAR: dict[ProblemType, str] = {"binary_classification": "logistic_regression", "regression": "ridge_regression"}
"""the linear model of each kind of target"""


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """What an estimator is fitted on; validation matrices are there for early stopping only. Arrays of shape (n, k), (n,), (n,)."""

    x: FloatArray
    y: FloatArray
    weight: FloatArray | None
    x_validation: FloatArray | None = None
    y_validation: FloatArray | None = None
    weight_validation: FloatArray | None = None


@dataclass(frozen=True, kw_only=True)
class FittedEstimator:
    """An estimator and how many rounds it keeps (None where the algorithm has none)."""

    estimator: Any
    epochs: int | None
    early_stopped: bool


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """An algorithm. `memory_gb`, `interpretability` and `scalability` (0 to 1) are rules of thumb for ranking."""

    name: str
    framework: str
    problem_types: tuple[ProblemType, ...]
    defaults: dict[str, ParamValue]
    needs_scaling: bool
    interpretability: float
    scalability: float
    memory_gb: float
    fit: Callable[[Mapping[str, ParamValue], Matrices, ProblemType, int, int], FittedEstimator]
    """(parameters, matrices, problem type, seed, threads) -> fitted estimator; parameters override the defaults"""


def _fit_linear(params: Mapping[str, ParamValue], data: Matrices, problem_type: ProblemType, seed: int, threads: int) -> FittedEstimator:
    from sklearn.linear_model import LogisticRegression, Ridge

    del threads
    settings: dict[str, Any] = dict(params)
    strength = float(settings.pop("C", 1.0))
    if problem_type == "regression":
        # One parameter for both: C is the inverse strength of the penalty, as in scikit-learn's logistic regression.
        settings.pop("max_iter", None)
        estimator = Ridge(alpha=settings.pop("alpha", 1.0 / strength), random_state=seed, **settings)
    else:
        estimator = LogisticRegression(C=strength, random_state=seed, **settings)
    estimator.fit(data.x, data.y, sample_weight=data.weight)
    return FittedEstimator(estimator=estimator, epochs=None, early_stopped=False)


def _fit_forest(params: Mapping[str, ParamValue], data: Matrices, problem_type: ProblemType, seed: int, threads: int) -> FittedEstimator:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind: Any = RandomForestRegressor if problem_type == "regression" else RandomForestClassifier
    estimator = kind(random_state=seed, n_jobs=threads, **params)
    estimator.fit(data.x, data.y, sample_weight=data.weight)
    return FittedEstimator(estimator=estimator, epochs=None, early_stopped=False)


def _fit_xgboost(params: Mapping[str, ParamValue], data: Matrices, problem_type: ProblemType, seed: int, threads: int) -> FittedEstimator:
    from xgboost import XGBClassifier, XGBRegressor

    kind: Any = XGBRegressor if problem_type == "regression" else XGBClassifier
    watched = data.x_validation is not None
    estimator = kind(
        random_state=seed,
        n_jobs=threads,
        tree_method="hist",
        eval_metric="rmse" if problem_type == "regression" else "logloss",
        early_stopping_rounds=EARLY_STOPPING_ROUNDS if watched else None,
        **params,
    )
    evaluation: dict[str, Any] = {}
    if watched:
        evaluation["eval_set"] = [(data.x_validation, data.y_validation)]
        if data.weight_validation is not None:
            evaluation["sample_weight_eval_set"] = [data.weight_validation]
    estimator.fit(data.x, data.y, sample_weight=data.weight, verbose=False, **evaluation)
    rounds = int(estimator.get_booster().num_boosted_rounds())
    epochs = int(estimator.best_iteration) + 1 if watched else rounds
    return FittedEstimator(estimator=estimator, epochs=epochs, early_stopped=rounds < int(estimator.n_estimators or 100))


_LIGHTGBM_NAMES = {"feature_fraction": "colsample_bytree", "bagging_fraction": "subsample", "bagging_freq": "subsample_freq"}


def _fit_lightgbm(params: Mapping[str, ParamValue], data: Matrices, problem_type: ProblemType, seed: int, threads: int) -> FittedEstimator:
    from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping

    kind: Any = LGBMRegressor if problem_type == "regression" else LGBMClassifier
    settings = {_LIGHTGBM_NAMES.get(name, name): value for name, value in params.items()}
    estimator = kind(random_state=seed, n_jobs=threads, verbosity=-1, deterministic=True, force_row_wise=True, **settings)
    evaluation: dict[str, Any] = {}
    if data.x_validation is not None:
        evaluation = {
            "eval_X": (data.x_validation,),
            "eval_y": (data.y_validation,),
            "eval_sample_weight": [data.weight_validation] if data.weight_validation is not None else None,
            "eval_metric": "rmse" if problem_type == "regression" else "binary_logloss",
            "callbacks": [early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)],
        }
    estimator.fit(data.x, data.y, sample_weight=data.weight, **evaluation)
    rounds = int(estimator.booster_.current_iteration())
    epochs = int(estimator.best_iteration_) if data.x_validation is not None else rounds
    return FittedEstimator(estimator=estimator, epochs=epochs, early_stopped=epochs < int(estimator.n_estimators))


def _fit_catboost(params: Mapping[str, ParamValue], data: Matrices, problem_type: ProblemType, seed: int, threads: int) -> FittedEstimator:
    from catboost import CatBoostClassifier, CatBoostRegressor, Pool

    kind: Any = CatBoostRegressor if problem_type == "regression" else CatBoostClassifier
    estimator = kind(random_seed=seed, thread_count=threads, verbose=False, allow_writing_files=False, **params)
    evaluation: dict[str, Any] = {}
    if data.x_validation is not None:
        watched = Pool(data.x_validation, data.y_validation, weight=data.weight_validation)
        evaluation = {"eval_set": watched, "early_stopping_rounds": EARLY_STOPPING_ROUNDS}
    estimator.fit(data.x, data.y, sample_weight=data.weight, **evaluation)
    epochs = int(estimator.tree_count_)
    return FittedEstimator(estimator=estimator, epochs=epochs, early_stopped=epochs < int(estimator.get_all_params()["iterations"]))


def _specs() -> dict[str, AlgorithmSpec]:
    specs = [
        AlgorithmSpec(
            name="logistic_regression", framework="sklearn", problem_types=("binary_classification",), needs_scaling=True,
            defaults={"C": 1.0, "max_iter": 1000},
            interpretability=1.0, scalability=1.0, memory_gb=0.1, fit=_fit_linear,
        ),
        AlgorithmSpec(
            name="ridge_regression", framework="sklearn", problem_types=("regression",), needs_scaling=True,
            defaults={"C": 1.0},
            interpretability=1.0, scalability=1.0, memory_gb=0.1, fit=_fit_linear,
        ),
        AlgorithmSpec(
            name="random_forest", framework="sklearn", problem_types=BOTH, needs_scaling=False,
            defaults={"n_estimators": 100, "max_depth": 10, "min_samples_leaf": 5, "max_features": "sqrt"},
            interpretability=0.5, scalability=0.7, memory_gb=3, fit=_fit_forest,
        ),
        AlgorithmSpec(
            name="xgboost", framework="xgboost", problem_types=BOTH, needs_scaling=False,
            defaults={"n_estimators": 200, "max_depth": 5, "learning_rate": 0.08, "subsample": 0.9, "colsample_bytree": 0.8},
            interpretability=0.6, scalability=0.8, memory_gb=2, fit=_fit_xgboost,
        ),
        AlgorithmSpec(
            name="lightgbm", framework="lightgbm", problem_types=BOTH, needs_scaling=False,
            defaults={"n_estimators": 200, "num_leaves": 31, "learning_rate": 0.05, "min_child_samples": 20, "subsample": 0.9,
                      "subsample_freq": 1, "colsample_bytree": 0.8},
            interpretability=0.6, scalability=0.95, memory_gb=1.5, fit=_fit_lightgbm,
        ),
    ]  # fmt: skip
    catboost = importlib.util.find_spec("catboost")
    if catboost is not None and catboost.origin is not None:
        specs.append(
            AlgorithmSpec(
                name="catboost", framework="catboost", problem_types=BOTH, needs_scaling=False,
                defaults={"iterations": 300, "depth": 6, "learning_rate": 0.06},
                interpretability=0.6, scalability=0.8, memory_gb=2, fit=_fit_catboost,
            )
        )  # fmt: skip
    return {spec.name: spec for spec in specs}


ALGORITHMS: dict[str, AlgorithmSpec] = _specs()


def algorithm_spec(name: str) -> AlgorithmSpec:
    """The spec of `name`. Raises MissingExtra for catboost without its package, ConfigError for an unknown name."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if name == "catboost":
        raise MissingExtra("catboost is not installed.", where="search.algorithms", advice="Install it: pip install 'e2i[catboost]'.")
    advice = suggestion(name, ALGORITHMS, otherwise="The algorithms are")
    raise ConfigError(f"there is no algorithm '{name}'.", where="search.algorithms", advice=advice)


def detect_imbalance(minority_share: float) -> Imbalance:
    """How rare the rarer class is: none from 0.40 on, moderate from 0.20, severe from 0.05, else extreme."""
    for bound, name in ((0.40, "none"), (0.20, "moderate"), (0.05, "severe")):
        if minority_share >= bound:
            return name  # type: ignore[return-value]  # the tuple holds the literals
    return "extreme"


def class_weights(y: FloatArray) -> tuple[float, float] | None:
    """Weights of class 0 and 1 that give both the same total, n / (2 n_class); None where the classes are balanced enough."""
    share = float(y.mean())
    if detect_imbalance(min(share, 1.0 - share)) == "none" or share in (0.0, 1.0):
        return None
    return 0.5 / (1.0 - share), 0.5 / share


def row_weights(y: FloatArray, weights: tuple[float, float] | None) -> FloatArray | None:
    """Class weights as row weights, shape (n,)."""
    return None if weights is None else np.where(y > 0.5, weights[1], weights[0])
