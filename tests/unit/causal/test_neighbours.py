"""Clusters in cross-sections: treatment that reaches neighbours is seen, and what rows of a cluster share raises no other alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.balance import balance
from e2i.causal.design import Sample
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.refute.ground import Ground, bent, quick_propensity
from e2i.causal.refute.neighbours import spill_over
from e2i.causal.refute.simulations import placebo_treatments

ROWS, CLUSTERS = 1_200, 80


def drawn(seed: int, *, reach: float = 0.0, whole: bool = False, sizes: float = 3.0) -> Sample:
    """Rows of clusters of unequal size that share a level; treatment goes with x, and with a measured trait of the cluster."""
    rng = np.random.default_rng(seed)
    share = rng.pareto(sizes, CLUSTERS) + 0.3
    cluster = rng.choice(CLUSTERS, ROWS, p=share / share.sum())
    trait, level, x = rng.normal(size=CLUSTERS), rng.normal(size=CLUSTERS), rng.normal(size=ROWS)
    score = 0.7 * trait[cluster] + (0.0 if whole else 0.5) * x
    lot = rng.random(CLUSTERS)[cluster] if whole else rng.random(ROWS)
    t = (lot < 1.0 / (1.0 + np.exp(-score))).astype(float)
    others = np.bincount(cluster, t, CLUSTERS)[cluster] - t
    around = others / np.maximum(np.bincount(cluster, minlength=CLUSTERS)[cluster] - 1, 1)
    y = x + 0.5 * trait[cluster] + 0.6 * level[cluster] + 0.5 * t + reach * around + rng.normal(size=ROWS)
    columns = np.column_stack([x, trait[cluster]])
    flat = (False, False)
    return Sample(
        outcome=y,
        treatment=t,
        covariates=Covariates(matrix=columns, names=("x", "trait"), sources=("x", "trait"), is_level=flat, notes=()),
        negative_controls={},
        groups=np.arange(ROWS),
        rows_given=ROWS,
        missing_treatment=0,
        missing_outcome=0,
        cluster=cluster,
    )


def ground(sample: Sample) -> Ground:
    """Doubly robust with a logistic and two least squares nuisances, clustered errors."""
    basis, t, y = bent(sample.covariates.matrix), sample.treatment, sample.outcome
    chance = np.clip(quick_propensity(basis, t, estimand="ATE"), 0.02, 0.98)
    down, up = (basis @ np.linalg.lstsq(basis[t == arm], y[t == arm], rcond=None)[0] for arm in (0, 1))
    values = up - down + t / chance * (y - up) - (1 - t) / (1 - chance) * (y - down)
    influence = values - values.mean()
    fit = Fit(
        estimand="ATE",
        estimate=float(values.mean()),
        standard_error=float(np.sqrt(np.sum(np.bincount(clusters(sample), influence) ** 2))) / ROWS,
        estimates=np.array([values.mean()]),
        influence=influence[None],
        untreated_mean=down[None],
        treated_mean=up[None],
        learners={},
    )
    return Ground(sample=sample, fit=fit, propensity=propensity(chance))


def clusters(sample: Sample) -> IntArray:
    return np.arange(ROWS) if sample.cluster is None else sample.cluster


def propensity(chance: FloatArray) -> Propensity:
    return Propensity(raw=chance[None], folds=np.zeros((1, len(chance)), dtype=np.int64), learners={})


def test_treatment_that_reaches_untreated_neighbours_is_seen() -> None:
    for seed in range(5):
        result = spill_over(ground(drawn(seed, reach=3.0)))
        assert result is not None
        assert not result.passed
        assert result.estimate == pytest.approx(3.0, abs=1.5)


@pytest.mark.parametrize("sizes", [1.2, 3.0])
def test_clusters_that_share_a_level_and_nothing_else_hardly_alarm(sizes: float) -> None:
    results = [spill_over(ground(drawn(seed, sizes=sizes))) for seed in range(60)]
    asked = [result for result in results if result is not None]
    assert len(asked) >= 50
    assert sum(not result.passed for result in asked) <= 2


def test_whole_clusters_under_treatment_are_not_asked() -> None:
    sample = drawn(1, whole=True)
    assert spill_over(ground(sample)) is None
    assert spill_over(ground(replace(sample, cluster=None))) is None


def test_balance_and_placebo_know_that_rows_of_a_cluster_are_no_evidence_of_their_own() -> None:
    by_row: list[float] = []
    by_cluster: list[float] = []
    failed = 0
    for seed in range(40):
        sample = drawn(seed, whole=True, sizes=1.5)
        laid_out = ground(sample)
        weight = np.where(sample.treatment == 1, 1 / laid_out.chance, 1 / (1 - laid_out.chance))
        for name, cluster in (("row", None), ("cluster", sample.cluster)):
            row = balance(sample.covariates, sample.treatment, weight, cluster=cluster)[1]
            (by_row if name == "row" else by_cluster).append(abs(row.smd_after) / row.error_after)
        failed += not placebo_treatments(laid_out, seed=seed).passed
    assert np.mean(np.array(by_row) > 1.96) >= 0.2
    assert np.mean(np.array(by_cluster) > 1.96) <= 0.1
    assert failed <= 2
