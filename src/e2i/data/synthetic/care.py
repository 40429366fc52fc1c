"""What happens within a journey: clinical events, and the triggers with their delivery and acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from e2i.data.synthetic.patients import LAST_DAY
from e2i.data.synthetic.story import BRANDS, STORY, Flags, Floats, Ints, dates, labels, numbered, stream

if TYPE_CHECKING:
    from e2i.data.synthetic.hcps import Hcps
    from e2i.data.synthetic.patients import Journeys

EVENT_TYPES = ("diagnosis", "prescription", "lab_test", "procedure", "consultation", "hospitalization")
OTHER_EVENTS = (0.38, 0.14, 0.42, 0.06)
"""lab test, procedure, consultation, hospitalization"""
MEAN_COST = (350.0, 2400.0, 180.0, 1500.0, 220.0, 4200.0)
TRIGGER_TYPES = (
    "prescription_opportunity", "adherence_risk", "churn_prevention", "cross_sell",
    "engagement_gap", "competitive_threat", "treatment_switch", "reactivation",
)  # fmt: skip
PRIORITIES = ("low", "medium", "high", "critical")
CHANNELS = ("email", "crm", "mobile", "portal", "rep_alert")
DAY_US = 86_400_000_000


def treatment_events(hcps: Hcps, journeys: Journeys, *, seed: int) -> pl.DataFrame:
    """3 to 12 events per journey: the diagnosis, care, and a prescription every 30 days from the start of therapy to its end."""
    rng = stream(seed, "treatment_events")
    journey, day, kind = _events(journeys, rng)
    order = np.lexsort((kind, day, journey))
    journey, day, kind = journey[order], day[order], kind[order]
    m = len(journey)
    first = np.flatnonzero(np.diff(journey, prepend=-1))
    sequence = np.arange(m) - np.repeat(first, np.diff(first, append=m)) + 1
    is_rx = kind == 1
    stops = _last_of(journey, is_rx) & (rng.random(m) < 0.25)
    brand = journeys.brand[journey]
    outcome = np.where(rng.random(m) < 0.35, 3, rng.choice(3, m, p=(0.45, 0.40, 0.15)))
    return pl.DataFrame(
        {
            "treatment_event_id": numbered("EVT", m, digits=7),
            "patient_journey_id": pl.Series(journeys.ids).gather(journey),
            "patient_id": labels(numbered("PAT", int(journeys.patient.max()) + 1, digits=6), journeys.patient[journey]),
            "hcp_id": labels(hcps.ids, journeys.hcp[journey]),
            "event_date": dates(day),
            "event_type": labels(EVENT_TYPES, kind),
            "brand": labels(BRANDS, brand).set(pl.Series(~is_rx), None),
            "drug_class": labels([story.drug_class for story in STORY], brand).set(pl.Series(~is_rx), None),
            "duration_days": pl.Series(np.full(m, 30)).set(pl.Series(~is_rx), None),
            "cost": np.clip(np.array(MEAN_COST)[kind] * rng.gamma(6.0, 1 / 6.0, m), 100, 5000).round(2),
            "outcome_indicator": labels(["improved", "stable", "declined", ""], outcome).set(pl.Series(outcome == 3), None),
            "adverse_event_flag": is_rx & (rng.random(m) < 0.10),
            "discontinuation_flag": stops,
            "sequence_number": sequence,
            "days_from_diagnosis": day - journeys.start[journey],
        }
    )


def _events(journeys: Journeys, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Journey, day and type of every event, in no order."""
    m = len(journeys.start)
    horizon = np.minimum(journeys.length, LAST_DAY - journeys.start)
    care = np.clip(2 + rng.poisson(1.2 + 0.25 * journeys.severity), 2, 6)
    care_journey = np.repeat(np.arange(m), care)
    care_day = journeys.start[care_journey] + (rng.random(len(care_journey)) * (horizon[care_journey] + 1)).astype(np.int64)
    care_kind = rng.choice((2, 3, 4, 5), len(care_journey), p=OTHER_EVENTS)
    possible = np.maximum((horizon - journeys.days_to_treatment) // 30 + 1, 0)
    fills = np.where(journeys.treated, np.minimum(np.minimum(possible, 5), rng.geometric(0.12, m)), 0)
    fill_journey = np.repeat(np.arange(m), fills)
    number = np.arange(len(fill_journey)) - np.repeat(fills.cumsum() - fills, fills)
    fill_day = journeys.start[fill_journey] + journeys.days_to_treatment[fill_journey] + 30 * number
    return (
        np.concatenate([np.arange(m), care_journey, fill_journey]),
        np.concatenate([journeys.start, care_day, fill_day]),
        np.concatenate([np.zeros(m, dtype=np.int64), care_kind, np.ones(len(fill_journey), dtype=np.int64)]),
    )


def _last_of(journey: Ints, chosen: Flags) -> Flags:
    """True at the last chosen event of each journey."""
    places = np.flatnonzero(chosen)
    is_last = np.zeros(len(journey), dtype=bool)
    is_last[places[np.flatnonzero(np.diff(journey[places], append=-1))]] = True
    return is_last


def triggers(hcps: Hcps, journeys: Journeys, *, seed: int) -> pl.DataFrame:
    """One row per trigger; delivered 60 %, viewed 25 %, pending 10 %, failed 5 %, except that an accepted one did arrive."""
    rng = stream(seed, "triggers")
    rows = np.flatnonzero(journeys.has_trigger)
    m = len(rows)
    accepted = journeys.accepted[rows]
    delivery = np.where(accepted, rng.choice((1, 2), m, p=(0.7, 0.3)), rng.choice(4, m, p=(0.13, 0.56, 0.24, 0.07)))
    arrived = (delivery == 1) | (delivery == 2)
    acceptance = np.where(accepted, 1, rng.choice((0, 2, 3), m, p=(0.30, 0.40, 0.30)))
    sent_us = journeys.trigger_day[rows] * DAY_US + rng.integers(7 * 3_600, 19 * 3_600, m) * 1_000_000
    arrival_us = sent_us + rng.integers(60, 6 * 3_600, m) * 1_000_000
    view_us = arrival_us + rng.integers(60, 40 * 3_600, m) * 1_000_000
    viewed = (delivery == 2) | accepted
    certain = np.clip(0.55 + 0.04 * journeys.severity[rows] + rng.normal(0, 0.07, m), 0.50, 0.99)
    lead = rng.integers(3, 31, m)
    return pl.DataFrame(
        {
            "trigger_id": numbered("TRG", m, digits=7),
            "patient_journey_id": pl.Series(journeys.ids).gather(rows),
            "patient_id": labels(numbered("PAT", int(journeys.patient.max()) + 1, digits=6), journeys.patient[rows]),
            "hcp_id": labels(hcps.ids, journeys.hcp[rows]),
            "trigger_timestamp": _times(sent_us),
            "trigger_type": labels(TRIGGER_TYPES, _types(journeys, rows, rng)),
            "priority": labels(PRIORITIES, np.digitize(journeys.risk[rows] + rng.normal(0, 0.05, m), (0.40, 0.60, 0.78))),
            "confidence_score": certain.round(3),
            "lead_time_days": lead,
            "expiration_date": dates(journeys.trigger_day[rows] + lead),
            "delivery_channel": labels(CHANNELS, rng.choice(5, m, p=(0.30, 0.25, 0.15, 0.10, 0.20))),
            "delivery_status": labels(("pending", "delivered", "viewed", "failed"), delivery),
            "delivery_timestamp": _times(arrival_us).set(pl.Series(~arrived), None),
            "view_timestamp": _times(view_us).set(pl.Series(~viewed), None),
            "acceptance_status": labels(("pending", "accepted", "rejected", "expired"), acceptance).set(pl.Series(~arrived), None),
            "acceptance_timestamp": _times(view_us + 60_000_000 * rng.integers(1, 600, m)).set(pl.Series(~accepted), None),
            "false_positive_flag": rng.random(m) < _false_alarm(certain),
        }
    )


def _types(journeys: Journeys, rows: Ints, rng: np.random.Generator) -> Ints:
    is_new = rng.choice(len(TRIGGER_TYPES), len(rows), p=(0.46, 0.08, 0.05, 0.07, 0.16, 0.10, 0.04, 0.04))
    is_switch = rng.choice(len(TRIGGER_TYPES), len(rows), p=(0.10, 0.12, 0.12, 0.05, 0.08, 0.13, 0.30, 0.10))
    return np.where(journeys.is_second[rows], is_switch, is_new)


def _false_alarm(certain: Floats) -> Floats:
    return np.asarray(0.22 * (1.0 - certain) / 0.5)


def _times(micros: Ints) -> pl.Series:
    """Microseconds since the first Friday, as UTC times."""
    return (dates(micros // DAY_US).cast(pl.Datetime("us", "UTC"))) + pl.Series(micros % DAY_US).cast(pl.Duration("us"))
