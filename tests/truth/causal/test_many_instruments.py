"""Many instruments, as when cases fall to judges by lot: valid ones must not seem to disagree."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.analysis import analyse
from e2i.causal.iv.residuals import Residuals, project_out
from e2i.causal.iv.weak import anderson_rubin_p
from e2i.domain.study import EffectSpec

DRAWS = 40


def judges(rng: np.random.Generator, *, count: int, cases: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The effect is 1; the trait that judge and outcome go by is not recorded."""
    n = count * cases
    judge, trait, x = rng.integers(0, count, n), rng.normal(size=n), rng.normal(size=n)
    treated = (0.5 * rng.normal(size=count)[judge] + trait + 0.5 * x + rng.normal(size=n) > 0).astype(float)
    return judge, {"treated": treated, "outcome": treated + 1.5 * trait + 0.5 * x + rng.normal(size=n), "x": x}


def rejects(left: Residuals) -> bool:
    """Anderson and Rubin's test of the true effect, 1."""
    return anderson_rubin_p(*left.reduced_form, effect=1.0 / left.unit, degrees=left.joint_degrees) < 0.05


def test_a_hundred_judges_with_eight_cases_each_reject_the_true_effect_no_more_often_than_they_may() -> None:
    """Five in a hundred is the rule; the robust variance rejected in nine of ten."""
    found = 0
    for seed in range(DRAWS):
        judge, rows = judges(np.random.default_rng(seed), count=100, cases=8)
        dummies = (judge[:, None] == np.arange(1, 100)).astype(float)
        found += rejects(project_out(rows["outcome"], rows["treated"], dummies, covariates=rows["x"][:, None]))
    assert found <= 6


def test_ten_instruments_in_thirty_clusters_reject_the_true_effect_no_more_often_than_they_may() -> None:
    """With residuals of the fit itself (CR1) it was more than one in three."""
    found = 0
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(30), 20)
        instruments, trait = rng.normal(size=(30, 10))[cluster], rng.normal(size=600)
        dose = instruments @ np.full(10, 0.1) + trait + rng.normal(size=600)
        outcome = dose + 1.5 * trait + rng.normal(size=30)[cluster] + rng.normal(size=600)
        found += rejects(project_out(outcome, dose, instruments, covariates=np.empty((600, 0)), clusters=cluster))
    assert found <= 7


def test_forty_judges_are_answered_without_an_outcome_model_for_each_of_them() -> None:
    judge, rows = judges(np.random.default_rng(3), count=40, cases=25)
    frame = pl.DataFrame({**rows, "judge": [f"judge {number}" for number in judge]})
    effect = EffectSpec(treatment="treated", outcome="outcome", instruments=("judge",), confounders=("x",), randomised=True)
    finding = analyse(frame, effect=effect, seed=1)
    assert finding.effect is not None
    low, high = finding.effect.bounds or finding.effect.interval()
    assert low <= 1.0 <= high
    assert finding.verdict.name == "review"
    assert all("DML-IV" not in each.estimator for each in finding.alternatives)
    assert any("30 instruments" in hazard.text for hazard in finding.hazards)
    assert any("equally spread" in hazard.text for hazard in finding.hazards)
