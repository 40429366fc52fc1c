"""Whether each column can play the role that the study gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2i.data.yaml_marks import Problem
from e2i.domain.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from e2i.data.yaml_marks import MarkedYaml, Place
    from e2i.domain.study import Study

COUNTABLE = ("boolean", "integer", "number")
ORDERED = ("integer", "number", "date", "datetime")


@dataclass(frozen=True, kw_only=True)
class _Use:
    """One mention of a column: `role` as the key in the study file."""

    role: str
    column: str
    place: Place


@dataclass(frozen=True, kw_only=True)
class _Clash:
    """Two roles that one column cannot have; reported at the second."""

    first: str
    second: str
    why: str
    advice: str


_BOTH = "Take it out of one of the two."
CLASHES = (
    _Clash(first="effect.treatment", second="effect.outcome", why="a treatment cannot be its own outcome", advice="Name two columns."),
    *(
        _Clash(first=first, second=second, why=why, advice=_BOTH)
        for first, second, why in (
            ("effect.treatment", "effect.confounders", "adjusting for the treatment removes the effect"),
            ("effect.treatment", "effect.modifiers", "the treatment cannot modify its own effect"),
            ("effect.treatment", "effect.negative_controls", "a negative control is an outcome which the treatment cannot move"),
            ("effect.treatment", "effect.instruments", "an instrument moves the treatment and is not the treatment"),
            ("effect.outcome", "effect.confounders", "adjusting for the outcome removes the effect"),
            ("effect.outcome", "effect.modifiers", "the outcome is known only after the treatment"),
            ("effect.outcome", "effect.negative_controls", "a negative control is another outcome"),
            ("effect.outcome", "effect.instruments", "an instrument touches the outcome only through the treatment"),
            ("effect.negative_controls", "effect.confounders", "a negative control is an outcome, known after the treatment"),
            ("effect.negative_controls", "effect.modifiers", "a negative control is an outcome, known after the treatment"),
            ("effect.instruments", "effect.confounders", "an instrument is not adjusted for"),
            ("effect.negative_exposures", "effect.confounders", "a negative exposure is tested, not adjusted for"),
            ("effect.outcome", "effect.pre_outcomes", "the outcome is known only after the treatment"),
            ("prediction.target", "effect.confounders", "the target is known only after the event"),
            ("prediction.target", "effect.modifiers", "the target is known only after the event"),
            ("prediction.target", "prediction.features", "the target would predict itself"),
            ("prediction.target", "prediction.protected", "the target is not a fairness group"),
            ("prediction.target", "prediction.exclude", "the target cannot be left out"),
            ("prediction.protected", "prediction.features", "a fairness group is never a feature"),
            ("prediction.after_event", "prediction.features", "it is known only after the event"),
            ("prediction.exclude", "prediction.features", "it is also excluded"),
            ("prediction.event_time", "prediction.features", "the time of the event orders the splits and is no feature"),
            ("prediction.group", "prediction.features", "it names groups of rows, not a property of one"),
            ("unit", "prediction.features", "an identifier is no feature"),
            ("unit", "effect.confounders", "an identifier is no confounder"),
            ("unit", "effect.modifiers", "an identifier is no modifier"),
            ("unit", "effect.treatment", "an identifier is no treatment"),
            ("unit", "effect.outcome", "an identifier is no outcome"),
            ("unit", "prediction.target", "an identifier is no target"),
            ("unit", "time", "one column cannot say both who and when"),
        )
    ),
)
_DERIVE = (
    " Or derive a new column in the study, under `data`: `derive: {NEW: \"COLUMN = 'yes'\"}`, "
    "or `derive: {NEW: \"CAST(REPLACE(COLUMN, ',', '') AS DOUBLE)\"}` for numbers with marks of thousands, "
    'or `derive: {NEW: "TRY_CAST(COLUMN AS DOUBLE)"}` for numbers among which marks such as ? stand for missing.'
)
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "effect.treatment": (COUNTABLE, "Code it as 0 and 1, or as a dose. Or name as `reference` the level compared with." + _DERIVE),
    "effect.outcome": (COUNTABLE, "Name a number, or code it as 0 and 1." + _DERIVE),
    "effect.negative_controls": (COUNTABLE, "Name a number, or code it as 0 and 1."),
    "effect.instruments": (COUNTABLE, "Name a number, 0 and 1, or text with a level per judge or clinic."),
    "effect.negative_exposures": (COUNTABLE, "Name a number, or code it as 0 and 1."),
    "effect.pre_outcomes": (COUNTABLE, "Name a number, or code it as 0 and 1."),
    "effect.weights": (("integer", "number"), "Weights are positive numbers."),
    "effect.cohort": (ORDERED, "It names the first treated period: a date (2024-12-27) or a number."),
    "time": (ORDERED, "Write dates as 2024-12-27, or number the periods."),
    "prediction.event_time": (("date", "datetime"), "Write dates as 2024-12-27."),
    "prediction.target": (COUNTABLE, "Code classes as 0 and 1."),
}


def role_problems(study: Study, columns: Mapping[str, str], marked: MarkedYaml) -> list[Problem]:
    """Every way in which the study's roles do not fit the columns, with its line."""
    uses = [use for use in _uses(study) if not _is_only_a_name(use, study, columns)]
    problems = [*_missing(uses, columns, marked), *_kinds(uses, columns, marked, study=study)]
    problems += [*_repeats(uses, marked), *_clashes(uses, marked)]
    return [*problems, *_design(study, marked), *_responses(study, marked)]


