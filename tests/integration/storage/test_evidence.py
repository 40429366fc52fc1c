from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from e2i.domain.evidence import CausalFinding, Effect, Refutation, Verdict, VerdictName
from e2i.domain.runs import StudyRun
from e2i.domain.study import Study
from e2i.errors import StorageError
from e2i.storage.postgres import Database
from e2i.storage.repositories.evidence import CausalEvidenceRepository
from e2i.storage.repositories.runs import RunRepository

STUDY = Study.model_validate(
    {
        "name": "lift",
        "brand": "Kisqali",
        "data": {"source": "panel.csv"},
        "effect": {"treatment": "speaker_program", "outcome": "nrx", "confounders": ["decile"], "modifiers": ["decile", "specialty"]},
    }
)
EFFECT = Effect(
    estimand="ATT",
    design="did",
    estimator="two-way fixed effects",
    estimate=1.5,
    standard_error=0.5,
    n_treated=40,
    n_untreated=60,
    naive_difference=None,
    outcome_mean_untreated=None,
    bounds=(0.4, float("inf")),
    interval_method="Anderson-Rubin",
)
FINDING = CausalFinding(
    effect=EFFECT,
    verdict=Verdict(name="proceed", reasons=("good.",)),
    refutations=(
        Refutation(test="pre_trend", passed=True, detail="zero.", p_value=0.4, estimate=0.1),
        Refutation(test="placebo_in_time", passed=False, detail="not zero.", statistic=float("nan")),
        Refutation(test="hidden_confounder_bound", passed=True, detail="told.", is_reported_only=True),
    ),
)


async def begin(database: Database, run_id: str = "run_1") -> CausalEvidenceRepository:
    run = StudyRun(
        run_id=run_id,
        study="lift",
        fingerprint=run_id,
        status="running",
        experiment_id=None,
        trace_id=None,
        started_at=datetime(2026, 3, 6, tzinfo=UTC),
    )
    await RunRepository(database).claim(run)
    return CausalEvidenceRepository(database)


async def save(records: CausalEvidenceRepository, finding: CausalFinding = FINDING, *, run_id: str = "run_1", study: Study = STUDY) -> str:
    return await records.save(finding, study=study, run_id=run_id, data_sha256="a" * 64, trace_id="b" * 32)


async def rows(database: Database, table: str) -> list[dict[str, Any]]:
    return await database.rows(f"select * from {table} order by 1")  # type: ignore[arg-type]


async def test_a_finding_and_its_tests_lead_back_to_run_data_and_trace(database: Database) -> None:
    path_id = await save(await begin(database))
    (path,) = await rows(database, "causal_paths")
    assert (path["path_id"], path["run_id"], path["data_sha256"], path["trace_id"]) == (path_id, "run_1", "a" * 64, "b" * 32)
    assert (path["causal_effect_size"], path["effect_low"], path["effect_high"]) == (1.5, 0.4, float("inf"))
    assert (path["start_node"], path["end_node"], path["causal_chain"]) == ("speaker_program", "nrx", ["speaker_program", "nrx"])
    assert path["confounders_controlled"] == ["decile", "specialty"]
    tests = {row["test_type"]: row for row in await rows(database, "causal_validations")}
    assert {name: row["status"] for name, row in tests.items()} == {
        "pre_trend": "passed",
        "placebo_in_time": "failed",
        "hidden_confounder_bound": "skipped",
    }
    assert (tests["pre_trend"]["refuted_effect"], tests["pre_trend"]["original_effect"]) == (0.1, 1.5)
    assert tests["placebo_in_time"]["statistic"] is None


async def test_a_repeated_step_replaces_what_it_wrote(database: Database) -> None:
    records = await begin(database)
    await save(records)
    blocked = replace(FINDING, verdict=Verdict(name="block", reasons=("bad.",)), refutations=FINDING.refutations[:1])
    await save(records, blocked)
    (path,) = await rows(database, "causal_paths")
    assert (path["gate_decision"], path["gate_reasons"]) == ("block", ["bad."])
    assert len(await rows(database, "causal_validations")) == 1


async def test_a_refused_effect_is_kept_without_a_number(database: Database) -> None:
    refused = CausalFinding(effect=None, verdict=Verdict(name="block", reasons=("no overlap.",)), refusal="no overlap.")
    await save(await begin(database), refused)
    (path,) = await rows(database, "causal_paths")
    assert (path["causal_effect_size"], path["estimand"], path["gate_decision"]) == (None, None, "block")


async def test_an_effect_cannot_pass_the_gate_without_a_number(database: Database) -> None:
    records = await begin(database)
    with pytest.raises(StorageError):
        await save(records, replace(FINDING, effect=None, refutations=()))
    assert await rows(database, "causal_validations") == []


async def test_only_the_newest_proven_effect_of_a_cause_on_this_brand_is_offered(database: Database) -> None:
    records = await begin(database)
    await begin(database, "run_2")
    await save(records)
    await save(records, replace(FINDING, effect=replace(EFFECT, estimate=2.5)), run_id="run_2")
    (proven,) = await records.proven("nrx", brand="Kisqali")
    assert (proven.estimate, proven.run_id, proven.treatment) == (2.5, "run_2", "speaker_program")
    assert await records.proven("nrx", brand="Fabhalta") == []
    assert await records.proven("trx", brand="Kisqali") == []


@pytest.mark.parametrize("name", ["review", "block"])
async def test_a_newer_doubt_takes_an_older_pass_back(database: Database, name: VerdictName) -> None:
    records = await begin(database)
    await begin(database, "run_2")
    await save(records)
    await save(records, replace(FINDING, verdict=Verdict(name=name, reasons=("look.",))), run_id="run_2")
    assert await records.proven("nrx", brand="Kisqali") == []
