"""Small worlds of units over time with known effects: what a panel design and its gate are judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from e2i.causal.arrays import BoolArray, FloatArray, IntArray
from e2i.causal.estimators.linear_models import sigmoid
from e2i.domain.study import EffectSpec

_REGIONS = 12
_NEVER = 10_000


@dataclass(frozen=True, kw_only=True)
class PanelWorld:
    """A generative story over `periods`; treatment begins in the `starts`.

    Levels differ between units and the treated have higher ones in every world (`aimed`): a double difference copes with that.
    """

    name: str
    lift: float = 0.0
    fade: float = 0.0
    """share of the lift lost per period since the start, in 0-1"""
    starts: tuple[int, ...] = (10,)
    periods: int = 16
    aimed: float = 0.7
    """how strongly treatment is aimed at the unit's lasting level"""
    trend: float = 0.0
    """how strongly treatment is aimed at units that grow"""
    shock: float = 0.0
    """lasting gain of outcome and negative control in the regions that are treated, from the first start on

    A shock to the treated that begins with treatment makes, row by row, the table that an effect of that size would make, so no test
    on treatment, outcome and time can tell them apart. It takes another series that the shock moves and treatment cannot (a negative
    control), or untreated units that the shock reaches too (in the same region).
    """
    carry_over: float = 0.0
    """share of the lift that stays in each period after treatment was switched off; treatment is then on and off"""
    spill_over: float = 0.0
    """share of the lift that untreated units gain when their whole region is treated"""
    restated: float = 0.0
    """share of the last two periods' outcome that is not yet reported"""
    is_sound: bool = True
    """whether an honest double difference of this table may be told"""

    def draw(self, units: int, *, seed: int) -> pl.DataFrame:
        """Columns `unit`, `time` (1 …), `treatment` (0/1 in that period), `outcome`, `negative_control`, `region`."""
        return self._long(units, seed)[0]

    def truth(self, units: int, *, seed: int) -> float:
        """Average effect on the treated rows of the same draw."""
        return self._long(units, seed)[1]

    def effect(self, *, negative_control: bool = True, place: bool = False) -> EffectSpec:
        """The causal question that `draw` answers; with `place` it names the region as the one in which treatment may reach others."""
        return EffectSpec(
            treatment="treatment",
            outcome="outcome",
            estimand="ATT",
            negative_controls=("negative_control",) if negative_control else (),
            place="region" if place else None,
        )

    def _long(self, units: int, seed: int) -> tuple[pl.DataFrame, float]:
        rng = np.random.default_rng(seed)
        level, growth, region = rng.normal(size=units), rng.normal(size=units), rng.integers(0, _REGIONS, size=units)
        pull = rng.normal(size=_REGIONS)[region] if self.shock or self.spill_over else np.zeros(units)
        chance = sigmoid(self.aimed * level + self.trend * growth + 1.5 * pull - 0.3)
        start = np.where(rng.random(units) < chance, rng.choice(self.starts, size=units), _NEVER)
        time = np.arange(1, self.periods + 1)
        on = self._exposure(start, time, rng)
        own = self._gain(on, start, time)
        season = rng.normal(size=self.periods).cumsum() * 0.3
        outcome = 10.0 + 2.0 * level[:, None] + season + 0.08 * self.trend * growth[:, None] * time + own
        outcome += self._around(on, region, time, rng_shape=(units, self.periods))
        outcome += rng.normal(size=(units, self.periods))
        control = 5.0 + level[:, None] + 0.5 * season + self._shocked(on, region, time) + rng.normal(size=(units, self.periods))
        reported = outcome * np.where(time > self.periods - 2, 1.0 - self.restated, 1.0)
        frame = pl.DataFrame(
            {
                "unit": np.repeat(np.arange(units), self.periods),
                "time": np.tile(time, units),
                "treatment": on.astype(int).ravel(),
                "outcome": reported.ravel(),
                "negative_control": control.ravel(),
                "region": np.repeat(region, self.periods),
            }
        )
        return frame, float(own[on].mean())

    def _exposure(self, start: IntArray, time: IntArray, rng: np.random.Generator) -> BoolArray:
        begun = time >= start[:, None]
        if not self.carry_over:
            return begun
        # On for two periods, off for two, from the start on; who begins when differs between units.
        phase = rng.integers(0, 4, size=len(start))
        out: BoolArray = begun & (((time + phase[:, None]) // 2) % 2 == 0)
        return out

    def _gain(self, on: BoolArray, start: IntArray, time: IntArray) -> FloatArray:
        if not self.carry_over:
            since = np.maximum(time - start[:, None], 0)
            return np.where(on, self.lift * (1.0 - self.fade) ** since, 0.0)
        gain = np.zeros(on.shape)
        for period in range(on.shape[1]):
            kept = gain[:, period - 1] * self.carry_over if period else 0.0
            gain[:, period] = np.where(on[:, period], self.lift, kept)
        return gain

    def _around(self, on: BoolArray, region: IntArray, time: IntArray, *, rng_shape: tuple[int, int]) -> FloatArray:
        if not self.spill_over:
            return np.zeros(rng_shape) + self._shocked(on, region, time)
        share = np.stack(
            [on[region == place].mean(axis=0) if (region == place).any() else np.zeros(len(time)) for place in range(_REGIONS)]
        )
        return np.where(on, 0.0, self.spill_over * self.lift * share[region])

    def _shocked(self, on: BoolArray, region: IntArray, time: IntArray) -> FloatArray:
        if not self.shock:
            return np.zeros(on.shape)
        reached = np.array([on[region == place, -1].mean() if (region == place).any() else 0.0 for place in range(_REGIONS)])
        return self.shock * reached[region][:, None] * (time >= min(self.starts))


PANEL_WORLDS: dict[str, PanelWorld] = {
    world.name: world
    for world in (
        PanelWorld(name="panel_null"),
        PanelWorld(name="panel_lift", lift=1.0),
        PanelWorld(name="panel_strong_targeting", lift=1.0, aimed=1.5),
        PanelWorld(name="panel_staggered", lift=1.0, starts=(6, 9, 12)),
        PanelWorld(name="panel_fade_out", lift=1.5, fade=0.25, starts=(6, 9, 12)),
        PanelWorld(name="panel_trend_targeting", trend=0.7, is_sound=False),
        PanelWorld(name="panel_strong_trend_targeting", trend=1.4, is_sound=False),
        PanelWorld(name="panel_access_shock", shock=1.5, is_sound=False),
        PanelWorld(name="panel_carry_over", lift=1.0, carry_over=0.7, starts=(4,), is_sound=False),
        PanelWorld(name="panel_spill_over", lift=1.5, spill_over=0.8, is_sound=False),
        PanelWorld(name="panel_restatement", lift=0.5, restated=0.25, is_sound=False),
    )
}
