"""Fitting: what is learned is learned from train, the same each time, and survives what predictions bring."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from e2i.errors import ConfigError, DataError, MissingExtra, SchemaMismatch, TooFewRows
from e2i.ml.algorithms import ALGORITHMS, algorithm_spec, detect_imbalance
from e2i.ml.calibration import Calibration
from e2i.ml.folds import FoldScorer, baseline_scores, cross_validate, prepare_folds
from e2i.ml.training import FittedModel, detect_framework, fit

FEATURES = ["x", "z", "calls", "specialty", "opted_in", "since"]
SMALL: dict[str, dict[str, object]] = {
    "logistic_regression": {},
    "ridge_regression": {},
    "random_forest": {"n_estimators": 20},
    "xgboost": {"n_estimators": 30},
    "lightgbm": {"n_estimators": 30},
    "catboost": {"iterations": 30},
}


def frame(n: int = 900, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.normal(size=n)
    value = 1.5 * x + 0.5 * z
    data = pl.DataFrame(
        {
            "x": x,
            "z": z,
            "calls": rng.poisson(4, n),
            "specialty": rng.choice(["onc", "gp", "derm"], n),
            "opted_in": rng.random(n) < 0.5,
            "since": [date(2020, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 900, n)],
            "y": (rng.random(n) < 1 / (1 + np.exp(1.0 - value))).astype(np.int64),
            "v": value + rng.normal(size=n) * 0.3,
        }
    )
    return data.with_columns(z=pl.when(pl.col("z") > 1.5).then(None).otherwise(pl.col("z")))


TRAIN, VALIDATION = frame(seed=1), frame(600, seed=2)


def binary(algorithm: str, train: pl.DataFrame = TRAIN, **extra: object) -> FittedModel:
    return fit(algorithm, train, "y", SMALL[algorithm], problem_type="binary_classification", features=FEATURES, seed=3, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns_a_class_and_says_what_it_is(algorithm: str) -> None:
    model = binary(algorithm)
    p = model.predict(VALIDATION)
    assert p.shape == (600,)
    assert ((p >= 0) & (p <= 1)).all()
    assert roc_auc_score(VALIDATION["y"], p) > 0.75
    assert model.framework == ALGORITHMS[algorithm].framework
    assert model.features == tuple(FEATURES)
    assert model.transform(VALIDATION).shape == (600, len(model.feature_names_out))
    assert len(model.feature_sources) == len(model.feature_names_out)
    assert set(model.feature_sources) == set(FEATURES)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns_a_number(algorithm: str) -> None:
    model = fit(algorithm, TRAIN, "v", SMALL[algorithm], problem_type="regression", features=FEATURES, seed=3)  # type: ignore[arg-type]
    assert np.corrcoef(model.predict(VALIDATION), VALIDATION["v"])[0, 1] > 0.8
    assert model.class_weights is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_model(algorithm: str) -> None:
    assert (binary(algorithm).predict(VALIDATION) == binary(algorithm).predict(VALIDATION)).all()


@pytest.mark.parametrize("algorithm", ["logistic_regression", "random_forest"])
def test_preprocessing_and_plain_models_do_not_see_validation(algorithm: str) -> None:
    other = VALIDATION.with_columns(x=pl.col("x") * 100, specialty=pl.lit("cardio"))
    plain, watched = binary(algorithm, validation=VALIDATION), binary(algorithm, validation=other)
    assert (plain.transform(TRAIN) == watched.transform(TRAIN)).all()
    assert plain.feature_names_out == watched.feature_names_out
    assert (plain.predict(TRAIN) == watched.predict(TRAIN)).all()


@pytest.mark.parametrize("algorithm", [name for name in ("xgboost", "lightgbm", "catboost") if name in ALGORITHMS])
def test_boosting_stops_early_on_validation_and_preprocessing_still_comes_from_train(algorithm: str) -> None:
    rounds = {"iterations" if algorithm == "catboost" else "n_estimators": 500, "learning_rate": 0.3}
    features, seed = FEATURES, 3
    watched = fit(algorithm, TRAIN, "y", rounds, problem_type="binary_classification", features=features, seed=seed, validation=VALIDATION)
    assert watched.early_stopped
    assert watched.epochs is not None
    assert 0 < watched.epochs < 200
    assert (watched.transform(TRAIN) == binary(algorithm).transform(TRAIN)).all()
    all_rounds = fit(algorithm, TRAIN, "y", rounds, problem_type="binary_classification", features=features, seed=seed)
    assert not all_rounds.early_stopped
    assert all_rounds.epochs == 500
    truth = VALIDATION["y"].to_numpy()
    assert np.mean((watched.predict(VALIDATION) - truth) ** 2) < np.mean((all_rounds.predict(VALIDATION) - truth) ** 2)


def test_missing_values_are_flagged_and_filled_with_the_median_of_train() -> None:
    model = binary("random_forest")
    names = list(model.feature_names_out)
    row = VALIDATION.head(1).with_columns(z=pl.lit(None, dtype=pl.Float64))
    matrix = model.transform(row)
    assert matrix[0, names.index("z")] == pytest.approx(TRAIN["z"].median())
    assert matrix[0, names.index("z (missing)")] == 1.0


def test_unknown_rare_and_missing_levels_are_predicted_without_complaint() -> None:
    rare = TRAIN.with_columns(specialty=pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("uro")).otherwise(pl.col("specialty")))
    model = binary("lightgbm", rare)
    assert "specialty (rare)" in model.feature_names_out
    strange = VALIDATION.head(3).with_columns(specialty=pl.Series(["never seen", "uro", None]))
    matrix = model.transform(strange)
    column = list(model.feature_names_out).index("specialty (rare)")
    assert matrix[:, column].tolist() == [1.0, 1.0, 1.0]
    assert np.isfinite(model.predict(strange)).all()


def test_a_column_missing_everywhere_keeps_its_place() -> None:
    model = binary("logistic_regression", TRAIN.with_columns(z=pl.lit(None, dtype=pl.Float64)))
    assert np.isfinite(model.predict(VALIDATION)).all()


def test_linear_models_see_scaled_numbers_and_trees_raw_ones() -> None:
    linear, trees = binary("logistic_regression"), binary("random_forest")
    column = list(linear.feature_names_out).index("calls")
    assert linear.transform(TRAIN)[:, column].std() == pytest.approx(1.0)
    assert (trees.transform(TRAIN)[:, column] == TRAIN["calls"].to_numpy()).all()


def test_a_missing_column_is_named_with_its_nearest_neighbour() -> None:
    with pytest.raises(SchemaMismatch, match=r"'specialty' is missing.*Did you mean `speciality`"):
        binary("logistic_regression").predict(VALIDATION.rename({"specialty": "speciality"}))


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="fitted on a numeric column"):
        binary("logistic_regression").predict(VALIDATION.with_columns(x=pl.lit("high")))


def test_infinite_values_are_refused_with_the_column() -> None:
    with pytest.raises(DataError, match=r"column 'x'.*infinite"):
        binary("logistic_regression", TRAIN.with_columns(x=pl.lit(float("inf"))))


@pytest.mark.parametrize(
    ("values", "message"),
    [([None] * 900, "no target"), (["yes"] * 900, "Recode it to 1"), ([2, 1] * 450, "other than 0 and 1")],
)
def test_a_target_that_is_no_class_is_refused(values: list[object], message: str) -> None:
    with pytest.raises(SchemaMismatch, match=message):
        binary("logistic_regression", TRAIN.with_columns(pl.Series("y", values)))


def test_one_class_is_refused() -> None:
    with pytest.raises(TooFewRows, match="one class only"):
        binary("logistic_regression", TRAIN.with_columns(y=pl.lit(0)))


def test_rare_classes_are_weighted_to_equal_totals() -> None:
    few = TRAIN.filter((pl.col("y") == 0) | (pl.int_range(pl.len()) % 8 == 0))
    model = binary("logistic_regression", few)
    assert model.class_weights is not None
    events = few["y"].sum()
    assert model.class_weights[1] * events == pytest.approx(model.class_weights[0] * (few.height - events))
    assert model.predict(few).mean() > 2 * few["y"].mean()


@pytest.mark.parametrize(
    ("share", "name"), [(0.5, "none"), (0.4, "none"), (0.39, "moderate"), (0.2, "moderate"), (0.05, "severe"), (0.01, "extreme")]
)
def test_imbalance_has_four_grades(share: float, name: str) -> None:
    assert detect_imbalance(share) == name


def test_decisions_need_a_threshold_and_use_the_calibrated_probability() -> None:
    model = binary("logistic_regression")
    with pytest.raises(ConfigError, match="no decision threshold"):
        model.decide(VALIDATION)
    calibrated = model.with_calibration(Calibration(method="sigmoid", slope=1.0, intercept=-1.0), threshold=0.5)
    assert (calibrated.decide(VALIDATION) == (calibrated.predict(VALIDATION) >= 0.5)).all()
    assert (calibrated.predict(VALIDATION) < model.predict(VALIDATION)).all()


def test_a_model_survives_json_and_pickle() -> None:
    model = binary("lightgbm").with_calibration(Calibration(method="isotonic", x=(0.0, 0.5, 1.0), y=(0.1, 0.3, 0.9)), threshold=0.25)
    record = json.loads(json.dumps(model.to_record()))
    again = FittedModel.from_record(record, preprocessor=model.preprocessor, estimator=model.estimator)
    assert replace(again, preprocessor=None, estimator=None) == replace(model, preprocessor=None, estimator=None)
    assert (again.predict(VALIDATION) == model.predict(VALIDATION)).all()
    assert (pickle.loads(pickle.dumps(model)).predict(VALIDATION) == model.predict(VALIDATION)).all()


def test_parameters_override_defaults_and_are_recorded() -> None:
    params = {"bagging_fraction": 0.5, "n_estimators": 7}
    model = fit("lightgbm", TRAIN, "y", params, problem_type="binary_classification", features=FEATURES, seed=1)
    assert model.params["n_estimators"] == 7
    assert model.params["num_leaves"] == 31
    assert model.estimator.subsample == 0.5


def test_unknown_and_uninstalled_algorithms_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean `xgboost`"):
        algorithm_spec("xgbost")
    if "catboost" not in ALGORITHMS:
        with pytest.raises(MissingExtra, match=r"e2i\[catboost\]"):
            algorithm_spec("catboost")


def test_a_framework_is_known_by_the_module_of_its_classes() -> None:
    class Network:
        __module__ = "torch.nn.modules"

    class Layer(Network):
        __module__ = "my_models"

    class Sequential:
        __module__ = "keras.src.models"

    class Boosted:
        __module__ = "catboost.core"

    assert detect_framework(LogisticRegression()) == "sklearn"
    assert detect_framework(binary("xgboost").estimator) == "xgboost"
    assert detect_framework(binary("lightgbm").estimator) == "lightgbm"
    assert [detect_framework(kind()) for kind in (Layer, Sequential, Boosted)] == ["pytorch", "tensorflow", "catboost"]
    with pytest.raises(ConfigError, match="no known framework"):
        detect_framework(object())


def folds(problem_type: str = "binary_classification", target: str = "y", **extra: object) -> tuple[object, ...]:
    return prepare_folds(TRAIN, target, features=FEATURES, problem_type=problem_type, seed=5, **extra)  # type: ignore[arg-type]


def test_a_scorer_survives_pickle_and_scores_the_same() -> None:
    scorer = FoldScorer(folds=folds(), algorithm="lightgbm", problem_type="binary_classification", seed=1)  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(scorer))
    params = {"n_estimators": 15}
    scores = [scorer(params, fold) for fold in range(3)]
    assert scores == [again(params, fold) for fold in range(3)]
    assert min(scores) > 0.7


def test_a_fold_equals_a_fit_on_its_inside() -> None:
    part = folds(scale=True)[0]
    inside = LogisticRegression(C=1.0, max_iter=1000).fit(
        part.x, part.y, sample_weight=np.where(part.y == 1, 0.5 / part.y.mean(), 0.5 / (1 - part.y.mean()))
    )
    scorer = FoldScorer(folds=(part,), algorithm="logistic_regression", problem_type="binary_classification", seed=1)
    assert scorer({}, 0) == pytest.approx(roc_auc_score(part.y_out, inside.predict_proba(part.x_out)[:, 1]), abs=1e-6)


def test_regression_scores_are_negative_errors_and_beat_the_mean() -> None:
    prepared = folds("regression", "v", scale=True)
    scorer = FoldScorer(folds=prepared, algorithm="logistic_regression", problem_type="regression", seed=1)
    baseline = baseline_scores(prepared, problem_type="regression", seed=1)
    result = cross_validate(scorer)
    assert result.mean < 0
    assert result.mean == baseline["linear"] > baseline["constant"]


def test_groups_are_not_divided_over_folds_and_classes_are_spread() -> None:
    clinic = np.arange(900) // 9
    data = TRAIN.with_columns(clinic=pl.Series(clinic))
    prepared = prepare_folds(data, "y", features=["x", "clinic"], problem_type="binary_classification", seed=5, group="clinic")
    outside = [set(part.x_out[:, 1].tolist()) for part in prepared]
    assert sum(len(group) for group in outside) == len(set.union(*outside)) == 100
    assert all(abs(part.y_out.mean() - TRAIN["y"].mean()) < 0.05 for part in prepared)


def test_too_few_cases_for_folds_are_refused() -> None:
    few = TRAIN.with_columns(y=(pl.int_range(pl.len()) < 4).cast(pl.Int8))
    with pytest.raises(TooFewRows, match="rarer class"):
        prepare_folds(few, "y", features=["x"], problem_type="binary_classification", seed=0)
