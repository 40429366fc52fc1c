"""A trace as one HTML file: a waterfall that stays usable at tens of thousands of spans, with what went in and came out of each.

The page holds the tree as columns of numbers in JSON, and the details of spans in compressed chunks that are unpacked when a span is
opened. Nothing is fetched: the content security policy allows the page's own script, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.app.trace_export import compact, iso
from e2i.app.trace_folding import rows_of
from e2i.errors import StorageError
from e2i.observability.attributes import INPUTS, OUTPUTS
from e2i.reporting.numbers import format_cost, format_duration
from e2i.reporting.texts import harmless
from e2i.whole_files import replacing

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from e2i.app.trace_folding import Row
    from e2i.app.traces import Trace, TraceNode
    from e2i.domain.telemetry import StoredSpan

TEMPLATES = Path(__file__).parent / "templates"
CHUNK = 250
"""spans per compressed chunk"""
TEXT_BUDGET = 48_000_000
"""characters of details in a page; beyond it the longest values are cut, each with a mark"""
SHORTEST_CUT = 1000
_STATIC_ROWS = 150
_UNSAFE = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}


def write_waterfall(trace: Trace, path: Path) -> Path:
    """Write the page, whole or not at all; returns its absolute path.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    page = render_waterfall(trace)
    target = path.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as (part,):
            part.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise StorageError(
            f"the page cannot be written: {error.strerror or error}.", where=str(target), advice="Name another file with --html."
        ) from error
    return target


def render_waterfall(trace: Trace) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    order = _order(trace)
    details = Details(trace, order)
    chunks = list(details.chunks())
    script = (TEMPLATES / "waterfall.js").read_text(encoding="utf-8")
    fingerprint = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = rows_of(trace, limit=_STATIC_ROWS)
    return environment.get_template("waterfall.html.j2").render(
        trace=trace,
        title=None if trace.title is None else harmless(trace.title),
        facts=_facts(trace),
        cut=details.cut,
        cut_limit=details.limit,
        rows=[_static(trace, row) for row in rows],
        index=Markup(embedded(index_of(trace, order))),  # noqa: S704 - escaped in `embedded`
        chunks=[Markup(each) for each in chunks],  # noqa: S704 - base64
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=fingerprint,
    )


def embedded(value: Any) -> str:
    """JSON that may stand in a script element: no `<`, `>` or `&` is left in it."""
    return compact(value).translate(_UNSAFE)


def _order(trace: Trace) -> list[int | None]:
    """Nodes in the page's order: real roots first, then (None) the mark above orphans, then the orphans."""
    orphans = set(trace.orphans)
    top = [range(i, i + trace.nodes[i].descendants + 1) for i in trace.roots if i not in orphans]
    loose = [range(i, i + trace.nodes[i].descendants + 1) for i in trace.roots if i in orphans]
    return [*chain.from_iterable(top), *([None] if loose else []), *chain.from_iterable(loose)]


@dataclass(frozen=True)
class _Words:
    """Texts by number, so that each is in the page once."""

    places: dict[Hashable, int]

    def number(self, text: str | None) -> int:
        return -1 if text is None else self.places.setdefault(text, len(self.places))


def index_of(trace: Trace, order: Sequence[int | None]) -> dict[str, Any]:
    """The tree as columns, one entry per row in the page's order; times in µs from the trace's start, -1 where there is none."""
    names, agents, operations, models = (_Words({}) for _ in range(4))
    place = {index: row for row, index in enumerate(order) if index is not None}
    mark = order.index(None) if None in order else -1
    orphans = set(trace.orphans)
    columns: dict[str, list[Any]] = {key: [] for key in ("name", "parent", "below", "start", "length", "bad", "agent", "operation", "model",
                                                         "tokens_in", "tokens_out", "cost", "own", "critical", "id")}  # fmt: skip
    for index in order:
        node = None if index is None else trace.nodes[index]
        values = _mark(trace, mark) if node is None else _entry(trace, node, words=(names, agents, operations, models))
        if node is not None:
            values["parent"] = mark if index in orphans else -1 if node.parent is None else place[node.parent]
        for key, value in values.items():
            columns[key].append(value)
    return {
        "trace": trace.trace_id,
        "started_at": iso(trace.started_ns),
        "length": (trace.ended_ns - trace.started_ns) / 1000,
        "mark": mark,
        "chunk": CHUNK,
        "names": list(names.places),
        "agents": list(agents.places),
        "operations": list(operations.places),
        "models": list(models.places),
        "columns": columns,
    }


def _entry(trace: Trace, node: TraceNode, *, words: tuple[_Words, _Words, _Words, _Words]) -> dict[str, Any]:
    span, columns = node.stored.span, node.stored.columns
    names, agents, operations, models = words
    return {
        "name": names.number(span.name),
        "below": node.descendants,
        "start": _us(span.started_ns - trace.started_ns),
        "length": -1 if span.ended_ns is None else _us(max(0, span.ended_ns - span.started_ns)),
        "bad": int(columns.status == "error"),
        "agent": agents.number(columns.agent_name),
        "operation": operations.number(columns.operation_type),
        "model": models.number(columns.model_name),
        "tokens_in": -1 if columns.input_tokens is None else columns.input_tokens,
        "tokens_out": -1 if columns.output_tokens is None else columns.output_tokens,
        "cost": -1 if columns.total_cost is None else float(f"{columns.total_cost:.6g}"),
        "own": _us(node.self_ns),
        "critical": _us(node.critical_ns),
        "id": span.span_id,
    }


