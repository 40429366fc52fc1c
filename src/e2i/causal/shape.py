"""What the data look like: one row per unit or units over time, which kind of treatment, which kind of outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, cast

import polars as pl

from e2i.causal.design import OutcomeKind, TreatmentKind
from e2i.causal.panel.periods import read_moments, refuse_negative_starts, without_never
from e2i.domain.study import EffectSpec
from e2i.errors import NotIdentified, NoVariation, SchemaMismatch

_MAXIMUM_LEVELS = 12
_COPIES = 0.05
"""share of groups and periods with differing outcomes up to which several rows are copies of one"""
_ZEROS = 0.05
"""share of zeros from which whole numbers are a count with many zeros"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the router looks at."""

    is_panel: bool
    """units are seen several times"""
    treatment_kind: TreatmentKind
    outcome_kind: OutcomeKind
    units: int
    periods: int
    treated_units: int = 0
    never_treated: int = 0
    pre_periods: int = 0
    """periods before the first treatment"""
    starts: int = 0
    """distinct first treated periods"""
    is_repeated: bool = False
    """rows are different people in groups and periods, several in most of them"""
    always_treated: int = 0
    """units seen under treatment only, in none of the other counts where others begin later"""


def measure_shape(frame: pl.DataFrame, effect: EffectSpec, *, unit: str | None, time: str | None) -> Shape:
    """Units, periods and kinds of treatment and outcome. Raises SchemaMismatch and NoVariation."""
    outcome_kind = _outcome_kind(frame[effect.outcome])
    units = frame[unit].n_unique() if unit is not None else frame.height
    periods = frame[time].n_unique() if time is not None else 1
    is_single_series = time is not None and unit is None and periods == frame.height
    is_panel = is_single_series or (unit is not None and time is not None and periods > 1 and frame.height > units)
    if not is_panel:
        by_cohort = effect.cohort is not None and effect.treatment not in frame.columns
        single: TreatmentKind = "staggered" if by_cohort else _cross_kind(frame, effect)
        return Shape(is_panel=False, treatment_kind=single, outcome_kind=outcome_kind, units=units, periods=periods)
    begun = _begun(frame, effect, unit=unit, time=cast("str", time))
    is_repeated = unit is not None and effect.design in ("auto", "did") and _has_several(frame, effect, (unit, cast("str", time)))
    if begun is None:
        return Shape(
            is_panel=True,
            treatment_kind="continuous",
            outcome_kind=outcome_kind,
            units=1 if is_single_series else units,
            periods=periods,
            is_repeated=is_repeated,
        )
    times = _periods(frame[cast("str", time)])
    begun, always_treated = _without_always_treated(begun)
    first = begun["start"].drop_nulls()
    if first.is_empty():
        raise NoVariation(
            "no unit is treated within the data.",
            where=f"column {effect.cohort or effect.treatment}",
            advice="Check its coding: 1 = treated.",
        )
    kind: TreatmentKind = "staggered" if first.n_unique() > 1 else "binary"
    if bool(begun["switches"].any()):
        kind = "on_off"
    return Shape(
        is_panel=True,
        treatment_kind=kind,
        outcome_kind=outcome_kind,
        units=1 if is_single_series else units,
        periods=periods,
        treated_units=len(first),
        never_treated=int(begun["start"].null_count()),
        pre_periods=int((times < first.min()).sum()),
        starts=first.n_unique(),
        is_repeated=is_repeated,
        always_treated=always_treated,
    )


def _has_several(frame: pl.DataFrame, effect: EffectSpec, cell: tuple[str, str]) -> bool:
    """Most groups and periods have two rows or more, and these are not copies of one: accidental duplicates are no cross-sections."""
    told = tuple(name for name in (effect.outcome, *effect.confounders, *effect.negative_controls) if name not in cell)
    rows = frame.select(*cell, *dict.fromkeys(told)).drop_nulls((*cell, effect.outcome))
    cells = rows.group_by(cell).agg(pl.len().alias("rows"), pl.struct(*dict.fromkeys(told)).n_unique().alias("values"))
    several = cells.filter(pl.col("rows") >= 2)
    if several.height < 0.5 * cells.height or several.height == 0:
        return False
    return int((several["values"] >= 2).sum()) > _COPIES * several.height


