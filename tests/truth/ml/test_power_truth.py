"""Formula, simulation on the own table, and worlds with a known answer agree; a broken formula is told apart."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.panel.simplex import simplex_weights
from e2i.domain.trials import ExperimentSpec, GeoSpec
from e2i.ml.power.facts import intraclass_correlation, measure
from e2i.ml.power.geo import Markets, select_markets
from e2i.ml.power.planning import comparison, draft
from e2i.ml.power.sample import read_sample
from e2i.ml.power.simulation import Trial, planted, simulate_power

SIMULATIONS = 1500


def table(n: int = 900, seed: int = 0) -> pl.DataFrame:
    """Practices of 5 to 15, a covariate with R² near 0.4, ICC near 0.1, and outcomes of four kinds."""
    rng = np.random.default_rng(seed)
    practice = np.repeat(np.arange(n), rng.integers(5, 16, size=n))[:n]
    x = rng.normal(size=n)
    shared = 0.4 * rng.normal(size=n)[practice]
    y = 10 + 0.9 * x + shared + rng.normal(size=n)
    return pl.DataFrame(
        {
            "npi": np.arange(n),
            "practice": practice,
            "x": x,
            "band": np.digitize(x, [-0.7, 0.0, 0.7]),
            "y": y,
            "adopted": (rng.random(n) < 0.3).astype(int),
            "calls": rng.negative_binomial(2, 2 / (2 + 3.0), size=n),
        }
    )


@pytest.mark.parametrize(
    ("asked", "n"),
    [
        ({"outcome": "y"}, 200),
        ({"outcome": "y", "covariates": ("x",)}, 200),
        ({"outcome": "y", "strata": ("band",), "design": "stratified"}, 200),
        ({"outcome": "y", "covariates": ("x",), "design": "matched_pairs"}, 120),
        ({"outcome": "y", "cluster": "practice"}, 400),
        ({"outcome": "y", "cluster": "practice", "covariates": ("x",)}, 400),
        ({"outcome": "y", "treated_share": 0.25}, 300),
        ({"outcome": "adopted", "outcome_type": "binary"}, 500),
        ({"outcome": "calls", "outcome_type": "count"}, 400),
    ],
)
def test_the_formula_keeps_its_word_on_the_own_table(asked: dict[str, object], n: int) -> None:
    spec = ExperimentSpec(question="does it move?", unit="npi", units_available=n, **asked)
    plan = draft(spec, table())
    assert plan.power.mde is not None
    trial = Trial(n=n, effect=plan.power.mde, analysis=plan.analysis, treated=spec.treated_share, is_clustered=plan.design == "cluster_rct")
    sample = read_sample(table(), plan.spec)
    nominal = comparison(plan.spec, plan.facts, plan.design).power(plan.power.mde, n, alpha=0.05)
    found = simulate_power(sample, trial, nominal=nominal, simulations=SIMULATIONS, seed=3)
    assert nominal == pytest.approx(0.8, abs=0.01)
    assert found.agrees, found
    assert found.power == pytest.approx(nominal, abs=0.045)
    assert found.size == pytest.approx(0.05, abs=0.022)


@pytest.mark.parametrize("analysis", ["difference", "ancova", "double_difference"])
def test_the_formula_keeps_its_word_on_the_own_panel(analysis: str) -> None:
    spec = ExperimentSpec(
        question="does it move?", unit="u", time="t", outcome="y", analysis=analysis, units_available=300, follow_up=6, pre_periods=6
    )
    rng = np.random.default_rng(5)
    n, periods = 500, 20
    walk = np.zeros((n, periods))
    for t in range(1, periods):
        walk[:, t] = 0.6 * walk[:, t - 1] + rng.normal(size=n)
    y = 2 * rng.normal(size=(n, 1)) + walk + rng.normal(size=(n, periods))
    panel = pl.DataFrame({"u": np.repeat(np.arange(n), periods), "t": np.tile(np.arange(periods), n), "y": y.ravel()})
    plan = draft(spec, panel)
    assert plan.power.mde is not None
    trial = Trial(n=300, effect=plan.power.mde, analysis=plan.analysis)
    found = simulate_power(read_sample(panel, plan.spec), trial, nominal=0.8, simulations=SIMULATIONS, seed=1)
    assert found.agrees, found


def test_ignoring_clusters_is_seen_by_the_simulation() -> None:
    frame = table(seed=2).with_columns(y=pl.col("y") + 2.0 * pl.col("practice").mod(7))
    single = ExperimentSpec(question="does it move?", unit="npi", outcome="y", units_available=300)
    whole = single.model_copy(update={"cluster": "practice", "design": "cluster_rct"})
    naive = measure(read_sample(frame, single), single, analysis="difference")
    formula = comparison(single, naive, "rct")
    effect = 2.8 * float(np.sqrt(4 / 300)) * float(naive.sd or 0)
    nominal = formula.power(effect, 300, alpha=0.05)
    found = simulate_power(
        read_sample(frame, whole),
        Trial(n=300, effect=effect, analysis="difference", is_clustered=True),
        nominal=nominal,
        simulations=500,
        seed=4,
    )
    assert not found.agrees
    assert found.power < nominal - 0.2


@pytest.mark.parametrize("icc", [0.0, 0.05, 0.3])
def test_the_icc_is_found_again_with_unequal_clusters(icc: float) -> None:
    rng = np.random.default_rng(8)
    found = []
    for _ in range(40):
        cluster = np.repeat(np.arange(60), rng.integers(2, 30, size=60))
        y = np.sqrt(icc) * rng.normal(size=60)[cluster] + np.sqrt(1 - icc) * rng.normal(size=len(cluster))
        found.append(intraclass_correlation(y, cluster))
    assert np.mean(found) == pytest.approx(icc, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "effect", "mean"), [("binary", 0.1, 0.4), ("binary", -0.1, 0.2), ("count", 1.5, 4.5), ("count", 0.5, 1.5)]
)
def test_a_planted_effect_is_the_one_asked_for(kind: str, effect: float, mean: float) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(200_000) < 0.3).astype(float) if kind == "binary" else rng.poisson(3.0, size=200_000).astype(float)
    moved = planted(y, effect, kind=kind, rng=rng)
    assert moved.mean() == pytest.approx(mean, rel=0.02)
    assert set(np.unique(moved)) <= ({0.0, 1.0} if kind == "binary" else set(range(40)))


def regions(seed: int, count: int = 12, periods: int = 80) -> Markets:
    """Four regions follow common factors closely; the others move on their own."""
    rng = np.random.default_rng(seed)
    factors = np.cumsum(rng.normal(size=(2, periods)), axis=1)
    own = np.cumsum(rng.normal(size=(count, periods)), axis=1) * np.where(np.arange(count) < 8, 0.0, 1.5)[:, None]
    volume = 100 + rng.uniform(0.5, 1.5, size=(count, 2)) @ factors + own + 0.5 * rng.normal(size=(count, periods))
    return Markets(names=tuple(f"r{place:02d}" for place in range(count)), volume=volume)


def test_wild_regions_are_not_test_markets_and_the_best_is_recommended() -> None:
    for seed in range(5):
        found = select_markets(regions(seed), GeoSpec(treated=(1, 2), weeks=6), weights=simplex_weights, alpha=0.05, power=0.8, seed=0)
        assert found.is_exhaustive
        assert not set(found.recommended.test) & {"r08", "r09", "r10", "r11"}
        assert found.recommended.mde_share == min(each.mde_share for each in found.candidates)
        assert found.recommended.pre_fit_r2 > 0.9


def test_the_confirmed_effect_is_detected_as_often_as_promised_and_the_chosen_one_is_not() -> None:
    """The next window, which nobody has seen: the gap's size against the standard errors that the two effects imply."""
    ratio_confirmed, ratio_chosen = [], []
    for seed in range(60):
        world = regions(seed, periods=86)
        past = Markets(names=world.names, volume=world.volume[:, :80])
        found = select_markets(past, GeoSpec(treated=(1, 2), weeks=6), weights=simplex_weights, alpha=0.05, power=0.8, seed=0)
        best = found.recommended
        test = [world.names.index(name) for name in best.test]
        donors = [place for place in range(len(world.names)) if place not in test]
        target, matrix = world.volume[test].mean(axis=0), world.volume[donors].T
        w = simplex_weights(matrix[:80], target[:80], intercept=True)
        gap = target - matrix @ w
        error = gap[80:].mean() - gap[:80].mean()
        ratio_confirmed.append(error / found.mde_confirmed)
        ratio_chosen.append(error / best.mde)
    standard = 1 / 2.9  # mde over standard error with a dozen windows
    assert np.sqrt(np.mean(np.square(ratio_confirmed))) < 1.35 * standard
    assert np.sqrt(np.mean(np.square(ratio_chosen))) > np.sqrt(np.mean(np.square(ratio_confirmed)))
