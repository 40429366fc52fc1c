"""Week by week: calls, samples, programs and prescriptions, in two worlds that share every random number.

In one world an HCP attends the speaker program that it comes up for, in the other it does not. The records follow the world
that happened; the other is kept for the truth. Call plans look at records that are at least 13 weeks old, so within the 12
weeks of outcome the calls are the same in both worlds, and the difference is the effect of the program alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.data.synthetic.program import Records, attendance_probability, conversion_probability, invitation_probability
from e2i.data.synthetic.story import (
    ADOPTION_LIFT,
    CYCLE_WEEKS,
    FIRST_INDEX,
    LAST_INDEX,
    LIFT_BY_SPECIALTY,
    LIFT_KEPT_PER_WEEK,
    NEW_SCRIPT_RATE,
    POST_WEEKS,
    PRE_WEEKS,
    REFILL_RATE,
    STORY,
    TERRITORIES,
    WEEKS,
    Flags,
    Floats,
    Ints,
    stream,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from e2i.data.synthetic.hcps import Hcps

BRAND_COUNT = len(STORY)
PARTS = 3
"""new to brand, other new prescriptions, refills"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """n HCPs, 3 brands, 104 weeks. What is recorded, then what happened, then both worlds (first axis: without, with the program)."""

    scripts: npt.NDArray[np.int32]
    """shape (parts, n, 3, weeks): recorded new to brand, other new, refills"""
    calls: npt.NDArray[np.int16]
    samples: npt.NDArray[np.int16]
    touches: npt.NDArray[np.int16]
    is_active: Flags
    """shape (territories, weeks): a representative is in place"""
    in_market: Flags
    """shape (n, 3)"""
    index_week: Ints
    invited: Flags
    attended: Flags
    conversion_day: Ints
    """days after the index date, were the HCP to convert"""
    propensity: Floats
    convert_probability: Floats
    """shape (2, n, 3)"""
    converts: Flags
    """shape (2, n, 3)"""
    outcome: Ints
    """shape (2, n, 3): recorded NRx in the 12 weeks of outcome"""
    expected_gain: Floats
    """shape (n, 3): difference of the two worlds' expected NRx over the same weeks"""

    def window(self, values: npt.NDArray[np.generic], brand: int, *, start: int, weeks: int) -> npt.NDArray[np.int64]:
        """Shape (n, weeks): `values` of shape (n, 3, weeks) from `start` weeks after each HCP's index week on."""
        picked = self.index_week[:, brand, None] + start + np.arange(weeks)
        return np.asarray(np.take_along_axis(values[:, brand], picked, axis=1), dtype=np.int64)


def simulate(hcps: Hcps, *, seed: int) -> Panel:
    """Run the 104 weeks."""
    run = _Run(hcps, seed)
    for week in range(WEEKS):
        run.plan_calls(week)
        run.decide_programs(week)
        run.promote(week)
        run.prescribe(week)
    return run.panel()


