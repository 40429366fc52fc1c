"""Criteria on a causal graph: which columns close every back door, make a front door, or are instruments.

Pearl (1995), "Causal diagrams for empirical research"; conditional instruments after Brito and Pearl (2002), "Generalized instrumental
variables".
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING

from e2i.causal.dag import CausalGraph

if TYPE_CHECKING:
    import networkx as nx

_MOST_MEDIATORS = 3
_MOST_CANDIDATES = 20


def allowed_columns(graph: CausalGraph, treatment: str, outcome: str) -> frozenset[str]:
    """Columns that come neither after the treatment nor after the outcome."""
    return graph.observed - graph.descendants(treatment, outcome) - {treatment, outcome}


def minimal_set(graph: CausalGraph, treatment: str, outcome: str) -> tuple[str, ...] | None:
    """A back-door set from which no column can be left out, in alphabetical order; None where there is none."""
    import networkx as nx

    cut = graph.without_arrows_from(treatment)
    found = nx.find_minimal_d_separator(cut.network(), treatment, outcome, restricted=set(allowed_columns(graph, treatment, outcome)))
    return None if found is None else tuple(sorted(found))


def front_door(graph: CausalGraph, treatment: str, outcome: str) -> tuple[str, ...] | None:
    """Few columns that meet Pearl's three conditions: mediators (three, or all), with causes of theirs where those confound them."""
    if graph.directed_path(treatment, outcome) == (treatment, outcome):
        return None  # an arrow of its own bypasses every mediator
    cut, after = graph.without_arrows_from(treatment), graph.descendants(treatment)
    upstream = sorted(graph.observed & graph.ancestors(outcome) - {treatment})
    clean = [node for node in upstream if cut.open_path(treatment, node) is None]
    candidates, causes = [node for node in clean if node in after], tuple(node for node in clean if node not in after)
    sets = [chosen for size in range(1, _MOST_MEDIATORS + 1) for chosen in combinations(candidates[:_MOST_CANDIDATES], size)]
    for mediators in (*sets, tuple(candidates)):
        if _carries_all(graph, treatment, outcome, mediators):
            found = _unconfounded(graph, treatment, outcome, mediators, causes)
            if found is not None:
                return found
    return None


def _unconfounded(
    graph: CausalGraph, treatment: str, outcome: str, mediators: tuple[str, ...], causes: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The mediators with the fewest of the causes such that the treatment blocks all their back doors; None where no causes do."""

    def confounded(chosen: tuple[str, ...]) -> list[str]:
        quiet = graph.without_arrows_from(*chosen)
        return [node for node in chosen if quiet.open_path(node, outcome, (treatment,)) is not None]

    kept = causes
    while (bad := set(confounded((*mediators, *kept)))) and not bad & set(mediators):
        kept = tuple(node for node in kept if node not in bad)
    if bad:
        return None
    for node in causes:
        fewer = tuple(other for other in kept if other != node)
        if not confounded((*mediators, *fewer)):
            kept = fewer
    return (*mediators, *kept)


def _carries_all(graph: CausalGraph, treatment: str, outcome: str, mediators: tuple[str, ...]) -> bool:
    """Whether every directed path from treatment to outcome passes a mediator."""
    return outcome not in graph.without_arrows_from(*mediators).descendants(treatment)


def valid_instruments(
    graph: CausalGraph, treatment: str, outcome: str, *, named: tuple[str, ...], given: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Valid instruments that share one adjustment set, that set, and the named ones that are refused with their reason."""
    allowed = allowed_columns(graph, treatment, outcome)
    cut = graph.without_arrows_from(treatment)
    held = tuple(name for name in (given or ()) if name in allowed and name not in named)
    candidates = named or tuple(sorted(allowed - set(held)))

    def judged(names: Iterable[str], held: tuple[str, ...]) -> dict[str, str | None]:
        return {name: _why_no_instrument(graph, cut, name, ends=(treatment, outcome), held=held) for name in names if name not in held}

    found = judged(candidates, held)
    if given is None and (any(found.values()) if named else all(found.values())):
        network = cut.network()
        moving = [name for name in candidates if name in allowed and graph.open_path(name, treatment) is not None]
        for group in (tuple(moving), *((name,) for name in moving)) if named else ((name,) for name in moving):
            other = _separator(network, group, outcome, allowed) if group else None
            if other is not None and not any(judged(group, other).values()):
                held, found = other, judged(candidates, other)
                break
    refused = tuple((name, reason) for name, reason in found.items() if reason is not None and name in named)
    return _valid(found), held, refused


def _valid(judged: dict[str, str | None]) -> tuple[str, ...]:
    return tuple(name for name, reason in judged.items() if reason is None)


def _separator(cut: nx.DiGraph, instruments: tuple[str, ...], outcome: str, allowed: frozenset[str]) -> tuple[str, ...] | None:
    """A minimal set that keeps instruments from the outcome once the treatment causes nothing."""
    import networkx as nx

    found = nx.find_minimal_d_separator(cut, set(instruments), {outcome}, restricted=set(allowed.difference(instruments)))
    return None if found is None else tuple(sorted(found))


def _why_no_instrument(graph: CausalGraph, cut: CausalGraph, name: str, *, ends: tuple[str, str], held: tuple[str, ...]) -> str | None:
    """The reason against an instrument given what is held fixed; None where it is valid.

    Parameters
    ----------
    cut : the graph in which the treatment causes nothing
    ends : treatment, outcome
    """
    treatment, outcome = ends
    if name not in graph.observed or name in ends:
        return f"`{name}` is not a column of its own in the graph."
    late = next((path for end in ends if (path := graph.directed_path(end, name)) is not None), None)
    if late is not None:
        return f"{graph.in_words(late)}: `{name}` is an effect of `{late[0]}`."
    past = cut.open_path(name, outcome, held)
    if past is not None:
        return f"{graph.in_words(past)}: `{name}` reaches the outcome past the treatment{_given(held)}."
    if graph.open_path(name, treatment, held) is None:
        return f"`{name}` is not associated with the treatment{_given(held)}."
    return None


def _given(held: tuple[str, ...]) -> str:
    return f" when {listed(held)} is held fixed" if held else ""


def listed(names: Iterable[str]) -> str:
    """Names as people read them in a message."""
    return ", ".join(f"`{name}`" for name in names)
