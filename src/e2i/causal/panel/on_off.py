"""Treatments that switch on and off, and doses per unit and period: fixed effects with lags for carry-over and leads as placebo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import LEVEL, Estimate
from e2i.causal.panel.absorb import TwoWay, sum_by
from e2i.causal.panel.data import Panel
from e2i.causal.panel.switchers import neighbour, switchers
from e2i.domain.evidence import PeriodEffect, Refutation
from e2i.errors import NoVariation, TooFewRows

_LEVEL = 0.05
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class FixedEffectsFit:
    """Coefficients beside unit and period effects, with their covariance clustered."""

    names: tuple[str, ...]
    coefficients: FloatArray
    """shape (k,)"""
    covariance: FloatArray
    """shape (k, k)"""
    scores: FloatArray
    """shape (G, k): influence of each cluster, sum zero, in units of the coefficients"""
    clusters: int
    rows: int
    conventional: FloatArray
    """shape (k,): standard errors if all rows were independent and equally noisy"""

    @property
    def degrees(self) -> int:
        """Of the t distribution: G - 1."""
        return self.clusters - 1

    def wald(self, columns: Sequence[int]) -> tuple[float, float]:
        """F statistic and p-value of `columns` all being zero."""
        from scipy.stats import f

        chosen = list(columns)
        values, spread = self.coefficients[chosen], self.covariance[np.ix_(chosen, chosen)]
        statistic = float(values @ np.linalg.pinv(spread, hermitian=True) @ values) / len(chosen)
        return statistic, float(f.sf(statistic, len(chosen), self.degrees))


def fixed_effects(panel: Panel, columns: FloatArray, names: tuple[str, ...], *, rows: IntArray | None = None) -> FixedEffectsFit:
    """Least squares with unit and period effects and the panel's covariates; variance clustered as the panel says.

    Small-sample factor G / (G - 1) times (n - 1) / (n - parameters); unit effects that lie inside clusters are not counted
    (Cameron & Miller 2015). Where every row is a cluster this is HC1 (MacKinnon & White 1985).

    Parameters
    ----------
    columns : shape (n, k), or (len(rows), k)
    rows : the panel's rows to use; default all

    Raises
    ------
    TooFewRows
        One cluster, or no more rows than parameters.
    NoVariation
        A column is explained by the effects or by the other columns.
    """
    used = np.arange(len(panel.unit)) if rows is None else rows
    weights = np.ones(len(used)) if panel.weights is None else panel.weights[used]
    effects = TwoWay(unit=panel.unit[used], time=panel.time[used], weights=weights)
    given = np.column_stack([columns, _varying(panel.covariates[used])])
    design, outcome = effects.residual(given), effects.residual(panel.outcome[used])
    kept = _independent(design, given, weights, names)
    design = design[:, kept]
    inverse = np.linalg.inv(design.T @ (weights[:, None] * design))
    coefficients = inverse @ (design.T @ (weights * outcome))
    error = weights * (outcome - design @ coefficients)
    cluster = np.unique(panel.cluster_of_rows[used], return_inverse=True)[1]
    groups = int(cluster.max()) + 1
    units = int(np.count_nonzero(np.bincount(panel.unit[used])))
    nested = panel.row_cluster is None or _is_nested(panel.unit[used], cluster)
    parameters = design.shape[1] + effects.period_rank + (1 if nested else units)
    if groups < 2 or len(used) <= parameters:
        raise TooFewRows(
            f"{groups} clusters and {len(used)} rows for {parameters} parameters.",
            where="fixed effects",
            advice="Add units or periods, use fewer lags, or name a finer `cluster`.",
        )
    own = len(names)
    scores = sum_by(cluster, design * error[:, None], groups) @ inverse[:, :own]
    factor = groups / (groups - 1) * (len(used) - 1) / (len(used) - parameters)
    free = max(len(used) - design.shape[1] - effects.period_rank - units, 1)
    noise = float(np.sum(error**2 / weights)) / free
    return FixedEffectsFit(
        names=names,
        coefficients=coefficients[:own],
        covariance=factor * scores.T @ scores,
        scores=scores,
        clusters=groups,
        rows=len(used),
        conventional=np.sqrt(noise * np.diag(inverse)[:own]),
    )


def _is_nested(unit: IntArray, cluster: IntArray) -> bool:
    """Every unit lies in one cluster."""
    return bool(np.all(cluster == cluster[np.unique(unit, return_index=True)[1]][np.unique(unit, return_inverse=True)[1]]))


@dataclass(frozen=True, kw_only=True)
class Lags:
    """Effects of treatment now, `lags` periods after and `leads` periods before it."""

    fit: FixedEffectsFit
    lags: int
    leads: int
    n_treated: int
    n_untreated: int

    @property
    def now_and_after(self) -> FloatArray:
        """Weights that add up the coefficients from the period of treatment on, shape (k,)."""
        return np.concatenate([np.ones(self.lags + 1), np.zeros(self.leads)])

    def cumulative(self, *, estimand: str) -> Estimate:
        """What one period of treatment (or one unit of dose) adds over its own and the `lags` next periods, by the delta method."""
        name = "distributed lags" if self.lags else "slope"
        what = f"two-way fixed effects, {name}" + (f" 0 to {self.lags}" if self.lags else "")
        return _combined(self, self.now_and_after, estimator=what, estimand=estimand)

    def paths(self) -> tuple[PeriodEffect, ...]:
        """Coefficient per period since treatment; leads are negative."""
        from scipy.stats import t

        critical = float(t.ppf(0.5 + LEVEL / 2, self.fit.degrees))
        places = [*reversed(range(self.lags + 1, self.lags + 1 + self.leads)), *range(self.lags + 1)]
        errors = np.sqrt(np.diag(self.fit.covariance))
        return tuple(
            PeriodEffect(
                period=period,
                estimate=float(self.fit.coefficients[place]),
                low=float(self.fit.coefficients[place] - critical * errors[place]),
                high=float(self.fit.coefficients[place] + critical * errors[place]),
            )
            for period, place in zip(range(-self.leads, self.lags + 1), places, strict=True)
        )

    def carry_over(self) -> Refutation | None:
        """Are the lags zero? If not, an effect of the treatment's own period alone misses a part. None without lags."""
        return self._all_zero("carry_over", range(1, self.lags + 1), f"Treatment of the last {_periods(self.lags)}", "move today's outcome")

    def placebo(self) -> Refutation | None:
        """Are the leads zero? Treatment to come cannot move today's outcome. None without leads."""
        places = range(self.lags + 1, self.lags + 1 + self.leads)
        return self._all_zero("placebo_leads", places, f"Treatment of the next {_periods(self.leads)}", "go with today's outcome")

    def _all_zero(self, test: str, places: range, who: str, what: str) -> Refutation | None:
        if not places:
            return None
        statistic, p_value = self.fit.wald(places)
        passed = p_value >= _LEVEL
        shown = ", ".join(f"{self.fit.coefficients[place]:.3g}" for place in places)
        return Refutation(
            test=test,
            passed=passed,
            detail=f"{who} {'does not' if passed else 'does'} {what}: {shown} (F = {statistic:.2f}, p = {p_value:.2g}).",
            statistic=statistic,
            p_value=p_value,
        )


