"""Leaving confounders out, and bounds for hidden ones, against regressions run anew and a published table."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from e2i.causal.design import Identification, prepare
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.causal.refute.ground import Ground
from e2i.causal.refute.left_out import confounder_benchmarks, leave_one_out
from e2i.causal.sensitivity import Benchmark, benchmark_bound, robustness_value
from e2i.causal.worlds import WORLDS

# Cinelli, Ferwerda and Hazlett (2020), "sensemakr", Darfur: effect of direct harm on attitudes towards peace, benchmark `female`.
DARFUR = {"estimate": 0.09732, "error": 0.02326, "freedom": 783}
PUBLISHED = {1.0: (0.0092, 0.1246, 0.0752), 2.0: (0.0183, 0.2493, 0.0529), 3.0: (0.0275, 0.3741, 0.0304)}


def ground() -> Ground:
    world = WORLDS["linear"]
    frame = world.draw(2_000, seed=2)
    adjustment = world.effect().confounders
    sample = prepare(
        frame, Identification(design="cross_section", estimand="ATE", treatment="treatment", outcome="outcome", adjustment=adjustment)
    )
    n = len(sample.outcome)
    fit = Fit(
        estimand="ATE",
        estimate=1.0,
        standard_error=0.05,
        estimates=np.array([1.0]),
        influence=np.zeros((1, n)),
        untreated_mean=np.zeros((1, n)),
        treated_mean=np.zeros((1, n)),
        learners={},
    )
    return Ground(
        sample=sample, fit=fit, propensity=Propensity(raw=np.full((1, n), 0.5), folds=np.zeros((1, n), dtype=np.int64), learners={})
    )


@pytest.mark.parametrize("source", ["x0", "x6", "group"])
def test_leaving_a_source_out_moves_the_estimate_as_a_regression_run_anew(source: str) -> None:
    trial = ground()
    matrix, sources = trial.sample.covariates.matrix, np.array(trial.sample.covariates.sources)
    both = sm.OLS(trial.sample.outcome, np.column_stack([trial.sample.treatment, np.ones(len(matrix)), matrix])).fit()
    fewer = sm.OLS(
        trial.sample.outcome, np.column_stack([trial.sample.treatment, np.ones(len(matrix)), matrix[:, sources != source]])
    ).fit()
    left = next(one for one in leave_one_out(trial) if one.source == source)
    assert left.estimate - 1.0 == pytest.approx(fewer.params[0] - both.params[0], abs=1e-7)
    assert left.of_outcome == pytest.approx(1 - both.ssr / fewer.ssr, abs=1e-7)


def test_the_largest_move_is_told_first_and_judges_nothing() -> None:
    trial = ground()
    left = leave_one_out(trial)
    moves = [abs(one.estimate - 1.0) for one in left]
    assert moves == sorted(moves, reverse=True)
    told = confounder_benchmarks(trial, left)
    assert told.is_reported_only
    assert told.detail.startswith(f"Reported, not judged: without `{left[0].source}`")


@pytest.mark.parametrize("times", PUBLISHED)
def test_the_bound_is_the_published_one(times: float) -> None:
    share = 0.009164 / 1.009164  # of treatment, from the published bound at 1
    outcome = 0.10903
    found = benchmark_bound(
        DARFUR["estimate"], DARFUR["error"], freedom=int(DARFUR["freedom"]), benchmark=Benchmark(share, outcome), times=times
    )
    assert found is not None
    of_treatment, of_outcome, adjusted = PUBLISHED[times]
    assert found.of_treatment == pytest.approx(of_treatment, abs=6e-5)
    assert found.of_outcome == pytest.approx(of_outcome, abs=8e-4)
    assert found.estimate == pytest.approx(adjusted, abs=2e-4)


def test_the_robustness_value_is_the_published_one() -> None:
    assert robustness_value(DARFUR["estimate"] / DARFUR["error"] / np.sqrt(DARFUR["freedom"])) == pytest.approx(0.139, abs=5e-4)


def test_a_confounder_that_would_explain_all_of_treatment_has_no_bound() -> None:
    assert benchmark_bound(1.0, 0.1, freedom=100, benchmark=Benchmark(0.6, 0.1), times=2.0) is None
    assert benchmark_bound(1.0, 0.1, freedom=100, benchmark=Benchmark(1.0, 0.1), times=1.0) is None
