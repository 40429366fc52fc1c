"""Thresholds and an AND of two columns confound: what is left of the bias is small against the interval, and certificates agree.

All cells and seeds: `benchmarks/coverage_certificate.py`; what runs here is the part that fits in a test run.
"""

from __future__ import annotations

import numpy as np
import pytest

from e2i.causal.design import prepare
from e2i.causal.estimators.aipw import AIPW
from e2i.causal.estimators.doubly_robust import arm_means
from e2i.causal.router import identify
from e2i.causal.worlds.cross_section import WORLDS, covariates_of

SEEDS = 20
ROWS = 500


def test_confounding_by_thresholds_is_removed_to_a_quarter_of_a_standard_error() -> None:
    """Beside the same scores with true propensity and means, which take out the luck of the draw; without `outcome_terms` it is 0.65."""
    world = WORLDS["stepped"]
    beyond, claimed, covered = [], [], 0
    for seed in range(SEEDS):
        frame = world.draw(ROWS, seed=seed)
        spec = identify(world.effect(), frame)
        sample = prepare(frame, spec)
        told = AIPW(repetitions=1).fit(sample, spec, seed=seed)
        known = covariates_of(ROWS, seed=seed)
        pair = (world.untreated(known), world.treated(known))
        down, up = arm_means(sample.outcome, sample.treatment, world.propensity(known), pair, estimand="ATE")
        beyond.append(told.estimate - (up[0] - down[0]))
        claimed.append(told.standard_error)
        covered += told.interval[0] < world.truth("ATE") < told.interval[1]
    assert abs(np.mean(beyond)) < 0.25 * np.mean(claimed)
    assert covered >= 16, "95 % of 20 is 19; fewer than 16 has probability 0.003"


def test_the_overlap_effect_lies_between_the_average_and_that_on_the_treated_where_gains_and_chances_rise_together() -> None:
    world = WORLDS["heterogeneous"]
    assert world.truth("ATE") < world.truth("ATO") < world.truth("ATT")
    known = covariates_of(200_000, seed=3)
    chance = world.propensity(known)
    gain = world.treated(known) - world.untreated(known)
    assert world.truth("ATO") == pytest.approx(np.average(gain, weights=chance * (1.0 - chance)), abs=0.01)
    assert WORLDS["no_effect"].truth("ATO") == 0.0
