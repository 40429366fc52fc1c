"""Broken schema rules and failed expectations as findings that people can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from e2i.domain.quality import QCIssue
from e2i.domain.scope import key_columns
from e2i.domain.vocabulary import TABLES
from e2i.errors import E2IError
from e2i.mlops.quality_checks import Findings, Subject, count

if TYPE_CHECKING:
    from e2i.mlops.pandera_schemas import SchemaFailure
    from e2i.mlops.quality_suites import Rule, RuleResult

_ADVICE = {
    "missing_column": "Add the column, or correct its name.",
    "missing_values": "Fill the gaps or remove these rows.",
    "duplicate_keys": "Keep one row per key, or name the right unit and time in the study.",
    "wrong_type": "Convert the column to numbers when loading; write yes and no as 1 and 0.",
    "date_as_text": "Store it as a date (YYYY-MM-DD in CSV) and look for values that are not dates.",
    "treatment_not_binary": "Recode the treatment to 1 (treated) and 0 (not treated).",
    "target_not_binary": "Recode the target to 1 (the event) and 0, or set prediction.problem_type: regression.",
    "date_in_future": "Correct these dates or remove the rows.",
    "infinite_values": "Replace them by numbers or empty values; a division by zero is the usual cause.",
    "allowed_values": "Use the vocabulary's values.",
    "range": "Correct these values.",
}

_DETAIL = {
    "missing_column": "{name} is missing.",
    "missing_values": "{rows} have no {name}.",
    "duplicate_keys": "{rows} share their key ({key}) with another row.",
    "wrong_type": "{name} has type {example}.",
    "date_as_text": "{name} holds text, not dates.",
    "treatment_not_binary": "{rows} have a value of {name} other than 0 and 1, such as {example}.",
    "target_not_binary": "{rows} have a value of {name} other than 0 and 1, such as {example}.",
    "date_in_future": "{rows} have a future {name}, such as {example}.",
    "infinite_values": "{rows} have an infinite {name}.",
}


class SchemaCrashed(E2IError):
    """A schema's rule did not end; the caller's guard turns it into a blocking finding."""


def study_schema_findings(subject: Subject) -> Findings:
    """Judge the table by the schema of the study's roles."""
    from e2i.mlops.pandera_schemas import examine, study_schema

    schema = study_schema(subject.study, subject.frame, problem=subject.problem, today=subject.reference)
    checks, failures = examine(subject.frame, schema, suite="pandera:study")
    _stop_at_crash(failures)
    return Findings(checks=checks, issues=[_study_issue(failure, subject) for failure in failures])


def table_schema_findings(frame: pl.DataFrame, table: str) -> Findings:
    """Judge the table by the schema of the domain table `table`."""
    from e2i.mlops.pandera_schemas import SCHEMAS, examine

    checks, failures = examine(frame, SCHEMAS[table], suite=f"pandera:{table}")
    _stop_at_crash(failures)
    key = [column.name for column in TABLES[table].columns if column.unique]
    issues = [
        _blocking(failure, failure.check, _detail(failure, failure.check, frame.height, what=f"column of {table}", key=key))
        for failure in failures
    ]
    return Findings(checks=checks, issues=issues)


def study_suite_findings(subject: Subject) -> Findings:
    """Judge the table by the Great Expectations suite of the study's roles."""
    from e2i.mlops.quality_suites import run_rules, study_rules

    return _suite_findings(run_rules(subject.frame, study_rules(subject), suite="study"), height=subject.frame.height)


def table_suite_findings(frame: pl.DataFrame, suite: str) -> Findings:
    """Judge the table by the Great Expectations suite of a domain table."""
    from e2i.mlops.quality_suites import SUITES, run_rules

    return _suite_findings(run_rules(frame, SUITES[suite], suite=suite), height=frame.height)


def _stop_at_crash(failures: list[SchemaFailure]) -> None:
    for failure in failures:
        if failure.crashed:
            raise SchemaCrashed(f"rule {failure.check} on {failure.column}.")


def _study_issue(failure: SchemaFailure, subject: Subject) -> QCIssue:
    names = subject.roles.get(failure.column or "", ())
    code = failure.check
    if code == "wrong_type" and {"time", "event_time"} & set(names) and failure.example == "String":
        code = "date_as_text"
    detail = _detail(failure, code, subject.frame.height, what=" and ".join(names) or "column", key=key_columns(subject.study))
    if code == "date_in_future":
        detail += f" The reference day is {subject.reference}."
    return _blocking(failure, code, detail)


def _blocking(failure: SchemaFailure, code: str, detail: str) -> QCIssue:
    return QCIssue(check=code, severity="blocking", detail=detail, advice=_ADVICE[code], column=failure.column, value=failure.rows)


def _detail(failure: SchemaFailure, code: str, height: int, *, what: str, key: list[str] | tuple[str, ...]) -> str:
    text = _DETAIL.get(code, "{rows} have a value of {name} that breaks the rule '{code}', such as {example}.")
    name, rows = f"{failure.column!r} ({what})", count(failure.rows or 0, height)
    return text.format(name=name, rows=rows, key=", ".join(key), code=code, example=failure.example)


def _suite_findings(results: list[RuleResult], *, height: int) -> Findings:
    found = Findings()
    for outcome in results:
        found.checks.append(outcome.result)
        rule = outcome.rule
        if outcome.crashed:
            raise SchemaCrashed(f"{outcome.result.expectation} on {outcome.result.column}.")
        if not outcome.result.passed:
            found.issues.append(_suite_issue(rule, outcome, height))
    return found


def _suite_issue(rule: Rule, outcome: RuleResult, height: int) -> QCIssue:
    share = outcome.result.unexpected_share or 0.0
    about = " and ".join(repr(column) for column in rule.columns) or "the table"
    bad = count(round(share * height), height)
    seen = outcome.result.observed
    detail = f"{outcome.result.expectation} failed for {about}{f' in {bad}' if seen is None else f', observed {seen}'}."
    if rule.kind == "ordered":
        detail = f"{rule.columns[1]!r} is less than {rule.columns[0]!r} in {bad}."
    return QCIssue(
        check=rule.check,
        severity=rule.severity,
        detail=detail,
        advice=rule.advice,
        column=rule.columns[0] if len(rule.columns) == 1 else None,
        value=share,
        threshold=1 - rule.mostly,
    )
