"""Fit a model on train, and nothing but train; a fitted model is a record that predicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from e2i.errors import ConfigError, TooFewRows
from e2i.ml.algorithms import (
    Matrices,
    ParamValue,
    algorithm_spec,
    class_weights,
    row_weights,
)
from e2i.ml.calibration import Calibration
from e2i.ml.columns import ColumnSpec, FloatArray, IntArray, infer_columns, require_columns, target_values
from e2i.ml.features import FeatureStep, add_columns
from e2i.ml.preprocessing import apply_preprocessor, fit_preprocessor, output_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from e2i.domain.experiments import ProblemType

_FRAMEWORKS = {
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "torch": "pytorch",
    "pytorch_lightning": "pytorch",
    "lightning": "pytorch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
}


@dataclass(frozen=True, kw_only=True)
class FittedModel:
    """A model with everything that prediction needs.

    `preprocessor` (a ColumnTransformer) and `estimator` are the libraries' own objects; the rest is plain data, see `to_record`.
    """

    algorithm: str
    framework: str
    problem_type: ProblemType
    target: str
    columns: tuple[ColumnSpec, ...]
    preprocessor: Any
    estimator: Any
    params: dict[str, ParamValue]
    training_samples: int
    seed: int
    class_weights: tuple[float, float] | None = None
    epochs: int | None = None
    early_stopped: bool = False
    calibration: Calibration = field(default_factory=Calibration)
    threshold: float | None = None
    steps: tuple[FeatureStep, ...] = ()
    """columns that the model makes by itself where a frame lacks them"""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that a frame must have: features that are given, and what the others are made from."""
        return given_columns(self.features, self.steps)

    @property
    def features(self) -> tuple[str, ...]:
        """Input columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def feature_names_out(self) -> tuple[str, ...]:
        """Names of the columns of `transform`."""
        return output_columns(self.preprocessor)[0]

    @property
    def feature_sources(self) -> tuple[str, ...]:
        """For each column of `transform`, the input column that it comes from."""
        return output_columns(self.preprocessor)[1]

    def transform(self, frame: pl.DataFrame) -> FloatArray:
        """The matrix that the estimator sees, shape (n, k). Raises SchemaMismatch and DataError."""
        return apply_preprocessor(self.preprocessor, add_columns(frame, self.steps), self.columns)

    def score_matrix(self, matrix: FloatArray) -> FloatArray:
        """The estimator's own probability of class 1, or value, for rows of `transform`; shape (n,)."""
        if self.problem_type == "regression":
            return np.asarray(self.estimator.predict(matrix), dtype=np.float64)
        return np.asarray(self.estimator.predict_proba(matrix), dtype=np.float64)[:, 1]

    def raw_score(self, frame: pl.DataFrame) -> FloatArray:
        """As `score_matrix`, before calibration; shape (n,)."""
        return self.score_matrix(self.transform(frame))

    def predict(self, frame: pl.DataFrame) -> FloatArray:
        """The calibrated probability of the event, or the value; shape (n,)."""
        return self.calibration.apply(self.raw_score(frame))

    def decide(self, frame: pl.DataFrame) -> IntArray:
        """1 where the probability reaches the threshold, else 0; shape (n,). Raises ConfigError without a threshold."""
        if self.threshold is None:
            raise ConfigError("the model has no decision threshold.", where=self.algorithm, advice="Choose one on validation first.")
        return (self.predict(frame) >= self.threshold).astype(np.int64)

    def with_calibration(self, calibration: Calibration, *, threshold: float | None = None) -> FittedModel:
        """The same model with another map to probabilities, and the threshold that belongs to it."""
        return replace(self, calibration=calibration, threshold=threshold)

    def to_record(self) -> dict[str, Any]:
        """Everything but preprocessor and estimator, as plain data for JSON."""
        return {
            "algorithm": self.algorithm,
            "framework": self.framework,
            "problem_type": self.problem_type,
            "target": self.target,
            "columns": [[column.name, column.kind] for column in self.columns],
            "params": dict(self.params),
            "training_samples": self.training_samples,
            "seed": self.seed,
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            "epochs": self.epochs,
            "early_stopped": self.early_stopped,
            "calibration": self.calibration.to_dict(),
            "threshold": self.threshold,
            "steps": [asdict(step) for step in self.steps],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, preprocessor: Any, estimator: Any) -> FittedModel:
        """The inverse of `to_record`, given the two objects that are kept in their own formats."""
        weights = record["class_weights"]
        return cls(
            **{key: record[key] for key in ("algorithm", "framework", "problem_type", "target", "training_samples", "seed")},
            **{key: record[key] for key in ("epochs", "early_stopped", "threshold")},
            columns=tuple(ColumnSpec(name=name, kind=kind) for name, kind in record["columns"]),
            params=dict(record["params"]),
            class_weights=None if weights is None else (weights[0], weights[1]),
            calibration=Calibration.from_dict(record["calibration"]),
            steps=tuple(FeatureStep(**{**step, "inputs": tuple(step["inputs"])}) for step in record["steps"]),
            preprocessor=preprocessor,
            estimator=estimator,
        )


