"""Few clusters: the jackknife over them is that of its definition, and where it cannot be had nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.data import Panel
from e2i.causal.panel.jackknife import with_jackknife
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.two_way import TwoWayFixedEffects
from e2i.domain.study import EffectSpec

SPEC = Identification(design="did", estimand="ATT", treatment="d", outcome="y", unit="u", time="t", cluster="c")


def in_clusters(seed: int, *, clusters: int = 14, treated: int = 5, periods: int = 8) -> pl.DataFrame:
    """Whole clusters of unequal size are treated by 1 in the second half; shocks are shared within them."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(clusters), 1 + rng.multinomial(130, rng.dirichlet(np.full(clusters, 0.5))))
    on = (member % clusters < treated)[:, None] & (np.arange(periods) >= periods // 2)
    shocks = 1.5 * rng.normal(size=(clusters, periods)).cumsum(axis=1)
    y = rng.normal(size=len(member))[:, None] + shocks[member] + on + rng.normal(size=on.shape)
    cells = {"u": np.repeat(np.arange(len(member)), periods), "t": np.tile(np.arange(periods), len(member))}
    return pl.DataFrame({**cells, "c": np.repeat(member, periods), "d": on.astype(int).ravel(), "y": y.ravel()})


def fit(panel: Panel) -> Estimate:
    return TwoWayFixedEffects().fit(panel, SPEC, seed=0)


def test_the_error_is_the_spread_of_estimates_without_one_cluster() -> None:
    frame = in_clusters(1)
    panel = make_panel(frame, SPEC)
    found, told = fit(panel), with_jackknife(fit(panel), panel, fit)
    others = [fit(make_panel(frame.filter(pl.col("c") != c), SPEC)).estimate for c in range(14)]
    spread = float(np.sqrt(13 / 14 * sum((other - found.estimate) ** 2 for other in others)))
    assert told.standard_error == pytest.approx(max(spread, found.standard_error))
    assert told.estimate == found.estimate
    assert (told.interval[1] - told.interval[0]) / told.standard_error == pytest.approx(2 * 2.160368656, abs=1e-6)


def test_it_covers_where_the_usual_error_is_too_small() -> None:
    usual = honest = 0
    for seed in range(60):
        panel = make_panel(in_clusters(seed), SPEC)
        found = fit(panel)
        low, high = found.interval
        usual += low <= 1.0 <= high
        low, high = with_jackknife(found, panel, fit).interval
        honest += low <= 1.0 <= high
    assert honest >= 54
    assert usual <= honest - 3


def test_many_clusters_and_an_arm_of_one_cluster_are_left_as_they_are() -> None:
    many = make_panel(in_clusters(2, clusters=30), SPEC)
    assert with_jackknife(fit(many), many, fit).interval == fit(many).interval
    alone = make_panel(in_clusters(2, treated=1), SPEC)
    assert with_jackknife(fit(alone), alone, fit).interval == fit(alone).interval


def test_a_study_with_few_clusters_says_how_its_interval_was_made() -> None:
    found = analyse(in_clusters(3), effect=EffectSpec(treatment="d", outcome="y", cluster="c"), unit="u", time="t", seed=0)
    assert found.effect is not None
    assert "jackknife (CV3)" in found.effect.interval_method
    people = replace(SPEC, cluster=None)
    panel = make_panel(in_clusters(3), people)
    assert "jackknife" not in with_jackknife(TwoWayFixedEffects().fit(panel, people, seed=0), panel, fit).interval_method
