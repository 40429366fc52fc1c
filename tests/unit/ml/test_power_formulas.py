"""Formulas against statsmodels and closed forms; boundaries against published ones; solving inverts power."""

from __future__ import annotations

import math
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.proportion import power_proportions_2indep
from statsmodels.stats.rates import power_negbin_ratio_2indep

from e2i.errors import ConfigError
from e2i.ml.power.formulas import Clusters, Means, Pairs, Proportions, Rates, Survival
from e2i.ml.power.repeated import TimeCovariance, fit_time_covariance
from e2i.ml.power.solve import curve, detectable, required_n
from e2i.ml.power.spending import boundaries, crossing, inflation

ALPHA = 0.05


@pytest.mark.parametrize(("effect", "n1", "n2"), [(0.1, 500, 500), (0.5, 64, 64), (0.3, 80, 120), (1.2, 4, 6), (0.0, 20, 20)])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_power_of_two_means_is_that_of_statsmodels(effect: float, n1: int, n2: int, alpha: float) -> None:
    ours = Means(sd=2.0, treated=n1 / (n1 + n2)).power(2.0 * effect, n1 + n2, alpha=alpha)
    assert ours == pytest.approx(TTestIndPower().power(effect, n1, alpha, n2 / n1), rel=1e-6)


@pytest.mark.parametrize(("correlation", "pairs"), [(0.0, 30), (0.5, 20), (0.9, 8)])
def test_power_of_matched_pairs_is_that_of_statsmodels(correlation: float, pairs: int) -> None:
    standardised = 0.4 / math.sqrt(2 * (1 - correlation))
    ours = Pairs(sd=1.0, correlation=correlation).power(0.4, 2 * pairs, alpha=ALPHA)
    assert ours == pytest.approx(TTestPower().power(standardised, pairs, ALPHA), rel=1e-6)


@pytest.mark.parametrize(("base", "effect", "n1", "ratio"), [(0.2, 0.1, 200, 1.0), (0.2, -0.05, 300, 1.5), (0.02, 0.01, 4000, 0.5)])
def test_power_of_two_proportions_is_that_of_statsmodels(base: float, effect: float, n1: int, ratio: float) -> None:
    ours = Proportions(base=base, treated=1 / (1 + ratio)).power(effect, n1 * (1 + ratio), alpha=ALPHA)
    assert ours == pytest.approx(power_proportions_2indep(effect, base, n1, ratio, ALPHA, return_results=False), rel=1e-6)


@pytest.mark.parametrize(("base", "times", "dispersion", "ratio"), [(2.0, 1.2, 0.7, 1.5), (0.5, 0.8, 0.0001, 1.0), (8.0, 1.1, 1.4, 0.8)])
def test_power_of_a_rate_ratio_is_that_of_statsmodels(base: float, times: float, dispersion: float, ratio: float) -> None:
    ours = Rates(base=base, dispersion=dispersion, treated=1 / (1 + ratio)).power(times, 250 * (1 + ratio), alpha=ALPHA)
    theirs = power_negbin_ratio_2indep(base * times, base, 250, ratio, alpha=ALPHA, dispersion=dispersion, return_results=False)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_events_for_a_hazard_ratio_follow_schoenfeld() -> None:
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.9)
    events = z**2 / (0.25 * math.log(0.7) ** 2)
    assert required_n(Survival(event_share=0.4), 0.7, alpha=ALPHA, power=0.9) == math.ceil(events / 0.4)
    assert math.ceil(events) == 331  # Schoenfeld (1983): 4 (z / log HR)^2


def test_clusters_cost_the_design_effect_and_degrees_of_freedom() -> None:
    clusters = Clusters(size=20, icc=0.05, cv=0.0)
    assert clusters.design_effect == pytest.approx(1.95)
    assert Clusters(size=20, icc=0.05, cv=0.65).design_effect == pytest.approx(1 + ((1 + 0.65**2) * 20 - 1) * 0.05)
    n = 400
    shift = 0.3 / math.sqrt(4 * 1.95 / n)
    cut = stats.t.ppf(0.975, 18)
    expected = stats.nct.sf(cut, 18, shift) + stats.nct.cdf(-cut, 18, shift)
    assert Means(sd=1.0, clusters=clusters).power(0.3, n, alpha=ALPHA) == pytest.approx(expected, rel=1e-9)
    assert Means(sd=1.0, clusters=clusters).power(5.0, 40, alpha=ALPHA) == 0.0  # two clusters: no test