def distributed_lags(panel: Panel, *, lags: int = 0, leads: int = 0) -> Lags:
    """Unit and period effects beside treatment (0/1 or a dose) now, in the `lags` periods before and in the `leads` after.

    Only rows whose neighbours in all those periods are in the panel are used, so that no unknown dose is taken as zero.

    Raises
    ------
    TooFewRows
        Too few rows have all those neighbours.
    NoVariation
        The effects explain the treatment.
    """
    shifts = [*range(lags + 1), *(-lead for lead in range(1, leads + 1))]
    rows = np.arange(len(panel.unit))
    neighbours = [neighbour(panel, shift) for shift in shifts]
    used = rows[np.all([found >= 0 for found in neighbours], axis=0)]
    if len(used) < 2:
        raise TooFewRows(
            f"{len(used)} rows have the {lags} periods before and {leads} after them in the panel.",
            where="distributed lags",
            advice="Use fewer lags, or fill the gaps between periods.",
        )
    columns = np.column_stack([panel.treatment[found[used]] for found in neighbours])
    names = tuple(f"treatment, {shift} periods ago" if shift >= 0 else f"treatment, {-shift} periods ahead" for shift in shifts)
    fit = fixed_effects(panel, columns, names, rows=used)
    treated = int((panel.treatment[used] != 0).sum())
    return Lags(fit=fit, lags=lags, leads=leads, n_treated=treated, n_untreated=len(used) - treated)