def _is_only_a_name(use: _Use, study: Study, columns: Mapping[str, str]) -> bool:
    """A treatment that a cohort column stands for needs no column."""
    by_cohort = study.effect is not None and study.effect.cohort is not None
    return use.role == "effect.treatment" and by_cohort and use.column not in columns


def _uses(study: Study) -> Iterator[_Use]:
    for role, value in _roles(study):
        place: Place = tuple(role.split("."))
        if isinstance(value, str):
            yield _Use(role=role, column=value, place=place)
        else:
            yield from (_Use(role=role, column=column, place=(*place, position)) for position, column in enumerate(value or ()))


def _roles(study: Study) -> Iterator[tuple[str, str | tuple[str, ...] | None]]:
    yield from (("unit", study.unit), ("time", study.time))
    if (effect := study.effect) is not None:
        yield from (("effect.treatment", effect.treatment), ("effect.outcome", effect.outcome), ("effect.cohort", effect.cohort))
        yield from (("effect.cluster", effect.cluster), ("effect.weights", effect.weights), ("effect.treated_at", effect.treated_at))
        yield from (("effect.measured_at", effect.measured_at), ("effect.entered_at", effect.entered_at), ("effect.place", effect.place))
        yield from (("effect.negative_exposures", effect.negative_exposures), ("effect.pre_outcomes", effect.pre_outcomes))
        yield from (("effect.confounders", effect.confounders), ("effect.modifiers", effect.modifiers))
        yield ("effect.randomised_within", effect.randomised_within)
        yield from (("effect.negative_controls", effect.negative_controls), ("effect.instruments", effect.instruments))
    if (prediction := study.prediction) is not None:
        yield from (("prediction.target", prediction.target), ("prediction.event_time", prediction.event_time))
        yield from (("prediction.features", prediction.features), ("prediction.exclude", prediction.exclude))
        yield from (("prediction.after_event", prediction.after_event), ("prediction.protected", prediction.protected))
        yield ("prediction.group", prediction.group)


def _missing(uses: list[_Use], columns: Mapping[str, str], marked: MarkedYaml) -> Iterator[Problem]:
    for use in uses:
        if use.column not in columns:
            what = f"`{use.role}` names column `{use.column}`, which the data lack"
            yield Problem(line=marked.line(use.place), what=what, advice=suggestion(use.column, columns), is_in_data=True)