def _begun(frame: pl.DataFrame, effect: EffectSpec, *, unit: str | None, time: str) -> pl.DataFrame | None:
    """Per unit its first period, its first treated one (null: never), and whether treatment ends again; None for a dose.

    Periods are compared as the panel reads them: "10" comes after "9".
    """
    moments = read_moments(frame[time])
    value = frame[effect.cohort or effect.treatment]
    if effect.cohort is not None and moments.form != "text":
        value = _moments_of_cohorts(value, moments.form)
    rows = pl.DataFrame(
        {
            "unit": pl.repeat(0, frame.height, eager=True) if unit is None else frame[unit],
            "time": frame[time].cast(pl.String) if moments.form == "text" else pl.Series(moments.values).fill_nan(None),
            "value": value,
        }
    ).drop_nulls(["unit", "time"])
    if effect.cohort is not None:
        return _begun_by_cohort(rows, effect.cohort)
    if not (rows["value"].dtype.is_numeric() or rows["value"].dtype == pl.Boolean):
        _refuse_text(effect.treatment, rows["value"])
    values = rows.with_columns(pl.col("value").cast(pl.Float64)).drop_nulls("value").filter(pl.col("value").is_not_nan())
    levels = values["value"].unique().sort()
    if not levels.is_in([0.0, 1.0]).all():
        if len(levels) == 2:
            _refuse_coding(effect.treatment, levels)
        return None
    begun = values.group_by("unit").agg(
        pl.col("time").min().alias("seen"),
        pl.col("time").filter(pl.col("value") == 1).min().alias("start"),
        pl.col("time").filter(pl.col("value") == 0).max().alias("last_off"),
    )
    return begun.with_columns((pl.col("last_off") > pl.col("start")).fill_null(False).alias("switches"))


def _periods(series: pl.Series) -> pl.Series:
    """Distinct periods as `_begun` writes them."""
    moments = read_moments(series)
    values = series.cast(pl.String) if moments.form == "text" else pl.Series(moments.values).fill_nan(None)
    return values.unique().drop_nulls().sort()


