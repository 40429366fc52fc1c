"""Linear models from sufficient statistics, the same numbers as from every row (Wong, Forsell, Lewis, Mao & Wardrop 2021).

Three ways to compress. `CompressedRows`: equal rows once, with the count, mean and spread of their outcomes. `ClusterMoments`: cross
products per cluster, for regressors that take too many values. `UnitSums`: products per unit of a balanced panel after its period
means, for two-way fixed effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.absorb import sum_by
from e2i.errors import DataError, NoVariation, SchemaMismatch, TooFewRows

HC1 = "heteroskedasticity-robust (HC1)"
Variance = Literal["classical", "HC1", "cluster"]


@dataclass(frozen=True, kw_only=True)
class CompressedRows:
    """m different rows of n; with clusters, a row stands once for every cluster it occurs in."""

    names: tuple[str, ...]
    design: FloatArray
    """shape (m, k), with the constant"""
    count: FloatArray
    """shape (m,): how many rows are like this"""
    mean: FloatArray
    """shape (m,): mean outcome of these rows"""
    spread: FloatArray
    """shape (m,): sum of squared distances of these outcomes from their mean"""
    cluster: IntArray | None = None
    """shape (m,), 0 … G-1"""


@dataclass(frozen=True, kw_only=True)
class ClusterMoments:
    """Cross products of regressors (each minus its overall mean, and the constant) and outcome, per cluster."""

    names: tuple[str, ...]
    count: FloatArray
    """shape (G,)"""
    square: FloatArray
    """shape (G, k, k): X'X"""
    cross: FloatArray
    """shape (G, k): X'y"""
    outcome_square: FloatArray
    """shape (G,): y'y"""
    is_clustered: bool
    """False: one group of all rows, and rows are taken as independent with equal variance"""


@dataclass(frozen=True, kw_only=True)
class UnitSums:
    """Per unit of a balanced panel: products of treatment and outcome minus period and unit means."""

    periods: int
    treatment_square: FloatArray
    """shape (N,)"""
    cross: FloatArray
    """shape (N,)"""
    is_treated: BoolArray
    """shape (N,): in any period"""
    cluster: IntArray
    """shape (N,), 0 … G-1"""


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """Coefficients with their covariance."""

    names: tuple[str, ...]
    coefficients: FloatArray
    """shape (k,)"""
    covariance: FloatArray
    """shape (k, k)"""
    rows: int
    clusters: int | None
    method: str

    def effect(self, name: str, *, estimand: str) -> Estimate:
        """One coefficient as an estimate: t with G - 1 degrees of freedom with clusters, else with n - k.

        Raises
        ------
        SchemaMismatch
            No regressor of that name.
        """
        from scipy.stats import t

        if name not in self.names:
            raise SchemaMismatch(f"there is no regressor `{name}`.", where="compressed fit", advice=f"Use one of {', '.join(self.names)}.")
        place = self.names.index(name)
        estimate, error = float(self.coefficients[place]), float(np.sqrt(self.covariance[place, place]))
        degrees = self.rows - len(self.names) if self.clusters is None else self.clusters - 1
        critical = float(t.ppf(0.5 + LEVEL / 2, degrees))
        return Estimate(
            estimator="least squares on sufficient statistics",
            estimand=estimand,
            estimate=estimate,
            standard_error=error,
            interval=(estimate - critical * error, estimate + critical * error),
            interval_method=f"t with {degrees} degrees of freedom, {self.method}",
            p_value=float(2 * t.sf(abs(estimate) / error, degrees)) if error > 0 else None,
            diagnostics={"rows": float(self.rows)},
        )


def design_of(columns: Mapping[str, NDArray[np.generic]]) -> tuple[tuple[str, ...], FloatArray]:
    """Names and matrix with a constant; text becomes indicators against its first level in sorted order.

    Parameters
    ----------
    columns : name -> shape (m,), numbers, booleans or text
    """
    size = len(next(iter(columns.values()))) if columns else 0
    names, parts = ["constant"], [np.ones(size)]
    for name, values in columns.items():
        if values.dtype.kind in "biuf":
            names.append(name)
            parts.append(values.astype(np.float64))
            continue
        text = values.astype(str)
        for level in np.unique(text)[1:].tolist():
            names.append(f"{name}={level}")
            parts.append((text == level).astype(np.float64))
    return tuple(names), np.column_stack(parts)


