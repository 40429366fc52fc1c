"""Trials that assign whole clusters: few of them, and of very unequal size."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.analysis import analyse
from e2i.domain.study import EffectSpec

EFFECT = 0.3


def trial(seed: int, *, clusters: int, treated: int, largest: int) -> pl.DataFrame:
    """A tenth of the outcome's variance lies between clusters."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), rng.integers(8, largest, clusters))
    arm = np.zeros(clusters)
    arm[rng.permutation(clusters)[:treated]] = 1.0
    x = rng.normal(size=len(cluster)) + 0.5 * rng.normal(size=clusters)[cluster]
    noise = np.sqrt(0.1) * rng.normal(size=clusters)[cluster] + np.sqrt(0.9) * rng.normal(size=len(cluster))
    return pl.DataFrame({"invited": arm[cluster].astype(int), "nrx": EFFECT * arm[cluster] + 0.4 * x + noise, "x": x, "site": cluster})


def covered(*, clusters: int, treated: int, largest: int, confounders: tuple[str, ...] = ("x",)) -> int:
    question = EffectSpec(treatment="invited", outcome="nrx", confounders=confounders, cluster="site", randomised=True)
    count = 0
    for seed in range(40):
        finding = analyse(trial(seed, clusters=clusters, treated=treated, largest=largest), effect=question, seed=seed)
        assert finding.effect is not None
        low, high = finding.effect.bounds or finding.effect.interval()
        count += low <= EFFECT <= high
    return count


def test_twelve_clusters_of_ten_to_four_hundred_rows_have_intervals_that_cover() -> None:
    """Clustered errors with t(11) covered three in four."""
    assert covered(clusters=12, treated=6, largest=400) >= 35


def test_four_treated_of_twenty_clusters_have_intervals_that_cover_without_covariates_too() -> None:
    assert covered(clusters=20, treated=4, largest=60, confounders=()) >= 35
