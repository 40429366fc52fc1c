"""Experiments and runs of agents against MLflow on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2i import config
from e2i.errors import BackendRejected, ConfigError, DataError
from e2i.mlops.experiment_tracker import ExperimentTracker
from e2i.mlops.mlflow_connector import MLflowConnector
from e2i.mlops.mlflow_operations import TARGET
from e2i.settings.sections import AgentSection
from tracking import AWAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from contracts.sqlite_outbox import SqliteOutbox
    from e2i.mlops.mlflow_connector import MlflowSettings


def section(tier: str, experiment: str, *, prompts: bool = True, artifacts: bool = True) -> AgentSection:
    values = {"tier": tier, "budget_s": 30, "mlflow_experiment": experiment, "log_prompts": prompts, "log_artifacts": artifacts}
    return AgentSection.model_validate(values)


AGENTS = {
    "causal_impact": section("causal_analytics", "e2i_causal_impact"),
    "drift_monitor": section("monitoring", "e2i_drift_monitor", prompts=False),
    "health_score": section("monitoring", "platform_health", artifacts=False),
}


@pytest.fixture
def tracker(connector: MLflowConnector) -> ExperimentTracker:
    return ExperimentTracker(connector, AGENTS)


def fresh(word: str = "Speaker program") -> str:
    return f"{word} {uuid.uuid4().hex[:8]}"


async def experiment_named(connector: MLflowConnector, name: str) -> Any:
    return await connector.repeat("looking", lambda operations: operations.client.get_experiment_by_name(name))


def artifacts_of(folder: Path, experiment: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / experiment).rglob("*") if path.is_file()}


async def test_a_run_with_settings_metrics_prompts_and_artifacts(
    tracker: ExperimentTracker, connector: MLflowConnector, artifacts: Path, tmp_path: Path
) -> None:
    study = fresh()
    graph = tmp_path / "graph.json"
    graph.write_text('{"nodes": []}')
    async with tracker.track("causal_impact", experiment_id=study, brand="Kisqali", kpi="nrx", tags={"region": "Northeast"}) as run:
        assert run.run_id is not None
        await run.log_hyperparameters(temperature=0.3, max_tokens=2048, model_version="claude-sonnet-4", top_p=None, folds=5)
        await run.log_metrics(causal_confidence=0.82, gap_score=None, refutations_passed=4)
        assert await run.log_prompt("Interpret effect", "Why did NRx rise?", {"answer": "the program"})
        assert await run.log_text("report.md", "# Effect")
        assert await run.log_artifact(graph, "graphs")
    name = tracker.experiment_name("causal_impact", study)
    assert name == f"e2i_causal_impact_{study.lower().replace(' ', '_')}"
    (logged,) = await connector.search_runs(name)
    assert (logged["run_id"], logged["key"], logged["status"]) == (run.run_id, run.key, "FINISHED")
    assert logged["params"] == {"temperature": "0.3", "max_tokens": "2048", "model_version": "claude-sonnet-4", "folds": "5"}
    assert logged["metrics"] == {"causal_confidence": 0.82, "refutations_passed": 4.0}
    wanted = {"agent": "causal_impact", "tier": "causal_analytics", "brand": "Kisqali", "kpi": "nrx", "region": "Northeast"}
    assert wanted.items() <= logged["tags"].items()
    found = artifacts_of(artifacts, name)
    assert json.loads(found["interpret_effect.json"]) == {"prompt": "Why did NRx rise?", "completion": {"answer": "the program"}}
    assert (found["report.md"], found["graph.json"]) == ("# Effect", '{"nodes": []}')


async def test_prompts_are_artifacts_only_where_the_agents_settings_allow_both(
    tracker: ExperimentTracker, connector: MLflowConnector, artifacts: Path, tmp_path: Path
) -> None:
    study, file = fresh(), tmp_path / "plot.txt"
    file.write_text("plot")
    async with tracker.track("drift_monitor", experiment_id=study) as run:
        assert not await run.log_prompt("ask", "secret question", "secret answer")
        assert await run.log_artifact(file)
        await run.log_metrics(drift_magnitude=0.4)
    async with tracker.track("health_score", experiment_id=study) as run:
        assert not await run.log_prompt("ask", "secret question")
        assert not await run.log_artifact(file)
        assert not await run.log_text("note.txt", "x")
    assert artifacts_of(artifacts, tracker.experiment_name("drift_monitor", study)) == {"plot.txt": "plot"}
    health = tracker.experiment_name("health_score", study)
    assert health.startswith("platform_health_speaker_program_")
    assert artifacts_of(artifacts, health) == {}
    (logged,) = await connector.search_runs(tracker.experiment_name("drift_monitor", study))
    assert logged["metrics"] == {"drift_magnitude": 0.4}


async def test_there_is_one_experiment_per_tier_and_brand_however_often_and_many_at_once_they_are_made(
    connect: Callable[[], MLflowConnector],
) -> None:
    brands = [f"Kisqali {uuid.uuid4().hex[:6]}", "Fabhalta"]
    trackers = [ExperimentTracker(connect(), AGENTS) for _ in range(3)]
    tiers = ["monitoring", "self_improvement"]
    made = await asyncio.gather(*(tracker.create_experiments(brands=brands, tiers=tiers) for tracker in trackers))
    assert made[0] == made[1] == made[2]
    assert len(set(made[0].values())) == len(made[0]) == 4
    name = f"e2i_monitoring_{brands[0].lower().replace(' ', '_')}"
    experiment = await experiment_named(connect(), name)
    assert experiment.experiment_id == made[0][name]
    assert {"tier": "monitoring", "brand": brands[0]}.items() <= experiment.tags.items()


async def test_by_default_every_brand_and_tier_of_ours_has_its_experiment(tracker: ExperimentTracker) -> None:
    made = await tracker.create_experiments()
    assert len(made) == 18
    assert {"e2i_causal_analytics_kisqali", "e2i_ml_foundation_remibrutinib", "e2i_self_improvement_fabhalta"} <= set(made)
    assert all(made.values())
    assert await tracker.create_experiments() == made


async def test_a_run_without_an_experiment_goes_to_its_brands(tracker: ExperimentTracker, connector: MLflowConnector) -> None:
    brand = fresh("Brand")
    async with tracker.track("causal_impact", brand=brand):
        pass
    name = tracker.experiment_name("causal_impact", brand)
    experiment = await experiment_named(connector, name)
    assert {"agent": "causal_impact", "tier": "causal_analytics", "brand": brand}.items() <= experiment.tags.items()
    assert len(await connector.search_runs(name)) == 1


async def test_the_same_key_continues_the_same_run(connect: Callable[[], MLflowConnector]) -> None:
    study, key = fresh(), uuid.uuid4().hex
    for _ in range(2):
        tracker = ExperimentTracker(connect(), AGENTS)
        async with tracker.track("causal_impact", experiment_id=study, key=key) as run:
            await run.log_hyperparameters(temperature=0.3)
            await run.log_metrics(causal_confidence=0.8)
    (logged,) = await connect().search_runs(tracker.experiment_name("causal_impact", study))
    assert (logged["key"], logged["metrics"]) == (key, {"causal_confidence": 0.8})
    with pytest.raises(BackendRejected):
        async with tracker.track("causal_impact", experiment_id=study, key=key) as run:
            await run.log_hyperparameters(temperature=0.9)


async def test_runs_are_compared_by_a_metric_and_the_best_is_found(tracker: ExperimentTracker) -> None:
    study, other = fresh(), fresh("Rebate")
    for brand, confidence in (("Kisqali", 0.7), ("Fabhalta", 0.9), ("Kisqali", 0.8)):
        async with tracker.track("causal_impact", experiment_id=study, brand=brand, run_name=f"{brand} {confidence}") as run:
            await run.log_hyperparameters(temperature=confidence / 2)
            await run.log_metrics(causal_confidence=confidence)
    async with tracker.track("causal_impact", experiment_id=study):
        pass
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # what the run logged before it failed must be there
        async with tracker.track("causal_impact", experiment_id=study) as run:
            await run.log_metrics(causal_confidence=1.0)
            _ = 1 / 0
    async with tracker.track("causal_impact", experiment_id=other) as run:
        await run.log_metrics(causal_confidence=0.95)
    names = [tracker.experiment_name("causal_impact", item) for item in (study, other)]
    compared = await tracker.compare([*names, names[0], "e2i_causal_impact_none_such"], "causal_confidence")
    assert [run.metrics["causal_confidence"] for run in compared.ranked] == [0.95, 0.9, 0.8, 0.7]
    assert len(compared.without) == 1
    best = (await tracker.compare(names[:1], "causal_confidence")).best
    assert best is not None
    assert (best.name, best.params, best.tags["brand"], best.experiment) == ("Fabhalta 0.9", {"temperature": "0.45"}, "Fabhalta", names[0])
    lowest_first = await tracker.compare(names[:1], "causal_confidence", maximise=False)
    assert lowest_first.ranked[0].name == "Kisqali 0.7"
    of_one_brand = await tracker.compare(names[:1], "causal_confidence", where={"brand": "Kisqali"})
    assert of_one_brand.ranked[0].name == "Kisqali 0.8"
    assert (await tracker.compare(names[:1], "drift_magnitude")).best is None


async def test_while_mlflow_is_away_everything_waits_and_then_arrives(
    settings: MlflowSettings, outbox: SqliteOutbox, artifacts: Path
) -> None:
    away = ExperimentTracker(MLflowConnector(replace(settings, tracking_uri=AWAY, request_timeout=2), outbox), AGENTS)
    study = fresh()
    async with away.track("causal_impact", experiment_id=study, brand="Kisqali") as run:
        assert run.run_id is None
        await run.log_hyperparameters(temperature=0.3)
        await run.log_metrics(causal_confidence=0.8)
        assert await run.log_prompt("ask", "Why?", "Because.")
    assert (await away.create_experiments(brands=["Kisqali"], tiers=[study])).popitem()[1] is None
    back = MLflowConnector(settings, outbox)
    assert (await back.drain()).errors == {}
    assert (await outbox.counts(TARGET))["pending"] == 0
    name = away.experiment_name("causal_impact", study)
    (logged,) = await back.search_runs(name)
    assert (logged["key"], logged["status"], logged["metrics"]) == (run.key, "FINISHED", {"causal_confidence": 0.8})
    assert "ask.json" in artifacts_of(artifacts, name)
    assert (await experiment_named(back, name)).tags["tier"] == "causal_analytics"


async def test_what_cannot_be_tracked_is_refused_with_how_to_mend_it(tracker: ExperimentTracker) -> None:
    with pytest.raises(ConfigError, match="Did you mean `causal_impact`"):
        tracker.track("causal_impct", experiment_id="x")
    with pytest.raises(ConfigError, match="neither experiment_id nor brand"):
        tracker.track("causal_impact")
    with pytest.raises(ConfigError, match="no letter or digit"):
        tracker.track("causal_impact", experiment_id=" ?! ")
    async with tracker.track("causal_impact", experiment_id=fresh()) as run:
        with pytest.raises(DataError, match="not a number that can be compared"):
            await run.log_metrics(gap_score=math.nan)
        with pytest.raises(DataError, match="no such file"):
            await run.log_artifact(Path("nowhere.png"))
        for name in ("", "..", "a/b", "a\0b"):
            with pytest.raises(DataError, match="not a file's name"):
                await run.log_text(name, "x")


def test_the_shipped_settings_of_all_agents_name_their_experiment(connector: MLflowConnector) -> None:
    agents = config.load().agents
    tracker = ExperimentTracker(connector, agents)
    assert len(agents) == 18
    assert {tracker.experiment_name(name, "Kisqali") for name in agents} == {f"e2i_{name}_kisqali" for name in agents}