def interact(data: CompressedRows, first: str, second: str) -> CompressedRows:
    """Add the product of two columns, named `first:second`; for a double difference, treated and after."""
    for name in (first, second):
        if name not in data.names:
            raise SchemaMismatch(f"there is no regressor `{name}`.", where="interaction", advice=f"Use one of {', '.join(data.names)}.")
    product = data.design[:, data.names.index(first)] * data.design[:, data.names.index(second)]
    return replace(data, names=(*data.names, f"{first}:{second}"), design=np.column_stack([data.design, product]))


def fit_rows(data: CompressedRows, *, variance: Variance) -> LinearFit:
    """Least squares; HC1 and clustered variances are those of the uncompressed rows.

    The squared residuals of equal rows add up to their spread plus count times the squared distance of their mean from the fit.

    Raises
    ------
    TooFewRows
        No more rows than regressors, or one cluster.
    NoVariation
        A regressor is explained by the others.
    DataError
        Clustered variance without clusters, or an outcome that is not finite.
    """
    rows, k = float(data.count.sum()), data.design.shape[1]
    if not (np.isfinite(data.mean).all() and np.isfinite(data.spread).all() and np.isfinite(data.design).all()):
        raise DataError(
            "an outcome or regressor is not finite.", where="compressed rows", advice="Clean the column, or leave these rows out."
        )
    _require_rows(rows, k)
    root = np.sqrt(data.count)
    inverse, coefficients = _solve(data.design * root[:, None], data.mean * root, data.names)
    distance = data.mean - data.design @ coefficients
    squares = data.spread + data.count * distance**2
    if variance == "classical":
        covariance, groups = inverse * squares.sum() / (rows - k), None
    elif variance == "HC1":
        covariance, groups = inverse @ (data.design.T @ (squares[:, None] * data.design)) @ inverse * rows / (rows - k), None
    else:
        if data.cluster is None:
            raise DataError("the rows were compressed without clusters.", where="compressed rows", advice="Compress with `cluster`.")
        groups = int(data.cluster.max()) + 1
        scores = sum_by(data.cluster, data.design * (data.count * distance)[:, None], groups)
        covariance = _clustered(scores @ inverse, rows=rows, parameters=k)
    return LinearFit(
        names=data.names,
        coefficients=coefficients,
        covariance=covariance,
        rows=int(rows),
        clusters=groups,
        method={"classical": "equal variances", "HC1": HC1, "cluster": f"{groups} clusters"}[variance],
    )


def fit_moments(data: ClusterMoments, *, squares: FloatArray | None = None) -> LinearFit:
    """Least squares from cross products; clustered where they are per cluster, else HC1 with `squares`, else with equal variances.

    Parameters
    ----------
    squares : shape (k, k), sum over rows of x x' times the squared residual of the fit without them

    Raises
    ------
    TooFewRows, NoVariation, DataError
        As for `fit_rows`.
    """
    square, cross = data.square.sum(axis=0), data.cross.sum(axis=0)
    rows, k = float(data.count.sum()), len(cross)
    if not (np.isfinite(square).all() and np.isfinite(cross).all()):
        raise DataError(
            "an outcome or regressor is not finite.", where="cluster moments", advice="Clean the column, or leave these rows out."
        )
    _require_rows(rows, k)
    scale = np.sqrt(np.diag(square))
    _require_independent(square / np.outer(scale, scale), data.names)
    inverse = np.linalg.inv(square / np.outer(scale, scale)) / np.outer(scale, scale)
    coefficients = inverse @ cross
    if data.is_clustered:
        covariance = _clustered((data.cross - data.square @ coefficients) @ inverse, rows=rows, parameters=k)
    elif squares is not None:
        covariance = inverse @ squares @ inverse * rows / (rows - k)
    else:
        covariance = inverse * float(data.outcome_square.sum() - coefficients @ cross) / (rows - k)
    return LinearFit(
        names=data.names,
        coefficients=coefficients,
        covariance=covariance,
        rows=int(rows),
        clusters=len(data.count) if data.is_clustered else None,
        method=f"{len(data.count)} clusters" if data.is_clustered else HC1 if squares is not None else "equal variances",
    )


