from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from e2i.causal.design import Identification
from e2i.causal.panel.data import Panel
from e2i.causal.panel.on_off import distributed_lags, fit, fixed_effects
from e2i.causal.panel.switchers import switchers, switchers_placebo
from e2i.errors import NotIdentified, NoVariation, TooFewRows

ON_OFF = Identification(design="did", estimand="ATT", treatment="call", outcome="nrx", treatment_kind="on_off")


def table(outcome: list[list[float]] | np.ndarray, treatment: list[list[float]] | np.ndarray, **others) -> Panel:
    """A panel from units x periods; NaN outcomes are rows that are not there."""
    outcome, treatment = np.asarray(outcome, dtype=float), np.asarray(treatment, dtype=float)
    units, periods = outcome.shape
    rows = ~np.isnan(outcome.ravel())
    covariates = others.pop("covariates", np.zeros((units * periods, 0)))
    given = {
        "unit": np.repeat(np.arange(units), periods)[rows],
        "time": np.tile(np.arange(periods), units)[rows],
        "outcome": outcome.ravel()[rows],
        "treatment": treatment.ravel()[rows],
        "unit_names": tuple(map(str, range(units))),
        "period_names": tuple(map(str, range(periods))),
        "period_values": np.arange(periods, dtype=float),
        "cluster": np.arange(units),
        "covariates": covariates[rows],
    }
    return Panel(**(given | others))


def switching_world(*, seed: int, units: int = 300, periods: int = 8, effect: float = 2.0, carry: float = 0.0, trend: float = 0.0) -> Panel:
    rng = np.random.default_rng(seed)
    treatment = np.cumsum(rng.random((units, periods)) < 0.25, axis=1) % 2
    past = np.column_stack([np.zeros(units), treatment[:, :-1]])
    joins = np.column_stack([treatment[:, 1:] > treatment[:, :-1], np.zeros((units, 1), dtype=bool)])
    noise = rng.normal(size=(units, periods))
    outcome = rng.normal(size=(units, 1)) * 3 + np.arange(periods) ** 2 + effect * treatment + carry * past + trend * joins + noise
    return table(outcome, treatment)


def by_hand(outcome: np.ndarray, treatment: np.ndarray) -> float:
    """DID_M as the paper's theorem 3 writes it, cell by cell."""
    total, count = 0.0, 0
    for period in range(1, outcome.shape[1]):
        change = outcome[:, period] - outcome[:, period - 1]
        before, after = treatment[:, period - 1], treatment[:, period]
        for status, sign in ((0, 1), (1, -1)):
            moved, stayed = (before == status) & (after != status), (before == status) & (after == status)
            if moved.any() and stayed.any():
                total += sign * moved.sum() * (change[moved].mean() - change[stayed].mean())
                count += moved.sum()
    return total / count


def test_did_m_is_the_weighted_mean_of_its_two_by_two_comparisons() -> None:
    panel = switching_world(seed=1, units=40)
    found = switchers(panel)
    assert found.estimate == pytest.approx(by_hand(panel.matrix(), panel.matrix(panel.treatment)), rel=1e-12)
    assert found.estimator.startswith("DID_M")


