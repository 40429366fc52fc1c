"""Wild cluster bootstrap: tests and intervals for one coefficient when clusters are few.

The restricted bootstrap of Cameron, Gelbach & Miller (2008) on cluster sums (Roodman, MacKinnon, Nielsen & Webb 2019): the null's
value enters every draw's statistic as a quadratic, so that inverting the test costs no further draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.absorb import TwoWay, inverse_of, sum_by
from e2i.causal.panel.data import Panel
from e2i.errors import NoVariation, TooFewRows

DRAWS = 9_999
FEW_CLUSTERS = 5
_WEBB_BELOW = 12
_ENUMERATE_UP_TO = 16_384
_CELLS = 4_000_000
_WEBB = np.sqrt(np.array([0.5, 1.0, 1.5]))
_WIDEST = 1e4
"""standard errors from the estimate at which the search for the end of an interval gives up"""


@dataclass(frozen=True, kw_only=True)
class WildBootstrap:
    """One coefficient with its bootstrapped test of zero and the interval of all values that the test does not reject."""

    estimate: float
    standard_error: float
    """cluster-robust, with G / (G - 1); it scales the statistic and makes no interval"""
    statistic: float
    p_value: float
    interval: tuple[float, float]
    """95 %; infinite on a side where the test rejects nothing"""
    draws: int
    method: str
    clusters: int
    effective_clusters: float
    """1 / sum of squared shares of the regressor's variation; near the number of treated clusters when these are few"""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """All that the bootstrap needs: products of the residual regressor with outcome and controls, summed per cluster."""

    regressor_square: FloatArray
    """shape (G,): sum of w x² per cluster, x the regressor's residual on the controls"""
    regressor_outcome: FloatArray
    """shape (G,): sum of w x y, y the outcome's residual"""
    controls_regressor: FloatArray
    """shape (G, k)"""
    controls_outcome: FloatArray
    """shape (G, k)"""
    controls_inverse: FloatArray
    """shape (k, k): inverse cross product of the controls over all rows"""

    @property
    def estimate(self) -> float:
        """The coefficient."""
        return float(self.regressor_outcome.sum() / self.regressor_square.sum())

    @property
    def standard_error(self) -> float:
        """Cluster-robust, with G / (G - 1)."""
        return self.error_at(self.regressor_outcome - self.estimate * self.regressor_square)

    def error_at(self, scores: FloatArray) -> float:
        """Standard error from scores per cluster, shape (G,)."""
        groups = len(scores)
        return float(np.sqrt(groups / (groups - 1) * np.sum(scores**2)) / self.regressor_square.sum())


def wild_cluster(
    outcome: FloatArray, design: FloatArray, cluster: IntArray, *, index: int, weights: FloatArray | None = None, seed: int
) -> WildBootstrap:
    """Wild cluster bootstrap of one coefficient of a linear model.

    Parameters
    ----------
    outcome : shape (n,)
    design : shape (n, k), all regressors, with the constant
    cluster : shape (n,), equal for rows that are not independent
    index : column of `design` whose coefficient is asked for
    weights : shape (n,), positive

    Raises
    ------
    TooFewRows
        Fewer than two clusters.
    NoVariation
        The other columns explain the regressor, or leave nothing of it.
    """
    root = np.ones(len(outcome)) if weights is None else np.sqrt(weights)
    controls = np.delete(design, index, axis=1) * root[:, None]
    both = np.column_stack([design[:, index], outcome]) * root[:, None]
    regressor, left = (both - controls @ np.linalg.lstsq(controls, both, rcond=None)[0]).T if controls.shape[1] else both.T
    _require_variation(regressor, both[:, 0])
    number = np.unique(cluster, return_inverse=True)[1].astype(np.int64)
    groups = _require_clusters(number)
    sums = ClusterSums(
        regressor_square=sum_by(number, regressor**2, groups),
        regressor_outcome=sum_by(number, regressor * left, groups),
        controls_regressor=sum_by(number, controls * regressor[:, None], groups),
        controls_outcome=sum_by(number, controls * left[:, None], groups),
        controls_inverse=inverse_of(controls.T @ controls),
    )
    return bootstrap(sums, seed=seed)


