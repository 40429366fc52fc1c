"""Units over time with a known effect, for coverage certificates: each estimator with the interval that its design tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from e2i.causal.analysis import estimate
from e2i.causal.arrays import BoolArray, FloatArray
from e2i.causal.certificate import Shape, shape_of_panel, shape_of_people
from e2i.causal.design import Identification
from e2i.causal.estimate import Estimate
from e2i.causal.panel.data import Panel
from e2i.causal.panel.group_time import GroupTime
from e2i.causal.panel.imputation import Imputation
from e2i.causal.panel.jackknife import with_jackknife
from e2i.causal.panel.prepare import make_panel
from e2i.causal.panel.two_way import TwoWayFixedEffects
from e2i.causal.router import identify
from e2i.causal.worlds.panel import PANEL_WORLDS
from e2i.domain.evidence import Effect
from e2i.domain.study import Design, EffectSpec

_LIFT = 1.0
_SERIAL = 0.5


@dataclass(frozen=True)
class Told:
    """One answer: its interval, the truth that its estimand names, the shape of the data."""

    estimator: str
    estimand: str
    interval: tuple[float, float]
    truth: float
    shape: Shape

    @classmethod
    def of(cls, found: Estimate | Effect, truth: float, shape: Shape) -> Told:
        interval = found.interval() if isinstance(found, Effect) else found.interval
        return cls(found.estimator, found.estimand, interval, truth, shape)


def world(name: str, units: int, seed: int) -> Iterator[Told]:
    """Double difference where all start at once; group-time over the population's shares of cohorts, imputation over this panel's rows."""
    story = PANEL_WORLDS[name]
    frame = story.draw(units, seed=seed)
    spec = identify(story.effect(), frame, unit="unit", time="time")
    yield from _beside(frame, spec, (_population(name), story.truth(units, seed=seed)), seed)


def regions(number: int, units: int, seed: int) -> Iterator[Told]:
    """Whole regions are treated from period 8 of 12 on, and regions have lasting shocks of their own."""
    rng = np.random.default_rng(seed)
    region = np.arange(units) % number
    treated = np.zeros(number, dtype=np.bool_)
    treated[rng.permutation(number)[: number // 2]] = True
    shock = _autocorrelated(rng.normal(size=(number, 12)), 0.6)
    on = treated[region][:, None] & (np.arange(12) >= 7)
    outcome = 5.0 + rng.normal(size=units)[:, None] + 0.5 * shock[region] + _LIFT * on + rng.normal(size=(units, 12))
    frame = _long(outcome, on).with_columns(pl.Series("region", np.repeat(region, 12)))
    effect = EffectSpec(treatment="treatment", outcome="outcome", estimand="ATT", cluster="region")
    yield from _beside(frame, identify(effect, frame, unit="unit", time="time"), (_LIFT, _LIFT), seed)


def on_and_off(units: int, seed: int) -> Iterator[Told]:
    """Three units in five are on for two periods and off for two, each in its own phase; nothing is carried over."""
    rng = np.random.default_rng(seed)
    time, phase = np.arange(16), rng.integers(0, 4, size=units)
    on = (rng.random(units) < 0.6)[:, None] & (((time + phase[:, None]) // 2) % 2 == 0) & (time >= 3)
    season = 0.3 * rng.normal(size=16).cumsum()
    outcome = 10.0 + rng.normal(size=(units, 1)) + season + _LIFT * on + _autocorrelated(rng.normal(size=(units, 16)), _SERIAL)
    yield from _told(outcome, on, None, seed)


def factors(design: Design | None, periods: int, treated: int, units: int, seed: int) -> Iterator[Told]:
    """Three autocorrelated factors move the units, each in its own degree; the treated are like the others and start at two thirds."""
    rng = np.random.default_rng(seed)
    moved = 0.8 * rng.normal(size=(units, 3)) @ _autocorrelated(rng.normal(size=(3, periods)), _SERIAL)
    on = (np.arange(units) < treated)[:, None] & (np.arange(periods) >= 2 * periods // 3)
    outcome = 10.0 + moved + rng.normal(size=(units, 1)) + rng.normal(size=(units, periods)) + _LIFT * on
    yield from _told(outcome, on, design, seed)


def series(serial: float, periods: int, seed: int) -> Iterator[Told]:
    """One series with a trend and autocorrelated noise; its level moves at two thirds of it."""
    rng = np.random.default_rng(seed)
    on = (np.arange(periods) >= 2 * periods // 3)[None, :]
    outcome = 10.0 + 0.05 * np.arange(periods) + _LIFT * on + _autocorrelated(rng.normal(size=(1, periods)), serial)
    yield from _told(outcome, on, "interrupted_time_series", seed)


def people(groups: int, rows: int, seed: int) -> Iterator[Told]:
    """Other people in each of ten periods, in groups with lasting shocks; half the groups are treated from period 7 on."""
    rng = np.random.default_rng(seed)
    group, time = rng.integers(0, groups, size=rows), rng.integers(0, 10, size=rows)
    treated = rng.permutation(groups) < groups // 2
    on = treated[group] & (time >= 6)
    shock = 0.3 * _autocorrelated(rng.normal(size=(groups, 10)), 0.6)
    outcome = rng.normal(size=groups)[group] + 0.1 * time + shock[group, time] + _LIFT * on + rng.normal(size=rows)
    frame = pl.DataFrame({"unit": group, "time": time, "treatment": on.astype(np.int64), "outcome": outcome})
    effect = EffectSpec(treatment="treatment", outcome="outcome", estimand="ATT", design="did")
    spec = identify(effect, frame, unit="unit", time="time")
    panel = make_panel(frame, spec)
    found = estimate(frame, effect=effect, identification=spec, seed=seed)
    if found.effect is not None:
        yield Told.of(found.effect, _LIFT, shape_of_people(panel, clusters=int(found.effect.diagnostics["clusters"])))


@lru_cache(maxsize=8)
def _population(name: str) -> float:
    return PANEL_WORLDS[name].truth(100_000, seed=1)


def _beside(frame: pl.DataFrame, spec: Identification, truths: tuple[float, float], seed: int) -> Iterator[Told]:
    panel = make_panel(frame, spec)
    shape = shape_of_panel(panel)

    def honest(fit: Callable[[Panel], Estimate]) -> Estimate:
        return with_jackknife(fit(panel), panel, fit)

    if not shape.is_staggered:
        yield Told.of(honest(lambda part: TwoWayFixedEffects().fit(part, spec, seed=seed)), truths[0], shape)
    yield Told.of(honest(lambda part: GroupTime().fit(part, spec, seed=seed)), truths[0], shape)
    yield Told.of(Imputation().fit(panel, spec, seed=seed), truths[1], shape)


def _told(outcome: FloatArray, on: BoolArray, design: Design | None, seed: int) -> Iterator[Told]:
    """The effect as a study gets it; nothing where it is refused."""
    frame = _long(outcome, on)
    effect = EffectSpec(treatment="treatment", outcome="outcome", **({} if design is None else {"design": design}))
    spec = identify(effect, frame, unit="unit", time="time")
    found = estimate(frame, effect=effect, identification=spec, seed=seed)
    if found.effect is not None:
        yield Told.of(found.effect, _LIFT, shape_of_panel(make_panel(frame, spec)))


def _long(outcome: FloatArray, on: BoolArray) -> pl.DataFrame:
    units, periods = outcome.shape
    return pl.DataFrame(
        {
            "unit": np.repeat(np.arange(units), periods),
            "time": np.tile(np.arange(1, periods + 1), units),
            "treatment": on.astype(np.int64).ravel(),
            "outcome": outcome.ravel(),
        }
    )


def _autocorrelated(noise: FloatArray, share: float) -> FloatArray:
    for period in range(1, noise.shape[1]):
        noise[:, period] += share * noise[:, period - 1]
    return noise
