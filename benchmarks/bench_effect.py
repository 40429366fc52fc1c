"""The effect estimator beside a usual one: AIPW with fixed LightGBM nuisances, on the same draws in the same process.

python benchmarks/bench_effect.py                     seconds, bias and coverage as ratios
python benchmarks/bench_effect.py --coverage 100 1000 coverage of 95 % intervals by world, seeds and rows
python benchmarks/bench_effect.py --gate 30 1000      how often the gate lets sound and biased worlds pass
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np

from e2i.causal.analysis import analyse
from e2i.causal.design import Sample, prepare
from e2i.causal.estimators.doubly_robust import DoublyRobust, repetitions_for
from e2i.causal.router import identify
from e2i.causal.worlds import WORLDS, World

SEEDS, ROWS = 6, 5_000
WORLDS_COMPARED = ("curved", "heterogeneous", "count")
SOUND = ("linear", "curved", "heterogeneous", "binary", "count", "rare_treatment", "no_effect")
COVERED = ("linear", "curved", "heterogeneous", "stepped", "binary", "count", "rare_treatment")


def ours(sample: Sample, seed: int) -> tuple[float, float]:
    fit = DoublyRobust(estimand="ATE", repetitions=repetitions_for(len(sample.outcome)))(
        sample.outcome, sample.treatment, sample.covariates.matrix, groups=sample.groups, seed=seed
    )
    return fit.estimate, fit.standard_error


def peer(sample: Sample, seed: int) -> tuple[float, float]:
    """Five folds, one partition, LightGBM as it comes for all three nuisances."""
    from lightgbm import LGBMClassifier, LGBMRegressor
    from sklearn.model_selection import StratifiedKFold

    x, t, y = sample.covariates.matrix, sample.treatment, sample.outcome
    chance, untreated, treated = np.empty(len(y)), np.empty(len(y)), np.empty(len(y))
    settings = {"n_jobs": 1, "verbosity": -1, "random_state": seed}
    for train, rows in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, t):
        chance[rows] = LGBMClassifier(**settings).fit(x[train], t[train]).predict_proba(x[rows])[:, 1]
        for arm, out in ((0.0, untreated), (1.0, treated)):
            inside = train[t[train] == arm]
            out[rows] = LGBMRegressor(**settings).fit(x[inside], y[inside]).predict(x[rows])
    chance = np.clip(chance, 0.01, 0.99)
    scores = treated - untreated + t / chance * (y - treated) - (1 - t) / (1 - chance) * (y - untreated)
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(y)))


def sample_of(world: World, rows: int, seed: int, estimand: str = "ATE") -> Sample:
    frame = world.draw(rows, seed=seed)
    return prepare(frame, identify(world.effect(estimand=estimand), frame))


def measure(estimator: Callable[[Sample, int], tuple[float, float]], world: World) -> tuple[float, np.ndarray]:
    """CPU seconds per estimate; errors over standard errors in two columns."""
    rows = []
    start = time.process_time()
    for seed in range(SEEDS):
        estimate, error = estimator(sample_of(world, ROWS, seed), seed)
        rows.append((estimate - world.truth("ATE"), error))
    return (time.process_time() - start) / SEEDS, np.array(rows)


def compare() -> None:
    print(
        f"{'world':15}{'s ours':>8}{'s peer':>8}{'time x':>8}{'bias ours':>11}{'bias peer':>11}{'rmse x':>8}{'covers ours':>13}{'peer':>7}"
    )
    for name in WORLDS_COMPARED:
        (mine_s, mine), (theirs_s, theirs) = measure(ours, WORLDS[name]), measure(peer, WORLDS[name])
        rmse = np.sqrt((mine[:, 0] ** 2).mean() / (theirs[:, 0] ** 2).mean())
        cover = [(np.abs(found[:, 0]) < 1.96 * found[:, 1]).mean() for found in (mine, theirs)]
        print(
            f"{name:15}{mine_s:8.2f}{theirs_s:8.2f}{mine_s / theirs_s:8.2f}{mine[:, 0].mean():+11.4f}{theirs[:, 0].mean():+11.4f}"
            f"{rmse:8.2f}{cover[0]:13.2f}{cover[1]:7.2f}",
            flush=True,
        )


def coverage(seeds: int, rows: int) -> None:
    print(f"{'world':15}{'estimand':>9}{'truth':>8}{'bias/se':>9}{'se/sd':>7}{'covers':>8}{'s':>7}   {seeds} seeds, n = {rows}")
    for name in COVERED:
        for estimand in ("ATE", "ATT"):
            start, found = time.process_time(), []
            for seed in range(seeds):
                sample = sample_of(WORLDS[name], rows, seed, estimand)
                fit = DoublyRobust(estimand=estimand, repetitions=repetitions_for(len(sample.outcome)))(
                    sample.outcome, sample.treatment, sample.covariates.matrix, groups=sample.groups, seed=seed
                )
                found.append((fit.estimate - WORLDS[name].truth(estimand), fit.standard_error))
            error, se = np.array(found).T
            print(
                f"{name:15}{estimand:>9}{WORLDS[name].truth(estimand):8.3f}{error.mean() / se.mean():+9.2f}{se.mean() / error.std():7.2f}"
                f"{(np.abs(error) < 1.96 * se).mean():8.2f}{(time.process_time() - start) / seeds:7.2f}",
                flush=True,
            )


def gate(seeds: int, rows: int) -> None:
    print(f"{'world':20}{'control':>9}  verdicts over {seeds} seeds, n = {rows}; failed tests")
    cases = [(name, True) for name in SOUND] + [("hidden_confounder", True), ("hidden_confounder", False)]
    for name, control in cases:
        verdicts: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for seed in range(seeds):
            finding = analyse(WORLDS[name].draw(rows, seed=seed), effect=WORLDS[name].effect(negative_control=control), seed=seed)
            verdicts[finding.verdict.name] += 1
            failed.update(refutation.test for refutation in finding.refutations if not refutation.passed)
            failed["balance"] += any(abs(row.smd_after) > 0.1 for row in finding.balance)
        print(f"{name:20}{'yes' if control else 'no':>9}  {dict(verdicts)}; {dict(failed)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverage", nargs=2, type=int, metavar=("SEEDS", "ROWS"))
    parser.add_argument("--gate", nargs=2, type=int, metavar=("SEEDS", "ROWS"))
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    if asked.coverage:
        coverage(*asked.coverage)
    elif asked.gate:
        gate(*asked.gate)
    else:
        compare()


if __name__ == "__main__":
    main()
