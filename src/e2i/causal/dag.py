"""The study's causal graph: from "cause -> effect" to nodes, arrows and open paths in words.

d-separation is Pearl's (2009, "Causality", section 1.2.3). A path is found by a search over (node, direction), linear in the graph.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from e2i.domain.nearest import nearest
from e2i.errors import ConfigError, NotIdentified

if TYPE_CHECKING:
    import networkx as nx

_ARROW = re.compile(r"\s*(<->|->|<-|→|←|↔)\s*")
_PLAIN = {"→": "->", "←": "<-", "↔": "<->"}
_FORMS = 'Write "cause -> effect", a chain "a -> b -> c", or "a <-> b" for a common cause that was not measured.'
_FORBIDDEN = re.compile(r"[<>;,{}\[\]\n]|--|=>|^-|-$")
_UP, _DOWN = 0, 1

Path = tuple[str, ...]
"""nodes from one end to the other; every two neighbours share an arrow"""


@dataclass(frozen=True, kw_only=True)
class CausalGraph:
    """A directed acyclic graph over columns and unmeasured causes."""

    nodes: tuple[str, ...]
    """in the order of first mention"""
    arrows: tuple[tuple[str, str], ...]
    """(cause, effect), in the order given; a hidden common cause from `<->` stands as a node of its own"""
    observed: frozenset[str]
    """nodes that are columns"""
    latents: frozenset[str] = frozenset()
    """nodes that stand for `<->`"""
    notes: tuple[str, ...] = ()

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """Direct causes of each node, in the order given."""
        out: dict[str, list[str]] = {node: [] for node in self.nodes}
        for cause, effect in self.arrows:
            out[effect].append(cause)
        return {node: tuple(found) for node, found in out.items()}

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """Direct effects of each node, in the order given."""
        out: dict[str, list[str]] = {node: [] for node in self.nodes}
        for cause, effect in self.arrows:
            out[cause].append(effect)
        return {node: tuple(found) for node, found in out.items()}

    def network(self) -> nx.DiGraph:
        """The graph for networkx."""
        import networkx as nx

        network = nx.DiGraph(self.arrows)
        network.add_nodes_from(self.nodes)
        return network

    def descendants(self, *nodes: str) -> frozenset[str]:
        """Everything that the nodes cause, themselves left out unless another of them causes them."""
        return _reached(nodes, self.children)

    def ancestors(self, *nodes: str) -> frozenset[str]:
        """Everything that causes the nodes, themselves left out unless they cause another of them."""
        return _reached(nodes, self.parents)

    def without_arrows_from(self, *nodes: str) -> CausalGraph:
        """The graph in which the nodes cause nothing; every node stays."""
        return replace(self, arrows=tuple(arrow for arrow in self.arrows if arrow[0] not in nodes))

    def directed_path(self, start: str, end: str) -> Path | None:
        """A shortest chain of causes from `start` to `end`."""
        before: dict[str, str] = {}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            for child in self.children[node]:
                if child in before or child == start:
                    continue
                before[child] = node
                if child == end:
                    return _trace(before, start, end)
                queue.append(child)
        return None

    def open_path(self, start: str, end: str, given: Iterable[str] = (), *, first: str | None = None) -> Path | None:
        """A shortest path along which `start` and `end` stay associated when `given` are held fixed; None: d-separated.

        Parameters
        ----------
        first : only paths that begin with this neighbour of `start`
        """
        held = frozenset(given) & frozenset(self.nodes)
        opened = held | self.ancestors(*held)
        begun = [(child, _DOWN) for child in self.children[start]] + [(parent, _UP) for parent in self.parents[start]]
        before: dict[tuple[str, int], tuple[str, int] | None] = {state: None for state in begun if first in (None, state[0])}
        queue = deque(before)
        while queue:
            node, heading = queue.popleft()
            if node == end:
                return (start, *_trace_states(before, (node, heading)))
            for state in self._onward(node, heading, held=held, opened=opened):
                if state not in before and state[0] != start:
                    before[state] = (node, heading)
                    queue.append(state)
        return None

    def _onward(self, node: str, heading: int, *, held: frozenset[str], opened: frozenset[str]) -> list[tuple[str, int]]:
        """Where association flows on: through a chain or fork unless it is held, through a collider if it or its effect is held."""
        onward = []
        if node not in held:
            onward += [(child, _DOWN) for child in self.children[node]]
            if heading == _UP:
                onward += [(parent, _UP) for parent in self.parents[node]]
        if heading == _DOWN and node in opened:
            onward += [(parent, _UP) for parent in self.parents[node]]
        return onward

    def colliders(self, path: Path) -> tuple[str, ...]:
        """Inner nodes of a path at which two arrows meet."""
        triples = zip(path, path[1:], path[2:], strict=False)
        return tuple(node for left, node, right in triples if left in self.parents[node] and right in self.parents[node])

    def in_words(self, path: Path) -> str:
        """The path with its arrows, "calls <- decile -> nrx"; an unmeasured common cause shows as "<->"."""
        words = [path[0]]
        for left, right in pairwise(path):
            if right in self.latents:
                continue
            arrow = "<->" if left in self.latents else "->" if left in self.parents[right] else "<-"
            words += [arrow, right]
        return " ".join(words)


def parse_edges(edges: Sequence[str], *, columns: Iterable[str]) -> CausalGraph:
    """Read the study's edges.

    Parameters
    ----------
    edges : "a -> b", "a <- b", chains of both, "a <-> b" for an unmeasured common cause; a column alone causes nothing and has no cause
    columns : of the data; a node that is none of them counts as unmeasured

    Raises
    ------
    ConfigError
        An edge cannot be read, or its ends are the same.
    NotIdentified
        The arrows form a cycle, which is named.
    """
    arrows: dict[tuple[str, str], None] = {}
    latents: dict[str, None] = {}
    known = tuple(columns)
    alone = tuple(name for text in edges if (name := _bare(text)) in known and not _ARROW.search(text))
    for text in edges:
        for left, arrow, right in () if _bare(text) in alone else _links(text):
            if arrow == "<->":
                hidden = f"{min(left, right)} <-> {max(left, right)}"
                latents[hidden] = None
                arrows |= {(hidden, left): None, (hidden, right): None}
            else:
                arrows[(left, right) if arrow == "->" else (right, left)] = None
    if not arrows:
        raise ConfigError("no edge is given.", where="effect.edges", advice=_FORMS)
    nodes = tuple(dict.fromkeys((*(node for pair in arrows for node in pair), *alone)))
    graph = CausalGraph(
        nodes=nodes,
        arrows=tuple(arrows),
        observed=(frozenset(nodes) & frozenset(known)) - frozenset(latents),
        latents=frozenset(latents),
        notes=_about_unmeasured([node for node in nodes if node not in latents], known),
    )
    _refuse_cycle(graph)
    return graph


def _links(text: str) -> list[tuple[str, str, str]]:
    """(left, arrow, right) of each arrow in a chain."""
    where = f"effect.edges, `{text}`"
    parts = _ARROW.split(text.strip())
    if len(parts) < 3:
        raise ConfigError("there is no arrow.", where=where, advice=_FORMS)
    names = [_bare(part) for part in parts[::2]]
    arrows = [_PLAIN.get(part, part) for part in parts[1::2]]
    for name in names:
        if not name:
            raise ConfigError("an arrow has nothing at one end.", where=where, advice=_FORMS)
        if _FORBIDDEN.search(name):
            raise ConfigError(f"`{name}` is not one name.", where=where, advice=f"Give each arrow its own entry. {_FORMS}")
    links = list(zip(names, arrows, names[1:], strict=False))
    for left, _, right in links:
        if left == right:
            raise ConfigError(f"`{left}` points at itself.", where=where, advice=f"A cause and its effect are two columns. {_FORMS}")
    return links


def _bare(name: str) -> str:
    return name.strip().strip("`'\"").strip()


def _about_unmeasured(nodes: list[str], columns: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    for node in nodes:
        if node not in columns:
            # A cause that nobody measured is no typo: only a name that is nearly a column's gets a hint.
            near = nearest(node, columns, is_typo=True)
            hint = f" Did you mean `{near}`?" if near else ""
            notes.append(f"`{node}` of the graph is not a column and counts as unmeasured.{hint}")
    return tuple(notes)


def _refuse_cycle(graph: CausalGraph) -> None:
    import networkx as nx

    network = graph.network()
    if nx.is_directed_acyclic_graph(network):
        return
    cycle = [edge[0] for edge in nx.find_cycle(network)]
    raise NotIdentified(
        f"the arrows form a cycle: {' -> '.join([*cycle, cycle[0]])}.",
        where="effect.edges",
        advice="A cause comes before its effect: split a column into its value before and after, or take out one arrow.",
    )


def _reached(start: Iterable[str], onward: dict[str, tuple[str, ...]]) -> frozenset[str]:
    seen: set[str] = set()
    stack = list(start)
    while stack:
        for node in onward[stack.pop()]:
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return frozenset(seen)


def _trace(before: dict[str, str], start: str, end: str) -> Path:
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    return tuple(reversed(path))


def _trace_states(before: dict[tuple[str, int], tuple[str, int] | None], state: tuple[str, int]) -> Path:
    path: list[str] = []
    at: tuple[str, int] | None = state
    while at is not None:
        path.append(at[0])
        at = before[at]
    return tuple(reversed(path))
