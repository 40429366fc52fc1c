"""Seconds of every refuter over 100 simulations, after one fit, and of all of them together.

python benchmarks/bench_refuters.py            10,000 rows
python benchmarks/bench_refuters.py 50000
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from e2i.causal.design import Identification, prepare  # noqa: E402 - threads are set first
from e2i.causal.estimators.doubly_robust import DoublyRobust, doubly_robust, fit_propensity  # noqa: E402
from e2i.causal.estimators.features import make_features  # noqa: E402
from e2i.causal.refute import placebo_treatment, random_common_cause, refute_all, subset_stability  # noqa: E402
from e2i.causal.refute.controls import hidden_bias_tests  # noqa: E402
from e2i.causal.refute.ground import Ground  # noqa: E402
from e2i.causal.refute.left_out import confounder_benchmarks, leave_one_out  # noqa: E402
from e2i.causal.refute.simulations import (  # noqa: E402
    bootstrap,
    dummy_outcomes,
    placebo_treatments,
    random_common_causes,
    subsets,
)
from e2i.causal.specification import specification_curve  # noqa: E402
from e2i.causal.worlds import WORLDS  # noqa: E402

ROUNDS = 5


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Best of some rounds."""
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)


def main(rows: int) -> None:
    world = WORLDS["linear"]
    frame = world.draw(rows, seed=1)
    spec = world.effect(earlier=True, negative_exposure=True)
    asked = Identification(
        design="cross_section",
        estimand="ATE",
        treatment="treatment",
        outcome="outcome",
        adjustment=spec.confounders,
        negative_controls=spec.negative_controls,
        negative_exposures=spec.negative_exposures,
        pre_outcomes=spec.pre_outcomes,
    )
    sample = prepare(frame, asked)
    features = make_features(sample.covariates.matrix)
    start = time.perf_counter()
    propensity = fit_propensity(features, sample.treatment, sample.groups, repetitions=1, seed=1)
    fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand="ATE", seed=1)
    print(
        f"{rows:,} rows, {sample.covariates.matrix.shape[1]} columns; the fit itself (one partition): {time.perf_counter() - start:.2f} s"
    )
    ground = Ground(sample=sample, fit=fit, propensity=propensity)
    influence = ground.full.influence(sample.outcome[:, None])[:, 0]
    print(f"{'laying the ground':34}{seconds(lambda: Ground(sample=sample, fit=fit, propensity=propensity).full.coefficients):8.3f} s")
    single: dict[str, Callable[[], object]] = {
        "placebo treatment x 100": lambda: placebo_treatments(ground, seed=1),
        "random common cause x 100": lambda: random_common_causes(ground, seed=1),
        "dummy outcome x 100": lambda: dummy_outcomes(ground, seed=1),
        "halves and subsets x 100": lambda: subsets(ground, influence, seed=1),
        "bootstrap x 100": lambda: bootstrap(ground, influence, seed=1),
        "earlier outcomes and controls": lambda: hidden_bias_tests(ground, seed=1),
        "leave one out, benchmarks": lambda: confounder_benchmarks(ground, leave_one_out(ground)),
    }
    for name, work in single.items():
        print(f"{name:34}{seconds(work):8.3f} s")
    everything = seconds(lambda: refute_all(sample, fit, propensity, seed=1))
    print(f"{'all refuters, ground included':34}{everything:8.3f} s   (target at 10,000 rows: 0.3 s)")
    print(f"{'specification curve':34}{seconds(lambda: specification_curve(sample, fit, propensity)):8.3f} s")
    if "--thorough" in sys.argv:
        estimator = DoublyRobust(estimand="ATE")
        thorough: dict[str, Callable[[], object]] = {
            "thorough: placebo, 2 refits": lambda: placebo_treatment(sample, fit, propensity, estimator=estimator, seed=1),
            "thorough: random cause, refit": lambda: random_common_cause(sample, fit, estimator=estimator, seed=1),
            "thorough: halves, 2 refits": lambda: subset_stability(sample, fit, estimator=estimator, seed=1),
        }
        for name, work in thorough.items():
            print(f"{name:34}{seconds(work, 1):8.3f} s")


if __name__ == "__main__":
    main(int(next((word for word in sys.argv[1:] if word.isdigit()), "10000")))
