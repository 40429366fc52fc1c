"""Contributions of matrix columns to a model's raw output: by the library that fitted it, in closed form, or by `shap`.

All of them add up: contributions of a row plus the base value are the model's raw output for it (log-odds for boosted and
logistic classifiers, the probability for forests and for models that are only seen from outside, the value for regression).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2i.ml.training import FittedModel

FloatArray = npt.NDArray[np.float64]
# Nanoseconds of one core per row, per leaf and level of all trees; measured, and used instead of a clock so that the sample,
# and with it the result, is the same on every machine.
_FOREST_NS = 25.0
_INTERACTION_NS = 60.0
_FOREST_BUDGET_NS = 6e9
_INTERACTION_BUDGET_NS = 2e9
_PERMUTATION_EVALUATIONS = 250_000
_BACKGROUND_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """Contributions of k matrix columns for n rows: `values` (n, k), `base` (n,) and the raw output `margin` (n,), computed apart."""

    method: str
    values: FloatArray
    base: FloatArray
    margin: FloatArray
    scale: Literal["log_odds", "prediction"]


def affordable_rows(model: FittedModel, rows: int) -> int:
    """How many of `rows` rows are explained within a few seconds; all of them where the library is fast."""
    if model.algorithm == "random_forest":
        trees = [tree.tree_ for tree in model.estimator.estimators_]
        cost = sum(tree.n_leaves * max(tree.max_depth, 1) for tree in trees) * _FOREST_NS
        return min(rows, max(30, int(_FOREST_BUDGET_NS / cost)))
    if model.framework == "sklearn" and not hasattr(model.estimator, "coef_"):
        evaluations = _BACKGROUND_ROWS * (2 * len(model.feature_names_out) + 1)
        return min(rows, max(30, _PERMUTATION_EVALUATIONS // evaluations))
    return rows


def contributions(model: FittedModel, matrix: FloatArray, *, background: FloatArray, seed: int) -> Contributions:
    """Contributions on `matrix`, shape (n, k), the output of `model.transform`; `background` is the data to compare with."""
    if model.framework == "xgboost":
        return _xgboost(model, matrix)
    if model.framework == "lightgbm":
        return _lightgbm(model, matrix)
    if model.framework == "catboost":
        return _catboost(model, matrix)
    if hasattr(model.estimator, "coef_"):
        return _linear(model, matrix, background)
    if model.algorithm == "random_forest":
        return _forest(model, matrix)
    return _permutation(model, matrix, background=background, seed=seed)


def _is_classifier(model: FittedModel) -> bool:
    return model.problem_type == "binary_classification"


def _scale(model: FittedModel) -> Literal["log_odds", "prediction"]:
    return "log_odds" if _is_classifier(model) else "prediction"


def _split(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The libraries put the base value into the last column."""
    wide = np.asarray(values, dtype=np.float64)
    return wide[:, :-1], wide[:, -1]


def _xgboost_rounds(booster: Any) -> tuple[int, int]:
    # Early stopping leaves rounds behind that predictions do not use.
    best = booster.attr("best_iteration")
    return (0, 0) if best is None else (0, int(best) + 1)


def _xgboost(model: FittedModel, matrix: FloatArray) -> Contributions:
    from xgboost import DMatrix

    booster = model.estimator.get_booster()
    data, rounds = DMatrix(matrix), _xgboost_rounds(booster)
    values, base = _split(booster.predict(data, pred_contribs=True, iteration_range=rounds))
    margin = np.asarray(booster.predict(data, output_margin=True, iteration_range=rounds), dtype=np.float64)
    return Contributions(method="xgboost_pred_contribs", values=values, base=base, margin=margin, scale=_scale(model))


def _lightgbm(model: FittedModel, matrix: FloatArray) -> Contributions:
    values, base = _split(model.estimator.predict(matrix, pred_contrib=True))
    margin = np.asarray(model.estimator.predict(matrix, raw_score=True), dtype=np.float64)
    return Contributions(method="lightgbm_pred_contrib", values=values, base=base, margin=margin, scale=_scale(model))


def _catboost(model: FittedModel, matrix: FloatArray) -> Contributions:
    from catboost import Pool

    values, base = _split(model.estimator.get_feature_importance(Pool(matrix), type="ShapValues"))
    margin = np.asarray(model.estimator.predict(matrix, prediction_type="RawFormulaVal"), dtype=np.float64)
    return Contributions(method="catboost_shap_values", values=values, base=base, margin=margin, scale=_scale(model))


def _linear(model: FittedModel, matrix: FloatArray, background: FloatArray) -> Contributions:
    """Closed form for independent columns (Lundberg and Lee 2017, corollary 1): coefficient times distance from the mean."""
    weights = np.asarray(model.estimator.coef_, dtype=np.float64).reshape(-1)
    intercept = float(np.asarray(model.estimator.intercept_).reshape(-1)[0])
    centre = background.mean(axis=0)
    base = np.full(len(matrix), intercept + float(centre @ weights))
    raw = model.estimator.decision_function if _is_classifier(model) else model.estimator.predict
    margin = np.asarray(raw(matrix), dtype=np.float64)
    return Contributions(method="linear_closed_form", values=(matrix - centre) * weights, base=base, margin=margin, scale=_scale(model))


def _forest(model: FittedModel, matrix: FloatArray) -> Contributions:
    from shap import TreeExplainer

    explainer = TreeExplainer(model.estimator)
    values = np.asarray(explainer.shap_values(matrix, check_additivity=False), dtype=np.float64)
    expected = np.asarray(explainer.expected_value, dtype=np.float64).reshape(-1)
    if values.ndim == 3:
        values = values[:, :, 1]
    base = np.full(len(matrix), expected[-1])
    return Contributions(method="shap_tree", values=values, base=base, margin=model.score_matrix(matrix), scale="prediction")


def _permutation(model: FittedModel, matrix: FloatArray, *, background: FloatArray, seed: int) -> Contributions:
    from shap import PermutationExplainer
    from shap.maskers import Independent

    chosen = np.random.default_rng(seed).choice(len(background), size=min(_BACKGROUND_ROWS, len(background)), replace=False)
    masker = Independent(background[np.sort(chosen)], max_samples=_BACKGROUND_ROWS)
    predict: Callable[[FloatArray], FloatArray] = model.score_matrix
    explainer = PermutationExplainer(predict, masker, seed=seed)
    found = explainer(matrix, max_evals=2 * matrix.shape[1] + 1, silent=True)
    values = np.asarray(found.values, dtype=np.float64)
    base = np.broadcast_to(np.asarray(found.base_values, dtype=np.float64), (len(matrix),)).copy()
    return Contributions(method="shap_permutation", values=values, base=base, margin=predict(matrix), scale="prediction")


def xgboost_interactions(model: FittedModel, matrix: FloatArray) -> FloatArray:
    """Mean interaction values of an xgboost model, shape (m, k, k), on as many first rows of `matrix` as a few seconds allow."""
    from xgboost import DMatrix

    booster = model.estimator.get_booster()
    leaves = [tree.count("leaf=") for tree in booster.get_dump()]
    depth = max(1.0, np.log2(max(leaves)))
    cost = sum(leaves) * depth * matrix.shape[1] * _INTERACTION_NS
    rows = int(np.clip(_INTERACTION_BUDGET_NS / cost, 10, 200))
    values = booster.predict(DMatrix(matrix[:rows]), pred_interactions=True, iteration_range=_xgboost_rounds(booster))
    return np.asarray(values, dtype=np.float64)[:, :-1, :-1]
