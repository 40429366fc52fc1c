"""Bad input: an exit code that is not 0, one clear message, no traceback, nothing half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from commands import Result, e2i, study, visits, write

RNG = np.random.default_rng(11)


def _effect(**changes: Any) -> dict[str, Any]:
    return {**study()["effect"], **changes}


def _prediction(**changes: Any) -> dict[str, Any]:
    return {**study()["prediction"], **changes}


def _noisy_copy(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(leak=pl.col("converts") + pl.Series(RNG.normal(0, 0.05, frame.height)))


def _many_levels(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(note=pl.Series([f"n{i}" for i in RNG.integers(0, 10_000, frame.height)]))


def _no_overlap(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(program=(pl.col("decile") > 5).cast(pl.Int64))


# ruff: noqa: E501, PLW0108 - a table reads better in lines
# name -> (frame, study, exit code, words that the message or the report must hold)
CASES: dict[str, tuple[Callable[[], pl.DataFrame], dict[str, Any], int, tuple[str, ...]]] = {
    "header_only": (lambda: visits().head(0), study(), 1, ("visits.csv", "row")),
    "one_class": (lambda: visits().with_columns(converts=pl.lit(0)), study(), 3, ("converts", "class")),
    "target_missing": (lambda: visits().drop("converts"), study(), 1, ("converts", "study.yaml:")),
    "forty_rows": (lambda: visits().head(40), study(), 3, ("40",)),
    "constant_treatment": (lambda: visits().with_columns(program=pl.lit(1)), study(), 3, ("program",)),
    "infinite_values": (lambda: visits().with_columns(share=pl.when(pl.col("decile") == 3).then(float("inf")).otherwise("share")), study(), 3, ("share", "infinite")),
    "duplicate_unit_time": (
        lambda: visits().with_columns(hcp=pl.lit("H1"), index_date=pl.lit(date(2023, 5, 5))), study(time="index_date"), 3, ("hcp", "duplicate")
    ),
    "dates_in_the_future": (
        lambda: visits().with_columns(index_date=pl.col("index_date") + timedelta(days=365 * 40)), study(), 3, ("index_date", "future")
    ),
    "dates_as_text": (lambda: visits().with_columns(index_date=pl.col("index_date").dt.strftime("%d.%b %Y")), study(), 1, ("index_date",)),
    "constant_column": (lambda: visits().with_columns(same=pl.lit(4.0)), study(), 3, ("same", "every row", "exclude")),
    "all_missing_column": (lambda: visits().with_columns(empty=pl.lit(None, dtype=pl.Float64)), study(), 3, ("empty", "every row", "exclude")),
    "ten_thousand_levels": (lambda: _many_levels(visits(12_000)), study(), 3, ("note", "levels", "Group")),
    "target_leaked_exactly": (lambda: visits().with_columns(leak=pl.col("converts") * 7 + 1), study(), 3, ("leak",)),
    "target_leaked_with_noise": (lambda: _noisy_copy(visits()), study(), 3, ("leak",)),
    "target_leaked_by_a_later_column": (
        lambda: visits().with_columns(start_date=pl.when(pl.col("converts") == 1).then(pl.col("index_date") + timedelta(days=9))), study(), 3, ("start_date",)
    ),
    "identifier_as_feature": (lambda: visits(), study(prediction=_prediction(features=["hcp", "decile", "calls", "share"])), 2, ("hcp",)),
    "a_typo_in_the_study": (lambda: visits(), {**study(), "effect": {**_effect(), "treatmnt": "program"}}, 2, ("treatmnt", "treatment", "study.yaml:")),
    "a_missing_column": (lambda: visits(), study(effect=_effect(confounders=["decil"])), 1, ("decil", "decile", "study.yaml:")),
    "outcome_as_treatment": (lambda: visits(), study(effect=_effect(outcome="program")), 2, ("program", "study.yaml:")),
}  # fmt: skip


def _is_clear(result: Result) -> None:
    assert "Traceback" not in result.err + result.out
    assert "fault of E2I" not in result.err


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_with_a_clear_message(name: str, tmp_path: Path, home: Path) -> None:
    frame, content, code, words = CASES[name]
    result = e2i("run", write(tmp_path, frame(), content), home=home)
    assert result.code == code, result.err + result.out
    _is_clear(result)
    told = result.err + result.out
    assert all(word.lower() in told.lower() for word in words), told


def test_an_empty_file_is_refused(tmp_path: Path, home: Path) -> None:
    path = write(tmp_path, content=study())
    (tmp_path / "visits.csv").write_bytes(b"")
    result = e2i("run", path, home=home)
    assert result.code == 1
    assert "visits.csv" in result.err
    assert "empty" in result.err
    _is_clear(result)


def test_a_blocked_run_says_in_json_and_in_the_report_what_to_mend(tmp_path: Path, home: Path) -> None:
    path = write(tmp_path, visits().with_columns(leak=pl.col("converts") * 7 + 1), study())
    result = e2i("run", path, "--json", home=home)
    assert result.code == 3
    report = result.json
    assert report["status"] == "blocked"
    assert any(issue["column"] == "leak" and issue["advice"] for issue in report["qc"]["blocking_issues"])
    assert report["model"] is None
    assert report["effect"] is None
    page = (home / "reports" / report["run_id"] / "report.html").read_text()
    assert "leak" in page


def test_no_overlap_is_a_result_that_refuses_the_effect(tmp_path: Path, home: Path) -> None:
    content = study()
    del content["prediction"]
    result = e2i("run", write(tmp_path, _no_overlap(visits()), content), "--json", home=home)
    _is_clear(result)
    assert result.code == 3, result.err
    assert result.json["effect"]["verdict"] == "block"
    assert result.json["effect"]["estimate"] is None
    assert result.json["effect"]["refusal"].startswith("perfect_separation: ")


def test_a_fixed_port_that_is_taken_is_told(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = e2i("status", home=tmp_path / "s", E2I_DATABASE__PORT=str(port))
    assert result.code == 1
    assert str(port) in result.err
    _is_clear(result)


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = e2i("status", home=tmp_path / "file" / "state")
    assert result.code == 1
    assert "state" in result.err
    _is_clear(result)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        result = e2i("run", write(tmp_path / "s", visits(600), study()), home=disk / "state")
        assert result.code == 1
        assert "MB are free" in result.err
        assert "E2I_HOME" in result.err
        _is_clear(result)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)
