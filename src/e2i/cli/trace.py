"""`e2i trace`: what the agents did, span by span."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_json, print_line, print_note, print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from e2i.app.traces import Trace
    from e2i.config import Settings
    from e2i.domain.telemetry import TraceSummary
    from e2i.ports.telemetry import SpanRecords

    T = TypeVar("T")

app = typer.Typer(help="Traces: every step of every agent as a span.", no_args_is_help=True)
_SHORT_ID = 16
_WIDE = 120


class Status(StrEnum):
    """How a span, or any span of a trace, ended."""

    SUCCESS = "success"
    ERROR = "error"


class Format(StrEnum):
    """What `export` writes."""

    JSON = "json"
    OTLP_JSON = "otlp-json"
    PARQUET = "parquet"


Id = Annotated[str, typer.Argument(help="A run id, a trace id or its beginning, or `last`.")]
Agent = Annotated[str | None, typer.Option(help="Only this agent.")]
OfStatus = Annotated[Status | None, typer.Option(help="Only with, or without, errors.")]
Since = Annotated[str | None, typer.Option(help="15m, 24h, 7d … or a date.")]


@app.callback()
def callback() -> None:
    """Traces."""


@app.command()
def ls(
    *,
    agent: Agent = None,
    status: OfStatus = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List traces, newest first."""
    from e2i.app.trace_lookup import recent_traces

    start = _moment(since)
    found = _ask(
        settings(home), lambda records: recent_traces(records, since=start, agent=agent, status=status and status.value, limit=limit)
    )
    if as_json:
        print_json([_summary_dict(each) for each in found])
        return
    from e2i.cli.terminal import Terminal

    digits = 32 if Terminal.of_output().width > _WIDE or not sys.stdout.isatty() else _SHORT_ID
    print_table([_summary_row(each, digits=digits) for each in found])


