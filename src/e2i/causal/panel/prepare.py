"""From long rows to a panel: one row per unit and period, ordered, or a refusal that says why not."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.encoding import encode, numeric
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.partial_start import begins_between
from e2i.causal.panel.periods import DAY_ORDERS, Moments, distinct, read_moments, refuse_negative_starts, without_never
from e2i.domain.disclosure import counted, visible
from e2i.domain.nearest import suggestion
from e2i.errors import DataError, NotIdentified, NoVariation, SchemaMismatch, TooFewRows

_ALONE = ("interrupted_time_series",)
"""designs in which a unit is its own control"""


def make_panel(frame: pl.DataFrame, spec: Identification) -> Panel:
    """Rows with outcome and treatment, in the order of unit and period; in repeated cross-sections several per unit (group) and period.

    A cohort is the first treated period: empty, 0, infinite or after the last period means never treated; one between two
    periods means the later. Rows may come in any order.

    Raises
    ------
    SchemaMismatch
        A column is missing or of a wrong type, a unit-time is duplicated, a unit or time is missing, treatment is not 0/1,
        cohort or cluster varies within a unit.
    DataError
        Outcomes are infinite, or weights are not positive.
    TooFewRows
        One unit, or one period.
    NotIdentified
        Nobody is treated, nobody is a control, or treatment starts in the first period for everybody.
    """
    unit, time = _require_roles(frame, spec)
    moments = read_moments(frame[time])
    _require_present(frame, unit, moments, time)
    outcome = numeric(frame[spec.outcome])
    dose = None if spec.cohort is not None else _treatment(frame[spec.treatment], spec)
    keep = ~np.isnan(outcome) if dose is None else ~(np.isnan(outcome) | np.isnan(dose))
    if not keep.any():
        raise TooFewRows("no row has both treatment and outcome.", where="panel", advice="Check the join that brought them together.")
    period_values = distinct(moments.values[keep])
    period_of_row = np.searchsorted(period_values, moments.values)
    order = _order(frame[unit], period_of_row, keep)
    rows = _filled_within_units(frame.select(list(dict.fromkeys(_named(spec))))[order], spec)
    codes, unit_names = _codes(rows[unit])
    periods = period_of_row[order]
    if not spec.is_repeated_cross_section:
        _refuse_duplicates(codes, periods, (unit, time))
    names = _period_names(rows[time], periods)
    if len(period_values) < 2:
        raise TooFewRows(f"one period only ({names[0]}).", where=f"column {time}", advice="Add periods before and after treatment.")
    cohort, between = None, 0
    if spec.cohort is not None:
        cohort, between = _cohort(rows, codes, moments=moments, periods=period_values, spec=spec)
    treatment = dose[order] if dose is not None else _treated(cohort, codes, periods)
    if cohort is not None and spec.treatment in frame.columns:
        _require_agreement(frame[spec.treatment][order], rows, cohort, at=(codes, periods), spec=spec)
    covariates = encode(rows, tuple(name for name in spec.adjustment if name not in (unit, time)))
    if spec.is_repeated_cross_section:
        _require_one_treatment(treatment, codes, periods, spec)
    panel = Panel(
        unit=codes,
        time=periods.astype(np.int64),
        outcome=outcome[order],
        treatment=treatment,
        unit_names=unit_names,
        period_names=names,
        period_values=period_values,
        cluster=_clusters(rows, codes, None if spec.is_repeated_cross_section else spec.cluster, unit=unit),
        place=_places(rows, codes, None if spec.is_repeated_cross_section else spec.place),
        covariates=covariates.matrix,
        covariate_names=covariates.names,
        weights=_weights(rows, spec.weights),
        negative_controls={name: numeric(rows[name]) for name in spec.negative_controls},
        row_cluster=_row_clusters(rows, spec.cluster) if spec.is_repeated_cross_section else None,
        cohort_given=cohort,
        begun_between=between,
        rows_given=frame.height,
        notes=(*_left_out(frame.height, len(order)), *covariates.notes),
    )
    _require_design(panel, spec)
    return panel


def _filled_within_units(rows: pl.DataFrame, spec: Identification) -> pl.DataFrame:
    """Confounders that stay the same within every unit, where a row lacks them: the unit's other rows know them."""
    if spec.is_repeated_cross_section:
        return rows
    for name in spec.adjustment:
        column = pl.col(name).fill_nan(None) if rows[name].dtype.is_float() else pl.col(name)
        known = rows.select(str(spec.unit), value=column).drop_nulls()
        if name == spec.unit or known.height in (0, rows.height):
            continue
        if known.group_by(str(spec.unit)).agg(pl.col("value").n_unique())["value"].max() == 1:
            rows = rows.with_columns(column.fill_null(column.drop_nulls().first().over(str(spec.unit))).alias(name))
    return rows


