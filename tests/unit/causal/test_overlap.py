from __future__ import annotations

import numpy as np
import pytest

from e2i.causal.balance import balance
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.overlap import auc, measure_overlap, require_both_arms_in_levels, require_overlap, weights
from e2i.errors import PositivityViolated

RNG = np.random.default_rng(2)
N = 4_000
X = RNG.normal(size=N)
CHANCE = sigmoid(0.8 * X)
T = (RNG.random(N) < CHANCE).astype(float)


def covariates(*columns: np.ndarray) -> Covariates:
    names = tuple(f"c{j}" for j in range(len(columns)))
    return Covariates(matrix=np.column_stack(columns), names=names, sources=names, is_level=(False,) * len(names), notes=())


@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_true_weights_balance_what_treatment_depends_on(estimand: str) -> None:
    (row,) = balance(covariates(X), T, weights(T, CHANCE, estimand))  # type: ignore[arg-type]
    assert row.smd_before > 0.6
    assert abs(row.smd_after) < 0.05


def test_useless_weights_leave_the_imbalance_in_the_table() -> None:
    (row,) = balance(covariates(X), T, np.ones(N))
    assert row.smd_after == pytest.approx(row.smd_before)


def test_a_randomised_experiment_keeps_all_its_information() -> None:
    assert measure_overlap(T, np.full(N, T.mean()), "ATE").effective_share == pytest.approx(1.0)
    assert measure_overlap(T, np.full(N, T.mean()), "ATT").effective_share == pytest.approx(1.0)


def test_weights_of_each_arm_sum_to_one() -> None:
    weight = weights(T, CHANCE, "ATT")
    assert weight[T == 1].sum() == pytest.approx(1.0)
    assert weight[T == 0].sum() == pytest.approx(1.0)


def test_histograms_are_densities_over_the_unit_interval() -> None:
    found = measure_overlap(T, CHANCE, "ATE")
    width = np.diff(found.bin_edges)
    assert np.dot(width, found.treated_density) == pytest.approx(1.0)
    assert np.dot(width, found.untreated_density) == pytest.approx(1.0)
    assert found.share_outside == 0.0
    require_overlap(found, propensity=CHANCE, estimand="ATE")


def test_auc_counts_ties_half() -> None:
    label = np.array([0.0, 1.0, 0.0, 1.0])
    assert auc(np.array([0.1, 0.9, 0.2, 0.8]), label) == 1.0
    assert auc(np.full(4, 0.3), label) == 0.5


def test_six_percent_outside_the_support_is_refused_and_four_is_not() -> None:
    for share, refused in ((0.06, True), (0.04, False)):
        chance = CHANCE.copy()
        chance[: int(share * N)] = 0.995
        found = measure_overlap(T, chance, "ATE")
        if refused:
            with pytest.raises(PositivityViolated, match=r"6\.0% of rows .* \(0\.0% below, 6\.0% above"):
                require_overlap(found, propensity=chance, estimand="ATE")
        else:
            require_overlap(found, propensity=chance, estimand="ATE")


def test_untreated_rows_that_are_never_treated_do_not_hinder_the_effect_on_the_treated() -> None:
    chance = np.where(T == 0, np.minimum(CHANCE, 0.005), CHANCE)
    require_overlap(measure_overlap(T, CHANCE, "ATT"), propensity=chance, estimand="ATT")
    with pytest.raises(PositivityViolated):
        require_overlap(measure_overlap(T, CHANCE, "ATE"), propensity=chance, estimand="ATE")


def test_a_level_with_one_arm_only_is_named() -> None:
    level = (np.arange(N) % 10 == 0).astype(float)
    treated = np.where(level == 1, 1.0, T)
    with pytest.raises(PositivityViolated, match="c1 = 1 \\(all of 400 treated\\)"):
        require_both_arms_in_levels(covariates(X, level), treated, "ATE")
    untreated = np.where(level == 1, 0.0, T)
    with pytest.raises(PositivityViolated, match="none of 400 treated"):
        require_both_arms_in_levels(covariates(X, level), untreated, "ATE")
    require_both_arms_in_levels(covariates(X, level), untreated, "ATT")


def test_a_small_level_with_one_arm_only_is_left_alone() -> None:
    level = (np.arange(N) < 12).astype(float)
    require_both_arms_in_levels(covariates(level), np.where(level == 1, 1.0, T), "ATE")


def test_the_error_of_a_balance_row_is_its_spread_over_draws_weights_held() -> None:
    draws = np.random.default_rng(7).normal(size=(400, 300))
    arm = (np.arange(300) % 3 == 0).astype(float)
    weight = np.random.default_rng(8).gamma(2.0, size=300)
    rows = [balance(covariates(draw), arm, weight)[0] for draw in draws]
    spread = np.std([row.smd_after for row in rows], ddof=1)
    assert np.mean([row.error_after for row in rows]) == pytest.approx(spread, rel=0.08)


def test_one_far_row_of_a_column_makes_its_difference_uncertain() -> None:
    noise = np.random.default_rng(9).normal(size=N)
    noise[np.flatnonzero(T == 1)[0]] = 5_000.0
    (row,) = balance(covariates(noise), T, np.ones(N))
    assert abs(row.smd_after) < 2.0 * row.error_after


def test_a_group_of_one_to_ten_people_has_no_line_in_the_table() -> None:
    rows = np.arange(N)
    told = balance(covariates(X, rows < 7.0, rows >= 10.0, rows < 11.0, rows < 1.5), T, np.ones(N))
    assert [row.covariate for row in told] == ["c0", "c3"]
