"""Two-way fixed effects and the plain double difference against an independent library and published numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from panel_worlds import SPEC, staggered

from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.two_way import DoubleDifference, TwoWayFixedEffects
from e2i.errors import NotIdentified, NoVariation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from linearmodels import PanelOLS


@pytest.mark.parametrize("covariates", [(), ("z",)])
@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_coefficient_and_its_clustered_error_agree_with_another_library(
    share: float, covariates: tuple[str, ...], weighted: bool
) -> None:
    frame = staggered().with_columns(w=1.0 + pl.col("z").abs()).sample(fraction=share, seed=3)
    spec = replace(SPEC, adjustment=covariates, weights="w" if weighted else None)
    data = frame.with_columns(d=((pl.col("g") > 0) & (pl.col("t") >= pl.col("g"))).cast(float)).to_pandas().set_index(["u", "t"])
    weights = {"weights": data[["w"]]} if weighted else {}
    other = PanelOLS(data["y"], data[["d", *covariates]], entity_effects=True, time_effects=True, **weights).fit(
        cov_type="clustered", cluster_entity=True
    )
    ours = TwoWayFixedEffects().fit(make_panel(frame, spec), spec, seed=1)
    assert ours.estimate == pytest.approx(other.params["d"], abs=1e-9)
    n, k = len(data), 1 + len(covariates)
    # They count unit effects among the parameters and leave out G / (G - 1).
    factor = 300 / 299 * (n - 1) / (n - k - 10) * (n - k - 300 - 9) / n
    assert ours.standard_error == pytest.approx(other.std_errors["d"] * np.sqrt(factor), rel=1e-8)


def test_organ_donations_are_reproduced() -> None:
    """Published: -0.0225 (0.0061), clustered by state (The Effect, chapter 18)."""
    import causaldata

    data = pl.from_pandas(causaldata.organ_donations.load_pandas().data)
    frame = data.with_columns(d=((pl.col("State") == "California") & (pl.col("Quarter_Num") > 3)).cast(int))
    spec = replace(SPEC, outcome="Rate", unit="State", time="Quarter", cohort=None)
    found = TwoWayFixedEffects().fit(make_panel(frame, spec), spec, seed=1)
    assert round(found.estimate, 4) == -0.0225
    assert round(found.standard_error, 4) == 0.0061
    assert DoubleDifference().fit(make_panel(frame, spec), spec, seed=1).estimate == pytest.approx(found.estimate)


def test_two_groups_and_two_periods_are_the_difference_of_mean_changes() -> None:
    frame = staggered(100, 2, cohorts=(0, 2))
    panel = make_panel(frame, SPEC)
    y, treated = panel.matrix(), panel.cohort == 1
    change = y[:, 1] - y[:, 0]
    expected = change[treated].mean() - change[~treated].mean()
    error = np.sqrt(100 / 99 * (change[treated].var() / treated.sum() + change[~treated].var() / (~treated).sum()))
    for estimator in (DoubleDifference(), TwoWayFixedEffects()):
        found = estimator.fit(panel, SPEC, seed=1)
        assert found.estimate == pytest.approx(expected)
        assert found.standard_error == pytest.approx(error, rel=0.02)
    assert DoubleDifference().fit(panel, SPEC, seed=1).standard_error == pytest.approx(error)


def test_negative_weights_are_the_ones_of_the_regression_by_hand() -> None:
    panel = make_panel(staggered(cohorts=(0, 2, 6)), SPEC)
    dummies = np.hstack([np.eye(300)[panel.unit], np.eye(10)[panel.time][:, 1:]])
    residual = panel.treatment - dummies @ np.linalg.lstsq(dummies, panel.treatment, rcond=None)[0]
    weights = residual[panel.treatment > 0] / residual[panel.treatment > 0].sum()
    found = TwoWayFixedEffects().fit(panel, SPEC, seed=1)
    assert found.diagnostics["negative_weight_share"] == pytest.approx((weights < 0).mean())
    assert found.diagnostics["negative_weight"] == pytest.approx(-weights[weights < 0].sum())
    assert found.diagnostics["negative_weight"] > 0
    together = TwoWayFixedEffects().fit(make_panel(staggered(cohorts=(0, 5)), SPEC), SPEC, seed=1)
    assert together.diagnostics["negative_weight"] == 0


def test_a_dose_gives_an_average_slope() -> None:
    frame = staggered().with_columns(d=pl.col("z"), y=pl.col("y") + 2.0 * pl.col("z"))
    spec = replace(SPEC, cohort=None, treatment_kind="continuous")
    found = TwoWayFixedEffects().fit(make_panel(frame, spec), spec, seed=1)
    assert found.estimand == "APE"
    assert found.interval[0] < 2.0 < found.interval[1]


def test_a_plain_double_difference_refuses_staggered_adoption() -> None:
    with pytest.raises(NotIdentified, match="one start of treatment"):
        DoubleDifference().fit(make_panel(staggered(), SPEC), SPEC, seed=1)


def test_a_treatment_explained_by_the_effects_is_refused() -> None:
    frame = staggered().with_columns(d=(pl.col("t") >= 5).cast(float) * 2 + (pl.col("u") % 3))
    spec = replace(SPEC, cohort=None, treatment_kind="continuous")
    with pytest.raises(NoVariation):
        TwoWayFixedEffects().fit(make_panel(frame, spec), spec, seed=1)
