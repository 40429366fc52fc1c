"""Effects by periods since treatment, against the last period before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.design import Identification
from e2i.causal.panel.cells import Control
from e2i.causal.panel.clusters import covariance, uniform_critical_value
from e2i.causal.panel.conditional import Method
from e2i.causal.panel.data import NEVER, Panel
from e2i.causal.panel.group_time import GroupTime, absorbing
from e2i.causal.panel.honest import EventStudy
from e2i.causal.panel.on_off import fixed_effects
from e2i.causal.panel.two_way import influence_of
from e2i.domain.evidence import PeriodEffect
from e2i.errors import NotIdentified

Source = Literal["group_time", "two_way"]
_ROUNDING = 1e-9
_ENOUGH = 10


@dataclass(frozen=True, kw_only=True)
class EventTimes:
    """m effects by event time, the reference left out."""

    event_time: IntArray
    """shape (m,), increasing: 0 is the first treated period"""
    estimate: FloatArray
    """shape (m,)"""
    influence: FloatArray
    """shape (G, m), one row per cluster"""
    n_treated: IntArray
    """shape (m,): treated units seen at that time"""
    reference: int
    """-1 without anticipation, and earlier where no treated unit is seen then"""
    clusters_by_arm: tuple[int, int]
    """clusters with treated units, and clusters with units that can be controls"""

    @property
    def covariance(self) -> FloatArray:
        """Shape (m, m), clustered, factor G / (G - 1)."""
        return covariance(self.influence)

    @property
    def before(self) -> IntArray:
        """Numbers of the effects before the reference."""
        return np.flatnonzero(self.event_time < self.reference)

    @property
    def is_flat_before(self) -> bool:
        """Nothing varies before the reference: what is left of these effects is rounding, and they can be tested by nothing."""
        errors = np.sqrt(np.diag(self.covariance))
        before = self.before
        return bool(len(before) and errors[before].max() <= _ROUNDING * max(float(errors.max()), float(np.abs(self.estimate).max())))

    def points(self, *, seed: int) -> tuple[PeriodEffect, ...]:
        """Effects with 95 % bands that hold for all periods at once, the reference among them as 0."""
        critical = uniform_critical_value(self.influence, seed=seed)
        half = critical * np.sqrt(np.diag(self.covariance))
        found = [
            PeriodEffect(period=int(time), estimate=float(value), low=float(value - width), high=float(value + width), n_treated=int(count))
            for time, value, width, count in zip(self.event_time, self.estimate, half, self.n_treated, strict=True)
        ]
        found.append(PeriodEffect(period=self.reference, estimate=0.0, low=0.0, high=0.0, is_reference=True))
        return tuple(sorted(found, key=lambda point: point.period))

    def for_bounds(self) -> EventStudy:
        """The stretch of consecutive periods around the reference, for bounds on violations of parallel trends."""
        times = set(self.event_time.tolist()) | {self.reference}
        low = high = self.reference
        while low - 1 in times:
            low -= 1
        while high + 1 in times:
            high += 1
        kept = np.flatnonzero((self.event_time >= low) & (self.event_time <= high))
        return EventStudy(
            periods=tuple(int(time) for time in self.event_time[kept]),
            estimates=self.estimate[kept],
            covariance=self.covariance[np.ix_(kept, kept)],
            reference=self.reference,
        )


def event_times(
    panel: Panel,
    spec: Identification,
    *,
    source: Source = "group_time",
    control: Control = "not_yet",
    method: Method = "doubly_robust",
) -> EventTimes:
    """Effects by periods since treatment.

    Parameters
    ----------
    source : `group_time` averages ATT(g, t) with one base period (Callaway & Sant'Anna 2021, eq. 3.4); `two_way` is the regression
        with a dummy per period, right only when all treated units start together (Sun & Abraham 2021)

    Periods long before treatment that hardly anybody shows (fewer than ten treated units, and fewer than half of the most in any period)
    are left out, and so are such periods of a single cohort: the spread of one unit cannot be known, and a test would take its luck for
    a trend.

    Raises
    ------
    NotIdentified
        Treatment is switched off, nobody is a control, or `two_way` is asked for under staggered adoption.
    """
    if source == "two_way":
        return _by_regression(panel, spec)
    effects = GroupTime(control=control, method=method, base="universal").effects(panel, spec)
    reference = _reference(effects.grid.base - effects.grid.first, -1 - spec.anticipation)
    told = (effects.grid.event_time > reference) | _shown_by_many(effects.n_treated, effects.grid.treated)
    found = effects.aggregate("dynamic", cells=told)
    places = np.searchsorted(found.labels, effects.grid.event_time[told])
    count = np.bincount(places, weights=effects.n_treated[told], minlength=len(found.labels))
    kept = (found.labels > reference) | (count >= min(_ENOUGH, 0.5 * count.max()))
    return EventTimes(
        event_time=found.labels[kept],
        estimate=found.estimate[kept],
        influence=found.influence[:, kept],
        n_treated=count[kept].astype(np.int64),
        reference=reference,
        clusters_by_arm=_clusters_by_arm(absorbing(panel)[0]),
    )


def _shown_by_many(seen: IntArray, cohort: IntArray) -> BoolArray:
    """Cells, shape (K,), in which ten treated units are seen, or half as many as in any cell of their cohort."""
    most = np.zeros(int(cohort.max()) + 1, dtype=np.int64)
    np.maximum.at(most, cohort, seen)
    many: BoolArray = seen >= np.minimum(_ENOUGH, 0.5 * most[cohort])
    return many


def _reference(bases: IntArray, usual: int) -> int:
    """The event time that effects are told against: an earlier one where no treated unit is seen in the usual one."""
    found = np.unique(bases)
    return int(found[0]) if len(found) == 1 else usual


def event_study(
    panel: Panel, spec: Identification, *, seed: int, source: Source = "group_time", control: Control = "not_yet"
) -> tuple[PeriodEffect, ...]:
    """Event study with uniform 95 % bands; see `event_times`."""
    return event_times(panel, spec, source=source, control=control).points(seed=seed)


def _by_regression(panel: Panel, spec: Identification) -> EventTimes:
    panel, _ = absorbing(panel)
    starts = np.unique(panel.cohort[panel.cohort != NEVER])
    if len(starts) > 1 or (panel.cohort != NEVER).all():
        raise NotIdentified(
            "a regression event study needs one start of treatment for all treated units, and never-treated units.",
            where="panel",
            advice="Use the group-time event study.",
        )
    treated = panel.cohort[panel.unit] != NEVER
    since = panel.time - starts[0]
    times = np.unique(since[treated])
    reference = int(times[times <= -1 - spec.anticipation].max(initial=times[0]))
    times = times[times != reference]
    dummies = ((since[:, None] == times) & treated[:, None]).astype(np.float64)
    found = fixed_effects(panel, dummies, tuple(f"event time {time}" for time in times))
    return EventTimes(
        event_time=times.astype(np.int64),
        estimate=found.coefficients,
        influence=influence_of(found),
        n_treated=dummies.sum(axis=0).astype(np.int64),
        reference=reference,
        clusters_by_arm=_clusters_by_arm(panel),
    )


def _clusters_by_arm(panel: Panel) -> tuple[int, int]:
    """Clusters with treated units, and with units that are untreated while others are treated."""
    treated = panel.cohort != NEVER
    begun = int(panel.cohort[treated].min())
    control = ~treated | (panel.cohort > begun)
    if panel.row_cluster is not None:
        return len(np.unique(panel.row_cluster[treated[panel.unit]])), len(np.unique(panel.row_cluster[control[panel.unit]]))
    return len(np.unique(panel.cluster[treated])), len(np.unique(panel.cluster[control]))
