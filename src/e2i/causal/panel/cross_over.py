"""Randomised cross-over: every unit gets both arms, in an order that chance drew, and is its own comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from e2i.causal.arrays import FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.absorb import sum_by
from e2i.causal.panel.clusters import cluster_influence, clustered_estimate
from e2i.causal.panel.data import Panel
from e2i.causal.panel.on_off import FixedEffectsFit, distributed_lags, fixed_effects
from e2i.causal.panel.switchers import neighbour, switchers
from e2i.domain.evidence import Refutation
from e2i.errors import NotIdentified, NoVariation, TooFewRows

_LEVEL = 0.05
_TEST = "carry_over"
_WHAT = "What the first arm leaves behind in the next period"


def is_cross_over(panel: Panel, spec: Identification) -> bool:
    """Chance assigned, treatment goes on and off, and either both arms are there from the first period on or nobody stays in one."""
    if not spec.is_randomised or spec.treatment_kind != "on_off":
        return False
    first = panel.treatment[panel.time == 0]
    if first.size and 0.0 < float((first > 0).mean()) < 1.0:
        return True
    try:
        switchers(panel)
    except NotIdentified:
        return True
    return False


def within_units(panel: Panel) -> Estimate:
    """Effect of treatment in its own period: differences within units, with what periods have in common taken off.

    Least squares with unit and period effects (Grizzle 1965; Senn 2002, chapters 3 and 5); with two periods and two orders it is half
    the difference between the orders' mean changes. The order is drawn, so units need no equal effects. Errors are clustered by unit.
    Assumes that no arm works on into the next period; see `carry_over`.

    Raises
    ------
    NoVariation, TooFewRows
        Unit and period effects explain treatment: all units switch in the same order, or units have one period.
    """
    try:
        found = distributed_lags(panel).cumulative(estimand="ATE")
    except NoVariation as error:
        raise NoVariation(
            "within units treatment changes at the same time for all, so it cannot be told from the period.",
            where="effect.treatment",
            advice="A cross-over needs two orders of the arms (AB and BA), each drawn for some of the units.",
        ) from error
    return replace(found, estimator="cross-over: within units, with period effects")


def free_of_carry_over(panel: Panel) -> Estimate:
    """The effect beside treatment of the period before; where the orders cannot tell both apart, of the first period alone.

    Raises NoVariation where the first period has one arm.
    """
    fit = _with_lag(panel)
    if fit is None:
        rows = np.flatnonzero(panel.time == 0)
        found = _between_units(panel, panel.treatment[rows], panel.outcome[rows], rows=rows)
        return replace(found, estimator="difference in means, first period alone")
    treated = int((panel.treatment > 0).sum())
    return clustered_estimate(
        float(fit.coefficients[0]),
        fit.scores[:, 0] * fit.clusters,
        estimator="cross-over, beside treatment of the period before",
        estimand="ATE",
        n_treated=treated,
        n_untreated=len(panel.treatment) - treated,
    )


def carry_over(panel: Panel) -> Refutation | None:
    """Does treatment of the period before move the outcome? None where the orders cannot tell.

    Beside treatment stands that of the period before, 0 in a unit's first (Senn 2002, chapter 10). With AB and BA alone that is the
    order itself; then units' sums are compared between orders, which chance made alike (Grizzle 1965): a weak test.
    """
    fit = _with_lag(panel)
    if fit is None:
        return _between_orders(panel)
    return _told(float(fit.coefficients[1]), fit.wald([1])[1], "within units")


def _with_lag(panel: Panel) -> FixedEffectsFit | None:
    """Unit and period effects with treatment now and before; rows whose past is not in the panel are left out."""
    before = neighbour(panel, 1)
    lag = np.where(before >= 0, panel.treatment[before], 0.0)
    known = np.flatnonzero((before >= 0) | (panel.time == 0))
    try:
        return fixed_effects(panel, np.column_stack([panel.treatment, lag])[known], ("treatment", "treatment before"), rows=known)
    except (NoVariation, TooFewRows):
        return None


def _between_orders(panel: Panel) -> Refutation | None:
    """Sums of both periods by the arm of the first; an arm that works on in one order and not in the other moves them apart."""
    whole = np.bincount(panel.unit) == panel.n_periods
    rows = np.flatnonzero(whole[panel.unit])
    started = np.flatnonzero(whole[panel.unit] & (panel.time == 0))
    if panel.n_periods != 2 or not len(rows):
        return None
    sums = np.bincount(panel.unit[rows], weights=panel.outcome[rows], minlength=panel.n_units).astype(np.float64)
    try:
        found = _between_units(panel, panel.treatment[started], sums[panel.unit[started]], rows=started)
    except NoVariation:
        return None
    return _told(found.estimate, 1.0 if found.p_value is None else found.p_value, "between units, a weak test")


def _between_units(panel: Panel, treatment: FloatArray, outcome: FloatArray, *, rows: IntArray) -> Estimate:
    on = treatment > 0
    if not 0 < int(on.sum()) < len(on):
        raise NoVariation("the first period has one arm.", where="effect.treatment", advice="Read the estimate within units alone.")
    given = np.ones(len(on)) if panel.weights is None else panel.weights[rows]
    means = [float(np.average(outcome[arm], weights=given[arm])) for arm in (~on, on)]
    share = float(np.average(on, weights=given))
    signed = np.where(on, 1.0 / share, -1.0 / (1.0 - share)) * given / given.mean() * (outcome - np.where(on, means[1], means[0]))
    influence = sum_by(panel.unit[rows], signed, panel.n_units) / len(on) * panel.n_units
    return clustered_estimate(
        means[1] - means[0],
        cluster_influence(influence, panel.cluster),
        estimator="difference in means",
        estimand="ATE",
        n_treated=int(on.sum()),
        n_untreated=int((~on).sum()),
    )


def _told(size: float, p_value: float, how: str) -> Refutation:
    passed = p_value >= _LEVEL
    ending = "zero is allowed." if passed else "the estimate given beside is free of it: read that one."
    return Refutation(test=_TEST, passed=passed, detail=f"{_WHAT}: {size:.3g} ({how}, p = {p_value:.2g}); {ending}", p_value=p_value)
