"""Panels with a known effect, and everything that goes wrong with them: what a study must say, or survive."""

# ruff: noqa: E501 - a table reads better in lines
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.domain.study import EffectSpec
from hazard_cells import TRUE_EFFECT, Cell, Fault

SPEC = EffectSpec(treatment="program", outcome="nrx", confounders=("decile",), negative_controls=("other",))
PLAIN = SPEC.model_copy(update={"confounders": ()})
c, ROW = pl.col, pl.int_range(pl.len())
UNIT = c("hcp").rank("dense").cast(pl.Int64)
EVER = c("program").max().over("hcp") > 0
MIDDLE = c("week") > c("week").max() / 2
START = c("first").filter(c("first") > 0).min()
FIRST = c("first")
INFINITE = float("inf")


def _levels(units: int, seed: int) -> tuple[np.random.Generator, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=units)


def _cell(on: BoolArray, level: FloatArray, rng: np.random.Generator, *, spec: EffectSpec = SPEC) -> Cell:
    """Units of different size, a season that all share, and an effect of 2 per period of treatment."""
    units, weeks = on.shape
    season = 2.0 * np.sin(2.0 * np.pi * np.arange(weeks) / 12) + 0.3 * rng.normal(size=weeks)
    nrx = 30.0 + 3.0 * level[:, None] + season + TRUE_EFFECT * on + rng.normal(size=on.shape)
    other = 20.0 + 2.0 * level[:, None] + season + rng.normal(size=on.shape)
    decile = np.clip(np.round(5.0 + 2.0 * level + rng.normal(size=units)), 1, 10)
    columns = {
        "hcp": np.repeat([f"H{number:03}" for number in range(units)], weeks),
        "week": np.tile(np.arange(1, weeks + 1), units),
        "program": on.astype(int).ravel(),
        "nrx": nrx.ravel(),
        "other": other.ravel(),
        "decile": np.repeat(decile, weeks),
        "first": np.repeat(np.where(on.any(axis=1), on.argmax(axis=1) + 1, 0), weeks),
        "noise": rng.normal(size=units * weeks),
    }
    return Cell(frame=pl.DataFrame(columns), spec=spec, unit="hcp", time="week")


def one_start(seed: int, units: int = 80, weeks: int = 12) -> Cell:
    rng, level = _levels(units, seed)
    treated = rng.random(units) < 1.0 / (1.0 + np.exp(0.3 - 0.6 * level))
    return _cell(treated[:, None] & (np.arange(weeks) >= 6), level, rng)


def many_starts(seed: int, units: int = 120, weeks: int = 12) -> Cell:
    rng, level = _levels(units, seed)
    treated = rng.random(units) < 1.0 / (1.0 + np.exp(-0.3 - 0.6 * level))
    start = np.where(treated, rng.choice([4, 6, 8], units), weeks)
    return _cell(np.arange(weeks) >= start[:, None], level, rng)


def on_and_off(seed: int, units: int = 80, weeks: int = 12) -> Cell:
    rng, level = _levels(units, seed)
    on = np.zeros((units, weeks), dtype=np.bool_)
    for week in range(1, weeks):
        on[:, week] = on[:, week - 1] ^ (rng.random(units) < np.where(on[:, week - 1], 0.35, 0.2))
    return _cell(on, level, rng)


def dose(seed: int) -> Cell:
    cell, rng = one_start(seed), np.random.default_rng(1_000 + seed)
    calls = pl.Series(rng.poisson(2.0, cell.frame.height).astype(np.float64))
    return cell.put(nrx=c("nrx") - TRUE_EFFECT * c("program") + TRUE_EFFECT * calls, program=calls)


def one_treated(seed: int, units: int = 20, weeks: int = 30) -> Cell:
    rng, level = _levels(units, seed)
    level = np.where(np.arange(units) == 7, 0.1, 0.5 * level)
    on = (np.arange(units) == 7)[:, None] & (np.arange(weeks) >= 22)
    return _cell(on, level, rng, spec=PLAIN)


def three_treated(seed: int, units: int = 50, weeks: int = 12) -> Cell:
    rng, level = _levels(units, seed)
    return _cell((np.arange(units) < 3)[:, None] & (np.arange(weeks) >= 6), level, rng)


