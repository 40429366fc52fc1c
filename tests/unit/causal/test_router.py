from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from e2i.causal.router import identify
from e2i.domain.study import EffectSpec
from e2i.errors import CausalError, NotIdentified, NoVariation, SchemaMismatch

EFFECT = EffectSpec(treatment="treated", outcome="y", confounders=("x",))


def cross(**columns: list[object]) -> pl.DataFrame:
    n = 80
    given = {
        "npi": list(range(n)),
        "treated": [i % 2 for i in range(n)],
        "y": [float(i % 7) + 0.5 for i in range(n)],
        "x": [float(i % 11) for i in range(n)],
        "z": [float(i % 3 == 0) for i in range(n)],
    }
    return pl.DataFrame({**given, **columns})


def panel(starts: dict[int, int | None], *, periods: int = 8, ends: int | None = None) -> pl.DataFrame:
    rows = [
        {
            "unit": unit,
            "week": dt.date(2024, 1, 5) + dt.timedelta(weeks=period),
            "treated": int(start is not None and period >= start and (ends is None or period < ends)),
            "first": None if start is None else dt.date(2024, 1, 5) + dt.timedelta(weeks=start),
            "y": float(unit + period % 3) + 0.25,
            "x": float(unit),
        }
        for unit, start in starts.items()
        for period in range(periods)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def asked(**changes: object) -> EffectSpec:
    return EFFECT.model_copy(update=changes)


def test_one_row_per_unit_is_a_cross_section_and_says_why_not_a_panel() -> None:
    found = identify(EFFECT, cross(), unit="npi")
    assert (found.design, found.estimand, found.treatment_kind) == ("cross_section", "ATE", "binary")
    assert dict(found.refused)["did"] == "it needs units seen over time; the study names no `time`."


def test_the_adjustment_set_is_confounders_and_modifiers_once_each() -> None:
    found = identify(asked(confounders=("x", "z"), modifiers=("z", "npi2")), cross(npi2=[i % 5 for i in range(80)]))
    assert found.adjustment == ("x", "z", "npi2")


def test_a_named_instrument_leads_to_instrumental_variables_and_its_local_effect() -> None:
    found = identify(asked(instruments=("z",)), cross())
    assert (found.design, found.estimand) == ("iv", "LATE")
    assert "instrument `z` is not used" in identify(asked(instruments=("z",), design="cross_section"), cross()).notes[0]


def test_a_treatment_with_many_amounts_is_a_dose_and_its_slope_is_estimated() -> None:
    found = identify(EFFECT, cross(treated=[i % 9 for i in range(80)]))
    assert (found.treatment_kind, found.estimand) == ("continuous", "APE")
    with pytest.raises(NotIdentified, match="is a dose"):
        identify(asked(estimand="ATT"), cross(treated=[i % 9 for i in range(80)]))


def test_levels_need_the_one_that_others_are_compared_with() -> None:
    frame = cross(treated=["none", "mail", "rep"] * 26 + ["none", "mail"])
    with pytest.raises(SchemaMismatch, match="reference"):
        identify(EFFECT, frame)
    assert identify(asked(reference="none"), frame).treatment_kind == "multi_level"
    with pytest.raises(SchemaMismatch, match="no level `nothing`"):
        identify(asked(reference="nothing"), frame)


@pytest.mark.parametrize("values", [["yes", "no"] * 40, [1, 2] * 40])
def test_a_treatment_in_other_codes_is_refused_with_the_recoding(values: list[object]) -> None:
    with pytest.raises(SchemaMismatch, match="1 = treated, 0 = not treated"):
        identify(EFFECT, cross(treated=values))


def test_an_outcome_as_text_is_refused_with_the_recoding() -> None:
    with pytest.raises(SchemaMismatch, match=r"outcome `y` is String \(0, 1\)"):
        identify(EFFECT, cross(y=["0", "1"] * 40))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 1.0] * 40, "binary"),
        ([0, 0, 3, 7] * 20, "count"),
        ([1.5, 2.0, 0.0, 4.0] * 20, "continuous"),
        ([3, 4, 5, 6] * 20, "continuous"),
    ],
)
def test_the_kind_of_outcome_is_read_from_its_values(values: list[object], kind: str) -> None:
    assert identify(EFFECT, cross(y=values)).outcome_kind == kind


def test_many_units_treated_at_once_are_a_double_difference() -> None:
    found = identify(EFFECT, panel({u: 4 if u < 10 else None for u in range(30)}), unit="unit", time="week")
    assert (found.design, found.estimand, found.treatment_kind) == ("did", "ATT", "binary")


def test_units_treated_at_different_times_are_staggered_from_a_column_or_a_cohort() -> None:
    frame = panel({u: 3 + u % 3 if u < 12 else None for u in range(30)})
    assert identify(EFFECT, frame, unit="unit", time="week").treatment_kind == "staggered"
    by_cohort = identify(asked(cohort="first", treatment="program"), frame, unit="unit", time="week")
    assert (by_cohort.design, by_cohort.treatment_kind) == ("did", "staggered")