def _require_roles(frame: pl.DataFrame, spec: Identification) -> tuple[str, str]:
    if spec.unit is None or spec.time is None:
        raise SchemaMismatch("a panel needs `unit` and `time`.", where="study", advice="Name the columns that say who and when.")
    for name in _named(spec):
        if name not in frame.columns:
            raise SchemaMismatch(f"column `{name}` is not in the data.", where="effect", advice=suggestion(name, frame.columns))
    return spec.unit, spec.time


def _named(spec: Identification) -> tuple[str, ...]:
    single = (spec.unit, spec.time, spec.outcome, spec.cohort or spec.treatment, spec.cluster, spec.place, spec.weights)
    return (*(name for name in single if name is not None), *spec.adjustment, *spec.negative_controls)


def _require_present(frame: pl.DataFrame, unit: str, moments: Moments, time: str) -> None:
    if frame.height == 0:
        raise TooFewRows("the table has no rows.", where="panel", advice="Check the source and its filters.")
    units = frame[unit]
    no_unit = units.null_count() + (int(units.is_nan().sum()) if units.dtype.is_float() else 0)
    for column, count in ((unit, no_unit), (time, int(np.isnan(moments.values).sum()))):
        if count:
            raise SchemaMismatch(
                f"missing {'unit' if column == unit else 'time'}: {counted(count, 'rows')} have no `{column}`.",
                where=f"column {column}",
                advice="Fill it or remove these rows: it is not known whose they are, or when.",
            )


def _treatment(series: pl.Series, spec: Identification) -> FloatArray:
    advice = "Recode it: 1 in treated periods, else 0; for the first treated period use `cohort`."
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise SchemaMismatch(f"treatment `{series.name}` is {series.dtype}, not 0/1.", where=f"column {series.name}", advice=advice)
    values = numeric(series)
    known = values[~np.isnan(values)]
    if spec.treatment_kind != "continuous" and not ((known == 0) | (known == 1)).all():
        shown = ", ".join(f"{value:g}" for value in np.unique(known)[:5])
        raise SchemaMismatch(f"treatment `{series.name}` is not 0/1: it has values {shown}.", where=f"column {series.name}", advice=advice)
    return values


def _order(units: pl.Series, periods: IntArray, keep: BoolArray) -> IntArray:
    """Row numbers that are kept, by unit, then time."""
    rows = np.flatnonzero(keep)
    key = units.rank("dense").to_numpy().astype(np.int64)[rows] * (int(periods.max()) + 1) + periods[rows]
    if (np.diff(key) < 0).any():
        rows = rows[np.argsort(key, kind="stable")]
    return rows.astype(np.int64)


def _codes(units: pl.Series) -> tuple[IntArray, tuple[str, ...]]:
    """0 … N-1 per row of units in order, and their names."""
    new = (units != units.shift(1)).fill_null(value=True)
    codes: IntArray = np.cumsum(new.to_numpy()).astype(np.int64) - 1
    names = units.filter(new)
    if names.dtype.is_float() and (names == names.round()).all():
        names = names.cast(pl.Int64)
    return codes, tuple(names.cast(pl.String).to_list())


