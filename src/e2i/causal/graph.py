"""Is the effect identified by the study's causal graph, and by what: back door, front door, or an instrument.

Pearl (1995), "Causal diagrams for empirical research"; conditional instruments after Brito and Pearl (2002), "Generalized instrumental
variables". What is refused is refused with the path in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from e2i.causal.dag import CausalGraph, Path, parse_edges
from e2i.causal.graph_criteria import allowed_columns, front_door, listed, minimal_set, valid_instruments
from e2i.causal.graph_roles import about_roles, require_no_selection, require_roles_of_graph
from e2i.domain.nearest import did_you_mean
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified

__all__ = [
    "AdjustmentCheck",
    "CausalGraph",
    "GraphFault",
    "GraphIdentification",
    "adjustment_by_graph",
    "check_adjustment",
    "identify_by_graph",
    "parse_edges",
]

Kind = Literal["backdoor", "front_door", "iv", "not_identified"]
FaultCode = Literal["role", "unmeasured", "mediator", "post_treatment", "after_outcome", "collider", "open_backdoor", "not_in_graph"]


@dataclass(frozen=True, kw_only=True)
class GraphFault:
    """Why a set of columns may not be adjusted for."""

    code: FaultCode
    variable: str | None
    """the column at fault; None where what is missing is at fault"""
    path: str
    """in words, "calls -> reach -> nrx"; empty where no path is concerned"""
    text: str

    @property
    def is_refused(self) -> bool:
        """False for a column of which the graph says nothing: it is told, not refused."""
        return self.code != "not_in_graph"


@dataclass(frozen=True, kw_only=True)
class AdjustmentCheck:
    """A set of columns against the back-door criterion."""

    adjustment: tuple[str, ...]
    faults: tuple[GraphFault, ...]

    @property
    def is_valid(self) -> bool:
        """Whether holding the set fixed leaves nothing but the effect."""
        return not any(fault.is_refused for fault in self.faults)

    @property
    def open_paths(self) -> tuple[str, ...]:
        """Back-door paths that stay open, in words."""
        return tuple(fault.path for fault in self.faults if fault.code in ("open_backdoor", "collider"))


@dataclass(frozen=True, kw_only=True)
class GraphIdentification:
    """What the graph says about the question."""

    kind: Kind
    adjustment: tuple[str, ...] = ()
    """back door: a minimal valid set; instruments: what must be held fixed"""
    given: AdjustmentCheck | None = None
    """the study's own set, checked"""
    mediators: tuple[str, ...] = ()
    """front door: what carries the effect, and causes of it that confound it"""
    instruments: tuple[str, ...] = ()
    """columns that are valid instruments with `instrument_adjustment`, whatever the kind"""
    instrument_adjustment: tuple[str, ...] = ()
    instruments_refused: tuple[tuple[str, str], ...] = ()
    """(instrument of the study, why not)"""
    open_paths: tuple[str, ...] = ()
    """what stays open when everything that may be adjusted for is"""
    reasons: tuple[str, ...] = ()


def check_adjustment(graph: CausalGraph, treatment: str, outcome: str, adjustment: Iterable[str]) -> AdjustmentCheck:
    """Hold a set of columns against the back-door criterion (Pearl 1995).

    Refused: mediators and whatever else comes after the treatment, what comes after the outcome, colliders that open a path, and sets
    that leave a back-door path open. Every fault shows its path.

    Raises
    ------
    NotIdentified
        Treatment or outcome is not in the graph or not measured, or the outcome causes the treatment.
    """
    graph = _for_question(graph, treatment, outcome)
    names = tuple(dict.fromkeys(adjustment))
    faults = [fault for name in names if (fault := _fault_of(graph, treatment, outcome, name)) is not None]
    # A column that is refused is not held fixed when paths are looked for: it comes out anyway.
    bad = {fault.variable for fault in faults}
    faults += _open_backdoors(graph, treatment, outcome, held=tuple(name for name in names if name not in bad))
    return AdjustmentCheck(adjustment=names, faults=tuple(faults))


