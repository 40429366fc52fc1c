"""Long rows become a panel, in whatever form time comes, or are refused in words."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import Identification
from e2i.causal.panel.data import NEVER
from e2i.causal.panel.periods import read_moments
from e2i.causal.panel.prepare import make_panel
from e2i.errors import DataError, E2IError, NotIdentified, NoVariation, SchemaMismatch, TooFewRows

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t")
BY_COHORT = replace(SPEC, cohort="g")
YEARS = [2004, 2005, 2006, 2007]


def long(times: list[object] | None = None, cohorts: list[object] | None = None, units: int = 4) -> pl.DataFrame:
    """Units a, b, …; the first half is treated in the third period."""
    moments = YEARS if times is None else times
    rng = np.random.default_rng(0)
    names = [chr(97 + number) for number in range(units)]
    rows = [
        (name, moment, float(number < units // 2 and step >= 2)) for number, name in enumerate(names) for step, moment in enumerate(moments)
    ]
    frame = pl.DataFrame(rows, schema=["u", "t", "d"], orient="row").with_columns(y=pl.Series(rng.normal(size=len(rows))))
    if cohorts is not None:
        frame = frame.with_columns(g=pl.Series([cohort for cohort in cohorts for _ in moments], strict=False))
    return frame


def test_rows_in_any_order_give_the_same_panel() -> None:
    frame = long()
    ordered, shuffled = make_panel(frame, SPEC), make_panel(frame.sample(fraction=1.0, shuffle=True, seed=2), SPEC)
    assert ordered.unit_names == shuffled.unit_names == ("a", "b", "c", "d")
    assert np.array_equal(ordered.outcome, shuffled.outcome)
    assert np.array_equal(ordered.treatment, shuffled.treatment)
    assert ordered.cohort.tolist() == [2, 2, NEVER, NEVER]
    assert ordered.period_names == ("2004", "2005", "2006", "2007")


TIMES: dict[str, list[object]] = {
    "float years": [2004.0, 2005.0, 2006.0, 2007.0],
    "dates": [date(2023, 11, 1), date(2023, 12, 1), date(2024, 1, 1), date(2024, 2, 1)],
    "datetimes": [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3, 4)],
    "text dates": ["2023-11-03", "2023-12-30", "2024-01-05", "2024-10-01"],
    "text months": ["2023-09", "2023-10", "2023-11", "2024-01"],
    "text quarters": ["2004Q1", "2004Q2", "2004Q4", "2005Q1"],
    "quarter first": ["Q32004", "Q42004", "Q12005", "Q22005"],
    "compact months": [202311, 202312, 202401, 202402],
    "iso weeks": ["2020-W52", "2020-W53", "2021-W01", "2021-W02"],
    "numbers as text": ["8", "9", "10", "11"],
    "unpadded words": ["W8", "W9", "W10", "W11"],
    "months by name": ["Nov 2023", "Dec 2023", "Jan 2024", "Feb 2024"],
    "days with a month's name": ["30NOV2023", "31DEC2023", "31JAN2024", "29FEB2024"],
    "month first": ["12/22/2023", "12/29/2023", "01/05/2024", "01/12/2024"],
    "day first": ["22.12.2023", "29.12.2023", "05.01.2024", "12.01.2024"],
    "dates with slashes": ["2023/12/29", "2024/1/5", "2024/1/12", "2024/1/19"],
    "months without zeros": ["2023-9", "2023-10", "2023-11", "2023-12"],
    "padded words": ["week 08", "week 09", "week 10", "week 11"],
}


@pytest.mark.parametrize("kind", TIMES)
def test_periods_are_ordered_in_every_form_of_time(kind: str) -> None:
    panel = make_panel(long(TIMES[kind]).sample(fraction=1.0, shuffle=True, seed=5), SPEC)
    assert panel.cohort.tolist() == [2, 2, NEVER, NEVER]
    assert (np.diff(panel.period_values) > 0).all()
    assert panel.n_periods == 4


@pytest.mark.parametrize("kind", [kind for kind in TIMES if kind != "datetimes"])
def test_a_cohort_column_in_the_form_of_time_says_the_same_as_the_treatment(kind: str) -> None:
    third = TIMES[kind][2]
    panel = make_panel(long(TIMES[kind], [third, third, None, None]), BY_COHORT)
    assert panel.cohort.tolist() == [2, 2, NEVER, NEVER]
    assert np.array_equal(panel.treatment, make_panel(long(TIMES[kind]), SPEC).treatment)


def test_dates_whose_day_and_month_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="order is not sure"):
        make_panel(long(["01/02/2024", "01/03/2024", "01/04/2024", "01/05/2024"]), SPEC)


@pytest.mark.parametrize(
    "times",
    [
        ["2Q23", "3Q23", "4Q23", "1Q24"],
        ["2Q2023", "3Q2023", "4Q2023", "1Q2024"],
        ["Q2-23", "Q3-23", "Q4-23", "Q1-24"],
        ["Q2'23", "Q3'23", "Q4'23", "Q1'24"],
        ["Q223", "Q323", "Q423", "Q124"],
        ["2Q99", "3Q99", "4Q99", "1Q00"],
        ["W50-2023", "W51-2023", "W52-2023", "W01-2024"],
        ["W502023", "W512023", "W522023", "W012024"],
    ],
)
def test_quarters_and_weeks_before_their_year_lie_one_step_apart(times: list[object]) -> None:
    assert np.diff(read_moments(pl.Series("t", times)).values).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "times",
    [
        ["11-23", "12-23", "01-24", "02-24"],
        ["S1 2023", "S2 2023", "S1 2024", "S2 2024"],
        ["S12023", "S22023", "S12024", "S22024"],
        ["M11-2023", "M12-2023", "M01-2024", "M02-2024"],
        ["11.2023", "12.2023", "01.2024", "02.2024"],
        ["112023", "122023", "012024", "022024"],
    ],
)
def test_text_with_the_year_behind_is_refused_rather_than_sorted_wrongly(times: list[object]) -> None:
    with pytest.raises(SchemaMismatch, match="order is not sure") as caught:
        read_moments(pl.Series("t", times))
    assert "year first" in str(caught.value.advice)


@pytest.mark.parametrize(
    "times",
    [
        ["2023-S1", "2023-S2", "2024-S1", "2024-S2"],
        ["FY23-P11", "FY23-P12", "FY24-P01", "FY24-P02"],
        ["phase 09 of 24", "phase 10 of 24", "phase 11 of 24", "phase 12 of 24"],
        ["2023 Week 51", "2023 Week 52", "2024 Week 01", "2024 Week 02"],
    ],
)
def test_text_with_the_year_first_or_with_one_number_keeps_its_order(times: list[object]) -> None:
    moments = read_moments(pl.Series("t", times))
    assert (moments.form, moments.values.tolist()) == ("text", [0.0, 1.0, 2.0, 3.0])


def test_a_number_that_only_looks_as_if_it_ended_in_a_year_is_a_number() -> None:
    assert read_moments(pl.Series("t", ["week 12019", "week 12020"])).values.tolist() == [12019.0, 12020.0]


def test_months_and_quarters_over_a_new_year_lie_one_step_apart() -> None:
    assert np.diff(make_panel(long(TIMES["compact months"]), SPEC).period_values).tolist() == [1, 1, 1]
    assert np.diff(make_panel(long(TIMES["text quarters"]), SPEC).period_values).tolist() == [1, 2, 1]
    assert np.diff(make_panel(long(TIMES["iso weeks"]), SPEC).period_values).tolist() == [1, 1, 1]


@pytest.mark.parametrize("never", [None, 0.0, math.inf, math.nan, 2008.0, 9999.0])
def test_every_way_to_say_never_treated_is_understood(never: float | None) -> None:
    assert make_panel(long(cohorts=[2006.0, 2006.0, never, never]), BY_COHORT).cohort.tolist() == [2, 2, NEVER, NEVER]


def test_a_cohort_between_two_periods_begins_in_the_later() -> None:
    assert make_panel(long([2000, 2002, 2004, 2006], [2003, 2004, 0, 0]), BY_COHORT).cohort.tolist() == [2, 2, NEVER, NEVER]
    words = long([f"wave {number:02}" for number in (1, 3, 5, 7)], ["wave 04", "wave 05", None, "never"])
    assert make_panel(words, BY_COHORT).cohort.tolist() == [2, 2, NEVER, NEVER]


def test_the_cohort_is_kept_where_its_first_row_is_missing() -> None:
    frame = long(cohorts=[2006, 2006, 0, 0]).filter(~((pl.col("u") == "a") & (pl.col("t") == 2006)))
    assert make_panel(frame, BY_COHORT).cohort.tolist() == [2, 2, NEVER, NEVER]


def test_rows_without_outcome_or_treatment_are_left_out_and_counted() -> None:
    frame = long().with_columns(y=pl.when(pl.int_range(pl.len()) == 1).then(None).otherwise("y"))
    panel = make_panel(frame, SPEC)
    assert (len(panel.unit), panel.rows_given) == (15, 16)
    assert "fewer than 11 rows without outcome" in panel.notes[0]


def test_confounders_weights_clusters_and_negative_controls_follow_their_rows() -> None:
    rng = np.random.default_rng(1)
    frame = long(units=40).with_columns(
        x=pl.Series(rng.normal(size=160)),
        size=pl.Series(np.repeat([["small", "large"][number % 2] for number in range(40)], 4)),
        state=pl.Series(np.repeat(np.arange(40) // 10, 4)),
        w=pl.Series(rng.uniform(1, 2, 160)),
        nc=pl.Series(rng.normal(size=160)),
    )
    spec = replace(SPEC, adjustment=("x", "size"), cluster="state", weights="w", negative_controls=("nc",))
    panel = make_panel(frame.sample(fraction=1.0, shuffle=True, seed=3), spec)
    ordered = frame.sort("u", "t")
    assert panel.covariate_names[0] == "x"
    assert np.array_equal(panel.covariates[:, 0], ordered["x"].to_numpy())
    assert panel.weights is not None
    assert np.array_equal(panel.weights, ordered["w"].to_numpy())
    assert np.array_equal(panel.negative_controls["nc"], ordered["nc"].to_numpy())
    assert np.bincount(panel.cluster).tolist() == [10, 10, 10, 10]


REFUSED: dict[str, tuple[pl.DataFrame, Identification, type[E2IError], str]] = {
    "duplicates": (pl.concat([long(), long().head(2)]), SPEC, SchemaMismatch, "fewer than 11 rows repeat a `u` and `t`"),
    "missing unit": (
        long().with_columns(u=pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise("u")),
        SPEC,
        SchemaMismatch,
        "missing unit: fewer than 11 rows",
    ),
    "missing time": (
        long().with_columns(t=pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise("t")),
        SPEC,
        SchemaMismatch,
        "missing time: fewer than 11 rows",
    ),
    "dose under a 0/1 design": (long().with_columns(d=pl.col("d") * 2.5), SPEC, SchemaMismatch, "not 0/1: it has values 0, 2.5"),
    "text treatment": (long().with_columns(d=pl.lit("yes")), SPEC, SchemaMismatch, "not 0/1"),
    "one period": (long([2004]), SPEC, TooFewRows, "one period only"),
    "one unit": (long().filter(pl.col("u") == "a"), SPEC, TooFewRows, "one unit only"),
    "nobody treated": (long().with_columns(d=pl.lit(0)), SPEC, NotIdentified, "no treated unit"),
    "nobody a control": (long().filter(pl.col("u").is_in(["a", "b"])), SPEC, NotIdentified, "no control"),
    "all treated from the start": (long().with_columns(d=(pl.col("u") == "a").cast(int)), SPEC, NotIdentified, "no pre-period"),
    "infinite outcome": (long().with_columns(y=pl.lit(math.inf)), SPEC, DataError, "infinite"),
    "negative weight": (long().with_columns(w=pl.lit(-1.0)), replace(SPEC, weights="w"), DataError, "weights must be positive: 16 rows"),
    "cohort varies": (
        long(cohorts=[2006, 2006, 0, 0]).with_columns(g=pl.when(pl.col("t") == 2004).then(0).otherwise("g")),
        BY_COHORT, SchemaMismatch, "constant per unit",
    ),
    "cluster varies": (long().with_columns(c=pl.col("t") % 2), replace(SPEC, cluster="c"), SchemaMismatch, "within fewer than 11 units"),
    "unpadded text": (long([f"{number}th week" for number in (8, 9, 10, 11)]), SPEC, SchemaMismatch, "order is not sure.*pad"),
    "month names": (long(["Jan 04", "Feb 04", "Nov 04", "Dec 04"]), SPEC, SchemaMismatch, "order is not sure"),
    "day first": (long(["05/01/2024", "06/01/2024", "01/02/2024", "02/02/2024"]), SPEC, SchemaMismatch, "order is not sure"),
    "impossible date": (long(["2024-01-31", "2024-02-31", "2024-03-01", "2024-04-01"]), SPEC, SchemaMismatch, "time `t`"),
    "cohort in another form": (long(TIMES["dates"], [2024, 2024, 0, 0]), BY_COHORT, SchemaMismatch, "same form"),
    "no such column": (long(), replace(SPEC, outcome="yy"), SchemaMismatch, "Did you mean"),
    "no time": (long(), replace(SPEC, time=None), SchemaMismatch, "needs `unit` and `time`"),
    "constant dose": (long().with_columns(d=pl.lit(2.0)), replace(SPEC, treatment_kind="continuous"), NoVariation, "the same in every row"),
    "no outcome": (long().with_columns(y=pl.lit(None, dtype=pl.Float64)), SPEC, TooFewRows, "no row has both"),
    "empty": (long().clear(), SPEC, TooFewRows, "no rows"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_a_faulty_panel_is_refused_in_words(fault: str) -> None:
    frame, spec, kind, words = REFUSED[fault]
    with pytest.raises(kind, match=words):
        make_panel(frame, spec)


def test_a_dose_is_taken_when_the_question_is_about_one_and_a_single_unit_for_an_interrupted_series() -> None:
    dose = make_panel(long().with_columns(d=pl.col("d") * 2.5), replace(SPEC, treatment_kind="continuous"))
    assert set(dose.treatment.tolist()) == {0.0, 2.5}
    alone = make_panel(long().filter(pl.col("u") == "a"), replace(SPEC, design="interrupted_time_series"))
    assert (alone.n_units, alone.n_periods) == (1, 4)


def test_a_part_of_the_units_keeps_rows_cohorts_and_clusters_together() -> None:
    panel = make_panel(long(cohorts=[2006, 2007, 0, 0]).drop("d"), BY_COHORT)
    part = panel.of_units(np.array([False, True, False, True]))
    assert part.unit_names == ("b", "d")
    assert part.cohort.tolist() == [3, NEVER]
    assert np.array_equal(part.matrix(), panel.matrix()[[1, 3]])
    assert part.cluster.tolist() == [0, 1]


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(long()["d"], id="when"),
        pytest.param(long()["d"].max() * (long()["u"].is_in(["a", "b"])).cast(pl.Float64), id="who"),
        pytest.param((long()["d"] == 1) & (long()["t"] == 2006), id="ends again"),
        pytest.param(long()["u"], id="a name that another column bears"),
        pytest.param(pl.Series([3.0] * 16), id="a number that is no treatment"),
    ],
)
def test_a_treatment_column_may_say_the_same_as_the_cohort(column: pl.Series) -> None:
    frame = long(cohorts=[2006, 2006, 0, 0]).with_columns(column.alias("d"))
    assert make_panel(frame, BY_COHORT).cohort.tolist() == [2, 2, NEVER, NEVER]


def test_a_treatment_column_that_contradicts_the_cohort_is_refused() -> None:
    early = long(cohorts=[2005, 2005, 0, 0], units=4)
    with pytest.raises(SchemaMismatch, match="`d` and cohort `g` disagree in fewer than 11 rows"):
        make_panel(early, BY_COHORT)
    many = long(cohorts=[2005] * 20 + [None] * 20, units=40)
    with pytest.raises(SchemaMismatch, match=r"disagree in 12\.5% of rows"):
        make_panel(many, BY_COHORT)
    other_units = early.with_columns(d=pl.col("u").is_in(["a", "c"]).cast(pl.Int64))
    with pytest.raises(SchemaMismatch, match="disagree"):
        make_panel(other_units, BY_COHORT)


def test_a_treatment_column_may_begin_within_the_periods_of_anticipation() -> None:
    frame = long(cohorts=[2007, 2007, 0, 0])
    with pytest.raises(SchemaMismatch, match="disagree"):
        make_panel(frame, BY_COHORT)
    assert make_panel(frame, replace(BY_COHORT, anticipation=1)).cohort.tolist() == [3, 3, NEVER, NEVER]


def test_places_are_read_per_unit_beside_clusters_and_must_not_change() -> None:
    frame = long().with_columns(p=pl.col("u").replace({"a": "north", "b": "south", "c": "north", "d": "south"}))
    panel = make_panel(frame, replace(SPEC, place="p"))
    assert panel.place is not None
    assert (panel.place.tolist(), panel.cluster.tolist()) == ([0, 1, 0, 1], [0, 1, 2, 3])
    part = panel.of_units(np.array([True, False, True, True]))
    assert part.place is not None
    assert part.place.tolist() == [0, 0, 1]
    with pytest.raises(SchemaMismatch, match="place `p` varies within"):
        make_panel(frame.with_columns(p=pl.col("t") % 2), replace(SPEC, place="p"))
