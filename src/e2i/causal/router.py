"""From roles and the shape of the data to a design: which one, why, and why not the others. Deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from e2i.causal.design import Identification, require_roles
from e2i.causal.shape import Shape, measure_shape
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified

MINIMUM_DONORS = 5
MINIMUM_PRE_PERIODS = 5
_FEW_TREATED = 2
_NOTHING_BEFORE = (
    "every treated unit is treated from its first period on: there is nothing before it; where the column marks who is treated and not "
    "when, name the column of first treated periods as `cohort`."
)
_CROSS = ("cross_section", "matched", "iv")
_PANEL = ("did", "synthetic_control", "synthetic_did", "interrupted_time_series")
_AVERAGES = {
    "cross_section": ("ATE", "ATT", "ATO"),
    "matched": ("ATT",),
    "iv": ("LATE",),
    "did": ("ATT",),
    "synthetic_control": ("ATT",),
    "synthetic_did": ("ATT",),
    "interrupted_time_series": ("ATT",),
}


def identify(effect: EffectSpec, frame: pl.DataFrame, *, unit: str | None = None, time: str | None = None) -> Identification:
    """Choose design, estimand and adjustment set from roles and data; refuse what cannot be answered.

    Raises
    ------
    NotIdentified
        No design answers the question, the one asked for does not fit, or a role contradicts another.
    SchemaMismatch
        A named column is not there, or treatment or outcome is not coded as numbers.
    NoVariation
        The treatment is constant.
    """
    require_roles(effect, frame.columns, unit=unit, time=time)
    shape = measure_shape(frame, effect, unit=unit, time=time)
    design, reasons, refused = _choose(effect, shape, unit=unit, time=time)
    # Arms of one row per unit are compared within strata; elsewhere strata are adjusted for.
    beside = () if design == "cross_section" else effect.randomised_within
    if design in _PANEL:
        _require_names(frame, beside)
    adjustment = tuple(dict.fromkeys((*effect.confounders, *effect.modifiers, *beside)))
    found = Identification(
        design=design,
        estimand=_estimand(effect, design, shape),
        treatment=effect.treatment,
        outcome=effect.outcome,
        adjustment=adjustment,
        treatment_kind=shape.treatment_kind,
        outcome_kind=shape.outcome_kind,
        unit=unit,
        time=time if design in _PANEL else None,
        cohort=effect.cohort,
        modifiers=effect.modifiers,
        instruments=effect.instruments,
        negative_controls=tuple(dict.fromkeys(effect.negative_controls)),
        negative_exposures=tuple(dict.fromkeys(effect.negative_exposures)),
        pre_outcomes=effect.pre_outcomes,
        cluster=effect.cluster,
        place=effect.place,
        weights=effect.weights,
        reference=effect.reference,
        anticipation=effect.anticipation,
        is_randomised=effect.randomised,
        drawn_within=effect.randomised_within,
        is_repeated_cross_section=shape.is_repeated and design == "did",
        override=effect.override,
        reasons=reasons,
        refused=refused,
        notes=(*_notes(effect, design, time, columns=frame.columns), *_notes_on_groups(shape, unit)),
    )
    found = _with_graph(found, effect, frame)
    if design == "matched" and effect.randomised:
        raise NotIdentified(
            "chance assigned treatment, so nothing needs to be matched.",
            where="effect.design",
            advice="Use `design: cross_section` with `randomised: true`, or leave `randomised` out.",
        )
    if design in ("cross_section", "matched") and not found.adjustment and not effect.randomised and not effect.edges:
        raise NotIdentified(
            "no confounders are named, so nothing separates the effect from the reasons for treatment.",
            where="effect.confounders",
            advice="Name the common causes of treatment and outcome, or say `randomised: true` when chance decided who was treated.",
        )
    return found


def _require_names(frame: pl.DataFrame, strata: tuple[str, ...]) -> None:
    """Raises NotIdentified where numbers stand for several strata of a panel: they would be adjusted for as one line."""
    for name in strata:
        if frame[name].dtype.is_numeric() and frame[name].n_unique() > 2:
            raise NotIdentified(
                f"`{name}` numbers its strata, and over time they would be taken for amounts.",
                where="effect.randomised_within",
                advice="Write them as text (s1, s2 …) in the source.",
            )


def _choose(
    effect: EffectSpec, shape: Shape, *, unit: str | None, time: str | None
) -> tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Design, why, and (design, why not)."""
    objections = {design: _objection(design, effect, shape, unit=unit, time=time) for design in (*_CROSS, *_PANEL)}
    refused = tuple((design, why) for design, why in objections.items() if why is not None)
    if effect.design != "auto":
        why_not = objections[effect.design]
        if why_not is not None:
            fitting = [design for design, why in objections.items() if why is None]
            raise NotIdentified(
                f"design `{effect.design}` does not fit: {why_not}",
                where="effect.design",
                advice=f"Designs that fit these data: {', '.join(fitting)}." if fitting else "No design fits these data and roles.",
            )
        return effect.design, (f"`{effect.design}` was asked for.",), refused
    order = _order(effect, shape)
    for design, why in order:
        if objections[design] is None:
            return design, (why,), refused
    by_reason: dict[str, list[str]] = {}
    for design, _ in order:
        by_reason.setdefault(str(objections[design]).rstrip("."), []).append(design)
    reasons = "; ".join(f"{', '.join(designs)}: {why}" for why, designs in by_reason.items())
    advice = "Mend one of these."
    if effect.randomised and shape.is_panel and shape.pre_periods == 0 and unit is not None:
        advice = f"Chance assigned, so nothing before is needed: leave `unit` and `time` out and name `cluster: {unit}` under `effect`."
    raise NotIdentified(f"no design answers this question with these data ({reasons}).", where="effect", advice=advice)


