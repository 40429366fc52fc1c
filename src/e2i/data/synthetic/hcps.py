"""HCPs and territories: who they are, what is recorded of them, and the traits that nobody sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from e2i.data.synthetic.story import (
    PRACTICES,
    REGIONS,
    SPECIALTIES,
    SPECIALTY_SHARES,
    STORY,
    TERRITORIES,
    Flags,
    Floats,
    Ints,
    dates,
    labels,
    numbered,
    sigmoid,
    stream,
    with_gaps,
)

AGE_GROUPS = ("18-34", "35-49", "50-64", "65+")
CHANNELS = ("email", "app", "phone", "in_person")
HCPS_PER_PRACTICE = 6


@dataclass(frozen=True, kw_only=True)
class Hcps:
    """Shape (n,) each; codes index the tuples of `story`; brand arrays have shape (n, 3). Traits after `access` are unseen."""

    ids: list[str]
    specialty: Ints
    territory: Ints
    practice_type: Ints
    practice: Ints
    volume: Ints
    decile: Ints
    years: Ints
    age_group: Ints
    digital: Floats
    peer_influence: Floats
    covered: Flags
    years_missing: Flags
    digital_missing: Flags
    access_missing: Flags
    access: Floats
    territory_access: Floats
    taste: Floats
    response: Floats
    innovation: Floats

    @property
    def region(self) -> Ints:
        """Five territories make a region."""
        return np.asarray(self.territory // (TERRITORIES // len(REGIONS)))

    @property
    def academic(self) -> Ints:
        """1 in an academic practice."""
        return np.asarray(self.practice_type == 0).astype(np.int64)

    @property
    def digital_known(self) -> Floats:
        """The recorded engagement; 0.5 where the records have none, as the people who invite assume."""
        return np.where(self.digital_missing, 0.5, self.digital)


def draw_hcps(size: int, *, seed: int) -> Hcps:
    """Draw `size` HCPs."""
    rng = stream(seed, "hcps")
    specialty = rng.choice(len(SPECIALTIES), size, p=SPECIALTY_SHARES)
    territory = rng.integers(0, TERRITORIES, size)
    practice_type = rng.choice(len(PRACTICES), size, p=(0.22, 0.48, 0.30))
    academic = practice_type == 0
    volume = np.clip(np.exp(rng.normal(5.75 + 0.15 * academic, 0.65)), 50, 2000).astype(np.int64)
    years = np.clip(rng.gamma(4.0, 4.2, size), 3, 35).astype(np.int64)
    age = years + 29 + np.abs(rng.normal(0, 3.5, size))
    latent = rng.normal(0, 1, size)
    digital = np.clip(sigmoid(0.1 + 0.8 * latent - 0.04 * (years - 17)), 0.10, 0.99).round(2)
    innovation = 0.4 * latent + rng.normal(0, 0.9, size)
    brands = len(STORY)
    territory_access = np.clip(rng.normal([brand.access for brand in STORY], 0.09, (TERRITORIES, brands)), 0.2, 0.97)
    access = np.clip(territory_access[territory] + rng.normal(0, 0.07, (size, brands)), 0.05, 0.99).round(2)
    return Hcps(
        ids=numbered("HCP", size, digits=5), specialty=specialty, territory=territory, practice_type=practice_type,
        practice=territory * 10_000 + rng.integers(0, max(1, size // (TERRITORIES * HCPS_PER_PRACTICE)), size),
        volume=volume, decile=equal_volume_deciles(volume), years=years, age_group=np.digitize(age, (35, 50, 65)),
        digital=digital, peer_influence=np.clip(sigmoid(rng.normal(-0.1 + 0.5 * academic, 0.8)), 0.20, 0.95).round(2),
        covered=rng.random(size) < 0.90 + 0.009 * equal_volume_deciles(volume),
        years_missing=rng.random(size) < np.where(academic, 0.015, 0.045),
        digital_missing=rng.random(size) < np.where(digital < 0.35, 0.16, 0.05),
        access_missing=rng.random(size) < np.where(territory % 5 == 4, 0.10, 0.035),
        access=access, territory_access=territory_access, taste=rng.normal(0, 0.28, (size, brands)),
        response=np.exp(rng.normal(-0.03, 0.25, size)), innovation=innovation,
    )  # fmt: skip


def equal_volume_deciles(volume: Ints) -> Ints:
    """Ten groups of equal volume, shape (n,), 10 = the few HCPs with the largest volumes.

    >>> equal_volume_deciles(np.array([1] * 10)).tolist()
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    order = np.argsort(volume, kind="stable")
    total = volume[order].cumsum()
    middle = total - volume[order] / 2
    decile = np.empty(len(volume), dtype=np.int64)
    decile[order] = np.minimum((10 * middle / total[-1]).astype(np.int64) + 1, 10)
    return decile


