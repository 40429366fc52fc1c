"""A trace as a waterfall of text: the tree on the left, bars on a time axis on the right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from e2i.app.trace_folding import Fold, Row, rows_of
from e2i.cli.terminal import Terminal, fit
from e2i.reporting.numbers import format_cost, format_duration
from e2i.reporting.texts import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2i.app.traces import Trace, TraceNode

DEEPEST_INDENT = 12
_NARROW, _TINY = 90, 56
_SLOWEST = 3
_ASCII = str.maketrans({"├": "|", "└": "`", "─": "-", "│": "|", "█": "#", "▒": "=", "▏": "|", "…": "~", "✗": "!", "·": ".", "µ": "u"})


@dataclass(frozen=True, kw_only=True)
class _Layout:
    name: int
    duration: int
    tokens: int
    cost: int
    bar: int


def waterfall(trace: Trace, terminal: Terminal, *, every: bool = False) -> Iterator[str]:
    """The lines to print.

    Parameters
    ----------
    every : a line for every span; otherwise alike siblings are folded and the deepest levels wait
    """
    rows = rows_of(trace, alike=None) if every else rows_of(trace)
    labels = [(prefix, *_label(trace, row)) for prefix, row in zip(_guides(rows), rows, strict=True)]
    layout = _layout(trace, terminal, widest=max(len(prefix) + len(name) + len(note) for prefix, name, note in labels))
    finish = partial(_finish, terminal)
    yield from map(finish, _head(trace, terminal))
    yield ""
    yield finish(_columns(trace, terminal, layout))
    for row, label in zip(rows, labels, strict=True):
        yield finish(_line(trace, terminal, layout, row=row, label=label))
        if row.node is not None and (problem := _problem(trace.nodes[row.node])):
            lines = label[0].replace("├─", "│ ").replace("└─", "  ") + (
                "│  " if trace.nodes[row.node].children and not row.hidden else "   "
            )
            lines = lines[: max(0, terminal.width - 12)]
            told = fit(f"✗ {problem}", terminal.width - len(lines)).rstrip()
            yield finish(terminal.paint(lines, "dim") + terminal.paint(told, "red"))
    yield ""
    yield from map(finish, _foot(trace, terminal, rows=rows))


def _finish(terminal: Terminal, line: str) -> str:
    return line if terminal.blocks else line.translate(_ASCII).encode("ascii", "replace").decode()


def _head(trace: Trace, terminal: Terminal) -> Iterator[str]:
    title = harmless(trace.title) if trace.title is not None else "(the root has not arrived)"
    yield f"Trace {trace.trace_id}  {terminal.paint(title, 'bold')}"
    tokens_in, tokens_out = trace.tokens
    parts = [
        f"{trace.started_at:%Y-%m-%d %H:%M:%S} UTC",
        format_duration(trace.duration_ms),
        f"{len(trace.nodes):,} span{'s' * (len(trace.nodes) != 1)}",
        terminal.paint(f"{trace.errors:,} error{'s' * (trace.errors != 1)}", *(["red"] if trace.errors else [])),
    ]
    if tokens_in or tokens_out:
        parts.append(f"tokens {tokens_in:,} in, {tokens_out:,} out")
    if trace.cost_usd is not None:
        parts.append(f"cost {format_cost(trace.cost_usd)}")
    yield "  ".join(parts)
    runs = sorted({run for node in trace.nodes if (run := node.stored.columns.run_id) is not None})
    if runs:
        yield f"run {', '.join(map(harmless, runs[:3]))}"
    if trace.agents:
        yield fit(f"agents {harmless(', '.join(trace.agents))}", terminal.width).rstrip()


def _guides(rows: Sequence[Row]) -> list[str]:
    """The lines that join siblings, per row; levels beyond `DEEPEST_INDENT` are told by number."""
    found: list[str] = []
    goes_on: set[int] = set()
    for row in reversed(rows):
        goes_on = {depth for depth in goes_on if depth <= row.depth}
        shown = min(row.depth, DEEPEST_INDENT)
        lines = ["│  " if depth in goes_on else "   " for depth in range(1, shown)]
        joint = ["├─ " if row.depth in goes_on else "└─ "] if row.depth else []
        beyond = [f"({row.depth}) "] if row.depth > DEEPEST_INDENT else []
        found.append("".join([*lines, *joint, *beyond]))
        goes_on.add(row.depth)
    return found[::-1]


def _label(trace: Trace, row: Row) -> tuple[str, str]:
    """Name, and what stands dim behind it."""
    if row.fold is not None:
        return _fold_label(row.fold), ""
    if row.node is None:
        orphans = len(trace.orphans)
        return f"({orphans:,} span{'s' * (orphans != 1)} whose parent is not here)", ""
    node = trace.nodes[row.node]
    hidden = f" +{row.hidden:,} below" if row.hidden else ""
    return harmless(node.stored.span.name) or "(no name)", hidden


def _fold_label(fold: Fold) -> str:
    name = "others" if fold.name is None else f"more {harmless(fold.name)}"
    below = f" and {fold.spans - fold.siblings:,} below" if fold.spans > fold.siblings else ""
    return f"… {fold.siblings:,} {name}{below}"


def _fold_told(fold: Fold) -> str:
    errors = f", {fold.errors:,} error{'s' * (fold.errors != 1)}" if fold.errors else ""
    if fold.total_ms is None:
        return f"none has ended{errors}"
    shortest, longest = format_duration(fold.shortest_ms), format_duration(fold.longest_ms)
    return f"{shortest} to {longest}, total {format_duration(fold.total_ms)}{errors}"


def _layout(trace: Trace, terminal: Terminal, *, widest: int) -> _Layout:
    wide = terminal.width >= _NARROW
    columns = [node.stored.columns for node in trace.nodes]
    tokens = 13 if wide and any(each.input_tokens or each.output_tokens for each in columns) else 0
    cost = 9 if wide and any(each.total_cost is not None for each in columns) else 0
    taken = 12 + tokens + cost
    bar = 0 if terminal.width < _TINY else max(12, (terminal.width - taken) // 2)
    name = terminal.width - taken - bar - (1 if bar else 0)
    spare = name - max(widest + 1, 20)
    if bar and spare > 0:
        name, bar = name - spare, bar + spare
    return _Layout(name=max(name, 8), duration=12, tokens=tokens, cost=cost, bar=bar)


def _columns(trace: Trace, terminal: Terminal, layout: _Layout) -> str:
    parts = [fit("SPAN", layout.name), "DURATION".rjust(layout.duration)]
    parts += ["TOKENS".rjust(layout.tokens)] if layout.tokens else []
    parts += ["COST".rjust(layout.cost)] if layout.cost else []
    return terminal.paint("".join(parts), "dim") + (" " + terminal.paint(_axis(trace, layout.bar), "dim") if layout.bar else "")


def _axis(trace: Trace, width: int) -> str:
    count = max(1, min(5, width // 14))
    cells = [" "] * width
    for index in range(count + 1):
        text = "0" if index == 0 else format_duration(trace.duration_ms * index / count)
        at = min(round((width - 1) * index / count), width - len(text))
        at = at if index in (0, count) else at - len(text) // 2
        cells[at : at + len(text)] = text
    return "".join(cells).rstrip()


def _line(trace: Trace, terminal: Terminal, layout: _Layout, *, row: Row, label: tuple[str, str, str]) -> str:
    prefix, name, note = label
    text = fit(prefix + name + note, layout.name)
    if terminal.colour:
        text = _painted(terminal, text, prefix=prefix, is_bad=_is_bad(trace, row), is_dim=row.node is None)
    if row.node is None:
        told = "" if row.fold is None else f"  {_fold_told(row.fold)}"
        return (text + terminal.paint(fit(told, max(0, terminal.width - layout.name)).rstrip(), "dim")).rstrip()
    node = trace.nodes[row.node]
    columns = node.stored.columns
    parts = [text, format_duration(node.stored.span.duration_ms).rjust(layout.duration)]
    if layout.tokens:
        known = columns.input_tokens is not None or columns.output_tokens is not None
        parts.append((f"{_short(columns.input_tokens)}/{_short(columns.output_tokens)}" if known else "").rjust(layout.tokens))
    if layout.cost:
        parts.append(("" if columns.total_cost is None else format_cost(columns.total_cost)).rjust(layout.cost))
    return ("".join(parts) + (" " + _bar(trace, terminal, node, layout.bar) if layout.bar else "")).rstrip()


def _painted(terminal: Terminal, text: str, *, prefix: str, is_bad: bool, is_dim: bool) -> str:
    lines, rest = text[: len(prefix)], text[len(prefix) :]
    return terminal.paint(lines, "dim") + (terminal.paint(rest, "red") if is_bad else terminal.paint(rest, "dim") if is_dim else rest)


def _is_bad(trace: Trace, row: Row) -> bool:
    if row.fold is not None:
        return row.fold.errors > 0
    return row.node is not None and trace.nodes[row.node].stored.columns.status == "error"


def _bar(trace: Trace, terminal: Terminal, node: TraceNode, width: int) -> str:
    span = node.stored.span
    whole = max(1, trace.ended_ns - trace.started_ns)
    end = trace.ended_ns if span.ended_ns is None else max(span.ended_ns, span.started_ns)
    first = min(width - 1, (span.started_ns - trace.started_ns) * width // whole)
    last = max(first + 1, min(width, -((trace.started_ns - end) * width // whole)))
    is_thin = (end - span.started_ns) * width < whole / 2
    cells = "▏" if is_thin else ("█" if node.critical_ns else "▒") * (last - first)
    if span.ended_ns is None and len(cells) > 1:
        cells = cells[:-1] + "…"
    colour = "red" if node.stored.columns.status == "error" else "cyan" if node.critical_ns else "blue"
    return " " * first + terminal.paint(cells, colour)


def _short(count: int | None) -> str:
    if count is None:
        return "?"
    for limit, size, unit in ((1000, 1, ""), (999_950, 1000, "k"), (999_950_000, 10**6, "M")):
        if count < limit:
            return f"{count / size:.1f}{unit}" if unit else str(count)
    return f"{count / 10**9:.1f}G"


def _problem(node: TraceNode) -> str | None:
    columns = node.stored.columns
    if columns.status != "error":
        return None
    told = ": ".join(part for part in (columns.error_type, columns.error_message) if part)
    return harmless(told[:400]) or "failed, with no message"


def _foot(trace: Trace, terminal: Terminal, *, rows: Sequence[Row]) -> Iterator[str]:
    path = sorted((node for node in trace.nodes if node.critical_ns), key=lambda node: node.critical_ns, reverse=True)
    if path and len(trace.nodes) > 1:
        told = ", ".join(f"{harmless(node.stored.span.name)} {format_duration(node.critical_ns / 1e6)}" for node in path[:_SLOWEST])
        yield fit(f"Critical path: {told}{' …' if len(path) > _SLOWEST else ''}", terminal.width).rstrip()
        if terminal.width >= _TINY:
            yield terminal.paint("█ on the critical path  ▒ beside it  ▏ too short to draw", "dim")
    shown = sum(row.node is not None for row in rows)
    if shown < len(trace.nodes):
        hidden = f"{len(trace.nodes) - shown:,} of {len(trace.nodes):,} spans"
        yield f"{hidden} have no line of their own: --all prints them, --open shows them in a browser."
