"""What schemas and suites cannot say: gaps, variation, size, identifiers, text that should be something else, freshness.

Every check is a pure function of a `Subject` and returns the rules that ran and the findings. Shares are in 0-1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import polars as pl

from e2i.domain.experiments import ProblemType
from e2i.domain.nearest import did_you_mean
from e2i.domain.quality import CheckResult, QCIssue, Severity
from e2i.domain.scope import MINIMUM_EVENTS, judged_column, key_columns, minimum_samples, roles, used_columns
from e2i.domain.study import Study

SUITE = "structure"
MISSING_LIMIT = 0.10
"""share of empty values above which a column is reported"""
FRESHNESS = ((30, 1.0), (60, 0.7))
"""age in days of the newest row -> score; older rows score STALE"""
STALE = 0.4
RATE_TOLERANCE = 0.001


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The table under judgement. `reference` is the day after which a date lies in the future."""

    frame: pl.DataFrame
    study: Study
    problem: ProblemType
    reference: date
    roles: dict[str, tuple[str, ...]]
    used: tuple[str, ...]

    @classmethod
    def of(cls, frame: pl.DataFrame, *, study: Study, problem: ProblemType, reference: date) -> Subject:
        """Derive roles and used columns from the study."""
        return cls(
            frame=frame, study=study, problem=problem, reference=reference, roles=roles(study), used=used_columns(study, frame.columns)
        )

    def is_feature(self, column: str) -> bool:
        """Whether the column may describe a row: no role, or only roles of a covariate."""
        return set(self.roles.get(column, ())) <= {"feature", "confounder", "modifier"}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a check saw."""

    checks: list[CheckResult] = field(default_factory=list)
    issues: list[QCIssue] = field(default_factory=list)

    def rule(self, name: str, family: str, column: str | None, *, unexpected: float, passed: bool) -> None:
        """Record a rule that ran; `unexpected` is the share of values that break it."""
        self.checks.append(
            CheckResult(suite=SUITE, expectation=name, family=family, passed=passed, column=column, unexpected_share=unexpected)
        )

    def add(self, check: str, severity: Severity, detail: str, *, advice: str, column: str | None = None, **limits: float) -> None:
        """Record a finding; `limits` are `value` and `threshold`."""
        self.issues.append(QCIssue(check=check, severity=severity, detail=detail, advice=advice, column=column, **limits))


def count(rows: int, of: int) -> str:
    """`3 of 5,000 rows (0.1 %)`."""
    share = 100 * rows / of if of else 0.0
    return f"{rows:,} of {of:,} rows ({share:.1f} %)" if share >= 0.1 or rows == 0 else f"{rows:,} of {of:,} rows"


def missing(series: pl.Series) -> int:
    """Empty values; NaN is empty."""
    return series.null_count() + (int(series.is_nan().sum()) if series.dtype.is_float() else 0)


def is_coded(treatment: pl.Series) -> bool:
    """0 and 1 are meant: two values or fewer, or hardly any other; else it is a dose, or levels."""
    values = known(treatment)
    return values.n_unique() <= 2 or int(values.cast(pl.Float64).is_in([0.0, 1.0]).sum()) > (1 - _STRAY) * len(values)


def known(series: pl.Series) -> pl.Series:
    """The values that are there; NaN is not."""
    return (series.fill_nan(None) if series.dtype.is_float() else series).drop_nulls()


def check_columns(subject: Subject) -> Findings:
    """Every column that the study names is in the table."""
    found, advice = Findings(), "Correct the study file or add the column."
    for column, names in subject.roles.items():
        there = column in subject.frame.columns
        found.rule("column_exists", "completeness", column, unexpected=0.0 if there else 1.0, passed=there)
        if not there:
            near = did_you_mean(column, subject.frame.columns)
            found.add(
                "missing_column",
                "blocking",
                f"the study names {column!r} as {' and '.join(names)}, but the table has no such column.",
                advice=f"{near} {advice}" if near is not None else advice,
                column=column,
            )
    return found


def check_size(subject: Subject) -> Findings:
    """Enough rows with a known target, and both classes where it is binary."""
    found = Findings()
    column, needed = judged_column(subject.study), minimum_samples(subject.study, subject.problem)
    values = known(subject.frame[column]) if column in subject.frame.columns else pl.Series([None] * subject.frame.height)
    enough = len(values) >= needed
    found.rule("labelled_rows", "completeness", column, unexpected=max(0.0, 1 - len(values) / needed), passed=enough)
    if not enough:
        found.add(
            "too_few_rows",
            "blocking",
            f"{len(values):,} rows with a known {column!r}; a {subject.problem.replace('_', ' ')} needs at least {needed:,}.",
            advice="Load a longer period, more units or fewer filters.",
            value=len(values),
            threshold=needed,
        )
    levels = values.value_counts() if enough and subject.problem == "binary_classification" and column in subject.frame.columns else None
    if levels is not None and levels.height == 2:
        rarest = int(levels["count"].min())  # type: ignore[arg-type]  # counts are never null
        found.rule("both_classes", "validity", column, unexpected=max(0.0, 1 - rarest / MINIMUM_EVENTS), passed=rarest >= MINIMUM_EVENTS)
        if rarest < MINIMUM_EVENTS:
            found.add(
                "too_few_events",
                "blocking",
                f"the rarer value of {column!r} occurs in {count(rarest, len(values))}; at least {MINIMUM_EVENTS} are needed.",
                advice="Load more rows, lengthen the horizon, or choose an event that is less rare.",
                column=column,
                value=rarest,
                threshold=MINIMUM_EVENTS,
            )
    return found


def check_gaps(subject: Subject) -> Findings:
    """Empty columns and columns with many gaps; rows without target or outcome are counted."""
    found = Findings()
    height = subject.frame.height
    for column in subject.used:
        gaps = missing(subject.frame[column])
        share = gaps / height if height else 1.0
        names = subject.roles.get(column, ())
        found.rule("few_gaps", "completeness", column, unexpected=share, passed=share <= MISSING_LIMIT)
        if gaps == height and height:
            _add_empty(found, column, names)
        elif gaps and {"target", "outcome"} & set(names):
            found.add(
                "rows_without_label",
                "warning",
                f"{count(gaps, height)} have no {column!r}; they are left out where it is needed.",
                advice="Check that values are missing for reasons that have nothing to do with treatment or outcome.",
                column=column,
                value=share,
            )
        elif share > MISSING_LIMIT and "cohort" not in names:
            found.add(
                "many_gaps",
                "warning",
                f"{count(gaps, height)} have no {column!r}.",
                advice="Complete the column, or exclude it if the gaps carry no meaning.",
                column=column,
                value=share,
                threshold=MISSING_LIMIT,
            )
    return found


def _add_empty(found: Findings, column: str, names: tuple[str, ...]) -> None:
    role = f" ({' and '.join(names)})" if names else ""
    found.add(
        "all_missing_column",
        "blocking",
        f"{column!r}{role} is empty in every row.",
        advice="Fill the column, or take it out of the study (prediction.exclude).",
        column=column,
        value=1.0,
    )


_STRAY = 0.02
"""share of a 0/1 treatment up to which other values are mistakes"""
_DESCRIBING = {"protected", "group", "time", "event_time", "negative_control", "cohort"}
"""roles of columns that teach nothing anyway; a constant one is odd, and harmless"""


def check_variation(subject: Subject) -> Findings:
    """Columns with a single value teach nothing: a study that would learn from one was not looked at, and stops."""
    found = Findings()
    for column in subject.used:
        values = known(subject.frame[column])
        if values.is_empty():
            continue
        names = subject.roles.get(column, ())
        constant = values.n_unique() == 1
        found.rule("varies", "validity", column, unexpected=float(constant), passed=not constant)
        if not constant:
            continue
        if "target" in names and subject.problem == "binary_classification":
            found.add(
                "one_class",
                "blocking",
                f"the target {column!r} is {values[0]} in every row: there is one class only.",
                advice="Load rows in which the event happened and rows in which it did not.",
                column=column,
            )
            continue
        describes = bool(names) and set(names) <= _DESCRIBING
        found.add(
            "constant_column",
            "warning" if describes else "blocking",
            f"{column!r}{f' ({names[0]})' if names else ''} has the same value in every row.",
            advice="Load rows in which it varies, or take it out of the study (prediction.exclude).",
            column=column,
        )
    return found


def check_rows(subject: Subject) -> Findings:
    """Whole rows that occur twice, in a table whose study names no key; with a key the schema judges."""
    found = Findings()
    if key_columns(subject.study) or subject.frame.is_empty():
        return found
    repeated = subject.frame.height - subject.frame.n_unique()
    share = repeated / subject.frame.height
    found.rule("rows_differ", "uniqueness", None, unexpected=share, passed=repeated == 0)
    if repeated:
        found.add(
            "duplicate_rows",
            "warning",
            f"{count(repeated, subject.frame.height)} repeat another row in every column.",
            advice="Name the unit in the study so that repeated keys are found, or remove the copies.",
            value=share,
        )
    return found


def check_dates(subject: Subject) -> Findings:
    """Dates in the future in columns without a role of time; columns with one are judged by the schema."""
    found = Findings()
    for column in subject.used:
        values = subject.frame[column]
        if values.dtype not in (pl.Date, pl.Datetime) or {"time", "event_time"} & set(subject.roles.get(column, ())):
            continue
        late = int((values.dt.date() > subject.reference).sum())
        share = late / max(len(values), 1)
        found.rule("not_in_future", "validity", column, unexpected=share, passed=late == 0)
        if late:
            found.add(
                "date_in_future",
                "warning",
                f"{count(late, len(values))} of {column!r} lie after {subject.reference}.",
                advice="Correct them, or exclude the column if it holds plans.",
                column=column,
                value=share,
            )
    return found


def check_freshness(subject: Subject) -> Findings:
    """Age of the newest row on the day the data claim to be current; without such a claim freshness is unknown, not good."""
    found = Findings()
    as_of = subject.study.data.as_of
    moments = [column for column in subject.used if {"time", "event_time"} & set(subject.roles.get(column, ()))]
    newest = [subject.frame[column].dt.date().max() for column in moments if subject.frame[column].dtype in (pl.Date, pl.Datetime)]
    days = [day for day in newest if isinstance(day, date)]
    if as_of is None or not days:
        why = "the study gives no data.as_of" if as_of is None else "the study has no date in time or event_time"
        found.add(
            "timeliness_unknown",
            "info",
            f"freshness is unknown: {why}. Its weight is left out of the score.",
            advice="Give data.as_of (the day the data claim to be current) and a time or event_time column to have it judged.",
        )
        return found
    age = max((as_of - max(days)).days, 0)
    score = next((value for limit, value in FRESHNESS if age <= limit), STALE)
    found.rule("newest_row", "timeliness", None, unexpected=1 - score, passed=score > STALE)
    if score < 1:
        found.add(
            "stale_data",
            "warning",
            f"the newest row is {age} days older than {as_of}.",
            advice="Load newer rows, or correct data.as_of.",
            value=age,
            threshold=FRESHNESS[0][0],
        )
    return found


def check_stated_rates(frame: pl.DataFrame) -> Findings:
    """business_metrics: the stated achievement_rate is value over target, to the rounding of its third decimal."""
    found = Findings()
    if not {"achievement_rate", "value", "target"} <= set(frame.columns):
        return found
    stated, value, target = (pl.col(name).cast(pl.Float64) for name in ("achievement_rate", "value", "target"))
    off = int(frame.select(((stated - value / target).abs() > RATE_TOLERANCE).sum()).item())
    share = off / max(frame.height, 1)
    found.rule("stated_rate", "accuracy", "achievement_rate", unexpected=share, passed=off == 0)
    if off:
        found.add(
            "stated_rate_differs",
            "warning",
            f"{count(off, frame.height)} state an achievement_rate that is not value / target.",
            advice="Compute the rate again from value and target.",
            column="achievement_rate",
            value=share,
        )
    return found
