"""What a trace tells: its tree, the time each span spent itself, the path that set its duration, and how a large one is folded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from e2i.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.telemetry import StoredSpan

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceNode:
    """One span in its place; indices point into `Trace.nodes`."""

    stored: StoredSpan
    parent: int | None
    depth: int
    children: tuple[int, ...]
    descendants: int
    errors: int
    """spans with an error in this span and all below it"""
    is_orphan: bool
    """it names a parent that is not among the spans"""
    self_ns: int
    """its own time: without the time in which a child was at work"""
    critical_ns: int
    """its own part of the critical path"""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """All known spans of a trace, each parent before its children, siblings by start.

    The nodes below node `i` are `nodes[i + 1 : i + 1 + nodes[i].descendants]`.
    """

    trace_id: str
    nodes: tuple[TraceNode, ...]
    roots: tuple[int, ...]
    started_ns: int
    ended_ns: int

    @property
    def orphans(self) -> tuple[int, ...]:
        """Top-level spans whose parent is not here, where there is more than one top-level span.

        A single one is the root as far as anyone here can know: its parent is the caller's span, in another system.
        """
        return tuple(i for i in self.roots if self.nodes[i].is_orphan) if len(self.roots) > 1 else ()

    @property
    def title(self) -> str | None:
        """Name of the root; None while it has not arrived."""
        orphans = set(self.orphans)
        real = next((i for i in self.roots if i not in orphans), None)
        return None if real is None else self.nodes[real].stored.span.name

    @property
    def duration_ms(self) -> float:
        """From the first start to the last end."""
        return (self.ended_ns - self.started_ns) / 1e6

    @property
    def started_at(self) -> datetime:
        """The first start."""
        return datetime.fromtimestamp(self.started_ns / 1e9, UTC)

    @property
    def errors(self) -> int:
        """Spans that ended with an error."""
        return sum(self.nodes[i].errors for i in self.roots)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents at work, by name."""
        return tuple(sorted({name for node in self.nodes if (name := node.stored.columns.agent_name) is not None}))

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens in and out; what is not known is not counted."""
        columns = [node.stored.columns for node in self.nodes]
        return sum(each.input_tokens or 0 for each in columns), sum(each.output_tokens or 0 for each in columns)

    @property
    def cost_usd(self) -> float | None:
        """What is known of the cost; None when no span has one."""
        known = [cost for node in self.nodes if (cost := node.stored.columns.total_cost) is not None]
        return sum(known) if known else None


def build_trace(spans: Sequence[StoredSpan]) -> Trace:
    """The tree of one trace; takes spans in any order, with parents missing, in a circle, or ending before their children.

    A span in a circle of parents stands at the top as an orphan would. A span that has not ended reaches to the end of what is known.

    Raises
    ------
    NotFound
        There are no spans.
    """
    if not spans:
        raise NotFound("the trace has no spans.", where="traces", advice="List what is there with `e2i trace ls`.")
    ordered = sorted(spans, key=lambda each: (each.span.started_ns, -_end(each), each.span.span_id))
    parents, orphans = _parents(ordered)
    children: dict[int | None, list[int]] = defaultdict(list)
    for index, parent in enumerate(parents):
        children[parent].append(index)
    started = ordered[0].span.started_ns
    ended = max(max(_end(each), each.span.started_ns) for each in ordered)
    intervals = [(each.span.started_ns, max(each.span.started_ns, ended if each.span.ended_ns is None else _end(each))) for each in ordered]
    order, depths = _preorder(children)
    critical = _critical_path(children, intervals, whole=(started, ended))
    below, errors = _totals(order, parents, ordered)
    place = {index: position for position, index in enumerate(order)}
    nodes = tuple(
        TraceNode(
            stored=ordered[index],
            parent=None if (parent := parents[index]) is None else place[parent],
            depth=depths[index],
            children=tuple(place[child] for child in children.get(index, ())),
            descendants=below[index],
            errors=errors[index],
            is_orphan=index in orphans,
            self_ns=_self_time(intervals[index], [intervals[child] for child in children.get(index, ())]),
            critical_ns=critical.get(index, 0),
        )
        for index in order
    )
    roots = tuple(place[index] for index in children[None])
    return Trace(trace_id=ordered[0].span.trace_id, nodes=nodes, roots=roots, started_ns=started, ended_ns=ended)


def _end(stored: StoredSpan) -> int:
    return stored.span.started_ns if stored.span.ended_ns is None else stored.span.ended_ns


def _parents(ordered: Sequence[StoredSpan]) -> tuple[list[int | None], set[int]]:
    """The parent's index of each span (None at the top), and which spans at the top are orphans."""
    places: dict[str, int] = {}
    for index, each in enumerate(ordered):
        places.setdefault(each.span.span_id, index)
    parents: list[int | None] = [places.get(each.span.parent_span_id or "") for each in ordered]
    settled = [False] * len(ordered)
    for start in range(len(ordered)):
        walked: list[int] = []
        here: int | None = start
        on_walk: set[int] = set()
        while here is not None and not settled[here]:
            if here in on_walk:
                parents[min(walked[walked.index(here) :])] = None
                break
            walked.append(here)
            on_walk.add(here)
            here = parents[here]
        for index in walked:
            settled[index] = True
    orphans = {i for i, parent in enumerate(parents) if parent is None and ordered[i].span.parent_span_id}
    return parents, orphans


def _preorder(children: dict[int | None, list[int]]) -> tuple[list[int], dict[int, int]]:
    order: list[int] = []
    depths: dict[int, int] = {}
    waiting = [(index, 0) for index in reversed(children[None])]
    while waiting:
        index, depth = waiting.pop()
        order.append(index)
        depths[index] = depth
        waiting += [(child, depth + 1) for child in reversed(children.get(index, ()))]
    return order, depths


def _totals(order: Sequence[int], parents: Sequence[int | None], ordered: Sequence[StoredSpan]) -> tuple[list[int], list[int]]:
    """Per span: how many are below it, and how many errors are in it and below."""
    below = [0] * len(ordered)
    errors = [int(each.columns.status == "error") for each in ordered]
    for index in reversed(order):
        parent = parents[index]
        if parent is not None:
            below[parent] += below[index] + 1
            errors[parent] += errors[index]
    return below, errors


def _self_time(whole: Interval, parts: Sequence[Interval]) -> int:
    """Length of `whole` that no part covers; `parts` come by start and may overlap or reach beyond."""
    start, end = whole
    covered, reached = 0, start
    for low, high in parts:
        low, high = max(low, reached), min(high, end)  # noqa: PLW2901  clipped
        if high > low:
            covered += high - low
            reached = high
    return end - start - covered


def _critical_path(children: dict[int | None, list[int]], intervals: Sequence[Interval], *, whole: Interval) -> dict[int, int]:
    """Time on the critical path per span: what would have to be shorter for the trace to be shorter.

    From the end backwards: before each moment, the span that was waited for is the one that ended last. A span that was still at work
    when the next one began was not waited for. The parts add up to the length of `whole` less the time before and between top-level spans.
    """
    found: dict[int, int] = {}
    waiting: list[tuple[int | None, Interval]] = [(None, whole)]
    while waiting:
        index, (start, end) = waiting.pop()
        own, moment = end - start, end
        for child in sorted(children.get(index, ()), key=lambda each: intervals[each][1], reverse=True):
            low, high = max(intervals[child][0], start), min(intervals[child][1], end)
            if low < high <= moment:
                waiting.append((child, (low, high)))
                own -= high - low
                moment = low
        if index is not None and own > 0:
            found[index] = own
    return found
