"""Against the numbers of the R package HonestDiD, an independent implementation in diff-diff, and linear programs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import norm

from e2i.causal.panel.honest import EventStudy, as_refutation, drift_robustness, largest_bend, relative_magnitudes, smoothness
from e2i.causal.panel.honest_relative import RelativeTest
from e2i.causal.panel.honest_smooth import SmoothFrontier, folded_quantile
from e2i.domain.evidence import Refutation
from e2i.errors import DataError, NotIdentified
from growth import growth

BENZARTI = np.array([0.006696351804, 0.02934503369, -0.006472972222, 0.0730149895, 0.1959611177, 0.3120639026, 0.2395415455, 0.1260425001])
"""Benzarti & Carloni (2019), restaurants' profits after a cut of the sales tax: the data set that HonestDiD ships"""
_LOWER = """
8.428358124e-4
4.768686777e-4 6.425420288e-4
2.618051076e-4 3.987425007e-4 5.229949602e-4
2.354220342e-4 2.435515198e-4 2.11768609e-4 3.089595411e-4
1.676371467e-4 2.201960306e-4 1.840722252e-4 1.197866077e-4 3.59970436e-4
1.128707663e-4 1.804591157e-4 1.45852784e-4 1.334081317e-4 2.478818642e-4 4.263949813e-4
1.992816215e-5 3.84376508e-5 7.005197403e-5 1.016335009e-4 1.749579242e-4 2.171437809e-4 4.886697861e-4
-1.368265366e-4 -2.960421989e-5 5.952994979e-5 1.079051726e-4 1.654256921e-4 2.892747871e-4 3.805322049e-4 7.61739444e-4
"""
FIRST = [1.0, 0.0, 0.0, 0.0]


def benzarti() -> EventStudy:
    covariance = np.zeros((8, 8))
    for place, line in enumerate(_LOWER.strip().splitlines()):
        covariance[place, : place + 1] = [float(value) for value in line.split()]
    covariance = covariance + np.tril(covariance, -1).T
    return EventStudy(periods=(-5, -4, -3, -2, 0, 1, 2, 3), estimates=BENZARTI, covariance=covariance)


def random_study(before: int, after: int, *, seed: int) -> EventStudy:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(before + after, before + after)) / 20
    return EventStudy(
        periods=(*range(-before - 1, -1), *range(after)),
        estimates=rng.normal(size=before + after) / 10 + np.r_[np.zeros(before), np.ones(after)],
        covariance=root @ root.T + 0.001 * np.eye(before + after),
    )


@pytest.mark.parametrize(("bound", "low", "high"), [(0.0, 0.1314, 0.2162), (0.1, 0.1194, 0.4185), (0.2, 0.0194, 0.5185)])
def test_fixed_length_intervals_are_those_of_honestdid(bound: float, low: float, high: float) -> None:
    """HonestDiD simulates its critical value, so its last digits move by 1e-3."""
    point = smoothness(benzarti(), weights=FIRST, grid=[bound]).points[0]
    assert (point.low, point.high) == pytest.approx((low, high), abs=1e-3)


def test_the_bound_on_the_slope_learned_before_treatment_is_that_of_honestdid() -> None:
    assert largest_bend(benzarti()) == pytest.approx(0.202169869297069, abs=1e-8)


def test_relative_magnitudes_give_the_interval_of_honestdid_within_its_grid() -> None:
    """HonestDiD's set at Mbar = 1, on a grid of 40 standard errors in 200 points."""
    point = relative_magnitudes(benzarti(), weights=FIRST, grid=[1.0]).points[0]
    step = 40 * np.sqrt(benzarti().covariance[4, 4]) / 199
    assert (point.low, point.high) == pytest.approx((0.07055, 0.31844), abs=1.1 * step)


def test_a_published_walk_through_is_reproduced() -> None:
    """Three periods before, five after (README of the Julia port): exact for smoothness, within its grid of 0.002 otherwise."""
    error = np.array([0.060, 0.050, 0.055, 0.050, 0.052, 0.060, 0.065, 0.070])
    lag = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    study = EventStudy(
        periods=(-4, -3, -2, 0, 1, 2, 3, 4),
        estimates=np.array([0.02, -0.01, 0.03, 0.15, 0.20, 0.25, 0.22, 0.18]),
        covariance=np.outer(error, error) * 0.6**lag,
    )
    smooth = smoothness(study, weights=[1, 0, 0, 0, 0], grid=[0, 0.01, 0.02, 0.03, 0.06])
    expected = [(0.03849, 0.23376), (0.027367, 0.2422), (0.0061132, 0.25851), (-0.01481, 0.27416), (-0.054089, 0.33366)]
    assert np.array([(p.low, p.high) for p in smooth.points]) == pytest.approx(np.array(expected), abs=1e-5)
    assert smooth.breakdown == pytest.approx(0.0228, abs=0.0008)
    relative = relative_magnitudes(study, weights=[1, 0, 0, 0, 0], grid=[0.5, 1, 1.5, 2])
    expected = [(0.031031, 0.28328), (-0.003003, 0.33734), (-0.053053, 0.39339), (-0.10511, 0.45345)]
    assert np.array([(p.low, p.high) for p in relative.points]) == pytest.approx(np.array(expected), abs=3e-3)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 3), (5, 2)])
