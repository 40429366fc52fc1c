"""`run_study`: whatever the end of a run is, it is written down the same in every place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from doubles import DyingWorker
from e2i.app.study import run_study
from e2i.data.frame_store import RunFrames
from e2i.domain.experiments import FrameRef, Split
from e2i.domain.study import EffectSpec, Study
from e2i.errors import BackendUnavailable, LeakageFound, TooFewRows
from workshop import select, study, table

TRAINING = "select * from ml_training_runs"


class SpentFrames(RunFrames):
    """Frames of a run in which somebody has judged another model already."""

    def save_split(self, split: Split, frame: pl.DataFrame) -> FrameRef:
        ref = super().save_split(split, frame)
        if split == "test":
            self.read_split("test", reader="model_trainer", purpose="another model")
        return ref


def written(url: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The one run: its row, its report.json and its last audit entry."""
    (row,) = select(url, "select * from study_runs")
    path = folder / "state" / "reports" / row["run_id"] / "report.json"
    (entry,) = select(url, "select * from audit_log where action like 'run.%%'")
    assert entry["subject"] == row["run_id"]
    assert entry["details"]["report_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert row["report_path"] == str(path.with_suffix(".html"))
    assert path.with_suffix(".html").stat().st_size > 1000
    return row, json.loads(path.read_text()), entry


async def run(opened: Callable[..., Any], folder: Path, frame: pl.DataFrame, asked: Study, **changes: Any) -> Any:
    """Run `asked` on `frame` in a process of its own, as far as the database can tell."""
    worker = changes.pop("worker", None)
    frame.write_csv(folder / "visits.csv")
    async with opened(worker=worker) as (ports, _):
        return await run_study(asked, base=folder, ports=replace(ports, **changes))


async def test_a_finished_run_is_the_same_in_every_place(opened: Callable[..., Any], tmp_path: Path, fresh_database: str) -> None:
    effect = EffectSpec(treatment="program", outcome="scripts", confounders=("decile", "calls", "specialty"), estimand="ATE")
    done = await run(opened, tmp_path, table(), study(effect=effect))
    row, report, entry = written(fresh_database, tmp_path)
    assert (row["status"], report["status"], entry["action"], done.resumed) == ("completed", "completed", "run.completed", False)
    assert report == json.loads(json.dumps(done.report.to_dict()))
    assert report["run_id"] == row["run_id"]
    assert report["trace_id"] == row["trace_id"]
    (training,) = select(fresh_database, TRAINING)
    (model,) = select(fresh_database, "select * from ml_model_registry")
    assert (training["status"], training["mlflow_run_id"]) == ("completed", report["model"]["mlflow_run_id"])
    assert (model["mlflow_run_id"], model["model_sha256"]) == (report["model"]["mlflow_run_id"], report["lineage"]["model_sha256"])
    assert (model["model_name"], model["stage"]) == (report["model"]["registered_name"], report["model"]["stage"])
    assert report["effect"]["verdict"] in ("proceed", "review", "block")
    assert set(report["timings_s"]) == {
        "scope_definer",
        "data_preparer",
        "feature_analyzer.select",
        "model_selector",
        "model_trainer",
        "feature_analyzer.explain",
        "model_deployer",
        "causal_impact",
        "observability_connector",
    }
    steps = select(fresh_database, "select distinct trace_id from agent_steps")
    assert steps == [{"trace_id": report["trace_id"]}]


async def test_a_leak_blocks_the_run_and_the_report_says_what_to_mend(
    opened: Callable[..., Any], tmp_path: Path, fresh_database: str
) -> None:
    done = await run(opened, tmp_path, table().with_columns(won=pl.col("converts") * 3 + 1), study())
    row, report, entry = written(fresh_database, tmp_path)
    assert (row["status"], report["status"], entry["action"]) == ("blocked", "blocked", "run.blocked")
    assert done.report.status == "blocked"
    (issue,) = report["qc"]["blocking_issues"]
    assert issue["column"] == "won"
    assert issue["advice"]
    assert (report["model"], report["explanation"], report["error"], row["error"]) == (None, None, None, None)
    assert not (tmp_path / "state" / "runs" / row["run_id"] / "splits").exists()
    assert select(fresh_database, TRAINING) == []
    assert select(fresh_database, "select * from ml_model_registry") == []
    assert select(fresh_database, "select * from outbox") == []
    assert "won" in done.html.read_text()


async def test_a_training_that_fails_is_failed_in_its_own_row_too(opened: Callable[..., Any], tmp_path: Path, fresh_database: str) -> None:
    spent = {"frames": lambda run_id: SpentFrames(tmp_path / "state" / "runs" / run_id)}
    with pytest.raises(LeakageFound):
        await run(opened, tmp_path, table(), study(), **spent)
    row, report, entry = written(fresh_database, tmp_path)
    assert (row["status"], report["status"], entry["action"]) == ("failed", "failed", "run.failed")
    assert report["error"]["error"] == row["error"]["error"] == "LeakageFound"
    assert report["model"] is None
    assert report["qc"]["gate_passed"]
    (training,) = select(fresh_database, TRAINING)
    assert (training["key"], training["status"]) == (f"{row['run_id']}/model_trainer", "failed")
    assert "another model" in training["error_message"]
    assert training["completed_at"] is not None
    (model,) = select(fresh_database, "select * from ml_model_registry")
    assert (model["stage"], model["trained_at"]) == ("development", None)


async def test_a_run_that_fails_before_training_leaves_no_training_row(
    opened: Callable[..., Any], tmp_path: Path, fresh_database: str
) -> None:
    with pytest.raises(TooFewRows):
        await run(opened, tmp_path, table().head(0), study())
    row, report, _ = written(fresh_database, tmp_path)
    assert (row["status"], report["status"], report["data"]) == ("failed", "failed", None)
    assert select(fresh_database, TRAINING) == []


async def test_an_end_that_cannot_be_written_hides_the_first_error_from_nobody(
    opened: Callable[..., Any], tmp_path: Path, fresh_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder of the reports would be")
    with pytest.raises(TooFewRows):
        await run(opened, tmp_path, table().head(0), study(), reports_folder=tmp_path / "taken")
    (row,) = select(fresh_database, "select * from study_runs")
    assert row["status"] == "running"
    assert f"the end of run {row['run_id']} could not be written" in caplog.text


async def test_a_fault_that_may_pass_leaves_the_run_open_and_the_next_one_goes_on(
    opened: Callable[..., Any], tmp_path: Path, fresh_database: str
) -> None:
    with pytest.raises(BackendUnavailable):
        await run(opened, tmp_path, table(), study(), worker=DyingWorker("fit_and_save"))
    (row,) = select(fresh_database, "select * from study_runs")
    (training,) = select(fresh_database, TRAINING)
    assert (row["status"], row["report_path"], training["status"]) == ("running", None, "running")
    assert select(fresh_database, "select * from audit_log where action like 'run.%%'") == []
    done = await run(opened, tmp_path, table(), study())
    assert done.resumed
    row, report, _ = written(fresh_database, tmp_path)
    assert (row["status"], report["run_id"]) == ("completed", row["run_id"])
    (training,) = select(fresh_database, TRAINING)
    assert training["status"] == "completed"
    repeated = "select agent, step from agent_steps where status = 'success' group by agent, step having count(*) > 1"
    assert {item["step"] for item in select(fresh_database, repeated)} <= {"choose_part"}, "no finished step ran again"
    assert len(select(fresh_database, "select * from agent_steps where status = 'error'")) == 1
