"""What a study's roles mean: keys, candidate features, exclusions with reasons, kind of problem, minimum samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from e2i.domain.experiments import ProblemType
from e2i.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2i.domain.study import Study

MINIMUM_SAMPLES: dict[ProblemType, int] = {"binary_classification": 500, "regression": 300}
"""labelled rows below which a study is not started"""
MINIMUM_EVENTS = 20
"""rows of the rarer class: with fewer, the 5 % holdout is not expected to hold one"""

_OWNER = r"(?:(?:hcp|npi|patient|physician|doctor|provider|person|customer|contact|rep|home|work|office|personal|cell)_?)?"
_IDENTIFIER = re.compile(
    r"^(?:(?:.*_)?(?:ids?|uuid|guid|npi|ssn|mrn|hash|url|zip|zip5|zip_?code|post_?code|postal_code|ip_address)|dea(?:_number)?|"
    rf"(?:(?:first|last|middle|full)_?|{_OWNER})name|surname|"
    rf"{_OWNER}(?:e[-_]?mail|phone|fax|mobile|street|address)(?:_?(?:address|number|no))?|(?:mailing|postal|e?mail)_?address|"
    r"dob|date_of_birth|birth_?date)$",
    re.IGNORECASE,
)
"""Contact words alone or with an owner: `home_phone` names a person, `calls_phone` and `opens_email` count contacts."""


_TEXT = re.compile(r"'(?:[^']|'')*'")
_QUOTED_NAME = re.compile(r"`([^`]+)`|\"([^\"]+)\"|\[([^\]]+)\]")
_BARE_NAME = re.compile(r"[^\W\d]\w*(?!\w|\s*\()")
"""a word that is no number and calls no function"""


def names_in(expression: str) -> frozenset[str]:
    """What may be columns in an expression of `data.derive`; keywords among them, which no reader needs to know apart.

    >>> sorted(names_in("CAST(`Index Date` AS DATE) > ready AND state = 'won'"))
    ['AND', 'AS', 'DATE', 'Index Date', 'ready', 'state']
    """
    told = _TEXT.sub(" ", expression)
    quoted = {next(filter(None, found)) for found in _QUOTED_NAME.findall(told)}
    return frozenset(quoted | set(_BARE_NAME.findall(_QUOTED_NAME.sub(" ", told))))


def is_identifier(column: str) -> bool:
    """Whether a column's name says that it names a person, a place of contact or a row.

    >>> [is_identifier(name) for name in ("npi", "sales_rep_id", "e-mail", "zip_code", "zip3", "opens_email", "paid")]
    [True, True, True, True, False, False, False]
    """
    return _IDENTIFIER.match(column) is not None


def judged_column(study: Study) -> str:
    """The column that the study must know: the prediction's target, else the effect's outcome."""
    if study.prediction is not None:
        return study.prediction.target
    return study.effect.outcome if study.effect is not None else ""


def infer_problem_type(study: Study, levels: int) -> ProblemType:
    """The kind of problem: what the study says, else two or fewer distinct values of the target make it binary.

    `levels` counts the distinct, non-empty values of `judged_column`.
    """
    if study.prediction is not None and study.prediction.problem_type is not None:
        return study.prediction.problem_type
    return "binary_classification" if levels <= 2 else "regression"


def minimum_samples(study: Study, problem: ProblemType) -> int:
    """Labelled rows below which the study is not started; a study that asks for an effect alone leaves that to the causal part."""
    return 1 if study.prediction is None else MINIMUM_SAMPLES[problem]


def key_columns(study: Study) -> tuple[str, ...]:
    """The columns whose values together name a row; empty where the study names no unit.

    Without a time, one row is one unit, except in a purely predictive study with an event time: a unit may have several events.
    A double difference over time may have groups as units, with several people in each period: there the causal part tells copies
    from people.
    """
    if study.unit is None:
        return ()
    if study.time is not None:
        may_be_groups = study.prediction is None and study.effect is not None and study.effect.design in ("auto", "did")
        return () if may_be_groups else (study.unit, study.time)
    event = study.prediction.event_time if study.prediction is not None else None
    return (study.unit, event) if event is not None and study.effect is None else (study.unit,)


def roles(study: Study) -> dict[str, tuple[str, ...]]:
    """Column -> the roles that the study gives it. `feature` stands for a name in prediction.features."""
    found: dict[str, list[str]] = {}

    def add(role: str, *columns: str | None) -> None:
        for column in columns:
            if column is not None and role not in found.setdefault(column, []):
                found[column].append(role)

    add("unit", study.unit)
    add("time", study.time)
    if (effect := study.effect) is not None:
        if effect.cohort is None:  # else the treatment is only a name
            add("treatment", effect.treatment)
        add("outcome", effect.outcome)
        add("confounder", *effect.confounders)
        add("modifier", *effect.modifiers)
        add("negative_control", *effect.negative_controls)
        add("instrument", *effect.instruments)
        add("cohort", effect.cohort)
    if (prediction := study.prediction) is not None:
        add("target", prediction.target)
        add("event_time", prediction.event_time)
        add("group", prediction.group)
        add("feature", *(prediction.features or ()))
        add("protected", *prediction.protected)
    return {column: tuple(names) for column, names in found.items()}


def used_columns(study: Study, columns: Iterable[str]) -> tuple[str, ...]:
    """The columns that the study reads: those with a role and, for a prediction, the candidate features."""
    columns = tuple(columns)
    given = roles(study)
    left_out = set(columns) if study.prediction is None else set(excluded_features(study, columns))
    return tuple(column for column in columns if column in given or column not in left_out)


def excluded_features(study: Study, columns: Iterable[str]) -> dict[str, str]:
    """Column -> why it may not be a feature, for every column of the table that may not.

    The treatment stays a candidate; the outcome, its negative controls and what is known only after the event do not. A column of which
    others are derived would say the same twice, or be a copy of the target: it needs a role, or a place in prediction.features.
    """
    reasons = _only_derived_from(study) | _reasons_by_role(study)
    wanted = None if study.prediction is None or study.prediction.features is None else set(study.prediction.features)
    excluded: dict[str, str] = {}
    for column in columns:
        if column in reasons:
            excluded[column] = reasons[column]
        elif is_identifier(column):
            excluded[column] = "an identifier by its name"
        elif wanted is not None and column not in wanted:
            excluded[column] = "not in prediction.features"
    return excluded


def _only_derived_from(study: Study) -> dict[str, str]:
    """Column without a role of its own -> which derived columns read it. Names that are no columns do no harm."""
    readers: dict[str, list[str]] = {}
    for derived, expression in study.data.derive.items():
        for name in names_in(expression):
            readers.setdefault(name, []).append(derived)
    effect = study.effect
    told = {*roles(study), *(() if effect is None else (*effect.pre_outcomes, *effect.negative_exposures))}
    return {name: f"read only by the derived {', '.join(into)}" for name, into in readers.items() if name not in told}


def _reasons_by_role(study: Study) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if (effect := study.effect) is not None:
        reasons |= dict.fromkeys(effect.negative_controls, "a negative control: measured after the treatment")
        reasons |= {effect.outcome: "the outcome of the treatment: measured after it"}
        if effect.cohort is not None:
            reasons[effect.cohort] = "names the treated period: known only afterwards"
    if (prediction := study.prediction) is not None:
        reasons |= dict.fromkeys(prediction.exclude, "listed under prediction.exclude")
        reasons |= dict.fromkeys(prediction.protected, "protected: judged for fairness, never a feature")
        reasons |= dict.fromkeys(prediction.after_event, "known only after the event")
        reasons |= {column: "names the group" for column in (prediction.group,) if column is not None}
        reasons |= {column: "the time of the event" for column in (prediction.event_time,) if column is not None}
        reasons[prediction.target] = "the target"
    reasons |= {column: "the time of the row" for column in (study.time,) if column is not None}
    reasons |= {column: "names the unit" for column in (study.unit,) if column is not None}
    return reasons


def check_features(study: Study) -> None:
    """Refuse a study whose prediction.features names a column that may never be a feature.

    Identifiers are left to the quality gate, which names them with the other findings. Raises ConfigError.
    """
    wanted = () if study.prediction is None else study.prediction.features or ()
    reasons = _reasons_by_role(study)
    for column in wanted:
        if column in reasons:
            raise ConfigError(
                f"{column!r} may not be a feature: {reasons[column]}.",
                where=f"study {study.name}, prediction.features",
                advice="Take it out of prediction.features, or change its other role.",
            )
