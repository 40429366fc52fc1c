from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm

from e2i.causal.panel.absorb import TwoWay
from e2i.causal.panel.data import Panel
from e2i.causal.panel.wild import as_estimate, wild_cluster, wild_two_way
from e2i.errors import NoVariation, TooFewRows


def clustered_rows(groups: int, *, seed: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(groups), 20)
    regressor = rng.normal(size=groups)[cluster] + 0.3 * rng.normal(size=len(cluster))
    other = rng.normal(size=len(cluster))
    outcome = effect * regressor + other + rng.normal(size=groups)[cluster] + rng.normal(size=len(cluster))
    return outcome, np.column_stack([regressor, other, np.ones(len(cluster))]), cluster


def brute_force_p_value(outcome: np.ndarray, design: np.ndarray, cluster: np.ndarray, patterns: np.ndarray) -> float:
    """Refit everything in every draw, as Cameron, Gelbach & Miller (2008) describe it."""

    def statistic(values: np.ndarray) -> float:
        fit = sm.OLS(values, design).fit(cov_type="cluster", cov_kwds={"groups": cluster})
        return abs(float(fit.tvalues[0]))

    rest = design[:, 1:]
    fitted = rest @ np.linalg.lstsq(rest, outcome, rcond=None)[0]
    observed = statistic(outcome)
    draws = [statistic(fitted + pattern[cluster] * (outcome - fitted)) for pattern in patterns]
    return float(np.mean(np.array(draws) >= observed * (1 - 1e-9)))


def panel_of(outcome: np.ndarray, treatment: np.ndarray, cluster: np.ndarray, *, keep: np.ndarray | None = None) -> Panel:
    units, periods = outcome.shape
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(periods), units)
    rows = np.ones(units * periods, dtype=bool) if keep is None else keep.ravel()
    return Panel(
        unit=unit[rows],
        time=time[rows],
        outcome=outcome.ravel()[rows],
        treatment=treatment.ravel()[rows],
        unit_names=tuple(map(str, range(units))),
        period_names=tuple(map(str, range(periods))),
        period_values=np.arange(periods, dtype=float),
        cluster=cluster,
        covariates=np.zeros((int(rows.sum()), 0)),
    )


def test_the_enumerated_p_value_is_that_of_refitting_every_pattern() -> None:
    outcome, design, cluster = clustered_rows(5, seed=1, effect=1.0)
    webb = np.sqrt([0.5, 1.0, 1.5])
    patterns = np.array(list(product(np.concatenate([-webb[::-1], webb]), repeat=5)))
    found = wild_cluster(outcome, design, cluster, index=0, seed=0)
    assert found.method == "wild cluster bootstrap, Webb weights, all 7,776 patterns, 5 clusters"
    half = patterns[patterns[:, 0] > 0]  # a pattern and its negative give the same |t|
    assert found.p_value == pytest.approx(brute_force_p_value(outcome, design, cluster, half), abs=1e-12)
    fit = sm.OLS(outcome, design).fit()
    assert found.estimate == pytest.approx(fit.params[0], rel=1e-10)


def test_sign_patterns_are_refitted_exactly_when_all_are_taken() -> None:
    outcome, design, cluster = clustered_rows(12, seed=3, effect=0.4)
    found = wild_cluster(outcome, design, cluster, index=0, seed=0)
    assert found.draws == 4_096
    patterns = np.array(list(product([-1.0, 1.0], repeat=12)))
    assert found.p_value == pytest.approx(brute_force_p_value(outcome, design, cluster, patterns[patterns[:, 0] > 0]), abs=1e-12)
    assert (found.p_value * 4_096) % 2 == pytest.approx(0), "a pattern and its negative count together"


def test_the_interval_is_the_set_of_values_that_the_test_does_not_reject() -> None:
    outcome, design, cluster = clustered_rows(12, seed=5, effect=1.0)
    found = wild_cluster(outcome, design, cluster, index=0, seed=0)
    for end, inside in ((found.interval[0], 1e-3), (found.interval[1], -1e-3)):
        for step, accepted in ((inside, True), (-inside, False)):
            shifted = wild_cluster(outcome - (end + step) * design[:, 0], design, cluster, index=0, seed=0)
            assert (shifted.p_value > 0.05) == accepted


