"""Pandera schemas: six of the domain tables, from the one vocabulary, and one inferred from a study's roles.

Frames are validated eagerly: Pandera checks only the column types of a LazyFrame. Extra columns are allowed; a missing
optional column never fails. `examine` casts values to the schema's types first, where the cast loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from e2i.domain.quality import CheckResult
from e2i.domain.scope import key_columns, roles, used_columns
from e2i.domain.vocabulary import AGENT_ACTIVITIES, BUSINESS_METRICS, CAUSAL_PATHS, ML_PREDICTIONS, PATIENT_JOURNEYS, TRIGGERS
from e2i.mlops.quality_checks import is_coded

if TYPE_CHECKING:
    from datetime import date

    from e2i.domain.experiments import ProblemType
    from e2i.domain.study import Study
    from e2i.domain.vocabulary import Column, Table

_TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}
_FAMILY = {"column_exists": "completeness", "not_null": "completeness", "unique": "uniqueness", "unique_key": "uniqueness"}
_CODES = {
    SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME: ("column_exists", "missing_column"),
    SchemaErrorReason.SERIES_CONTAINS_NULLS: ("not_null", "missing_values"),
    SchemaErrorReason.SERIES_CONTAINS_DUPLICATES: ("unique", "duplicate_keys"),
    SchemaErrorReason.DUPLICATES: ("unique_key", "duplicate_keys"),
    SchemaErrorReason.WRONG_DATATYPE: ("type", "wrong_type"),
}


def cast_lossless(frame: pl.DataFrame, schema: pa.DataFrameSchema) -> pl.DataFrame:
    """`frame` with every column cast to the schema's type that keeps all its values; text and the others stay as they are.

    Pandera's own coercion is not used: it gives up on all columns when one cannot be cast, crashes when a required one is
    missing, and turns 3.7 into 3 without a word.
    """
    for name, column in schema.columns.items():
        if name not in frame.columns or column.dtype is None:
            continue
        values, wanted = frame.get_column(name), column.dtype.type
        if values.dtype != wanted and _is_kin(values.dtype, wanted):
            cast = values.cast(wanted, strict=False)
            if _keeps(values, cast):
                frame = frame.with_columns(cast)
    return frame


def _is_kin(actual: pl.DataType, wanted: pl.DataType) -> bool:
    """Numbers are kin to numbers, dates to moments, and a whole number or a category may be text."""
    if wanted == pl.String:
        return actual.is_integer() or actual in (pl.Categorical, pl.Enum)
    if wanted.is_numeric():
        return actual.is_numeric()
    return actual in (pl.Date, pl.Datetime) and wanted.is_temporal()


def _keeps(values: pl.Series, cast: pl.Series) -> bool:
    if cast.null_count() != values.null_count():
        return False
    return cast.dtype == pl.String or values.dtype == pl.Decimal or not bool((cast.cast(values.dtype) != values).any())


def table_schema(table: Table) -> pa.DataFrameSchema:
    """The Pandera schema of a domain table."""
    return pa.DataFrameSchema({column.name: _column(column) for column in table.columns}, strict=False, name=table.name)


def _column(column: Column) -> pa.Column:
    checks = []
    if column.allowed:
        checks.append(pa.Check.isin(list(column.allowed), name="allowed_values"))
    if column.minimum is not None:
        checks.append(pa.Check.ge(column.minimum, name="range"))
    if column.maximum is not None:
        checks.append(pa.Check.le(column.maximum, name="range"))
    dtype = _TYPES[column.type]
    return pa.Column(dtype, checks=checks, nullable=column.nullable, unique=column.unique, required=column.required)


BusinessMetricSchema = table_schema(BUSINESS_METRICS)
PredictionSchema = table_schema(ML_PREDICTIONS)
TriggerSchema = table_schema(TRIGGERS)
PatientJourneySchema = table_schema(PATIENT_JOURNEYS)
CausalPathSchema = table_schema(CAUSAL_PATHS)
AgentActivitySchema = table_schema(AGENT_ACTIVITIES)
SCHEMAS: dict[str, pa.DataFrameSchema] = {
    schema.name: schema
    for schema in (BusinessMetricSchema, PredictionSchema, TriggerSchema, PatientJourneySchema, CausalPathSchema, AgentActivitySchema)
}
"""SQL table name -> its schema"""

_NO_GAPS = ("unit", "time", "treatment")
_NUMERIC = ("treatment", "outcome", "target")
_MOMENTS = ("time", "event_time")


def study_schema(study: Study, frame: pl.DataFrame, *, problem: ProblemType, today: date) -> pa.DataFrameSchema:
    """What `frame` must be for the study's roles.

    Every column with a role is there; unit, time and treatment have no gaps; the key (see `key_columns`) is unique; the
    treatment is 0 or 1, a binary target too; outcome and target are numbers; event_time is a date, time a date or a whole
    number (a period); neither lies after `today`; every number in a used column is finite.
    """
    has_levels = study.effect is not None and study.effect.reference is not None
    columns = {
        name: _role_column(frame, name, tuple(role for role in names if not (has_levels and role == "treatment")), problem, today)
        for name, names in roles(study).items()
    }
    if study.prediction is None and study.time in frame.columns and frame.schema[study.time] in (pl.String, pl.Float64):
        columns[study.time] = pa.Column(frame.schema[study.time], nullable=False)  # periods such as 2004Q1, as the causal part reads them
    for name in used_columns(study, frame.columns):
        if name not in columns and frame.schema[name].is_float():
            columns[name] = pa.Column(frame.schema[name], checks=[_finite()], nullable=True)
    key = key_columns(study)
    unique = list(key) if key and set(key) <= set(frame.columns) else None
    return pa.DataFrameSchema(columns, unique=unique, strict=False, name="study")


def _role_column(frame: pl.DataFrame, name: str, names: tuple[str, ...], problem: ProblemType, today: date) -> pa.Column:
    actual = frame.schema.get(name)
    dtype: Any = actual
    checks = [_finite()] if actual is not None and actual.is_float() else []
    if any(role in _MOMENTS for role in names):
        dtype = actual if actual is not None and _is_moment(actual, names) else pl.Date()
        if actual is not None and actual.is_temporal():
            checks.append(pa.Check.le(_last_moment(actual, today), name="date_in_future"))
    elif any(role in _NUMERIC for role in names):
        dtype = actual if actual is not None and (actual.is_numeric() or actual == pl.Boolean) else pl.Float64()
        checks += _coded(frame[name], names, problem) if actual is not None else []
    return pa.Column(dtype, checks=checks, nullable=not any(role in _NO_GAPS for role in names))


def _coded(values: pl.Series, names: tuple[str, ...], problem: ProblemType) -> list[pa.Check]:
    if not values.dtype.is_numeric():
        return []
    codes = [0.0, 1.0] if values.dtype.is_float() else [0, 1]
    found = []
    if "treatment" in names and is_coded(values):
        found.append(pa.Check.isin(codes, name="treatment_not_binary"))
    if "target" in names and problem == "binary_classification":
        found.append(pa.Check.isin(codes, name="target_not_binary"))
    return found


def _is_moment(dtype: pl.DataType, names: tuple[str, ...]) -> bool:
    return dtype in (pl.Date, pl.Datetime) or (dtype.is_integer() and "event_time" not in names)


def _last_moment(dtype: pl.DataType, today: date) -> Any:
    """The last instant of `today`, in the column's own type and zone."""
    if dtype == pl.Date:
        return today
    from datetime import UTC, datetime, time

    zone = getattr(dtype, "time_zone", None)
    return datetime.combine(today, time.max, tzinfo=UTC if zone else None)