def _order(effect: EffectSpec, shape: Shape) -> list[tuple[str, str]]:
    """Designs by preference, each with its reason."""
    if not shape.is_panel:
        why = (
            f"chance assigned within {' and '.join(f'`{name}`' for name in effect.randomised_within)}, so arms are compared within it"
            if effect.randomised_within
            else "chance assigned, so arms are compared as they were drawn"
            if effect.randomised
            else "the measured common causes are adjusted for"
        )
        adjusted = ("cross_section", f"one row per unit: {why}.")
        return [("iv", "an instrument is named."), adjusted] if effect.instruments else [adjusted]
    units = f"{shape.treated_units} treated unit{'s' if shape.treated_units > 1 else ''}, {shape.never_treated} that never are"
    sparse = ("synthetic_control", f"{units}, {shape.pre_periods} periods before: the treated path is rebuilt from the others.")
    many = ("did", f"{shape.units} units over {shape.periods} periods: changes of the treated are compared with changes of the others.")
    alone = ("interrupted_time_series", "one series and nothing to compare it with but its own past.")
    is_sparse = shape.treated_units <= _FEW_TREATED and shape.never_treated >= MINIMUM_DONORS
    if is_sparse and shape.pre_periods >= MINIMUM_PRE_PERIODS:
        return [sparse, many, alone]
    if shape.units == 1 and shape.treatment_kind in ("on_off", "continuous"):  # named, so that the refusal says what to mend
        return [many, sparse, alone, ("iv" if effect.instruments else "cross_section", "each row stands for itself.")]
    return [many, sparse, alone]


def _objection(design: str, effect: EffectSpec, shape: Shape, *, unit: str | None, time: str | None) -> str | None:
    """Why a design does not fit, or None."""
    if design in _PANEL:
        return _panel_objection(design, shape, unit=unit, time=time)
    found = (
        (shape.is_panel and shape.units == 1, f"the rows are one series over `{time}`; without it each would stand for itself."),
        (shape.is_panel, f"units have several rows ({shape.units} units, {shape.periods} periods); it takes one row per unit."),
        (shape.treatment_kind == "staggered", "`cohort` asks for a panel."),
        (design == "iv" and not effect.instruments, "no instrument is named."),
        (design == "matched" and shape.treatment_kind != "binary", "matching needs a 0/1 treatment."),
        (design == "iv" and shape.treatment_kind == "multi_level", "an instrument needs a 0/1 treatment or a dose."),
    )
    return next((why for holds, why in found if holds), None)


