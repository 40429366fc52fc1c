"""Stages and the single champion."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from databases import scratch
from e2i.domain.experiments import ALLOWED_PROMOTIONS, ModelVersion, ScopeSpec
from e2i.domain.study import Study
from e2i.errors import Conflict, NotFound, StorageError
from e2i.storage.audit import AuditFiles
from e2i.storage.postgres import Database
from e2i.storage.repositories import AuditRepository, ExperimentRepository, MLModelRegistryRepository

PROMOTERS, ROUNDS = 8, 200


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = scratch("e2i-champion-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def audit(database: Database, folder: Path) -> AuditRepository:
    return AuditRepository(database, AuditFiles(folder))


@pytest.fixture
async def registry(database: Database, audit: AuditRepository) -> MLModelRegistryRepository:
    scope = ScopeSpec(
        experiment_id="exp",
        problem_type="regression",
        prediction_target="y",
        required_features=(),
        excluded_features={},
        minimum_samples=1,
        success_criteria={},
        horizon_days=None,
        brand=None,
        region=None,
    )
    study = Study.model_validate({"name": "s", "data": {"source": "a.csv"}, "prediction": {"target": "y"}})
    await ExperimentRepository(database).save(scope, study=study, created_by="x")
    return MLModelRegistryRepository(database, audit)


async def register(registry: MLModelRegistryRepository, count: int, name: str = "m") -> list[ModelVersion]:
    return [
        await registry.register_model_candidate(
            experiment_id="exp", model_name=name, algorithm="a", hyperparameters={}, key=f"{name}{number}", mlflow_run_id=None
        )
        for number in range(count)
    ]


async def actions(database: Database) -> list[tuple[str, str]]:
    return [(row["action"], row["actor"]) for row in await database.rows("select action, actor from audit_log order by sequence")]


async def test_a_model_goes_the_allowed_way_and_no_other_with_an_audit_entry_per_move(
    registry: MLModelRegistryRepository, audit: AuditRepository, database: Database
) -> None:
    (model,) = await register(registry, 1)
    way = ("staging", "shadow", "production", "archived", "deprecated")
    for target in way:
        now = await registry.get(model.registry_id)
        for wrong in set(ALLOWED_PROMOTIONS) - set(ALLOWED_PROMOTIONS[now.stage]):
            with pytest.raises(Conflict, match=f"is in {now.stage} and cannot go to {wrong}"):
                await registry.transition(model.registry_id, to=wrong, actor="me", reason="r")
        assert (await registry.transition(model.registry_id, to=target, actor="me", reason="r")).stage == target  # type: ignore[arg-type]
    assert await actions(database) == [("model.transition", "me")] * len(way)
    row = (await database.rows("select details, subject from audit_log where sequence = 1"))[0]
    assert row["details"] == {"model": "m", "version": "1", "from": "development", "to": "staging", "reason": "r"}
    assert row["subject"] == f"model/{model.registry_id}"
    assert (await audit.verify()).ok
    with pytest.raises(NotFound):
        await registry.transition("nothing", to="staging", actor="me", reason="r")


async def test_a_move_that_cannot_be_audited_does_not_happen(
    registry: MLModelRegistryRepository, audit: AuditRepository, folder: Path
) -> None:
    first, second = await register(registry, 2)
    await registry.promote_champion(first.registry_id, actor="me", reason="r")
    (folder / "audit.head").write_text("nonsense")
    for call in (registry.transition(second.registry_id, to="staging", actor="me", reason="r"),
                 registry.promote_champion(second.registry_id, actor="me", reason="r")):  # fmt: skip
        with pytest.raises(StorageError, match=r"audit\.head"):
            await call
    assert (await registry.get(second.registry_id)).stage == "development"
    assert (await registry.champion("m")).registry_id == first.registry_id  # type: ignore[union-attr]


async def test_a_champion_steps_down_for_the_next_one_and_cannot_be_archived(
    registry: MLModelRegistryRepository, database: Database
) -> None:
    first, second = await register(registry, 2)
    (other,) = await register(registry, 1, name="other")
    assert await registry.champion("m") is None
    assert (await registry.promote_champion(first.registry_id, actor="me", reason="r")).is_champion
    await registry.promote_champion(other.registry_id, actor="me", reason="r")
    await registry.promote_champion(first.registry_id, actor="me", reason="again")
    assert len(await actions(database)) == 2, "nothing changed, nothing is audited"
    with pytest.raises(Conflict, match="is the champion"):
        await registry.transition(first.registry_id, to="archived", actor="me", reason="r")
    await registry.promote_champion(second.registry_id, actor="me", reason="r")
    assert [version.is_champion for version in await registry.versions("m")] == [True, False]
    assert await registry.champion("other") is not None
    assert (await registry.transition(first.registry_id, to="archived", actor="me", reason="r")).stage == "archived"
    with pytest.raises(Conflict, match="is archived and cannot be the champion"):
        await registry.promote_champion(first.registry_id, actor="me", reason="r")


async def test_the_database_itself_refuses_a_second_champion_and_an_archived_one(
    registry: MLModelRegistryRepository, database: Database
) -> None:
    first, _ = await register(registry, 2)
    await registry.promote_champion(first.registry_id, actor="me", reason="r")
    with pytest.raises(Conflict, match="one_champion"):
        await database.run("update ml_model_registry set is_champion = true")
    with pytest.raises(Conflict):
        await database.run("update ml_model_registry set stage = 'archived' where is_champion")


async def test_eight_promoters_in_two_hundred_rounds_leave_one_champion_and_no_reader_sees_another_number(
    registry: MLModelRegistryRepository, audit: AuditRepository, database: Database, server_url: str
) -> None:
    rounds = ROUNDS if "sslmode" in server_url else ROUNDS // 10  # in full on the embedded server
    models = await register(registry, PROMOTERS)
    await registry.promote_champion(models[0].registry_id, actor="me", reason="start")
    seen: list[int] = []
    is_over = False

    async def read() -> None:
        reader = await database.dedicated()
        while not is_over:
            cursor = await reader.execute("select count(*) as n from ml_model_registry where model_name = 'm' and is_champion")
            row = await cursor.fetchone()
            seen.append(row["n"] if row else -1)
            await asyncio.sleep(0.0005)
        await reader.close()

    reading = asyncio.create_task(read())
    for number in range(rounds):
        done = await asyncio.gather(*(registry.promote_champion(model.registry_id, actor="me", reason=f"{number}") for model in models))
        assert len(done) == PROMOTERS
        champion = await registry.champion("m")
        assert champion is not None
    is_over = True
    await reading
    assert set(seen) == {1}
    assert len(seen) > rounds
    assert [version.is_champion for version in await registry.versions("m")].count(True) == 1
    found = await audit.verify()
    assert found.ok
    assert found.entries == len(await actions(database)) > rounds