def identify_by_graph(
    graph: CausalGraph, treatment: str, outcome: str, *, adjustment: Iterable[str] | None = None, instruments: Sequence[str] = ()
) -> GraphIdentification:
    """How the graph lets the effect be identified: back door first, then front door, then instruments.

    Parameters
    ----------
    adjustment : the study's own confounders; they are checked, and held fixed for its instruments
    instruments : the study's own; without them every column is tried

    Raises
    ------
    NotIdentified
        Treatment or outcome is not in the graph or not measured, or the outcome causes the treatment.
    """
    asked = _for_question(graph, treatment, outcome)
    given = None if adjustment is None else check_adjustment(graph, treatment, outcome, adjustment)
    reasons = list(_about_question(graph, treatment, outcome))
    backdoor = minimal_set(asked, treatment, outcome)
    found, held, refused = valid_instruments(
        asked, treatment, outcome, named=tuple(instruments), given=given.adjustment if given is not None else None
    )
    record = GraphIdentification(
        kind="not_identified", given=given, instruments=found, instrument_adjustment=held, instruments_refused=refused
    )
    if backdoor is not None:
        reasons.append(f"back door: {listed(backdoor) or 'nothing'} must be held fixed.")
        return replace(record, kind="backdoor", adjustment=backdoor, reasons=tuple(reasons))
    paths = _all_that_stays_open(asked, treatment, outcome)
    reasons.append(f"no back-door set: `{paths[0]}` stays open whatever measured column is held fixed.")
    mediators = front_door(asked, treatment, outcome)
    if mediators is not None:
        reasons.append(f"front door: the whole effect passes {listed(mediators)}, which no open path confounds.")
        return replace(record, kind="front_door", mediators=mediators, open_paths=paths, reasons=tuple(reasons))
    reasons.append("no front door: no measured mediators carry the whole effect unconfounded.")
    if found:
        reasons.append(f"instrument: {listed(found)} moves the treatment and reaches the outcome through it only.")
        return replace(record, kind="iv", adjustment=held, open_paths=paths, reasons=tuple(reasons))
    reasons.append("no instrument: no measured column moves the treatment and reaches the outcome through it only.")
    return replace(record, open_paths=paths, reasons=tuple(reasons))