def _refuse_duplicates(codes: IntArray, periods: IntArray, columns: tuple[str, str]) -> None:
    twice = np.flatnonzero((np.diff(codes) == 0) & (np.diff(periods) == 0))
    if len(twice):
        unit, time = columns
        raise SchemaMismatch(
            f"duplicate unit-time: {counted(len(twice), 'rows')} repeat a `{unit}` and `{time}` that has a row already.",
            where=f"columns {unit}, {time}",
            advice="Sum or average them to one row per unit and period, or remove the copies.",
        )


def _require_one_treatment(treatment: FloatArray, codes: IntArray, periods: IntArray, spec: Identification) -> None:
    same_cell = (np.diff(codes) == 0) & (np.diff(periods) == 0)
    if (same_cell & (np.diff(treatment) != 0)).any():
        raise SchemaMismatch(
            f"`{spec.treatment}` differs between rows of one `{spec.unit}` and `{spec.time}`.",
            where=f"column {spec.treatment}",
            advice=f"Name as `unit` the group that is treated as a whole; if `{spec.unit}` is one person, keep one row per period.",
        )


def _row_clusters(rows: pl.DataFrame, column: str | None) -> IntArray | None:
    """Of repeated cross-sections, shape (n,): the clusters that the study names."""
    if column is None:
        return None
    _require_no_gap(rows, column)
    return rows[column].cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1


def _period_names(times: pl.Series, periods: IntArray) -> tuple[str, ...]:
    first = np.empty(int(periods.max()) + 1, dtype=np.int64)
    first[periods] = np.arange(len(periods))
    found = times[first]
    if found.dtype == pl.Datetime and (found.dt.truncate("1d") == found).all():
        found = found.dt.date()
    if found.dtype.is_float() and (found == found.round()).all():
        found = found.cast(pl.Int64)
    return tuple(found.cast(pl.String).to_list())


def _cohort(rows: pl.DataFrame, codes: IntArray, *, moments: Moments, periods: FloatArray, spec: Identification) -> tuple[IntArray, int]:
    """First treated period per unit, and how many units begin on a day between two periods."""
    name = str(spec.cohort)
    values = _moments_of_cohorts(rows, name, form=moments.form, time=str(spec.time))
    _require_constant(values, codes, what="cohort", column=name)
    first = values[np.flatnonzero(np.diff(codes, prepend=-1))]
    refuse_negative_starts(first, periods, name)
    zero = first == 0
    if zero.any() and periods[0] < 0 < periods[-1] and not np.isnan(first).any():
        raise SchemaMismatch(
            f"cohort `{name}` is 0 for {counted(int(zero.sum()), 'units')}, and 0 is also a period.",
            where=f"column {name}",
            advice="Leave the cohort of never treated units empty, or count periods from 1.",
        )
    never = np.isnan(first) | (first > periods[-1]) | (zero & ~((periods[0] < 0) & (periods[-1] > 0)))
    found = np.where(never, NEVER, np.searchsorted(periods, np.where(never, 0.0, first))).astype(np.int64)
    is_day = moments.form == "date" or moments.form in DAY_ORDERS
    return found, begins_between(np.where(never, np.nan, first), periods) if is_day else 0