def hcp_profiles(hcps: Hcps, *, seed: int) -> pl.DataFrame:
    """What is recorded of each HCP. The NPI starts with 9, which no real one does."""
    rng = stream(seed, "profiles")
    size = len(hcps.ids)
    channel = np.clip((4 * (1 - hcps.digital) + rng.normal(0, 0.7, size)).astype(np.int64), 0, 3)
    practices = np.unique(hcps.practice, return_inverse=True)
    return pl.DataFrame(
        {
            "hcp_id": hcps.ids,
            "npi": [f"9{number:09d}" for number in rng.permutation(10**6)[:size] * 811 + 1_234] if size <= 10**6 else None,
            "specialty": labels(SPECIALTIES, hcps.specialty),
            "practice_type": labels(PRACTICES, hcps.practice_type),
            "practice_id": labels(numbered("PRC", len(practices[0]), digits=4), practices[1]),
            "geographic_region": labels(REGIONS, hcps.region),
            "territory_id": labels(numbered("TER", TERRITORIES, digits=3), hcps.territory),
            "sales_rep_id": labels(numbered("REP", 50, digits=3), _rep(hcps)),
            "priority_tier": (11 - hcps.decile + 1) // 2,
            "decile": hcps.decile,
            "prescribing_volume": hcps.volume,
            "total_patient_volume": np.clip(hcps.volume * rng.uniform(1.5, 3.5, size), 100, 5000).astype(np.int64),
            "years_experience": pl.Series(hcps.years).set(pl.Series(hcps.years_missing), None),
            "age_group": labels(AGE_GROUPS, hcps.age_group),
            "academic_hcp": hcps.academic,
            "digital_engagement_score": with_gaps(hcps.digital, hcps.digital_missing),
            "preferred_channel": labels(CHANNELS, channel),
            "influence_network_size": np.clip(5 + 95 * hcps.peer_influence + rng.normal(0, 8, size), 5, 100).astype(np.int64),
            "peer_influence_score": hcps.peer_influence,
            "adoption_category": labels(("late_adopter", "mainstream", "early_adopter"), np.digitize(hcps.innovation, (-1.0, 1.0))),
            "coverage_status": hcps.covered,
            "pdrp_opt_out": rng.random(size) < 0.03,
        }
    )


def _rep(hcps: Hcps) -> Ints:
    return np.asarray(hcps.territory * 5 // 2 + hcps.practice % 2)


def territories(hcps: Hcps) -> pl.DataFrame:
    """One row per territory and brand: region, HCPs, covered share of lives."""
    brands = len(STORY)
    territory = np.repeat(np.arange(TERRITORIES), brands)
    return pl.DataFrame(
        {
            "territory_id": labels(numbered("TER", TERRITORIES, digits=3), territory),
            "geographic_region": labels(REGIONS, territory // (TERRITORIES // len(REGIONS))),
            "brand": labels([brand.name for brand in STORY], np.tile(np.arange(brands), TERRITORIES)),
            "access_share": hcps.territory_access.ravel().round(3),
            "hcp_count": np.bincount(hcps.territory, minlength=TERRITORIES)[territory],
            "effective_date": dates(np.zeros(len(territory), dtype=np.int64)),
        }
    )
