"""Patients of these HCPs: journeys, the triggers sent to the HCP, and who starts therapy, with and without an accepted trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.data.synthetic.hcps import AGE_GROUPS
from e2i.data.synthetic.story import (
    BRANDS,
    PATIENTS_PER_HCP,
    PRE_WEEKS,
    REGIONS,
    STORY,
    WEEKS,
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
from e2i.data.synthetic.truth import TrueEffect, true_effect

if TYPE_CHECKING:
    from e2i.data.synthetic.hcps import Hcps
    from e2i.data.synthetic.panel import Panel

LAST_DAY = 7 * (WEEKS - 1)
SOURCES = ("IQVIA_APLD", "IQVIA_LAAD", "HealthVerity", "Komodo", "Veeva")
INSURANCE = ("commercial", "medicare", "medicaid")
SECOND_JOURNEYS = 0.08
"""share of patients with a second journey, after a switch"""


@dataclass(frozen=True, kw_only=True)
class Journeys:
    """Shape (m,) each. Days count from the first Friday. First axis 2: without, with an accepted trigger."""

    patient: Ints
    is_second: Flags
    hcp: Ints
    brand: Ints
    start: Ints
    age: Ints
    is_female: Flags
    severity: Floats
    risk: Floats
    engagement: Floats
    trigger_day: Ints
    has_trigger: Flags
    accepted: Flags
    acceptance_probability: Floats
    starts_therapy: Flags
    days_to_treatment: Ints
    length: Ints

    @property
    def treated(self) -> Flags:
        """Who started therapy in the world that happened."""
        return np.asarray(np.where(self.accepted, self.starts_therapy[1], self.starts_therapy[0]))

    @property
    def ids(self) -> list[str]:
        """Journey identifiers."""
        return numbered("PJ", len(self.patient), digits=7)


def draw_journeys(hcps: Hcps, panel: Panel, *, seed: int) -> Journeys:
    """Six patients per HCP on average; an HCP gets patients by volume and specialty, and starts more when it writes more."""
    rng = stream(seed, "journeys")
    people = PATIENTS_PER_HCP * len(hcps.ids)
    second = np.flatnonzero(rng.random(people) < SECOND_JOURNEYS)
    patient = np.concatenate([np.arange(people), second])
    brand = rng.choice(len(STORY), people, p=[story.share_of_patients for story in STORY])
    hcp = _own_hcp(hcps, brand, rng)
    onset = np.array([story.onset_age for story in STORY])[brand]
    age = np.clip(rng.normal(onset[:, 0], onset[:, 1]), 18, 92).astype(np.int64)
    is_female = rng.random(people) < np.array([story.share_female for story in STORY])[brand]
    first = rng.integers(7 * PRE_WEEKS, LAST_DAY - 100, people)
    start = np.concatenate([first, np.minimum(first[second] + rng.integers(150, 400, len(second)), LAST_DAY - 100)])
    is_second = np.concatenate([np.zeros(people, dtype=bool), start[people:] > first[second] + 60])
    keep = np.concatenate([np.ones(people, dtype=bool), is_second[people:]])
    patient, start, is_second = patient[keep], start[keep], is_second[keep]
    return _course(hcps, panel, _Who(patient, is_second, hcp[patient], brand[patient], start, age[patient], is_female[patient]), rng)


@dataclass(frozen=True)
class _Who:
    patient: Ints
    is_second: Flags
    hcp: Ints
    brand: Ints
    start: Ints
    age: Ints
    is_female: Flags


def _own_hcp(hcps: Hcps, brand: Ints, rng: np.random.Generator) -> Ints:
    hcp = np.empty(len(brand), dtype=np.int64)
    for place, story in enumerate(STORY):
        weight = hcps.volume * np.array(story.affinity)[hcps.specialty]
        mine = brand == place
        hcp[mine] = rng.choice(len(hcps.ids), int(mine.sum()), p=weight / weight.sum())
    return hcp


def _course(hcps: Hcps, panel: Panel, who: _Who, rng: np.random.Generator) -> Journeys:
    m = len(who.patient)
    academic = hcps.academic[who.hcp]
    severity = np.clip(10 * rng.beta(2.2, 2.6, m) + 0.5 * who.is_second, 0, 10).round(2)
    risk = np.clip(sigmoid(-0.2 + 0.28 * (severity - 4.6) + rng.normal(0, 0.6, m)), 0.10, 0.90).round(2)
    contact = 3.2 + 0.35 * severity + 1.2 * academic + 2.0 * (hcps.digital[who.hcp] - 0.5)
    engagement = np.clip(contact + rng.normal(0, 1.3, m), 0, 10).round(2)
    has_trigger = rng.random(m) < sigmoid(-0.5 + 0.35 * (severity - 4.6) + 2.0 * (risk - 0.5))
    acceptance = has_trigger * 0.85 * sigmoid(-0.6 + 0.40 * (engagement - 5.0) + 0.15 * (severity - 4.6) + 0.4 * academic)
    accepted = rng.random(m) < acceptance
    writing = _recent_level(panel, who)
    gain = np.where(severity > 5.0, 0.95, 0.55) * has_trigger
    luck = rng.random(m)
    chance = np.stack(
        [
            sigmoid(
                -0.95 + 0.30 * (severity - 4.6) + 0.22 * (engagement - 5.0) + 0.45 * academic + 0.40 * writing
                + 1.5 * (hcps.access[who.hcp, who.brand] - 0.66) - 0.012 * (who.age - 52) + world * gain
            )
            for world in (0, 1)
        ]
    )  # fmt: skip
    return Journeys(
        patient=who.patient, is_second=who.is_second, hcp=who.hcp, brand=who.brand, start=who.start, age=who.age, is_female=who.is_female,
        severity=severity, risk=risk, engagement=engagement, trigger_day=who.start + rng.integers(2, 21, m), has_trigger=has_trigger,
        accepted=accepted, acceptance_probability=acceptance, starts_therapy=luck < chance,
        days_to_treatment=np.clip(rng.gamma(2.2, 14.0, m) + 22, 22, 90).astype(np.int64), length=rng.integers(95, 181, m),
    )  # fmt: skip


def _recent_level(panel: Panel, who: _Who) -> Floats:
    """How much the HCP wrote of the brand in the 12 weeks before the journey, on a standard log scale."""
    total = panel.scripts[:2].sum(axis=0).cumsum(axis=2)
    week = who.start // 7
    until_then = total[who.hcp, who.brand, np.maximum(week - PRE_WEEKS - 1, 0)]
    level = np.log1p(total[who.hcp, who.brand, week - 1] - np.where(week > PRE_WEEKS, until_then, 0))
    return np.asarray((level - level.mean()) / level.std())


def patient_journeys(hcps: Hcps, journeys: Journeys, *, seed: int) -> pl.DataFrame:
    """The recorded journeys: enums and columns of the data model, with lags and gaps as such records have."""
    rng = stream(seed, "patient_journeys")
    m = len(journeys.patient)
    treated = journeys.treated
    competitor = ~treated & (rng.random(m) < 0.16)
    brand = np.where(competitor, np.where(rng.random(m) < 0.7, len(BRANDS), len(BRANDS) + 1), journeys.brand)
    is_over = (journeys.start + journeys.length <= LAST_DAY) & (rng.random(m) < 0.85)
    lag_h = np.clip(rng.gamma(3.0, 45.0, m), 24, 336).astype(np.int64)
    match = np.clip(rng.normal(0.90, 0.045, m), 0.80, 0.99).round(2)
    source_day = np.minimum(journeys.start + journeys.length, LAST_DAY)
    source_time = dates(source_day).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "patient_journey_id": journeys.ids,
            "patient_id": labels(numbered("PAT", int(journeys.patient.max()) + 1, digits=6), journeys.patient),
            "hcp_id": labels(hcps.ids, journeys.hcp),
            "journey_start_date": dates(journeys.start),
            "journey_end_date": dates(journeys.start + journeys.length).set(pl.Series(~is_over), None),
            "journey_duration_days": pl.Series(journeys.length).set(pl.Series(~is_over), None),
            "journey_stage": labels(STAGES, _stage(journeys, treated)),
            "journey_status": labels(("active", "stable", "transitioning", "completed"), _status(treated, is_over, rng)),
            "primary_diagnosis_code": labels([story.diagnosis[0] for story in STORY], journeys.brand),
            "brand": labels([*BRANDS, "competitor", "other"], brand),
            "age_group": labels(AGE_GROUPS, np.digitize(journeys.age, (35, 50, 65))),
            "age_at_diagnosis": journeys.age,
            "gender": labels(("M", "F"), journeys.is_female.astype(np.int64)),
            "geographic_region": labels(REGIONS, hcps.region[journeys.hcp]),
            "insurance_type": labels(INSURANCE, _insurance(journeys, rng)),
            "data_source": labels(SOURCES, rng.integers(0, len(SOURCES), m)),
            "data_quality_score": np.clip(match - 0.06 + rng.normal(0, 0.05, m), 0.70, 0.99).round(2),
            "source_match_confidence": match,
            "source_timestamp": source_time,
            "ingestion_timestamp": source_time + pl.Series(lag_h * 3_600_000_000).cast(pl.Duration("us")),
            "data_lag_hours": lag_h,
            "disease_severity": with_gaps(journeys.severity, rng.random(m) < np.where(journeys.severity < 3, 0.09, 0.03)),
            "risk_score": journeys.risk,
            "engagement_score": journeys.engagement,
            "academic_hcp": hcps.academic[journeys.hcp],
            "treatment_initiated": treated.astype(np.int64),
            "days_to_treatment": pl.Series(journeys.days_to_treatment).set(pl.Series(~treated), None),
        }
    )  # fmt: skip


STAGES = ("diagnosis", "initial_treatment", "treatment_optimization", "maintenance", "treatment_switch")


def _stage(journeys: Journeys, treated: Flags) -> Ints:
    on_therapy = journeys.length - journeys.days_to_treatment
    stage = np.where(treated, np.digitize(on_therapy, (45, 90)) + 1, 0)
    return np.where(journeys.is_second, 4, stage)


def _status(treated: Flags, is_over: Flags, rng: np.random.Generator) -> Ints:
    going = np.where(treated, 1, 0)
    going = np.where(rng.random(len(treated)) < 0.12, 2, going)
    return np.where(is_over, 3, going)


def _insurance(journeys: Journeys, rng: np.random.Generator) -> Ints:
    draw = rng.random(len(journeys.age))
    younger = np.where(draw < 0.70, 0, np.where(draw < 0.89, 1, 2))
    older = np.where(draw < 0.12, 0, np.where(draw < 0.96, 1, 2))
    return np.where(journeys.age >= 65, older, younger)


def conversions(hcps: Hcps, journeys: Journeys) -> pl.DataFrame:
    """One row per trigger that reached a decision: whether it was accepted, and whether therapy started."""
    rows = np.flatnonzero(journeys.has_trigger)
    treated = journeys.treated[rows]
    start = journeys.start[rows] + journeys.days_to_treatment[rows]
    return pl.DataFrame(
        {
            "patient_journey_id": pl.Series(journeys.ids).gather(rows),
            "patient_id": labels(numbered("PAT", int(journeys.patient.max()) + 1, digits=6), journeys.patient[rows]),
            "hcp_id": labels(hcps.ids, journeys.hcp[rows]),
            "brand": labels(BRANDS, journeys.brand[rows]),
            "trigger_date": dates(journeys.trigger_day[rows]),
            "disease_severity": journeys.severity[rows],
            "risk_score": journeys.risk[rows],
            "engagement_score": journeys.engagement[rows],
            "academic_hcp": hcps.academic[journeys.hcp[rows]],
            "trigger_accepted": journeys.accepted[rows].astype(np.int64),
            "converted": treated.astype(np.int64),
            "conversion_date": dates(start).set(pl.Series(~treated), None),
        }
    )


def journey_truth(journeys: Journeys) -> tuple[pl.DataFrame, TrueEffect]:
    """Both outcomes of every journey with a trigger, and the true effect of accepting one."""
    rows = np.flatnonzero(journeys.has_trigger)
    frame = pl.DataFrame(
        {
            "patient_journey_id": pl.Series(journeys.ids).gather(rows),
            "propensity": journeys.acceptance_probability[rows],
            "treated": journeys.accepted[rows],
            "converted_if_untreated": journeys.starts_therapy[0, rows],
            "converted_if_treated": journeys.starts_therapy[1, rows],
        }
    )
    effect = true_effect(
        ("conversions", "trigger_accepted", "converted"),
        treated=journeys.accepted[rows],
        if_treated=journeys.starts_therapy[1, rows].astype(np.float64),
        if_untreated=journeys.starts_therapy[0, rows].astype(np.float64),
        modifiers={"brand": labels(BRANDS, journeys.brand[rows])},
    )
    return frame, effect
