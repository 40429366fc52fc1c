"""Spans one by one: a line, a table row, or a JSON object each."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from e2i.app.trace_export import compact, iso, span_to_dict
from e2i.cli.terminal import Terminal, fit
from e2i.reporting.numbers import format_duration
from e2i.reporting.texts import harmless

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2i.app.trace_tail import TraceTail
    from e2i.domain.telemetry import StoredSpan


async def follow(tail: TraceTail, *, tell: Callable[[StoredSpan], None], interval_s: float, looks: int | None = None) -> None:
    """Tell what arrives, for ever or for so many looks."""
    done = 0
    while looks is None or done < looks:
        for each in await tail.look(datetime.now(UTC)):
            tell(each)
        sys.stdout.flush()
        done += 1
        if done != looks:
            await asyncio.sleep(interval_s)


def teller(*, as_json: bool) -> Callable[[StoredSpan], None]:
    """Writes a span to standard output: one line, or one JSON object."""
    if as_json:
        return lambda each: print(compact(span_to_dict(each)))  # noqa: T201
    terminal = Terminal.of_output()
    return lambda each: print(span_line(each, terminal))  # noqa: T201


def span_line(each: StoredSpan, terminal: Terminal) -> str:
    """When it ended, its trace, who did what, for how long, and how it ended."""
    span, columns = each.span, each.columns
    at = iso(span.started_ns if span.ended_ns is None else span.ended_ns)[11:23]
    is_bad = columns.status == "error"
    parts = [
        terminal.paint(at, "dim"),
        terminal.paint(span.trace_id[:8], "dim"),
        terminal.paint("ERR", "red") if is_bad else terminal.paint("ok ", "green"),
        format_duration(span.duration_ms).rjust(10),
        fit(harmless(columns.agent_name or "-"), 22),
        harmless(span.name),
    ]
    if columns.input_tokens is not None or columns.output_tokens is not None:
        parts.append(f"{columns.input_tokens or 0}/{columns.output_tokens or 0} tokens")
    if is_bad:
        parts.append(terminal.paint(harmless(": ".join(part for part in (columns.error_type, columns.error_message) if part)[:200]), "red"))
    return "  ".join(parts).rstrip()


def span_row(each: StoredSpan) -> dict[str, Any]:
    """A line of `e2i trace search`."""
    span, columns = each.span, each.columns
    return {
        "started (utc)": iso(span.started_ns)[:23].replace("T", " "),
        "trace": span.trace_id,
        "duration": format_duration(span.duration_ms),
        "status": columns.status,
        "agent": None if columns.agent_name is None else harmless(columns.agent_name),
        "operation": harmless(columns.operation_type),
        "name": harmless(span.name),
        "error": None if columns.error_type is None else harmless(columns.error_type),
    }
