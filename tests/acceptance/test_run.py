"""`e2i run` as a user runs it: resumed after `kill -9`, alone on its study, clear when its database dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest

from commands import ROOT, e2i, environment, study, visits, write

VOLATILE = (
    "run_id",
    "experiment_id",
    "trace_id",
    "created_at",
    "seconds",
    "timings_s",
    "mlflow_run_id",
    "model_uri",
    "training_run_id",
    "study_name",
    "path_id",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    write(path, visits(900), study(search={"trials": 6, "algorithms": ["logistic_regression", "lightgbm"]}))
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path, home: Path) -> dict[str, Any]:
    result = e2i("run", folder / "study.yaml", "--json", home=home)
    assert result.code == 0, result.err
    return result.json


def stable(value: Any) -> Any:
    """A report without ids and times."""
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if key not in VOLATILE}
    return [stable(item) for item in value] if isinstance(value, list) else value


def start(path: Path, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "e2i", "run", str(path)],
        cwd=ROOT, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def lines(process: subprocess.Popen[str]) -> IO[str]:
    """Progress lines as they come; stays open when a loop over it is left."""
    assert process.stderr is not None
    return process.stderr


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    lines(process).close()


def test_json_stands_alone_on_standard_output_and_holds_what_was_promised(undisturbed: dict[str, Any]) -> None:
    promised = {
        "study",
        "status",
        "experiment_id",
        "trace_id",
        "synthetic",
        "data",
        "qc",
        "splits",
        "model",
        "explanation",
        "effect",
        "timings_s",
    }
    assert promised <= set(undisturbed)
    assert undisturbed["status"] == "completed"
    assert not undisturbed["synthetic"]
    assert set(undisturbed["splits"]) == {"train", "validation", "test", "holdout"}
    model = undisturbed["model"]
    assert re.fullmatch(r"[0-9a-f]{32}", model["mlflow_run_id"])
    metrics = model["metrics"]
    for name in ("roc_auc", "pr_auc", "f1", "precision", "recall", "brier", "calibration_slope", "calibration_intercept"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name
    assert re.fullmatch(r"[0-9a-f]{64}", undisturbed["data"]["sha256"])


def test_the_effect_of_a_plain_study_covers_the_planted_one(undisturbed: dict[str, Any]) -> None:
    effect = undisturbed["effect"]
    assert effect["interval"][0] <= 2.0 <= effect["interval"][1]
    assert effect["verdict"] in ("proceed", "review")
    assert effect["refutations"]


@pytest.mark.parametrize(
    "moment",
    ["data_preparer.load_data", "model_selector.run_benchmarks", "trials 3/6", "model_trainer.train_model", "model_trainer.evaluate_model"],
)
def test_a_run_that_was_killed_goes_on_and_gives_the_same_result(
    moment: str, folder: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "state"
    assert e2i("up", home=home).code == 0
    try:
        process = start(folder / "study.yaml", home)
        seen = []
        for line in lines(process):
            seen.append(line)
            if moment in line:
                break
        else:
            pytest.fail(f"never came to {moment}: {''.join(seen)}")
        kill(process)
        resumed = e2i("run", folder / "study.yaml", home=home)
        assert resumed.code == 0, resumed.err
        assert "(resumed)" in resumed.out
        assert "scope_definer" not in resumed.err, "a finished agent ran again"
        reports = list((home / "reports").glob("*/report.json"))
        assert len(reports) == 1
        assert stable(json.loads(reports[0].read_text())) == stable(undisturbed)
        assert e2i("audit", "verify", home=home).code == 0
    finally:
        e2i("down", home=home)


def test_two_runs_of_one_study_at_once_are_refused_and_two_studies_are_not(folder: Path, home: Path, tmp_path: Path) -> None:
    content = study(search={"trials": 2, "algorithms": ["lightgbm"]})
    other = write(tmp_path, visits(700, seed=5), {**content, "name": "other"})
    same = write(tmp_path / "same", visits(700, seed=6), {**content, "name": "same"})
    first = start(same, home)
    for line in lines(first):
        if "model_selector.run_benchmarks" in line:  # the agent with time to stand still
            break
    first.send_signal(signal.SIGSTOP)  # the second may take as long to start as it likes
    refused = e2i("run", same, home=home)
    first.send_signal(signal.SIGCONT)
    beside = e2i("run", other, "--quiet", home=home)
    with lines(first) as rest:
        told = rest.read()
    assert first.wait(timeout=200) == 0, told
    assert refused.code == 1
    assert "run_" in refused.err
    assert "Traceback" not in refused.err
    assert beside.code == 0, beside.err


def test_a_database_that_dies_during_a_run_is_told_and_the_run_goes_on_later(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "state"
    assert e2i("up", home=home).code == 0
    path = write(tmp_path / "s", visits(700, seed=8), study(search={"trials": 3, "algorithms": ["lightgbm"]}))
    process = start(path, home)
    for line in lines(process):
        if "model_selector.run_benchmarks" in line:
            break
    postmaster = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    with lines(process) as errors:
        rest = errors.read()
    assert process.wait(timeout=120) == 1, rest
    assert "Traceback" not in rest
    assert "error:" in rest
    assert "database" in rest.lower()
    time.sleep(1)
    again = e2i("run", path, home=home)
    assert again.code == 0, again.err
    assert "(resumed)" in again.out
    e2i("down", home=home)


def test_the_last_user_leaves_and_the_server_stops(tmp_path: Path) -> None:
    home = tmp_path / "state"
    assert e2i("status", "--json", home=home).json["outbox"] == {"pending": 0, "delivered": 0, "quarantined": 0}
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()


def test_status_and_doctor_tell_of_the_run(undisturbed: dict[str, Any], home: Path) -> None:
    shown = e2i("status", "--json", home=home).json
    assert any(run["run_id"] == undisturbed["run_id"] and run["status"] == "completed" for run in shown["runs"])
    assert shown["outbox"]["pending"] == 0
    examined = e2i("doctor", "--json", home=home)
    assert examined.code == 0, examined.out
    assert examined.json["ok"]


def test_a_study_written_by_init_runs_after_its_guesses_are_checked(tmp_path: Path) -> None:
    visits(300).write_csv(tmp_path / "visits.csv")
    written = e2i("init", tmp_path / "visits.csv", "--json", home=tmp_path / "state")
    assert written.code == 0, written.err
    assert Path(written.json["study"]).is_file()
    again = e2i("init", tmp_path / "visits.csv", home=tmp_path / "state")
    assert again.code == 1
    assert "--force" in again.err