def wild_two_way(panel: Panel, *, seed: int) -> WildBootstrap:
    """Wild cluster bootstrap of the treatment's coefficient beside unit effects, period effects and the panel's covariates.

    Units lie inside clusters, so unit effects are taken out before drawing; period effects reach over clusters and are estimated
    anew in every draw, through sums per cluster and period.

    Raises
    ------
    TooFewRows
        Fewer than two clusters.
    NoVariation
        Unit and period effects explain the treatment.
    """
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    effects = TwoWay(unit=panel.unit, time=panel.time, weights=weights)
    extra = effects.residual(panel.covariates)
    inverse = inverse_of(extra.T @ (weights[:, None] * extra))
    regressor, left = (_off(effects.residual(values), extra, weights, inverse) for values in (panel.treatment, panel.outcome))
    _require_variation(regressor, panel.treatment)
    cluster = panel.cluster[panel.unit]
    groups = _require_clusters(cluster)
    cells = cluster * effects.n_periods + panel.time

    def sums_with_controls(values: FloatArray) -> FloatArray:
        inside = sum_by(cells, weights * values, groups * effects.n_periods).reshape(groups, -1)
        return np.column_stack([inside, sum_by(cluster, extra * (weights * values)[:, None], groups)])

    blocks = np.zeros((effects.n_periods + extra.shape[1],) * 2)
    blocks[: effects.n_periods, : effects.n_periods] = effects.period_inverse
    blocks[effects.n_periods :, effects.n_periods :] = inverse
    sums = ClusterSums(
        regressor_square=sum_by(cluster, weights * regressor**2, groups),
        regressor_outcome=sum_by(cluster, weights * regressor * left, groups),
        controls_regressor=sums_with_controls(regressor),
        controls_outcome=sums_with_controls(left),
        controls_inverse=blocks,
    )
    return bootstrap(sums, seed=seed)


def as_estimate(found: WildBootstrap, *, estimator: str, estimand: str, n_treated: int, n_untreated: int) -> Estimate:
    """The bootstrap's coefficient as an estimate; its interval is the inverted test."""
    return Estimate(
        estimator=estimator,
        estimand=estimand,
        estimate=found.estimate,
        standard_error=found.standard_error,
        interval=found.interval,
        interval_method=found.method,
        p_value=found.p_value,
        n_treated=n_treated,
        n_untreated=n_untreated,
        diagnostics={"clusters": float(found.clusters), "effective_clusters": found.effective_clusters, "draws": float(found.draws)},
        notes=found.notes,
    )


def bootstrap(sums: ClusterSums, *, seed: int) -> WildBootstrap:
    """Test of zero and inverted interval from sums per cluster."""
    groups = len(sums.regressor_square)
    curve = _Curve.draw(sums, seed=seed)
    estimate, error = sums.estimate, sums.standard_error
    share = sums.regressor_square / sums.regressor_square.sum()
    effective = float(1.0 / np.sum(share**2))
    few = (
        f"Treatment varies as if in {effective:.1f} clusters of {groups}: with fewer than {FEW_CLUSTERS} treated or untreated ones "
        "the wild bootstrap seldom rejects anything (MacKinnon & Webb 2018)."
    )
    return WildBootstrap(
        estimate=estimate,
        standard_error=error,
        statistic=estimate / error if error > 0 else float("inf"),
        p_value=curve.p_value(0.0),
        interval=(_end(curve, -1.0), _end(curve, 1.0)),
        draws=curve.draws,
        method=f"wild cluster bootstrap, {curve.name}, {groups} clusters",
        clusters=groups,
        effective_clusters=effective,
        notes=(few,) if effective < FEW_CLUSTERS else (),
    )


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """p-value as a function of the null's value b: each draw's numerator is linear in b, its squared error quadratic."""

    sums: ClusterSums
    numerator: FloatArray
    """shape (2, B): numerator = row 0 - b row 1"""
    square: FloatArray
    """shape (3, B): squared error = row 0 - 2 b row 1 + b² row 2"""
    is_complete: bool
    name: str

    @classmethod
    def draw(cls, sums: ClusterSums, *, seed: int) -> _Curve:
        """Draw, or enumerate, the weights and keep five numbers of each draw."""
        groups, total = len(sums.regressor_square), sums.regressor_square.sum()
        spread = sums.controls_regressor @ sums.controls_inverse
        scale = groups / (groups - 1) / total**2
        numerators, squares = [], []
        is_complete, name, blocks = _weights(groups, seed=seed)
        for signs in blocks:
            top = np.stack([sums.regressor_outcome @ signs, sums.regressor_square @ signs])
            parts = [
                own[:, None] * signs - spread @ (controls.T @ signs) - np.outer(sums.regressor_square, row / total)
                for own, controls, row in (
                    (sums.regressor_outcome, sums.controls_outcome, top[0]),
                    (sums.regressor_square, sums.controls_regressor, top[1]),
                )
            ]
            numerators.append(top / total)
            squares.append(scale * np.stack([(parts[0] ** 2).sum(0), (parts[0] * parts[1]).sum(0), (parts[1] ** 2).sum(0)]))
        return cls(sums=sums, numerator=np.hstack(numerators), square=np.hstack(squares), is_complete=is_complete, name=name)

    @property
    def draws(self) -> int:
        """B."""
        return len(self.numerator[0])

    def p_value(self, null: float) -> float:
        """Two-sided, symmetric: the share of draws with a statistic at least as large as the data's."""
        top = (self.numerator[0] - null * self.numerator[1]) ** 2
        bottom = np.maximum(self.square[0] - 2 * null * self.square[1] + null**2 * self.square[2], 0.0)
        distance, error = self.sums.estimate - null, self.sums.standard_error
        # products instead of ratios: a draw that fits perfectly has no error and counts as extreme
        extreme = top * error**2 >= distance**2 * bottom * (1 - 1e-9)
        count = int(np.count_nonzero(extreme))
        return count / self.draws if self.is_complete else (count + 1) / (self.draws + 1)