def _without_always_treated(begun: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Units of which something is seen before treatment, and how many are not such; all where treatment ends, or none is left."""
    is_always = (pl.col("start") <= pl.col("seen")).fill_null(value=False)
    seen_before = begun.filter(~is_always)
    if bool(begun["switches"].any()) or seen_before["start"].null_count() == seen_before.height:
        return _with_one_start(begun), 0
    return _with_one_start(seen_before), begun.height - seen_before.height


def _with_one_start(begun: pl.DataFrame) -> pl.DataFrame:
    """One start for all where nothing contradicts it: a unit whose row is missing in that period seems to start later."""
    if "last_off" not in begun.columns:  # the study names the start
        return begun
    is_treated, first = pl.col("start").is_not_null(), pl.col("start").min()
    is_one = (pl.col("last_off").filter(is_treated).max() < first).fill_null(value=False)
    return begun.with_columns(pl.when(is_treated & is_one).then(first).otherwise(pl.col("start")).alias("start"))


def _moments_of_cohorts(series: pl.Series, form: str) -> pl.Series:
    """First treated periods on the clock of the time column, null for never treated units."""
    given = without_never(series)
    if form != "number" and given.dtype.is_numeric():
        given = given.set(given == 0, None)
    return pl.Series(read_moments(given, form=form).values).fill_nan(None)


def _begun_by_cohort(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    last = rows["time"].max()
    value = pl.col("value")
    if rows["value"].dtype.is_numeric():
        number = pl.col("value").cast(pl.Float64)
        if rows["time"].dtype.is_numeric():
            starts, periods = (rows[name].cast(pl.Float64).to_numpy() for name in ("value", "time"))
            refuse_negative_starts(starts, periods, column)
        value = pl.when((number == 0) | number.is_infinite() | number.is_nan()).then(None).otherwise(pl.col("value"))
    elif rows["value"].dtype == pl.String:
        value = pl.col("value").replace("", None)
    begun = rows.group_by("unit", value.alias("start")).agg(pl.col("time").min().alias("seen"))
    if begun["unit"].n_unique() < begun.height:
        raise SchemaMismatch(
            f"`{column}` changes within a unit.",
            where=f"column {column}",
            advice="It holds the unit's first treated period, the same in all its rows.",
        )
    if begun["start"].dtype != rows["time"].dtype and not (begun["start"].dtype.is_numeric() and rows["time"].dtype.is_numeric()):
        raise SchemaMismatch(
            f"`{column}` is {begun['start'].dtype}, the time column is {rows['time'].dtype}.",
            where=f"column {column}",
            advice="Give both in the same form.",
        )
    late = pl.when(pl.col("start") > last).then(None).otherwise(pl.col("start"))
    return begun.with_columns(late.alias("start"), pl.lit(False).alias("switches"))


def _cross_kind(frame: pl.DataFrame, effect: EffectSpec) -> TreatmentKind:
    series = frame[effect.treatment].drop_nulls()
    if series.dtype == pl.Boolean:
        return "binary"
    if effect.reference is not None:
        return _levels_kind(series, effect)
    if not series.dtype.is_numeric():
        if series.n_unique() <= 2 or series.n_unique() > _MAXIMUM_LEVELS:
            _refuse_text(effect.treatment, series)
        raise SchemaMismatch(
            f"treatment `{effect.treatment}` has the levels {_shown(series)}.",
            where=f"column {effect.treatment}",
            advice="Name the one that the others are compared with: `reference` under `effect`.",
        )
    values = series.cast(pl.Float64).drop_nans()
    levels = values.unique()
    if len(levels) <= 1 or levels.is_in([0.0, 1.0]).all():
        return "binary"
    if len(levels) == 2:
        _refuse_coding(effect.treatment, levels)
    return "continuous"


def _levels_kind(series: pl.Series, effect: EffectSpec) -> TreatmentKind:
    names = series.cast(pl.String).unique()
    if effect.reference not in names.to_list():
        raise SchemaMismatch(
            f"treatment `{effect.treatment}` has no level `{effect.reference}`; it has {_shown(names)}.",
            where="effect.reference",
            advice="Name a level as it stands in the data.",
        )
    if len(names) > _MAXIMUM_LEVELS:
        raise NotIdentified(
            f"treatment `{effect.treatment}` has {len(names)} levels; at most {_MAXIMUM_LEVELS} can be compared.",
            where=f"column {effect.treatment}",
            advice="Group the levels, or leave `reference` out if it is a dose.",
        )
    return "multi_level"


def _outcome_kind(series: pl.Series) -> OutcomeKind:
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        _refuse_text(series.name, series, role="outcome")
    values = series.cast(pl.Float64).drop_nulls().drop_nans()
    if values.is_in([0.0, 1.0]).all():
        return "binary"
    is_count = len(values) > 0 and bool((values >= 0).all()) and bool((values == values.round()).all())
    return "count" if is_count and int((values == 0).sum()) > _ZEROS * len(values) else "continuous"


def _refuse_coding(column: str, levels: pl.Series) -> NoReturn:
    raise SchemaMismatch(
        f"treatment `{column}` has the values {_shown(levels)}, not 0/1.",
        where=f"column {column}",
        advice="Recode it: 1 = treated, 0 = not treated.",
    )


def _refuse_text(column: str, series: pl.Series, *, role: str = "treatment") -> None:
    coded = "1 = treated, 0 = not treated" if role == "treatment" else "1 = yes, 0 = no, or the amount itself"
    raise SchemaMismatch(
        f"{role} `{column}` is {series.dtype} ({_shown(series)}), not numbers.",
        where=f"column {column}",
        advice=f"Recode it: {coded}.",
    )


def _shown(series: pl.Series) -> str:
    levels = series.drop_nulls().unique().sort().to_list()
    return ", ".join(str(level) for level in levels[:5]) + (" …" if len(levels) > 5 else "")
