"""Simplex weights against an independent solver, known corners and the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from e2i.causal.panel.simplex import many_simplex_weights, project_onto_simplex, simplex_weights


def problem(seed: int, *, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(rows, 3)).cumsum(axis=0)
    paths = 1e4 + 300 * factors @ rng.normal(size=(3, columns + 1)) + 100 * rng.normal(size=(rows, columns + 1))
    return paths[:, :columns], paths[:, columns]


def loss(matrix: np.ndarray, target: np.ndarray, weights: np.ndarray, *, ridge: float, intercept: bool) -> float:
    if intercept:
        matrix, target = matrix - matrix.mean(axis=0), target - target.mean()
    return float(np.sum((matrix @ weights - target) ** 2) + ridge**2 * np.sum(weights**2))


@pytest.mark.parametrize(("ridge", "intercept"), [(0.0, False), (0.0, True), (400.0, False), (400.0, True)])
def test_the_loss_is_as_low_as_that_of_a_general_optimiser(ridge: float, intercept: bool) -> None:
    matrix, target = problem(3, rows=25, columns=8)
    ours = simplex_weights(matrix, target, ridge=ridge, intercept=intercept)

    def scaled(weights: np.ndarray) -> float:
        return loss(matrix, target, weights, ridge=ridge, intercept=intercept) / 1e6

    reference = minimize(
        scaled,
        np.full(8, 1 / 8),
        method="SLSQP",
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert scaled(ours) <= scaled(reference.x) * (1 + 1e-7)
    np.testing.assert_allclose(ours, reference.x, atol=2e-4)


@pytest.mark.parametrize(("rows", "columns", "ridge"), [(40, 30, 0.0), (40, 400, 0.0), (40, 400, 500.0), (8, 300, 50.0)])
def test_no_column_outside_the_support_could_lower_the_loss(rows: int, columns: int, ridge: float) -> None:
    matrix, target = problem(rows + columns, rows=rows, columns=columns)
    weights = simplex_weights(matrix, target, ridge=ridge)
    gradient = matrix.T @ (matrix @ weights - target) + ridge**2 * weights
    level = float(gradient @ weights)
    size = float(np.sum((matrix - target[:, None]) ** 2, axis=0).max())
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (gradient >= level - 1e-8 * size).all()
    assert np.allclose(gradient[weights > 1e-9], level, atol=1e-8 * size)


def test_a_batch_gives_what_single_calls_give_and_never_uses_what_is_not_allowed() -> None:
    matrix, _ = problem(5, rows=20, columns=150)
    targets = matrix[:, :6]
    allowed = ~np.eye(150, dtype=bool)[:, :6]
    together = many_simplex_weights(matrix, targets, ridge=30.0, intercept=True, allowed=allowed)
    assert np.all(together[~allowed] == 0)
    for k in range(6):
        alone = simplex_weights(np.delete(matrix, k, axis=1), targets[:, k], ridge=30.0, intercept=True)
        np.testing.assert_allclose(np.delete(together[:, k], k), alone, atol=1e-8)


def test_a_target_that_is_a_mixture_is_found_and_one_that_is_a_column_gets_all_the_weight() -> None:
    matrix, _ = problem(7, rows=30, columns=12)
    true = np.zeros(12)
    true[[2, 5]] = 0.3, 0.7
    np.testing.assert_allclose(simplex_weights(matrix, matrix @ true), true, atol=1e-8)
    assert simplex_weights(matrix, matrix[:, 4])[4] == 1.0


def test_identical_columns_are_no_obstacle() -> None:
    matrix, target = problem(9, rows=30, columns=5)
    twice = simplex_weights(np.hstack([matrix, matrix]), target)
    np.testing.assert_allclose(twice[:5] + twice[5:], simplex_weights(matrix, target), atol=1e-7)


def test_projection_is_the_nearest_point_of_the_simplex() -> None:
    values = np.array([[0.5, 2.0], [0.7, 0.0], [-0.4, 0.0]])
    allowed = np.array([[True, True], [True, True], [True, False]])
    np.testing.assert_allclose(project_onto_simplex(values, allowed), [[0.4, 1.0], [0.6, 0.0], [0.0, 0.0]], atol=1e-12)