def test_smooth_intervals_are_those_of_diff_diff(before: int, after: int, seed: int) -> None:
    from diff_diff.honest_did import _compute_optimal_flci

    study = random_study(before, after, seed=seed)
    weights = np.full(after, 1 / after)
    for bound in (0.05, 0.3):
        point = smoothness(study, grid=[bound]).points[0]
        peer = _compute_optimal_flci(
            study.estimates[:before], study.estimates[before:], study.covariance, weights, before, after, bound, 0.05
        )
        # a shorter interval than the peer's would mean that its search stopped early; a longer one that ours did
        assert point.high - point.low <= (peer[1] - peer[0]) * (1 + 1e-5)
        assert (point.low, point.high) == pytest.approx(peer[:2], abs=2e-3 * (peer[1] - peer[0]))


def test_identified_sets_are_the_ends_of_a_linear_program() -> None:
    study = benzarti()
    before, after = study.n_pre, 4
    target = np.array([0.4, 0.3, 0.2, 0.1])
    level = np.insert(np.eye(8), before, 0, axis=0)
    steps, bends = np.diff(level, axis=0), np.diff(level, n=2, axis=0)
    frontier = SmoothFrontier.trace(study.estimates, study.covariance, n_pre=before, target=target)
    relative = RelativeTest(estimates=study.estimates, covariance=study.covariance, n_pre=before, target=target)
    largest = np.abs(steps[:before] @ study.estimates).max()
    for rows, limit, found in (
        (bends, 0.3, frontier.identified(0.3)),
        (steps[before:], 0.7 * largest, relative.identified(0.7)),
    ):
        ends = []
        for sign in (1, -1):
            solved = linprog(
                sign * np.r_[np.zeros(before), target],
                A_ub=np.vstack([rows, -rows]),
                b_ub=np.full(2 * len(rows), limit),
                A_eq=np.eye(8)[:before],
                b_eq=study.estimates[:before],
                bounds=(None, None),
            )
            ends.append(float(target @ study.estimates[before:]) - sign * solved.fun)
        assert found == pytest.approx((min(ends), max(ends)), abs=1e-9)
    assert after == len(target)


def test_a_pre_trend_that_bends_more_than_the_bound_leaves_no_identified_set() -> None:
    point = smoothness(benzarti(), weights=FIRST, grid=[0.05]).points[0]
    assert np.isnan(point.set_low)


def test_without_any_violation_relative_magnitudes_give_the_usual_interval() -> None:
    found = relative_magnitudes(benzarti(), grid=[0.0])
    assert (found.points[0].low, found.points[0].high) == pytest.approx(found.original, abs=1e-3 * (found.original[1] - found.original[0]))


def test_intervals_hold_the_identified_set_and_grow_with_the_bound() -> None:
    for found in (relative_magnitudes(benzarti()), smoothness(benzarti(), grid=[0.22, 0.3, 0.5])):
        assert all(point.low < point.set_low <= point.set_high < point.high for point in found.points)
        assert np.all(np.diff([point.low for point in found.points]) < 0)
        assert np.all(np.diff([point.high for point in found.points]) > 0)


@pytest.mark.parametrize("analysis", [relative_magnitudes, smoothness])
def test_zero_is_excluded_just_below_the_breakdown_value_and_not_just_above(analysis) -> None:
    found = analysis(benzarti(), weights=FIRST)
    assert found.breakdown is not None
    below, above = analysis(benzarti(), weights=FIRST, grid=[0.99 * found.breakdown, 1.01 * found.breakdown]).points
    assert below.excludes_zero
    assert not above.excludes_zero
    assert f"{found.breakdown:.2g}" in as_refutation(found).detail


def test_an_effect_that_is_not_significant_has_no_breakdown_value() -> None:
    study = benzarti()
    weak = EventStudy(periods=study.periods, estimates=study.estimates * 0.01, covariance=study.covariance)
    found = relative_magnitudes(weak, grid=[1.0])
    assert found.breakdown is None
    assert not as_refutation(found).passed
    assert as_refutation(found).is_reported_only


def test_turning_every_sign_turns_the_interval() -> None:
    study = benzarti()
    turned = EventStudy(periods=study.periods, estimates=-study.estimates, covariance=study.covariance)
    for analysis in (relative_magnitudes, smoothness):
        one, other = (analysis(chosen, grid=[0.5]).points[0] for chosen in (study, turned))
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-4)


