"""Worlds that no rule of the gate was made on: other shapes, other noises, other faults than `e2i.causal.worlds`.

Written before they were first run; since then only the spill-over world names `place`, a role that came later. `gate_error_rates.py
--held-out` runs them. One rule has seen the panels: see docs/causal-gate.md. Each draw knows the effect
on its own units, so "misses" is about the interval, not about the draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from e2i.domain.study import EffectSpec

Floats = np.ndarray
Draw = Callable[[np.random.Generator], tuple[pl.DataFrame, float]]
ROWS, UNITS, WEEKS = 1_500, 300, 20
SPECIALTIES = np.array(["derm", "onco", "haem", "gp", "allergy"])


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """`draw` gives a table and the true effect on its units."""

    name: str
    is_sound: bool
    draw: Draw
    effect: EffectSpec
    is_panel: bool = False


def sigmoid(score: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-score))
    return out


# One row per prescriber: volume is heavy-tailed, decile a count, two flags, a specialty, noise columns that matter to nothing.


def prescribers(rng: np.random.Generator, noise: int = 4) -> tuple[dict[str, object], Floats]:
    """Columns, and the part of them that moves treatment and outcome."""
    volume = rng.lognormal(1.0, 0.6, ROWS)
    decile = rng.poisson(3.0, ROWS)
    academic, digital = rng.random(ROWS) < 0.25, rng.random(ROWS) < 0.4
    specialty = rng.integers(0, len(SPECIALTIES), ROWS)
    index = 0.5 * np.log(volume) + 0.15 * decile + 0.5 * academic - 0.3 * (specialty == 3) + 0.2 * (specialty == 1)
    columns: dict[str, object] = {
        "volume": volume,
        "decile": decile,
        "academic": academic.astype(int),
        "digital": digital.astype(int),
        "specialty": SPECIALTIES[specialty],
        **{f"noise_{k}": rng.standard_t(4, ROWS) for k in range(noise)},
    }
    return columns, (index - index.mean()) / index.std()


CONFOUNDERS = ("volume", "decile", "academic", "digital", "specialty", "noise_0", "noise_1", "noise_2", "noise_3")


def table(columns: dict[str, object], treated: Floats, zero: Floats, one: Floats, **more: Floats) -> tuple[pl.DataFrame, float]:
    outcome = np.where(treated, one, zero)
    frame = pl.DataFrame({**columns, "detailed": treated.astype(int), "scripts": outcome.astype(float), **more})
    return frame, float((one - zero).mean())


def gain_in_logs(rng: np.random.Generator, hidden: float = 0.0, gain: float = 0.15) -> tuple[pl.DataFrame, float]:
    """Skewed sales with a gain in per cent; a benign trait moves sales, the other brand and last year's sales, not treatment."""
    columns, index = prescribers(rng)
    benign, trait = rng.normal(size=ROWS), rng.normal(size=ROWS)
    treated = rng.random(ROWS) < sigmoid(0.7 * index - 0.4 + hidden * trait)
    level = 1.0 + 0.4 * index + 0.3 * benign + 0.5 * hidden * trait
    error = rng.normal(0, 0.3, ROWS)
    other = np.exp(0.5 + 0.3 * index + 0.3 * benign + 0.5 * hidden * trait + rng.normal(0, 0.3, ROWS))
    before = np.exp(level + rng.normal(0, 0.3, ROWS))
    return table(columns, treated, np.exp(level + error), np.exp(level + gain + error), other_brand=other, last_year=before)


def rare_switch(rng: np.random.Generator, hidden: float = 0.0) -> tuple[pl.DataFrame, float]:
    """A yes/no outcome in 8 % of units."""
    columns, index = prescribers(rng)
    trait = rng.normal(size=ROWS)
    treated = rng.random(ROWS) < sigmoid(0.6 * index + hidden * trait)
    luck = rng.random(ROWS)
    zero, one = (luck < sigmoid(shift + 0.6 * index + hidden * trait) for shift in (-2.9, -2.3))
    control = rng.random(ROWS) < sigmoid(-2.0 + 0.5 * index + hidden * trait)
    earlier = rng.random(ROWS) < sigmoid(-2.9 + 0.6 * index + hidden * trait)
    more = {"other_brand": control.astype(float), "last_year": earlier.astype(float)}
    return table(columns, treated, zero.astype(float), one.astype(float), **more)


def hidden_flag(rng: np.random.Generator, gain: float = 0.0) -> tuple[pl.DataFrame, float]:
    """One prescriber in five is a champion: treated more, sells more, always did. Nobody recorded it."""
    columns, index = prescribers(rng)
    champion = rng.random(ROWS) < 0.2
    treated = rng.random(ROWS) < sigmoid(0.5 * index - 0.5 + 1.5 * champion)
    zero = 5.0 + index + 1.5 * champion + rng.standard_t(5, ROWS)
    other = 3.0 + 0.5 * index + 1.2 * champion + rng.standard_t(5, ROWS)
    before = 4.0 + index + 1.5 * champion + rng.standard_t(5, ROWS)
    return table(columns, treated, zero, zero + gain, other_brand=other, last_year=before)


