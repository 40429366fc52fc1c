"""model_deployer: to staging when it has earned it, along the map, with an audit entry; nothing pretends to serve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from e2i.agents.ml_foundation.model_deployer import SPEC, State
from e2i.domain.experiments import CriterionResult
from e2i.domain.study import SuccessSpec
from e2i.errors import Conflict
from e2i.mlops.mlflow_mirror import MLflowMirror
from e2i.mlops.reconcile import reconcile
from e2i.ports import records
from e2i.storage.postgres import Database
from e2i.storage.repositories.ledger import LedgerRepository
from tracking import AWAY
from workshop import Chain, Workshop, select, study, workshop_on

MOVES = "select * from audit_log where action = 'model.transition'"
DEPLOYMENTS = "select * from ml_deployments"


def test_a_model_that_meets_its_criteria_goes_to_staging_with_an_audit_entry(chain: Chain) -> None:
    done = chain.deployed
    assert (done.refusal, done.version.stage) == (None, "staging")
    (row,) = chain.rows("select * from ml_model_registry")
    assert (row["stage"], row["is_champion"]) == ("staging", False)
    (entry,) = chain.rows(MOVES)
    assert (entry["actor"], entry["subject"]) == ("model_deployer", f"model/{done.version.registry_id}")
    details: dict[str, Any] = entry["details"]
    assert (details["from"], details["to"]) == ("development", "staging")
    assert "run_1" in details["reason"]
    (version,) = chain.versions
    assert (version.version, version.stage, version.aliases) == (done.mlflow_version, "staging", ("staging",))
    assert version.digest == done.trained.model_sha256


def test_the_deployment_is_pending_and_has_no_address(chain: Chain) -> None:
    (row,) = chain.rows(DEPLOYMENTS)
    assert (row["status"], row["endpoint_url"], row["endpoint_name"], row["deployed_at"]) == ("pending", None, None, None)
    assert (str(row["model_registry_id"]), row["environment"]) == (chain.deployed.version.registry_id, "staging")
    assert row["deployment_config"]["model_sha256"] == chain.deployed.trained.model_sha256


async def test_unmet_criteria_keep_the_model_in_development_and_are_named(workshop: Workshop) -> None:
    workshop.study = study(success=SuccessSpec(minimum_auc=0.99, minimum_f1=0.1, maximum_brier=0.01))
    prepared, trained = await workshop.train()
    done = await workshop.run(SPEC, workshop.deployer_state(prepared, trained))
    assert done.refusal == "success criteria not met: minimum_auc, maximum_brier"
    assert (done.version.stage, done.deployment_id) == ("development", None)
    (row,) = select(workshop.url, "select * from ml_model_registry")
    assert row["stage"] == "development"
    assert select(workshop.url, MOVES) == []
    assert select(workshop.url, DEPLOYMENTS) == []
    (version,) = await workshop.tracker.registered_versions(done.version.name)
    assert (version.stage, version.aliases) == (None, ())
    unknown = replace(trained.trained, success={"minimum_f1": CriterionResult(required=0.5, value=None, met=False)})
    unjudged = await workshop.run(SPEC, replace(workshop.deployer_state(prepared, trained), trained=unknown))
    assert unjudged.refusal == "success criteria not met: minimum_f1", "a criterion that could not be judged is not met"


async def test_no_stage_is_skipped_and_a_repeated_run_changes_nothing(workshop: Workshop) -> None:
    prepared, trained = await workshop.train()
    for target in ("shadow", "production"):
        skipped = await workshop.run(SPEC, workshop.deployer_state(prepared, trained, target=target))
        assert skipped.refusal == f"no step leads from development to {target}"
        assert skipped.version.stage == "development"
        with pytest.raises(Conflict, match="cannot go to"):
            await workshop.record(records.ModelRecords).transition(skipped.version.registry_id, to=target, actor="x", reason="y")
    assert select(workshop.url, MOVES) == []
    state = workshop.deployer_state(prepared, trained)
    first = await workshop.run(SPEC, state)
    again = await workshop.run(SPEC, state)
    assert isinstance(again, State)
    assert (again.mlflow_version, again.deployment_id, again.version) == (first.mlflow_version, first.deployment_id, first.version)
    assert first.mlflow_version == "1"
    assert len(await workshop.tracker.registered_versions(first.version.name)) == 1
    assert len(select(workshop.url, MOVES)) == 1
    assert len(select(workshop.url, DEPLOYMENTS)) == 1
    back = await workshop.run(SPEC, workshop.deployer_state(prepared, trained, target="development"))
    assert back.refusal == "no step leads from staging to development"


async def test_with_mlflow_away_our_registry_decides_and_the_mirror_follows(workshop: Workshop, database: Database, store: str) -> None:
    away = workshop_on(database, workshop.folder, workshop.url, AWAY)
    prepared, trained = await away.train()
    done = await away.run(SPEC, away.deployer_state(prepared, trained))
    assert (done.mlflow_version, done.version.stage) == (None, "staging")
    back = workshop_on(database, workshop.folder, workshop.url, store)
    found = await reconcile(LedgerRepository(database), MLflowMirror(back.tracker))
    assert all(item.is_repaired for item in found)
    (version,) = await back.tracker.registered_versions(done.version.name)
    assert (version.stage, version.aliases, version.digest) == ("staging", ("staging",), done.trained.model_sha256)
    assert await reconcile(LedgerRepository(database), MLflowMirror(back.tracker)) == []
