"""Does treatment reach units that are not treated? Asked of places where many are treated against places where few are.

Comparison units that gain from treated neighbours hide a part of the effect (Butts 2021; Miguel & Kremer 2004). Inside a place the
share of others that are treated is the exposure (Hudgens & Halloran 2008); among rows that are not yet treated it must not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.design import Identification
from e2i.causal.estimate import LEVEL
from e2i.causal.panel.absorb import TwoWay, inverse_of, sum_by
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.pre_trend import detectable
from e2i.domain.evidence import Refutation

TEST = "spill_over"
_LEVEL = 0.05
_FEWEST_PLACES = 6
_NOTHING = 1e-12
_NAME_PLACES = (
    "Name as `place` the column inside whose values treatment of one unit may reach another (territory, account, region), if there is one; "
    "what reaches comparison units makes the effect look smaller or larger than it is."
)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What untreated units gain when all others of their place are treated instead of none."""

    gain: float
    standard_error: float
    places: int
    effective_places: float
    """1 / sum of squared shares of the exposure's variation (Carter, Schnepel & Steigerwald 2017)"""
    exposure: float
    """mean share of treated units around untreated rows once treatment has begun, in 0-1"""

    @property
    def degrees(self) -> float:
        """Of the t distribution: effective places less one."""
        return max(self.effective_places - 1.0, 1.0)

    @property
    def p_value(self) -> float:
        """Two-sided."""
        from scipy.stats import t

        return float(2.0 * t.sf(abs(self.gain) / self.standard_error, self.degrees))

    @property
    def half(self) -> float:
        """Half of the 95 % interval."""
        from scipy.stats import t

        return float(t.ppf(0.5 + LEVEL / 2, self.degrees)) * self.standard_error


def spill_over(panel: Panel, spec: Identification) -> Refutation:
    """Untreated rows of places with many treated units against those of places with few, before and after.

    Parameters
    ----------
    panel : with the units that were treated from the start, as they too may reach others

    Returns
    -------
    Refutation
        `spill_over`, or `untested_spill_over` with what is missing.
    """
    panel = _by_place(panel)
    if int(panel.cluster.max()) + 1 == panel.n_units:
        return _untested(f"the study names no place. {_NAME_PLACES}")
    if spec.treatment_kind == "continuous":
        return _untested("it is asked of a 0/1 treatment.")
    found = reach(panel, spec)
    if found is None:
        return _untested(
            f"fewer than {_FEWEST_PLACES} places of `{_name(spec)}` have untreated units, or the share of treated units around them "
            "never changes: nothing shows what treatment does to neighbours. Whole places may be treated, or places may be too coarse."
        )
    return _told(found, spec)


def reach(panel: Panel, spec: Identification) -> Reach | None:
    """Slope of the outcome of not yet treated rows on the share of treated units around them, beside unit and period effects.

    The variance is the clustered jackknife's (CV3, MacKinnon, Nielsen & Webb 2023) with the fixed effects taken as known; with few
    and unequal clusters that is too small beside t(G - 1), so the degrees of freedom come from the effective number of clusters.
    None where nothing varies or fewer than six places have such rows.
    """
    panel = _by_place(panel)
    begun = panel.cohort[panel.unit]
    free = (begun == NEVER) | (panel.time < begun - spec.anticipation)
    exposure = _share_around(panel)[free]
    weights = np.ones(int(free.sum())) if panel.weights is None else panel.weights[free]
    project = TwoWay(unit=panel.unit[free], time=panel.time[free], weights=weights)
    inside = project.residual(np.column_stack([exposure, panel.outcome[free], panel.covariates[free]]))
    regressor, outcome = _without(inside[:, 2:], inside[:, :2], weights).T
    number = np.unique(panel.cluster[panel.unit[free]], return_inverse=True)[1].astype(np.int64)
    places = int(number.max()) + 1
    own = sum_by(number, weights * regressor**2, places)
    total = float(own.sum())
    if places < _FEWEST_PLACES or total <= _NOTHING * max(float(weights @ exposure**2), _NOTHING):
        return None
    gain = float(weights * outcome @ regressor) / total
    left = total - own
    if (left <= _NOTHING * total).any():  # one place carries all of the variation
        return None
    jackknife = sum_by(number, weights * regressor * (outcome - gain * regressor), places) / left
    error = float(np.sqrt((places - 1) / places * np.sum(jackknife**2)))
    late = exposure > 0
    if error <= _NOTHING * float(np.abs(panel.outcome).max()):
        return None
    return Reach(
        gain=gain,
        standard_error=error,
        places=places,
        effective_places=float(total**2 / np.sum(own**2)),
        exposure=float(np.average(exposure[late], weights=weights[late])),
    )


def _by_place(panel: Panel) -> Panel:
    """The panel whose clusters are its places, where the study names any: shocks are shared there, and treatment may spread there."""
    return panel if panel.place is None else replace(panel, cluster=panel.place)


def _name(spec: Identification) -> str | None:
    return spec.place or spec.cluster


def _share_around(panel: Panel) -> FloatArray:
    """Share of the other units of the place that are under treatment in the row's period, shape (n,), in 0-1; 0 without others."""
    places, periods = int(panel.cluster.max()) + 1, panel.n_periods
    if panel.is_absorbing:  # a unit whose row is missing is still treated
        on: BoolArray = (panel.cohort != NEVER)[:, None] & (np.arange(periods) >= panel.cohort[:, None])
        treated = np.column_stack([np.bincount(panel.cluster, weights=column, minlength=places) for column in on.T])
        members = np.bincount(panel.cluster, minlength=places)[:, None] * np.ones(periods)
    else:
        cell = panel.cluster[panel.unit] * periods + panel.time
        treated = np.bincount(cell, weights=panel.treatment > 0, minlength=places * periods).reshape(places, periods)
        members = np.bincount(cell, minlength=places * periods).reshape(places, periods).astype(np.float64)
    place = panel.cluster[panel.unit]
    others = members[place, panel.time] - 1.0
    share: FloatArray = (treated[place, panel.time] - (panel.treatment > 0)) / np.maximum(others, 1.0)
    return np.where(others > 0, share, 0.0)


def _without(controls: FloatArray, values: FloatArray, weights: FloatArray) -> FloatArray:
    if controls.shape[1] == 0:
        return values
    weighted = weights[:, None] * controls
    slopes = inverse_of(controls.T @ weighted) @ (weighted.T @ values)
    out: FloatArray = values - controls @ slopes
    return out


def _told(found: Reach, spec: Identification) -> Refutation:
    passed = found.p_value >= _LEVEL
    least = detectable(found.standard_error, found.degrees, _LEVEL)
    low, high = found.gain - found.half, found.gain + found.half
    moved = found.gain * found.exposure
    ending = (
        f"none is proven; a gain of {least:.3g} would have been found with 80 % power."
        if passed
        else f"with {found.exposure:.0%} treated around them that is {moved:+.3g}, and the effect is told about as much too "
        f"{'small' if moved > 0 else 'large'}. Compare with units of places without treatment, or take the place as unit."
    )
    return Refutation(
        test=TEST,
        passed=passed,
        detail=(
            f"Untreated units change by {found.gain:.3g} ({low:.3g} to {high:.3g}, p = {found.p_value:.3g}) "
            f"when all others of their `{_name(spec)}` are treated instead of none; {ending}"
        ),
        statistic=found.gain / found.standard_error,
        p_value=found.p_value,
        estimate=found.gain,
    )


def _untested(why: str) -> Refutation:
    return Refutation(test=f"untested_{TEST}", passed=True, detail=f"Spill-over could not be tested: {why}", is_reported_only=True)
