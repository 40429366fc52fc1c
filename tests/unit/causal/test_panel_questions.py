"""Panels as people hand them in: always treated units, confounders that never change, anticipation, an outcome that begins at zero."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.router import identify
from e2i.domain.evidence import CausalFinding, Effect
from e2i.domain.study import EffectSpec
from e2i.errors import SchemaMismatch

PANEL = EffectSpec(treatment="d", outcome="y")


def long(
    *, units: int = 120, periods: int = 12, starts: tuple[int, ...] = (7,), always: int = 0, slope: float = 0.0, seed: int = 1
) -> pl.DataFrame:
    """Half of the units are treated, by 1; the first `always` from the first period on. Trends and treatment differ by `x`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=units)
    treated = rng.random(units) < 1.0 / (1.0 + np.exp(-2.0 * x * (slope > 0)))
    start = np.where(treated, rng.choice(starts, size=units), 99)
    start[:always] = 1
    t = np.arange(1, periods + 1)
    on = t >= start[:, None]
    y = 10.0 + 2.0 * rng.normal(size=units)[:, None] + rng.normal(size=periods) + slope * x[:, None] * t + on + rng.normal(size=on.shape)
    return pl.DataFrame(
        {
            "u": np.repeat(np.arange(units), periods),
            "t": np.tile(t, units),
            "d": on.astype(int).ravel(),
            "g": np.repeat(start, periods),
            "x": np.repeat(x, periods),
            "y": y.ravel(),
        }
    )


def finding(frame: pl.DataFrame, effect: EffectSpec = PANEL) -> CausalFinding:
    return analyse(frame, effect=effect, unit="u", time="t", seed=1)


def told(found: CausalFinding) -> Effect:
    assert found.effect is not None, found.refusal
    return found.effect


def covers(effect: Effect, truth: float = 1.0) -> bool:
    low, high = effect.interval()
    return low <= truth <= high


@pytest.mark.parametrize("starts", [(7,), (5, 7, 9)])
@pytest.mark.parametrize("by", ["d", "g"])
def test_always_treated_units_are_left_out_and_change_nothing(starts: tuple[int, ...], by: str) -> None:
    frame = long(starts=starts, always=12)
    effect = PANEL if by == "d" else EffectSpec(treatment="program", outcome="y", cohort="g")
    with_them, without = finding(frame, effect), finding(frame.filter(pl.col("u") >= 12), effect)
    assert told(with_them).estimate == pytest.approx(told(without).estimate, abs=1e-9)
    assert told(with_them).interval() == pytest.approx(told(without).interval())
    assert told(with_them).n_treated == told(without).n_treated
    (left_out,) = (hazard for hazard in with_them.hazards if hazard.code == "always_treated")
    assert "left out" in left_out.text


def test_many_always_treated_units_ask_for_a_person_and_a_few_do_not() -> None:
    actions = [
        next(hazard.action for hazard in finding(long(always=count)).hazards if hazard.code == "always_treated") for count in (12, 60)
    ]
    assert actions == ["warn", "review"]


def test_a_column_that_marks_the_group_and_not_the_period_is_refused_with_the_way_out() -> None:
    frame = long().with_columns(d=(pl.col("g") < 99).cast(pl.Int64))
    refusal = finding(frame).refusal
    assert refusal is not None
    assert "cohort" in refusal
    assert refusal.count("nothing before it") == 1


def test_a_unit_that_enters_late_under_treatment_does_not_make_a_common_start_staggered() -> None:
    frame = long(always=3).filter((pl.col("u") >= 3) | (pl.col("t") >= 3))
    assert identify(PANEL, frame, unit="u", time="t").treatment_kind == "binary"
    assert covers(told(finding(frame)))


def test_minus_one_for_never_treated_is_refused_and_not_taken_for_treated_before_all() -> None:
    frame = long().with_columns(g=pl.when(pl.col("g") == 99).then(-1).otherwise("g"))
    with pytest.raises(SchemaMismatch, match="no period is negative"):
        identify(EffectSpec(treatment="program", outcome="y", cohort="g"), frame, unit="u", time="t")


