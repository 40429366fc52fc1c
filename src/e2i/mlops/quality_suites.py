"""Great Expectations suites: five of the domain tables, from the one vocabulary, and one of a study's own table.

A suite is a list of `Rule`s; only `run_rules` knows Great Expectations, whose import takes seconds and happens there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from e2i.domain.quality import CheckResult, Severity
from e2i.domain.scope import key_columns, minimum_samples
from e2i.domain.vocabulary import TABLES
from e2i.mlops.quality_checks import MISSING_LIMIT, is_coded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2i.domain.vocabulary import Table
    from e2i.mlops.quality_checks import Subject

Kind = Literal["row_count", "exists", "not_null", "in_set", "between", "unique", "unique_together", "levels", "ordered"]
_VOLUMES = ("nbrx", "nrx", "trx")
_ROLE_ADVICE = "Correct the table or the study file."


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One expectation. `check` is the issue's code when it fails; `mostly` is the share of values that must obey."""

    check: str
    kind: Kind
    family: str
    columns: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    minimum: Any = None
    maximum: Any = None
    mostly: float = 1.0
    severity: Severity = "blocking"
    advice: str = _ROLE_ADVICE


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """A rule, and what came of it."""

    rule: Rule
    result: CheckResult
    crashed: bool = False


def _ordered(early: str, late: str) -> Rule:
    return Rule(check="wrong_order", kind="ordered", family="consistency", columns=(early, late), severity="warning")


def table_rules(table: Table) -> tuple[Rule, ...]:
    """The suite of a domain table."""
    rules = [Rule(check="too_few_rows", kind="row_count", family="completeness", minimum=1, advice="Load rows.")]
    for column in table.columns:
        at = (column.name,)
        if column.required:
            rules.append(Rule(check="missing_column", kind="exists", family="completeness", columns=at))
        if not column.nullable:
            rules.append(Rule(check="missing_values", kind="not_null", family="completeness", columns=at))
        if column.unique:
            rules.append(Rule(check="duplicate_keys", kind="unique", family="uniqueness", columns=at))
        if column.allowed:
            rules.append(Rule(check="allowed_values", kind="in_set", family="validity", columns=at, values=column.allowed))
        if column.minimum is not None or column.maximum is not None:
            rules.append(Rule(check="range", kind="between", family="validity", columns=at, minimum=column.minimum, maximum=column.maximum))
    rules += [_ordered(early, late) for early, late in table.ordered]
    return tuple(rules)


SUITES: dict[str, tuple[Rule, ...]] = {table.suite: table_rules(table) for table in TABLES.values() if table.suite is not None}
"""suite name -> its rules"""


def study_rules(subject: Subject) -> tuple[Rule, ...]:
    """The suite of a study's own table, from its roles; a rule about a column that is absent is left to the schema."""
    study, frame = subject.study, subject.frame
    advice = "Load a longer period, more units or fewer filters."
    rules = [
        Rule(
            check="too_few_rows",
            kind="row_count",
            family="completeness",
            minimum=minimum_samples(subject.study, subject.problem),
            advice=advice,
        )
    ]
    for column, names in subject.roles.items():
        rules.append(Rule(check="missing_column", kind="exists", family="completeness", columns=(column,)))
        if column in frame.columns:
            rules += _role_rules(subject, column, names)
    for column in subject.used:
        if column not in subject.roles and frame.schema[column].is_numeric():
            gaps = Rule(check="many_gaps", kind="not_null", family="completeness", columns=(column,), severity="warning")
            rules.append(replace(gaps, mostly=1 - MISSING_LIMIT))
    key = key_columns(study)
    if key and set(key) <= set(frame.columns):
        kind: Kind = "unique" if len(key) == 1 else "unique_together"
        rules.append(Rule(check="duplicate_keys", kind=kind, family="uniqueness", columns=key))
    return (*rules, *_volume_rules(frame))


def _role_rules(subject: Subject, column: str, names: tuple[str, ...]) -> list[Rule]:
    dtype, at, rules = subject.frame.schema[column], (column,), []
    if {"unit", "time", "treatment"} & set(names):
        rules.append(Rule(check="missing_values", kind="not_null", family="completeness", columns=at))
    if "treatment" in names and dtype.is_numeric() and _is_yes_no(subject, column):
        rules.append(Rule(check="treatment_not_binary", kind="in_set", family="validity", columns=at, values=(0, 1)))
    if "target" in names and subject.problem == "binary_classification" and dtype.is_numeric():
        rules.append(Rule(check="target_not_binary", kind="in_set", family="validity", columns=at, values=(0, 1)))
    if {"treatment", "target", "outcome"} & set(names):
        rules.append(Rule(check="constant_column", kind="levels", family="validity", columns=at, minimum=2))
    if {"time", "event_time"} & set(names) and dtype in (pl.Date, pl.Datetime):
        rules.append(Rule(check="date_in_future", kind="between", family="validity", columns=at, maximum=subject.reference))
    return rules


def _is_yes_no(subject: Subject, column: str) -> bool:
    has_levels = subject.study.effect is not None and subject.study.effect.reference is not None
    return not has_levels and is_coded(subject.frame[column])


