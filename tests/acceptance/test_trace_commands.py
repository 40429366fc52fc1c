"""`e2i trace` and `e2i retention` as a user runs them, on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from commands import ROOT, e2i, environment
from e2i import bootstrap, config
from e2i.domain.telemetry import SpanRecord
from span_doubles import START_NS, TRACE, failed, large_trace, stored, study_trace

RUN = "run_20261121T100000_4f2a1c"
OTHER = "4bf92f00000000000000000000000001"
LARGE = "aa" * 16
NOW_NS = time.time_ns()
LONG_AGO = datetime.now(UTC) - timedelta(days=40)


def insert(home: Path, spans: list[SpanRecord]) -> None:
    async def work() -> None:
        async with bootstrap.span_records(config.load(home=home)) as records:
            for start in range(0, len(spans), 5000):
                await records.insert_spans_batch(spans[start : start + 5000])

    asyncio.run(work())


def shifted(spans, by_ns: int) -> list[SpanRecord]:
    return [
        replace(
            each.span, started_ns=each.span.started_ns + by_ns, ended_ns=None if each.span.ended_ns is None else each.span.ended_ns + by_ns
        )
        for each in spans
    ]


@pytest.fixture(scope="module")
def filled(home: Path) -> Path:
    """A home with a run that just was, another trace, a large trace, and days that are old."""
    lately = NOW_NS - START_NS - 120 * 10**9
    large = [replace(each.span, trace_id=LARGE) for each in large_trace(30_000)]
    spans = [*shifted(study_trace(), lately), *shifted([stored("ask", trace_id=OTHER)], lately - 10**9)]
    spans += [
        replace(each, started_ns=each.started_ns + lately - 3600 * 10**9, ended_ns=(each.ended_ns or 0) + lately - 3600 * 10**9)
        for each in large
    ]
    for day in range(3):
        begun = int((LONG_AGO - timedelta(days=day)).timestamp()) * 10**9
        spans += [stored("old", number=n, trace_id=f"{day + 1:032x}", started_ns=begun + n).span for n in range(1, 41)]
    insert(home, spans)
    return home


def test_traces_are_listed_newest_first(filled: Path):
    shown = e2i("trace", "ls", home=filled)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].split()[:2] == ["TRACE", "STARTED"]
    assert [line.split()[0] for line in lines[1:4]] == [TRACE, OTHER, LARGE]
    assert lines[1].endswith("run speaker_program")
    errors = e2i("trace", "ls", "--status", "error", "--since", "24h", "--json", home=filled).json
    assert [(each["trace_id"], each["errors"]) for each in errors] == [(TRACE, 1), (LARGE, 30)]  # type: ignore[index]
    mine = e2i("trace", "ls", "--agent", "data_preparer", "--limit", "1", "--json", home=filled).json
    assert [each["trace_id"] for each in mine] == [TRACE]  # type: ignore[index]
    assert e2i("trace", "ls", "--agent", "nobody", home=filled).out == "(none)\n"


@pytest.mark.parametrize("wanted", [RUN, TRACE, TRACE[:12], "last"])
def test_a_run_is_shown_as_a_waterfall(filled: Path, wanted: str):
    shown = e2i("trace", "show", wanted, home=filled)
    assert (shown.code, shown.err) == (0, "")
    assert "└─ chat claude-sonnet-5" in shown.out
    assert "✗ RateLimitError: 429: try again in 5 s" in shown.out
    assert "\x1b" not in shown.out


def test_the_waterfall_as_json_is_alone_on_standard_output(filled: Path):
    found = e2i("trace", "show", RUN, "--json", home=filled).json
    assert (found["trace_id"], found["span_count"], len(found["spans"])) == (TRACE, 10, 10)


def test_an_unknown_trace_and_an_ambiguous_one_say_what_there_is(filled: Path):
    unknown = e2i("trace", "show", TRACE[:-1] + "7", home=filled)
    assert (unknown.code, unknown.out) == (1, "")
    assert TRACE in unknown.err
    several = e2i("trace", "show", "4bf92f", "--json", home=filled)
    assert several.code == 1
    assert several.json["error"] == "Conflict"
    assert TRACE in several.err
    assert OTHER in several.err
    assert e2i("trace", "show", home=filled).code == 2


def test_30000_spans_are_shown_without_a_flood(filled: Path):
    started = time.monotonic()
    shown = e2i("trace", "show", LARGE, home=filled)
    assert shown.code == 0
    assert len(shown.out.splitlines()) < 400
    assert time.monotonic() - started < 60
    assert len(e2i("trace", "show", LARGE, "--all", home=filled).out.splitlines()) > 30_000


def test_a_page_is_written_where_asked_and_below_home(filled: Path, tmp_path: Path):
    told = e2i("trace", "show", RUN, "--html", tmp_path / "page.html", home=filled)
    assert told.out.strip() == str(tmp_path / "page.html")
    assert TRACE in (tmp_path / "page.html").read_text()
    opened = e2i("trace", "show", RUN, "--open", "--json", home=filled, BROWSER="true")
    assert (opened.code, opened.json["html"]) == (0, str(filled / "traces" / f"{TRACE}.html"))
    assert (filled / "traces" / f"{TRACE}.html").is_file()


def test_exports_are_json_otlp_and_parquet(filled: Path, tmp_path: Path):
    told = e2i("trace", "export", RUN, "--output", tmp_path / "a.json", "--json", home=filled).json
    assert (told["spans"], told["format"]) == (10, "json")
    assert len(json.loads((tmp_path / "a.json").read_text())) == 10
    printed = e2i("trace", "export", RUN, "--format", "otlp-json", home=filled)
    assert len(json.loads(printed.out)["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 10
    assert e2i("trace", "export", "--since", "1d", "--format", "parquet", "-o", tmp_path / "b.parquet", home=filled).code == 0
    assert len(pd.read_parquet(tmp_path / "b.parquet")) == 30_011
    again = e2i("trace", "export", RUN, "-o", tmp_path / "a.json", home=filled)
    assert (again.code, "--force" in again.err) == (1, True)
    for wrong in ((), (RUN, "--since", "1h"), (RUN, "--format", "parquet"), (RUN, "--agent", "x"), ("--since", "soon")):
        assert e2i("trace", "export", *wrong, home=filled).code == 2


def test_what_otlp_json_exports_our_own_receiver_takes(filled: Path):
    from e2i.api.otlp_json import read

    printed = e2i("trace", "export", LARGE, "--format", "otlp-json", home=filled)
    lines = printed.out.splitlines()
    assert len(lines) > 1
    assert all(len(line.encode()) < 4_100_000 for line in lines)
    ids = [span.span_id for line in lines for batch in read(line.encode(), max_spans=100_000) for span in batch.spans()]
    assert len(set(ids)) == 30_000


def test_spans_are_found_by_attribute_page_by_page(filled: Path):
    first = e2i("trace", "search", "--attribute", f"e2i.run.id={RUN}", "--limit", "6", "--json", home=filled).json
    second = e2i(
        "trace", "search", "--attribute", f"e2i.run.id={RUN}", "--limit", "6", "--cursor", first["next_cursor"], "--json", home=filled
    ).json
    assert len({each["span_id"] for each in [*first["spans"], *second["spans"]]}) == 10
    assert second["next_cursor"] is None
    slow = e2i("trace", "search", "--operation", "llm", "--slower-than", "10000", home=filled).out.splitlines()
    assert len(slow) == 2
    assert "chat claude-sonnet-5" in slow[1]


def test_tail_tells_what_arrives_once_and_ends_quietly_on_ctrl_c(filled: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "e2i", "trace", "tail", "--interval", "0.2", "--agent", "explainer", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(filled),
    )  # fmt: skip
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), True)
    explainer = {"e2i.agent.name": "explainer"}
    told: list[str] = []
    sent: list[str] = []
    try:
        deadline = time.monotonic() + 60
        number = 0
        while not told and time.monotonic() < deadline:  # it may take a while to start; what ended before is not told
            number += 1
            sent.append(f"{number:016x}")
            insert(
                filled,
                [stored("late", number=number, trace_id="bb" * 16, started_ns=time.time_ns() - 10**8, ms=100, attributes=explainer).span],
            )
            if _readable(process.stdout, 0.5):
                told.append(json.loads(process.stdout.readline())["span_id"])
        for number in range(1000, 1005):
            sent.append(f"{number:016x}")
            insert(
                filled,
                [failed("more", number=number, trace_id="bb" * 16, started_ns=time.time_ns() - 10**8, ms=100, attributes=explainer).span],
            )
        insert(filled, [stored("not mine", number=2000, trace_id="bb" * 16, started_ns=time.time_ns(), ms=1).span])
        while f"{1004:016x}" not in told and time.monotonic() < deadline:
            told.append(json.loads(process.stdout.readline())["span_id"])
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    told += [json.loads(line)["span_id"] for line in out.splitlines()]
    assert (process.returncode, err) == (0, "")
    assert told == sent[sent.index(told[0]) :]


def _readable(stream, seconds: float) -> bool:
    import select

    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def test_colours_come_on_a_terminal_and_go_with_no_color(filled: Path):
    for no_colour, expected in (({}, True), ({"NO_COLOR": "1"}, False)):
        main, other = pty.openpty()
        env = {**environment(filled), "TERM": "xterm-256color", "COLUMNS": "100"}
        env.pop("NO_COLOR")
        process = subprocess.Popen(
            [sys.executable, "-m", "e2i", "trace", "show", RUN], stdout=other, stderr=other, cwd=ROOT, env=env | no_colour
        )  # fmt: skip
        os.close(other)
        seen = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        os.close(main)
        assert process.wait() == 0
        assert (b"\x1b[31m" in seen) is expected


def test_old_days_are_held_archived_dropped_and_audited(filled: Path, tmp_path: Path):
    days = sorted((LONG_AGO - timedelta(days=day)).date() for day in range(3))
    placed = e2i("retention", "hold", "case-7", "--from", days[0], "--to", days[0], "--reason", "litigation", home=filled)
    assert placed.code == 0, placed.err
    listed = e2i("retention", "ls", "--json", home=filled).json
    assert [(each["day"], each["held_by"]) for each in listed][:3] == [(str(days[0]), ["case-7"]), (str(days[1]), []), (str(days[2]), [])]  # type: ignore[index]
    planned = e2i("retention", "run", "--dry-run", "--archive", tmp_path / "archive", "--json", home=filled).json
    assert not (tmp_path / "archive").exists()
    done = e2i("retention", "run", "--archive", tmp_path / "archive", "--json", home=filled)
    assert done.code == 0, done.err
    assert (
        [(each["day"], each["spans"]) for each in planned["dropped"]]
        == [(each["day"], each["archived"]) for each in done.json["dropped"]]
        == [
            (str(days[1]), 40),
            (str(days[2]), 40),
        ]
    )
    assert [each["held_by"] for each in done.json["kept"]] == [["case-7"]]
    assert sorted(each.name for each in (tmp_path / "archive").iterdir()) == [f"spans-{day}.parquet" for day in days[1:]]
    assert len(pd.read_parquet(tmp_path / "archive" / f"spans-{days[1]}.parquet")) == 40
    assert e2i("retention", "release", "case-7", home=filled).code == 0
    assert e2i("retention", "release", "case-7", home=filled).code == 1
    last = e2i("retention", "run", home=filled)
    assert "dropped" in last.out
    assert e2i("retention", "run", home=filled).out.splitlines()[-1].startswith("Dropped 0 days")
    assert e2i("audit", "verify", home=filled).code == 0
    assert e2i("trace", "show", TRACE, home=filled).code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ("run", "--days", "0"),
        ("hold", "x", "--from", "2026-01-02", "--to", "2026-01-01", "--reason", "r"),
        ("hold", "x", "--from", "soon", "--to", "2026-01-01", "--reason", "r"),
        ("hold", "x", "--from", "2026-01-01", "--to", "2026-01-01"),
    ],
)
def test_retention_that_makes_no_sense_is_a_usage_error(filled: Path, wrong: tuple[str, ...]):
    assert e2i("retention", *wrong, home=filled).code == 2
