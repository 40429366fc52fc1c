"""Two-way fixed effects, and the plain double difference of which it is the regression form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.absorb import TwoWay
from e2i.causal.panel.clusters import clustered_estimate
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.group_time import absorbing, unit_weights
from e2i.causal.panel.on_off import FixedEffectsFit, fixed_effects
from e2i.domain.disclosure import counted
from e2i.errors import NotIdentified


@dataclass(frozen=True, kw_only=True)
class TwoWayFixedEffects:
    """Outcome on treatment beside unit and period effects.

    One effect for everybody at all times is assumed: under staggered adoption later cohorts are compared with earlier ones, and
    `negative_weight` tells how much of the treated cells counts with the wrong sign (de Chaisemartin & D'Haultfœuille 2020).
    """

    def fit(self, panel: Panel, spec: Identification, *, seed: int) -> Estimate:
        """The coefficient of treatment, t(G - 1), clustered. Rows of anticipation are left out.

        Raises
        ------
        NoVariation
            Treatment does not vary within units and periods beside the confounders.
        """
        del seed
        panel = panel.without_anticipation(spec.anticipation)
        found = fixed_effects(panel, panel.treatment[:, None], ("treatment",))
        influence = influence_of(found)
        dose = spec.treatment_kind == "continuous"
        treated = np.bincount(panel.unit, weights=panel.treatment != 0, minlength=panel.n_units) > 0
        return clustered_estimate(
            float(found.coefficients[0]),
            influence[:, 0],
            estimator="two-way fixed effects",
            estimand="APE" if dose else "ATT",
            n_treated=int(treated.sum()),
            n_untreated=int((~treated).sum()),
            diagnostics={"clusters": float(found.clusters)} | ({} if dose else _weights_of_cells(panel)),
            notes=panel.notes,
        )


def influence_of(found: FixedEffectsFit) -> FloatArray:
    """Influence per cluster, shape (G, k), that gives the fit's own standard errors with the factor G / (G - 1)."""
    groups = found.clusters
    spread = np.sum(found.scores**2, axis=0) * groups / (groups - 1)
    scale = np.sqrt(np.diag(found.covariance) / np.where(spread > 0, spread, 1.0))
    influence: FloatArray = groups * scale * found.scores
    return influence


def _weights_of_cells(panel: Panel) -> dict[str, float]:
    """Share of treated rows with a negative weight, and the sum of these weights (all weights sum to 1), theorem 1."""
    weights = np.ones(len(panel.unit)) if panel.weights is None else panel.weights
    inside = TwoWay(unit=panel.unit, time=panel.time, weights=weights).residual(panel.treatment)
    on = panel.treatment > 0
    raw = inside[on] * weights[on]
    share = raw / raw.sum()
    negative = share < -1e-12
    return {"negative_weight_share": float(negative.mean()), "negative_weight": float(np.abs(share[negative]).sum())}


@dataclass(frozen=True, kw_only=True)
class DoubleDifference:
    """Mean change of the treated minus mean change of the untreated, all treated at the same time."""

    def fit(self, panel: Panel, spec: Identification, *, seed: int) -> Estimate:
        """ATT over the periods after treatment; each unit's change is its mean after minus its mean before.

        Raises
        ------
        NotIdentified
            Units are treated at different times, or no unit is never treated.
        """
        del seed
        panel, notes = absorbing(panel)
        starts = np.unique(panel.cohort[panel.cohort != NEVER])
        if len(starts) != 1 or (panel.cohort != NEVER).all():
            raise NotIdentified(
                "a plain double difference needs one start of treatment for all treated units, and never-treated units.",
                where="panel",
                advice="Use the group-time estimator for staggered adoption.",
            )
        after = panel.time >= starts[0]
        before = panel.time < starts[0] - spec.anticipation
        change = _unit_means(panel, after) - _unit_means(panel, before)
        known = np.isfinite(change)
        estimate, influence = _difference(change, panel.cohort != NEVER, np.where(known, unit_weights(panel), 0.0))
        lost = int((~known).sum())
        groups = int(panel.cluster.max()) + 1
        return clustered_estimate(
            estimate,
            np.bincount(panel.cluster, weights=influence, minlength=groups) * groups / panel.n_units,
            estimator="double difference",
            estimand="ATT",
            n_treated=int((known & (panel.cohort != NEVER)).sum()),
            n_untreated=int((known & (panel.cohort == NEVER)).sum()),
            notes=(*notes, *((f"{counted(lost, 'units')} without a row before or after were left out",) if lost else ())),
        )


def _unit_means(panel: Panel, rows: BoolArray) -> FloatArray:
    """Mean outcome of each unit over some rows, shape (N,); NaN where it has none."""
    count = np.bincount(panel.unit[rows], minlength=panel.n_units)
    total = np.bincount(panel.unit[rows], weights=panel.outcome[rows], minlength=panel.n_units)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _difference(change: FloatArray, treated: BoolArray, weights: FloatArray) -> tuple[float, FloatArray]:
    """Difference of weighted means, and its influence per unit, shape (N,)."""
    filled = np.where(weights > 0, change, 0.0)
    influence = np.zeros(len(change))
    means = []
    for arm, sign in ((treated, 1.0), (~treated, -1.0)):
        mass = weights * arm
        if mass.sum() == 0:
            raise NotIdentified("no unit of one arm is seen before and after.", where="panel", advice="Add rows.")
        mean = float(mass @ filled / mass.sum())
        influence += sign * len(change) * mass / mass.sum() * (filled - mean)
        means.append(mean)
    return means[0] - means[1], influence