def _weights(groups: int, *, seed: int) -> tuple[bool, str, Iterator[FloatArray]]:
    """Whether all sign patterns are taken, the name, and blocks of shape (G, b)."""
    webb = groups < _WEBB_BELOW
    values = np.concatenate([-_WEBB[::-1], _WEBB]) if webb else np.array([-1.0, 1.0])
    name = "Webb weights" if webb else "Rademacher weights"
    if len(values) ** groups <= _ENUMERATE_UP_TO:
        table = np.array(list(product(values, repeat=groups))).T
        return True, f"{name}, all {table.shape[1]:,} patterns", iter((table,))
    rng = np.random.default_rng(seed)
    step = max(min(_CELLS // groups, DRAWS), 1)
    sizes = [min(step, DRAWS - start) for start in range(0, DRAWS, step)]
    return False, f"{name}, {DRAWS:,} draws", (rng.choice(values, size=(groups, size)) for size in sizes)


def _end(curve: _Curve, side: float) -> float:
    """The far end of the values that the test does not reject at 5 %, by doubling, then bisection."""
    estimate = curve.sums.estimate
    unit = curve.sums.standard_error
    if unit <= 0:
        return estimate
    inner, outer = 0.0, 1.0
    while curve.p_value(estimate + side * outer * unit) > 1 - LEVEL:
        inner, outer = outer, 2 * outer
        if outer > _WIDEST:
            return side * float("inf")
    while outer - inner > 1e-6 * outer:
        middle = 0.5 * (inner + outer)
        inner, outer = (middle, outer) if curve.p_value(estimate + side * middle * unit) > 1 - LEVEL else (inner, middle)
    return estimate + side * outer * unit


def _off(values: FloatArray, extra: FloatArray, weights: FloatArray, inverse: FloatArray) -> FloatArray:
    return values - extra @ (inverse @ (extra.T @ (weights * values))) if extra.shape[1] else values


def _require_variation(residual: FloatArray, values: FloatArray) -> None:
    if float(residual @ residual) <= 1e-12 * max(float(values @ values), 1e-300):
        raise NoVariation(
            "nothing of the treatment is left beside the other regressors.",
            where="wild cluster bootstrap",
            advice="Drop the effects or covariates that determine the treatment.",
        )


def _require_clusters(number: IntArray) -> int:
    groups = int(number.max()) + 1
    if groups < 2:
        raise TooFewRows("there is one cluster.", where="wild cluster bootstrap", advice="Name a finer `cluster`, or leave it out.")
    return groups