@app.command()
def show(
    wanted: Id,
    *,
    every: Annotated[bool, typer.Option("--all", help="A line for every span; otherwise alike ones are folded.")] = False,
    to_open: Annotated[bool, typer.Option("--open", help="Write an HTML page below home/traces and open it.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write the HTML page here.", dir_okay=False)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show a trace as a waterfall: the tree, durations, tokens, cost and errors on a time axis."""
    from e2i.app.trace_lookup import find_trace
    from e2i.app.traces import build_trace

    chosen = settings(home)
    trace = build_trace(_ask(chosen, lambda records: find_trace(records, wanted)))
    if to_open or html is not None:
        _page(trace, html or chosen.home.absolute() / "traces" / f"{trace.trace_id}.html", to_open=to_open, as_json=as_json)
    elif as_json:
        print_json(trace_to_dict(trace))
    else:
        from e2i.cli.terminal import Terminal
        from e2i.cli.waterfall import waterfall

        sys.stdout.writelines(f"{line}\n" for line in waterfall(trace, Terminal.of_output(), every=every))
        sys.stdout.flush()


def _page(trace: Trace, path: Path, *, to_open: bool, as_json: bool) -> None:
    from e2i.reporting.waterfall import write_waterfall

    written = write_waterfall(trace, path)
    if as_json:
        print_json({"trace_id": trace.trace_id, "spans": len(trace.nodes), "html": str(written), "bytes": written.stat().st_size})
    else:
        print_line(str(written))
    if to_open:
        import webbrowser

        if not webbrowser.open(written.as_uri()):
            print_note("No browser could be started here: open the file yourself.")


@app.command()
def export(
    wanted: Annotated[str | None, typer.Argument(help="A run id, a trace id or its beginning, or `last`; or none, with --since.")] = None,
    *,
    since: Since = None,
    agent: Agent = None,
    status: OfStatus = None,
    form: Annotated[Format, typer.Option("--format", help="otlp-json: any OpenTelemetry receiver takes each line.")] = Format.JSON,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: standard output; parquet needs a file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the spans of a trace, or of all traces since a moment.

    json is one array with a span per line; otlp-json is the OTLP file format: one request per line, each at most about 4 MB, that can be
    posted to /v1/traces as it is; parquet has typed columns, attributes as JSON text.
    """
    from e2i.cli.trace_export import check_target, export_spans
    from e2i.domain.telemetry import SpanQuery
    from e2i.errors import ConfigError

    if (wanted is None) == (since is None):
        raise ConfigError("give either a trace or --since.", where="trace export", advice="e2i trace export last, or --since 24h.")
    if wanted is not None and (agent is not None or status is not None):
        raise ConfigError("--agent and --status go with --since.", where="trace export", advice="A trace is exported whole.")
    target = None if output is None or str(output) == "-" else output
    check_target(target, form=form.value, force=force)
    start = _moment(since)
    query = SpanQuery(agent=agent, status=None if status is None else status.value, since=start, limit=500)
    count = _ask(
        settings(home), lambda records: export_spans(records, wanted if wanted is not None else query, form=form.value, target=target)
    )
    if target is not None and as_json:
        print_json({"format": form.value, "path": str(target), "spans": count, "bytes": target.stat().st_size})
    elif target is not None:
        print_line(f"{count:,} span{'s' * (count != 1)} in {target}")


@app.command()
def tail(
    *,
    agent: Agent = None,
    status: OfStatus = None,
    since: Since = None,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 1.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Follow spans as they end; Ctrl-C ends it. Each is told once, also when it arrives up to an hour late.

    With --json, one object per line.
    """
    from e2i.app.trace_tail import TraceTail
    from e2i.cli.trace_tail import follow, teller

    start = _moment(since) or datetime.now(UTC)

    def watch(records: SpanRecords) -> Awaitable[None]:
        return follow(
            TraceTail(records, start=start, agent=agent, status=None if status is None else status.value),
            tell=teller(as_json=as_json),
            interval_s=interval,
        )

    with contextlib.suppress(KeyboardInterrupt):
        _ask(settings(home), watch)


@app.command()
def search(
    *,
    agent: Agent = None,
    status: OfStatus = None,
    operation: Annotated[str | None, typer.Option(help="agent, step, llm, tool, retrieval …")] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, exactly; may be given more than once.")] = None,
    slower_than: Annotated[float | None, typer.Option(min=0, help="Milliseconds.")] = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option(help="15m, 24h, 7d … or a date.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Spans per page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next page: `next_cursor` of the one before.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find spans, newest first: by agent, status, kind of work, attributes, duration and time."""
    from e2i.app.trace_export import span_to_dict
    from e2i.app.trace_lookup import check_period
    from e2i.cli.trace_tail import span_row
    from e2i.domain.telemetry import SpanQuery

    start, end = _moment(since), _moment(until, "--until")
    check_period(start, end)
    query = SpanQuery(
        agent=agent,
        status=None if status is None else status.value,
        operation=operation,
        attributes=attributes(attribute or []),
        minimum_ms=slower_than,
        since=start,
        until=end,
        limit=limit,
        cursor=cursor,
    )
    page = _ask(settings(home), lambda records: records.search(query))
    if as_json:
        print_json({"spans": [span_to_dict(each) for each in page.spans], "next_cursor": page.next_cursor})
        return
    print_table([span_row(each) for each in page.spans])
    if page.next_cursor is not None:
        print_note(f"More: --cursor {page.next_cursor}")


def attributes(pairs: list[str]) -> dict[str, str | int | float | bool]:
    """`["e2i.brand=Kisqali", "e2i.step.attempt=2"]` as a dict; a value that reads as JSON (2, true, "2") is what JSON says.

    Raises
    ------
    ConfigError
        One has no `=`.
    """
    import json

    from e2i.errors import ConfigError

    found: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{pair!r} is not NAME=VALUE.", where="--attribute", advice="For instance --attribute e2i.brand=Kisqali.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, str | int | float | bool) else text
    return found


def trace_to_dict(trace: Trace) -> dict[str, Any]:
    """A trace for programs: its sums, and every span with its place in the tree."""
    from e2i.app.trace_export import iso, span_to_dict

    orphans = set(trace.orphans)
    tokens_in, tokens_out = trace.tokens
    return {
        "trace_id": trace.trace_id,
        "root_name": trace.title,
        "started_at": iso(trace.started_ns),
        "duration_ms": trace.duration_ms,
        "span_count": len(trace.nodes),
        "errors": trace.errors,
        "agents": list(trace.agents),
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_cost": trace.cost_usd,
        "spans": [
            {
                **span_to_dict(node.stored),
                "depth": node.depth,
                "self_ms": node.self_ns / 1e6,
                "critical_path_ms": node.critical_ns / 1e6,
                "is_orphan": index in orphans,
            }
            for index, node in enumerate(trace.nodes)
        ],
    }


def _ask(chosen: Settings, question: Callable[[SpanRecords], Awaitable[T]]) -> T:
    """Open the span table, ask, close."""
    from e2i import bootstrap

    async def asked() -> T:
        async with bootstrap.span_records(chosen) as records:
            return await question(records)

    return asyncio.run(asked())


def _moment(text: str | None, option: str = "--since") -> datetime | None:
    from e2i.app.trace_lookup import moment

    return None if text is None else moment(text, now=datetime.now(UTC), where=option)


def _summary_row(found: TraceSummary, *, digits: int) -> dict[str, Any]:
    from e2i.reporting.numbers import format_cost, format_duration
    from e2i.reporting.texts import harmless

    tokens = found.input_tokens + found.output_tokens
    return {
        "trace": found.trace_id[:digits],
        "started (utc)": f"{found.started_at:%Y-%m-%d %H:%M:%S}",
        "duration": format_duration(found.duration_ms),
        "spans": found.spans,
        "errors": found.errors or "-",
        "tokens": f"{tokens:,}" if tokens else "-",
        "cost": format_cost(found.total_cost),
        "agents": len(found.agents) or "-",
        "root": "(not arrived)" if found.root_name is None else harmless(found.root_name),
    }


def _summary_dict(found: TraceSummary) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(found), "started_at": found.started_at.isoformat(), "status": "error" if found.errors else "success"}
