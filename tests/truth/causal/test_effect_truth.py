"""Planted effects are recovered, intervals cover, wrong worlds are caught, and a published answer is reproduced.

Measured with `benchmarks/bench_effect.py --coverage` (see there); what runs here is the part that fits in a test run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from e2i.causal.analysis import Estimation, analyse, estimate, refute
from e2i.causal.design import prepare
from e2i.causal.estimators.doubly_robust import DoublyRobust
from e2i.causal.router import identify
from e2i.causal.worlds import WORLDS, World
from e2i.data.study_file import load_study
from e2i.data.synthetic import study_world
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec

SEEDS = 40
STUDY = Path(__file__).parents[3] / "studies" / "speaker_program.yaml"
PUBLISHED_WEIGHTING, PUBLISHED_STANDARDISATION, PUBLISHED_NAIVE = 3.44, 3.52, 2.54


def errors_and_standard_errors(world: World, *, rows: int, estimand: str, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    effect = world.effect(estimand=estimand)
    estimator = DoublyRobust(estimand="ATE" if estimand == "ATE" else "ATT")
    found = []
    for seed in range(seeds):
        frame = world.draw(rows, seed=seed)
        sample = prepare(frame, identify(effect, frame))
        fit = estimator(sample.outcome, sample.treatment, sample.covariates.matrix, groups=sample.groups, seed=seed)
        found.append((fit.estimate - world.truth(estimand), fit.standard_error))
    errors, standard_errors = np.array(found).T
    return errors, standard_errors


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_95_percent_interval_covers_at_the_nominal_rate_over_40_seeds() -> None:
    """World `curved` (squares and products confound), n = 1,000, one partition: the hardest of the smooth worlds.

    95 % coverage gives 34 of 40 or more with 99.8 % probability. What the propensity learns from the outcome at jumps costs about a fifth
    of a standard error of bias here (80 other seeds, three partitions); the bound leaves the mean of 40 room for chance.
    """
    errors, standard_errors = errors_and_standard_errors(WORLDS["curved"], rows=1_000, estimand="ATE", seeds=SEEDS)
    covered = np.abs(errors) < 1.96 * standard_errors
    assert covered.mean() >= 0.85
    assert abs(errors.mean()) < 0.6 * standard_errors.mean()
    assert 0.8 < standard_errors.mean() / errors.std() < 1.25


@pytest.mark.parametrize(("name", "estimand"), [("linear", "ATT"), ("count", "ATE"), ("binary", "ATT"), ("heterogeneous", "ATE")])
def test_planted_effects_are_recovered_where_the_raw_difference_is_far_off(name: str, estimand: str) -> None:
    world = WORLDS[name]
    errors, standard_errors = errors_and_standard_errors(world, rows=1_000, estimand=estimand, seeds=8)
    frame = world.draw(20_000, seed=1)
    means = frame.group_by("treatment").agg(pl.col("outcome").mean()).sort("treatment")["outcome"]
    naive_error = means[1] - means[0] - world.truth(estimand)
    assert (np.abs(errors) < 3.3 * standard_errors).all()
    assert abs(errors.mean()) < 0.25 * abs(naive_error)


def analysed(world: str, *, rows: int, seed: int, negative_control: bool = True) -> CausalFinding:
    return analyse(WORLDS[world].draw(rows, seed=seed), effect=WORLDS[world].effect(negative_control=negative_control), seed=seed)


def test_a_sound_world_may_be_told() -> None:
    finding = analysed("linear", rows=1_500, seed=3)
    assert finding.verdict.name == "proceed", finding.verdict
    assert finding.effect is not None
    low, high = finding.effect.interval(0.99)
    assert low < WORLDS["linear"].truth("ATE") < high


def test_a_hidden_confounder_is_blocked_by_the_negative_control_and_what_follows_from_it() -> None:
    finding = analysed("hidden_confounder", rows=1_500, seed=1)
    assert finding.effect is not None
    assert finding.effect.interval()[0] > 0.0, "the true effect is zero, so this world must fool the estimator"
    assert finding.verdict.name == "block"
    failed = [refutation.test for refutation in finding.refutations if not refutation.passed]
    assert failed == ["negative_control:negative_control", "bias_bound"]


def test_without_a_negative_control_nothing_is_waved_through() -> None:
    finding = analysed("linear", rows=800, seed=1, negative_control=False)
    assert finding.verdict.name == "review"
    assert "hidden confounding is untested" in finding.verdict.reasons[0]


def test_a_world_without_overlap_is_refused() -> None:
    finding = analysed("no_overlap", rows=1_000, seed=1)
    assert finding.effect is None
    assert finding.refusal is not None
    assert finding.refusal.startswith("perfect_separation: ")


def test_the_finding_is_the_same_for_the_same_seed() -> None:
    frame, effect = WORLDS["binary"].draw(400, seed=2), WORLDS["binary"].effect()
    assert analyse(frame, effect=effect, seed=5) == analyse(frame, effect=effect, seed=5)


def nhefs() -> pl.DataFrame:
    import causaldata

    table = pd.read_stata(Path(causaldata.__file__).parent / "nhefs" / "nhefs.dta")
    return pl.from_pandas(table)


def test_quitting_smoking_adds_the_published_weight() -> None:
    """NHEFS, Hernan and Robins: 3.44 kg by weighting, 3.52 by standardisation, against a naive 2.54. Measured here: 3.4 (2.4 to 4.3)."""
    effect = EffectSpec(
        treatment="qsmk",
        outcome="wt82_71",
        confounders=("sex", "race", "age", "education", "smokeintensity", "smokeyrs", "exercise", "active", "wt71"),
        estimand="ATE",
    )
    frame = nhefs()
    identification = identify(effect, frame, unit="seqn")
    found = estimate(frame, effect=effect, identification=identification, seed=42)
    assert isinstance(found, Estimation)
    assert found.effect.diagnostics["rows_used"] == 1566
    assert found.effect.naive_difference == pytest.approx(PUBLISHED_NAIVE, abs=0.005)
    assert 3.2 < found.effect.estimate < 3.8
    low, high = found.effect.interval()
    assert low < PUBLISHED_WEIGHTING < high
    assert low < PUBLISHED_STANDARDISATION < high
    assert high - low < 2.2
    assert max(abs(row.smd_after) for row in found.balance) < 0.1
    failed = [r.test for r in refute(frame, found, identification=identification, seed=42) if not r.passed]
    assert failed == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_in_the_pharma_world_the_95_percent_interval_covers_the_truth_over_40_seeds() -> None:
    """The bundled study's own question on worlds of about 1,140 HCPs, another world for every seed.

    The truth is the average over the very units of the table, so coverage may lie above 95 %; 34 of 40 is what 95 % coverage
    reaches with 99.8 % probability.
    """
    study = load_study(STUDY)
    assert study.effect is not None
    covered, errors, naive = [], [], []
    for seed in range(SEEDS):
        drawn = study_world(seed=seed, size=1_500)
        frame = drawn.tables["hcp_speaker_study"]
        truth = drawn.truth.effect(table="hcp_speaker_study", outcome="nrx").att
        sample = prepare(frame, identify(study.effect, frame, unit=study.unit))
        fit = DoublyRobust(estimand="ATT")(sample.outcome, sample.treatment, sample.covariates.matrix, groups=sample.groups, seed=seed)
        errors.append(fit.estimate - truth)
        covered.append(abs(errors[-1]) < 1.96 * fit.standard_error)
        naive.append(sample.outcome[sample.treatment == 1].mean() - sample.outcome[sample.treatment == 0].mean() - truth)
    print(f"covered {np.mean(covered):.2f}, bias {np.mean(errors):.3f}, naive bias {np.mean(naive):.2f}")  # noqa: T201 - what was measured, with -s
    assert np.mean(covered) >= 0.85
    assert abs(np.mean(errors)) < 0.05 * abs(np.mean(naive))