def _kinds(uses: list[_Use], columns: Mapping[str, str], marked: MarkedYaml, *, study: Study) -> Iterator[Problem]:
    for use in uses:
        wanted, advice = KINDS.get(use.role, ((), ""))
        if _may_be_text(use.role, study):
            wanted = (*wanted, "text")
        kind = columns.get(use.column)
        if wanted and kind is not None and kind not in wanted:
            what = f"`{use.role}` is column `{use.column}`, which holds {_shown(kind)}"
            yield Problem(line=marked.line(use.place), what=what, advice=advice, is_in_data=True)
        elif kind == "other":
            what = f"`{use.role}` is column `{use.column}`, which holds lists or records"
            yield Problem(line=marked.line(use.place), what=what, advice="Write one value per row.", is_in_data=True)


def _may_be_text(role: str, study: Study) -> bool:
    """Levels of a treatment, judges or clinics as instruments; periods such as 2004Q1, where nothing is divided by time."""
    if role == "effect.instruments":
        return True
    if role == "effect.treatment":
        return study.effect is not None and study.effect.reference is not None
    return role in ("time", "effect.cohort") and study.prediction is None


def _shown(kind: str) -> str:
    return {"boolean": "true and false", "other": "lists or records", "text": "text"}.get(kind, f"{kind}s")


def _repeats(uses: list[_Use], marked: MarkedYaml) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for use in uses:
        if (use.role, use.column) in seen:
            yield Problem(line=marked.line(use.place), what=f"`{use.role}` names `{use.column}` twice", advice="Keep one.")
        seen.add((use.role, use.column))


def _clashes(uses: list[_Use], marked: MarkedYaml) -> Iterator[Problem]:
    for clash in CLASHES:
        taken = {use.column for use in uses if use.role == clash.first}
        for use in uses:
            if use.role == clash.second and use.column in taken:
                what = f"`{use.column}` is both `{clash.first}` and `{clash.second}`: {clash.why}"
                yield Problem(line=marked.line(use.place), what=what, advice=clash.advice)


def _responses(study: Study, marked: MarkedYaml) -> Iterator[Problem]:
    """Responses that come from the effect by segment need an effect that is divided by that column."""
    by = study.allocation.response.effect_by if study.allocation is not None else None
    modifiers = study.effect.modifiers if study.effect is not None else ()
    if by is None or by in modifiers:
        return
    what = f"`allocation.response.effect_by` names `{by}`, by which no effect is measured"
    present = f" (now {', '.join(modifiers)})" if modifiers else ""
    asked = f"Add it to `effect.modifiers`{present}" if study.effect is not None else f"Add `effect` with `modifiers: [{by}]`"
    line = marked.line(("allocation", "response", "effect_by"))
    yield Problem(line=line, what=what, advice=f"{asked}, or give `coefficient` in place of `effect_by`.")


def _design(study: Study, marked: MarkedYaml) -> Iterator[Problem]:
    effect = study.effect
    if effect is None:
        return
    line = marked.line(("effect", "design"))
    if effect.design in ("did", "synthetic_control", "synthetic_did"):
        for key, value in (("unit", study.unit), ("time", study.time)):
            if value is None:
                what = f"design `{effect.design}` follows units over time, and the study names no `{key}`"
                yield Problem(line=line, what=what, advice=f"Add `{key}: COLUMN`.")
    if effect.design == "iv" and not effect.instruments:
        yield Problem(line=line, what="design `iv` needs `instruments`", advice="Name a column that moves the treatment alone.")
    if effect.estimand == "LATE" and not effect.instruments:
        line = marked.line(("effect", "estimand"))
        yield Problem(line=line, what="estimand `LATE` needs `instruments`", advice="Name an instrument, or ask for ATE or ATT.")
