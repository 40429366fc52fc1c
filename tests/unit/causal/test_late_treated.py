"""Last periods that are incomplete for the treated alone, and holidays at the end of a table."""

from __future__ import annotations

import numpy as np
import pytest

from e2i.causal.late_reports import late_reports, late_reports_of_treated


def accused(
    *, kept: float = 1.0, gain: tuple[float, float] = (2.0, 0.0), starts: tuple[int, ...] = (6, 9), units: int = 60, seed: int = 0
) -> bool:
    """18 periods; half of the units are treated and gain `gain[0]`, plus `gain[1]` per period since; `kept` of the last two is reported."""
    rng, t = np.random.default_rng(seed), np.arange(18)
    start = np.where(np.arange(units) % 2 == 0, rng.choice(starts, size=units), -1)
    on = (start[:, None] >= 0) & (t >= start[:, None])
    since = np.where(on, t - start[:, None], 0)
    y = 12.0 + rng.gamma(4.0, 1.0, size=(units, 1)) + 3.0 * np.sin(t / 2.0) + on * gain[0] + gain[1] * since + rng.normal(size=on.shape)
    y = np.where(on & (t >= 16), kept * y, y)
    return late_reports_of_treated(np.tile(t, units), y.ravel(), np.repeat(start, 18)) is not None


def test_treated_units_that_report_late_are_seen() -> None:
    assert sum(accused(kept=0.6, seed=seed) for seed in range(20)) >= 19


@pytest.mark.parametrize("gain", [(0.0, 0.0), (2.0, 0.0), (2.0, 0.3), (-2.0, 0.0), (4.0, -0.35), (0.0, -0.5)])
def test_effects_that_stay_grow_fade_or_harm_are_not_taken_for_late_reports(gain: tuple[float, float]) -> None:
    assert sum(accused(gain=gain, seed=seed) for seed in range(40)) <= 1


def test_noise_of_a_few_units_is_not_taken_for_late_reports() -> None:
    assert sum(accused(units=6, seed=seed) for seed in range(40)) <= 1


def test_a_treatment_that_has_just_begun_is_not_judged() -> None:
    assert not accused(kept=0.3, starts=(15,))


@pytest.mark.parametrize("weeks", [52, 53])
def test_a_table_that_ends_at_christmas_is_complete_when_the_christmas_before_fell_too(weeks: int) -> None:
    """Sales dip by a third in one week a year, on a level that wanders; without that, the same last week is accused."""

    def is_accused(dip_before: float, seed: int) -> bool:
        rng, t = np.random.default_rng(seed), np.arange(100)
        level = 20.0 + 0.1 * rng.normal(size=100).cumsum() - 7.0 * (t == 99) - dip_before * (t == 99 - weeks)
        y = level + rng.normal(size=(80, 100))
        return late_reports(np.tile(t, 80), y.ravel()) is not None

    assert sum(is_accused(7.0, seed) for seed in range(20)) <= 1
    assert sum(is_accused(0.0, seed) for seed in range(20)) >= 18