def aimed_at_the_dip(rng: np.random.Generator) -> tuple[pl.DataFrame, float]:
    """Treatment goes to those whose last year fell by chance; last year is not adjusted for (regression to the mean)."""
    columns, index = prescribers(rng)
    own = rng.normal(size=ROWS)
    before = 4.0 + index + own + rng.normal(size=ROWS)
    treated = rng.random(ROWS) < sigmoid(-1.2 * (before - 4.0 - index))
    zero = 4.2 + index + own + rng.normal(size=ROWS)
    return table(columns, treated, zero, zero, other_brand=2.0 + 0.5 * index + 0.7 * own + rng.normal(size=ROWS), last_year=before)


def varied_by_volume(rng: np.random.Generator) -> tuple[pl.DataFrame, float]:
    """The gain grows with volume and is nought for general practice; targeting bends with volume."""
    columns, index = prescribers(rng)
    volume = np.asarray(columns["volume"])
    treated = rng.random(ROWS) < sigmoid(0.5 * index + 0.3 * (np.log(volume) > 1.3) - 0.2)
    benign = rng.normal(size=ROWS)
    zero = 3.0 + index + 0.5 * index**2 + 0.6 * benign + rng.normal(size=ROWS)
    gain = np.where(np.asarray(columns["specialty"]) == "gp", 0.0, 0.4 * np.log1p(volume))
    more = {"other_brand": 1.0 + index + 0.6 * benign + rng.normal(size=ROWS), "last_year": zero + rng.normal(size=ROWS) - 0.2}
    return table(columns, treated, zero, zero + gain, **more)


def in_territories(rng: np.random.Generator, hidden: float = 0.0) -> tuple[pl.DataFrame, float]:
    """Sixty territories share luck; with `hidden`, managers aim at territories that sell well."""
    columns, index = prescribers(rng)
    territory = rng.integers(0, 60, ROWS)
    luck = rng.normal(0, 0.7, 60)[territory]
    treated = rng.random(ROWS) < sigmoid(0.5 * index + hidden * luck)
    zero = 5.0 + index + luck + rng.normal(size=ROWS)
    columns["territory"] = np.array([f"T{place:02d}" for place in range(60)])[territory]
    more = {"other_brand": 2.0 + 0.4 * index + 0.8 * luck + rng.normal(size=ROWS), "last_year": zero - 0.3 + rng.normal(size=ROWS)}
    return table(columns, treated, zero, zero + 0.6, **more)


def question(**more: object) -> EffectSpec:
    return EffectSpec(
        treatment="detailed",
        outcome="scripts",
        confounders=CONFOUNDERS,
        negative_controls=("other_brand",),
        pre_outcomes=("last_year",),
        **more,  # type: ignore[arg-type]
    )


# Weekly panels: autocorrelated errors, seasons that differ by region, units that come late or miss weeks.


@dataclass(frozen=True, kw_only=True)
class Weeks:
    """One story over 20 weeks; treatment of some begins in weeks 11-14."""

    gain: float = 0.8
    ramp: bool = False
    hidden_trend: float = 0.0
    dip: float = 0.0
    """treatment goes to those whose last week before fell by chance"""
    early: float = 0.0
    """share of the gain that comes two weeks before the start"""
    shock: float = 0.0
    """a formulary win of treated accounts in the week of the start, seen in the other brand as well"""
    underreported: float = 0.0
    """share of the last three weeks that is not yet reported"""
    territory_share: float = 0.0
    """share of the gain that untreated accounts get when everybody else in their territory is treated"""
    counts: bool = False

    def __call__(self, rng: np.random.Generator) -> tuple[pl.DataFrame, float]:
        region, territory = rng.integers(0, 4, UNITS), rng.integers(0, 30, UNITS)
        level, slope = rng.gamma(4.0, 1.0, UNITS), rng.normal(size=UNITS)
        week = np.arange(1, WEEKS + 1)
        season = np.sin(week[None, :] / 3.0) * np.array([0.3, 0.3, 0.3, 0.3])[region][:, None] + 0.03 * week
        error = self._errors(rng)
        pull = rng.normal(size=30)[territory] if self.territory_share else np.zeros(UNITS)
        score = 0.4 * (level - 4.0) / 2.0 + self.hidden_trend * slope + 1.5 * pull - self.dip * error[:, 9]
        begin = np.where(rng.random(UNITS) < sigmoid(score - 0.2), 11 + (0 if self.dip else rng.integers(0, 4, UNITS)), 99)
        on = week[None, :] >= begin[:, None]
        since = np.maximum(week[None, :] - begin[:, None] + 1, 0)
        gain = self.gain * (np.minimum(since / 4.0, 1.0) if self.ramp else on)
        mean = 6.0 + level[:, None] + season + 0.05 * self.hidden_trend * slope[:, None] * week
        extra = self.early * self.gain * ((week[None, :] >= begin[:, None] - 2) & ~on)
        win = self.shock * on
        share = np.stack([on[territory == place].mean(axis=0) if (territory == place).any() else np.zeros(WEEKS) for place in range(30)])
        spill = np.where(on, 0.0, self.territory_share * self.gain * share[territory])
        outcome = mean + gain + extra + win + spill + error
        if self.counts:
            outcome = rng.poisson(np.maximum(outcome, 0.05)).astype(float)
        outcome *= np.where(week > WEEKS - 3, 1.0 - self.underreported, 1.0)
        control = 4.0 + 0.5 * level[:, None] + season + win + self._errors(rng)
        kept = rng.random((UNITS, WEEKS)) > 0.03
        rows = np.nonzero(kept)
        frame = pl.DataFrame(
            {
                "account": np.char.add("A", rows[0].astype(str)),
                "week": rows[1] + 1,
                "detailed": on[rows].astype(int),
                "scripts": outcome[rows],
                "other_brand": control[rows],
                "territory": np.char.add("T", territory[rows[0]].astype(str)),
            }
        )
        return frame.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(1 << 30))), float(gain[kept & on].mean())

    def _errors(self, rng: np.random.Generator) -> Floats:
        """First-order autoregression with coefficient 0.4."""
        out = rng.normal(size=(UNITS, WEEKS))
        for week in range(1, WEEKS):
            out[:, week] = 0.4 * out[:, week - 1] + np.sqrt(1 - 0.16) * out[:, week]
        return out