def _finite() -> pa.Check:
    return pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_infinite().not_()), name="infinite_values")


@dataclass(frozen=True, kw_only=True)
class SchemaFailure:
    """One rule that a frame broke. `check` is the issue's code, `rows` how many rows broke it, `example` one bad value."""

    check: str
    column: str | None
    rows: int | None
    example: str | None
    crashed: bool = False


def examine(frame: pl.DataFrame, schema: pa.DataFrameSchema, *, suite: str) -> tuple[list[CheckResult], list[SchemaFailure]]:
    """Cast what can be cast, validate all rules, and tell every rule that ran and every rule that was broken."""
    try:
        schema.validate(cast_lossless(frame, schema), lazy=True)
        errors: list[SchemaError] = []
    except SchemaErrors as found:
        errors = list(found.schema_errors)
    broken: dict[tuple[str, str | None], SchemaFailure] = {}
    for error in errors:
        expectation, failure = _failure(error)
        broken.setdefault((expectation, failure.column), failure)
    wrong_type = {column for expectation, column in broken if expectation == "type"}
    broken = {at: failure for at, failure in broken.items() if not (failure.crashed and failure.column in wrong_type)}
    checks = [_result(suite, rule, column, broken.get((rule, column)), frame.height) for rule, column in _planned(frame, schema)]
    key = ", ".join(schema.unique or ())
    checks = [replace(check, column=key) if check.expectation == "unique_key" else check for check in checks]
    return checks, list(broken.values())


def _failure(error: SchemaError) -> tuple[str, SchemaFailure]:
    rule, code = _CODES.get(error.reason_code, ("", ""))
    column = error.column_name
    if error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
        column = str(error.failure_cases)
    if not code:
        rule = code = str(getattr(error.check, "name", error.check))
    cases = error.failure_cases
    rows = cases.height if isinstance(cases, pl.DataFrame) else None
    first = str(cases.row(0)[0]) if rows and code != "duplicate_keys" else None
    if code == "wrong_type":
        first = str(cases)
    crashed = error.reason_code is SchemaErrorReason.CHECK_ERROR
    return rule, SchemaFailure(check=code, column=column, rows=rows, example=None if crashed else first, crashed=crashed)


def _planned(frame: pl.DataFrame, schema: pa.DataFrameSchema) -> list[tuple[str, str | None]]:
    planned: list[tuple[str, str | None]] = []
    for name, column in schema.columns.items():
        if column.required:
            planned.append(("column_exists", name))
        if name not in frame.columns:
            continue
        planned.append(("type", name))
        planned += [("not_null", name)] * (not column.nullable) + [("unique", name)] * bool(column.unique)
        planned += [(rule, name) for rule in dict.fromkeys(str(check.name) for check in column.checks)]
    if schema.unique:
        planned.append(("unique_key", None))
    return planned


def _result(suite: str, rule: str, column: str | None, failure: SchemaFailure | None, height: int) -> CheckResult:
    share = None
    if failure is not None:
        share = failure.rows / height if failure.rows is not None and height else 1.0
    return CheckResult(
        suite=suite,
        expectation=rule,
        family=_FAMILY.get(rule, "validity"),
        passed=failure is None,
        column=column,
        observed=None if failure is None or failure.rows is None else f"{failure.rows} rows",
        unexpected_share=share if failure is not None else 0.0,
    )
