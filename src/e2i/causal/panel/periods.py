"""Points in time, in whatever form a table holds them, as increasing numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray
from e2i.errors import DataError, SchemaMismatch

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = rf"(?i:{'|'.join(_MONTH_NAMES)})[a-zA-Z]*\.?"
_OFFSET = r"(?:[+-]\d{2}:?\d{2}|Z)"
_WEEK, _WEEK_MARK = r"(?:0[1-9]|[1-4]\d|5[0-3])", r"(?i:w|cw|kw|wk)"
_FORMS: tuple[tuple[str, str], ...] = (
    ("date", r"^\d{4}-\d{2}-\d{2}$"),
    ("datetime", r"^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?$"),
    ("datetime with offset", rf"^\d{{4}}-\d{{2}}-\d{{2}}[ T]\d{{2}}:\d{{2}}(:\d{{2}}(\.\d+)?)?{_OFFSET}$"),
    ("compact date", r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"),
    ("date with slashes", r"^\d{4}/\d{1,2}/\d{1,2}$"),
    ("date with a month's name", rf"^\d{{1,2}}[-/ ]?{_NAMED}[-/ ,]*\d{{4}}$"),
    ("month", r"^\d{4}[-/ ]?[mM](0[1-9]|1[0-2]|[1-9])$|^\d{4}[-/](0[1-9]|1[0-2])$"),
    ("month without zeros", r"^\d{4}[-/]([1-9]|1[0-2])$"),
    ("month's name", rf"^{_NAMED}[-/ ,]*\d{{4}}$|^\d{{4}}[-/ ]?{_NAMED}$"),
    ("month's name, short year", rf"^{_NAMED}[-/ ']+\d{{2}}$|^\d{{2}}[-/ ']+{_NAMED}$"),
    ("month before year", r"^(0?[1-9]|1[0-2])[-/](19|20)\d{2}$"),
    ("compact month", r"^(19|20)\d{2}(0[1-9]|1[0-2])$"),
    ("compact week", rf"^(19|20)\d{{2}}{_WEEK}$"),
    ("quarter", r"^\d{4}[-/ ]?[qQ][1-4]$|^[qQ][1-4][-/ ']?(\d{2}|\d{4})$|^[1-4][qQ][-/ ']?(\d{2}|\d{4})$"),
    ("week", rf"^\d{{4}}[- ]?{_WEEK_MARK}({_WEEK}|[1-9])$|^{_WEEK_MARK}[ -]?({_WEEK}[-/ ]?|[1-9][-/ ])(19|20)\d{{2}}$"),
    ("number", r"^[+-]?\d+(\.\d+)?$"),
    ("name and number", r"^[A-Za-z][A-Za-z _-]*\d+$"),
)
DAY_ORDERS = {"month/day/year": (0, 1), "day/month/year": (1, 0)}
"""form -> places of month and day in 01/31/2024"""
_SLASHES = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}$"
_MIDNIGHT = r" (0?0:00(:00)?|12:00(:00)? ?[aA][mM])$"
_AMERICAN = r"^(0?[1-9]|1[0-2])/\d{1,2}/\d{2}$"
"""1/31/24: with a middle number above 12 it is a month, a day and a short year"""
_PLAIN = {
    "compact date": "date",
    "datetime": "date",
    "datetime with offset": "date",
    "date with slashes": "date",
    "date with a month's name": "date",
    "compact month": "month",
    "month without zeros": "month",
    "month's name": "month",
    "month's name, short year": "month",
    "month before year": "month",
    "compact week": "week",
}
_YEAR_LAST = r"^([A-Za-z][A-Za-z _-]*\d{1,2}|\d{1,2}\.|(0[1-9]|1[0-2]))(19|20)\d{2}$"
"""S12024, 12.2024 and 012024: read as one number, the next year comes first"""
_SHORT_QUARTER = r"^[qQ][1-4]\d{2}$"
"""Q101: the first quarter of 2001, or number 101"""
_YEAR_MARK = r"(?i)^(fy|cy|y|yr|year)[ _'-]*\d"
_DAY_FIRST = r"^\d{1,2}\D+\d{1,2}\D+\d{2,4}$|^\d{1,2}\D+\d{4}$"
_WORDS_FOR_NEVER = ("", "0", "0.0", "never", "none", "inf", "infinity", "nan", "na", "null")


@dataclass(frozen=True, kw_only=True)
class Moments:
    """A column of moments: `values` has shape (n,), NaN where missing; `form` says how it was read."""

    values: FloatArray
    form: str
    """number, date (days; month/day/year and day/month/year where text says so), month, quarter, week (counts), or text (rank)"""


def read_moments(series: pl.Series, *, form: str | None = None) -> Moments:
    """Numbers as they are, dates and times as days since 1970, months, quarters and weeks counted, in text or as 202401.

    Parameters
    ----------
    form : how another column of the same clock was read; this one must be in the same form

    Raises
    ------
    SchemaMismatch
        The column cannot be ordered for sure, or is in another form than `form`.
    """
    text = series.dtype in (pl.String, pl.Categorical, pl.Enum)
    found = _by_level(series.cast(pl.String).str.strip_chars(), form=form) if text else _from_values(series, form)
    if form is not None and found.form != form and not np.isnan(found.values).all():
        raise SchemaMismatch(
            f"`{series.name}` holds moments as {found.form}, the time column as {form}.",
            where=f"column {series.name}",
            advice="Write both columns in the same form.",
        )
    return found


def without_never(series: pl.Series) -> pl.Series:
    """A cohort column with null where the words or numbers say "never treated" and need no clock to be understood."""
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        words = series.cast(pl.String).str.strip_chars()
        return words.set(words.str.to_lowercase().is_in(list(_WORDS_FOR_NEVER)), None)
    if series.dtype.is_float():
        return series.set(series.is_nan() | series.is_infinite(), None)
    return series


def refuse_negative_starts(starts: FloatArray, periods: FloatArray, column: str) -> None:
    """A first treated period of -1 where time has no negative periods is a code for something, most likely for "never".

    Raises
    ------
    SchemaMismatch
    """
    wrong = starts[np.isfinite(starts) & (starts < 0)]
    if len(wrong) and np.nanmin(periods) >= 0:
        raise SchemaMismatch(
            f"cohort `{column}` has the value {wrong[0]:g}, and no period is negative.",
            where=f"column {column}",
            advice="If it stands for never treated, leave it empty or write 0; else write the first treated period.",
        )


def distinct(values: FloatArray) -> FloatArray:
    """Sorted distinct values; hashing is faster than sorting where few differ."""
    found: FloatArray = pl.Series(values).unique().sort().to_numpy().astype(np.float64)
    return found


def _from_values(series: pl.Series, form: str | None) -> Moments:
    if series.dtype.is_temporal() and series.dtype in (pl.Date, pl.Datetime):
        micros = series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64).to_numpy().astype(np.float64)
        return Moments(values=micros / 86_400e6, form="date")
    if not series.dtype.is_numeric():
        raise SchemaMismatch(
            f"time `{series.name}` is {series.dtype}; numbers, dates or text such as 2024-01 are needed.",
            where=f"column {series.name}",
            advice="Convert it to a number or a date.",
        )
    values = series.cast(pl.Float64).to_numpy().astype(np.float64)
    if np.isinf(values).any():
        raise DataError(f"time `{series.name}` holds infinite values.", where=f"column {series.name}", advice="Correct those rows.")
    known = distinct(values[~np.isnan(values)])
    if len(known) and (known == np.round(known)).all():
        if form != "week" and _is_compact_month(known):
            return Moments(values=12.0 * np.floor(values / 100) + values % 100, form="month")
        if form in (None, "week") and _are_compact_weeks(known, is_told=form is not None):
            return _by_level(series.cast(pl.Int64).cast(pl.String), form=form)
        padded = pl.Series(series.name, known).cast(pl.Int64).cast(pl.String).str.zfill(6)
        if padded.str.contains(r"^(0[1-9]|1[0-2])(19|20)\d{2}$").all() and _hides_year(padded):
            raise _unsure(padded)
        if (known >= 19_000_101).all() and (known <= 21_001_231).all():
            return _by_level(series.cast(pl.Int64).cast(pl.String))
    return Moments(values=values, form="number")


def _is_compact_month(known: FloatArray) -> bool:
    """Whole numbers such as 202401, in at least one case over a turn of the year or within one year."""
    return bool((known >= 190_001).all() and (known <= 210_012).all() and ((known % 100 >= 1) & (known % 100 <= 12)).all())


def _are_compact_weeks(known: FloatArray, *, is_told: bool) -> bool:
    """Whole numbers such as 202452, 202501, of several years, or known to be weeks; each is a week of that year by ISO 8601."""
    year, week = known // 100, known % 100
    if (known < 190_001).any() or (known > 210_053).any() or ((week < 1) | (week > 53)).any():
        return False
    spans = is_told or (len(np.unique(year)) > 1 and bool((week > 12).any()))
    return spans and all(_has_week(int(one // 100), int(one % 100)) for one in known[week == 53])


def _has_week(year: int, week: int) -> bool:
    from datetime import date

    return week <= date(year, 12, 28).isocalendar().week


def _by_level(series: pl.Series, *, form: str | None = None) -> Moments:
    """Read each distinct text once; where the texts alone leave the order of day and month open, `form` says it."""
    levels = series.drop_nulls().unique().sort()
    if levels.len() == 0:
        return Moments(values=np.full(len(series), np.nan), form="number")
    numbers, found = _levels(levels, form)
    lookup = dict(zip(levels.to_list(), numbers.tolist(), strict=True))
    values = series.replace_strict(lookup, default=None, return_dtype=pl.Float64)
    return Moments(values=values.to_numpy().astype(np.float64), form=found)


def _levels(levels: pl.Series, given: str | None) -> tuple[FloatArray, str]:
    hides_year = _hides_year(levels)
    for form, pattern in _FORMS:
        if hides_year and form in ("number", "name and number"):
            break
        if levels.str.contains(pattern).all() and _is_meant(levels, form, given):
            numbers = _read(levels, form)
            is_short = form == "month's name, short year" or levels.str.contains(_SHORT_QUARTER).all()
            if given is None and is_short and np.ptp(numbers) >= 2 * len(numbers):
                raise _unsure(levels)  # most of the periods in between are not there: they may be no quarters, no months of years
            return numbers, _PLAIN.get(form, form)
    if levels.str.contains(_MIDNIGHT).all():
        levels = levels.str.replace(_MIDNIGHT, "")
    if levels.str.contains(_AMERICAN).all() and (given == "month/day/year" or levels.str.contains(r"/(1[3-9]|[23]\d)/").any()):
        return _read(levels, "month/day/year"), "month/day/year"
    if levels.str.contains(_SLASHES).all():
        order = given if given in DAY_ORDERS else _order_of_day_and_month(levels)
        if order is not None:
            return _read(levels, order), order
    templates = levels.str.replace_all(r"\d", "9").unique()
    is_sure = templates.len() == 1 and "9" in templates[0] and not levels.str.contains(_DAY_FIRST).any() and not hides_year
    if not is_sure or not _is_largest_first(levels):
        raise _unsure(levels)
    return np.arange(levels.len(), dtype=np.float64), "text"


def _is_meant(levels: pl.Series, form: str, given: str | None) -> bool:
    """Whether texts of this pattern are of this form, where others could look so."""
    if form == "name and number":
        return _has_one_name(levels)
    if form == "compact month":
        return given != "week"
    if form == "compact week":
        known = levels.cast(pl.Float64).to_numpy().astype(np.float64)
        return given in (None, "week") and _are_compact_weeks(known, is_told=given is not None)
    if form == "month before year" and given is None:  # 1/2023 to 4/2024 may be quarters
        return int(levels.str.extract(r"^(\d+)").cast(pl.Int64).max()) > 4 or levels.str.slice(-4).n_unique() == 1  # type: ignore[arg-type]
    if form == "month's name, short year" and given is None:  # 05-Jan may be a day without a year, unless the number changes
        return not levels.str.contains(r"^\d").any() or levels.str.slice(0, 2).n_unique() > 1
    return True


def _unsure(levels: pl.Series) -> SchemaMismatch:
    by_form = levels.to_frame("level").unique(pl.col("level").str.replace_all(r"\d", "9"), maintain_order=True)["level"]
    shown = ", ".join(f"`{level}`" for level in (by_form if by_form.len() > 1 else levels).head(3).to_list())
    return SchemaMismatch(
        f"time `{levels.name}` has periods whose order is not sure: {shown}.",
        where=f"column {levels.name}",
        advice="Write the year first (2024-01-31, 2024-01, 2024Q1, 2024-W01), or pad numbers with zeros (week 01, week 10).",
    )


def _hides_year(levels: pl.Series) -> bool:
    """Whether one number seems to end in a year that varies, as what stands before it does."""
    varies = levels.str.slice(-4).n_unique() > 1 and levels.str.replace(r"\d{4}$", "").n_unique() > 1
    return varies and bool(levels.str.contains(_YEAR_LAST).all())


def _has_one_name(levels: pl.Series) -> bool:
    """W1, W2 … W10: with one name before all numbers, the numbers are the order."""
    return levels.str.replace(r"[ _-]*\d+$", "").str.to_lowercase().n_unique() == 1


def _is_largest_first(levels: pl.Series) -> bool:
    """Whether the order of the text is that of time: one number varies, or the year is first, by its length or by its name (FY24-P01)."""
    groups = np.array([re.findall(r"\d+", str(level)) for level in levels.to_list()])
    varies = np.flatnonzero((groups != groups[0]).any(axis=0))
    if len(varies) < 2 or len(groups[0, varies[0]]) > len(groups[0, varies[1]]):
        return True
    return bool(varies[0] == 0 and levels.str.contains(_YEAR_MARK).all())


def _order_of_day_and_month(levels: pl.Series) -> str | None:
    """Which of the first two numbers is the month, where a number above 12 tells it; None where none does, or both are."""
    parts = np.array([[int(part) for part in re.split(r"\D", str(level))[:2]] for level in levels.to_list()])
    first, second = (bool((parts[:, place] > 12).any()) for place in (0, 1))
    if first == second:
        return None
    return "day/month/year" if first else "month/day/year"


def _read(levels: pl.Series, form: str) -> FloatArray:
    texts = [str(level) for level in levels.to_list()]
    try:
        if _PLAIN.get(form, form) == "date" or form in DAY_ORDERS:
            plain = [_iso_date(text, form) for text in texts]
            return np.array(plain, dtype="datetime64[us]").astype(np.float64) / 86_400e6
        if form == "number":
            return np.array([float(text) for text in texts])
        if form == "name and number":
            return np.array([float(re.sub(r"^\D+", "", text)) for text in texts])
        return np.array([_count(text, form) for text in texts])
    except ValueError as reason:
        raise SchemaMismatch(f"time `{levels.name}`: {reason}.", where=f"column {levels.name}", advice="Correct those dates.") from reason


def _iso_date(text: str, form: str) -> str:
    if form in ("date", "datetime"):
        return text.rstrip("Z")
    if form == "datetime with offset":  # the local date is the period's name, in whichever zone it was written
        return re.sub(f"{_OFFSET}$", "", text)
    if form == "compact date":
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    if form in DAY_ORDERS:
        month, day = (numbers[place] for place in DAY_ORDERS[form])
        return f"{_full_year(text[-2:] if numbers[2] < 100 else str(numbers[2])):04}-{month:02}-{day:02}"
    if form == "date with a month's name":
        return f"{numbers[1]:04}-{_month_of(text):02}-{numbers[0]:02}"
    return f"{numbers[0]:04}-{numbers[1]:02}-{numbers[2]:02}"


def _month_of(text: str) -> int:
    name = re.sub(r"[^a-z]", "", text.lower())[:3]
    return _MONTH_NAMES.index(name) + 1


def _full_year(digits: str) -> int:
    """Two digits as POSIX reads them: 69 to 99 are of the last century."""
    year = int(digits)
    return year if len(digits) == 4 else year + (1900 if year >= 69 else 2000)


def _count(text: str, form: str) -> float:
    if form.startswith("month's name"):
        return 12.0 * _full_year(re.sub(r"\D", "", text)) + _month_of(text)
    if form == "month before year":
        return 12.0 * int(text[-4:]) + int(text[:-5])
    if form in ("week", "compact week"):
        from datetime import date

        first, last = (text[:4], text[4:]) if text[:4].isdigit() else (text[-4:], text[:-4])
        year, week = int(first), int(re.sub(r"\D", "", last))
        return float(date.fromisocalendar(year, week, 1).toordinal() // 7)
    if form == "quarter" and not text[:4].isdigit():
        digits = re.sub(r"\D", "", text)
        return 4.0 * _full_year(digits[1:]) + int(digits[0])
    per_year = 4.0 if form == "quarter" else 12.0
    return per_year * int(text[:4]) + int(re.sub(r"\D", "", text[4:]))
