"""model_trainer: trained under the gate, chosen on validation, judged once on test, written down on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from doubles import CrashAfter
from e2i.agents.ml_foundation.model_trainer import SPEC, State
from e2i.domain.quality import QCIssue, QCReport
from e2i.domain.study import PredictionSpec
from e2i.engine.checkpoint import postgres_checkpoints
from e2i.errors import DataError, LeakageFound, QualityGateFailed, StorageError
from e2i.mlops.mlflow_mirror import MLflowMirror
from e2i.mlops.model_store import NativeModelStore
from e2i.mlops.reconcile import reconcile
from e2i.storage.postgres import Database
from e2i.storage.repositories.ledger import LedgerRepository
from workshop import PREDICTION, Chain, Workshop, gate, select, study, table, workshop_on

LEAK = QCIssue(check="target_copy", severity="blocking", detail="a copy", advice="Remove it.", column="won")


def judged_by(folder: Path) -> list[dict[str, str]]:
    """The ledger of readers of the test split."""
    path = folder / "splits" / "test_reads.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    "qc",
    [gate(score=0.79), replace(gate(), score=None), replace(gate(), status="failed"), replace(gate(), issues=(LEAK,))],
    ids=["low score", "crashed check", "failed", "blocking issue"],
)
async def test_without_a_passed_gate_nothing_is_trained_and_no_row_is_written(alone: Callable[[str], Workshop], qc: QCReport) -> None:
    workshop = alone("run_1")
    prepared, selected = await workshop.up_to_selection()
    with pytest.raises(QualityGateFailed, match="did not pass"):
        await workshop.run(SPEC, workshop.trainer_state(prepared, selected, qc=qc))
    assert select(workshop.url, "select * from ml_training_runs") == []
    assert not (workshop.folder / "run_1" / "model").exists()
    assert judged_by(workshop.folder / "run_1") == []


async def test_splits_that_are_not_what_was_agreed_are_refused_before_anything_is_fitted(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    prepared, selected = await workshop.up_to_selection()
    state = workshop.trainer_state(prepared, selected)
    rows = {**state.splits.rows, "test": state.splits.rows["test"] * 2}
    with pytest.raises(DataError, match="split train holds"):
        await workshop.run(SPEC, replace(state, splits=replace(state.splits, rows=rows)))
    assert judged_by(workshop.folder / "run_1") == []


def test_the_steps_end_with_evaluation_then_mlflow_then_the_checkpoint(chain: Chain) -> None:
    assert SPEC.step_names[-3:] == ("evaluate_model", "log_to_mlflow", "save_checkpoint")
    done = chain.rows("select step from agent_steps where agent = 'model_trainer' and status = 'success' order by started_at")
    assert tuple(row["step"] for row in done) == SPEC.step_names


def test_hyperparameters_reach_mlflow_with_their_prefix(chain: Chain) -> None:
    trained = chain.trained.trained
    assert trained is not None
    logged = {name: value for name, value in chain.training_run["params"].items() if name.startswith("hp_")}
    assert logged == {f"hp_{name}": str(value) for name, value in trained.hyperparameters.items()}
    assert logged
    assert chain.training_run["params"]["threshold"] == str(trained.threshold)
    assert chain.training_run["tags"]["e2i.data_sha256"] == gate().data_sha256
    assert chain.training_run["status"] == "FINISHED"


def test_every_metric_reaches_mlflow_with_its_interval_and_fairness(chain: Chain) -> None:
    trained, logged = chain.trained.trained, chain.training_run["metrics"]
    assert trained is not None
    assert {"roc_auc", "pr_auc", "f1", "precision", "recall", "brier", "calibration_slope", "calibration_intercept"} <= set(trained.metrics)
    for name, metric in trained.metrics.items():
        assert logged[name] == metric.value
        assert (logged.get(f"{name}_low"), logged.get(f"{name}_high")) == (metric.low, metric.high)
    for prefix, values in (
        ("train", trained.train_metrics),
        ("validation", trained.validation_metrics),
        ("baseline", trained.baseline_metrics),
    ):
        assert values
        assert {name: logged[f"{prefix}_{name}"] for name in values} == values
    fairness = trained.fairness["age_group"]
    for name in ("demographic_parity_difference", "demographic_parity_ratio", "equal_opportunity_difference"):
        assert logged[f"fairness_age_group_{name}"] == fairness[name]
    assert not any("[" in name for name in logged), "numbers of single groups stay in our own tables"
    assert logged["duration_seconds"] == trained.duration_s > 0


def test_trials_are_nested_runs(chain: Chain) -> None:
    parent = chain.training_run
    trials = [run for run in chain.training_runs if run["tags"].get("mlflow.parentRunId") == parent["run_id"]]
    assert chain.trained.search is not None
    assert {run["key"] for run in trials} == {f"run_1/model_trainer/trial/{number}" for number in range(2)}
    assert len(chain.training_runs) == 3
    assert max(run["metrics"]["value"] for run in trials) == chain.trained.search.best_value
    assert all(set(run["params"]) <= {"hp_C"} for run in trials)


def test_the_registry_row_is_completed_with_digest_and_mlflow_run(chain: Chain) -> None:
    trained = chain.trained.trained
    assert trained is not None
    (row,) = chain.rows("select * from ml_model_registry")
    assert (row["model_sha256"], row["mlflow_run_id"], row["mlflow_model_uri"]) == (
        trained.model_sha256,
        chain.training_run["run_id"],
        trained.model_uri,
    )
    assert row["hyperparameters"] == trained.hyperparameters
    assert float(row["auc"]) == pytest.approx(trained.metrics["roc_auc"].value, abs=1e-3)
    assert row["trained_at"] is not None
    (run,) = chain.rows("select *, model_registry_id::text as registry from ml_training_runs")
    assert (run["status"], run["registry"], run["mlflow_run_id"]) == ("completed", str(row["id"]), chain.training_run["run_id"])
    assert (run["training_samples"], run["test_samples"]) == (chain.prepared.plan.rows["train"], chain.prepared.plan.rows["test"])
    assert {name: value["value"] for name, value in run["test_metrics"].items()} == {n: m.value for n, m in trained.metrics.items()}


async def test_the_model_that_mlflow_keeps_is_the_one_that_was_judged(workshop: Workshop, tmp_path: Path) -> None:
    _, done = await workshop.train()
    trained = done.trained
    assert trained is not None
    assert trained.model_uri is not None
    copy = await workshop.tracker.download_model(trained.model_uri, tmp_path / "copy")
    rows = workshop.frames.read_split("validation", reader="model_trainer", purpose="comparing")
    kept = NativeModelStore().load_registered(trained.model_sha256, str(copy))
    judged = NativeModelStore().load(Path(trained.model_ref), expected_digest=trained.model_sha256)
    assert (kept.predict(rows) == judged.predict(rows)).all()
    assert kept.threshold == trained.threshold


async def test_test_is_read_once_and_a_second_model_on_the_run_is_refused(alone: Callable[[str], Workshop]) -> None:
    workshop = alone("run_1")
    prepared, selected = await workshop.up_to_selection()
    state = workshop.trainer_state(prepared, selected)
    first = (await workshop.run(SPEC, state)).trained
    reads = [{"reader": "model_trainer", "purpose": first.model_sha256}]
    assert judged_by(workshop.folder / "run_1") == reads
    again = (await workshop.run(SPEC, state)).trained
    assert again.model_sha256 == first.model_sha256, "the same model may be judged again: a resumed run does"
    lightgbm = replace(state.selection, primary=state.selection.alternatives[0])
    with pytest.raises(LeakageFound, match="read for"):
        await workshop.run(SPEC, replace(state, selection=lightgbm))
    assert judged_by(workshop.folder / "run_1") == reads


def _spoil(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(
        decile=100 - pl.col("decile"), share=1 - pl.col("share"), specialty=pl.lit("new"), converts=1 - pl.col("converts")
    )


async def test_other_test_rows_give_the_same_model_and_threshold_and_other_metrics(alone: Callable[[str], Workshop]) -> None:
    _, one = await alone("run_1").train()
    _, other = await alone("run_2").train(test=_spoil, holdout=_spoil)
    first, second = one.trained, other.trained
    assert first is not None
    assert second is not None
    for name in (
        "algorithm",
        "hyperparameters",
        "model_sha256",
        "threshold",
        "calibration",
        "features",
        "train_metrics",
        "validation_metrics",
    ):
        assert getattr(first, name) == getattr(second, name), name
    assert first.metrics["roc_auc"].value > second.metrics["roc_auc"].value


async def test_validation_chooses_threshold_and_calibration_but_no_hyperparameter(alone: Callable[[str], Workshop]) -> None:
    _, one = await alone("run_1").train()
    _, other = await alone("run_2").train(validation=lambda rows: rows.with_columns(converts=1 - pl.col("converts")))
    first, second = one.trained, other.trained
    assert first is not None
    assert second is not None
    assert one.selection is not None
    assert other.selection is not None
    assert [item.cv_mean for item in (one.selection.primary, *one.selection.alternatives)] == [
        item.cv_mean for item in (other.selection.primary, *other.selection.alternatives)
    ]
    assert (first.algorithm, first.hyperparameters) == (second.algorithm, second.hyperparameters)
    assert first.threshold != second.threshold
    assert first.model_sha256 != second.model_sha256


async def test_with_mlflow_away_the_run_finishes_and_a_later_drain_links_both_sides(
    alone: Callable[[str], Workshop], database: Database, store: str
) -> None:
    away = alone("run_1")
    _, done = await away.train()
    assert done.trained is not None
    assert (done.trained.mlflow_run_id, done.trained.model_uri) == (None, None)
    rows = "select mlflow_run_id from ml_training_runs union all select mlflow_run_id from ml_model_registry"
    assert [row["mlflow_run_id"] for row in select(away.url, rows)] == [None, None]
    back = workshop_on(database, away.folder, away.url, store)
    found = await reconcile(LedgerRepository(database), MLflowMirror(back.tracker))
    assert {(item.kind, item.key, item.is_repaired) for item in found} == {("missing_here", "run_1/model_trainer", True)}
    (run,) = [run for run in await back.tracker.search_runs("e2i_model_trainer_exp_run_1") if run["key"] == "run_1/model_trainer"]
    assert [row["mlflow_run_id"] for row in select(away.url, rows)] == [run["run_id"]] * 2
    (row,) = select(away.url, "select mlflow_model_uri, model_sha256 from ml_model_registry")
    assert row["model_sha256"] == run["tags"]["e2i.digest"]
    assert str(row["mlflow_model_uri"]).startswith("models:/")
    assert await reconcile(LedgerRepository(database), MLflowMirror(back.tracker)) == []


async def test_a_crash_between_the_log_and_its_checkpoint_makes_no_duplicates(workshop: Workshop) -> None:
    async with postgres_checkpoints(workshop.url) as saver:
        prepared, selected = await workshop.up_to_selection()
        state = workshop.trainer_state(prepared, selected)
        workshop.saver, workshop.hooks = saver, [CrashAfter("log_to_mlflow")]
        with pytest.raises(StorageError):
            await workshop.run(SPEC, state)
        workshop.hooks = []
        done = await workshop.run(SPEC, state)
    assert isinstance(done, State)
    assert done.trained is not None
    runs = await workshop.tracker.search_runs("e2i_model_trainer_exp_run_1")
    assert sorted(run["key"] for run in runs) == ["run_1/model_trainer", "run_1/model_trainer/trial/0", "run_1/model_trainer/trial/1"]
    points, kept = await workshop.tracker.repeat(
        "looking", lambda operations: _points_and_models(operations.client, runs, done.trained.mlflow_run_id)
    )
    assert points == dict.fromkeys(points, 1)
    assert "duration_seconds" in points
    assert kept == 1
    for place in ("ml_training_runs", "ml_model_registry"):
        (row,) = select(workshop.url, f"select * from {place} where mlflow_run_id = '{done.trained.mlflow_run_id}'")
        assert row["key"] == "run_1/model_trainer"
    assert select(workshop.url, "select distinct status from outbox") == [{"status": "delivered"}]


def _points_and_models(client: Any, runs: list[dict[str, Any]], run_id: str | None) -> tuple[dict[str, int], int]:
    """Points per metric of the run, and logged models of its experiment."""
    (metrics,) = [run["metrics"] for run in runs if run["run_id"] == run_id]
    experiment = client.get_run(run_id).info.experiment_id
    return {name: len(client.get_metric_history(run_id, name)) for name in metrics}, len(client.search_logged_models([experiment]))


def test_a_continuous_target_goes_through_the_whole_chain(amount_chain: Chain) -> None:
    trained = amount_chain.trained.trained
    assert trained is not None
    assert {"rmse", "mae", "r2"} <= set(trained.metrics)
    assert trained.metrics["r2"].low is not None
    assert trained.metrics["r2"].low < trained.metrics["r2"].value
    assert (trained.threshold, trained.calibration, trained.fairness, trained.curves_ref) == (None, "none", {}, None)
    assert amount_chain.trained.imbalance == "none"
    assert trained.metrics["rmse"].value < float(table()["scripts"].std())  # type: ignore[arg-type]
    assert amount_chain.training_run["metrics"]["r2"] == trained.metrics["r2"].value
    assert amount_chain.explained.explanation is not None
    assert amount_chain.deployed.version.stage == "staging"


async def test_a_protected_column_with_an_odd_name_does_not_stop_the_log(workshop: Workshop) -> None:
    odd = "Alter (Jahre) %"
    workshop.study = study(PredictionSpec(**{**PREDICTION.model_dump(), "protected": (odd,)}))
    _, done = await workshop.train(table().rename({"age_group": odd}))
    assert done.trained is not None
    (run,) = [run for run in await workshop.tracker.search_runs("e2i_model_trainer_exp_run_1") if run["key"] == "run_1/model_trainer"]
    measure = done.trained.fairness[odd]["demographic_parity_difference"]
    assert [value for name, value in run["metrics"].items() if name.endswith("_demographic_parity_difference")] == [measure]
