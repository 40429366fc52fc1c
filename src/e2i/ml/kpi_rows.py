"""A long KPI table made ready: dates as dates, numbers as numbers, the rows of a period, and what had to be left out."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from e2i.errors import ConfigError, SchemaMismatch, TooFewRows
from e2i.ml.columns import require_columns

if TYPE_CHECKING:
    from e2i.domain.gaps import GapSpec

OPTIONAL = ("target", "kind", "sample_size", "low", "high")
NUMBERS = ("value", "target", "sample_size", "low", "high")
KEPT = "__"
"""prefix of the columns with roles, so that no segment column can collide"""
_DAYS_PER_MONTH = 365.25 / 12
_CURRENCIES = frozenset({"currency", "currencycode", "curr", "unitofmeasure", "uom"})


@dataclass(frozen=True, kw_only=True)
class KpiRows:
    """`frame` has `__date`, `__metric`, `__value`, `__target`, `__kind`, `__sample_size`, `__low`, `__high` and the other columns."""

    frame: pl.DataFrame
    warnings: tuple[str, ...]


def plain(name: str) -> str:
    """A metric's name without case, blanks and punctuation.

    >>> plain("Conversion_Rate")
    'conversionrate'
    """
    return "".join(letter for letter in name.lower() if letter.isalnum())


def tidy(frame: pl.DataFrame, spec: GapSpec) -> KpiRows:
    """The rows that `spec` asks for, under the names of their roles.

    Rows without date, metric or value are left out and counted; rows that repeat another in every text, date and number are counted
    once.

    Raises
    ------
    SchemaMismatch
        A column is missing, a date or number cannot be read, a value is infinite, or a metric is in several currencies.
    ConfigError
        A metric or filter value that the table does not have.
    TooFewRows
        Nothing is left.
    """
    names = spec.columns
    columns = [names.date, names.metric, names.value, *_segment_columns(spec), *spec.filters]
    columns += [] if names.benchmark is None else [names.benchmark]
    columns += [value.times for value in spec.values.values() if isinstance(value.times, str)]
    columns += [item.reach for item in spec.proven if isinstance(item.reach, str)]
    _require(frame, columns)
    kept = frame.filter(*(_matches(frame, column, wanted) for column, wanted in spec.filters.items()))
    named = kept.with_columns(
        _dates(kept, names.date).alias(f"{KEPT}date"),
        pl.col(names.metric).cast(pl.String).alias(f"{KEPT}metric"),
        *(_role(kept, role, getattr(names, role)) for role in ("value", *OPTIONAL)),
        *(pl.col(column).cast(pl.String).fill_null("(missing)") for column in _segment_columns(spec)),
    )
    asked = _asked(named, spec)
    _one_currency(asked, spec)
    whole = asked.drop_nulls([f"{KEPT}date", f"{KEPT}metric", f"{KEPT}value"])
    once = whole.unique(subset=_identifying(whole, spec), maintain_order=True)
    if once.is_empty():
        raise TooFewRows("no row has a date, a metric and a value.", where="gaps", advice="Look at the filters and at the table's columns.")
    warnings = []
    if asked.height > whole.height:
        warnings.append(f"{asked.height - whole.height:,} rows without a date, metric or value were left out; they are unknown, not 0.")
    if whole.height > once.height:
        warnings.append(f"{whole.height - once.height:,} repeated rows were counted once.")
    beside = once.height - once.n_unique(subset=_telling_apart(once, spec))
    if beside:
        what = "rows have another value than a row of the same date, metric and cell"
        warnings.append(f"{beside:,} {what}; all are counted. If they are restatements, keep the latest alone.")
    return KpiRows(frame=once, warnings=tuple(warnings))


def bounds(period: str, last: date) -> tuple[date, date]:
    """First and last day of a period in words; `latest_*` is the one that holds `last`.

    >>> bounds("latest_quarter", date(2024, 12, 1))
    (datetime.date(2024, 10, 1), datetime.date(2024, 12, 31))
    >>> bounds("2024-Q1", date(2024, 12, 1))
    (datetime.date(2024, 1, 1), datetime.date(2024, 3, 31))
    """
    if ".." in period:
        first, _, final = period.partition("..")
        try:
            span = date.fromisoformat(first), date.fromisoformat(final)
        except ValueError as error:
            raise ConfigError(f"`{period}` is no period: {error}.", where="gaps.period", advice="Write YYYY-MM-DD..YYYY-MM-DD.") from error
        if span[0] > span[1]:
            raise ConfigError(f"the period `{period}` ends before it begins.", where="gaps.period", advice="Swap the two days.")
        return span
    if period == "latest_year" or period.isdigit():
        year = last.year if period == "latest_year" else int(period)
        return date(year, 1, 1), date(year, 12, 31)
    if period == "latest_quarter":
        return _months(last.year, (last.month - 1) // 3 * 3 + 1, 3)
    if period == "latest_month":
        return _months(last.year, last.month, 1)
    if "Q" in period:
        return _months(int(period[:4]), int(period[-1]) * 3 - 2, 3)
    return _months(int(period[:4]), int(period[-2:]), 1)


def reference_bounds(span: tuple[date, date], *, year_ago: bool) -> tuple[date, date]:
    """The period before, or the same period a year earlier. Whole months stay whole months.

    >>> reference_bounds((date(2024, 4, 1), date(2024, 6, 30)), year_ago=False)
    (datetime.date(2024, 1, 1), datetime.date(2024, 3, 31))
    """
    first, final = span
    whole = first.day == 1 and (final + timedelta(days=1)).day == 1
    length = 12 if year_ago else (final.year - first.year) * 12 + final.month - first.month + 1
    if whole:
        return _months(*_back(first, length), (final.year - first.year) * 12 + final.month - first.month + 1)
    days = timedelta(days=365) if year_ago else final - first + timedelta(days=1)
    return first - days, final - days


def months_per_date(dates: pl.Series) -> float | None:
    """How many months one date of a series stands for, by the usual distance of two dates; None with fewer than two."""
    distinct = dates.unique().sort()
    if distinct.len() < 2:
        return None
    days = float(distinct.diff().drop_nulls().dt.total_days().median())  # type: ignore[arg-type]
    for months, (low, high) in {1: (28, 31), 3: (89, 92), 12: (365, 366)}.items():
        if low <= days <= high:
            return float(months)
    return days / _DAYS_PER_MONTH


def within(frame: pl.DataFrame, span: tuple[date, date]) -> pl.DataFrame:
    """Rows whose date lies in the period, both ends included."""
    return frame.filter(pl.col(f"{KEPT}date").is_between(pl.lit(span[0]), pl.lit(span[1])))


def _back(first: date, months: int) -> tuple[int, int]:
    index = first.year * 12 + first.month - 1 - months
    return index // 12, index % 12 + 1


def _months(year: int, month: int, count: int) -> tuple[date, date]:
    index = year * 12 + month - 1 + count - 1
    last_year, last_month = index // 12, index % 12 + 1
    return date(year, month, 1), date(last_year, last_month, calendar.monthrange(last_year, last_month)[1])


def _require(frame: pl.DataFrame, columns: list[str]) -> None:
    """The columns that roles and segments name; a table in another shape is told which one is meant."""
    missing = [name for name in columns[:3] if name not in frame.columns]
    if missing:
        advice = (
            "One row is one metric of one cell at one date. Name its columns under `gaps.columns`, such as `{date: month, value: trx}`; "
            f"the table has {', '.join(frame.columns[:12])}. Make a table with a column per metric long first."
        )
        raise SchemaMismatch(f"the KPI table has no column {', '.join(f'`{name}`' for name in missing)}.", where="gaps", advice=advice)
    require_columns(frame, columns, where="gaps")


def _one_currency(frame: pl.DataFrame, spec: GapSpec) -> None:
    """Amounts in several currencies are neither added up nor compared."""
    apart = {name for name in spec.peers or () if all(name in by for by in spec.segmentations)}
    for column in frame.columns:
        if plain(column) not in _CURRENCIES or column in apart:
            continue
        several = frame.group_by(f"{KEPT}metric").agg(pl.col(column).drop_nulls().unique().sort()).filter(pl.col(column).list.len() > 1)
        for metric, found in several.sort(f"{KEPT}metric").iter_rows():
            what = f"`{metric}` is in several: {', '.join(map(str, found[:6]))}."
            advice = f"Convert them, keep one by `gaps.filters`, or name {column} in `gaps.peers` and in every one of `gaps.segments`."
            raise SchemaMismatch(what, where=f"gaps, column {column}", advice=advice)


def _matches(frame: pl.DataFrame, column: str, wanted: str | tuple[str, ...]) -> pl.Expr:
    values = (wanted,) if isinstance(wanted, str) else wanted
    present = set(frame[column].cast(pl.String).unique())
    for value in values:
        if value not in present:
            shown = ", ".join(sorted(str(item) for item in present if item is not None)[:12])
            raise ConfigError(f"no row has {column} = `{value}`.", where="gaps.filters", advice=f"The values are: {shown}.")
    return pl.col(column).cast(pl.String).is_in(list(values))


def _dates(frame: pl.DataFrame, column: str) -> pl.Expr:
    dtype = frame.schema[column]
    if dtype == pl.Date:
        return pl.col(column)
    if isinstance(dtype, pl.Datetime):
        return pl.col(column).dt.date()
    if dtype == pl.String:
        text = frame[column].drop_nulls().str.strip_chars()
        parsed = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        if not parsed.has_nulls():
            return pl.col(column).str.strip_chars().str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        shown = text.filter(parsed.is_null())[0]
        raise SchemaMismatch(f"`{shown}` is no date.", where=f"gaps, column {column}", advice="Write dates as YYYY-MM-DD.")
    raise SchemaMismatch(f"column '{column}' is of type {dtype}, not a date.", where="gaps", advice="Write dates as YYYY-MM-DD.")


def _role(frame: pl.DataFrame, role: str, column: str) -> pl.Expr:
    """The column of a role; all missing where the table has no such column."""
    if column not in frame.columns:
        return pl.lit(None, dtype=pl.Float64 if role in NUMBERS else pl.String).alias(f"{KEPT}{role}")
    if role not in NUMBERS:
        return pl.col(column).cast(pl.String).str.to_lowercase().alias(f"{KEPT}{role}")
    numbers = frame[column].cast(pl.Float64, strict=False)
    unread = numbers.is_null() & frame[column].is_not_null()
    if unread.any() or numbers.is_infinite().any():
        shown = frame[column].filter(unread | numbers.is_infinite().fill_null(value=False))[0]
        derived = f"CAST(REPLACE(REPLACE({column}, '$', ''), ',', '') AS DOUBLE)"
        advice = (
            f'Leave unknown numbers empty. Signs and marks go by `data.derive`: `{{number: "{derived}"}}`, named as `gaps.columns.{role}`.'
        )
        raise SchemaMismatch(f"`{shown}` is no finite number.", where=f"gaps, column {column}", advice=advice)
    if role == "sample_size" and (numbers.drop_nulls() < 0).any():
        raise SchemaMismatch("a sample size is below 0.", where=f"gaps, column {column}", advice="Count people, or leave it empty.")
    return pl.lit(numbers.fill_nan(None)).alias(f"{KEPT}{role}")


def _asked(named: pl.DataFrame, spec: GapSpec) -> pl.DataFrame:
    if not spec.metrics:
        return named
    present = named[f"{KEPT}metric"].drop_nulls().unique().sort().to_list()
    for metric in spec.metrics:
        if metric not in present:
            advice = f"The metrics are: {', '.join(present[:12])}."
            raise ConfigError(f"no row is of metric `{metric}`.", where="gaps.metrics", advice=advice)
    return named.filter(pl.col(f"{KEPT}metric").is_in(list(spec.metrics)))


def _segment_columns(spec: GapSpec) -> list[str]:
    return list(dict.fromkeys(column for entry in spec.segmentations for column in entry))


def _identifying(frame: pl.DataFrame, spec: GapSpec) -> list[str]:
    """All columns except keys that number the rows."""
    names = {name for name in frame.columns if not name.lower().endswith("_id") or frame[name].n_unique() < frame.height}
    return [name for name in frame.columns if name in names or name in spec.filters or name in _segment_columns(spec)]


def _telling_apart(frame: pl.DataFrame, spec: GapSpec) -> list[str]:
    """The columns that say what a row is about: not its numbers, nor when it was loaded."""
    roles = {getattr(spec.columns, role) for role in NUMBERS} | {f"{KEPT}{role}" for role in NUMBERS} | {spec.columns.benchmark}
    loaded = {name for name in frame.columns if frame[name].dtype == pl.Date or frame[name].dtype == pl.Datetime} - {f"{KEPT}date"}
    floats = {name for name in frame.columns if frame[name].dtype.is_float()}
    return [name for name in _identifying(frame, spec) if name not in roles | loaded | floats]