def two_way(data: UnitSums) -> Estimate:
    """Two-way fixed effects (double difference) of a balanced panel from one row of sums per unit.

    In a balanced panel period means and unit means come off in either order, so each unit's products are all that coefficient and
    clustered variance need. Factor G / (G - 1) times (n - 1) / (n - parameters), unit effects inside clusters not counted.

    Raises
    ------
    TooFewRows
        One cluster.
    NoVariation
        Unit and period effects explain the treatment.
    """
    from scipy.stats import t

    units, total = len(data.cross), float(data.treatment_square.sum())
    groups = int(data.cluster.max()) + 1
    if total <= 1e-12 * units:
        raise NoVariation(
            "unit and period effects explain the treatment.",
            where="compressed panel",
            advice="Treatment must begin at different times, or never for some units.",
        )
    if groups < 2:
        raise TooFewRows("there is one cluster.", where="compressed panel", advice="Name a finer `cluster`.")
    estimate = float(data.cross.sum()) / total
    influence = sum_by(data.cluster, data.cross - estimate * data.treatment_square, groups) / total
    rows = units * data.periods
    factor = groups / (groups - 1) * (rows - 1) / (rows - data.periods - 1)
    error = float(np.sqrt(factor * np.sum(influence**2)))
    critical = float(t.ppf(0.5 + LEVEL / 2, groups - 1))
    return Estimate(
        estimator="two-way fixed effects on sufficient statistics",
        estimand="ATT",
        estimate=estimate,
        standard_error=error,
        interval=(estimate - critical * error, estimate + critical * error),
        interval_method=f"t with {groups - 1} degrees of freedom, clustered",
        p_value=float(2 * t.sf(abs(estimate) / error, groups - 1)) if error > 0 else None,
        influence=influence * groups,
        n_treated=int(data.is_treated.sum()),
        n_untreated=units - int(data.is_treated.sum()),
        diagnostics={"rows": float(rows), "clusters": float(groups)},
    )


def _solve(design: FloatArray, outcome: FloatArray, names: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """(X'X)^-1 and the coefficients, by QR."""
    scale = np.sqrt((design**2).sum(axis=0))
    if not scale.all():
        raise _explained(names[int(np.argmin(scale))])
    q, r = np.linalg.qr(design / scale)
    _require_independent(r.T @ r, names)
    back = np.linalg.inv(r) / scale[:, None]
    coefficients: FloatArray = back @ (q.T @ outcome)
    return back @ back.T, coefficients


def _clustered(influence: FloatArray, *, rows: float, parameters: int) -> FloatArray:
    groups = len(influence)
    if groups < 2:
        raise TooFewRows("there is one cluster.", where="compressed rows", advice="Name a finer `cluster`, or leave it out.")
    covariance: FloatArray = groups / (groups - 1) * (rows - 1) / (rows - parameters) * influence.T @ influence
    return covariance


def _require_rows(rows: float, parameters: int) -> None:
    if rows <= parameters:
        raise TooFewRows(f"{int(rows)} rows for {parameters} regressors.", where="compressed rows", advice="Use fewer regressors.")


def _require_independent(correlation: FloatArray, names: tuple[str, ...]) -> None:
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < 1e-12:
        raise _explained(names[int(np.argmax(np.abs(vectors[:, 0])))])


def _explained(name: str) -> NoVariation:
    return NoVariation(f"the other regressors explain `{name}`.", where="compressed fit", advice="Leave it out.")