def other_people(seed: int, groups: int = 24, weeks: int = 8, people: int = 12) -> Cell:
    """Repeated cross-sections: `hcp` is a territory, and each row another person."""
    rng, level = _levels(groups, seed)
    rows = groups * weeks * people
    group, week = np.repeat(np.arange(groups), weeks * people), np.tile(np.repeat(np.arange(1, weeks + 1), people), groups)
    on, age, season = (group < 10) & (week >= 5), rng.normal(size=rows), rng.normal(size=weeks + 1)
    columns = {
        "hcp": [f"T{number:02}" for number in group],
        "week": week,
        "program": on.astype(int),
        "nrx": 25.0 + 2.0 * level[group] + season[week] + TRUE_EFFECT * on + age + 1.5 * rng.normal(size=rows),
        "other": 10.0 + level[group] + season[week] + rng.normal(size=rows),
        "decile": age,
        "first": np.where(group < 10, 5, 0),
        "noise": rng.normal(size=rows),
    }
    return Cell(frame=pl.DataFrame(columns), spec=SPEC, unit="hcp", time="week")


WORLDS: dict[str, Callable[[int], Cell]] = {
    "one start": one_start,
    "many starts": many_starts,
    "on and off": on_and_off,
    "dose": dose,
    "one treated": one_treated,
    "three treated": three_treated,
    "other people": other_people,
}
LASTING = ("one start", "many starts")
YES_NO = (*LASTING, "on and off", "one treated", "three treated")
UNITS = (*YES_NO, "dose")
ALL = tuple(WORLDS)


def put(**columns: pl.Expr) -> Fault:
    return lambda cell: cell.put(**columns)


def where(rows: pl.Expr, column: str, value: object) -> Fault:
    """A value, or an expression, in some rows."""
    new = value if isinstance(value, pl.Expr) else pl.lit(value)
    return lambda cell: cell.put(**{column: pl.when(rows).then(new).otherwise(c(column))})


def times(rows: pl.Expr, factor: float, column: str = "nrx") -> Fault:
    return where(rows, column, c(column) * factor)


def only(rows: pl.Expr) -> Fault:
    return lambda cell: cell.only(rows)


def also(more: pl.Expr, *, role: str = "confounders") -> Fault:
    """A further column in a role."""
    return lambda cell: cell.put(more_=more).asking(**{role: (*getattr(cell.spec, role), "more_")})


def weighted(rows: pl.Expr, value: float | None) -> Fault:
    return lambda cell: cell.put(w=pl.when(rows).then(value).otherwise(1.0)).asking(weights="w")


def clustered(by: pl.Expr) -> Fault:
    return lambda cell: cell.put(by=by).asking(cluster="by")


def by_cohort(first: pl.Expr = FIRST, *, treatment: str = "program") -> Fault:
    return lambda cell: cell.put(first=first).asking(cohort="first", treatment=treatment)


def days(cell: Cell) -> Cell:
    return cell.put(week=pl.lit(date(2024, 1, 5)) + pl.duration(days=7 * (c("week") - 1)))


def written(form: str) -> Fault:
    return lambda cell: days(cell).put(week=c("week").dt.to_string(form))


def two_ways(first: pl.Expr, second: pl.Expr) -> Fault:
    """Dates written in one way for one half of the units and in another for the other."""
    return lambda cell: days(cell).put(week=pl.when(UNIT % 2 == 0).then(first).otherwise(second))


def copied(share: float, *, jitter: float = 0.0) -> Fault:
    def add(cell: Cell) -> Cell:
        extra = cell.frame.sample(fraction=share, seed=3).with_columns(nrx=c("nrx") + jitter * c("noise"))
        return replace(cell, frame=pl.concat([cell.frame, extra]))

    return add