@pytest.mark.parametrize("starts", [(7,), (5, 7, 9)])
def test_a_confounder_that_never_changes_is_adjusted_for_where_trends_differ_by_it(starts: tuple[int, ...]) -> None:
    frame = long(units=300, slope=0.15, starts=starts)
    naive, adjusted = finding(frame), finding(frame, PANEL.model_copy(update={"confounders": ("x",)}))
    assert not covers(told(naive))
    assert naive.verdict.name == "block"
    assert covers(told(adjusted))
    assert adjusted.verdict.name == "proceed", adjusted.verdict.reasons
    assert all(covers(other) for other in adjusted.alternatives if other.must_agree)


def test_confounders_that_repeat_each_other_or_that_no_untreated_unit_has_are_told_and_refuse_nothing() -> None:
    frame = long(units=300, slope=0.15).with_columns(
        twice=2.0 * pl.col("x") + 1.0,
        kind=pl.when((pl.col("u") % 20 == 0) & (pl.col("g") == 7)).then(pl.lit("rare")).otherwise(pl.lit("usual")),
    )
    found = finding(frame, PANEL.model_copy(update={"confounders": ("x", "twice", "kind")}))
    assert covers(told(found))
    assert any("untreated units do not show them" in hazard.text for hazard in found.hazards)
    unseen = [hazard for hazard in found.hazards if hazard.code == "confounder_without_controls"]
    assert [hazard.action for hazard in unseen] == ["review"]
    assert "twice" not in unseen[0].text


def test_the_average_is_over_the_treated_also_where_the_effect_differs_by_the_confounder() -> None:
    frame = long(units=400, slope=0.15).with_columns(y=pl.col("y") + pl.col("d") * pl.col("x"))
    truth = 1.0 + float(frame.filter(pl.col("d") == 1)["x"].to_numpy().mean())
    found = told(finding(frame, PANEL.model_copy(update={"confounders": ("x",)})))
    assert covers(found, truth)
    assert abs(found.estimate - truth) < 0.15


def test_a_dose_is_adjusted_for_a_confounder_that_never_changes() -> None:
    rng = np.random.default_rng(3)
    frame = long(units=200, slope=0.15).with_columns(z=0.2 * pl.col("t") * pl.col("x") + pl.Series(rng.normal(size=200 * 12)))
    frame = frame.with_columns(y=pl.col("y") - pl.col("d") + pl.col("z"))
    dose = EffectSpec(treatment="z", outcome="y", confounders=("x",))
    assert covers(told(finding(frame, dose)))
    assert not covers(told(finding(frame, dose.model_copy(update={"confounders": ()}))))


def test_periods_of_anticipation_count_neither_as_before_nor_as_after() -> None:
    frame = long(units=300).with_columns(y=pl.col("y") + 2.0 * ((pl.col("t") == 6) & (pl.col("g") == 7)).cast(pl.Float64))
    assert not covers(told(finding(frame)))
    named = finding(frame, PANEL.model_copy(update={"anticipation": 1}))
    assert covers(told(named))
    assert named.verdict.name == "proceed", named.verdict.reasons


def test_an_outcome_that_is_zero_until_treatment_begins_tests_no_trend_and_is_not_blocked_for_rounding() -> None:
    rng = np.random.default_rng(2)
    frame = long().with_columns(y=pl.when(pl.col("t") < 7).then(0.0).otherwise(pl.col("d") + pl.Series(rng.exponential(size=120 * 12))))
    found = finding(frame)
    assert covers(told(found))
    assert found.verdict.name == "review"
    assert not any(test.test in ("pre_trend", "placebo_in_time") for test in found.refutations)
    assert "untested_pre_trend" in {test.test for test in found.refutations}