def fit(panel: Panel, spec: Identification, *, seed: int) -> Estimate:  # noqa: ARG001 - the protocol's argument; nothing is drawn
    """The effect of a treatment that switches on and off (DID_M), or the slope of a dose (two-way fixed effects).

    Raises
    ------
    NoVariation, NotIdentified, TooFewRows
        See `switchers.switchers` and `distributed_lags`.
    """
    if spec.treatment_kind == "continuous":
        return distributed_lags(panel).cumulative(estimand="APE")
    return switchers(panel)


def _combined(lags: Lags, weights: FloatArray, *, estimator: str, estimand: str) -> Estimate:
    from scipy.stats import t

    fit = lags.fit
    estimate = float(weights @ fit.coefficients)
    error = float(np.sqrt(weights @ fit.covariance @ weights))
    critical = float(t.ppf(0.5 + LEVEL / 2, fit.degrees))
    coefficients = {f"lag_{place}": float(fit.coefficients[place]) for place in range(lags.lags + 1)} if lags.lags else {}
    return Estimate(
        estimator=estimator,
        estimand=estimand,
        estimate=estimate,
        standard_error=error,
        interval=(estimate - critical * error, estimate + critical * error),
        interval_method=f"t with {fit.degrees} degrees of freedom, clustered",
        p_value=float(2 * t.sf(abs(estimate) / error, fit.degrees)) if error > 0 else None,
        influence=fit.scores @ weights * fit.clusters,
        n_treated=lags.n_treated,
        n_untreated=lags.n_untreated,
        diagnostics={"clusters": float(fit.clusters), "rows": float(fit.rows)} | coefficients,
    )


def _varying(covariates: FloatArray) -> FloatArray:
    varying: FloatArray = covariates[:, covariates.std(axis=0) > 0] if covariates.shape[1] else covariates
    return varying


def _independent(design: FloatArray, given: FloatArray, weights: FloatArray, names: tuple[str, ...]) -> list[int]:
    """Columns of the residual design that add something; the asked ones must, covariates may be repeats of the effects.

    What is left of a column (of `given`, before the effects were taken off) must be more than rounding.
    """
    kept: list[int] = []
    floors = 1e-16 * np.maximum((weights[:, None] * given**2).sum(axis=0), 1e-300)
    gram = design.T @ (weights[:, None] * design)
    for place in range(design.shape[1]):
        size = left = float(gram[place, place])
        if kept:
            shared = gram[kept, place]
            slopes = np.linalg.lstsq(gram[np.ix_(kept, kept)], shared, rcond=None)[0]
            left = size - float(shared @ slopes)
            if left < _ROUNDING * size:  # a difference of sums is too rough here; the rows tell
                left = float(weights @ (design[:, place] - design[:, kept] @ slopes) ** 2)
        if size > floors[place] and left > 1e-10 * size:
            kept.append(place)
        elif place < len(names):
            raise NoVariation(
                f"unit effects, period effects and the other columns explain `{names[place]}` entirely.",
                where="fixed effects",
                advice="The treatment must change within units at other times than for all; use fewer lags and leads.",
            )
    return kept


def _periods(count: int) -> str:
    return "period" if count == 1 else f"{count} periods"
