"""The commands as a user runs them: what stands on which stream, exit codes, JSON alone."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest

from commands import CLEAN, ROOT, e2i, environment, study, visits, write
from databases import empty_database
from e2i import __version__
from e2i.agents.registry import AGENTS
from e2i.data.sources import LocalFrameSource
from e2i.data.synthetic import TABLE_NAMES
from e2i.domain.data_spec import DataSpec
from e2i.errors import E2IError

ESCAPE = "\x1b"


@pytest.fixture
def empty(database_url: str) -> Iterator[str]:
    """URL of a database without a schema."""
    with empty_database(database_url) as url:
        yield url


def test_the_version_is_printed(tmp_path: Path) -> None:
    result = e2i("--version", home=tmp_path)
    assert (result.code, result.out.strip(), result.err) == (0, __version__, "")


@pytest.mark.parametrize("arguments", [("nosuch",), ("run", "--nosuch"), ("db", "nosuch"), ("data", "world")])
def test_a_wrong_command_line_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = e2i(*arguments, home=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert "Usage: e2i" in result.err
    assert "Traceback" not in result.err


def test_agents_are_listed_with_their_steps(tmp_path: Path) -> None:
    rows = e2i("agents", "--json", home=tmp_path).json
    assert {row["agent"]: tuple(row["steps"]) for row in rows} == {spec.name: spec.step_names for spec in AGENTS.values()}  # type: ignore[index]
    assert all(row["purpose"] and row["budget_s"] > 0 for row in rows)  # type: ignore[index]
    shown = e2i("agents", home=tmp_path)
    assert shown.code == 0
    assert shown.out.splitlines()[0].split() == ["AGENT", "TIER", "KIND", "BUDGET_S", "STEPS", "PURPOSE"]
    assert len(shown.out.splitlines()) == len(AGENTS) + 1


def test_settings_are_shown_with_their_origin_and_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "e2i.toml").write_text('log_level = "info"\n')
    shown = e2i(
        "config",
        "show",
        "--origin",
        "--json",
        "--home",
        tmp_path / "mine",
        home=tmp_path,
        cwd=tmp_path,
        DATABASE_URL="postgresql://u:hunter2@h/d",
    )
    assert shown.code == 0
    assert shown.json["home"] == {"value": str(tmp_path / "mine"), "origin": "argument"}
    assert shown.json["log_level"] == {"value": "info", "origin": "e2i.toml"}
    assert shown.json["database.url"] == {"value": "**********", "origin": "environment DATABASE_URL"}
    assert shown.json["database.port"]["origin"] == "settings/e2i.yaml"
    assert "hunter2" not in shown.out + shown.err
    plain = e2i("config", "show", home=tmp_path, cwd=tmp_path)
    assert plain.out.splitlines()[0].split() == ["KEY", "VALUE"]
    assert not (tmp_path / "mine").exists(), "showing settings starts nothing"


def test_the_schema_is_brought_up_to_date_once(empty: str, tmp_path: Path) -> None:
    before = e2i("db", "current", "--json", home=tmp_path, DATABASE_URL=empty)
    assert (before.code, before.json) == (0, {"current": None})
    first = e2i("db", "upgrade", "--json", home=tmp_path, DATABASE_URL=empty)
    assert first.code == 0
    assert first.json["applied"]
    again = e2i("db", "upgrade", home=tmp_path, DATABASE_URL=empty)
    assert (again.code, again.out) == (0, "Nothing to do: the schema is up to date.\n")
    assert e2i("db", "current", "--json", home=tmp_path, DATABASE_URL=empty).json == {"current": first.json["applied"][-1]}


def test_the_audit_trail_is_verified_and_a_change_is_named(fresh_database: str, tmp_path: Path) -> None:
    untouched = e2i("audit", "verify", "--json", home=tmp_path, DATABASE_URL=fresh_database)
    assert (untouched.code, untouched.json) == (0, {"ok": True, "entries": 0, "first_bad_sequence": None, "reason": None})
    with psycopg.connect(fresh_database) as connection:
        connection.execute(
            "insert into audit_log (sequence, occurred_at, actor, action, subject, details, previous_hash, entry_hash)"
            " values (1, now(), 'a', 'b', 'c', '{}', repeat('0', 64), repeat('1', 64))"
        )
    forged = e2i("audit", "verify", home=tmp_path, DATABASE_URL=fresh_database)
    assert forged.code == 1
    assert "broken at entry 1" in forged.out


def test_the_world_is_written_as_tables_with_the_truth_apart(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    result = e2i("data", "world", folder, "--hcps", "200", "--seed", "3", "--json", home=tmp_path)
    assert result.code == 0, result.err
    assert result.json["synthetic"] is True
    assert set(result.json["rows"]) == set(TABLE_NAMES)
    assert {path.stem for path in folder.glob("*")} == {*TABLE_NAMES, "truth"}
    for name, rows in result.json["rows"].items():
        assert pl.scan_parquet(folder / f"{name}.parquet").select(pl.len()).collect().item() == rows
    truth = {path.name: path for path in (folder / "truth").iterdir()}
    assert "truth.json" in truth
    hidden = {name for path in truth.values() if path.suffix == ".parquet" for name in pl.read_parquet_schema(path)}
    open_ = {name for table in TABLE_NAMES for name in pl.read_parquet_schema(folder / f"{table}.parquet")}
    assert hidden & open_ == {"hcp_id", "patient_journey_id", "index_date", "brand"}, "only keys are known on both sides"
    assert {"propensity", "nrx_if_treated"} <= hidden
    for path in truth.values():
        if path.suffix == ".parquet":
            with pytest.raises(E2IError):
                LocalFrameSource().load(DataSpec(source=str(path)), base=tmp_path)


def test_an_error_is_json_on_standard_output_and_a_message_on_standard_error(tmp_path: Path) -> None:
    asked = e2i("run", "nosuch.yaml", "--json", home=tmp_path)
    assert asked.code == 2
    assert asked.json == {
        "status": "failed",
        "error": "ConfigError",
        "category": "validation",
        "what": "no such study file.",
        "where": "nosuch.yaml",
        "advice": "Give its path, or write one with `e2i init DATA`.",
    }
    assert asked.err.splitlines()[0] == "error: nosuch.yaml: no such study file."
    plain = e2i("run", "nosuch.yaml", home=tmp_path)
    assert (plain.code, plain.out, plain.err) == (2, "", asked.err)


def test_a_wrong_setting_is_an_error_of_every_command(tmp_path: Path) -> None:
    result = e2i("status", "--json", home=tmp_path, E2I_LOG_LEVEL="loud")
    assert result.code == 2
    assert "log_level" in result.json["what"]
    assert "E2I_LOG_LEVEL" in result.err


def test_a_run_tells_plain_lines_and_ctrl_c_says_that_it_can_go_on(fresh_database: str, tmp_path: Path) -> None:
    path = write(tmp_path, visits(600), study())
    with subprocess.Popen(
        [sys.executable, "-m", "e2i", "run", str(path)],
        cwd=ROOT,
        env=environment(tmp_path / "state", DATABASE_URL=fresh_database, NO_COLOR=""),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        seen = [next(line for line in process.stderr if "scope_definer" in line)]
        process.send_signal(signal.SIGINT)
        seen += process.stderr.readlines()
        assert process.wait(timeout=60) == 130
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert seen[-1] == "Stopped. Finished steps are kept: run the same command again to go on.\n"
    assert "done   scope_definer.classify_problem" in seen[0]
    assert "Traceback" not in "".join(seen)
    assert ESCAPE not in "".join(seen), "no colours and no bars without a terminal"
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("select status from study_runs").fetchall() == [("running",)]


PROGRAM = """
from e2i.cli.progress import progress_display
from e2i.domain.runs import Tier
from e2i.engine.hooks import Signal
with progress_display(quiet=False) as display:
    display.step(Signal(run_id="r", agent="model_trainer", step="train_model", phase="started"))
    display.advance("trials", done=3, of=6, note="best 0.7")
    display.step(Signal(run_id="r", agent="model_trainer", step="train_model", phase="finished", seconds=1.5))