def test_weights_are_those_of_repeated_rows() -> None:
    outcome, design, cluster = clustered_rows(13, seed=7)
    times = np.random.default_rng(1).integers(1, 4, len(outcome))
    weighted = wild_cluster(outcome, design, cluster, index=0, weights=times.astype(float), seed=2)
    repeated = wild_cluster(np.repeat(outcome, times), np.repeat(design, times, axis=0), np.repeat(cluster, times), index=0, seed=2)
    assert weighted.p_value == repeated.p_value
    assert weighted.interval == pytest.approx(repeated.interval, rel=1e-6)


def test_the_panel_form_equals_the_dummy_variable_regression_also_with_gaps() -> None:
    rng = np.random.default_rng(4)
    units, periods = 24, 6
    cluster = np.arange(units) // 2
    treatment = ((np.arange(units) % 3 == 0)[:, None] & (np.arange(periods) >= 3)[None, :]).astype(float)
    outcome = rng.normal(size=(units, periods)) + rng.normal(size=12)[cluster][:, None] + treatment
    keep = rng.random((units, periods)) > 0.1
    panel = panel_of(outcome, treatment, cluster, keep=keep)
    dummies = np.column_stack([np.eye(units)[panel.unit], np.eye(periods)[panel.time][:, 1:]])
    long = wild_cluster(panel.outcome, np.column_stack([panel.treatment, dummies]), cluster[panel.unit], index=0, seed=1)
    short = wild_two_way(panel, seed=1)
    assert short.estimate == pytest.approx(long.estimate, rel=1e-9)
    assert short.p_value == long.p_value
    assert short.interval == pytest.approx(long.interval, rel=1e-5)


def test_unit_and_period_effects_are_taken_out_exactly_with_gaps_and_weights() -> None:
    rng = np.random.default_rng(8)
    unit, time = np.repeat(np.arange(30), 7), np.tile(np.arange(7), 30)
    rows = rng.random(210) > 0.3
    unit, time, weights = unit[rows], time[rows], rng.random(rows.sum()) + 0.5
    values = rng.normal(size=rows.sum())
    dummies = np.column_stack([np.eye(30)[unit], np.eye(7)[time][:, 1:]])
    expected = sm.WLS(values, dummies, weights=weights).fit().resid
    assert TwoWay(unit=unit, time=time, weights=weights).residual(values) == pytest.approx(expected, abs=1e-9)


def test_few_treated_clusters_are_said() -> None:
    rng = np.random.default_rng(2)
    treatment = np.zeros((20, 6))
    treatment[:2, 3:] = 1
    outcome = rng.normal(size=(20, 6))
    few = wild_two_way(panel_of(outcome, treatment, np.arange(20)), seed=0)
    assert few.effective_clusters < 5
    assert "MacKinnon & Webb" in few.notes[0]
    treatment[:10, 3:] = 1
    assert not wild_two_way(panel_of(outcome, treatment, np.arange(20)), seed=0).notes


def test_an_estimate_carries_the_inverted_interval_and_the_number_of_clusters() -> None:
    outcome, design, cluster = clustered_rows(9, seed=9, effect=2.0)
    found = wild_cluster(outcome, design, cluster, index=0, seed=3)
    estimate = as_estimate(found, estimator="two-way fixed effects", estimand="ATT", n_treated=3, n_untreated=6)
    assert estimate.interval == found.interval
    assert estimate.diagnostics["clusters"] == 9
    assert "Webb" in estimate.interval_method


def test_one_cluster_and_a_regressor_without_variation_are_refused() -> None:
    outcome, design, cluster = clustered_rows(6, seed=1)
    with pytest.raises(TooFewRows, match="one cluster"):
        wild_cluster(outcome, design, np.zeros_like(cluster), index=0, seed=0)
    with pytest.raises(NoVariation):
        wild_cluster(outcome, np.column_stack([design[:, 1], design[:, 1:]]), cluster, index=0, seed=0)
