"""model_selector: chosen by cross-validation on train, with its reasons, and written down on both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from e2i.agents.ml_foundation.model_selector import SPEC, describe_history, eligible, rank, rationale
from e2i.domain.experiments import ModelCandidate
from e2i.domain.study import SearchSpec
from e2i.errors import ConfigError
from e2i.ml.folds import FoldScorer, baseline_scores, cross_validate, prepare_folds
from workshop import AMOUNT, Workshop, select, study


def candidate(algorithm: str, mean: float, std: float) -> ModelCandidate:
    return ModelCandidate(
        algorithm=algorithm, framework="x", defaults={}, search_space={}, cv_mean=mean, cv_std=std, fit_seconds=0.1, rationale=""
    )


def order(*candidates: ModelCandidate) -> list[str]:
    return [item.algorithm for item in rank(candidates, folds=4)]


def test_the_highest_mean_leads_among_the_equally_interpretable() -> None:
    better, worse = candidate("lightgbm", 0.81, 0.01), candidate("xgboost", 0.80, 0.01)
    assert order(worse, better) == ["lightgbm", "xgboost"]
    assert "highest" in rationale(rank((worse, better), folds=4), metric="roc_auc", baseline={})


@pytest.mark.parametrize(("mean", "first"), [(0.791, "logistic_regression"), (0.789, "lightgbm")])
def test_of_those_within_a_standard_error_the_more_interpretable_one_leads(mean: float, first: str) -> None:
    plain, boosted, forest = (
        candidate("logistic_regression", mean, 0.02),
        candidate("lightgbm", 0.80, 0.02),
        candidate("random_forest", 0.6, 0),
    )
    assert order(forest, boosted, plain)[0] == first
    assert order(forest, boosted, plain)[-1] == "random_forest"
    told = rationale(rank((boosted, plain), folds=4), metric="roc_auc", baseline={"constant": 0.5, "linear": 0.7})
    assert ("easier to explain" in told) == (first == "logistic_regression")
    assert told.endswith("baseline 0.7000")


def test_only_interpretable_algorithms_are_tried_when_the_study_asks_for_it() -> None:
    assert eligible(SearchSpec(interpretable=True), "binary_classification") == ("logistic_regression",)
    assert eligible(SearchSpec(algorithms=("lightgbm", "logistic_regression")), "binary_classification") == (
        "lightgbm",
        "logistic_regression",
    )
    with pytest.raises(ConfigError, match=r"none of lightgbm, xgboost is interpretable enough.*logistic_regression"):
        eligible(SearchSpec(algorithms=("lightgbm", "xgboost"), interpretable=True), "binary_classification")


def test_a_number_is_not_predicted_by_an_algorithm_for_yes_and_no() -> None:
    assert eligible(SearchSpec(), "regression") == ("ridge_regression", "random_forest", "xgboost", "lightgbm")
    assert eligible(SearchSpec(), "binary_classification")[0] == "logistic_regression"
    with pytest.raises(ConfigError, match=r"logistic_regression is not for regression.*ridge_regression"):
        eligible(SearchSpec(algorithms=("logistic_regression",)), "regression")


async def test_an_unknown_algorithm_is_named_with_its_nearest_neighbour(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    workshop.study = study(search=SearchSpec(algorithms=("lightgmb",)))
    with pytest.raises(ConfigError, match=r"'lightgmb'.*lightgbm"):
        await workshop.up_to_selection()
    assert select(workshop.url, "select * from ml_model_registry") == []


async def test_the_candidate_row_carries_the_mlflow_run_with_every_score(workshop: Workshop) -> None:
    _, done = await workshop.up_to_selection()
    selection, chosen = done.selection, done.candidate
    assert selection is not None
    assert chosen is not None
    (run,) = await workshop.tracker.search_runs("e2i_model_selection_exp_run_1")
    assert selection.experiment_name == "e2i_model_selection_exp_run_1"
    assert run["run_id"] == selection.mlflow_run_id == chosen.mlflow_run_id
    assert run["metrics"] == {
        **{f"cv_{item.algorithm}": item.cv_mean for item in (selection.primary, *selection.alternatives)},
        **{f"baseline_{name}": value for name, value in selection.baseline.items()},
    }
    assert run["params"] == {"selected": selection.primary.algorithm, "metric": "roc_auc", "history": "no history"}
    (row,) = select(workshop.url, "select * from ml_model_registry")
    assert (row["mlflow_run_id"], row["stage"], row["algorithm"]) == (run["run_id"], "development", selection.primary.algorithm)
    assert (row["model_name"], row["model_version"]) == (f"e2i_tried_{selection.primary.algorithm}", "1")
    assert row["trained_at"] is None


async def test_a_repeated_selection_adds_no_run_and_no_row(workshop: Workshop) -> None:
    prepared, done = await workshop.up_to_selection()
    again = await workshop.run(SPEC, workshop.selector_state(prepared, done.plan))
    assert again.candidate == done.candidate
    assert len(await workshop.tracker.search_runs("e2i_model_selection_exp_run_1")) == 1
    assert len(select(workshop.url, "select * from ml_model_registry")) == 1


async def test_without_past_runs_there_is_no_history_and_with_them_it_is_told(alone: Callable[[str], Workshop]) -> None:
    _, first = await alone("run_1").train()
    assert first.selection.history == "no history"
    _, second = await alone("run_2").up_to_selection()
    assert second.selection is not None
    assert second.selection.history == f"1 completed run of this kind: {first.selection.primary.algorithm} 1"
    other = alone("run_3")
    other.study = study(AMOUNT)
    _, third = await other.up_to_selection()
    assert third.selection is not None
    assert third.selection.history == "no history", "a run on another kind of problem tells nothing"
    (past,) = second.history
    assert past.metrics == {name: metric.value for name, metric in first.trained.metrics.items()}  # type: ignore[union-attr]
    assert describe_history((past, replace(past, algorithm="xgboost"), past)).startswith("3 completed runs of this kind: ")


async def test_the_scores_are_those_of_the_folds_of_train(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    prepared, done = await workshop.up_to_selection()
    selection = done.selection
    assert selection is not None
    train = workshop.frames.read_split("train", reader="model_selector", purpose="comparing")
    shared = {"features": done.plan.selected, "problem_type": "binary_classification", "seed": 5, "group": "hcp", "folds": 5}
    for item in (selection.primary, *selection.alternatives):
        folds = prepare_folds(train, "converts", scale=item.algorithm == "logistic_regression", **shared)  # type: ignore[arg-type]
        scored = cross_validate(FoldScorer(folds=folds, algorithm=item.algorithm, problem_type="binary_classification", seed=5))
        assert (item.cv_mean, item.cv_std) == (scored.mean, scored.std)
    scaled = prepare_folds(train, "converts", scale=True, **shared)  # type: ignore[arg-type]
    assert selection.baseline == baseline_scores(scaled, problem_type="binary_classification", seed=5)
    assert prepared.scope.prediction_target == "converts"
    assert ("algorithms", 2, 2) in workshop.progress.told