def _volume_rules(frame: pl.DataFrame) -> list[Rule]:
    """NBRx ≤ NRx ≤ TRx, where a table holds these volumes."""
    by_name = {column.lower(): column for column in frame.columns if frame.schema[column].is_numeric()}
    present = [by_name[name] for name in _VOLUMES if name in by_name]
    return [
        Rule(
            check="wrong_order",
            kind="ordered",
            family="consistency",
            columns=(small, large),
            severity="warning",
            advice="NBRx ≤ NRx ≤ TRx by definition: check the load.",
        )
        for small, large in pairwise(present)
    ]


def run_rules(frame: pl.DataFrame, rules: Sequence[Rule], *, suite: str) -> list[RuleResult]:
    """Validate `frame` with Great Expectations, in memory, without progress bars and without calling home.

    Rules about optional columns that the frame lacks do not run.
    """
    applicable = [rule for rule in rules if rule.kind == "exists" or set(rule.columns) <= set(frame.columns)]
    if not applicable:
        return []
    with warnings.catch_warnings():
        # Great Expectations' own use of what Python and pandas deprecate; nothing that our reader could mend.
        warnings.simplefilter("ignore")
        return _run(frame, applicable, suite)


def _run(frame: pl.DataFrame, applicable: Sequence[Rule], suite: str) -> list[RuleResult]:
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

    settings = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = gx.get_context(project_config=settings, mode="ephemeral")
    definition = context.data_sources.add_pandas("memory").add_dataframe_asset(suite).add_batch_definition_whole_dataframe("whole")
    batch = definition.get_batch(batch_parameters={"dataframe": _to_pandas(frame, applicable)})
    expectations = [_expectation(rule, number) for number, rule in enumerate(applicable)]
    outcome = batch.validate(gx.ExpectationSuite(suite, expectations=expectations), result_format=_FORMAT)
    by_number = {result.expectation_config.meta["rule"]: result for result in outcome.results}
    return [_outcome(rule, by_number[number], suite) for number, rule in enumerate(applicable)]


_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}


def _to_pandas(frame: pl.DataFrame, rules: Sequence[Rule]) -> Any:
    columns = dict.fromkeys(column for rule in rules for column in rule.columns if column in frame.columns)
    chosen = frame.select(*columns)
    moments = [name for name, dtype in chosen.schema.items() if dtype in (pl.Date, pl.Datetime)]
    # As seconds since 1970: Great Expectations compares dates one by one in Python, eight times slower.
    chosen = chosen.with_columns(pl.col(name).dt.epoch("s") for name in moments)
    decimals = [name for name, dtype in chosen.schema.items() if dtype == pl.Decimal]
    return chosen.with_columns(pl.col(pl.String).cast(pl.Categorical), pl.col(decimals).cast(pl.Float64)).to_pandas()


_EXPECTATIONS = {
    "row_count": "ExpectTableRowCountToBeBetween",
    "exists": "ExpectColumnToExist",
    "not_null": "ExpectColumnValuesToNotBeNull",
    "in_set": "ExpectColumnValuesToBeInSet",
    "between": "ExpectColumnValuesToBeBetween",
    "levels": "ExpectColumnUniqueValueCountToBeBetween",
    "unique": "ExpectColumnValuesToBeUnique",
    "unique_together": "ExpectCompoundColumnsToBeUnique",
    "ordered": "ExpectColumnPairValuesAToBeGreaterThanB",
}


def _expectation(rule: Rule, number: int) -> Any:
    import great_expectations.expectations as gxe

    arguments: dict[str, Any] = {"meta": {"rule": number}}
    if rule.kind == "ordered":
        early, late = rule.columns
        arguments |= {"column_A": late, "column_B": early, "or_equal": True, "ignore_row_if": "either_value_is_missing"}
    elif rule.kind == "unique_together":
        arguments["column_list"] = list(rule.columns)
    elif rule.columns:
        arguments["column"] = rule.columns[0]
    if rule.kind in ("row_count", "between", "levels"):
        arguments |= {"min_value": rule.minimum, "max_value": _end_of(rule.maximum)}
    if rule.kind == "in_set":
        arguments["value_set"] = list(rule.values)
    if rule.mostly < 1:
        arguments["mostly"] = rule.mostly
    return getattr(gxe, _EXPECTATIONS[rule.kind])(**arguments)


def _end_of(limit: Any) -> Any:
    """A day as the last second of it since 1970, as the frame has it; a number as it is."""
    return (limit - date(1969, 12, 31)).days * 86_400 - 1 if isinstance(limit, date) else limit


def _outcome(rule: Rule, outcome: Any, suite: str) -> RuleResult:
    percent = (outcome.result or {}).get("unexpected_percent")
    share = percent / 100 if percent is not None else float(not outcome.success)
    result = CheckResult(
        suite=f"great_expectations:{suite}",
        expectation=outcome.expectation_config.type,
        family=rule.family,
        passed=bool(outcome.success),
        column=", ".join(rule.columns) or None,
        observed=str(value) if (value := (outcome.result or {}).get("observed_value")) is not None else None,
        unexpected_share=float(share),
    )
    return RuleResult(rule=rule, result=result, crashed=_has_crashed(outcome.exception_info or {}))


def _has_crashed(information: dict[str, Any]) -> bool:
    """Great Expectations reports one exception flat and several under their metric's name."""
    found = [information] if "raised_exception" in information else list(information.values())
    return any(item.get("raised_exception") for item in found)
