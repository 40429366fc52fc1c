"""What is shown of a large trace where a line is dear: alike siblings become one line, and the deepest levels wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from e2i.app.traces import Trace

LARGEST_FAMILY = 40
"""siblings of different names beyond this become one line as well"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Siblings in one line. Durations in ms, of those that have ended; None when none has."""

    name: str | None
    """None: siblings of several names"""
    siblings: int
    spans: int
    """with all below them"""
    errors: int
    shortest_ms: float | None
    longest_ms: float | None
    total_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: a span, a fold, or (both None) the mark above spans whose parent is not here."""

    depth: int
    node: int | None = None
    fold: Fold | None = None
    hidden: int = 0
    """spans below that have no line"""


def rows_of(trace: Trace, *, alike: int | None = 5, limit: int = 300) -> list[Row]:
    """The lines of a trace, from top to bottom.

    Parameters
    ----------
    alike : siblings of one name that get a line of their own, those with an error first, then the longest; None: every span has a line
    limit : lines beyond which the deepest levels are left out; has no effect when every span has a line
    """
    orphans = set(trace.orphans)
    tops = [(index, 0) for index in trace.roots if index not in orphans]
    rows: list[Row] = []
    for family, depth in ([index for index, _ in tops], 0), (sorted(orphans), 1):
        if depth == 1 and family:
            rows.append(Row(depth=0))
        waiting: list[Row] = list(reversed(_family(trace, family, depth=depth, alike=alike)))
        while waiting:
            row = waiting.pop()
            rows.append(row)
            if row.node is not None:
                waiting += reversed(_family(trace, trace.nodes[row.node].children, depth=row.depth + 1, alike=alike))
    return rows if alike is None or len(rows) <= limit else _shallow(trace, rows, limit)


def _family(trace: Trace, siblings: Sequence[int], *, depth: int, alike: int | None) -> list[Row]:
    if alike is None or len(siblings) <= alike:
        return [Row(depth=depth, node=index) for index in siblings]
    names = [trace.nodes[index].stored.span.name for index in siblings]
    counts = Counter(names)
    many = {name for name, count in counts.items() if count > alike + 1}  # a fold of one would save no line
    kept: set[int] = set()
    folded: dict[str, list[int]] = {}
    for name in many:
        members = [index for index, own in zip(siblings, names, strict=True) if own == name] if len(many) < LARGEST_FAMILY else []
        chosen = set(_telling(trace, members, alike))
        kept |= chosen
        folded[name] = [index for index in members if index not in chosen]
    kept |= {index for index, name in zip(siblings, names, strict=True) if name not in many}
    others: list[int] = []
    if len(kept) + len(many) > LARGEST_FAMILY:
        few = set(_telling(trace, list(siblings), LARGEST_FAMILY))
        others, kept, folded = [index for index in siblings if index not in few], few, {}
    rows = [Row(depth=depth, node=index) for index in siblings if index in kept]
    rows += [Row(depth=depth, fold=_fold(trace, members, name=name)) for name, members in folded.items()]
    return rows if not others else [*rows, Row(depth=depth, fold=_fold(trace, others, name=None))]


def _telling(trace: Trace, members: Sequence[int], count: int) -> list[int]:
    """Those with an error in or below them, then the longest."""

    def weight(index: int) -> tuple[bool, float]:
        node = trace.nodes[index]
        return node.errors > 0, node.stored.span.duration_ms or 0.0

    return sorted(members, key=weight, reverse=True)[:count]


def _fold(trace: Trace, members: Iterable[int], *, name: str | None) -> Fold:
    nodes = [trace.nodes[index] for index in members]
    lengths = [length for node in nodes if (length := node.stored.span.duration_ms) is not None]
    return Fold(
        name=name,
        siblings=len(nodes),
        spans=sum(node.descendants + 1 for node in nodes),
        errors=sum(node.errors for node in nodes),
        shortest_ms=min(lengths, default=None),
        longest_ms=max(lengths, default=None),
        total_ms=sum(lengths) if lengths else None,
    )


def _shallow(trace: Trace, rows: Sequence[Row], limit: int) -> list[Row]:
    """As many whole levels as fit; a span above the cut says how many are below it."""
    per_depth = Counter(row.depth for row in rows)
    levels = sum(total <= limit for total in accumulate(per_depth[depth] for depth in range(max(per_depth) + 1)))
    deepest = max(levels - 1, 1 if trace.orphans else 0)
    return [
        Row(depth=row.depth, node=row.node, fold=row.fold, hidden=trace.nodes[row.node].descendants)
        if row.depth == deepest and row.node is not None
        else row
        for row in rows
        if row.depth <= deepest
    ]