def weekly(*, control: bool = True, **more: object) -> EffectSpec:
    return EffectSpec(
        treatment="detailed",
        outcome="scripts",
        estimand="ATT",
        negative_controls=("other_brand",) if control else (),
        **more,  # type: ignore[arg-type]
    )


def _panel(name: str, story: Weeks, *, is_sound: bool, control: bool = True, **more: object) -> HeldOut:
    return HeldOut(name=name, is_sound=is_sound, draw=story, effect=weekly(control=control, **more), is_panel=True)


HELD_OUT: dict[str, HeldOut] = {
    world.name: world
    for world in (
        HeldOut(name="per cent gain", is_sound=True, draw=gain_in_logs, effect=question()),
        HeldOut(name="no gain, skewed", is_sound=True, draw=lambda rng: gain_in_logs(rng, gain=0.0), effect=question()),
        HeldOut(name="rare outcome", is_sound=True, draw=rare_switch, effect=question()),
        HeldOut(name="gain by volume", is_sound=True, draw=varied_by_volume, effect=question()),
        HeldOut(name="territories", is_sound=True, draw=in_territories, effect=question(cluster="territory")),
        HeldOut(name="hidden trait, skewed", is_sound=False, draw=lambda rng: gain_in_logs(rng, hidden=0.8, gain=0.0), effect=question()),
        HeldOut(name="hidden trait, rare outcome", is_sound=False, draw=lambda rng: rare_switch(rng, hidden=0.8), effect=question()),
        HeldOut(name="hidden flag", is_sound=False, draw=hidden_flag, effect=question()),
        HeldOut(name="hidden flag and a gain", is_sound=False, draw=lambda rng: hidden_flag(rng, gain=0.6), effect=question()),
        HeldOut(name="aimed at the dip", is_sound=False, draw=aimed_at_the_dip, effect=question()),
        HeldOut(
            name="aimed at good territories",
            is_sound=False,
            draw=lambda rng: in_territories(rng, hidden=1.2),
            effect=question(cluster="territory"),
        ),
        _panel("weeks: gain", Weeks(), is_sound=True),
        _panel("weeks: no gain", Weeks(gain=0.0), is_sound=True),
        _panel("weeks: ramp", Weeks(ramp=True), is_sound=True),
        _panel("weeks: counts", Weeks(counts=True), is_sound=True),
        _panel("weeks: gain, no control", Weeks(), is_sound=True, control=False),
        _panel("weeks: hidden trend", Weeks(gain=0.0, hidden_trend=1.2), is_sound=False),
        _panel("weeks: aimed at the dip", Weeks(gain=0.0, dip=1.5), is_sound=False),
        _panel("weeks: anticipation", Weeks(early=0.7), is_sound=False),
        _panel("weeks: shock, control sees it", Weeks(gain=0.0, shock=0.6), is_sound=False),
        _panel("weeks: shock, no control", Weeks(gain=0.0, shock=0.6), is_sound=False, control=False),
        _panel("weeks: late reports", Weeks(underreported=0.3), is_sound=False),
        _panel("weeks: spill-over", Weeks(territory_share=0.8), is_sound=False, place="territory"),
    )
}
