from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2i.causal.design import Sample
from e2i.causal.encoding import Covariates
from e2i.causal.iv.front_door import FrontDoor
from e2i.errors import NotIdentified, NoVariation, PositivityViolated, SchemaMismatch
from instrument_rows import SPEC, instrument_rows

ATE = replace(SPEC, design="cross_section", estimand="ATE")


def mediated(rows: int, *, seed: int, curved: bool = False) -> tuple[Sample, Covariates, float]:
    """A hidden cause of treatment and outcome; the mediator carries the whole effect. Returns the true effect too."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=rows)
    treatment = (rng.random(rows) < 1.0 / (1.0 + np.exp(-1.5 * hidden))).astype(float)
    reach = 1.0 * treatment + rng.normal(size=rows)
    nrx = (reach**2 if curved else 1.5 * reach) + 2.0 * hidden + rng.normal(size=rows)
    names = ("reach",)
    mediators = Covariates(matrix=reach[:, None], names=names, sources=names, is_level=(False,), notes=())
    return instrument_rows(nrx, treatment, np.zeros(rows)), mediators, 1.0 if curved else 1.5


@pytest.mark.parametrize("curved", [False, True])
def test_the_effect_is_found_where_the_raw_difference_and_adjusting_for_the_mediator_both_fail(curved: bool) -> None:
    errors, covered = [], 0
    for seed in range(5):
        sample, mediators, truth = mediated(800, seed=seed, curved=curved)
        told = FrontDoor(mediators=mediators).fit(sample, ATE, seed=seed)
        raw = sample.outcome[sample.treatment == 1].mean() - sample.outcome[sample.treatment == 0].mean()
        errors.append(told.estimate - truth)
        assert raw - truth > 1.0
        covered += told.interval[0] < truth < told.interval[1]
    assert covered >= 4
    assert abs(np.mean(errors)) < 0.2


def test_in_a_linear_world_it_agrees_with_the_product_of_two_slopes() -> None:
    sample, mediators, _ = mediated(2_000, seed=20)
    told = FrontDoor(mediators=mediators).fit(sample, ATE, seed=0)
    reach = mediators.matrix[:, 0]
    first = reach[sample.treatment == 1].mean() - reach[sample.treatment == 0].mean()
    second = np.linalg.lstsq(np.column_stack([np.ones(2_000), reach, sample.treatment]), sample.outcome, rcond=None)[0][1]
    assert told.estimate == pytest.approx(first * second, abs=0.5 * told.standard_error)
    assert told.influence is not None
    assert np.sqrt(np.mean(told.influence**2) / 2_000) == pytest.approx(told.standard_error, rel=0.01)


def test_a_mediator_that_gives_the_treatment_away_is_refused() -> None:
    sample, mediators, _ = mediated(400, seed=1)
    told = replace(mediators, matrix=mediators.matrix + 20.0 * sample.treatment[:, None])
    with pytest.raises(PositivityViolated, match="give the treatment away"):
        FrontDoor(mediators=told).fit(sample, ATE, seed=0)


def test_what_the_front_door_does_not_answer_is_refused() -> None:
    sample, mediators, _ = mediated(400, seed=2)
    with pytest.raises(NotIdentified, match="gives the ATE"):
        FrontDoor(mediators=mediators).fit(sample, replace(ATE, estimand="ATT"), seed=0)
    with pytest.raises(SchemaMismatch, match="0/1"):
        FrontDoor(mediators=mediators).fit(replace(sample, treatment=sample.treatment * 2.0), ATE, seed=0)
    with pytest.raises(NoVariation, match="no mediator varies"):
        FrontDoor(mediators=replace(mediators, matrix=np.empty((400, 0)))).fit(sample, ATE, seed=0)
