"""Intervals of lotteries within strata, pairs and blocks, and of cross-overs, hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import prepare
from e2i.causal.estimators.within_strata import WithinStrata
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec

SEEDS = 400


def strata(seed: int) -> pl.DataFrame:
    rng, rows = np.random.default_rng(seed), 400
    place = rng.choice(4, rows)
    t = (rng.random(rows) < np.array([0.5, 0.7, 0.3, 0.5])[place]).astype(int)
    x = rng.normal(size=rows) + place
    y = 3.0 * place + x + (1.0 + 0.8 * (place - 1.5)) * t + rng.normal(size=rows) * (1.0 + t)
    return pl.DataFrame({"s": place, "c": np.arange(rows), "t": t, "x": x, "y": y})


def pairs(seed: int) -> pl.DataFrame:
    rng, count = np.random.default_rng(seed), 60
    level, first = np.repeat(2.0 * rng.normal(size=count), 2), rng.integers(0, 2, count)
    t = np.column_stack([first, 1 - first]).ravel()
    x = level + rng.normal(size=2 * count)
    y = level + x + (1.0 + 0.5 * level) * t + rng.normal(size=2 * count)
    return pl.DataFrame({"s": np.repeat(np.arange(count), 2), "c": np.arange(2 * count), "t": t, "x": x, "y": y})


def blocks(seed: int) -> pl.DataFrame:
    rng, count = np.random.default_rng(seed), 50
    level = np.repeat(rng.normal(size=count), 4)
    t = np.concatenate([rng.permutation([1] * (1 + block % 2) + [0] * (3 - block % 2)) for block in range(count)])
    x = level + rng.normal(size=4 * count)
    y = 2.0 * level + x + (1.0 + level) * t + rng.normal(size=4 * count)
    return pl.DataFrame({"s": np.repeat(np.arange(count), 4), "c": np.arange(4 * count), "t": t, "x": x, "y": y})


def sites(seed: int) -> pl.DataFrame:
    """Whole sites drawn, 10 in each of three strata, 3 to 7 of them treated."""
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.permutation([1] * on + [0] * (10 - on)) for on in (5, 7, 3)])
    size = rng.integers(10, 30, 30)
    site = np.repeat(np.arange(30), size)
    x = rng.normal(size=len(site)) + site // 10
    y = 2.0 * (site // 10) + x + drawn[site] + 0.6 * rng.normal(size=30)[site] + rng.normal(size=len(site))
    return pl.DataFrame({"s": site // 10, "c": site, "t": drawn[site], "x": x, "y": y})


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("world", [strata, pairs, blocks, sites])
def test_intervals_within_strata_cover(world: object, adjusted: bool) -> None:
    assert callable(world)
    spec = EffectSpec(
        treatment="t",
        outcome="y",
        randomised_within=("s",),
        confounders=("x",) if adjusted else (),
        cluster="c" if world is sites else None,
    )
    covered = 0
    for seed in range(SEEDS):
        frame = world(seed)
        question = identify(spec, frame)
        low, high = WithinStrata(is_adjusted=adjusted).fit(prepare(frame, question), question, seed=0).interval
        covered += low < 1.0 < high
    assert 0.93 <= covered / SEEDS <= 0.975
