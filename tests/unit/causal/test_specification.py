from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.estimators.doubly_robust import Fit, Propensity, doubly_robust, fit_propensity
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.refute.ground import bent, quick_propensity
from e2i.causal.specification import disagreement, doubts, halves, specification_curve
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
    assert {point.estimator.split(",")[0] for point in full} == {
        "doubly robust",
        "inverse propensity weighting",
        "regression adjustment",
        "weighted regression",
        "overlap weighting",
        "outcome models alone",
    }
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
        zeros = np.zeros((1, 800))
        fit = replace(LINEAR[1], untreated_mean=zeros, treated_mean=zeros, influence=zeros)
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


def learned(fit: Fit, sample: Sample, *, untreated: FloatArray, treated: FloatArray, chance: FloatArray) -> tuple[Fit, Propensity]:
    """The doubly robust estimate from given nuisances."""
    treatment, outcome = sample.treatment, sample.outcome
    up, down = treatment / chance, (1 - treatment) / (1 - chance)
    score = treated - untreated + up / up.mean() * (outcome - treated) - down / down.mean() * (outcome - untreated)
    made = replace(
        fit,
        estimate=float(score.mean()),
        estimates=np.array([score.mean()]),
        influence=(score - score.mean())[None],
        standard_error=float(score.std(ddof=1) / np.sqrt(len(score))),
        untreated_mean=untreated[None],
        treated_mean=treated[None],
    )
    return made, Propensity(raw=chance[None], folds=np.zeros((1, len(score)), dtype=np.int64), learners={})


def waves(seed: int, *, rows: int = 3_000) -> tuple[Sample, FloatArray, FloatArray]:
    """A world that no line follows: the sample, its true untreated mean (the effect is 1), its true propensity."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(rows, 3))
    wave = np.sin(3 * x[:, 0]) + (x[:, 1] > 0.5)
    chance = sigmoid(1.5 * wave - 0.7)
    treatment = (rng.random(rows) < chance).astype(int)
    frame = pl.DataFrame({f"x{j}": x[:, j] for j in range(3)} | {"t": treatment, "y": treatment + 2 * wave + rng.normal(size=rows)})
    asked = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y", adjustment=("x0", "x1", "x2"))
    return prepare(frame, asked), 2 * wave, chance


@pytest.mark.parametrize("missing_half", ["weights", "means"])
def test_an_estimate_with_one_right_half_is_not_called_unreliable_because_simpler_models_are_wrong(missing_half: str) -> None:
    blocked, seen = 0, 0
    for seed in range(20):
        sample, mean, chance = waves(seed)
        basis = bent(sample.covariates.matrix)
        if missing_half == "weights":
            chance = quick_propensity(basis, sample.treatment)
        else:
            mean = basis @ np.linalg.lstsq(basis[sample.treatment == 0], sample.outcome[sample.treatment == 0], rcond=None)[0]
        fit, propensity = learned(LINEAR[1], sample, untreated=mean, treated=mean + 1.0, chance=chance)
        assert abs(fit.estimate - 1.0) < 5 * fit.standard_error
        found = halves(sample, fit, propensity)
        seen += abs(found.of_weights) > 3
        blocked += bool(disagreement(specification_curve(sample, fit, propensity)) or doubts(found))
    assert blocked <= 1
    assert seen >= 15 if missing_half == "weights" else seen <= 1


def test_an_estimate_whose_halves_are_both_wrong_is_doubted() -> None:
    doubted = 0
    for seed in range(20):
        sample, mean, _ = waves(seed)
        basis = bent(sample.covariates.matrix)
        flat = 0.5 * mean + 0.5 * basis @ np.linalg.lstsq(basis, mean, rcond=None)[0]
        fit, propensity = learned(LINEAR[1], sample, untreated=flat, treated=flat + 1.0, chance=quick_propensity(basis, sample.treatment))
        assert fit.estimate > 1.0 + 3 * fit.standard_error
        doubted += bool(doubts(halves(sample, fit, propensity)))
    assert doubted >= 19


def test_learners_that_forget_the_covariates_disagree_with_lines_that_do_not() -> None:
    sample = LINEAR[0]
    share = np.full(len(sample.outcome), sample.treatment.mean())
    low, high = (np.full(len(share), sample.outcome[sample.treatment == arm].mean()) for arm in (0, 1))
    fit, propensity = learned(LINEAR[1], sample, untreated=low, treated=high, chance=share)
    points = specification_curve(sample, fit, propensity)
    assert not any("refuted" in point.estimator for point in points), "nothing predicts better than the lines"
    assert disagreement(points)[0].text.startswith("unreliable")


def test_the_curve_does_not_depend_on_where_the_outcome_has_its_zero() -> None:
    sample, fit, propensity = LINEAR
    far = replace(sample, outcome=sample.outcome + 1e9)
    moved = replace(fit, untreated_mean=fit.untreated_mean + 1e9, treated_mean=fit.treated_mean + 1e9)
    for one, other in zip(POINTS, specification_curve(far, moved, propensity), strict=True):
        assert other.estimate == pytest.approx(one.estimate, abs=1e-4)
        assert other.high == pytest.approx(one.high, abs=1e-4)