def _panel_objection(design: str, shape: Shape, *, unit: str | None, time: str | None) -> str | None:
    if not shape.is_panel:
        missing = " and ".join(f"`{name}`" for name, value in (("unit", unit), ("time", time)) if value is None)
        return f"it needs units seen over time; the study names no {missing}." if missing else "every unit has one row."
    changes = shape.treatment_kind in ("on_off", "continuous")
    rebuilt = design in ("synthetic_control", "synthetic_did")
    alone = design == "interrupted_time_series"
    found = (
        (shape.is_repeated and design != "did", "rows are different people; it takes one row per unit and period."),
        (shape.is_repeated and shape.treatment_kind == "continuous", "groups of people need a 0/1 treatment per group and period."),
        (alone and shape.units > 1 and shape.never_treated > 0, "there are untreated units to compare with."),
        (not alone and shape.units == 1, "there is one series only."),
        (changes and design != "did", "treatment is a dose or switches off again."),
        (not changes and shape.pre_periods == 0, _NOTHING_BEFORE),
        (
            design == "did" and not changes and not shape.never_treated and shape.starts == 1,
            "all units are treated from the same period on: no unit to compare with.",
        ),
        (rebuilt and shape.never_treated < 2, "fewer than two units are never treated."),
        (rebuilt and shape.pre_periods < 2, "one period before treatment is too few to rebuild a path."),
    )
    return next((why for holds, why in found if holds), None)


def _estimand(effect: EffectSpec, design: str, shape: Shape) -> str:
    if shape.treatment_kind == "continuous":
        if effect.estimand not in (None, "ATE"):
            raise NotIdentified(
                f"estimand {effect.estimand} needs a 0/1 treatment; `{effect.treatment}` is a dose.",
                where="effect.estimand",
                advice="Leave `estimand` out: the effect of one unit more is estimated.",
            )
        return "LATE" if design == "iv" else "APE"
    allowed = _AVERAGES[design]
    if effect.estimand is None:
        return allowed[0]
    if effect.estimand not in allowed:
        needs = "an instrumental variable design" if effect.estimand == "LATE" else "a cross-section"
        raise NotIdentified(
            f"design `{design}` estimates {' or '.join(allowed)}, not {effect.estimand}.",
            where="effect.estimand",
            advice=f"{effect.estimand} needs {needs}; leave `estimand` out to take the design's own.",
        )
    return effect.estimand


def _notes(effect: EffectSpec, design: str, time: str | None, *, columns: Sequence[str]) -> tuple[str, ...]:
    notes = [f"instrument `{name}` is not used by design {design}" for name in effect.instruments if design != "iv"]
    if time is not None and design not in _PANEL:
        notes.append(f"`{time}` is not used by design {design}")
    if effect.pre_outcomes and design in _PANEL:
        notes.append("`pre_outcomes` is not used: a panel has its own past")
    if effect.place is not None and design not in _PANEL:
        notes.append(f"`{effect.place}` is not tested for spill-over: only a panel shows it")
    later = effect.measured_at is not None or effect.entered_at is not None
    has_order = effect.treated_at is not None and later and effect.treatment in columns
    days = (effect.treated_at, effect.measured_at, effect.entered_at) if design in _PANEL and not has_order else ()
    notes += [f"`{name}` is not used: a panel has its own clock" for name in days if name is not None]
    if design not in ("cross_section", "matched") or effect.randomised:
        notes += [f"`{name}` is not tested: negative exposures need a treatment that people chose" for name in effect.negative_exposures]
    return tuple(notes)


def _notes_on_groups(shape: Shape, unit: str | None) -> tuple[str, ...]:
    notes = []
    if shape.is_repeated:
        notes.append(f"rows are taken as different people in {shape.units} groups of `{unit}` and {shape.periods} periods")
    return tuple(notes)


def _with_graph(found: Identification, effect: EffectSpec, frame: pl.DataFrame) -> Identification:
    """The adjustment set checked against the study's graph, or found in it."""
    if not effect.edges:
        return found
    from e2i.causal.dag import parse_edges
    from e2i.causal.graph import adjustment_by_graph, front_door_of

    asks_nothing_else = not found.adjustment and found.estimand == "ATE" and found.treatment_kind == "binary" and found.weights is None
    if found.design == "cross_section" and asks_nothing_else and not found.is_randomised:
        mediators, said = front_door_of(effect, observed=frozenset(frame.columns))
        if mediators:
            return replace(found, mediators=mediators, reasons=(*found.reasons[:-1], "the graph opens the front door.", *said))
    observed = frozenset(frame.columns)
    in_graph = parse_edges(effect.edges, columns=observed).nodes
    selected = [name for name in in_graph if name in observed and frame[name].n_unique() == 1]
    adjustment, said = adjustment_by_graph(effect, observed=observed, design=found.design, selected=selected)
    return replace(found, adjustment=adjustment, reasons=(*found.reasons, *said))
