"""Intervals from repeated cross-sections cover the planted effect, and their tests keep their level."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import Identification
from e2i.causal.panel.pre_trend import pre_trend_tests
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.repeated import RepeatedCrossSections, before_treatment, composition
from repeated_worlds import EFFECT, people

SEEDS = 400
SPEC = Identification(
    design="did",
    estimand="ATT",
    treatment="d",
    outcome="y",
    adjustment=("x",),
    unit="g",
    time="t",
    is_repeated_cross_section=True,
)
WORLDS = {
    "two groups, two periods": {"groups": 2, "periods": 2, "rows": 50},
    "two groups, eight periods": {"groups": 2, "periods": 8, "rows": 25},
    "many groups with shocks per period": {"groups": 40, "periods": 4, "rows": 10, "shock": 0.5},
    "twelve groups with shocks per period": {"groups": 12, "periods": 4, "rows": 10, "shock": 0.5},
    "starts that differ, one effect": {"groups": 40, "periods": 8, "rows": 5, "starts": (3, 5), "shock": 0.3},
}


def thinned(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Cells of unequal size."""
    return frame.sample(fraction=0.8, seed=seed)


@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_covers_the_planted_effect(world: str) -> None:
    """The bounds are what a rate of 95 % over 400 seeds gives with 99.8 % probability."""
    covered = []
    for seed in range(SEEDS):
        frame = thinned(people(seed=seed, **WORLDS[world]), seed)  # type: ignore[arg-type]
        low, high = RepeatedCrossSections().fit(make_panel(frame, SPEC), SPEC, seed=seed).interval
        covered.append(low <= EFFECT <= high)
    assert 0.915 <= np.mean(covered) <= 0.985


def test_people_taken_as_independent_although_groups_have_shocks_cover_too_rarely_which_is_why_few_groups_need_a_person() -> None:
    covered = []
    for seed in range(SEEDS):
        frame = people(seed=seed, groups=2, periods=2, rows=50, shock=0.5)
        low, high = RepeatedCrossSections().fit(make_panel(frame, SPEC), SPEC, seed=seed).interval
        covered.append(low <= EFFECT <= high)
    assert np.mean(covered) < 0.7


@pytest.mark.parametrize("world", ["two groups, eight periods", "many groups with shocks per period", "starts that differ, one effect"])
def test_sound_studies_fail_a_test_before_treatment_or_of_the_mix_in_one_of_twenty_at_most(world: str) -> None:
    """Of 400 seeds at most 8.75 % with 99.9 % probability when the rate is 5 %."""
    before, mix = [], []
    for seed in range(SEEDS):
        panel = make_panel(thinned(people(seed=seed, **WORLDS[world]), seed), SPEC)  # type: ignore[arg-type]
        events, change = before_treatment(panel, SPEC), composition(panel, SPEC)
        assert events is not None
        assert change is not None
        before.append(not all(test.passed for test in pre_trend_tests(events)))
        mix.append(not change.passed)
    assert np.mean(before) <= 0.0875
    assert np.mean(mix) <= 0.0875