def _moments_of_cohorts(rows: pl.DataFrame, name: str, *, form: str, time: str) -> FloatArray:
    series = without_never(rows[name])
    if form != "text":
        if form != "number" and series.dtype.is_numeric():
            series = series.set(series == 0, None)
        return read_moments(series, form=form).values
    if series.dtype not in (pl.String, pl.Categorical, pl.Enum) and series.null_count() < len(series):
        raise SchemaMismatch(f"cohort `{name}` is {series.dtype}, time is text.", where=f"column {name}", advice="Write both alike.")
    texts = series.cast(pl.String).str.strip_chars()
    levels = texts.drop_nulls().unique().sort()
    times = rows[time].cast(pl.String).str.strip_chars().unique().sort()
    if levels.len() and set(levels.str.replace_all(r"\d", "9").to_list()) != set(times.str.replace_all(r"\d", "9").to_list()):
        raise SchemaMismatch(
            f"cohort `{name}` holds `{levels[0]}`, time `{times[0]}`.", where=f"column {name}", advice="Write both in the same form."
        )
    ranks = np.searchsorted(np.array(times.to_list(), dtype=str), np.array(levels.to_list(), dtype=str))
    lookup = dict(zip(levels.to_list(), ranks.astype(np.float64).tolist(), strict=True))
    found: FloatArray = texts.replace_strict(lookup, default=None, return_dtype=pl.Float64).to_numpy().astype(np.float64)
    return found


def _treated(cohort: IntArray | None, codes: IntArray, periods: IntArray) -> FloatArray:
    assert cohort is not None
    begun = cohort[codes]
    on: FloatArray = ((begun != NEVER) & (periods >= begun)).astype(np.float64)
    return on


def _require_agreement(
    given: pl.Series, rows: pl.DataFrame, cohort: IntArray, *, at: tuple[IntArray, IntArray], spec: Identification
) -> None:
    """A 0/1 treatment column beside the cohort begins when the cohort says; or it marks the units that are ever treated.

    It may end again, as a cohort asks for the effect of having begun, and may begin within the periods of anticipation.
    """
    if not (given.dtype.is_numeric() or given.dtype == pl.Boolean):
        return
    values = numeric(given)
    known = ~np.isnan(values)
    if not np.isin(values[known], (0.0, 1.0)).all():  # `treatment` is only a name, and another column happens to bear it
        return
    codes, periods = at
    begun = cohort[codes]
    has_begun = _running_maximum(np.where(known, values, 0.0), codes) > 0
    ahead = (begun != NEVER) & (periods < begun) & (periods >= begun - spec.anticipation)
    differs = known & ~ahead & (has_begun != (_treated(cohort, codes, periods) > 0))
    if differs.any() and _is_fixed(values, codes, known):
        named = without_never(rows[str(spec.cohort)])
        is_named = (named.is_not_null() & (named != 0) if named.dtype.is_numeric() else named.is_not_null()).to_numpy()
        differs = known & ((values > 0) != is_named)
    count = int(differs.sum())
    if count:
        how_often = f"{count / int(known.sum()):.1%} of rows" if visible(count) is not None else counted(count, "rows")
        raise SchemaMismatch(
            f"`{spec.treatment}` and cohort `{spec.cohort}` disagree in {how_often} about who is treated when.",
            where=f"columns {spec.treatment}, {spec.cohort}",
            advice="Correct the one that is wrong; leave `cohort` out if the 0/1 column is right, or name a treatment that is no column.",
        )


def _running_maximum(values: FloatArray, codes: IntArray) -> FloatArray:
    """Of values in 0-1 within each unit, whose rows stand together in order of time."""
    out: FloatArray = np.maximum.accumulate(values + 2.0 * codes) - 2.0 * codes
    return out


def _is_fixed(values: FloatArray, codes: IntArray, known: BoolArray) -> bool:
    """The known values of no unit change."""
    own, place = values[known], codes[known]
    return not ((np.diff(place) == 0) & (np.diff(own) != 0)).any()


def _require_constant(values: FloatArray, codes: IntArray, *, what: str, column: str) -> None:
    same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    broken = np.unique(codes[1:][~same & (np.diff(codes) == 0)])
    if len(broken):
        raise SchemaMismatch(
            f"{what} `{column}` varies within {counted(len(broken), 'units')}; it must be constant per unit.",
            where=f"column {column}",
            advice=f"Give every row of a unit the same `{column}`"
            + (f" (a unit that changes {what} has no one {what} to count for)." if what in ("cluster", "place") else "."),
        )