def test_a_confounder_that_separates_the_arms_asks_for_a_person() -> None:
    frame = long(units=80).with_columns(x=pl.when(pl.col("g") == 7).then(1.0).otherwise(0.0))
    found = finding(frame, PANEL.model_copy(update={"confounders": ("x",)}))
    assert found.verdict.name == "review"
    assert "confounder_without_controls" in {hazard.code for hazard in found.hazards}


def gap_at(frame: pl.DataFrame, since: int) -> pl.DataFrame:
    """Without the treated units' rows so many periods since their start."""
    return frame.filter((pl.col("g") == 99) | (pl.col("t") - pl.col("g") != since))


@pytest.mark.parametrize("starts", [(7,), (6, 9)])
@pytest.mark.parametrize("since", [-2, -1, 0])
def test_a_gap_of_the_treated_beside_their_start_costs_that_period_and_not_the_study(starts: tuple[int, ...], since: int) -> None:
    found = analyse(gap_at(long(units=200, starts=starts), since), effect=PANEL, unit="u", time="t", seed=1)
    assert found.effect is not None
    assert found.effect.interval()[0] < 1.0 < found.effect.interval()[1]
    assert any(test.test == "pre_trend" for test in found.refutations)
    (reference,) = (point.period for point in found.event_study if point.is_reference)
    assert reference == (-1 if since == -2 else -2) or starts != (7,)
    assert sum(point.period == reference for point in found.event_study) == 1


def test_a_gap_where_nobody_of_a_cohort_is_seen_moves_its_base_one_period_back() -> None:
    frame = gap_at(long(units=200, starts=(6, 9)), -1)
    found = analyse(frame, effect=EffectSpec(treatment="promotion", outcome="y", cohort="g"), unit="u", time="t", seed=1)
    assert found.effect is not None
    assert found.effect.interval()[0] < 1.0 < found.effect.interval()[1]


@pytest.mark.parametrize("starts", [(7,), (6, 9)])
def test_an_outcome_without_chance_has_no_interval_and_is_refused(starts: tuple[int, ...]) -> None:
    frame = long(starts=starts).with_columns(y=3.0 * pl.col("u") / 7.0 + 0.1 * pl.col("t") + pl.col("d"))
    found = analyse(frame, effect=PANEL, unit="u", time="t", seed=1)
    assert found.effect is None
    assert "explain the outcome without rest" in str(found.refusal)


def test_a_negative_control_without_chance_is_untested_and_no_alarm() -> None:
    frame = long().with_columns(n=0.1 * pl.col("t") + pl.col("u") / 7.0)
    effect = EffectSpec(treatment="d", outcome="y", negative_controls=("n",))
    found = analyse(frame, effect=effect, unit="u", time="t", seed=1)
    (control,) = (test for test in found.refutations if test.test.endswith("negative_control:n"))
    assert control.is_reported_only
    assert "without rest" in control.detail


def test_a_cohort_that_contradicts_the_treatment_column_is_refused_however_the_study_is_run() -> None:
    frame = long().with_columns(g=pl.when(pl.col("g") == 99).then(99).otherwise(pl.col("g") + 2))
    with pytest.raises(SchemaMismatch, match="`d` and cohort `g` disagree"):
        analyse(frame, effect=EffectSpec(treatment="d", outcome="y", cohort="g"), unit="u", time="t", seed=1)


def test_a_single_unit_that_seems_to_start_late_does_not_make_a_trend_of_its_luck() -> None:
    """A unit without the row of its start seems to start a period later, and alone shows the earliest period of all."""
    blocked = 0
    for seed in range(12):
        frame = long(starts=(7, 9), seed=seed)
        late = frame.filter(pl.col("d") == 1)["u"].min()
        begin = frame.filter((pl.col("u") == late) & (pl.col("d") == 1))["t"].min()
        gone = (pl.col("u") == late) & (pl.col("t").is_between(begin, 9))
        found = finding(frame.filter(~gone))
        blocked += found.verdict.name == "block"
        assert all(point.n_treated is None or point.n_treated >= 10 for point in found.event_study if point.period < 0)
    assert blocked <= 1
