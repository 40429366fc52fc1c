"""Launch days between two periods: the period they fall into is not taken for an untreated one."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec

QUESTION = EffectSpec(treatment="launch", outcome="y", cohort="day")
MONTHS = [date(2022 + k // 12, k % 12 + 1, 1) for k in range(20)]


def launches(*, starts: tuple[int, ...] = (8, 11), into: int = 15, seed: int = 1, ends: bool = False) -> pl.DataFrame:
    """Months by their first (or last) day; treatment of half of the units begins `into` days after the first of a month, and lifts by 1."""
    rng = np.random.default_rng(seed)
    start = np.where(rng.random(200) < 0.5, rng.choice(starts, size=200), 99)
    t = np.arange(20)
    share = np.where(t > start[:, None], 1.0, np.where(t == start[:, None], 1.0 - into / 30.0, 0.0))
    y = 10.0 + rng.normal(size=(200, 1)) + rng.normal(size=20) + share + rng.normal(size=(200, 20))
    days = [None if s == 99 else MONTHS[s] + timedelta(days=into) for s in start]
    labels = [(month + timedelta(days=31)).replace(day=1) - timedelta(days=1) for month in MONTHS] if ends else MONTHS
    return pl.DataFrame(
        {"u": np.repeat(np.arange(200), 20), "t": labels * 200, "y": y.ravel(), "day": pl.Series(np.repeat(np.array(days), 20).tolist())}
    )


def found(frame: pl.DataFrame, effect: EffectSpec = QUESTION) -> CausalFinding:
    return analyse(frame, effect=effect, unit="u", time="t", seed=1)


@pytest.mark.parametrize("starts", [(8,), (8, 11)])
def test_a_launch_in_the_middle_of_a_month_is_not_measured_against_that_month(starts: tuple[int, ...]) -> None:
    """Against the month of launch, half of the effect would be lost: 0.5 instead of 1."""
    estimates, verdicts = [], []
    for seed in range(4):
        finding = found(launches(starts=starts, seed=seed))
        assert finding.effect is not None
        estimates.append(finding.effect.estimate)
        verdicts.append(finding.verdict.name)
    assert np.mean(estimates) == pytest.approx(1.0, abs=0.15)
    assert "block" not in verdicts
    assert verdicts.count("proceed") >= 3
    told = next(hazard for hazard in finding.hazards if hazard.code == "starts_between_periods")
    assert told.action == "warn"
    assert "is left out" in told.text


def test_months_named_by_their_last_day_give_the_effect_of_whole_and_part_months() -> None:
    """The month of launch is the first that is treated, by half: with twelve or nine months, about 0.95 on average."""
    told = [found(launches(ends=True, seed=seed)).effect for seed in range(4)]
    assert np.mean([effect.estimate for effect in told if effect is not None]) == pytest.approx(0.95, abs=0.12)


def test_a_launch_on_the_first_day_of_a_period_changes_nothing() -> None:
    finding = found(launches(into=0))
    assert "starts_between_periods" not in {hazard.code for hazard in finding.hazards}


def test_with_one_period_before_launch_a_person_is_asked() -> None:
    finding = found(launches(starts=(1,), into=20).filter(pl.col("t") >= date(2022, 2, 1)))
    assert {hazard.code: hazard.action for hazard in finding.hazards}["starts_between_periods"] == "review"


def test_one_series_leaves_the_part_period_out_too() -> None:
    """The month of launch holds 10 days of a lift of 8, and would count as a month without."""
    rng, t = np.random.default_rng(2), np.arange(48)
    months = [date(2020 + k // 12, k % 12 + 1, 1) for k in range(48)]
    y = 50.0 + 8.0 * (t > 33) + 8.0 * 20 / 30 * (t == 33) + rng.normal(size=48)
    frame = pl.DataFrame({"t": months, "y": y, "day": [months[33] + timedelta(days=10)] * 48})
    finding = analyse(frame, effect=QUESTION, time="t", seed=1)
    assert finding.effect is not None
    assert finding.effect.estimate == pytest.approx(8.0, abs=1.0)
    assert "starts_between_periods" in {hazard.code for hazard in finding.hazards}
