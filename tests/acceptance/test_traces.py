"""A run is one trace that a user can ask for, wherever it goes and whatever happens to it on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import ROOT, Result, e2i, environment, study, visits, write

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    write(path, visits(900), study(search={"trials": 3, "algorithms": ["logistic_regression"]}))
    return path


@pytest.fixture(scope="module")
def run(folder: Path, home: Path) -> dict[str, Any]:
    done = e2i("run", folder / "study.yaml", "--json", home=home, TRACEPARENT=PARENT)
    assert done.code == 0, done.err
    return done.json


def sinks(home: Path) -> dict[str, dict[str, Any]]:
    return {sink["sink"]: sink for sink in e2i("status", "--json", home=home).json["sinks"]}


def test_a_run_is_one_trace_from_its_caller_down_to_its_workers(run: dict[str, Any], home: Path) -> None:
    shown = e2i("trace", "show", run["run_id"], "--json", home=home).json
    assert run["trace_id"] == PARENT.split("-")[1]
    spans = {span["span_id"]: span for span in _spans(shown)}
    roots = [span for span in spans.values() if span["parent_span_id"] not in spans]
    assert [(root["name"], root["parent_span_id"]) for root in roots] == [("run tried", PARENT.split("-")[2])]
    assert {span["trace_id"] for span in spans.values()} == {run["trace_id"]}
    workers = [span for span in spans.values() if span["name"].startswith("worker ")]
    assert workers
    assert all(spans[worker["parent_span_id"]]["name"].count(".") == 1 for worker in workers)
    agents = {span["name"].removeprefix("invoke_agent ") for span in spans.values() if span["name"].startswith("invoke_agent")}
    assert {"scope_definer", "data_preparer", "model_trainer", "causal_impact", "observability_connector"} <= agents


def test_every_span_is_accounted_for_and_is_in_the_table(run: dict[str, Any], home: Path) -> None:
    account = sinks(home)["postgres"]
    assert (account["unexplained"], account["dropped"], account["in_spool"]) == (0, {}, 0)
    assert account["delivered"] == len(_spans(e2i("trace", "show", run["run_id"], "--json", home=home).json))


def test_people_read_the_same_as_programs(run: dict[str, Any], home: Path, tmp_path: Path) -> None:
    listed = e2i("trace", "ls", home=home)
    assert "run tried" in listed.out
    shown = e2i("trace", "show", run["run_id"], home=home)
    assert "invoke_agent causal_impact" in shown.out
    page = tmp_path / "trace.html"
    assert e2i("trace", "show", run["run_id"], "--html", page, home=home).code == 0
    assert "invoke_agent causal_impact" in page.read_text()
    exported = tmp_path / "trace.json"
    assert e2i("trace", "export", run["run_id"], "--format", "otlp-json", "--output", exported, home=home).code == 0
    resources = json.loads(exported.read_text())["resourceSpans"]
    assert sum(len(scope["spans"]) for resource in resources for scope in resource["scopeSpans"]) == sinks(home)["postgres"]["delivered"]


def test_an_unknown_trace_is_told_with_a_way_on(run: dict[str, Any], home: Path) -> None:
    for asked in ("run_20990101T000000_ffffff", "ffffffffffff"):
        result = e2i("trace", "show", asked, home=home)
        assert result.code == 1
        assert asked in result.err
        assert "e2i trace ls" in result.err


def test_a_run_that_is_killed_keeps_every_span_that_ended(folder: Path, home: Path) -> None:
    before = sinks(home)["postgres"]["delivered"]
    path = folder / "killed.yaml"
    path.write_text((folder / "study.yaml").read_text().replace("name: tried", "name: killed"))
    process = subprocess.Popen(
        [sys.executable, "-m", "e2i", "run", str(path)],
        cwd=ROOT, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    finished = []
    for line in process.stderr:
        if line.startswith("done"):
            finished.append(line.split()[1])
        if len(finished) == 9:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    process.stderr.close()
    account = _settled(home)
    assert (account["unexplained"], account["dropped"], account["in_spool"]) == (0, {}, 0)
    finished.pop()  # a step is told as done a moment before its span ends
    assert account["delivered"] - before >= len(finished)
    trace = next(row for row in e2i("trace", "ls", "--json", home=home).json if "data_preparer" in row["agents"])
    names = {span["name"] for span in _spans(e2i("trace", "show", trace["trace_id"], "--json", home=home).json)}
    assert set(finished) <= names


def test_two_runs_at_once_are_both_delivered(folder: Path, home: Path) -> None:
    processes = []
    for name in ("one", "other"):
        path = folder / f"{name}.yaml"
        path.write_text((folder / "study.yaml").read_text().replace("name: tried", f"name: {name}"))
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "e2i", "run", str(path), "--quiet"],
                cwd=ROOT, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    account = _settled(home)
    assert (account["unexplained"], account["dropped"], account["in_spool"]) == (0, {}, 0)
    roots = {row["root_name"] for row in e2i("trace", "ls", "--json", home=home).json}
    assert {"run one", "run other"} <= roots


def test_a_run_that_nobody_called_has_a_root(folder: Path, home: Path) -> None:
    listed = e2i("trace", "ls", "--json", home=home).json
    trace = next(row for row in listed if row["root_name"] == "run one")
    spans = _spans(e2i("trace", "show", trace["trace_id"], "--json", home=home).json)
    assert [span["name"] for span in spans if span["parent_span_id"] is None] == ["run one"]


def test_what_no_sink_took_waits_is_told_without_the_database_and_is_shipped_by_hand_whatever_the_time(home: Path) -> None:
    emit = (
        "from e2i import bootstrap, config\nfrom e2i.observability.spans import span\n"
        "with bootstrap.observing(config.load(), deliver=False):\n"
        "    for number in range(50):\n"
        "        with span('late', {'e2i.number': number}): pass\n"
    )
    before = sinks(home)["postgres"]["delivered"]
    subprocess.run([sys.executable, "-c", emit], env=environment(home), check=True, timeout=60)
    assert sinks(home)["postgres"]["in_spool"] == 50
    without_database = e2i("status", home=home, DATABASE_URL="postgresql://127.0.0.1:9/e2i")
    assert without_database.code == 1
    assert f"postgres: {before} of {before + 50} delivered, 50 waiting" in without_database.out
    assert [line[:7] for line in without_database.err.splitlines()] == ["error: ", "  Try a"], "one error, no warnings of the driver's"
    shipped = e2i("trace", "ship", "--once", home=home, E2I_OBSERVABILITY__BATCHING__FLUSH_TIMEOUT_SECONDS="0")
    assert shipped.code == 0, shipped.err
    assert f"postgres {before + 50}" in shipped.err
    assert sinks(home)["postgres"]["in_spool"] == 0


def test_a_collector_that_is_away_delays_only_itself(folder: Path, home: Path) -> None:
    path = folder / "away.yaml"
    path.write_text((folder / "study.yaml").read_text().replace("name: tried", "name: away"))
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = e2i("run", path, "--json", home=home, **away)
    assert done.code == 0, done.err
    found = {sink["sink"]: sink for sink in e2i("status", "--json", home=home, **away).json["sinks"]}
    assert (found["postgres"]["in_spool"], found["otlp"]["delivered"]) == (0, 0)
    assert found["otlp"]["in_spool"] > 20
    assert "127.0.0.1:9" in found["otlp"]["last_error"]
    assert all(sink["unexplained"] == 0 for sink in found.values())


@pytest.fixture
def server(home: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "e2i", "serve", "--port", "0", "--json"],
        cwd=ROOT, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["address"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    process.stdout.close()


def test_spans_of_another_team_are_asked_for_like_our_own(server: str, home: Path) -> None:
    emit = (
        "import sys\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1])))\n"
        "with provider.get_tracer('theirs').start_as_current_span('their work') as span:\n"
        "    span.set_attribute('gen_ai.agent.name', 'their_agent')\n"
        "    span.set_attribute('input.value', 'write to jane.doe@example.com')\n"
        "print(f'{span.get_span_context().trace_id:032x}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", emit, f"{server}/v1/traces"], env=environment(home), check=True, timeout=60, capture_output=True, text=True
    )
    (span,) = _spans(e2i("trace", "show", done.stdout.strip(), "--json", home=home).json)
    assert (span["name"], span["origin"]) == ("their work", "otlp")
    assert "jane.doe" not in json.dumps(span)


def _spans(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [row.get("span", row) for row in shown["spans"]]


def _settled(home: Path) -> dict[str, Any]:
    """The account once the shipper of the killed run has drained; it notices by itself."""
    for _ in range(40):
        account = sinks(home)["postgres"]
        if account["in_spool"] == 0:
            return account
        time.sleep(0.25)
    return account


def test_settings_for_traces_are_told_by_origin(home: Path) -> None:
    shown: Result = e2i("config", "show", "--origin", "--json", home=home, OTEL_SERVICE_NAME="theirs")
    assert shown.json["observability.service_name"] == {"value": "theirs", "origin": "environment OTEL_SERVICE_NAME"}
