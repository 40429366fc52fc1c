"""Confounders that move while treatment lasts, confounders that controls do not show, and starts that lie in a gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import Identification
from e2i.causal.panel.conditional import Method, conditional_difference
from e2i.causal.panel.data import NEVER
from e2i.causal.panel.event_study import EventTimes, event_times
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.pre_trend import pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.domain.study import EffectSpec

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t", treatment_kind="staggered")
N, T = 150, 16


def two_campaigns(seed: int) -> pl.DataFrame:
    """Effect 1 of `d`; effect 1.5 of `other`, which begins within two periods of it in most units."""
    rng = np.random.default_rng(seed)
    first = rng.choice([6, 9, 99], N)
    second = np.where(rng.random(N) < 0.7, first + rng.integers(-2, 3, N), 99)
    on, other = (np.arange(T) >= start[:, None] for start in (first, second))
    y = 2.0 * rng.normal(size=(N, 1)) + 0.2 * np.arange(T) + on + 1.5 * other + rng.normal(size=(N, T))
    keys = {"u": np.repeat(np.arange(N), T), "t": np.tile(np.arange(T), N)}
    return pl.DataFrame(keys | {"d": on.ravel().astype(int), "other": other.ravel().astype(int), "y": y.ravel()})


def test_another_campaign_that_begins_during_treatment_is_taken_off() -> None:
    spec = replace(SPEC, adjustment=("other",))
    panels = [make_panel(two_campaigns(seed), spec) for seed in range(8)]
    estimates = [GroupTime().fit(panel, spec, seed=1).estimate for panel in panels]
    assert np.mean(estimates) == pytest.approx(1.0, abs=0.15)
    beside = [Imputation().fit(panel, spec, seed=1).estimate for panel in panels]
    assert np.mean(estimates) == pytest.approx(np.mean(beside), abs=0.1)


def test_naming_the_other_campaign_leads_to_a_person_and_not_to_a_block() -> None:
    question = EffectSpec(treatment="d", outcome="y", confounders=("other",))
    finding = analyse(two_campaigns(3), effect=question, unit="u", time="t", seed=1)
    assert finding.verdict.name == "review", finding.verdict.reasons
    assert "confounder_after_treatment" in {hazard.code for hazard in finding.hazards}


def test_the_error_holds_what_is_not_known_about_a_moving_confounder() -> None:
    """Leaving out one unit at a time (jackknife) makes no use of influence values."""
    rng = np.random.default_rng(5)
    frame = two_campaigns(1).filter(pl.col("u") < 60).with_columns(price=pl.Series(rng.normal(size=60 * T)) - pl.col("d"))
    spec = replace(SPEC, adjustment=("price",))
    frame = frame.with_columns(y=pl.col("y") + 2.0 * pl.col("price"))
    panel = make_panel(frame, spec)
    left_out = [GroupTime().fit(panel.of_units(np.arange(60) != unit), spec, seed=1).estimate for unit in range(60)]
    jackknife = float(np.sqrt(59 / 60 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)))
    assert GroupTime().fit(panel, spec, seed=1).standard_error == pytest.approx(jackknife, rel=0.15)


@pytest.mark.parametrize("method", ["regression", "doubly_robust"])
def test_a_confounder_that_controls_do_not_show_takes_no_part_of_their_mean(method: Method) -> None:
    """Its slope is unknown: a solution of least norm on columns centred on everybody would give it a share of the controls' change."""
    rng = np.random.default_rng(2)
    treated = np.arange(200) < 60
    shown, unseen = rng.normal(size=200), (treated & (rng.random(200) < 0.5)).astype(float)
    change = (3.0 + 0.5 * shown + 1.0 * treated + 0.1 * rng.normal(size=200))[:, None]
    both = np.column_stack([shown, unseen])
    with_it, _, _ = conditional_difference(change, treated, both, weights=np.ones(200), method="regression")
    without, _, _ = conditional_difference(change, treated, both[:, :1], weights=np.ones(200), method=method)
    assert with_it[0] == pytest.approx(without[0], abs=0.1)
    assert with_it[0] == pytest.approx(1.0, abs=0.1)


def test_a_start_in_a_gap_is_the_usual_one_within_it() -> None:
    frame = two_campaigns(0)
    whole = make_panel(frame, SPEC)
    gaps = frame.filter(~((pl.col("u") % 5 == 0) & pl.col("t").is_in([5, 6, 9, 10])))
    assert (make_panel(gaps, SPEC).cohort == whole.cohort).all()
    assert set(np.unique(whole.cohort)) == {NEVER, 6, 9}
    others = frame.with_columns(d=pl.when((pl.col("u") == 0) & (pl.col("t") >= 12)).then(1).when(pl.col("u") == 0).then(0).otherwise("d"))
    late = make_panel(others.filter((pl.col("u") != 0) | (pl.col("t") != 12)), SPEC)
    assert late.cohort[0] == 13, "nobody is known to have started within this gap"


def test_a_cohort_that_one_early_unit_alone_shows_has_no_effect_then() -> None:
    """The spread of one unit is unknown, and its weight would be that of its whole cohort."""
    frame = two_campaigns(0).with_columns(late=pl.col("d").sum().over("u") == T - 9)
    early = frame.filter(~pl.col("late") | (pl.col("t") >= 5) | (pl.col("u") == frame.filter("late")["u"][0]))
    panel = make_panel(early, SPEC)
    found = event_times(panel, SPEC)
    shown = dict(zip(found.event_time.tolist(), found.n_treated.tolist(), strict=True))
    assert shown[-5] == (panel.cohort == 6).sum()
    assert shown[-4] == (panel.cohort != NEVER).sum()
    assert min(shown) == -6, "only the later cohort is seen longer before its start, by that unit"


def test_periods_that_few_treated_units_show_are_judged_with_few_degrees() -> None:
    rng = np.random.default_rng(7)
    influence = rng.normal(size=(100, 6))

    def told(shown: int) -> list[float]:
        study = EventTimes(
            event_time=np.array([-4, -3, -2, 0, 1, 2]),
            estimate=np.array([0.25, 0.2, 0.1, 1.0, 1.0, 1.0]),
            influence=influence,
            n_treated=np.array([shown, 50, 50, 50, 50, 50]),
            reference=-1,
            clusters_by_arm=(50, 50),
        )
        return [float(test.p_value or 0.0) for test in pre_trend_tests(study)]

    assert told(5)[1] > told(50)[1]
    assert told(5)[0] > told(50)[0]
