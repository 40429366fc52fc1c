"""The constants of the pharma world, and its independent streams of random numbers.

The story: territories differ in access; HCPs differ in specialty, volume and traits nobody sees. Representatives plan calls
by decile and by the prescriptions recorded two cycles ago. Once per brand an HCP comes up for a speaker program, and is invited
by what the records show. Attending lifts new-to-brand prescriptions for a while, more in some specialties and in the middle
deciles. New patients stay on therapy, refill, and leave. What is recorded is projected from a panel of pharmacies, with noise.
Patients of these HCPs start journeys; triggers reach the HCP; some patients start therapy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DEFAULT_SIZE = 5_000
PATIENTS_PER_HCP = 6
WEEKS = 104
FIRST_FRIDAY = date(2023, 1, 6)
PRE_WEEKS = POST_WEEKS = 12
CYCLE_WEEKS = 13
FIRST_INDEX, LAST_INDEX = PRE_WEEKS, WEEKS - POST_WEEKS - 2
"""the index week: 12 whole weeks before it; after it the week of the program, then 12 weeks of outcome"""

BRANDS = ("Remibrutinib", "Fabhalta", "Kisqali")
REGIONS = ("northeast", "south", "midwest", "west")
SPECIALTIES = ("oncology", "hematology", "internal_medicine", "dermatology", "allergy_immunology")
SPECIALTY_SHARES = (0.40, 0.20, 0.16, 0.12, 0.12)
PRACTICES = ("academic", "community", "private")
TERRITORIES = 20
STUDY_BRAND = "Kisqali"


@dataclass(frozen=True, kw_only=True)
class Brand:
    """How one brand behaves. Rates are per HCP and week at average volume; `affinity` by specialty, 0 = not prescribed."""

    name: str
    rate: float
    affinity: tuple[float, ...]
    growth: float
    maturity: float
    access: float
    call_rate: float
    samples_per_call: float
    drop_rate: float
    diagnosis: tuple[str, str]
    drug_class: str
    share_of_patients: float
    share_female: float
    onset_age: tuple[float, float]


STORY: tuple[Brand, ...] = (
    Brand(
        name="Remibrutinib", rate=0.22, affinity=(0.0, 0.0, 0.25, 1.0, 1.2), growth=0.9, maturity=0.35, access=0.58, call_rate=0.55,
        samples_per_call=1.3, drop_rate=0.035, diagnosis=("L50.1", "Idiopathic urticaria"), drug_class="BTK", share_of_patients=0.36,
        share_female=0.66, onset_age=(41.0, 14.0),
    ),
    Brand(
        name="Fabhalta", rate=0.12, affinity=(0.35, 1.0, 0.2, 0.0, 0.0), growth=0.4, maturity=0.7, access=0.66, call_rate=0.40,
        samples_per_call=0.0, drop_rate=0.020, diagnosis=("D59.5", "Paroxysmal nocturnal hemoglobinuria"), drug_class="complement",
        share_of_patients=0.18, share_female=0.53, onset_age=(44.0, 17.0),
    ),
    Brand(
        name="Kisqali", rate=0.30, affinity=(1.0, 0.6, 0.35, 0.0, 0.0), growth=0.15, maturity=0.95, access=0.72, call_rate=0.50,
        samples_per_call=0.4, drop_rate=0.030, diagnosis=("C50.919", "Malignant neoplasm of breast"), drug_class="CDK4/6 inhibitor",
        share_of_patients=0.46, share_female=0.985, onset_age=(58.0, 12.0),
    ),
)  # fmt: skip

NEW_SCRIPT_RATE = 0.045
"""new prescriptions (not refills) per continuing patient and week"""
REFILL_RATE = 0.21
"""refills per continuing patient and week, about one a month"""
LIFT_BY_SPECIALTY = (0.85, 0.60, 0.30, 0.60, 0.70)
"""peak relative lift of new-to-brand prescriptions after a speaker program, before decile and hidden response"""
LIFT_KEPT_PER_WEEK = 0.94
"""carry-over: the share of the lift that is left after a week"""
ADOPTION_LIFT = 1.15
"""a converted HCP writes this much more from the fifth week on"""


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for each part of the story, so that one part can be drawn without the others."""
    return np.random.default_rng([seed, *name.encode()])


def sigmoid(logit: Floats) -> Floats:
    """Probability of a logit."""
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), dtype=np.float64)


def labels(names: tuple[str, ...] | list[str], codes: npt.NDArray[np.integer]) -> pl.Series:
    """The names at `codes`, as text."""
    return pl.Series(list(names), dtype=pl.String).gather(codes.astype(np.int64))


def numbered(prefix: str, count: int, *, digits: int) -> list[str]:
    """Identifiers: PREFIX_0001 and so on."""
    return [f"{prefix}_{number:0{digits}d}" for number in range(1, count + 1)]


def with_gaps(values: Floats, missing: Flags) -> pl.Series:
    """Numbers with missing values where `missing`."""
    return pl.Series(values).set(pl.Series(missing), None)


def dates(days: npt.NDArray[np.integer]) -> pl.Series:
    """Days since the first Friday, as dates."""
    origin = (FIRST_FRIDAY - date(1970, 1, 1)).days
    return pl.Series((days + origin).astype(np.int32)).cast(pl.Date)