def adjustment_by_graph(
    effect: EffectSpec, *, observed: Iterable[str], design: str, selected: Iterable[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The study's adjustment set checked against its graph, or found there when the study names none; with what the graph says.

    A cross-section needs every back door closed. The other designs remove unmeasured causes by themselves (an instrument, the unit's own
    past), so only columns that come after treatment or outcome are refused; instruments must be valid in the graph.

    Parameters
    ----------
    observed : columns of the data
    selected : columns that have one value in the data

    Raises
    ------
    NotIdentified
        With the path at fault and what would do instead.
    ConfigError
        An edge cannot be read.
    """
    graph = parse_edges(effect.edges, columns=observed)
    named = tuple(dict.fromkeys((*effect.confounders, *effect.modifiers)))
    found = identify_by_graph(graph, effect.treatment, effect.outcome, adjustment=named or None, instruments=effect.instruments)
    asked = _for_question(graph, effect.treatment, effect.outcome)
    require_roles_of_graph(asked, effect)
    needs_backdoor = design in ("cross_section", "matched")
    adjustment = named
    if needs_backdoor and not effect.confounders and found.kind == "backdoor":
        adjustment = tuple(dict.fromkeys((*found.adjustment, *effect.modifiers)))
    elif design == "iv" and not named:
        adjustment = found.instrument_adjustment
    check = check_adjustment(graph, effect.treatment, effect.outcome, adjustment)
    faults = [fault for fault in check.faults if fault.is_refused and (needs_backdoor or fault.code not in ("open_backdoor", "collider"))]
    if faults:
        raise NotIdentified(" ".join(fault.text for fault in faults), where="effect.edges", advice=_way_out(found, asked, effect))
    if design == "iv" and found.instruments_refused:
        refused = " ".join(reason for _, reason in found.instruments_refused)
        raise NotIdentified(refused, where="effect.instruments", advice=_way_out(found, asked, effect))
    if needs_backdoor:
        require_no_selection(asked, effect, adjustment, selected)
    silent = (
        *(fault.text for fault in check.faults if not fault.is_refused),
        *(f"graph: {text}" for text in about_roles(asked, effect, adjustment, design=design)),
    )
    return adjustment, (*(f"graph: {reason}" for reason in found.reasons), *silent)


def front_door_of(effect: EffectSpec, *, observed: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The mediators of a front door with what the graph says; none where a back-door set exists or no front door does.

    Raises as `adjustment_by_graph`.
    """
    graph = parse_edges(effect.edges, columns=observed)
    found = identify_by_graph(graph, effect.treatment, effect.outcome)
    if found.kind != "front_door":
        return (), ()
    require_roles_of_graph(_for_question(graph, effect.treatment, effect.outcome), effect)
    return found.mediators, tuple(f"graph: {reason}" for reason in found.reasons)


def _way_out(found: GraphIdentification, graph: CausalGraph, effect: EffectSpec) -> str:
    if found.kind == "backdoor":
        return f"Adjust for {listed(found.adjustment) or 'nothing'} instead."
    if found.instruments:
        return f"Use design `iv` with {listed(found.instruments)} as instrument."
    if found.kind == "front_door":
        return f"Leave `confounders`, `estimand` and `weights` out: a 0/1 treatment is then estimated through {listed(found.mediators)}."
    return _what_to_measure(graph, effect)


def _what_to_measure(graph: CausalGraph, effect: EffectSpec) -> str:
    """The named nodes that are no columns and would close every back door, with the columns whose names they resemble."""
    measurable = replace(graph, observed=frozenset(graph.nodes) - graph.latents)
    closing = minimal_set(measurable, effect.treatment, effect.outcome)
    missing = tuple(name for name in closing or () if name not in graph.observed)
    if not missing:
        return "Measure a column on the path, or find an instrument."
    hints = " ".join(note for note in graph.notes if any(note.startswith(f"`{name}` of the graph") for name in missing))
    return f"{hints} Measure {listed(missing)} and adjust for {listed(closing or ())}, or find an instrument.".strip()


def _for_question(graph: CausalGraph, treatment: str, outcome: str) -> CausalGraph:
    """The graph with an arrow from treatment to outcome where it has no path: the arrow is what is asked about."""
    for role, name in (("treatment", treatment), ("outcome", outcome)):
        if name not in graph.nodes or name in graph.latents:
            advice = did_you_mean(name, graph.nodes) or "Add its causes and effects to `edges`."
            raise NotIdentified(f"the {role} `{name}` is not in the graph.", where="effect.edges", advice=advice)
        if name not in graph.observed:
            raise NotIdentified(f"the {role} `{name}` of the graph is not a column.", where="effect.edges", advice="Name the column.")
    backwards = graph.directed_path(outcome, treatment)
    if backwards is not None:
        raise NotIdentified(
            f"in the graph the outcome causes the treatment: {graph.in_words(backwards)}.",
            where="effect.edges",
            advice="Use the outcome before treatment as a column of its own, or turn the arrow round.",
        )
    if graph.directed_path(treatment, outcome) is None:
        return replace(graph, arrows=(*graph.arrows, (treatment, outcome)))
    return graph


def _about_question(graph: CausalGraph, treatment: str, outcome: str) -> tuple[str, ...]:
    if graph.directed_path(treatment, outcome) is None:
        return (*graph.notes, f"the graph has no path from `{treatment}` to `{outcome}`; the arrow between them is taken as the question.")
    return graph.notes


def _fault_of(graph: CausalGraph, treatment: str, outcome: str, name: str) -> GraphFault | None:
    """What forbids one column by itself."""
    if name in (treatment, outcome):
        role = "treatment" if name == treatment else "outcome"
        return GraphFault(code="role", variable=name, path="", text=f"`{name}` is the {role} and cannot be adjusted for.")
    if name not in graph.nodes:
        text = f"`{name}` is adjusted for, and the graph does not say what it causes or what causes it."
        return GraphFault(code="not_in_graph", variable=name, path="", text=text)
    if name not in graph.observed:
        return GraphFault(code="unmeasured", variable=name, path="", text=f"`{name}` is not a column and cannot be adjusted for.")
    return _fault_of_place(graph, treatment, outcome, name)


def _fault_of_place(graph: CausalGraph, treatment: str, outcome: str, name: str) -> GraphFault | None:
    """What forbids a column because it comes after the treatment or the outcome."""
    after, late = graph.directed_path(treatment, name), graph.directed_path(outcome, name)
    onward = graph.directed_path(name, outcome)
    code: FaultCode
    if after is not None and onward is not None:
        code, path, why = "mediator", (*after, *onward[1:]), "lies on the path from treatment to outcome"
    elif late is not None:
        code, path, why = "after_outcome", late, "is an effect of the outcome"
    elif after is not None:
        code, path, why = "post_treatment", after, "is an effect of the treatment"
    else:
        return None
    words = graph.in_words(path)
    return GraphFault(code=code, variable=name, path=words, text=f"{words}: `{name}` {why}.")


def _open_backdoors(graph: CausalGraph, treatment: str, outcome: str, *, held: tuple[str, ...]) -> list[GraphFault]:
    """One shortest open path for each cause of the treatment that has one."""
    cut, faults = graph.without_arrows_from(treatment), []
    for parent in graph.parents[treatment]:
        path = cut.open_path(treatment, outcome, held, first=parent)
        if path is None:
            continue
        words, opener = graph.in_words(path), _opener(graph, path, held)
        if opener is None:
            text = f"{words}: this path stays open, so the estimate would mix the effect with it."
            faults.append(GraphFault(code="open_backdoor", variable=None, path=words, text=text))
        else:
            collider, column = opener
            why = f"`{column}` is a collider" if collider == column else f"`{column}` is an effect of the collider `{collider}`"
            text = f"{words}: {why} on this path, and holding it fixed opens the path."
            faults.append(GraphFault(code="collider", variable=column, path=words, text=text))
    return faults


def _opener(graph: CausalGraph, path: Path, held: tuple[str, ...]) -> tuple[str, str] | None:
    """(collider on the path, column held fixed that opens it); None where the path is open by nature."""
    for collider in graph.colliders(path):
        below = graph.descendants(collider)
        return collider, collider if collider in held else next(name for name in held if name in below)
    return None


def _all_that_stays_open(graph: CausalGraph, treatment: str, outcome: str) -> tuple[str, ...]:
    """Back-door paths that stay open when all ancestors that may be adjusted for are held fixed, in words."""
    held = allowed_columns(graph, treatment, outcome) & graph.ancestors(treatment, outcome)
    return tuple(fault.path for fault in _open_backdoors(graph, treatment, outcome, held=tuple(sorted(held))))
