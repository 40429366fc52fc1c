"""Effects of single units with intervals: ours beside EconML's CausalForestDML, same draws, same process, one thread each.

python benchmarks/bench_cate.py              10,000 rows, one draw per world: CPU seconds, RMSE and coverage over units
python benchmarks/bench_cate.py 2000 5       rows and draws

Ours counts everything: propensity, outcome models and forest. The peer fits its own nuisances, with its own defaults.
Worlds: `heterogeneous` of this package, and set-ups A (confounded, smooth), C (constant effect) and D (separate surfaces) of
Nie and Wager (2021), "Quasi-oracle estimation of heterogeneous treatment effects", with six covariates.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace

import numpy as np
import polars as pl

from e2i.causal.cate.dr_learner import Scores, make_scores
from e2i.causal.cate.econml_forest import EconMLForest
from e2i.causal.cate.forest import HonestForest, UnitEffects
from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.estimators.doubly_robust import doubly_robust, fit_propensity
from e2i.causal.estimators.features import make_features
from e2i.causal.worlds import WORLDS

ROWS, DRAWS, WIDTH = 10_000, 1, 6
NAMES = ("heterogeneous", "nie_wager_a", "nie_wager_c", "nie_wager_d")


def heterogeneous(rows: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    frame = WORLDS["heterogeneous"].draw(rows, seed=seed)
    truth = 1.0 + 0.8 * frame["x0"].to_numpy() + 0.5 * (frame["group"] == "c").to_numpy()
    return frame.drop("negative_control"), truth


def nie_wager(setup: str, rows: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((rows, WIDTH)) if setup == "a" else rng.normal(size=(rows, WIDTH))
    if setup == "a":
        wave = np.sin(np.pi * x[:, 0] * x[:, 1])
        chance, truth = np.clip(wave, 0.1, 0.9), (x[:, 0] + x[:, 1]) / 2
        middle = wave + 2 * (x[:, 2] - 0.5) ** 2 + x[:, 3] + 0.5 * x[:, 4]
    elif setup == "c":
        chance, truth = 1 / (1 + np.exp(x[:, 1] + x[:, 2])), np.ones(rows)
        middle = 2 * np.log1p(np.exp(x[:, 0] + x[:, 1] + x[:, 2]))
    else:
        up, down = np.maximum(x[:, :3].sum(axis=1), 0), np.maximum(x[:, 3:5].sum(axis=1), 0)
        chance, truth, middle = 1 / (1 + np.exp(-x[:, 0]) + np.exp(-x[:, 1])), up - down, (up + down) / 2
    treatment = (rng.random(rows) < chance).astype(int)
    outcome = middle + (treatment - 0.5) * truth + rng.normal(size=rows)
    return pl.DataFrame({f"x{j}": x[:, j] for j in range(WIDTH)} | {"treatment": treatment, "outcome": outcome}), truth


def ours(sample: Sample, seed: int) -> UnitEffects:
    features = make_features(sample.covariates.matrix)
    propensity = fit_propensity(features, sample.treatment, sample.groups, repetitions=1, seed=seed)
    fit = doubly_robust(features, sample.outcome, sample.treatment, propensity=propensity, estimand="ATE", seed=seed)
    scores = make_scores(sample, fit, propensity, seed=seed)
    return HonestForest().fit(sample.covariates.matrix, scores, seed=seed).out_of_bag(sample.covariates.matrix)


def peer(sample: Sample, seed: int) -> UnitEffects:
    """All covariates are modifiers, so controls would repeat them."""
    matrix, nothing = sample.covariates.matrix, np.zeros(len(sample.outcome))
    alone = replace(sample, covariates=replace(sample.covariates, matrix=np.empty((len(matrix), 0))))
    scores = Scores(estimand="ATE", effect=nothing, treated_effect=nothing, treatment=sample.treatment, weights=nothing + 1.0)
    return EconMLForest(sample=alone).fit(matrix, scores, seed=seed).predict(matrix)


def measure(name: str, rows: int, draws: int) -> dict[str, np.ndarray]:
    """CPU seconds, RMSE and coverage by estimator."""
    found: dict[str, list[tuple[float, ...]]] = {"ours": [], "econml": []}
    for seed in range(draws):
        frame, truth = heterogeneous(rows, seed) if name == "heterogeneous" else nie_wager(name[-1], rows, seed)
        columns = tuple(column for column in frame.columns if column not in ("treatment", "outcome"))
        asked = Identification(design="cross_section", estimand="ATE", treatment="treatment", outcome="outcome", adjustment=columns)
        sample = prepare(frame, asked)
        for label, estimator in (("ours", ours), ("econml", peer)):
            start = time.process_time()
            units = estimator(sample, seed)
            spent = time.process_time() - start
            covered = ((units.low < truth) & (truth < units.high)).mean()
            found[label].append((spent, float(np.sqrt(((units.estimate - truth) ** 2).mean())), float(covered)))
    return {label: np.mean(rows_, axis=0) for label, rows_ in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("rows", nargs="?", type=int, default=ROWS)
    parser.add_argument("draws", nargs="?", type=int, default=DRAWS)
    parser.add_argument("--worlds", nargs="*", default=NAMES)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    import econml.dml  # noqa: F401 - its import is not what is measured

    heads = f"{'world':16}{'s ours':>8}{'s econml':>10}{'faster x':>10}{'rmse ours':>11}{'econml':>8}{'rmse x':>8}"
    print(f"{heads}{'covers ours':>13}{'econml':>8}")
    for name in given.worlds:
        found = measure(name, given.rows, given.draws)
        (s1, r1, c1), (s2, r2, c2) = found["ours"], found["econml"]
        print(f"{name:16}{s1:8.1f}{s2:10.1f}{s2 / s1:10.1f}{r1:11.3f}{r2:8.3f}{r1 / r2:8.2f}{c1:13.3f}{c2:8.3f}", flush=True)


if __name__ == "__main__":
    main()