"""


def on_a_terminal(**variables: str) -> str:
    """What the progress display writes to a terminal."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*CLEAN, "NO_COLOR"))}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env={**kept, "TERM": "xterm-256color", **variables}, stderr=theirs) as process:
        os.close(theirs)
        read = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is gone
                break
            if not part:
                break
            read += part
        assert process.wait(timeout=30) == 0
    os.close(ours)
    return read.decode()


def test_a_terminal_gets_bars_and_no_colour_when_that_is_asked_for() -> None:
    coloured, plain = on_a_terminal(), on_a_terminal(NO_COLOR="1")
    for shown in (coloured, plain):
        assert "trials 3/6 best 0.7" in shown
        assert "━" in shown
    assert f"{ESCAPE}[3" in coloured
    assert f"{ESCAPE}[3" not in plain


def test_elsewhere_there_is_a_line_per_step_and_per_tenth() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["       trials 3/6 best 0.7", "done   model_trainer.train_model 1.5 s"]
    assert done.stdout == ""
    quiet = [sys.executable, "-c", PROGRAM.replace("quiet=False", "quiet=True")]
    assert subprocess.run(quiet, capture_output=True, text=True, check=True).stderr == ""


def test_help_says_where_to_start(tmp_path: Path) -> None:
    result = e2i("--help", home=tmp_path)
    assert result.code == 0
    assert "Start with `e2i run`" in " ".join(result.out.split())


def test_up_and_down_are_refused_or_idle_where_there_is_no_embedded_server(tmp_path: Path) -> None:
    refused = e2i("up", "--json", home=tmp_path, DATABASE_URL="postgresql://h/d")
    assert (refused.code, refused.json["where"]) == (2, "database.url")
    idle = e2i("down", home=tmp_path)
    assert (idle.code, idle.out) == (0, "Nothing to stop.\n")
    assert json.loads(e2i("down", "--json", home=tmp_path).out) == {"stopped": False}
