"""Traces on a terminal: the waterfall, the lines of `tail`, exports, and what retention tells."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from rich.cells import cell_len

from e2i.app.retention import run_retention
from e2i.app.trace_tail import TraceTail
from e2i.app.traces import build_trace
from e2i.cli.retention import partition_row, report_lines, report_to_dict, with_archive
from e2i.cli.terminal import Terminal, fit
from e2i.cli.trace import attributes, trace_to_dict
from e2i.cli.trace_export import check_target, export_spans
from e2i.cli.trace_tail import follow, span_line, teller
from e2i.cli.waterfall import waterfall
from e2i.domain.telemetry import SpanQuery
from e2i.errors import ConfigError, Conflict, NotFound, StorageError
from growth import growth
from span_doubles import (
    START,
    TRACE,
    AuditInMemory,
    RetentionInMemory,
    SpansInMemory,
    failed,
    large_trace,
    spans_of,
    stored,
    study_trace,
)

ESCAPE = "\x1b"
PLAIN = Terminal(width=120)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def shown(spans, terminal=PLAIN, **more) -> list[str]:
    return list(waterfall(build_trace(spans), terminal, **more))


def test_a_waterfall_tells_tree_duration_tokens_cost_and_errors():
    lines = shown(study_trace())
    text = "\n".join(lines)
    assert TRACE in lines[0]
    assert "run speaker_program" in lines[0]
    assert "1 min 02 s  10 spans  1 error  tokens 1,624 in, 354 out  cost $0.01" in text
    assert "run run_20261121T100000_4f2a1c" in lines
    call = next(line for line in lines if "812/354" in line)
    assert call.startswith("│  └─ chat claude-sonnet-5")
    assert "11.5 s" in call
    assert "$0.0077" in call
    assert "✗ RateLimitError: 429: try again in 5 s" in text
    assert "Critical path: causal_impact.estimate 30.0 s, chat claude-sonnet-5 11.5 s" in text
    assert ESCAPE not in text


def test_bars_stand_where_and_as_long_as_their_spans():
    lines = shown(
        [
            stored("root", number=1, ms=100),
            stored("half", number=2, parent=1, at_ms=50, ms=50),
            stored("tiny", number=3, parent=1, at_ms=99, ms=0.01),
        ]
    )
    root = next(line for line in lines if line.startswith("root"))
    half = next(line for line in lines if "half" in line)
    bar = root.index("█")
    width = len(root) - bar
    assert abs(half.index("█") - (bar + width / 2)) <= 1
    assert len(half) == len(root)
    assert next(line for line in lines if "tiny" in line).endswith("▏")


@pytest.mark.parametrize("width", [20, 40, 56, 80, 90, 132, 300])
def test_no_row_is_wider_than_the_terminal(width):
    spans = [*study_trace(), stored("漢字" * 60, number=80, parent=1, at_ms=5), stored("x" * 400, number=81, parent=80, at_ms=6)]
    spans.append(failed("long error", number=82, parent=1, message="m" * 900, at_ms=7))
    lines = shown(spans, Terminal(width=width))
    start = next(index for index, line in enumerate(lines) if line.startswith("SPAN"))
    assert all(cell_len(line) <= width for line in lines[start:-4])


def test_colours_only_where_asked_for():
    assert ESCAPE not in "\n".join(shown(study_trace()))
    coloured = "\n".join(shown(study_trace(), Terminal(width=120, colour=True)))
    assert f"{ESCAPE}[31m" in coloured


def test_a_terminal_without_unicode_gets_ascii():
    text = "\n".join(shown([*study_trace(), stored("µ 漢", number=70, parent=1)], Terminal(width=100, blocks=False)))
    assert text.isascii()
    assert "#" in text


def test_names_from_elsewhere_cannot_steer_the_terminal():
    evil = f"{ESCAPE}]0;owned\x07{ESCAPE}[2J\r\n\u202egnp"
    lines = shown([failed(evil, number=1, message=evil, attributes={"e2i.agent.name": evil, "e2i.run.id": evil})])
    text = "\n".join(lines)
    assert not set(text) & {ESCAPE, "\x07", "\r", "\u202e"}
    assert "\\x1b[2J" in text
    line = span_line(failed(evil, number=1, message=evil, attributes={"e2i.agent.name": evil}), PLAIN)
    assert line.isprintable()


def test_orphans_stand_below_a_marked_root():
    text = "\n".join(shown([stored("root", number=1), stored("lost", number=2, parent=77), stored("under", number=3, parent=2)]))
    assert "(1 span whose parent is not here)\n└─ lost" in text
    assert "   └─ under" in text


def test_a_trace_of_30000_spans_does_not_flood_and_says_how_to_see_the_rest():
    lines = shown(large_trace())
    assert len(lines) < 400
    assert "spans have no line of their own: --all prints them, --open shows them in a browser." in lines[-1]
    assert any("others and" in line for line in lines)


def test_all_prints_every_span_in_a_time_that_grows_with_them_and_no_faster():
    traces = {size: large_trace(size) for size in (1_000, 10_000)}
    assert growth(lambda size: shown(traces[size], Terminal(width=140, colour=True), every=True), 1_000) < 30
    lines = shown(large_trace(), Terminal(width=140, colour=True), every=True)
    assert sum("chat" in line for line in lines) >= 14_949


def test_fitting_keeps_the_width_of_wide_characters():
    assert [cell_len(fit(text, 7)) for text in ("abc", "abcdefghij", "漢字", "漢字漢字漢字", "é" * 9, "")] == [7] * 6
    assert fit("abcdefghij", 7) == "abcdef…"


def test_the_json_of_a_trace_has_its_sums_and_every_span_in_its_place():
    found = json.loads(json.dumps(trace_to_dict(build_trace(study_trace()))))
    assert (found["trace_id"], found["root_name"], found["span_count"], found["errors"]) == (TRACE, "run speaker_program", 10, 1)
    assert (found["duration_ms"], found["input_tokens"], found["output_tokens"]) == (62_000.0, 1624, 354)
    chat = found["spans"][-2]
    assert (chat["name"], chat["depth"], chat["model_name"], chat["self_ms"], chat["is_orphan"]) == (
        "chat claude-sonnet-5",
        2,
        "claude-sonnet-5",
        11_500.0,
        False,
    )
    assert chat["attributes"]["output.value"] == "About 0.8 NRx per HCP."


def test_attributes_are_read_as_what_they_are():
    assert attributes(["a=1", "b=1.5", "c=true", "d=text", 'e="7"', "f=", "g=a=b", "h=[1]"]) == {
        "a": 1, "b": 1.5, "c": True, "d": "text", "e": "7", "f": "", "g": "a=b", "h": "[1]",
    }  # fmt: skip
    for wrong in ("name", "=value"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            attributes([wrong])


async def test_tail_writes_a_line_or_an_object_per_span():
    records = SpansInMemory(study_trace())
    for as_json in (False, True):
        out = io.StringIO()
        with redirect_stdout(out):
            await follow(TraceTail(records, start=START), tell=teller(as_json=as_json), interval_s=0.0, looks=3)
        lines = out.getvalue().splitlines()
        assert len(lines) == 10
        if as_json:
            assert {json.loads(line)["span_id"] for line in lines} == {each.span.span_id for each in records.spans}
        else:
            (bad,) = [line for line in lines if "ERR" in line]
            assert "RateLimitError: 429" in bad
            assert "812/0 tokens" in bad


@pytest.mark.parametrize("form", ["json", "otlp-json", "parquet"])
async def test_an_export_is_complete_or_not_there(form, tmp_path: Path):
    records = SpansInMemory(study_trace())
    target = tmp_path / "out"
    assert await export_spans(records, "run_20261121T100000_4f2a1c", form=form, target=target) == 10
    assert names(tmp_path) == ["out"]
    with pytest.raises(NotFound):
        await export_spans(records, "nothing", form=form, target=tmp_path / "other")
    with pytest.raises(StorageError, match="cannot be written"):
        await export_spans(records, TRACE, form=form, target=tmp_path / "no" / "folder")
    assert names(tmp_path) == ["out"]


async def test_everything_since_a_moment_is_exported_page_by_page(tmp_path: Path):
    records = SpansInMemory(large_trace(3000))
    count = await export_spans(records, SpanQuery(since=START, limit=250), form="json", target=tmp_path / "out.json")
    assert count == len(json.loads((tmp_path / "out.json").read_text())) == 3000
    assert records.searches == 12
    assert await export_spans(records, SpanQuery(status="error"), form="otlp-json", target=tmp_path / "errors") == 3
    assert await export_spans(SpansInMemory(), SpanQuery(), form="otlp-json", target=tmp_path / "none") == 0
    assert (tmp_path / "none").read_text() == ""


def test_a_target_is_checked_before_anything_is_opened(tmp_path: Path):
    check_target(None, form="json", force=False)
    check_target(tmp_path / "new.json", form="json", force=False)
    with pytest.raises(ConfigError, match="parquet goes to a file"):
        check_target(None, form="parquet", force=False)
    for nowhere in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(ConfigError):
            check_target(nowhere, form="json", force=True)
    (tmp_path / "old").write_text("")
    with pytest.raises(Conflict, match="--force"):
        check_target(tmp_path / "old", form="json", force=False)
    check_target(tmp_path / "old", form="json", force=True)


async def test_retention_tells_what_it_did_or_would_do(tmp_path: Path):
    from e2i.app.retention import RetentionPorts

    days = [date(2026, 10, 1), date(2026, 10, 2), date(2026, 11, 20)]
    given = RetentionPorts(
        retention=RetentionInMemory({day: spans_of(day, 1500) for day in days}),
        archive=None,
        audit=AuditInMemory(),
        ttl_days=30,
        actor="ana",
    )
    given.retention.holds["case 7"] = (days[1], days[1])
    now = datetime(2026, 11, 21, tzinfo=UTC)
    lines = report_lines(await run_retention(given, now=now, dry_run=True))
    assert lines[0] == "Days before 2026-10-22 are older than 30 days."
    assert lines[1].split(maxsplit=5)[-1] == "would be dropped"
    assert lines[2].endswith("kept by legal hold case 7")
    assert lines[3] == "Would drop 1 day: 1,500 spans, 1.5 MB. Kept by legal holds: 1."
    archived = await run_retention(with_archive(given, tmp_path), now=now)
    assert report_lines(archived)[1].endswith("archived (1,500 spans) and dropped")
    assert json.loads(json.dumps(report_to_dict(archived)))["dropped"][0]["day"] == "2026-10-01"
    assert (tmp_path / "spans-2026-10-01.parquet").is_file()
    assert with_archive(given, None) == given
    (kept, _) = await given.retention.partitions()
    assert partition_row(kept, ttl_days=30) == {
        "day": "2026-10-02",
        "spans": 1500,
        "bytes": 1_500_000,
        "old_on": "2026-11-02",
        "held_by": ["case 7"],
    }
    assert report_lines(replace(archived, days=()))[-1].startswith("Dropped 0 days")
