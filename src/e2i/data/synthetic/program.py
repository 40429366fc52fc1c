"""Who is invited to a speaker program, who attends, who converts: all decided by what the records show, so that they identify it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2i.data.synthetic.story import Floats, Ints, sigmoid

if TYPE_CHECKING:
    from e2i.data.synthetic.hcps import Hcps

INVITE_BY_SPECIALTY = (0.25, 0.0, -0.35, 0.1, 0.1)
INVITE_BY_REGION = (0.15, -0.15, 0.0, 0.1)


@dataclass(frozen=True, kw_only=True)
class Records:
    """What the records show before the index week, shape (m,): whose (HCP, brand) they are, and sums over 12 weeks."""

    hcp: Ints
    brand: Ints
    nrx: Floats
    nrx_trend: Floats
    calls: Floats
    usual_nrx: Floats
    """log(1 + 12 weeks of NRx) of the average prescriber of the brand"""

    @property
    def nrx_level(self) -> Floats:
        """How far above the brand's average this HCP writes, on a log scale."""
        return np.asarray((np.log1p(self.nrx) - self.usual_nrx) / 0.8)

    @property
    def call_level(self) -> Floats:
        """The same for calls; four calls in twelve weeks are usual."""
        return np.asarray((np.log1p(self.calls) - np.log1p(4.0)) / 0.7)


def invitation_probability(hcps: Hcps, seen: Records) -> Floats:
    """Representatives invite who writes, who sees them, who matters: the confounding of every later comparison."""
    who = seen.hcp
    academic = hcps.academic[who]
    logit = (
        -0.55
        + 0.55 * np.clip(seen.nrx_level, -2.5, 2.5)
        + 0.30 * np.clip(seen.call_level, -2.5, 2.5)
        + 0.10 * (hcps.decile[who] - 4)
        + 0.35 * academic
        + 0.9 * (hcps.digital_known[who] - 0.5)
        + np.array(INVITE_BY_SPECIALTY)[hcps.specialty[who]]
        + np.array(INVITE_BY_REGION)[hcps.region[who]]
    )
    return sigmoid(logit)


def attendance_probability(hcps: Hcps, seen: Records) -> Floats:
    """Of those who are invited."""
    who = seen.hcp
    return sigmoid(1.0 + 1.0 * (hcps.digital_known[who] - 0.5) + 0.3 * hcps.academic[who] + 0.2 * np.clip(seen.call_level, -2.0, 2.0))


def conversion_probability(hcps: Hcps, seen: Records, *, attended: bool) -> Floats:
    """That the HCP makes the brand its first choice within 30 days."""
    who, brand = seen.hcp, seen.brand
    digital, years = hcps.digital_known[who], hcps.years[who]
    is_covered_well = (hcps.access[who, brand] > 0.70) & (hcps.decile[who] >= 4)
    logit = (
        -2.02
        + 0.85 * np.clip(seen.nrx_level, -2.5, 2.5)
        + 0.85 * np.tanh(seen.nrx_trend / 3.0)
        + 1.25 * is_covered_well
        + 2.5 * (digital - 0.5) * np.where(years < 15, 1.5, 0.3)
        + 0.9 * hcps.academic[who] * np.where(hcps.peer_influence[who] > 0.55, 1.2, -0.2)
        + 0.35 * np.clip(seen.call_level, -2.0, 1.0)
        + (0.30 if attended else 0.0)
    )
    return sigmoid(logit)
