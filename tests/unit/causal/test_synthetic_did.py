"""Synthetic difference-in-differences: beside an independent package, in closed form, with several starts, and its refusals."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import Identification
from e2i.causal.panel.block import block_of
from e2i.causal.panel.did_weights import double_weights, noise_of, weighted_difference
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.synthetic_did import SyntheticDiD
from e2i.errors import DataError, NotIdentified, NoVariation

SPEC = Identification(design="synthetic_did", estimand="ATT", treatment="treated", outcome="y", unit="unit", time="period")


def paths_of(seed: int, *, units: int = 30, periods: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    factors = 0.5 * rng.normal(size=(2, periods)).cumsum(axis=1)
    return 10 + 2 * rng.normal(size=(units, 1)) + rng.normal(size=(units, 2)) @ factors + rng.normal(size=(units, periods))


def frame_of(paths: np.ndarray, starts: dict[int, int], effect: float = 2.0) -> pl.DataFrame:
    units, periods = np.meshgrid(np.arange(len(paths)), np.arange(paths.shape[1]), indexing="ij")
    start = np.array([starts.get(unit, 10**6) for unit in range(len(paths))])
    treated = periods >= start[:, None]
    return pl.DataFrame(
        {"unit": units.ravel(), "period": periods.ravel(), "y": (paths + effect * treated).ravel(), "treated": treated.ravel().astype(int)}
    )


def peers_result(frame: pl.DataFrame, treated: int, start: int, **options: object):  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diff_diff

        table = frame.to_pandas()
        table["arm"] = (table["unit"] < treated).astype(int)
        after = list(range(start, int(table["period"].max()) + 1))
        return diff_diff.SyntheticDiD(**options).fit(table, outcome="y", treatment="arm", unit="unit", time="period", post_periods=after)


@pytest.mark.parametrize(("seed", "treated"), [(0, 1), (2, 12), (3, 3)])
def test_the_estimate_is_that_of_an_independent_package(seed: int, treated: int) -> None:
    """diff-diff stops its Frank-Wolfe steps early: its weights give a loss at least as high, and an effect within 0.001."""
    frame = frame_of(paths_of(seed), dict.fromkeys(range(treated), 16))
    panel = make_panel(frame, SPEC)
    ours = SyntheticDiD(replications=20).fit(panel, SPEC, seed=1)
    peer = peers_result(frame, treated, 16, seed=1, variance_method="placebo" if treated < 10 else "jackknife", n_bootstrap=20)
    assert ours.estimate == pytest.approx(peer.att, abs=1e-3)
    block = block_of(panel, SPEC)
    units = np.array([peer.unit_weights.get(unit, 0.0) for unit in range(30)])
    periods = np.array([peer.time_weights[period] for period in range(16)])
    mixing = block.pooled()[:, 0]
    assert weighted_difference(block, mixing, units, periods).effect == pytest.approx(peer.att, abs=1e-8)
    before = panel.matrix()[:, :16]
    losses = [
        np.sum(((mixing - weights) @ (before - before.mean(axis=1, keepdims=True))) ** 2) + peer.zeta_omega**2 * 16 * weights @ weights
        for weights in (double_weights(block).units, units)
    ]
    assert losses[0] <= losses[1] * (1 + 1e-9)
    if treated >= 10:
        assert ours.interval_method.startswith("jackknife")
        assert ours.standard_error == pytest.approx(peer.se, rel=0.01)


def test_the_placebo_standard_error_is_close_to_that_of_an_independent_package() -> None:
    frame = frame_of(paths_of(3), dict.fromkeys(range(3), 16))
    ours = SyntheticDiD(replications=300).fit(make_panel(frame, SPEC), SPEC, seed=1)
    peer = peers_result(frame, 3, 16, seed=1, variance_method="placebo", n_bootstrap=300)
    assert ours.standard_error == pytest.approx(peer.se, rel=0.15)


def test_the_estimate_is_the_weighted_double_difference_of_its_weights() -> None:
    frame = frame_of(paths_of(4), {0: 16, 1: 16})
    panel = make_panel(frame, SPEC)
    fit = SyntheticDiD(replications=20).study(panel, SPEC, seed=1)
    outcome = panel.matrix()
    units = np.array([fit.weights.get(str(unit), 0.0) for unit in range(2, 30)])
    periods = np.array([fit.period_weights.get(str(period), 0.0) for period in range(16)])
    gap = outcome[:2].mean(axis=0) - units @ outcome[2:]
    assert fit.estimate.estimate == pytest.approx(gap[16:].mean() - periods @ gap[:16], abs=5e-3)
    after = [point for point in fit.path if point.is_treated]
    assert np.mean([point.observed - point.counterfactual for point in after]) == pytest.approx(fit.estimate.estimate, abs=1e-9)


def test_parallel_trends_without_noise_between_units_give_the_effect_exactly() -> None:
    rng = np.random.default_rng(5)
    paths = rng.normal(size=(20, 1)) * 5 + rng.normal(size=(1, 24))
    frame = frame_of(paths, {0: 16}, effect=3.0)
    assert SyntheticDiD(replications=20).fit(make_panel(frame, SPEC), SPEC, seed=0).estimate == pytest.approx(3.0, abs=1e-9)


def test_several_starts_are_averaged_by_treated_unit_periods() -> None:
    starts = {0: 12, 1: 12, 2: 18}
    panel = make_panel(frame_of(paths_of(6), starts), SPEC)
    fit = SyntheticDiD(replications=30).study(panel, SPEC, seed=0)
    alone = {start: double_weights(block_of(panel, SPEC, cohort=start)).effect for start in (12, 18)}
    expected = (alone[12] * 2 * 12 + alone[18] * 6) / (2 * 12 + 6)
    assert fit.estimate.estimate == pytest.approx(expected, abs=1e-12)
    assert fit.by_unit == pytest.approx({"12": alone[12], "18": alone[18]})
    assert fit.estimate.n_treated == 3


def test_clusters_coarser_than_units_are_drawn_together() -> None:
    frame = frame_of(paths_of(7), dict.fromkeys(range(12), 16)).with_columns(region=pl.col("unit") // 3)
    spec = Identification(
        design="synthetic_did", estimand="ATT", treatment="treated", outcome="y", unit="unit", time="period", cluster="region"
    )
    estimate = SyntheticDiD(replications=40).fit(make_panel(frame, spec), spec, seed=0)
    assert estimate.interval_method.startswith("bootstrap over 10 clusters")
    assert estimate.interval[0] < 2.0 < estimate.interval[1]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    panel = make_panel(frame_of(paths_of(8), {0: 16}), SPEC)
    first, again, other = (SyntheticDiD(replications=30).fit(panel, SPEC, seed=seed).interval for seed in (1, 1, 2))
    assert first == again != other


def test_the_event_study_is_near_zero_before_and_the_effect_after() -> None:
    panel = make_panel(frame_of(paths_of(9), dict.fromkeys(range(5), 16)), SPEC)
    fit = SyntheticDiD(inference="placebo", replications=60).study(panel, SPEC, seed=1)
    assert [point.period for point in fit.event_study] == list(range(-16, 8))
    assert np.mean([point.estimate for point in fit.event_study if point.period >= 0]) == pytest.approx(fit.estimate.estimate)
    assert all(point.low < point.estimate < point.high for point in fit.event_study)


def test_an_effect_that_began_early_fails_the_placebo_in_time() -> None:
    paths = paths_of(10)
    paths[0, 11:] += 8.0
    fit = SyntheticDiD(replications=50).study(make_panel(frame_of(paths, {0: 16}), SPEC), SPEC, seed=0)
    assert not next(test for test in fit.refutations if test.test == "placebo_in_time").passed


def test_units_treated_from_the_beginning_gaps_and_too_few_donors_are_refused() -> None:
    paths = paths_of(11)
    with pytest.raises(NotIdentified, match="0 periods before it"):
        SyntheticDiD().fit(make_panel(frame_of(paths, {0: 0, 1: 16}), SPEC), SPEC, seed=0)
    with pytest.raises(DataError, match="whole paths"):
        SyntheticDiD().fit(make_panel(frame_of(paths, {0: 16})[1:], SPEC), SPEC, seed=0)
    with pytest.raises(NotIdentified, match="1 units are never treated"):
        SyntheticDiD().fit(make_panel(frame_of(paths, dict.fromkeys(range(29), 16)), SPEC), SPEC, seed=0)
    with pytest.raises(NotIdentified, match="placebos need at least"):
        SyntheticDiD(inference="placebo").fit(make_panel(frame_of(paths, dict.fromkeys(range(20), 16)), SPEC), SPEC, seed=0)
    with pytest.raises(NotIdentified, match="jackknife needs two treated"):
        SyntheticDiD(inference="jackknife").fit(make_panel(frame_of(paths, {0: 16}), SPEC), SPEC, seed=0)


def test_donors_that_never_change_are_refused() -> None:
    paths = np.repeat(np.arange(30.0)[:, None], 24, axis=1)
    with pytest.raises(NoVariation, match="same amount everywhere"):
        SyntheticDiD().fit(make_panel(frame_of(paths, {0: 16}), SPEC), SPEC, seed=0)


def test_noise_is_the_standard_deviation_of_the_donors_changes() -> None:
    paths = paths_of(12)
    block = block_of(make_panel(frame_of(paths, {0: 16}), SPEC), SPEC)
    assert noise_of(block) == pytest.approx(np.diff(paths[1:, :16], axis=1).std(ddof=1))