class _Run:
    """The moving state; arrays of shape (n, 3) unless they say otherwise, a first axis of 2 is (without, with)."""

    def __init__(self, hcps: Hcps, seed: int) -> None:
        self.hcps, self.rng = hcps, stream(seed, "panel")
        n = len(hcps.ids)
        shape = (n, BRAND_COUNT)
        affinity = np.array([brand.affinity for brand in STORY]).T[hcps.specialty]
        self.in_market = affinity > 0
        access = (hcps.access / np.array([brand.access for brand in STORY])) ** 0.8
        volume = (hcps.volume[:, None] / 320.0) ** 0.75
        character = np.exp(hcps.taste + 0.10 * hcps.innovation[:, None])
        self.base = np.array([brand.rate for brand in STORY]) * affinity * access * volume * character
        self.drop = np.array([brand.drop_rate for brand in STORY])
        self.stock = np.tile(self.base / self.drop * np.array([brand.maturity for brand in STORY]), (2, 1, 1))
        usual = np.where(self.in_market, np.log1p(PRE_WEEKS * (self.base + NEW_SCRIPT_RATE * self.stock[0])), np.nan)
        self.usual_nrx = np.nanmean(usual, axis=0)
        self.index_week = self.rng.integers(FIRST_INDEX, LAST_INDEX + 1, shape)
        self.luck = self.rng.random((3, *shape))
        self.conversion_day = self.rng.integers(3, 29, shape)
        self.projection = np.exp(self.rng.normal(-0.005, 0.10, (n, 1)))
        self.is_active = _vacancies(self.rng)
        self.lift = (np.array(LIFT_BY_SPECIALTY)[hcps.specialty] * (1 - 0.05 * np.abs(hcps.decile - 6)) * hcps.response)[:, None]
        self.call_stock = np.zeros(shape)
        self.touch_stock = np.zeros(shape)
        self.scripts = np.zeros((PARTS, *shape, WEEKS), dtype=np.int32)
        self.calls, self.samples, self.touches = (np.zeros((*shape, WEEKS), dtype=np.int16) for _ in range(3))
        self.invited, self.attended = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        self.propensity = np.zeros(shape)
        self.convert_probability = np.zeros((2, *shape))
        self.converts = np.zeros((2, *shape), dtype=bool)
        self.outcome = np.zeros((2, *shape), dtype=np.int64)
        self.expected_gain = np.zeros(shape)

    def plan_calls(self, week: int) -> None:
        """Once a cycle: more calls to higher deciles and to those who wrote more, by the records of two cycles ago."""
        if week % CYCLE_WEEKS:
            return
        end = week - CYCLE_WEEKS
        if end > 0:
            known = self.scripts[:2, :, :, end - CYCLE_WEEKS : end].sum(axis=(0, 3)).astype(np.float64)
        else:
            known = self.rng.poisson(CYCLE_WEEKS * (self.base + NEW_SCRIPT_RATE * self.stock[0])).astype(np.float64)
        relative = known / np.maximum(known.sum(axis=0) / np.maximum(self.in_market.sum(axis=0), 1), 1e-9)
        by_decile = 0.35 + 0.13 * self.hcps.decile[:, None]
        by_records = 0.5 + 0.5 * np.minimum(relative, 3.0)
        reach = np.where(self.hcps.academic == 1, 0.8, 1.0) * self.hcps.covered
        self.call_rate = np.array([brand.call_rate for brand in STORY]) * by_decile * by_records * reach[:, None] * self.in_market

    def decide_programs(self, week: int) -> None:
        """Invitations to those whose index week this is; they attend, or not, in the week after."""
        hcp, brand = np.nonzero((self.index_week == week) & self.in_market)
        before = slice(week - PRE_WEEKS, week)
        nrx = self.scripts[:2, hcp, brand, before].sum(axis=0)
        half = PRE_WEEKS // 2
        seen = Records(
            hcp=hcp, brand=brand, usual_nrx=self.usual_nrx[brand],
            nrx=nrx.sum(axis=1).astype(np.float64),
            nrx_trend=(nrx[:, half:].sum(axis=1) - nrx[:, :half].sum(axis=1)).astype(np.float64),
            calls=self.calls[hcp, brand, before].sum(axis=1).astype(np.float64),
        )  # fmt: skip
        invitation, attendance = invitation_probability(self.hcps, seen), attendance_probability(self.hcps, seen)
        self.propensity[hcp, brand] = invitation * attendance
        self.invited[hcp, brand] = self.luck[0, hcp, brand] < invitation
        self.attended[hcp, brand] = self.invited[hcp, brand] & (self.luck[1, hcp, brand] < attendance)
        for world in (0, 1):
            chance = conversion_probability(self.hcps, seen, attended=bool(world))
            self.convert_probability[world, hcp, brand] = chance
            self.converts[world, hcp, brand] = self.luck[2, hcp, brand] < chance

    def promote(self, week: int) -> None:
        """Calls, samples and digital touches of the week; what is reported of calls is a little too high."""
        working = self.is_active[self.hcps.territory, week][:, None] * _holiday(week)
        calls = self.rng.poisson(self.call_rate * working)
        per_call = np.array([brand.samples_per_call for brand in STORY])
        samples = self.rng.poisson(calls * per_call)
        touches = self.rng.poisson(0.7 * self.hcps.digital[:, None] * self.in_market)
        self.call_stock = 0.80 * self.call_stock + calls + 0.1 * samples
        self.touch_stock = 0.70 * self.touch_stock + touches
        invented = (self.rng.random(calls.shape) < 0.02) & (self.call_rate > 0) & (working > 0)
        self.calls[:, :, week], self.samples[:, :, week], self.touches[:, :, week] = calls + invented, samples, touches

    def prescribe(self, week: int) -> None:
        """Prescriptions of the week in both worlds, and the records of the one that happened."""
        promotion = np.exp(0.14 * self.hcps.response[:, None] * np.log1p(self.call_stock) + 0.03 * np.log1p(self.touch_stock))
        growth = 1.0 + np.array([brand.growth for brand in STORY]) * week / WEEKS
        rate = np.tile(self.base * promotion * growth * _season(week) * _holiday(week), (2, 1, 1))
        since = week - (self.index_week + 2)
        rate[1] *= np.where(since >= 0, 1.0 + self.lift * LIFT_KEPT_PER_WEEK ** np.maximum(since, 0), 1.0)
        rate *= np.where(self.converts & (since >= 3), ADOPTION_LIFT, 1.0)
        new_to_brand = _coupled(self.rng, rate)
        other_rate = NEW_SCRIPT_RATE * self.stock
        other_new = _coupled(self.rng, other_rate)
        refills = _coupled(self.rng, REFILL_RATE * self.stock)
        self.stock = self.stock * (1.0 - self.drop) + new_to_brand
        recorded = self._record(np.stack([new_to_brand, other_new, refills]))
        self.scripts[:, :, :, week] = np.where(self.attended, recorded[:, 1], recorded[:, 0])
        counts = (since >= 0) & (since < POST_WEEKS)
        self.outcome += np.where(counts, recorded[0] + recorded[1], 0)
        self.expected_gain += np.where(counts, rate[1] - rate[0] + other_rate[1] - other_rate[0], 0.0)

    def _record(self, scripts: Ints) -> Ints:
        """Projection from a panel of pharmacies: a factor per HCP and week, then rounding up or down by chance.

        Factor and chance are the same in both worlds, shape (parts, 2, n, 3). Unbiased: the expectation is the true count.
        """
        shape = scripts.shape[2:]
        factor = self.projection * np.exp(self.rng.normal(-0.005, 0.10, shape))
        return np.asarray(np.floor(scripts * factor + self.rng.random((PARTS, 1, *shape))), dtype=np.int64)

    def panel(self) -> Panel:
        return Panel(
            scripts=self.scripts, calls=self.calls, samples=self.samples, touches=self.touches, is_active=self.is_active,
            in_market=self.in_market, index_week=self.index_week, invited=self.invited, attended=self.attended,
            conversion_day=self.conversion_day, propensity=self.propensity, convert_probability=self.convert_probability,
            converts=self.converts, outcome=self.outcome, expected_gain=self.expected_gain,
        )  # fmt: skip


