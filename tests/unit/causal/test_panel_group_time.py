"""Group-time effects and imputation agree with independent libraries, formula by formula."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from panel_worlds import SPEC, staggered

from e2i.causal.panel.cells import Control
from e2i.causal.panel.conditional import Method, conditional_difference
from e2i.causal.panel.data import NEVER
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.moving_confounders import without_moving
from e2i.causal.panel.prepare import make_panel
from e2i.errors import NotIdentified, PositivityViolated, TooFewRows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diff_diff

FACTOR = np.sqrt(300 / 299)
"""our standard errors carry G / (G - 1), theirs do not"""


def theirs(frame: pl.DataFrame, estimator: object, covariates: list[str] | None = None) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(frame.to_pandas(), "y", "u", "t", "g", covariates=covariates)


@pytest.mark.parametrize(("control", "their_control"), [("never", "never_treated"), ("not_yet", "not_yet_treated")])
@pytest.mark.parametrize(
    ("method", "their_method", "covariates"), [("doubly_robust", "dr", ()), ("regression", "reg", ("x",)), ("weighting", "ipw", ("x",))]
)
def test_every_cell_and_the_average_agree_with_another_library(
    control: Control, their_control: str, method: Method, their_method: str, covariates: tuple[str, ...]
) -> None:
    frame, spec = staggered(), replace(SPEC, adjustment=covariates)
    panel, ours = make_panel(frame, spec), GroupTime(control=control, method=method)
    other = theirs(frame, diff_diff.CallawaySantAnna(control_group=their_control, estimation_method=their_method), list(covariates) or None)
    effects = ours.effects(panel, spec)
    errors = effects.standard_errors()
    for first, time, value, error in zip(effects.grid.first, effects.grid.time, effects.estimate, errors, strict=True):
        cell = other.group_time_effects[int(first) + 1, int(time) + 1]
        assert value == pytest.approx(cell["effect"], abs=1e-8)
        assert error == pytest.approx(FACTOR * cell["se"], rel=1e-6)
    average = ours.fit(panel, spec, seed=1)
    assert average.estimate == pytest.approx(other.overall_att, abs=1e-8)
    assert average.standard_error == pytest.approx(FACTOR * other.overall_se, rel=1e-6)


def test_the_event_study_average_agrees_with_another_library() -> None:
    frame = staggered()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = diff_diff.CallawaySantAnna(control_group="never_treated").fit(
            frame.to_pandas(), "y", "u", "t", "g", aggregate="event_study"
        )
    found = GroupTime(control="never").effects(make_panel(frame, SPEC), SPEC).aggregate("dynamic")
    for label, value, error in zip(found.labels, found.estimate, found.standard_error, strict=True):
        assert value == pytest.approx(other.event_study_effects[int(label)]["effect"], abs=1e-8)
        assert error == pytest.approx(FACTOR * other.event_study_effects[int(label)]["se"], rel=1e-6)


def literal_doubly_robust(change: np.ndarray, d: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Sant'Anna & Zhao (2020) as the R package DRDID writes it for panels, line by line; logit by statsmodels."""
    import statsmodels.api as sm

    n, design = len(d), sm.add_constant(x)
    p = sm.Logit(d, design).fit(disp=0, tol=1e-12).predict()
    beta = sm.OLS(change[d == 0], design[d == 0]).fit().params
    residual, odds = change - design @ beta, p * (1 - d) / (1 - p)
    treat, cont = np.mean(d * residual) / d.mean(), np.mean(odds * residual) / odds.mean()
    lin_ols = ((1 - d) * residual)[:, None] * design @ np.linalg.inv(design.T @ ((1 - d)[:, None] * design) / n)
    lin_ps = ((d - p)[:, None] * design) @ np.linalg.inv(design.T @ ((p * (1 - p))[:, None] * design)) * n
    inf_treat = (d * (residual - treat) - lin_ols @ np.mean(d[:, None] * design, axis=0)) / d.mean()
    m2 = np.mean((odds * (residual - cont))[:, None] * design, axis=0)
    m3 = np.mean(odds[:, None] * design, axis=0)
    inf_cont = (odds * (residual - cont) + lin_ps @ m2 - lin_ols @ m3) / odds.mean()
    return treat - cont, float(np.std(inf_treat - inf_cont) / np.sqrt(n))