def given_columns(features: Sequence[str], steps: Sequence[FeatureStep]) -> tuple[str, ...]:
    """Which columns a model of `features` has to be given when it makes those of `steps` by itself, each one once."""
    made = {step.name for step in steps}
    needed = [*(name for name in features if name not in made), *(name for step in steps for name in step.inputs if name not in made)]
    return tuple(dict.fromkeys(needed))


def fit(
    algorithm: str,
    frame: pl.DataFrame,
    target: str,
    params: Mapping[str, ParamValue],
    *,
    problem_type: ProblemType,
    features: Sequence[str],
    seed: int,
    threads: int = 1,
    validation: pl.DataFrame | None = None,
) -> FittedModel:
    """Fit preprocessing and estimator on `frame`.

    Classes that are out of balance are weighted to equal totals. With `validation`, boosting stops when its loss there has not
    fallen for 20 rounds and keeps the best round; nothing else is learned from it. The same seed and one thread give the same model.

    Parameters
    ----------
    algorithm : a key of ALGORITHMS
    frame : shape (n, k), the train split
    params : override the algorithm's defaults
    features : input columns, in the order that the model keeps
    threads : at least 1

    Raises
    ------
    ConfigError, MissingExtra
        No such algorithm, or its package is not installed.
    SchemaMismatch, DataError
        A column is missing or unusable; the target has nulls or the wrong values.
    TooFewRows
        A class is absent.
    """
    spec = algorithm_spec(algorithm)
    require_columns(frame, [target, *features], where="train split")
    y = target_values(frame[target], problem_type)
    _require_classes(y, target, problem_type)
    columns = infer_columns(frame, features)
    preprocessor, x = fit_preprocessor(frame, columns, scale=spec.needs_scaling)
    weights = class_weights(y) if problem_type == "binary_classification" else None
    data = Matrices(x=x, y=y, weight=row_weights(y, weights))
    if validation is not None:
        y_validation = target_values(validation[target], problem_type)
        data = replace(
            data,
            x_validation=apply_preprocessor(preprocessor, validation, columns),
            y_validation=y_validation,
            weight_validation=row_weights(y_validation, weights),
        )
    settings = {**spec.defaults, **params}
    fitted = spec.fit(settings, data, problem_type, seed, threads)
    return FittedModel(
        algorithm=algorithm,
        framework=detect_framework(fitted.estimator),
        problem_type=problem_type,
        target=target,
        columns=columns,
        preprocessor=preprocessor,
        estimator=fitted.estimator,
        params=settings,
        training_samples=frame.height,
        seed=seed,
        class_weights=weights,
        epochs=fitted.epochs,
        early_stopped=fitted.early_stopped,
    )


def _require_classes(y: FloatArray, target: str, problem_type: ProblemType) -> None:
    if len(y) == 0 or y.min() == y.max():
        kind = "class" if problem_type == "binary_classification" else "value"
        held = "no rows" if len(y) == 0 else f"one {kind} only"
        raise TooFewRows(f"the train split holds {held}.", where=target, advice="Give data in which it varies.")


def detect_framework(estimator: object) -> str:
    """`sklearn`, `xgboost`, `lightgbm`, `catboost`, `pytorch` or `tensorflow`, by the modules of the object's classes.

    A framework's own class comes before one that it inherits from, so an XGBClassifier is xgboost and not sklearn.

    Raises
    ------
    ConfigError
        None of these.
    """
    for kind in type(estimator).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in _FRAMEWORKS:
            return _FRAMEWORKS[root]
    raise ConfigError(
        f"{type(estimator).__module__}.{type(estimator).__name__} belongs to no known framework.",
        where="detect_framework",
        advice=f"Known: {', '.join(sorted(set(_FRAMEWORKS.values())))}.",
    )