def _coupled(rng: np.random.Generator, rates: Floats) -> Ints:
    """Poisson counts of two worlds, shape (2, n, 3), that differ only by what the larger rate adds."""
    counts = np.tile(rng.poisson(rates.min(axis=0)), (2, 1, 1))
    gap = rates[1] - rates[0]
    where = np.nonzero(gap)
    extra = rng.poisson(np.abs(gap[where]))
    counts[1][where] += np.where(gap[where] > 0, extra, 0)
    counts[0][where] += np.where(gap[where] < 0, extra, 0)
    return counts


def _vacancies(rng: np.random.Generator) -> Flags:
    is_active = np.ones((TERRITORIES, WEEKS), dtype=bool)
    for territory in np.flatnonzero(rng.random(TERRITORIES) < 0.4):
        start = int(rng.integers(0, WEEKS))
        is_active[territory, start : start + int(rng.integers(3, 10))] = False
    return is_active


def _season(week: int) -> float:
    """A soft year, and a dip in January when deductibles begin again."""
    return float((1 + 0.05 * np.sin(2 * np.pi * (week - 8) / 52)) * (0.93 if week % 52 < 4 else 1.0))


def _holiday(week: int) -> float:
    """Offices are half closed in the last week of a year and the first of the next."""
    return 0.75 if week % 52 in (0, 51) else 1.0
