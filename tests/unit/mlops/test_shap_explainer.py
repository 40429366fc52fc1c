"""SHAP of fitted models on data: sums add up, planted structure is found, slow methods stay within their budget."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import polars as pl
import pytest

from e2i.errors import DataError
from e2i.ml.training import FittedModel, fit
from e2i.mlops.shap_explainer import ShapExplainer

# `import shap` builds matplotlib colour maps in a way that matplotlib will retire.
pytestmark = pytest.mark.filterwarnings("ignore:The set_.* function:PendingDeprecationWarning")
FEATURES = ("calls", "decile", "age", "age_group", "specialty", "is_target", "noise")


def world(rows=900, seed=3) -> pl.DataFrame:
    """Up with calls, down with decile, calls matter more for targets; age and noise matter not."""
    rng = np.random.default_rng(seed)
    calls, decile, age, noise = rng.gamma(2, 2, rows), rng.integers(1, 11, rows), rng.normal(50, 9, rows), rng.normal(size=rows)
    specialty = rng.choice(["derm", "allergy", "other"], rows, p=[0.3, 0.3, 0.4])
    target = rng.random(rows) < 0.5
    drive = 0.3 * calls - 0.35 * decile + 0.9 * (specialty == "derm") + 0.5 * calls * target + rng.normal(size=rows)
    return pl.DataFrame(
        {
            "calls": np.where(rng.random(rows) < 0.05, np.nan, calls),
            "decile": decile,
            "age": age,
            "age_group": np.where(age > 50, "old", "young"),
            "specialty": specialty,
            "is_target": target,
            "noise": noise,
            "converted": (drive > np.median(drive)).astype(int),
            "nrx": drive,
        }
    ).with_columns(pl.col("calls").fill_nan(None))


def fitted(algorithm, *, problem="binary_classification", frame=None, params=None, validation=None) -> FittedModel:
    target = "converted" if problem == "binary_classification" else "nrx"
    frame = world() if frame is None else frame
    small = {"random_forest": {"n_estimators": 30}, "xgboost": {"n_estimators": 60}, "lightgbm": {"n_estimators": 60}}.get(algorithm, {})
    settings = {**small, **(params or {})}
    return fit(algorithm, frame, target, settings, problem_type=problem, features=FEATURES, seed=1, validation=validation)


def explain(model, folder, frame=None, **options):
    return ShapExplainer().explain(model, world(400, seed=9) if frame is None else frame, folder=folder, seed=5, **options)


CASES = [(a, p) for a in ("logistic_regression", "random_forest", "xgboost", "lightgbm") for p in ("binary_classification", "regression")]


@pytest.mark.parametrize(("algorithm", "problem"), CASES)
def test_contributions_and_base_value_add_up_to_the_prediction_of_every_row(algorithm, problem, tmp_path):
    model, frame = fitted(algorithm, problem=problem), world(400, seed=9)
    explanation = explain(model, tmp_path, frame)
    kept = np.load(explanation.values_ref)
    chosen = np.random.default_rng(5).permutation(frame.height)[: explanation.sample_size]
    total = kept["values"].sum(axis=1) + explanation.base_value
    if problem == "binary_classification" and algorithm != "random_forest":
        total = 1 / (1 + np.exp(-total))
    np.testing.assert_allclose(total, model.raw_score(frame[chosen.tolist()]), atol=2e-3)
    assert explanation.additivity_error < 1e-3
    assert kept["values"].shape == kept["data"].shape == (explanation.sample_size, len(FEATURES))
    assert tuple(kept["features"]) == FEATURES


@pytest.mark.parametrize("algorithm", ["logistic_regression", "random_forest", "xgboost", "lightgbm"])
def test_what_drives_the_outcome_is_found_with_its_direction(algorithm, tmp_path):
    found = {item.feature: item for item in explain(fitted(algorithm), tmp_path).top_features}
    ranks = list(found)
    assert ranks.index("calls") < ranks.index("noise")
    assert ranks.index("decile") < ranks.index("noise")
    assert (found["calls"].direction, found["decile"].direction, found["is_target"].direction) == ("positive", "negative", "positive")
    assert found["specialty"].direction == "mixed", "levels have no order"
    assert len(found) == len(FEATURES)


def test_levels_and_missing_indicators_are_summed_back_to_their_feature(tmp_path):
    model = fitted("xgboost")
    assert len(model.feature_names_out) > len(FEATURES)
    names = [item.feature for item in explain(model, tmp_path).top_features]
    assert sorted(names) == sorted(FEATURES)
    assert "age" in names, "a feature whose name begins another one's keeps its own contribution"
    assert "age_group" in names


@pytest.mark.parametrize("algorithm", ["random_forest", "xgboost", "lightgbm"])
def test_the_planted_interaction_is_among_the_strongest(algorithm, tmp_path):
    model = fitted(algorithm, problem="regression", frame=world(2500))
    pairs = [frozenset(pair[:2]) for pair in explain(model, tmp_path, world(800, seed=9)).interactions]
    assert frozenset({"calls", "is_target"}) in pairs[:2]
    assert len(pairs) <= 10


def test_a_linear_model_has_no_interactions(tmp_path):
    assert explain(fitted("logistic_regression"), tmp_path).interactions == ()


def test_rounds_after_early_stopping_are_not_explained(tmp_path):
    frame = world(900)
    for algorithm in ("xgboost", "lightgbm"):
        params = {"n_estimators": 400, "learning_rate": 0.3}
        model = fitted(algorithm, frame=frame[:600], params=params, validation=frame[600:])
        assert model.epochs < 400
        assert explain(model, tmp_path).additivity_error < 1e-3


def test_contributions_of_another_model_are_refused(tmp_path):
    class Swapped(type(fitted("xgboost").estimator)):
        """Explains one model and predicts with another."""

        def predict_proba(self, matrix):
            return 1 - super().predict_proba(matrix)

    model = fitted("xgboost")
    model.estimator.__class__ = Swapped
    with pytest.raises(DataError, match="do not add up to the prediction"):
        explain(model, tmp_path)
    assert not (tmp_path / "shap_values.npz").exists()


def test_an_estimator_without_a_fast_method_is_explained_from_outside(tmp_path):
    from sklearn.naive_bayes import GaussianNB

    model = fitted("logistic_regression")
    matrix = model.transform(world())
    stranger = dataclasses.replace(model, algorithm="naive_bayes", estimator=GaussianNB().fit(matrix, world()["converted"]))
    explanation = explain(stranger, tmp_path, max_samples=60)
    assert explanation.method == "shap_permutation"
    assert explanation.sample_size >= 30
    assert explanation.additivity_error < 1e-6
    names = [item.feature for item in explanation.top_features]
    assert {names.index("calls"), names.index("decile")} < {0, 1, 2}


def test_the_same_seed_gives_the_same_explanation(tmp_path):
    model = fitted("random_forest")
    first, second = explain(model, tmp_path / "a"), explain(model, tmp_path / "b")
    assert dataclasses.replace(first, seconds=0, values_ref=None) == dataclasses.replace(second, seconds=0, values_ref=None)


def test_at_most_a_thousand_rows_are_explained(tmp_path):
    model = fitted("lightgbm")
    assert explain(model, tmp_path, world(1500)).sample_size == 1000
    assert explain(model, tmp_path, world(1500), max_samples=50).sample_size == 50
    assert explain(model, tmp_path, world(1500), max_samples=5000).sample_size == 1000


def test_a_deep_forest_is_explained_on_fewer_rows_and_in_time(tmp_path):
    frame = world(4000)
    model = fitted("random_forest", frame=frame, params={"n_estimators": 200, "max_depth": 20, "min_samples_leaf": 1})
    started = time.process_time()
    explanation = explain(model, tmp_path, frame)
    assert 30 <= explanation.sample_size < 1000
    assert time.process_time() - started < 12


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        explain(fitted("lightgbm"), tmp_path, world(5).clear())


def test_catboost_is_explained_natively(tmp_path):
    pytest.importorskip("catboost")
    explanation = explain(fitted("catboost", params={"iterations": 50}), tmp_path)
    assert explanation.method == "catboost_shap_values"
    assert explanation.additivity_error < 1e-3
