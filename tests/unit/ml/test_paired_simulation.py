from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from e2i.domain.sample_ratio import SAMPLE_RATIO_ALPHA, sample_ratio
from e2i.domain.trials import ExperimentSpec
from e2i.ml.power import planning
from e2i.ml.power.sample import read_sample
from e2i.ml.power.simulation import simulate_power


@pytest.mark.parametrize("planned", [200, 100, 600])
def test_pairs_matched_on_noise_have_no_more_power_in_the_simulation_than_by_the_formula(planned: int) -> None:
    """The covariate tells nothing, so a pair is two strangers; a unit that meets its own copy would be a twin."""
    rng = np.random.default_rng(2)
    frame = pl.DataFrame({"npi": np.arange(200), "sales": rng.gamma(2, 500, 200), "last_year": rng.gamma(2, 500, 200)})
    spec = ExperimentSpec(
        question="Does it work?", outcome="sales", unit="npi", design="matched_pairs", covariates=("last_year",), units_available=planned,
        minimum_detectable=2.8 * 2 * 707 / planned**0.5 * 0.9,
    )  # fmt: skip
    plan, sample = planning.draft(spec, frame), read_sample(frame, spec)
    planned_trial = planning.trial_on(plan, sample)
    assert planned_trial is not None
    trial, nominal = planned_trial
    told = simulate_power(sample, trial, nominal=nominal, simulations=800, seed=3)
    assert told.power == pytest.approx(nominal, abs=0.08)
    assert told.size == pytest.approx(0.05, abs=0.025)


def test_the_sample_ratio_check_is_the_chi_square_test_and_rarely_alarms_on_sound_arms() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for treated in rng.binomial(1000, 0.3, size=4000).tolist():
        p = sample_ratio({"treatment": treated, "control": 1000 - treated}, {"treatment": 0.3, "control": 0.7})
        alarms += p < SAMPLE_RATIO_ALPHA
    assert p == pytest.approx(stats.chisquare([treated, 1000 - treated], [300, 700]).pvalue)
    assert alarms / 4000 < 0.003
    broken = rng.binomial(10_000, 0.475, size=200)
    assert np.mean([sample_ratio({"t": int(k), "c": 10_000 - int(k)}, {"t": 0.5, "c": 0.5}) < SAMPLE_RATIO_ALPHA for k in broken]) > 0.9
