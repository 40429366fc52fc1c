"""Do the study's other roles agree with its causal graph: controls, earlier outcomes, columns that close no path."""

from __future__ import annotations

from collections.abc import Iterable

from e2i.causal.dag import CausalGraph
from e2i.causal.graph_criteria import listed
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified


def require_roles_of_graph(graph: CausalGraph, effect: EffectSpec) -> None:
    """Controls and earlier outcomes are what the graph says that they are.

    Parameters
    ----------
    graph : with the path that the study asks about

    Raises
    ------
    NotIdentified
        The treatment causes a negative control or an earlier outcome, or a negative exposure causes the outcome; with the path.
    """
    treatment, outcome = effect.treatment, effect.outcome
    past = graph.without_arrows_from(treatment)
    asked = [("negative_controls", name, graph.directed_path(treatment, name)) for name in effect.negative_controls]
    asked += [("pre_outcomes", name, graph.directed_path(treatment, name)) for name in effect.pre_outcomes]
    asked += [("negative_exposures", name, past.directed_path(name, outcome)) for name in effect.negative_exposures]
    for role, name, path in asked:
        if path is None or name not in graph.nodes:
            continue
        why = f"it moves the outcome past `{treatment}`" if role == "negative_exposures" else "the treatment moves it"
        raise NotIdentified(
            f"{graph.in_words(path)}: in the graph {why}, so `{name}` cannot stand in `{role}`.",
            where=f"effect.{role}",
            advice=f"Take `{name}` out of `{role}`, or correct the arrow.",
        )


def require_no_selection(graph: CausalGraph, effect: EffectSpec, adjustment: Iterable[str], selected: Iterable[str]) -> None:
    """Nodes that are constant in the data were selected on: they are held fixed, whether or not anybody adjusts for them.

    Parameters
    ----------
    graph : with the path that the study asks about
    selected : columns with one value

    Raises
    ------
    NotIdentified
        The selection comes after the outcome, between treatment and outcome, or opens a path; with the path.
    """
    treatment, outcome, held = effect.treatment, effect.outcome, tuple(adjustment)
    past = graph.without_arrows_from(treatment)
    for name in selected:
        if name not in graph.nodes or name in (treatment, outcome):
            continue
        path = graph.directed_path(outcome, name)
        if path is None and (after := graph.directed_path(treatment, name)) is not None:
            onward = graph.open_path(name, outcome, (treatment, *held))
            path = (*after, *onward[1:]) if onward is not None else None
        if path is None and past.open_path(treatment, outcome, held) is None:
            path = past.open_path(treatment, outcome, (*held, name))
        if path is None:
            continue
        raise NotIdentified(
            f"{graph.in_words(path)}: `{name}` has one value in these rows, so they were selected on it, which opens or cuts this path.",
            where="effect.edges",
            advice=f"Use rows with every value of `{name}`, or adjust for what lies on the path.",
        )


def about_roles(graph: CausalGraph, effect: EffectSpec, adjustment: Iterable[str], *, design: str) -> tuple[str, ...]:
    """What the graph says of columns that the estimate could do without, and of controls that something else moves."""
    held = tuple(adjustment)
    notes = [_about_idle(graph, effect, name) for name in held if name in graph.nodes and name not in effect.modifiers]
    if design in ("cross_section", "matched"):
        notes += [_about_control(graph, effect, name, held) for name in (*effect.negative_controls, *effect.pre_outcomes)]
    return tuple(note for note in notes if note)


def _about_idle(graph: CausalGraph, effect: EffectSpec, name: str) -> str:
    """A column that moves the treatment alone, or neither; adjusting for it closes nothing."""
    past = graph.without_arrows_from(effect.treatment)
    if past.directed_path(name, effect.outcome) is not None or past.open_path(name, effect.outcome) is not None:
        return ""
    if graph.directed_path(name, effect.treatment) is not None:
        return f"`{name}` is adjusted for, and in the graph moves the treatment only: it closes no path and costs precision."
    return f"`{name}` is adjusted for, and in the graph has to do with neither treatment nor outcome."


def _about_control(graph: CausalGraph, effect: EffectSpec, name: str, held: tuple[str, ...]) -> str:
    """A control that the graph itself lets move with treatment, though the adjustment is valid."""
    if name not in graph.nodes or name in held:
        return ""
    path = graph.without_arrows_from(effect.treatment).open_path(effect.treatment, name, held)
    if path is None:
        return ""
    words = graph.in_words(path)
    closing = [node for node in path[1:-1] if node in graph.observed]
    advice = f" Adjust for {listed(closing[:1])} too, or leave `{name}` out." if closing else f" Leave `{name}` out."
    return f"{words}: `{name}` moves with treatment along this path, which says nothing against the estimate.{advice}"
