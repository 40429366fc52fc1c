"""What a large file looks like, and its event study from one row per period and arm."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimate import LEVEL
from e2i.causal.panel.absorb import sum_by
from e2i.domain.evidence import PeriodEffect, Refutation
from e2i.errors import TooFewRows

_PRE_TREND_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Rows, units and values of the treatment; all but `rows` over complete rows."""

    columns: tuple[str, ...]
    """of the file"""
    rows: int
    complete: int
    treated: int
    """rows with treatment 1"""
    untreated: int
    """rows with treatment 0"""
    low: float | None
    high: float | None
    """least and largest treatment"""
    doses: int
    """about so many different values of it"""
    mean_treated: float | None
    """mean outcome of rows with treatment above 0"""
    mean_untreated: float | None
    units: int
    most_rows_of_a_unit: int
    periods: int
    combinations: float
    """at most about so many different rows of treatment and the other columns; infinite with dates among them"""
    is_synthetic: bool


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """How treatment begins over units."""

    treated: int
    never: int
    starts: int
    """different first treated periods, of units seen before theirs"""
    switches: bool
    """some unit is untreated again after its start"""
    treated_from_start: int
    """units without an untreated period before treatment"""

    @property
    def is_simple(self) -> bool:
        """All that are seen before start together, stay treated, and others never are."""
        return self.starts == 1 and not self.switches and self.never > 0


@dataclass(frozen=True, kw_only=True)
class PeriodCells:
    """Change of the outcome since the last period before treatment, per period, arm and cluster; empty where adoption is not simple."""

    adoption: Adoption
    event_time: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """shape (m,): 0 is the first treated period, -1 the reference"""
    is_treated: BoolArray = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    cluster: IntArray | None = None
    """shape (m,), 0 … G-1; None: every unit is its own"""
    count: FloatArray = field(default_factory=lambda: np.empty(0))
    """shape (m,): units"""
    mean: FloatArray = field(default_factory=lambda: np.empty(0))
    spread: FloatArray = field(default_factory=lambda: np.empty(0))
    """shape (m,): sum of squared distances from the mean"""


@dataclass(frozen=True, kw_only=True)
class EventPath:
    """Effects by event time, the reference left out."""

    event_time: IntArray
    estimate: FloatArray
    standard_error: FloatArray
    clusters: int
    n_treated: int

    def points(self) -> tuple[PeriodEffect, ...]:
        """With 95 % bands that hold for all periods at once (Bonferroni), the reference among them as 0."""
        from scipy.stats import t

        half = float(t.ppf(1 - (1 - LEVEL) / 2 / len(self.estimate), self.clusters - 1)) * self.standard_error
        found = [
            PeriodEffect(
                period=int(time), estimate=float(value), low=float(value - width), high=float(value + width), n_treated=self.n_treated
            )
            for time, value, width in zip(self.event_time, self.estimate, half, strict=True)
        ]
        found.append(PeriodEffect(period=-1, estimate=0.0, low=0.0, high=0.0, is_reference=True))
        return tuple(sorted(found, key=lambda point: point.period))

    def pre_trend(self) -> Refutation | None:
        """Did the treated move differently before treatment? Largest t of the periods before, Bonferroni; None with one such period."""
        from scipy.stats import t

        before = np.flatnonzero((self.event_time < -1) & (self.standard_error > 0))
        if len(before) == 0:
            return None
        ratio = np.abs(self.estimate[before]) / self.standard_error[before]
        worst = int(np.argmax(ratio))
        p_value = min(1.0, len(before) * float(2 * t.sf(ratio[worst], self.clusters - 1)))
        passed = p_value >= _PRE_TREND_LEVEL
        return Refutation(
            test="pre_trend",
            passed=passed,
            detail=f"{len(before)} effects before treatment are {'compatible' if passed else 'not compatible'} with zero "
            f"(largest |t| {ratio[worst]:.2f}, p = {p_value:.3g}).",
            statistic=float(ratio[worst]),
            p_value=p_value,
            estimate=float(self.estimate[before][worst]),
        )


def event_path(data: PeriodCells) -> EventPath:
    """Change of the treated minus change of the never treated: the event study regression of a balanced panel with one start.

    Each unit adds its distance from its arm's mean change over the arm's size, so the clustered variance is that of the regression
    with unit and period effects and a dummy per event time, with its factor G / (G - 1) times (n - 1) / (n - parameters).

    Raises
    ------
    TooFewRows
        One cluster.
    """
    times = np.unique(data.event_time)
    arms = [_arm(data, times, is_treated=True), _arm(data, times, is_treated=False)]
    units = sum(arm.size for arm in arms)
    clusters = int(units) if data.cluster is None else int(data.cluster.max()) + 1
    if clusters < 2:
        raise TooFewRows("there is one cluster.", where="event study", advice="Name a finer `cluster`.")
    variance = arms[0].variance + arms[1].variance
    if data.cluster is not None:
        variance = ((arms[0].influence - arms[1].influence) ** 2).sum(axis=0)
    rows, parameters = units * len(times), 2 * (len(times) - 1) + 1
    factor = clusters / (clusters - 1) * (rows - 1) / (rows - parameters)
    kept = times != -1
    return EventPath(
        event_time=times[kept],
        estimate=(arms[0].mean - arms[1].mean)[kept],
        standard_error=np.sqrt(factor * variance[kept]),
        clusters=clusters,
        n_treated=int(arms[0].size),
    )


@dataclass(frozen=True, kw_only=True)
class _Arm:
    size: float
    mean: FloatArray
    """shape (T,)"""
    variance: FloatArray
    """shape (T,), of the mean, units independent"""
    influence: FloatArray
    """shape (G, T), on the mean, per cluster; one row without clusters"""


def _arm(data: PeriodCells, times: IntArray, *, is_treated: bool) -> _Arm:
    own = data.is_treated == is_treated
    place = np.searchsorted(times, data.event_time[own])
    count, mean, spread = data.count[own], data.mean[own], data.spread[own]
    size = sum_by(place, count, len(times))
    average = sum_by(place, count * mean, len(times)) / size
    within = sum_by(place, spread + count * (mean - average[place]) ** 2, len(times))
    influence = np.zeros((1 if data.cluster is None else int(data.cluster.max()) + 1, len(times)))
    if data.cluster is not None:
        np.add.at(influence, (data.cluster[own], place), count * (mean - average[place]) / size[place])
    return _Arm(size=float(size.max()), mean=average, variance=within / size**2, influence=influence)