def test_the_folded_quantile_holds_95_percent() -> None:
    bias = np.array([0.0, 0.3, 2.0, 5.9, 6.1, 40.0])
    critical = folded_quantile(bias)
    assert norm.cdf(critical - bias) - norm.cdf(-critical - bias) == pytest.approx(np.full(6, 0.95), abs=1e-9)


@pytest.mark.parametrize(
    ("periods", "error", "words"),
    [
        ((-4, -2, 0, 1), NotIdentified, "not consecutive"),
        ((0, 1, 2, 3), NotIdentified, "0 estimates lie before"),
        ((-5, -4, -3, -2), NotIdentified, "0 after"),
        ((-2, 0, 1), DataError, "do not fit"),
    ],
)
def test_event_studies_that_cannot_be_bounded_are_refused(periods: tuple[int, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        EventStudy(periods=periods, estimates=np.ones(4), covariance=np.eye(4))


def test_a_covariance_from_fewer_clusters_than_periods_is_refused() -> None:
    few = np.ones((4, 1)) @ np.ones((1, 4))
    with pytest.raises(DataError, match="positive definite"):
        EventStudy(periods=(-3, -2, 0, 1), estimates=np.ones(4), covariance=few - 1e-9 * np.eye(4))


def test_wrong_weights_and_bounds_are_refused() -> None:
    with pytest.raises(DataError, match="weights"):
        smoothness(benzarti(), weights=[1.0])
    with pytest.raises(DataError, match="negative"):
        relative_magnitudes(benzarti(), grid=[-1.0])


def drifting(slope: float, effect: float, *, error: float = 0.05, pre: int = 6, post: int = 4) -> EventStudy:
    periods = (*range(-pre - 1, -1), *range(post))
    estimates = np.array([slope * (period + 1) + (effect if period >= 0 else 0.0) for period in periods])
    return EventStudy(periods=periods, estimates=estimates, covariance=error**2 * (0.5 * np.eye(len(periods)) + 0.5))


def robustness(study: EventStudy, *, spread: float = 0.1) -> Refutation:
    found = smoothness(study, grid=(0.0,))
    return drift_robustness(found, found.original, spread=spread)


def test_an_effect_beyond_any_straight_drift_stands_and_one_that_a_drift_explains_does_not() -> None:
    assert robustness(drifting(0.0, 1.0)).passed
    explained = robustness(drifting(0.05, 0.0))
    assert not explained.passed
    assert "could explain it" in explained.detail


def test_no_effect_is_only_told_when_a_drift_could_not_hide_one() -> None:
    short = robustness(drifting(0.0, 0.0, pre=2, post=8))
    assert not short.passed
    assert "a drift could hide an effect" in short.detail
    assert robustness(drifting(0.0, 0.0, pre=16, post=1)).passed
    small = robustness(drifting(0.0, 0.0, pre=2, post=8), spread=1_000.0)
    assert small.passed, "beside an outcome that varies by far more, all that a drift could hide is small"


def test_vertices_of_the_dual_have_the_moments_that_their_rows_say() -> None:
    """Row by row from the moments ±(step after) - Mbar v <= 0, without the short cut through target and largest step."""
    study, bound, place = random_study(3, 4, seed=5), 0.7, 1
    test = RelativeTest(estimates=study.estimates, covariance=study.covariance, n_pre=3, target=np.array([0.4, -0.1, 0.5, 0.2]))
    largest, after = -test.steps[place], test.steps[3:]
    up, down = after - bound * largest, -after - bound * largest
    spread = [np.sqrt(np.diag(rows @ study.covariance @ rows.T)) for rows in (up, down)]
    tails = np.cumsum(test.target[::-1])[::-1]
    rise, fall = np.maximum(tails, 0), np.maximum(-tails, 0)
    rows = np.vstack([rise @ up + fall @ down, rise @ down + fall @ up, up + down])
    size = np.r_[rise @ spread[0] + fall @ spread[1], rise @ spread[1] + fall @ spread[0], spread[0] + spread[1]]
    vertices = rows / size[:, None]
    stage = test._stage(bound, place, -1.0)
    assert stage.level == pytest.approx(vertices @ study.estimates, rel=1e-10)
    assert stage.covariance == pytest.approx(vertices @ study.covariance @ vertices.T, rel=1e-8, abs=1e-12)


def test_two_years_of_weeks_take_no_minutes() -> None:
    """From 12 to 72 weeks on either side work grows tenfold; with the cube of the path it would be more than thirtyfold."""

    def work(periods: int) -> tuple[float, float]:
        study = random_study(periods, periods, seed=1)
        target = np.full(periods, 1.0 / periods)
        return RelativeTest(estimates=study.estimates, covariance=study.covariance, n_pre=periods, target=target).interval(1.0)

    assert growth(work, 12, factor=6) < 20.0