def _mark(trace: Trace, mark: int) -> dict[str, Any]:
    spans = sum(trace.nodes[index].descendants + 1 for index in trace.orphans)
    empty = dict.fromkeys(("name", "parent", "length", "agent", "operation", "model", "tokens_in", "tokens_out", "cost"), -1)
    return {**empty, "below": spans, "start": 0, "bad": 0, "own": 0, "critical": 0, "id": ""} if mark >= 0 else {}


def _us(ns: int) -> float:
    """Whole µs where that is exact enough, one digit more below 10 µs."""
    return round(ns / 1000) if ns >= 10_000 or ns % 1000 == 0 else round(ns / 1000, 1)


class Details:
    """What is told of a span when it is opened, in chunks: JSON, deflated, base64."""

    def __init__(self, trace: Trace, order: Sequence[int | None]) -> None:
        self._spans = [None if index is None else trace.nodes[index].stored for index in order]
        self.cut = 0
        total = sum(_text_size(each.span.attributes) for each in self._spans if each is not None)
        self.limit = max(SHORTEST_CUT, TEXT_BUDGET // max(1, len(self._spans))) if total > TEXT_BUDGET else None
        self._level = 6 if total < TEXT_BUDGET // 8 else 1

    def chunks(self) -> Iterator[str]:
        """Each of `CHUNK` rows."""
        for start in range(0, len(self._spans), CHUNK):
            text = compact([None if each is None else self._of(each) for each in self._spans[start : start + CHUNK]])
            yield base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), self._level)).decode("ascii")

    def _of(self, stored: StoredSpan) -> dict[str, Any]:
        span, columns = stored.span, stored.columns
        attributes = {key: self._short(value) for key, value in span.attributes.items()}
        facts = {
            "span": span.span_id,
            "parent": span.parent_span_id,
            "tier": columns.agent_tier,
            "kind": span.kind,
            "service": span.service,
            "scope": span.scope,
            "origin": span.origin,
            "run": columns.run_id,
            "experiment": columns.experiment_id,
            "user": columns.user_id,
            "session": columns.session_id,
            "fallback chain": " > ".join(columns.fallback_chain) if len(columns.fallback_chain) > 1 else None,
        }
        return {
            "started_at": iso(span.started_ns),
            "started_ns": str(span.started_ns),
            "ended_ns": None if span.ended_ns is None else str(span.ended_ns),
            "error_type": columns.error_type,
            "error_message": columns.error_message or span.status_message,
            "facts": {key: value for key, value in facts.items() if value},
            "inputs": {key: attributes.pop(key) for key in INPUTS if key in attributes},
            "outputs": {key: attributes.pop(key) for key in OUTPUTS if key in attributes},
            "attributes": attributes,
            "events": [
                {"name": event.name, "at_us": (event.at_ns - span.started_ns) / 1000, "attributes": event.attributes}
                for event in span.events
            ],
            "links": [{"trace": link.trace_id, "span": link.span_id, "attributes": link.attributes} for link in span.links],
        }

    def _short(self, value: Any) -> Any:
        if self.limit is None or isinstance(value, int | float):
            return value
        text = value if isinstance(value, str) else compact(value)
        if len(text) <= self.limit:
            return value
        self.cut += 1
        return f"{text[: self.limit]} … (cut for this page: {self.limit:,} of {len(text):,} characters; `e2i trace export` has them all)"


def _text_size(attributes: dict[str, Any]) -> int:
    return sum(len(value) if isinstance(value, str) else 16 for value in attributes.values())


def _facts(trace: Trace) -> list[tuple[str, str]]:
    tokens_in, tokens_out = trace.tokens
    columns = [node.stored.columns for node in trace.nodes]
    models = _names(each.model_name for each in columns)
    found = [
        ("Started", f"{trace.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Duration", format_duration(trace.duration_ms)),
        ("Spans", f"{len(trace.nodes):,}"),
        ("Errors", f"{trace.errors:,}"),
        ("Agents", f"{len(trace.agents):,}"),
    ]
    if tokens_in or tokens_out:
        found.append(("Tokens", f"{tokens_in:,} in, {tokens_out:,} out"))
    if trace.cost_usd is not None:
        found.append(("Cost", format_cost(trace.cost_usd)))
    found += [("Models", models)] if models else []
    runs = _names(each.run_id for each in columns)
    return [*found, *([("Run", runs)] if runs else [])]


def _names(values: Iterable[str | None]) -> str:
    names = sorted({harmless(value) for value in values if value})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _static(trace: Trace, row: Row) -> dict[str, Any]:
    """A line of the table that stands where there is no script."""
    if row.fold is not None:
        fold = row.fold
        return {
            "depth": row.depth,
            "name": f"{fold.siblings:,} {'others' if fold.name is None else f'more: {harmless(fold.name)}'}",
            "agent": "",
            "length": format_duration(fold.total_ms),
            "error": f"{fold.errors:,} errors" if fold.errors else "",
        }
    if row.node is None:
        return {"depth": 0, "name": "Spans whose parent is not here", "agent": "", "length": "", "error": ""}
    stored = trace.nodes[row.node].stored
    bad = stored.columns.status == "error"
    return {
        "depth": row.depth,
        "name": harmless(stored.span.name),
        "agent": harmless(stored.columns.agent_name or ""),
        "length": format_duration(stored.span.duration_ms),
        "error": harmless(stored.columns.error_type or "error") if bad else "",
    }
