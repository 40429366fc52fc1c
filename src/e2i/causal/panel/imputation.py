"""Staggered adoption by imputing what the treated would have had (Borusyak, Jaravel & Spiess 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.absorb import TwoWay
from e2i.causal.panel.clusters import clustered_estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.group_time import Aggregation, absorbing
from e2i.causal.panel.moving_confounders import untreated_rows, varying_while
from e2i.domain.disclosure import counted
from e2i.errors import NotIdentified, NoVariation


@dataclass(frozen=True, kw_only=True)
class Imputation:
    """Unit and period effects from untreated rows; the effect is what treated rows have beyond them.

    With anticipation, rows that may already react count as neither.
    """

    def fit(self, panel: Panel, spec: Identification, *, seed: int) -> Estimate:
        """Average over all treated rows, with the conservative clustered variance of section 4.3.

        Raises
        ------
        NotIdentified
            No treated row can be imputed, or untreated rows do not connect the periods.
        """
        del seed
        panel, notes = absorbing(panel)
        model = _Model.of(panel, spec.anticipation)
        on = model.treated[:, None].astype(np.float64)
        estimate, influence = model.average(on)
        lost = int((panel.treatment > 0).sum()) - int(model.treated.sum())
        if lost:
            notes = (
                *notes,
                f"{counted(lost, 'treated rows')} cannot be imputed (no untreated row of the unit or period) and were left out",
            )
        return clustered_estimate(
            float(estimate[0]),
            influence[:, 0],
            estimator="imputation (Borusyak-Jaravel-Spiess)",
            estimand="ATT",
            n_treated=len(np.unique(panel.unit[model.treated])),
            n_untreated=int((panel.cohort == NEVER).sum()),
            diagnostics={"treated_rows": float(model.treated.sum()), "clusters": float(len(influence))},
            notes=notes,
        )

    def by_horizon(self, panel: Panel, spec: Identification) -> Aggregation:
        """Average effect for each number of periods since treatment began, and over all treated rows."""
        panel, _ = absorbing(panel)
        model = _Model.of(panel, spec.anticipation)
        horizon = panel.time - panel.cohort[panel.unit]
        labels = np.unique(horizon[model.treated])
        chosen = (horizon[:, None] == labels) & model.treated[:, None]
        estimate, influence = model.average(np.column_stack([chosen, model.treated]).astype(np.float64))
        return Aggregation(
            kind="dynamic",
            labels=labels,
            estimate=estimate[:-1],
            influence=influence[:, :-1],
            overall=float(estimate[-1]),
            overall_influence=influence[:, -1],
        )


@dataclass(frozen=True, kw_only=True)
class _Model:
    panel: Panel
    free: BoolArray
    """shape (n,): untreated rows, from which the model is fitted"""
    treated: BoolArray
    """shape (n,): treated rows that can be imputed"""
    project: TwoWay
    covariates: FloatArray
    """shape (n, k)"""

    @classmethod
    def of(cls, panel: Panel, anticipation: int) -> _Model:
        """The untreated rows and their fixed effects."""
        free = untreated_rows(panel, anticipation)
        seen = np.bincount(panel.unit[free], minlength=panel.n_units) > 0
        dated = np.bincount(panel.time[free], minlength=panel.n_periods) > 0
        treated = (panel.treatment > 0) & seen[panel.unit] & dated[panel.time]
        if not treated.any():
            raise NotIdentified(
                "no treated row can be imputed.", where="panel", advice="Add untreated rows before, and in the same periods."
            )
        weights = np.ones(int(free.sum())) if panel.weights is None else panel.weights[free]
        project = TwoWay(unit=panel.unit[free], time=panel.time[free], weights=weights)
        if project.period_rank < int(dated.sum()) - 1:
            raise NotIdentified(
                "untreated rows do not connect the periods: no unit is seen untreated on both sides.",
                where="panel",
                advice="Add never-treated units, or shorten the panel.",
            )
        return cls(panel=panel, free=free, treated=treated, project=project, covariates=varying_while(panel, free))

    def average(self, chosen: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Averages over treated rows, `chosen` of shape (n, m), and influence per cluster, shape (G, m)."""
        mass = chosen if self.panel.weights is None else chosen * self.panel.weights[:, None]
        share = mass / mass.sum(axis=0)
        slopes, bread = self._slopes()
        excess = self._beyond(self.panel.outcome - self.covariates @ slopes)
        estimate = share.T @ excess
        residual = np.empty((len(excess), chosen.shape[1]))
        residual[:] = excess[:, None]
        self._centre_by_cell(residual, excess, share)
        loading = share.copy()
        loading[self.free] = -self._back(share, bread)
        terms = loading * residual
        groups = self.panel.cluster[self.panel.unit]
        count = int(self.panel.cluster.max()) + 1
        sums = np.column_stack([np.bincount(groups, weights=column, minlength=count) for column in terms.T])
        return estimate, (count * sums).astype(np.float64)

    def _beyond(self, values: FloatArray) -> FloatArray:
        """Values minus unit and period effects fitted on untreated rows, shape (n,); 0 where these do not exist."""
        free, project = self.free, self.project
        inside = project.within(values[free])
        sums = np.bincount(project.time, weights=project.weights * inside, minlength=project.n_periods)
        period = np.zeros(self.panel.n_periods)
        period[: project.n_periods] = project.period_inverse @ sums
        left = values - period[self.panel.time]
        unit = np.zeros(self.panel.n_units)
        total = np.bincount(project.unit, weights=project.weights * left[free])
        unit[: project.n_units] = total / project.unit_mass
        beyond: FloatArray = np.where(self.free | self.treated, left - unit[self.panel.unit], 0.0)
        return beyond

    def _slopes(self) -> tuple[FloatArray, FloatArray]:
        """Coefficients of the covariates among untreated rows, and the inverse of their cross products."""
        width = self.covariates.shape[1]
        if width == 0:
            return np.zeros(0), np.zeros((0, 0))
        inside = self.project.residual(self.covariates[self.free])
        weighted = inside * self.project.weights[:, None]
        gram = weighted.T @ inside
        scale = np.sqrt(np.maximum(self.project.weights @ self.covariates[self.free] ** 2, 1e-300))
        if np.linalg.eigvalsh(gram / np.outer(scale, scale))[0] < 1e-10:
            raise NoVariation(
                "a confounder does not vary within untreated units and periods, or repeats the others.",
                where="effect.confounders",
                advice="Take it out of `confounders`.",
            )
        bread = np.linalg.inv(gram)
        slopes: FloatArray = bread @ (weighted.T @ self.panel.outcome[self.free])
        return slopes, bread.astype(np.float64)

    def _centre_by_cell(self, residual: FloatArray, excess: FloatArray, share: FloatArray) -> None:
        """Treated rows around their cohort's mean at that time, weighted by squared weights (equation 10 for single units)."""
        on = np.flatnonzero(self.treated)
        begun = self.panel.cohort[self.panel.unit[on]]
        cell = begun * self.panel.n_periods + self.panel.time[on]
        for column in range(share.shape[1]):
            squared = share[on, column] ** 2
            total = np.bincount(cell, weights=squared)
            mean = np.bincount(cell, weights=squared * excess[on]) / np.where(total > 0, total, 1.0)
            residual[on, column] -= mean[cell]

    def _back(self, share: FloatArray, bread: FloatArray) -> FloatArray:
        """What each untreated row contributes to the imputed values: W Z (Z'WZ)⁻¹ Z₁'w, shape (n untreated, m)."""
        project, on = self.project, np.flatnonzero(self.treated)
        unit, time = self.panel.unit[on], self.panel.time[on]
        out = np.empty((len(project.unit), share.shape[1]))
        inside = project.residual(self.covariates[self.free])
        beyond = np.column_stack([self._beyond(column) for column in self.covariates.T]) if len(bread) else self.covariates
        for column in range(share.shape[1]):
            weights = share[on, column]
            by_unit = np.bincount(unit, weights=weights, minlength=project.n_units)[: project.n_units] / project.unit_mass
            by_time = np.bincount(time, weights=weights, minlength=project.n_periods)[: project.n_periods]
            through = np.bincount(project.time, weights=project.weights * by_unit[project.unit], minlength=project.n_periods)
            period = (project.period_inverse @ (by_time - through))[project.time]
            slope = bread @ (beyond[on].T @ weights)
            out[:, column] = project.weights * (by_unit[project.unit] + project.within(period) + inside @ slope)
        return out