def test_did_m_is_that_of_diff_diff() -> None:
    import warnings

    from diff_diff import ChaisemartinDHaultfoeuille

    panel = switching_world(seed=2, units=60)
    frame = pd.DataFrame({"unit": panel.unit, "time": panel.time, "y": panel.outcome, "d": panel.treatment.astype(int)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = ChaisemartinDHaultfoeuille(drop_larger_lower=False).fit(frame, outcome="y", group="unit", time="time", treatment="d")
    assert switchers(panel).estimate == pytest.approx(peer.overall_att, rel=1e-9)


def test_joiners_and_leavers_are_told_apart() -> None:
    outcome = [[0, 5, 5], [0, 1, 1], [0, 1, 1], [9, 10, 7], [9, 10, 10]]
    treatment = [[0, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]]
    found = switchers(table(outcome, treatment))
    assert found.diagnostics["effect_joiners"] == pytest.approx(4.0)
    # leaver: -3; the treated stayers' mean change is 0
    assert found.diagnostics["effect_leavers"] == pytest.approx(3.0)
    assert found.estimate == pytest.approx(3.5)
    assert (found.n_treated, found.n_untreated) == (2, 4)


def test_a_switch_without_stayers_is_left_out_and_said() -> None:
    outcome = [[0, 5, 5], [0, 1, 1], [0, 1, 9], [0, 1, 9]]
    treatment = [[0, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    found = switchers(table(outcome, treatment))
    assert found.estimate == pytest.approx(4.0)
    assert found.diagnostics["share_unmatched_switches"] == 0.75
    assert "75% of switches" in found.notes[0]


def test_gaps_are_not_bridged() -> None:
    outcome = np.array([[0, 5, 5, 5], [0, 1, 1, 1], [0, 1, 1, 1], [0, np.nan, 50, 50]], dtype=float)
    treatment = [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert switchers(table(outcome, treatment)).estimate == pytest.approx(4.0)


def test_weights_are_those_of_repeated_units() -> None:
    panel = switching_world(seed=5, units=50)
    times = np.random.default_rng(1).integers(1, 4, 50)
    weighted = switchers(replace(panel, weights=times[panel.unit].astype(float)))
    repeated = switchers(table(np.repeat(panel.matrix(), times, axis=0), np.repeat(panel.matrix(panel.treatment), times, axis=0)))
    assert weighted.estimate == pytest.approx(repeated.estimate, rel=1e-12)


def test_what_covariate_changes_explain_is_taken_off() -> None:
    panel = switching_world(seed=6, units=400)
    rng = np.random.default_rng(6)
    access = rng.normal(size=len(panel.unit)) + 1.5 * panel.treatment
    moved = replace(panel, outcome=panel.outcome + 3 * access, covariates=access[:, None], covariate_names=("access",))
    plain = switchers(replace(moved, covariates=np.zeros((len(access), 0)), covariate_names=()))
    found = switchers(moved)
    assert plain.estimate > 5.5
    assert abs(found.estimate - 2.0) < 4 * found.standard_error
    constant = replace(panel, covariates=np.ones((len(access), 1)), covariate_names=("one",))
    assert switchers(constant).estimate == switchers(panel).estimate


def test_influence_values_are_what_leaving_out_a_unit_changes() -> None:
    panel = switching_world(seed=7, units=80)
    panel = replace(panel, covariates=np.random.default_rng(1).normal(size=(len(panel.unit), 1)), covariate_names=("x",))
    found = switchers(panel)
    assert found.influence is not None
    without = []
    for unit in range(80):
        keep = np.arange(80) != unit
        without.append(switchers(panel.of_units(keep)).estimate)
    jackknife = np.sqrt(79 / 80 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert found.standard_error == pytest.approx(jackknife, rel=0.06)


def test_the_placebo_sees_switchers_who_move_before_they_switch_and_passes_where_they_do_not() -> None:
    sound, wrong = switchers_placebo(switching_world(seed=8)), switchers_placebo(switching_world(seed=8, trend=1.0))
    assert sound is not None
    assert wrong is not None
    assert sound.passed
    assert not wrong.passed
    assert wrong.estimate == pytest.approx(1.0, abs=0.4)
    assert switchers_placebo(table([[0, 1], [0, 2]], [[0, 1], [0, 0]])) is None


def test_doses_and_panels_without_a_switch_are_refused() -> None:
    with pytest.raises(NotIdentified, match="3 values"):
        switchers(table([[0, 1], [1, 2]], [[0, 0.5], [1, 1]]))
    with pytest.raises(NoVariation, match="no unit switches"):
        switchers(table([[0, 1], [1, 2]], [[0, 0], [1, 1]]))
    with pytest.raises(NotIdentified, match="no switcher"):
        switchers(table([[0, 1], [1, 2]], [[0, 1], [0, 1]]))


def test_fixed_effects_equal_the_dummy_variable_regression_with_gaps_weights_and_clusters() -> None:
    rng = np.random.default_rng(3)
    outcome = rng.normal(size=(40, 6))
    outcome[rng.random((40, 6)) < 0.15] = np.nan
    dose = rng.gamma(1.0, size=(40, 6))
    panel = table(outcome, dose, cluster=np.arange(40) // 4, covariates=rng.normal(size=(240, 1)), covariate_names=("x",))
    panel = replace(panel, weights=rng.random(len(panel.unit)) + 0.5)
    found = fixed_effects(panel, panel.treatment[:, None], ("dose",))
    dummies = np.column_stack([np.eye(40)[panel.unit], np.eye(6)[panel.time][:, 1:]])
    long = sm.WLS(panel.outcome, np.column_stack([panel.treatment, panel.covariates, dummies]), weights=panel.weights)
    peer = long.fit(cov_type="cluster", cov_kwds={"groups": panel.cluster[panel.unit]})
    assert found.coefficients[0] == pytest.approx(peer.params[0], rel=1e-9)
    rows, all_parameters, without_units = len(panel.unit), 2 + 40 + 5, 2 + 1 + 5  # the peer counts the unit effects as well
    factor = np.sqrt((rows - all_parameters) / (rows - without_units))
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(peer.bse[0] * factor, rel=1e-9)


def test_carry_over_is_found_and_added_up() -> None:
    found = distributed_lags(switching_world(seed=4, effect=2.0, carry=1.0), lags=2)
    total = found.cumulative(estimand="ATT")
    assert abs(total.estimate - 3.0) < 3 * total.standard_error
    assert found.fit.coefficients == pytest.approx([2.0, 1.0, 0.0], abs=0.3)
    check = found.carry_over()
    assert check is not None
    assert not check.passed
    assert distributed_lags(switching_world(seed=4), lags=2).carry_over().passed  # type: ignore[union-attr]


def test_the_cumulative_effect_has_the_delta_methods_error_and_influence() -> None:
    found = distributed_lags(switching_world(seed=9), lags=1, leads=1)
    total = found.cumulative(estimand="ATT")
    one = np.array([1.0, 1.0, 0.0])
    assert total.standard_error == pytest.approx(float(np.sqrt(one @ found.fit.covariance @ one)), rel=1e-12)
    assert total.influence is not None
    assert total.standard_error**2 == pytest.approx((total.influence**2).mean() / len(total.influence), rel=0.01)
    assert [point.period for point in found.paths()] == [-1, 0, 1]
    assert found.paths()[0].estimate == found.fit.coefficients[2]


def test_leads_tell_a_treatment_that_follows_the_outcome() -> None:
    rng = np.random.default_rng(12)
    outcome = rng.normal(size=(300, 8))
    chasing = np.column_stack([np.zeros(300), outcome[:, :-1] + 0.5 * rng.normal(size=(300, 7))])
    wrong = distributed_lags(table(outcome, chasing), leads=1).placebo()
    sound = distributed_lags(table(outcome, rng.normal(size=(300, 8))), leads=1).placebo()
    assert wrong is not None
    assert sound is not None
    assert not wrong.passed
    assert sound.passed


def test_rows_without_a_known_past_are_not_used() -> None:
    outcome = np.random.default_rng(0).normal(size=(30, 6))
    outcome[3, 2] = np.nan
    found = distributed_lags(table(outcome, np.random.default_rng(1).random((30, 6))), lags=1)
    assert found.fit.rows == 30 * 5 - 2


def test_a_dose_gets_its_slope_and_a_switch_its_did_m() -> None:
    panel = switching_world(seed=12)
    dose = np.random.default_rng(2).gamma(2.0, size=len(panel.unit))
    given = replace(panel, treatment=dose, outcome=panel.outcome - 2 * panel.treatment + 0.7 * dose)
    slope = fit(given, replace(ON_OFF, treatment_kind="continuous"), seed=0)
    assert slope.estimand == "APE"
    assert abs(slope.estimate - 0.7) < 3 * slope.standard_error
    assert fit(panel, ON_OFF, seed=0).estimate == switchers(panel).estimate


def test_a_treatment_that_is_the_same_for_all_at_a_time_is_refused() -> None:
    outcome = np.random.default_rng(0).normal(size=(20, 5))
    with pytest.raises(NoVariation, match="explain"):
        distributed_lags(table(outcome, np.tile([0, 0, 1, 1, 0], (20, 1))))


def test_one_cluster_and_too_long_lags_are_refused() -> None:
    rng = np.random.default_rng(0)
    panel = table(rng.normal(size=(20, 5)), rng.random((20, 5)), cluster=np.zeros(20, dtype=int))
    with pytest.raises(TooFewRows, match="1 clusters"):
        distributed_lags(panel)
    with pytest.raises(TooFewRows, match="0 rows"):
        distributed_lags(panel, lags=5)