def test_one_treated_unit_among_many_gets_a_synthetic_control() -> None:
    frame = panel({u: 6 if u == 0 else None for u in range(12)}, periods=10)
    assert identify(EFFECT, frame, unit="unit", time="week").design == "synthetic_control"
    assert identify(asked(design="synthetic_did"), frame, unit="unit", time="week").design == "synthetic_did"


def test_a_short_past_is_too_little_for_a_synthetic_control() -> None:
    frame = panel({u: 3 if u == 0 else None for u in range(12)})
    assert identify(EFFECT, frame, unit="unit", time="week").design == "did"


def test_treatment_that_ends_again_is_on_and_off() -> None:
    frame = panel({u: 3 if u < 10 else None for u in range(30)}, ends=5)
    found = identify(EFFECT, frame, unit="unit", time="week")
    assert (found.design, found.treatment_kind) == ("did", "on_off")
    with pytest.raises(NotIdentified, match="switches off again"):
        identify(asked(design="synthetic_control"), frame, unit="unit", time="week")


def test_a_single_series_is_an_interrupted_time_series() -> None:
    frame = panel({0: 5}).drop("unit")
    assert identify(asked(confounders=()), frame, time="week").design == "interrupted_time_series"


def test_an_amount_per_unit_and_period_is_a_dose_over_time() -> None:
    frame = panel(dict.fromkeys(range(30))).with_columns((pl.col("unit") % 4 + pl.col("week").dt.day() % 3).alias("treated"))
    found = identify(EFFECT, frame, unit="unit", time="week")
    assert (found.design, found.treatment_kind, found.estimand) == ("did", "continuous", "APE")


@pytest.mark.parametrize(
    ("starts", "why"),
    [
        (dict.fromkeys(range(20)), "no unit is treated"),
        (dict.fromkeys(range(20), 0), "nothing before it|no unit to compare"),
        (dict.fromkeys(range(20), 4), "no unit to compare with"),
        ({u: 0 if u < 10 else None for u in range(20)}, "nothing before it"),
    ],
)
def test_a_panel_without_comparison_is_refused_with_every_design_s_reason(starts: dict[int, int | None], why: str) -> None:
    with pytest.raises((NotIdentified, NoVariation), match=why):
        identify(asked(design="did"), panel(starts), unit="unit", time="week")


def test_a_cohort_that_changes_within_a_unit_is_refused() -> None:
    frame = panel({u: 4 if u < 10 else None for u in range(30)})
    mixed = frame.with_columns(pl.when(pl.col("week") > dt.date(2024, 2, 1)).then(pl.col("week")).otherwise(pl.col("first")).alias("first"))
    with pytest.raises(SchemaMismatch, match="changes within a unit"):
        identify(asked(cohort="first"), mixed, unit="unit", time="week")


@pytest.mark.parametrize("never", [0.0, float("inf"), float("nan"), None, 99.0])
def test_a_cohort_of_nothing_infinity_or_a_time_after_the_end_is_never_treated(never: float | None) -> None:
    rows = [
        {"unit": u, "year": t, "first": 2004.0 if u < 10 else never, "y": u + 0.5 * t, "x": u}
        for u in range(20)
        for t in (2002, 2003, 2004, 2005)
    ]
    if never == 99.0:
        rows = [{**row, "first": 2099.0 if row["first"] == 99.0 else row["first"]} for row in rows]
    found = identify(asked(cohort="first"), pl.DataFrame(rows, infer_schema_length=None), unit="unit", time="year")
    assert (found.design, found.treatment_kind) == ("did", "binary")


@pytest.mark.parametrize(
    "changes",
    [
        {"design": "did"},
        {"design": "synthetic_control"},
        {"design": "interrupted_time_series"},
        {"design": "iv"},
        {"estimand": "LATE"},
        {"confounders": (), "modifiers": ()},
        {"confounders": ("x", "y")},
        {"confounders": ("x", "treated")},
        {"confounders": ("x", "npi")},
        {"confounders": ("x", "z"), "negative_controls": ("z",)},
        {"confounders": ("x", "z"), "instruments": ("z",)},
        {"negative_controls": ("y",)},
        {"pre_outcomes": ("y",)},
        {"outcome": "treated"},
    ],
    ids=str,
)
def test_a_question_that_contradicts_itself_or_does_not_fit_the_data_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(CausalError):
        identify(asked(**changes), cross(), unit="npi")


def test_a_design_that_does_not_fit_is_refused_with_those_that_do() -> None:
    with pytest.raises(NotIdentified, match="Designs that fit these data: cross_section, matched"):
        identify(asked(design="did"), cross())


def test_chance_needs_no_confounders() -> None:
    found = identify(asked(confounders=(), randomised=True), cross())
    assert found.is_randomised
    assert found.reasons == ("one row per unit: chance assigned, so arms are compared as they were drawn.",)
    assert found.adjustment == ()


def test_a_typo_gets_the_nearest_column() -> None:
    with pytest.raises(SchemaMismatch, match="Did you mean `treated`"):
        identify(asked(treatment="treatd"), cross())