@pytest.mark.parametrize(
    ("comparison", "effect"),
    [
        (Means(sd=3.0, kept=0.6, covariates=3), 0.7),
        (Means(sd=1.0, treated=0.3, clusters=Clusters(size=12.5, icc=0.1, cv=0.4)), -0.4),
        (Proportions(base=0.3), 0.08),
        (Proportions(base=0.3), -0.08),
        (Rates(base=2.0, dispersion=0.8), 1.3),
        (Rates(base=2.0, dispersion=0.8), 0.75),
        (Survival(event_share=0.3), 0.6),
        (Pairs(sd=2.0, correlation=0.5), 0.5),
    ],
)
def test_size_and_detectable_effect_invert_power(comparison, effect: float) -> None:
    n = required_n(comparison, effect, alpha=ALPHA, power=0.8)
    assert n is not None
    assert comparison.power(effect, n, alpha=ALPHA) >= 0.8 > comparison.power(effect, n - 1, alpha=ALPHA)
    found = detectable(comparison, n, alpha=ALPHA, power=0.8, up=effect > comparison.null)
    assert found is not None
    assert comparison.power(found, n, alpha=ALPHA) == pytest.approx(0.8, abs=1e-6)
    assert abs(found - comparison.null) <= abs(effect - comparison.null)
    points = curve(comparison, effect, [n // 2, n, 2 * n], alpha=ALPHA)
    assert points[0].power < points[1].power < points[2].power


def test_what_an_outcome_cannot_show_is_not_promised() -> None:
    assert required_n(Proportions(base=0.95), 0.1, alpha=ALPHA, power=0.8) is None
    assert detectable(Proportions(base=0.95), 20, alpha=ALPHA, power=0.8) is None
    assert required_n(Means(sd=1.0), 0.0, alpha=ALPHA, power=0.8) is None
    assert required_n(Means(sd=1.0), 1e-9, alpha=ALPHA, power=0.8) is None


@pytest.mark.parametrize(
    ("spending", "published"),
    [("obrien_fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)), ("pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859))],
)
def test_boundaries_of_five_looks_are_the_published_ones(spending, published: tuple[float, ...]) -> None:
    found = boundaries([0.2, 0.4, 0.6, 0.8, 1.0], alpha=ALPHA, spending=spending)
    assert found.z == pytest.approx(published, abs=2e-4)
    assert crossing(found, drift=0.0) == pytest.approx(ALPHA, abs=1e-5)
    assert found.spent[-1] == pytest.approx(ALPHA)


def test_one_look_is_the_fixed_test_and_more_looks_cost_units() -> None:
    one = boundaries([1.0], alpha=ALPHA, spending="pocock")
    assert one.z == pytest.approx((1.96,), abs=1e-4)
    assert inflation(one, alpha=ALPHA, power=0.8) == 1.0
    five = [k / 5 for k in range(1, 6)]
    cheap = inflation(boundaries(five, alpha=ALPHA, spending="obrien_fleming"), alpha=ALPHA, power=0.8)
    dear = inflation(boundaries(five, alpha=ALPHA, spending="pocock"), alpha=ALPHA, power=0.8)
    assert 1.0 < cheap < 1.04 < 1.15 < dear < 1.30


@pytest.mark.parametrize("fractions", [[], [0.5], [0.5, 0.5, 1.0], [0.7, 0.3, 1.0], [0.0, 1.0]])
def test_looks_that_do_not_lead_to_the_end_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ConfigError, match="information fractions"):
        boundaries(fractions, alpha=ALPHA, spending="pocock")


def test_repeated_measures_follow_frison_and_pocock() -> None:
    """Compound symmetry, p before and r after: variances of their table, per unit."""
    rho, p, r = 0.6, 4, 3
    windows = TimeCovariance(between=rho, serial=0.0, rho=0.0, noise=1 - rho).windows(pre=p, post=r)
    post = (1 + (r - 1) * rho) / r
    assert windows.variance("difference") == pytest.approx(post)
    assert windows.variance("double_difference") == pytest.approx((1 - rho) * (1 / r + 1 / p))
    assert windows.variance("ancova") == pytest.approx(post - p * rho**2 / (1 + (p - 1) * rho))


def test_the_covariance_over_time_is_found_again() -> None:
    rng = np.random.default_rng(1)
    n, periods = 4000, 30
    serial = np.zeros((n, periods))
    serial[:, 0] = rng.normal(size=n)
    for t in range(1, periods):
        serial[:, t] = 0.7 * serial[:, t - 1] + math.sqrt(1 - 0.49) * rng.normal(size=n)
    wide = 2 * rng.normal(size=(n, 1)) + serial + 0.5 * rng.normal(size=(n, periods)) + np.arange(periods)
    wide[rng.random(wide.shape) < 0.1] = np.nan
    fit = fit_time_covariance(wide)
    assert fit.between == pytest.approx(4.0, rel=0.1)
    assert fit.serial == pytest.approx(1.0, rel=0.15)
    assert fit.rho == pytest.approx(0.7, abs=0.06)
    assert fit.noise == pytest.approx(0.25, abs=0.1)


def test_the_example_of_the_page_runs_and_prints_what_the_page_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "docs/experiments.md", "exec"), {})
    assert printed.getvalue() == re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]