def _clusters(rows: pl.DataFrame, codes: IntArray, column: str | None, *, unit: str) -> IntArray:
    if column is None or column == unit:
        return np.arange(int(codes[-1]) + 1, dtype=np.int64)
    _require_no_gap(rows, column)
    return _of_units(rows, codes, column, what="cluster")


def _places(rows: pl.DataFrame, codes: IntArray, column: str | None) -> IntArray | None:
    if column is None:
        return None
    _require_no_gap(rows, column, what="place")
    return _of_units(rows, codes, column, what="place")


def _of_units(rows: pl.DataFrame, codes: IntArray, column: str, *, what: str) -> IntArray:
    """0 … G-1 per unit, shape (N,), of a column that does not change within a unit."""
    ranks = rows[column].cast(pl.String).rank("dense").to_numpy().astype(np.float64)
    _require_constant(ranks, codes, what=what, column=column)
    return np.unique(ranks[np.flatnonzero(np.diff(codes, prepend=-1))], return_inverse=True)[1].astype(np.int64)


def _require_no_gap(rows: pl.DataFrame, column: str, *, what: str = "cluster") -> None:
    count = rows[column].null_count()
    if count:
        raise SchemaMismatch(f"missing {what}: {counted(count, 'rows')} have no `{column}`.", where=f"column {column}", advice="Fill it.")


def _weights(rows: pl.DataFrame, column: str | None) -> FloatArray | None:
    if column is None:
        return None
    values = numeric(rows[column])
    wrong = int((~(values > 0)).sum())
    if wrong:
        raise DataError(
            f"weights must be positive: {counted(wrong, 'rows')} of `{column}` are negative, zero or missing.",
            where=f"column {column}",
            advice="Correct the weights, or remove rows that shall not count.",
        )
    return values


def _left_out(given: int, kept: int) -> tuple[str, ...]:
    return (f"{counted(given - kept, 'rows')} without outcome or treatment were left out",) if kept < given else ()


def _require_design(panel: Panel, spec: Identification) -> None:
    """Somebody is treated, somebody is not at the same time, and something is seen before."""
    if panel.n_units < 2 and spec.design not in _ALONE:
        raise TooFewRows("one unit only.", where=f"column {spec.unit}", advice="A panel design needs units to compare with.")
    if spec.treatment_kind == "continuous":
        if np.ptp(panel.treatment) == 0:
            raise NoVariation("the dose is the same in every row.", where=f"column {spec.treatment}", advice="Check how it was built.")
        return
    name = f"column {spec.cohort or spec.treatment}"
    treated = panel.cohort != NEVER
    if not (panel.treatment > 0).any():
        raise NotIdentified("no treated unit: treatment is 0 in every row.", where=name, advice="Check the treatment and its periods.")
    if not (treated & ~panel.is_treated_from_start).any():
        raise NotIdentified(
            "no pre-period: every treated unit is treated in its first period, so nothing shows how it was before.",
            where=name,
            advice="Add earlier periods. If the column marks the group and not the period, give the first treated period as `cohort`.",
        )
    if spec.design not in _ALONE and not _has_controls(panel):
        raise NotIdentified(
            "no control: no unit is never treated or not yet treated while others are.",
            where=name,
            advice="Add units that were not treated, or treated later.",
        )


def _has_controls(panel: Panel) -> bool:
    """In some period with a treated row of a unit that was seen untreated, another unit is untreated."""
    on = np.zeros(panel.n_periods, dtype=np.bool_)
    off = on.copy()
    treated = panel.treatment > 0
    on[panel.time[treated & ~panel.is_treated_from_start[panel.unit]]] = True
    off[panel.time[~treated]] = True
    return bool((on & off).any())
