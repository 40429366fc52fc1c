"""The fast estimator of the refuters against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from e2i.causal.refute.ground import bent, functional, quick_propensity
from e2i.causal.refute.normal import adjusted_p_values, two_sided

RNG = np.random.default_rng(4)
N = 1_500
X = RNG.normal(size=(N, 3))
CHANCE = 1 / (1 + np.exp(-0.8 * X[:, 0] + 0.4 * X[:, 1]))
T = (RNG.random(N) < CHANCE).astype(float)
Y = 1.0 + X @ np.array([1.0, -0.5, 0.0]) + T * (1.0 + 0.5 * X[:, 0]) + RNG.normal(size=N)
DESIGN = np.column_stack([np.ones(N), X])


def test_the_ate_is_the_difference_of_two_weighted_regressions() -> None:
    fast = functional(T, CHANCE, DESIGN, estimand="ATE")
    up = sm.WLS(Y[T == 1], DESIGN[T == 1], weights=1 / CHANCE[T == 1]).fit().params
    down = sm.WLS(Y[T == 0], DESIGN[T == 0], weights=1 / (1 - CHANCE[T == 0])).fit().params
    assert fast.estimates(Y) == pytest.approx(float(DESIGN.mean(axis=0) @ (up - down)), abs=1e-8)


def test_the_att_compares_the_treated_with_what_untreated_rows_predict_for_them() -> None:
    fast = functional(T, CHANCE, DESIGN, estimand="ATT")
    odds = (CHANCE / (1 - CHANCE))[T == 0]
    down = sm.WLS(Y[T == 0], DESIGN[T == 0], weights=odds).fit().params
    assert fast.estimates(Y) == pytest.approx(float((Y[T == 1] - DESIGN[T == 1] @ down).mean()), abs=1e-8)


@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_influence_values_have_mean_zero_and_the_spread_of_the_estimate(estimand: str) -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(600, 2))
        e = 1 / (1 + np.exp(-0.7 * x[:, 0]))
        t = (rng.random(600) < e).astype(float)
        y = x[:, 0] + x[:, 1] + t + rng.normal(size=600)
        design = bent(x)
        fast = functional(t, quick_propensity(design, t), design, estimand=estimand)  # type: ignore[arg-type]
        influence = fast.influence(y[:, None])[:, 0]
        return float(fast.estimates(y)), float(np.sqrt(np.sum(influence**2)) / 600), float(abs(influence.mean()))

    found = np.array([draw(seed) for seed in range(150)])
    assert found[:, 2].max() < 1e-6
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.17)
    assert found[:, 0].mean() == pytest.approx(1.0, abs=3.5 * found[:, 0].std() / np.sqrt(150))


def test_sampling_weights_count_like_copies() -> None:
    copies = RNG.integers(1, 4, N)
    weighted = functional(T, CHANCE, DESIGN, estimand="ATE", base=copies / copies.mean())
    again = np.repeat(np.arange(N), copies)
    repeated = functional(T[again], CHANCE[again], DESIGN[again], estimand="ATE")
    assert weighted.estimates(Y) == pytest.approx(float(repeated.estimates(Y[again])), abs=1e-8)


def test_a_constant_and_a_two_valued_column_get_no_square() -> None:
    matrix = np.column_stack([np.ones(50), np.arange(50) % 2, np.arange(50.0)])
    assert bent(matrix).shape == (50, 1 + 2 + 1)
    assert bent(np.empty((5, 0))).shape == (5, 1)


def test_the_p_value_of_the_largest_of_independent_values_is_sidaks() -> None:
    z = np.array([2.2, 0.3, -1.0, 0.1])
    expected = 1 - (1 - two_sided(2.2)) ** 4
    assert adjusted_p_values(z, np.eye(4), seed=1)[0] == pytest.approx(expected, abs=0.01)


def test_repeating_one_test_costs_nothing() -> None:
    found = adjusted_p_values(np.array([2.2, 2.2, 2.2]), np.ones((3, 3)), seed=1)
    assert found == pytest.approx(np.full(3, two_sided(2.2)), abs=0.006)


def test_far_in_the_tail_the_p_value_stays_small_and_finite() -> None:
    found = adjusted_p_values(np.array([9.0, 0.0]), np.eye(2), seed=1)
    assert 0.0 <= found[0] < 1e-15


def test_effects_and_influence_values_do_not_depend_on_where_the_outcome_has_its_zero() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(500, 3))
    chance = 1.0 / (1.0 + np.exp(-x[:, 0]))
    treatment = (rng.random(500) < chance).astype(float)
    outcome = treatment + x[:, 0] + rng.normal(size=500)
    for estimand in ("ATE", "ATT"):
        fast = functional(treatment, chance, bent(x), estimand=estimand)  # type: ignore[arg-type]
        far = outcome + 1e9
        assert fast.estimates(far) == pytest.approx(fast.estimates(outcome), abs=1e-5)
        np.testing.assert_allclose(fast.influence(far[:, None]), fast.influence(outcome[:, None]), atol=1e-4)