def monthly(cell: Cell) -> Cell:
    """Every second unit in rows of four weeks, summed."""
    odd = UNIT % 2 == 1
    sums = c("nrx", "other").sum()
    rest = c(*(name for name in cell.frame.columns if name not in ("hcp", "week", "nrx", "other"))).last()
    months = cell.frame.filter(odd).with_columns(week=((c("week") - 1) // 4 + 1) * 4).group_by("hcp", "week", maintain_order=True)
    return replace(cell, frame=pl.concat([cell.frame.filter(~odd), months.agg(sums, rest).select(cell.frame.columns)]))


def recorded_twice(cell: Cell) -> Cell:
    """A third of the units again in another spelling, by a system that knows no program."""
    again = cell.frame.filter(UNIT % 3 == 0).with_columns(hcp=c("hcp").str.to_lowercase(), program=c("program") * 0)
    return replace(cell, frame=pl.concat([cell.frame, again]))


def ended(*, with_effect: bool) -> Fault:
    """Treatment of every second unit ends before the last three periods."""
    off = (c("program") == 1) & (c("week") >= c("week").max() - 2) & (UNIT % 2 == 0)
    lost = TRUE_EFFECT if with_effect else 0.0
    return put(nrx=pl.when(off).then(c("nrx") - lost).otherwise(c("nrx")), program=pl.when(off).then(0).otherwise(c("program")))


def dated(cell: Cell) -> Cell:
    return cell.put(began=c("first") * 7, seen=c("first") * 7 - 3).asking(treated_at="began", measured_at="seen")


LOW = c("nrx") - c("nrx").mean().over("hcp") + 0.8 * c("noise") < 0.3
SHIFT = 2.0 * ((2.0 * np.pi * (c("week") + 3) / 12).sin() - (2.0 * np.pi * c("week") / 12).sin())
AFTER_START = ((c("week") >= START) & EVER).cast(pl.Float64)

FAULTS: dict[str, tuple[Fault, tuple[str, ...], str]] = {
    # name -> what is done, in which worlds, and what must be said unless the interval holds the truth; "" where nothing need be said
    "rows in any order": (lambda cell: replace(cell, frame=cell.frame.sample(fraction=1.0, shuffle=True, seed=4)), ALL, ""),
    "dates": (days, ALL, ""),
    "dates as text": (written("%Y-%m-%d"), ALL, ""),
    "American dates": (written("%m/%d/%Y"), ALL, ""),
    "numbered weeks as text": (put(week=pl.lit("week ") + c("week").cast(pl.String)), ALL, ""),
    "time zones, one local day": (two_ways(c("week").dt.to_string("%FT00:00:00+00:00"), c("week").dt.to_string("%FT00:00:00+02:00")), ALL, ""),
    "a hole in the dates": (lambda cell: days(cell).only(c("week").dt.day() < 24), ("one start", "on and off", "dose"), ""),
    "random gaps": (only((ROW * 7919) % 100 >= 15), (*LASTING, "on and off", "dose", "other people"), ""),
    "collinear confounders": (also(2.0 * c("decile") + 1.0), (*LASTING, "on and off", "dose", "three treated", "other people"), ""),
    "shock to everybody at the start": (put(nrx=c("nrx") + 3.0 * (c("week") >= START).cast(pl.Float64)), LASTING, ""),
    "cohort beside the column": (by_cohort(), LASTING, ""),
    "cohort as text": (by_cohort(c("first").cast(pl.String), treatment="campaign"), LASTING, ""),
    "9999 for never": (by_cohort(pl.when(c("first") == 0).then(9999).otherwise(c("first")), treatment="campaign"), LASTING, ""),
    "treatment ends with its effect": (ended(with_effect=True), LASTING, ""),
    "two-digit years": (written("%d.%m.%y"), ALL, "order is not sure"),
    "two forms of dates": (two_ways(c("week").dt.to_string("%Y-%m-%d"), c("week").dt.to_string("%d/%m/%Y")), ALL, "order is not sure"),
    "an hour between clocks": (
        two_ways(c("week").cast(pl.Datetime), c("week").cast(pl.Datetime) - pl.duration(hours=1)),
        (*LASTING, "on and off", "dose", "three treated"),
        "clocks_mixed",
    ),
    "weekly and monthly rows": (monthly, UNITS, "rhythms|period"),
    "one period": (only(c("week") == c("week").max()), YES_NO, "arm|treated|rows|confound|row"),
    "two periods": (only((c("week") == 1) | (c("week") == c("week").max())), (*LASTING, "three treated"), "one period before|first period"),
    "no period before": (only(c("week") >= START), ("one start", "one treated", "three treated"), "first period|pre-period"),
    "treated rows alone": (only(~EVER | (c("program") > 0)), (*LASTING, "one treated", "three treated"), "first period|pre-period"),
    "treatment before entry": (only(~(EVER & (UNIT % 3 == 0)) | (c("week") > c("first"))), LASTING, "differential_attrition|before_entry"),
    "flag of the unit": (put(program=EVER.cast(pl.Int64)), ("one start", "one treated", "three treated"), "first period"),
    "nobody treated": (put(program=c("program") * 0), YES_NO, "no unit is treated|no treated"),
    "everybody treated": (put(program=c("program") * 0 + 1), YES_NO, "first period|treated"),
    "treatment 0/1/9": (where(ROW % 12 == 0, "program", 9), YES_NO, "missing_code"),
    "treatment 1/2": (put(program=c("program") + 1), YES_NO, "not 0/1"),
    "treatment as text": (put(program=c("program").cast(pl.String)), ALL, "not numbers"),
    "outcome as text": (put(nrx=c("nrx").cast(pl.String)), ALL, "not numbers"),
    "3 rows": (lambda cell: replace(cell, frame=cell.frame.head(3)), ALL, "rows|treated|vary|same|periods"),
    "no row": (lambda cell: replace(cell, frame=cell.frame.head(0)), ALL, "rows|treated"),
    **{f"missing {name}": (where(ROW % 17 == 0, name, None), ALL, f"no `{name}`") for name in ("hcp", "week")},
    **{f"missing {name}": (where(ROW % 17 == 0, name, None), ALL, "") for name in ("other", "decile")},
    **{f"missing {name}": (where(ROW % 17 == 0, name, None), (*LASTING, "on and off", "dose", "other people"), "") for name in ("nrx", "program")},
    **{f"NaN in {name}": (where(ROW % 17 == 0, name, float("nan")), (*LASTING, "dose", "other people"), "") for name in ("nrx", "decile", "other")},
    **{
        f"infinite {name}": (put(**{name: pl.when(ROW == 40).then(INFINITE).otherwise(c(name).cast(pl.Float64))}), ALL, "infinite|0/1 treatment")
        for name in ("week", "program", "nrx", "other")
    },
    "infinite confounder": (where(ROW == 40, "decile", INFINITE), (*LASTING, "on and off", "dose", "three treated", "other people"), "infinite"),
    "logarithm of zero": (put(nrx=pl.when(ROW % 20 == 0).then(0.0).otherwise(c("nrx")).log()), ALL, "infinite"),
    "negative weights": (weighted(ROW % 50 == 0, -1.0), ALL, "weights must be positive"),
    "missing weights": (weighted(ROW % 50 == 0, None), ALL, "weights must be positive"),
    "one huge weight": (weighted(ROW == 50, 1e9), ALL, "weight"),
    "one cluster": (clustered(pl.lit("a")), (*LASTING, "on and off", "dose", "other people"), "cluster"),
    "six clusters": (clustered(UNIT % 6), (*LASTING, "on and off", "dose", "other people"), "cluster"),
    "a tenth of the rows again": (copied(0.1), ALL, "duplicate|copies"),
    "a tenth again, restated": (copied(0.1, jitter=1.0), UNITS, "duplicate"),
    "all rows again": (copied(1.0), ALL, "duplicate|copies"),
    "blanks in half of a name's rows": (where(MIDDLE & (UNIT % 3 == 0), "hcp", pl.lit(" ") + c("hcp")), ALL, "units_alike"),
    "case of half of a name's rows": (where(MIDDLE & (UNIT % 3 == 0), "hcp", c("hcp").str.to_lowercase()), ALL, "units_alike"),
    "names as floats": (
        put(hcp=pl.when(MIDDLE & (UNIT % 3 == 0)).then(UNIT.cast(pl.Float64).cast(pl.String)).otherwise(UNIT.cast(pl.String))),
        ALL,
        "units_alike",
    ),
    "units recorded twice": (recorded_twice, ALL, "units_alike"),
    "a tenth of the rows in thousands": (times(ROW % 10 == 3, 1e3), ALL, "units_mixed"),
    "1 % of the rows in thousands": (times(ROW % 100 == 3, 1e3), ALL, "units_mixed"),
    "a tenth of the units in thousands": (times(UNIT % 10 == 3, 1e3), ALL, "units_mixed|two_scales"),
    "last periods in thousands": (times(c("week") >= c("week").max() - 1, 1e3), ALL, "units_mixed|two_scales"),
    "second half in thousands": (times(MIDDLE, 1e3), ALL, "units_mixed|two_scales"),
    "treated rows in thousands": (times(c("program") > 0, 1e3), YES_NO, "units_mixed|two_scales|carries"),
    "rows in thousandths": (times(ROW % 10 == 3, 1e-3), ALL, "units_mixed|two_scales"),
    "a tenth of the rows twelvefold": (times(ROW % 10 == 0, 12.0), ALL, "units_mixed"),
    "control in thousands": (times(ROW % 10 == 3, 1e3, "other"), ALL, "units_mixed"),
    "confounder in thousands": (times(ROW % 10 == 3, 1e3, "decile"), (*LASTING, "on and off", "dose", "three treated"), "units_mixed"),
    "-99": (where(ROW % 20 == 0, "nrx", -99.0), ALL, "missing_code"),
    "9999": (where(ROW % 20 == 0, "nrx", 9999.0), ALL, "missing_code|units_mixed"),
    "0 for missing": (where(ROW % 12 == 0, "nrx", 0.0), UNITS, "zero_for_missing"),
    "0 for missing among the treated": (where((c("program") > 0) & (ROW % 8 == 0), "nrx", 0.0), (*LASTING, "on and off"), "zero_for_missing"),
    "1e308": (where(ROW == 30, "nrx", 1e308), ALL, "extreme"),
    "1e8": (where(ROW == 30, "nrx", 1e8), ALL, "one_row_decides|extreme"),
    "1e5 in a treated row": (where((c("program") > 0) & (c("program").cast(pl.Float64).cum_sum() == 6.0), "nrx", 1e5), YES_NO, "one_row_decides"),
    "outcome measured before treatment": (dated, YES_NO, "measured before"),
    "a mediator": (
        lambda cell: also(c("program") + 0.5 * c("noise"))(cell.put(nrx=c("nrx") + 0.5 * c("noise"))),
        (*LASTING, "on and off", "other people"),
        "moves when treatment|composition|Composition",
    ),
    "a collider": (also(c("program") + c("nrx") + c("noise")), (*LASTING, "on and off", "other people"), "moves when|Composition"),
    "nearly the outcome": (
        also(c("nrx") + 0.1 * c("noise")),
        (*LASTING, "on and off", "dose", "other people"),
        "moves when|Composition|leak|repeats",
    ),
    "a confounder that decides": (also(5.0 * EVER.cast(pl.Float64)), ("one start", "three treated"), "does not differ|resembles|controls|determine"),
    "cohort that contradicts": (by_cohort(pl.when(EVER & (UNIT % 3 == 0)).then(c("first") - 3).otherwise(c("first"))), LASTING, "disagree"),
    "-1 for never": (by_cohort(pl.when(c("first") == 0).then(-1).otherwise(c("first")), treatment="campaign"), LASTING, "no period is negative"),
    "treatment ends, effect stays": (ended(with_effect=False), (*LASTING, "other people"), "Carry over|Placebo leads|switch|off"),
    "treated leave when low": (only((c("program") == 0) | ~LOW), (*LASTING, "on and off", "other people"), "attrition"),
    "low values unreported late": (only(~MIDDLE | (c("nrx") > c("nrx").quantile(0.35))), LASTING, "missing|resembles"),
    "treatment lost where low": (where(LOW & (c("noise") > -1), "program", None), (*LASTING, "on and off", "dose"), "left out|resembles|missing"),
    "shock to the treated and control": (put(nrx=c("nrx") + 3.0 * AFTER_START, other=c("other") + 3.0 * AFTER_START), (*LASTING, "one treated"), "control"),
    "restated last periods": (times(c("week") >= c("week").max() - 1, 0.7), (*LASTING, "on and off", "dose", "other people"), "last_periods"),
    "half-reported last period": (times(c("week") == c("week").max(), 0.5), (*LASTING, "on and off", "dose", "other people"), "last_periods"),
    "season of the treated shifted": (put(nrx=c("nrx") + SHIFT * EVER), LASTING, "Pre trend|Placebo|trend|drift"),
    "running total": (put(nrx=c("nrx").cum_sum().over("hcp", order_by="week")), UNITS, "running_total|Placebo|trend|few_treated"),
    "trend of the treated": (put(nrx=c("nrx") + 0.4 * c("week") * EVER), LASTING, "trend|drift"),
    "reaction before the start": (
        put(nrx=c("nrx") + 2.0 * ((c("first") > 0) & c("week").is_between(c("first") - 2, c("first") - 1)).cast(pl.Float64)),
        LASTING,
        "trend|Placebo|drift",
    ),
    "a response that bends": (put(nrx=c("nrx") - 2.0 * c("program") + 5.0 * (1.0 + c("program")).log()), ("dose",), "dose_bends"),
    "a dose that those take who gain most": (
        put(nrx=c("nrx") + c("program") * (c("program").mean().over("hcp") - 2.0), program=c("program") * (1 + UNIT % 4)),
        ("dose",),
        "curved_dose|Carry|leads",
    ),
    "constant outcome": (put(nrx=pl.lit(3.5)), ALL, "every row|vary|constant|the same in every"),
    "outcome repeats treatment": (put(nrx=2.0 * c("program")), ALL, "without rest|vary|repeats|exact|the same in every"),
    "control is the outcome": (put(other=c("nrx")), (*LASTING, "on and off", "dose", "other people"), "control"),
}  # fmt: skip