def test_the_doubly_robust_difference_is_the_papers_formula() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 2))
    d = (rng.random(400) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    change = x @ [1.0, -0.5] + d + rng.normal(size=400)
    estimate, influence, effective = conditional_difference(change[:, None], d == 1, x, weights=np.ones(400), method="doubly_robust")
    value, error = literal_doubly_robust(change, d, x)
    assert 0 < effective < (d == 0).sum()
    assert estimate[0] == pytest.approx(value, abs=1e-8)
    assert np.sqrt(np.mean(influence[:, 0] ** 2) / 400) == pytest.approx(error, rel=1e-6)
    assert influence.mean() == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("share", [1.0, 0.8])
@pytest.mark.parametrize("covariates", [(), ("z",)])
def test_imputation_agrees_with_another_library_with_and_without_gaps(share: float, covariates: tuple[str, ...]) -> None:
    frame, spec = staggered().sample(fraction=share, seed=3), replace(SPEC, adjustment=covariates)
    panel = make_panel(frame, spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = diff_diff.ImputationDiD().fit(
            frame.to_pandas(), "y", "u", "t", "g", covariates=list(covariates) or None, aggregate="event_study"
        )
    ours = Imputation().fit(panel, spec, seed=1)
    assert ours.estimate == pytest.approx(other.overall_att, abs=1e-8)
    assert ours.standard_error == pytest.approx(FACTOR * other.overall_se, rel=1e-5)
    found = Imputation().by_horizon(panel, spec)
    for label, value, error in zip(found.labels, found.estimate, found.standard_error, strict=True):
        assert value == pytest.approx(other.event_study_effects[int(label)]["effect"], abs=1e-8)
        assert error == pytest.approx(FACTOR * other.event_study_effects[int(label)]["se"], rel=1e-5)


def test_imputation_with_weights_and_clusters_is_the_dense_regression() -> None:
    rng = np.random.default_rng(8)
    frame = staggered(60, 6, cohorts=(0, 4, 5)).with_columns(w=pl.Series(rng.uniform(0.5, 2, 360))).sample(fraction=0.9, seed=1)
    spec = replace(SPEC, weights="w", cluster="c", adjustment=("z",))
    panel = make_panel(frame, spec)
    found = Imputation().fit(panel, spec, seed=1)
    z = np.hstack([np.eye(60)[panel.unit], np.eye(6)[panel.time][:, 1:], panel.covariates])
    on, w = panel.treatment > 0, panel.weights
    gram = z[~on].T @ (w[~on, None] * z[~on])
    beta = np.linalg.solve(gram, z[~on].T @ (w[~on] * panel.outcome[~on]))
    excess = panel.outcome - z @ beta
    loading = np.zeros(len(on))
    loading[on] = w[on] / w[on].sum()
    assert found.estimate == pytest.approx(float(loading @ excess), abs=1e-9)
    loading[~on] = -w[~on] * (z[~on] @ np.linalg.solve(gram, z[on].T @ loading[on]))
    for cohort in (3, 4):
        for time in range(6):
            cell = on & (panel.cohort[panel.unit] == cohort) & (panel.time == time)
            if cell.any():
                excess[cell] -= np.average(excess[cell], weights=loading[cell] ** 2)
    sums = np.bincount(panel.cluster[panel.unit], weights=loading * excess)
    assert found.standard_error == pytest.approx(np.sqrt(10 / 9 * np.sum((sums - sums.mean()) ** 2)), rel=1e-8)
    assert "9 degrees" in found.interval_method


def test_an_unbalanced_panel_compares_units_seen_in_both_periods() -> None:
    frame = staggered(120, 6, cohorts=(0, 4, 5)).sample(fraction=0.7, seed=2)
    panel = make_panel(frame, SPEC)
    effects = GroupTime().effects(panel, SPEC)
    y = panel.matrix()
    for number in range(len(effects.estimate)):
        first, time, base = (int(values[number]) for values in (effects.grid.first, effects.grid.time, effects.grid.base))
        change = y[:, time] - y[:, base]
        control = (panel.cohort == NEVER) | ((panel.cohort > max(time, base)) & (panel.cohort != first))
        seen = np.isfinite(change)
        assert effects.estimate[number] == pytest.approx(change[seen & (panel.cohort == first)].mean() - change[seen & control].mean())


def test_the_influence_of_an_average_predicts_what_leaving_a_unit_out_does() -> None:
    frame = staggered(150, 7, cohorts=(0, 4, 6)).sample(fraction=0.9, seed=4)
    panel = make_panel(frame, SPEC)
    for kind in ("simple", "group", "dynamic", "calendar"):
        found = GroupTime().effects(panel, SPEC).aggregate(kind)
        changes = []
        for unit in range(0, 150, 10):
            keep = np.arange(150) != unit
            changes.append(found.overall - GroupTime().effects(panel.of_units(keep), SPEC).aggregate(kind).overall)
        expected = found.overall_influence[::10] / 149
        assert changes == pytest.approx(expected, abs=0.08 * np.abs(expected).max()), kind


def test_moving_covariates_are_taken_off_first_and_then_compared_as_of_the_base_period() -> None:
    frame, spec = staggered(200, 6, cohorts=(0, 4, 5)), replace(SPEC, adjustment=("z",))
    panel = make_panel(frame, spec)
    effects = GroupTime(control="never", method="regression").effects(panel, spec)
    moving = without_moving(panel, 0)
    assert moving is not None
    y, z = panel.matrix(moving.outcome), panel.matrix(panel.covariates[:, 0])
    number = int(np.flatnonzero((effects.grid.first == 3) & (effects.grid.time == 5))[0])
    treated, never, change = panel.cohort == 3, panel.cohort == NEVER, y[:, 5] - y[:, 2]
    slope, level = np.polyfit(z[never, 2], change[never], 1)
    assert effects.estimate[number] == pytest.approx((change - level - slope * z[:, 2])[treated].mean())
    thinned = make_panel(frame.sample(fraction=0.9, seed=1), spec)
    assert GroupTime().fit(thinned, spec, seed=1).estimate == pytest.approx(GroupTime().fit(panel, spec, seed=1).estimate, abs=0.3)


def test_integer_weights_count_as_copies_of_units() -> None:
    frame = staggered(80, 6, cohorts=(0, 4, 5))
    copies = pl.concat([frame, frame.filter(pl.col("u") % 2 == 0).with_columns(u=pl.col("u") + 1000)])
    weighted = frame.with_columns(w=pl.when(pl.col("u") % 2 == 0).then(2.0).otherwise(1.0))
    spec = replace(SPEC, adjustment=("x",))
    for one in (SPEC, spec):
        given = replace(one, weights="w")
        for estimator in (GroupTime(), Imputation()):
            expected = estimator.fit(make_panel(copies, one), one, seed=1).estimate
            assert estimator.fit(make_panel(weighted, given), given, seed=1).estimate == pytest.approx(expected, abs=1e-8)


def test_coarser_clusters_give_the_error_of_their_sums() -> None:
    frame, spec = staggered(), replace(SPEC, cluster="c")
    unit, coarse = (GroupTime().fit(make_panel(frame, one), one, seed=1) for one in (SPEC, spec))
    assert coarse.estimate == unit.estimate
    sums = np.bincount(np.arange(300) // 6, weights=unit.influence) / 300
    assert coarse.standard_error == pytest.approx(np.sqrt(50 / 49 * np.sum(sums**2)))
    assert len(coarse.influence) == 50
    assert "49 degrees" in coarse.interval_method


def test_anticipation_moves_the_base_period_and_the_controls() -> None:
    frame, spec = staggered(), replace(SPEC, anticipation=1)
    grid = GroupTime().effects(make_panel(frame, spec), spec).grid
    after = grid.event_time >= 0
    assert (grid.base[after] == grid.first[after] - 2).all()
    assert not (grid.controls[:, 0] & (grid.cohorts[0] <= np.maximum(grid.time, grid.base) + 1)).any()


def test_units_treated_from_the_start_are_left_out_and_told() -> None:
    frame = staggered(cohorts=(0, 1, 4, 6))
    without = frame.filter(pl.col("g") != 1)
    for estimator in (GroupTime(), Imputation()):
        found = estimator.fit(make_panel(frame, SPEC), SPEC, seed=1)
        assert found.estimate == pytest.approx(estimator.fit(make_panel(without, SPEC), SPEC, seed=1).estimate)
        assert any("left out" in note for note in found.notes)


def test_without_never_treated_the_last_cohort_is_only_a_control() -> None:
    panel = make_panel(staggered(cohorts=(4, 6, 8)), SPEC)
    found = GroupTime().fit(panel, SPEC, seed=1)
    assert any("have no control unit" in note for note in found.notes)
    assert np.isfinite(found.standard_error)
    assert any("cannot be imputed" in note for note in Imputation().fit(panel, SPEC, seed=1).notes)
    with pytest.raises(NotIdentified, match="no never-treated unit"):
        GroupTime(control="never").fit(panel, SPEC, seed=1)


def test_a_treatment_that_ends_is_refused() -> None:
    frame = staggered().with_columns(d=((pl.col("t") == pl.col("g")) & (pl.col("g") > 0)).cast(int))
    spec = replace(SPEC, cohort=None)
    for estimator in (GroupTime(), Imputation()):
        with pytest.raises(NotIdentified, match="treatment_switched_off"):
            estimator.fit(make_panel(frame, spec), spec, seed=1)


def test_confounders_that_separate_a_cohort_are_refused() -> None:
    frame, spec = staggered().with_columns(x=(pl.col("g") > 0) * 5.0 + pl.col("x").tanh()), replace(SPEC, adjustment=("x",))
    with pytest.raises(PositivityViolated, match=r"separate|resembles"):
        GroupTime(control="never").fit(make_panel(frame, spec), spec, seed=1)


def test_the_number_of_controls_that_count_falls_with_overlap() -> None:
    frame = staggered(cohorts=(0, 6))
    far = frame.with_columns(x=pl.col("x") + 1.5 * (pl.col("g") > 0))
    spec = replace(SPEC, adjustment=("x",))
    plain, near, apart = (
        GroupTime().fit(make_panel(rows, one), one, seed=1).diagnostics["effective_controls"]
        for rows, one in ((frame, SPEC), (frame, spec), (far, spec))
    )
    assert plain == frame.filter((pl.col("g") == 0) & (pl.col("t") == 1)).height
    assert plain > near > 2 * apart


def test_one_cluster_is_refused() -> None:
    frame, spec = staggered().with_columns(c=pl.lit(1)), replace(SPEC, cluster="c")
    for estimator in (GroupTime(), Imputation()):
        with pytest.raises(TooFewRows, match="one cluster"):
            estimator.fit(make_panel(frame, spec), spec, seed=1)


def test_large_levels_cost_no_digits_and_order_does_not_matter() -> None:
    frame = staggered()
    shifted = frame.with_columns(y=pl.col("y") + 1e7 * (pl.col("u") % 7)).sample(fraction=1.0, shuffle=True, seed=1)
    for estimator in (GroupTime(), Imputation()):
        expected = estimator.fit(make_panel(frame, SPEC), SPEC, seed=1)
        found = estimator.fit(make_panel(shifted, SPEC), SPEC, seed=2)
        assert found.estimate == pytest.approx(expected.estimate, abs=1e-6)
        assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-5)


def test_castle_doctrine_laws_agree_with_another_library() -> None:
    import causaldata

    data = causaldata.castle.load_pandas().data
    first = data[data.post > 0].groupby("sid").year.min()
    rows = pd.DataFrame({"u": data.sid, "t": data.year, "y": data.l_homicide, "g": data.sid.map(first).fillna(0)})
    frame = pl.from_pandas(rows)
    other = theirs(frame, diff_diff.CallawaySantAnna(control_group="never_treated"))
    ours = GroupTime(control="never").fit(make_panel(frame, SPEC), SPEC, seed=1)
    assert ours.estimate == pytest.approx(other.overall_att, abs=1e-6)
    assert ours.standard_error == pytest.approx(np.sqrt(50 / 49) * other.overall_se, rel=1e-5)
    imputed = theirs(frame, diff_diff.ImputationDiD())
    assert Imputation().fit(make_panel(frame, SPEC), SPEC, seed=1).estimate == pytest.approx(imputed.overall_att, abs=1e-6)
