from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.estimators.doubly_robust import Fit, Propensity, doubly_robust, fit_propensity
from e2i.causal.estimators.features import make_features
from e2i.causal.refute.ground import bent, quick_propensity
from e2i.causal.specification import disagreement, specification_curve
from e2i.causal.worlds import WORLDS
from e2i.domain.evidence import SpecificationPoint


def estimated(world: str, rows: int, *, seed: int = 1) -> tuple[Sample, Fit, Propensity]:
    story = WORLDS[world]
    frame = story.draw(rows, seed=seed)
    identification = Identification(
        design="cross_section", estimand="ATE", treatment="treatment", outcome="outcome", adjustment=story.effect().confounders
    )
    sample = prepare(frame, identification)
    features = make_features(sample.covariates.matrix)
    propensity = fit_propensity(features, sample.treatment, sample.groups, repetitions=1, seed=seed)
    return sample, doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand="ATE", seed=seed), propensity


LINEAR = estimated("linear", 1_500)
POINTS = specification_curve(*LINEAR)


def test_the_chosen_estimate_stands_first_and_once() -> None:
    assert POINTS[0].is_chosen
    assert POINTS[0].estimate == LINEAR[1].estimate
    assert sum(point.is_chosen for point in POINTS) == 1


def test_every_estimator_covers_the_truth_in_a_sound_world() -> None:
    full = [point for point in POINTS if point.sample == "all rows" and point.adjustment == "all confounders"]
    assert len(full) == 5
    for point in full:
        middle, half = (point.low + point.high) / 2, (point.high - point.low) / 2
        assert abs(middle - 1.0) < 2 * half, point
    assert disagreement(POINTS) == []


def test_a_strong_confounder_left_out_shows() -> None:
    without = next(point for point in POINTS if point.adjustment == "without x0")
    assert without.low > 1.2
    assert {point.adjustment for point in POINTS} >= {"all confounders", "without group", "without x8"}


def test_trimming_is_told_as_another_population() -> None:
    trimmed = [point for point in POINTS if point.sample != "all rows"]
    assert trimmed
    assert all("of rows, another population" in point.sample for point in trimmed)


def test_the_standard_error_of_weighting_is_its_spread_over_draws() -> None:
    """With a logistic propensity; to estimate it makes weighting sharper, and the standard error knows."""
    found = []
    for seed in range(80):
        frame = WORLDS["linear"].draw(800, seed=seed)
        confounders = WORLDS["linear"].effect().confounders
        asked = Identification(design="cross_section", estimand="ATE", treatment="treatment", outcome="outcome", adjustment=confounders)
        sample = prepare(frame, asked)
        chance = quick_propensity(bent(sample.covariates.matrix), sample.treatment)
        fit = replace(LINEAR[1], untreated_mean=np.zeros((1, 800)), treated_mean=np.zeros((1, 800)))
        points = specification_curve(sample, fit, Propensity(raw=chance[None], folds=np.zeros((1, 800), dtype=np.int64), learners={}))
        one = next(p for p in points if p.estimator == "inverse propensity weighting" and p.sample == "all rows")
        found.append((one.estimate, (one.high - one.low) / 3.92))
    estimates, errors = np.array(found).T
    assert 0.75 < np.median(errors) / estimates.std(ddof=1) < 1.25
    assert abs(estimates.mean() - 1.0) < 4 * estimates.std() / np.sqrt(80)


def point(
    estimator: str, estimate: float, error: float, *, sample: str = "all rows", adjustment: str = "all confounders"
) -> SpecificationPoint:
    return SpecificationPoint(
        estimator=estimator,
        sample=sample,
        adjustment=adjustment,
        estimate=estimate,
        low=estimate - 1.96 * error,
        high=estimate + 1.96 * error,
    )


CHOSEN = replace(point("doubly robust, stacked learners", 1.0, 0.1), is_chosen=True)


@pytest.mark.parametrize(
    ("other", "blocks"),
    [
        (point("regression adjustment", 1.2, 0.1), False),
        (point("regression adjustment", 1.6, 0.1), True),
        (point("inverse propensity weighting", -0.5, 0.2), True),
        (point("inverse propensity weighting", -0.2, 0.5), False),
        (point("overlap weighting", 2.5, 0.1), False),
        (point("weighted regression", 2.5, 0.1, adjustment="without x0"), False),
        (point("weighted regression", 2.5, 0.1, sample="propensity in [0.1, 0.9]"), False),
    ],
    ids=str,
)
def test_estimators_of_one_question_must_agree(other: SpecificationPoint, blocks: bool) -> None:
    found = disagreement((CHOSEN, other))
    assert bool(found) == blocks
    if blocks:
        assert found[0].severity == "block"
        assert found[0].text.startswith("unreliable")
