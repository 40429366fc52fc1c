"""What the repositories keep, on real servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.outbox_contract import OutboxContract, message
from e2i.domain.experiments import (
    CriterionResult,
    Explanation,
    FeatureImportance,
    MetricValue,
    ScopeSpec,
    SearchResult,
    TrainedModel,
)
from e2i.domain.quality import CheckResult, QCIssue, QCReport
from e2i.domain.runs import StepRecord, StudyRun, Tier
from e2i.domain.study import Study
from e2i.errors import Conflict, NotFound, StorageError
from e2i.ml.meta_features import META_FEATURES
from e2i.storage.audit import AuditFiles
from e2i.storage.postgres import Database
from e2i.storage.repositories import (
    AuditRepository,
    DataQualityRepository,
    DeploymentRepository,
    ExperimentRepository,
    HpoRepository,
    MLModelRegistryRepository,
    OutboxRepository,
    RunRepository,
    ShapAnalysisRepository,
    TrainingRunRepository,
)
from e2i.storage.repositories.search import RANGES

NOW = datetime(2026, 3, 6, 12, 0, 0, 123456, tzinfo=UTC)
STUDY = Study.model_validate(
    {
        "name": "lift",
        "description": "Does it lift NRx?",
        "brand": "Kisqali",
        "region": "south",
        "data": {"source": "panel.csv"},
        "prediction": {"target": "converts"},
    }
)


def scope(experiment_id: str = "exp_lift", **changes: Any) -> ScopeSpec:
    values: dict[str, Any] = {
        "experiment_id": experiment_id,
        "problem_type": "binary_classification",
        "prediction_target": "converts",
        "required_features": ("decile", "calls"),
        "excluded_features": {"npi": "an identifier by its name"},
        "minimum_samples": 500,
        "success_criteria": {"minimum_auc": 0.75, "maximum_fpr": 0.2, "minimum_f1": 0.5},
        "horizon_days": 30,
        "brand": "Kisqali",
        "region": "south",
    }
    return ScopeSpec(**{**values, **changes})


def trained(**changes: Any) -> TrainedModel:
    values: dict[str, Any] = {
        "algorithm": "lightgbm",
        "framework": "lightgbm",
        "hyperparameters": {"max_depth": 3, "learning_rate": 0.1, "flag": True, "nothing": None},
        "features": ("decile", "calls"),
        "model_ref": "runs/r1/model",
        "model_sha256": "ab" * 32,
        "training_samples": 600,
        "threshold": 0.4,
        "calibration": "isotonic",
        "epochs": 10,
        "duration_s": 0.4,
        "metrics": {
            "roc_auc": MetricValue(value=0.81, low=0.79, high=0.83),
            "pr_auc": MetricValue(value=0.4),
            "brier": MetricValue(value=0.12),
            "calibration_slope": MetricValue(value=12.5),
        },
        "train_metrics": {"roc_auc": 0.9},
        "validation_metrics": {"roc_auc": 0.82},
        "baseline_metrics": {"roc_auc": 0.5},
        "fairness": {"age_group": {"demographic_parity_difference": 0.02}},
        "success": {"minimum_auc": CriterionResult(required=0.75, value=0.81, met=True)},
        "mlflow_run_id": None,
        "model_uri": None,
        "training_run_id": None,
    }
    return TrainedModel(**{**values, **changes})


def found(name: str = "s1", **changes: Any) -> SearchResult:
    values: dict[str, Any] = {
        "study_name": name,
        "algorithm": "lightgbm",
        "metric": "roc_auc",
        "best_params": {"max_depth": 3, "subsample": 0.7},
        "best_value": 0.8123456789,
        "best_trial": 4,
        "n_complete": 6,
        "n_pruned": 3,
        "n_failed": 1,
        "n_warm_start": 2,
        "seconds": 1.5,
    }
    return SearchResult(**{**values, **changes})


async def one(db: Database, table: str) -> dict[str, Any]:
    rows = await db.rows(f"select * from {table}")  # type: ignore[arg-type]
    assert len(rows) == 1
    return rows[0]


@pytest.fixture
async def experiment(database: Database) -> str:
    return await ExperimentRepository(database).save(scope(), study=STUDY, created_by="scope_definer")


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> MLModelRegistryRepository:
    return MLModelRegistryRepository(database, AuditRepository(database, AuditFiles(tmp_path / "audit")))


async def candidate(registry: MLModelRegistryRepository, key: str, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "experiment_id": "exp_lift",
        "model_name": "lift_lightgbm",
        "algorithm": "lightgbm",
        "hyperparameters": {"max_depth": 3},
        "mlflow_run_id": None,
    }
    return await registry.register_model_candidate(key=key, **{**values, **changes})


async def test_an_experiment_saved_twice_is_one_row_with_the_newer_content(database: Database) -> None:
    experiments = ExperimentRepository(database)
    first = await experiments.save(scope(), study=STUDY, created_by="scope_definer")
    assert await experiments.save(scope(horizon_days=60), study=STUDY, created_by="scope_definer") == first
    row = await one(database, "ml_experiments")
    assert (row["experiment_name"], row["prediction_horizon_days"], row["brand"], row["region"]) == ("exp_lift", 60, "Kisqali", "south")
    assert (float(row["minimum_auc"]), float(row["maximum_fpr"]), row["minimum_precision_at_k"]) == (0.75, 0.2, None)
    assert row["scope"]["success_criteria"] == {"minimum_auc": 0.75, "maximum_fpr": 0.2, "minimum_f1": 0.5}
    assert row["scope"]["excluded_features"] == {"npi": "an identifier by its name"}


async def test_an_experiment_is_found_by_name_and_by_uuid(database: Database, experiment: str) -> None:
    experiments = ExperimentRepository(database)
    await experiments.set_mlflow_id(experiment, "17")
    await experiments.set_mlflow_id("exp_lift", "18")
    assert (await one(database, "ml_experiments"))["mlflow_experiment_id"] == "18"
    with pytest.raises(NotFound, match="exp_nothing"):
        await experiments.set_mlflow_id("exp_nothing", "19")


async def test_a_wrong_success_criterion_is_refused_by_the_table(database: Database) -> None:
    with pytest.raises(Conflict, match="minimum_auc") as caught:
        await ExperimentRepository(database).save(scope(success_criteria={"minimum_auc": 0.3}), study=STUDY, created_by="x")
    assert "Failing row" not in str(caught.value)


async def test_a_training_run_is_started_once_per_key_and_its_outbox_is_written_once(database: Database, experiment: str) -> None:
    runs, outbox = TrainingRunRepository(database), OutboxRepository(database)
    begin = {"experiment_id": experiment, "run_name": "r", "algorithm": "lightgbm", "training_samples": 600, "feature_names": ["decile"]}
    run = await runs.start(key="k1", **begin)  # type: ignore[arg-type]
    assert await runs.start(key="k1", **begin) == run  # type: ignore[arg-type]
    for _ in range(2):
        await runs.finish(
            run,
            model=trained(mlflow_run_id="m1"),
            search=found(),
            samples={"train": 600, "validation": 200, "test": 150},
            outbox=[message()],
        )
    row = await one(database, "ml_training_runs")
    assert (row["status"], row["validation_samples"], row["test_samples"], float(row["duration_seconds"])) == ("completed", 200, 150, 0.4)
    assert row["test_metrics"]["roc_auc"] == {"value": 0.81, "low": 0.79, "high": 0.83}
    assert (row["optuna_study_name"], row["optuna_trial_number"], row["is_best_trial"], row["mlflow_run_id"]) == ("s1", 4, True, "m1")
    assert await outbox.counts("mlflow") == {"pending": 1, "delivered": 0, "quarantined": 0}
    history = await runs.history(problem_type="binary_classification")
    assert [(past.algorithm, past.metrics["roc_auc"]) for past in history] == [("lightgbm", 0.81)]
    assert history[0].completed_at.tzinfo is not None
    assert await runs.history(problem_type="regression") == []


async def test_a_metric_that_is_not_finite_is_refused_and_nothing_is_written(database: Database, experiment: str) -> None:
    runs = TrainingRunRepository(database)
    run = await runs.start(experiment_id=experiment, run_name="r", algorithm="a", training_samples=1, feature_names=[], key="k")
    with pytest.raises(StorageError, match="JSON"):
        await runs.finish(run, model=trained(train_metrics={"roc_auc": float("nan")}), search=None, samples={}, outbox=[message()])
    assert (await one(database, "ml_training_runs"))["status"] == "running"
    assert (await OutboxRepository(database).counts("mlflow"))["pending"] == 0


async def test_a_failed_training_run_keeps_its_error_and_may_be_started_again(database: Database, experiment: str) -> None:
    runs = TrainingRunRepository(database)
    begin = {"experiment_id": experiment, "run_name": "r", "algorithm": "a", "training_samples": 1, "feature_names": [], "key": "k"}
    run = await runs.start(**begin)  # type: ignore[arg-type]
    await runs.fail(run, "out of memory")
    row = await one(database, "ml_training_runs")
    assert (row["status"], row["error_message"]) == ("failed", "out of memory")
    assert await runs.start(**begin) == run  # type: ignore[arg-type]
    assert (await one(database, "ml_training_runs"))["status"] == "running"
    with pytest.raises(NotFound):
        await runs.fail("8d0c4d3e-0000-0000-0000-000000000000", "x")
    with pytest.raises(NotFound):
        await runs.start(**{**begin, "experiment_id": "nowhere", "key": "k2"})  # type: ignore[arg-type]


async def test_versions_count_up_per_model_and_a_key_keeps_its_version(
    database: Database, experiment: str, registry: MLModelRegistryRepository
) -> None:
    first, second = await candidate(registry, "a"), await candidate(registry, "b")
    assert (first.version, first.stage, first.is_champion, second.version) == ("1", "development", False, "2")
    assert (await candidate(registry, "c", model_name="other")).version == "1"
    again = await candidate(registry, "a", training=trained(), mlflow_run_id="m1", mlflow_model_uri="models:/m-1")
    assert (again.registry_id, again.version, again.mlflow_run_id, again.model_uri) == (first.registry_id, "1", "m1", "models:/m-1")
    row = (await database.rows("select * from ml_model_registry where key = 'a'"))[0]
    assert (float(row["auc"]), float(row["pr_auc"]), float(row["brier_score"]), row["calibration_slope"]) == (0.81, 0.4, 0.12, 12.5)
    assert (row["feature_count"], row["training_samples"], row["artifact_path"]) == (2, 600, "runs/r1/model")
    kept = await candidate(registry, "a")
    assert (kept.mlflow_run_id, kept.model_uri) == ("m1", "models:/m-1")
    assert float((await database.rows("select auc from ml_model_registry where key = 'a'"))[0]["auc"]) == 0.81
    assert [(v.name, v.version) for v in await registry.versions()] == [("other", "1"), ("lift_lightgbm", "2"), ("lift_lightgbm", "1")]
    assert [v.version for v in await registry.versions("lift_lightgbm")] == ["2", "1"]
    with pytest.raises(Conflict, match="belongs to model"):
        await candidate(registry, "a", model_name="other")
    with pytest.raises(NotFound):
        await candidate(registry, "z", experiment_id="nowhere")
    with pytest.raises(NotFound):
        await registry.get("nothing")


async def test_a_registered_model_is_linked_to_its_training_run(
    database: Database, experiment: str, registry: MLModelRegistryRepository
) -> None:
    runs = TrainingRunRepository(database)
    run = await runs.start(experiment_id=experiment, run_name="r", algorithm="a", training_samples=1, feature_names=[], key="k")
    version = await candidate(registry, "a", training=trained(training_run_id=run))
    assert str((await one(database, "ml_training_runs"))["model_registry_id"]) == version.registry_id


async def test_eight_registrations_at_once_get_eight_versions(
    database: Database, experiment: str, registry: MLModelRegistryRepository
) -> None:
    import asyncio

    made = await asyncio.gather(*(candidate(registry, f"k{number}") for number in range(8)))
    assert sorted(int(version.version) for version in made) == list(range(1, 9))


async def test_a_quality_report_keeps_scores_failures_and_leaks(database: Database) -> None:
    report = QCReport(
        report_id="q1",
        table="visits",
        status="failed",
        score=0.91,
        scores={"completeness": 1.0, "validity": 0.9, "consistency": 1.0, "uniqueness": 1.0, "timeliness": 0.5},
        issues=(
            QCIssue(check="target_copy", severity="blocking", detail="d", advice="a", column="y2", value=1.0, threshold=0.98),
            QCIssue(check="constant_column", severity="warning", detail="d", advice="a", column="z"),
        ),
        checks=(
            CheckResult(suite="visits", expectation="not_null", family="completeness", passed=True),
            CheckResult(suite="visits", expectation="between", family="validity", passed=False, column="share", unexpected_share=0.1),
        ),
        rows=1500,
        columns=9,
        validated_at=NOW,
        data_sha256="cd" * 32,
    )
    quality = DataQualityRepository(database)
    first = await quality.save(report, study=STUDY, split="unassigned")
    assert await quality.save(report, study=STUDY, split="unassigned") == first
    row = await one(database, "ml_data_quality_reports")
    assert (row["overall_status"], float(row["overall_score"]), float(row["success_rate"])) == ("failed", 0.91, 0.5)
    assert (row["expectations_evaluated"], row["expectations_passed"], row["expectations_failed"]) == (2, 1, 1)
    assert (row["leakage_detected"], row["leakage_details"][0]["column"], len(row["issues"])) == (True, "y2", 2)
    assert (row["failed_expectations"][0]["column"], row["accuracy_score"], row["run_at"]) == ("share", None, NOW)
    crashed = replace(report, report_id="q2", score=None, scores={}, checks=(), issues=())
    await quality.save(crashed, study=STUDY, split="train")
    row = (await database.rows("select * from ml_data_quality_reports where key = 'q2'"))[0]
    assert (row["overall_score"], row["success_rate"], row["leakage_detected"], row["data_split"]) == (None, None, False, "train")


async def test_an_explanation_of_the_same_split_replaces_the_one_before(
    database: Database, experiment: str, registry: MLModelRegistryRepository
) -> None:
    version = await candidate(registry, "a")
    explanation = Explanation(
        method="tree",
        sample_size=500,
        base_value=-34.5,
        top_features=(
            FeatureImportance(feature="decile", importance=123.0, direction="positive"),
            FeatureImportance(feature="calls", importance=0.1, direction="mixed"),
        ),
        interactions=(("decile", "calls", 0.02),),
        additivity_error=1e-9,
        seconds=0.2,
        values_ref=None,
    )
    shap = ShapAnalysisRepository(database)
    first = await shap.save(explanation, registry_id=version.registry_id, split="test")
    assert await shap.save(replace(explanation, sample_size=600), registry_id=version.registry_id, split="test") == first
    row = await one(database, "ml_shap_analyses")
    assert (row["global_importance"], row["key_drivers"]) == ({"decile": 123.0, "calls": 0.1}, ["decile", "calls"])
    assert (row["top_interactions"], row["base_value"], row["sample_size"]) == ([["decile", "calls", 0.02]], -34.5, 600)
    with pytest.raises(NotFound):
        await shap.save(explanation, registry_id="8d0c4d3e-0000-0000-0000-000000000000", split="test")


async def test_a_deployment_is_one_row_that_follows_its_status(
    database: Database, experiment: str, registry: MLModelRegistryRepository
) -> None:
    version, deployments = await candidate(registry, "a"), DeploymentRepository(database)
    given: dict[str, Any] = {"registry_id": version.registry_id, "name": "lift", "environment": "staging", "deployed_by": "model_deployer"}
    first = await deployments.save(status="pending", config={"replicas": 1}, **given)
    assert (await one(database, "ml_deployments"))["deployed_at"] is None
    assert await deployments.save(status="active", config={"replicas": 2}, **given) == first
    row = await one(database, "ml_deployments")
    assert (row["status"], row["deployment_config"], row["deployed_at"] is None) == ("active", {"replicas": 2}, False)
    with pytest.raises(StorageError, match="deployment_status_enum"):
        await deployments.save(status="flying", config={}, **given)


async def test_a_search_is_kept_whole_and_updated_by_its_name(database: Database, experiment: str) -> None:
    search = HpoRepository(database)
    for trials in (6, 16):
        await search.save_study(
            found(n_complete=trials),
            experiment_id="exp_lift",
            problem_type="regression",
            space={"a": {"low": 1}},
            sampler="tpe",
            pruner="hyperband",
        )
    row = await one(database, "ml_hpo_studies")
    assert (row["n_trials"], row["n_completed"], row["n_pruned"], row["n_failed"]) == (20, 16, 3, 1)
    assert (row["best_value"], row["best_params"], row["search_space"]) == (0.8123456789, found().best_params, {"a": {"low": 1}})
    await search.save_study(
        found("s2", best_value=-123456.5), experiment_id=experiment, problem_type="regression", space={}, sampler="tpe", pruner="none"
    )
    with pytest.raises(NotFound):
        await search.save_study(found("s3"), experiment_id="nowhere", problem_type="regression", space={}, sampler="tpe", pruner="none")


META = dict(zip(META_FEATURES, (3.2, 0.95, 0, 0.3, 0.3, 0.6, 0.02, 1.5, 0.1, 0.7, 0.55, 0.8), strict=True))


async def test_patterns_come_back_by_similarity_of_their_data(database: Database) -> None:
    search = HpoRepository(database)
    near = {**META, "log_rows": 3.3, "log_features": 1.05, "minority_share": 0.33, "landmark_best": 0.72}
    far = dict(zip(META_FEATURES, (6.3, 3.0, 0, 0.002, 0.95, 3.0, 0.6, 9.0, 0.6, 0.99, 0.7, 0.99), strict=True))
    await search.remember(found("far"), problem_type="binary_classification", meta_features=far)
    await search.remember(found("near", best_value=0.7), problem_type="binary_classification", meta_features=near)
    await search.remember(found("same"), problem_type="binary_classification", meta_features=META)
    await search.remember(found("other_kind"), problem_type="regression", meta_features=META)

    async def similar(minimum: float, limit: int = 20) -> list[Any]:
        return await search.similar(
            algorithm="lightgbm", problem_type="binary_classification", meta_features=META, minimum=minimum, limit=limit
        )

    patterns = await similar(0.0)
    assert patterns[0].similarity == pytest.approx(1.0)
    assert 0.99 < patterns[1].similarity < patterns[0].similarity
    assert patterns[1].value == 0.7
    assert patterns[0].params == found().best_params
    assert len(patterns) == 3
    assert patterns[2].similarity < 0.5
    assert len(await similar(0.7)) == 2
    assert len(await similar(0.0, limit=1)) == 1
    assert await search.similar(algorithm="xgboost", problem_type="regression", meta_features=META, minimum=0, limit=9) == []


async def test_a_pattern_is_kept_once_per_search_and_bad_meta_features_are_refused(database: Database) -> None:
    search = HpoRepository(database)
    for value in (0.6, 0.9):
        await search.remember(found("s", best_value=value), problem_type="regression", meta_features=META)
    assert (await one(database, "hpo_pattern_memory"))["best_value"] == 0.9
    for wrong in ({**META, "log_rows": float("nan")}, {**META, "log_rovs": 1.0}, {"log_rows": 3.0}):
        with pytest.raises(StorageError, match=r"log_(features|rows|rovs)"):
            await search.remember(found("t"), problem_type="regression", meta_features=wrong)


def test_the_pattern_memory_knows_every_meta_feature_in_its_order() -> None:
    assert tuple(RANGES) == META_FEATURES


def a_run(run_id: str = "r1", fingerprint: str = "f1", **changes: Any) -> StudyRun:
    values: dict[str, Any] = {"study": "lift", "status": "running", "experiment_id": None, "trace_id": "t1", "started_at": NOW}
    return StudyRun(run_id=run_id, fingerprint=fingerprint, **{**values, **changes})


def a_step(run_id: str = "r1", **changes: Any) -> StepRecord:
    values: dict[str, Any] = {
        "agent": "scope_definer", "tier": Tier.ML_FOUNDATION, "step": "define", "attempt": 1, "status": "success",
        "started_at": NOW, "duration_ms": 10.0,
    }  # fmt: skip
    return StepRecord(run_id=run_id, **{**values, **changes})


async def test_a_run_is_written_at_its_start_and_at_its_end(database: Database) -> None:
    runs = RunRepository(database)
    run = await runs.claim(a_run())
    assert run == a_run()
    ended = replace(run, status="failed", finished_at=NOW + timedelta(minutes=1), error={"error": "DataError", "what": "no rows"})
    await runs.finish(ended)
    assert await runs.recent() == [ended]
    with pytest.raises(Conflict, match="was not claimed here"):
        await runs.finish(ended)


async def test_steps_are_summarised_by_agent_from_real_rows_only(database: Database) -> None:
    runs = RunRepository(database)
    assert await runs.summarize("r1") == []
    await runs.claim(a_run("r1", "f1"))
    await runs.claim(a_run("r2", "f2", started_at=NOW + timedelta(seconds=1)))
    for duration in range(1, 101):
        await runs.record_step(a_step(duration_ms=float(duration), input_tokens=2, output_tokens=1))
    await runs.record_step(a_step("r2", agent="explainer", tier=Tier.SELF_IMPROVEMENT, status="timeout", error={"what": "slow"}))
    await runs.record_step(a_step("r2", started_at=NOW + timedelta(hours=1), status="error"))
    (alone,) = await runs.summarize("r1")
    assert (alone.steps, alone.errors, alone.input_tokens, alone.output_tokens) == (100, 0, 200, 100)
    assert (alone.p50_ms, alone.p95_ms, alone.p99_ms, alone.avg_ms) == pytest.approx((50.5, 95.05, 99.01, 50.5))
    first, second = await runs.summarize("r2")
    assert (first.agent, first.tier, first.steps, first.errors) == ("scope_definer", "ml_foundation", 1, 1)
    assert (second.agent, second.tier, second.errors, second.input_tokens) == ("explainer", "self_improvement", 1, 0)
    assert [run.run_id for run in await runs.recent()] == ["r2", "r1"]
    with pytest.raises(NotFound):
        await runs.record_step(a_step("nobody"))


class TestPostgresOutbox(OutboxContract):
    """The contract that every outbox keeps."""

    @pytest.fixture
    def outbox(self, database: Database) -> OutboxRepository:
        return OutboxRepository(database)


async def test_messages_of_one_key_are_numbered_in_the_order_of_their_commits(database: Database) -> None:
    """A number taken by a transaction that commits late would let a later message overtake an earlier one."""
    import asyncio

    from e2i.storage.repositories.outbox import append_within

    outbox = OutboxRepository(database)
    async with database.transaction() as connection:
        await append_within(connection, [message("k", operation="first")])
        second = asyncio.create_task(outbox.append([message("k", operation="second")]))
        other = await outbox.append([message("another key")])
        await asyncio.sleep(0.05)
        assert not second.done()
        assert [m.message_id for m in await outbox.pending("mlflow")] == other
    await second
    assert [m.operation for m in await outbox.pending("mlflow", key="k")] == ["first", "second"]


async def test_a_result_said_twice_stays_the_first(database: Database) -> None:
    outbox = OutboxRepository(database)
    (number,) = await outbox.append([message("k")])
    await outbox.mark_delivered(number, {"run_id": "r1"})
    await outbox.mark_delivered(number, {"run_id": "r2"})
    await outbox.mark_failed(number, "late news", quarantine=True)
    assert await outbox.results("mlflow", "k") == {"run_id": "r1"}
    assert (await outbox.counts("mlflow"))["delivered"] == 1
