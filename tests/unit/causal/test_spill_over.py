"""Does treatment reach the untreated of a place? Found where it does, not where it does not, and told where nothing can show it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.spill_over import Reach, reach, spill_over
from e2i.causal.router import identify
from e2i.causal.worlds import PANEL_WORLDS
from e2i.domain.study import EffectSpec
from e2i.errors import SchemaMismatch

UNITS = 250


def reached(frame: pl.DataFrame, effect: EffectSpec) -> Reach | None:
    spec = identify(effect, frame, unit="unit", time="time")
    return reach(make_panel(frame, spec), spec)


def of_world(name: str, seed: int) -> Reach:
    world = PANEL_WORLDS[name]
    found = reached(world.draw(UNITS, seed=seed), world.effect(place=True))
    assert found is not None
    return found


def test_the_slope_on_the_share_around_is_what_a_regression_library_finds() -> None:
    linearmodels = pytest.importorskip("linearmodels.panel")
    world = PANEL_WORLDS["panel_spill_over"]
    frame = world.draw(UNITS, seed=1)
    found = reached(frame, world.effect(place=True))
    assert found is not None
    around = (pl.col("treatment").sum().over("region", "time") - pl.col("treatment")) / (pl.len().over("region", "time") - 1)
    ever = pl.col("treatment").max().over("unit")
    free = frame.with_columns(around=around, ever=ever).filter((pl.col("ever") == 0) | (pl.col("time") < 10))
    table = free.to_pandas().set_index(["unit", "time"])
    other = linearmodels.PanelOLS(table["outcome"], table[["around"]], entity_effects=True, time_effects=True).fit()
    assert found.gain == pytest.approx(float(other.params["around"]), abs=1e-8)


def test_spill_over_of_the_world_is_found_with_its_size() -> None:
    world = PANEL_WORLDS["panel_spill_over"]
    gains = [of_world(world.name, seed).gain for seed in range(30)]
    assert np.mean(gains) == pytest.approx(world.spill_over * world.lift, rel=0.1)
    assert sum(of_world(world.name, seed).p_value < 0.05 for seed in range(30)) >= 28


@pytest.mark.parametrize("name", ["panel_lift", "panel_staggered"])
def test_no_spill_over_is_accused_in_about_one_study_of_twenty(name: str) -> None:
    assert sum(of_world(name, seed).p_value < 0.05 for seed in range(100, 160)) <= 8


def test_a_shock_to_the_regions_of_the_treated_reaches_their_untreated_too_and_is_found_without_a_negative_control() -> None:
    world = PANEL_WORLDS["panel_access_shock"]
    found = analyse(world.draw(UNITS, seed=3), effect=world.effect(negative_control=False, place=True), unit="unit", time="time", seed=3)
    assert found.verdict.name != "proceed"
    assert any("Spill over failed" in reason for reason in found.verdict.reasons)


def test_the_words_say_by_how_much_the_effect_is_told_too_small() -> None:
    world = PANEL_WORLDS["panel_spill_over"]
    frame = world.draw(UNITS, seed=2)
    spec = identify(world.effect(place=True), frame, unit="unit", time="time")
    test = spill_over(make_panel(frame, spec), spec)
    assert not test.passed
    assert "`region`" in test.detail
    assert "too small" in test.detail


def test_without_a_place_the_advice_names_the_role_and_proves_nothing() -> None:
    world = PANEL_WORLDS["panel_lift"]
    frame = world.draw(60, seed=1)
    spec = identify(world.effect(), frame, unit="unit", time="time")
    test = spill_over(make_panel(frame, spec), spec)
    assert test.is_reported_only
    assert test.test == "untested_spill_over"
    assert "`place`" in test.detail


@pytest.mark.parametrize("treated", ["whole regions", "few regions"])
def test_where_no_untreated_unit_has_treated_neighbours_it_is_untested(treated: str) -> None:
    frame = PANEL_WORLDS["panel_null"].draw(UNITS, seed=1)
    on = (pl.col("region") % 2 == 0) & (pl.col("time") >= 10)
    if treated == "whole regions":
        frame = frame.with_columns(treatment=on.cast(pl.Int64))
    else:
        frame = frame.with_columns(region=pl.col("region") % 4)
    effect = EffectSpec(treatment="treatment", outcome="outcome", place="region")
    assert reached(frame, effect) is None


def test_missing_rows_do_not_change_the_share_of_treated_neighbours() -> None:
    world = PANEL_WORLDS["panel_spill_over"]
    frame = world.draw(UNITS, seed=4)
    rng = np.random.default_rng(0)
    fewer = frame.filter(pl.Series(rng.random(frame.height) > 0.2))
    whole, part = reached(frame, world.effect(place=True)), reached(fewer, world.effect(place=True))
    assert whole is not None
    assert part is not None
    assert part.exposure == pytest.approx(whole.exposure, abs=0.01)
    assert part.gain == pytest.approx(whole.gain, abs=0.25)


def test_treatment_that_comes_and_goes_is_tested_too() -> None:
    world = PANEL_WORLDS["panel_carry_over"]
    assert reached(world.draw(UNITS, seed=1), world.effect(place=True)) is not None


def test_an_effect_and_a_shock_to_the_treated_make_the_same_table_and_only_another_series_tells_them_apart() -> None:
    frame = PANEL_WORLDS["panel_null"].draw(UNITS, seed=5)
    started = pl.col("treatment").cast(pl.Float64)
    effect = frame.with_columns(outcome=pl.col("outcome") + started)
    shock = frame.with_columns(outcome=pl.col("outcome") + started, negative_control=pl.col("negative_control") + started)
    asked = {named: PANEL_WORLDS["panel_null"].effect(negative_control=named) for named in (False, True)}

    def verdict(table: pl.DataFrame, *, named: bool) -> str:
        return analyse(table, effect=asked[named], unit="unit", time="time", seed=1).verdict.name

    columns = ["unit", "time", "treatment", "outcome"]
    assert effect.select(columns).equals(shock.select(columns))
    assert verdict(effect, named=False) == verdict(shock, named=False)
    assert verdict(effect, named=True) == "proceed"
    assert verdict(shock, named=True) == "block"


def test_a_place_tests_spill_over_and_leaves_units_as_clusters_of_the_interval() -> None:
    world = PANEL_WORLDS["panel_lift"]
    frame = world.draw(120, seed=6)
    found, bare = (analyse(frame, effect=world.effect(place=place), unit="unit", time="time", seed=1) for place in (True, False))
    assert found.effect is not None
    assert bare.effect is not None
    assert found.effect.interval() == bare.effect.interval()
    assert any(test.test == "spill_over" for test in found.refutations)


def test_an_unknown_place_is_refused_by_name() -> None:
    frame = PANEL_WORLDS["panel_lift"].draw(60, seed=1)
    with pytest.raises(SchemaMismatch, match=r"`regoin` is not in the data.*Did you mean `region`"):
        identify(EffectSpec(treatment="treatment", outcome="outcome", place="regoin"), frame, unit="unit", time="time")
