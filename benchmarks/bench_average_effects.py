"""Average effect by E2I beside EconML and DoubleML: seconds, peak memory, bias and coverage, each peer in a process of its own.

The world has 20 confounders and strong confounding (raw difference about 2.7, true effect 1). EconML's LinearDML and DoubleML's IRM,
five folds each, run twice: with LightGBM as it comes for each nuisance, and (`_same`) with the nuisances that ours has, the very same
learners behind scikit-learn's protocol. There a stack needs folds of its own in each of the peer's folds; ours reads its weights off the
cross-fitted predictions. One thread each. LinearDML holds the effect constant: where it varies, its interval is about another average.

python benchmarks/bench_average_effects.py                          10,000 rows, 3 seeds
python benchmarks/bench_average_effects.py --only e2i econml_same doubleml_same
python benchmarks/bench_average_effects.py --rows 10000 100000 --seeds 5
python benchmarks/bench_average_effects.py --rows 1000000 --seeds 1 --only e2i
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

COVARIATES = 20
TRUTH = 1.0
Answer = tuple[float, float, float]


def world(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, COVARIATES))
    score = 0.9 * x[:, 0] + 0.7 * x[:, 1] - 0.5 * x[:, 2] + 0.5 * x[:, 0] * x[:, 1] + 0.3 * x[:, 3]
    t = (rng.random(rows) < 1.0 / (1.0 + np.exp(-score))).astype(float)
    base = 1.5 * x[:, 0] + x[:, 1] + 0.8 * x[:, 0] * x[:, 1] + 0.5 * (x[:, 2] ** 2 - 1) + np.sin(x[:, 3])
    return x, t, TRUTH * t + 0.4 * t * x[:, 4] + base + rng.normal(size=rows)


def lightgbm_models(seed: int) -> tuple[object, object]:
    from lightgbm import LGBMClassifier, LGBMRegressor

    settings = {"n_jobs": 1, "verbosity": -1, "random_state": seed}
    return LGBMRegressor(**settings), LGBMClassifier(**settings)


def e2i(x: np.ndarray, t: np.ndarray, y: np.ndarray, seed: int) -> Answer:
    from e2i.causal.design import Identification, Sample
    from e2i.causal.encoding import Covariates
    from e2i.causal.estimators.aipw import AIPW

    names = tuple(f"x{j}" for j in range(x.shape[1]))
    data = Sample(
        outcome=y,
        treatment=t,
        covariates=Covariates(matrix=x, names=names, sources=names, is_level=(False,) * len(names), notes=()),
        negative_controls={},
        groups=np.arange(len(y)),
        rows_given=len(y),
        missing_treatment=0,
        missing_outcome=0,
    )
    spec = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y")
    found = AIPW().fit(data, spec, seed=seed)
    return found.estimate, *found.interval


def stacked_models(seed: int) -> tuple[object, object]:
    """E2I's library of learners, stacked, as a scikit-learn regressor and classifier."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Stacked(BaseEstimator):
        def __init__(self, seed: int = 0) -> None:
            self.seed = seed

        def fit(self, x: np.ndarray, y: np.ndarray) -> Stacked:
            from e2i.causal.estimators.features import make_features
            from e2i.causal.estimators.nuisances import kind_of, library, make_folds, out_of_fold, screen, stack, used

            y, everybody = np.asarray(y, dtype=float).ravel(), np.arange(len(x))
            views = make_features(np.asarray(x))
            strata = y.astype(np.int64) if kind_of(y) == "binary" else np.zeros(len(y), dtype=np.int64)
            folds = make_folds(everybody, strata, seed=self.seed)
            candidates = screen(views, y, folds=folds, candidates=library(kind_of(y), seed=self.seed))
            weights = stack(out_of_fold(views, y, folds=folds, candidates=candidates)[0], y, candidates=candidates)
            kept, columns = used(candidates, weights)
            self.recipe_, self.weights_ = views.recipe, weights.weights[columns]
            self.predictors_ = [candidate.fit(replace(views, memo={}), everybody, y) for candidate in kept]
            self.classes_ = np.unique(y)
            return self

        def mean(self, x: np.ndarray) -> np.ndarray:
            from e2i.causal.estimators.features import Features

            views = Features(covariates=np.asarray(x), recipe=self.recipe_)
            return np.column_stack([predict(views, np.arange(len(x))) for predict in self.predictors_]) @ self.weights_

    class StackedRegressor(RegressorMixin, Stacked):
        def predict(self, x: np.ndarray) -> np.ndarray:
            return self.mean(x)

    class StackedClassifier(ClassifierMixin, Stacked):
        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            chance = np.clip(self.mean(x), 1e-6, 1.0 - 1e-6)
            return np.column_stack([1.0 - chance, chance])

        def predict(self, x: np.ndarray) -> np.ndarray:
            return self.classes_[(self.mean(x) > 0.5).astype(int)]

    return StackedRegressor(seed=seed), StackedClassifier(seed=seed)


Models = Callable[[int], tuple[object, object]]


def econml(x: np.ndarray, t: np.ndarray, y: np.ndarray, seed: int, models: Models = lightgbm_models) -> Answer:
    from econml.dml import LinearDML

    outcome, treatment = models(seed)
    model = LinearDML(model_y=outcome, model_t=treatment, discrete_treatment=True, cv=5, random_state=seed)
    model.fit(y, t, X=None, W=x)
    low, high = model.ate_interval(alpha=0.05)
    return float(model.ate()), float(low), float(high)


def doubleml(x: np.ndarray, t: np.ndarray, y: np.ndarray, seed: int, models: Models = lightgbm_models) -> Answer:
    import doubleml as dml

    outcome, treatment = models(seed)
    np.random.seed(seed)  # noqa: NPY002 - DoubleML draws its folds from the global generator
    model = dml.DoubleMLIRM(dml.DoubleMLData.from_arrays(x, y, t), outcome, treatment, n_folds=5)
    model.fit()
    low, high = model.confint().to_numpy()[0]
    return float(model.coef[0]), float(low), float(high)


PEERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], Answer]] = {
    "e2i": e2i,
    "econml": econml,
    "doubleml": doubleml,
    "econml_same": partial(econml, models=stacked_models),
    "doubleml_same": partial(doubleml, models=stacked_models),
}


def one(name: str, rows: int, seeds: int) -> None:
    """Run one peer and print a line of JSON; imports are warmed up on a small draw and not counted."""
    warnings.filterwarnings("ignore")
    PEERS[name](*world(1_000, 0), 0)
    answers, wall, cpu = [], [], []
    for seed in range(seeds):
        drawn = world(rows, seed)
        started, worked = time.perf_counter(), time.process_time()
        answers.append(PEERS[name](*drawn, seed))
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - worked)
    errors = np.array([answer[0] - TRUTH for answer in answers])
    print(
        json.dumps(
            {
                "wall_s": float(np.median(wall)),
                "cpu_s": float(np.median(cpu)),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
                "bias": float(errors.mean()),
                "rmse": float(np.sqrt((errors**2).mean())),
                "width": float(np.mean([answer[2] - answer[1] for answer in answers])),
                "covers": float(np.mean([answer[1] < TRUTH < answer[2] for answer in answers])),
            }
        )
    )


def measured(name: str, rows: int, seeds: int) -> dict[str, float]:
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, __file__, "--run", name, "--rows", str(rows), "--seeds", str(seeds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | single)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--run", choices=PEERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        one(asked.run, asked.rows[0], asked.seeds)
        return
    print(f"{'rows':>9} {'peer':14}{'CPU s':>8}{'ours / it':>11}{'wall s':>8}{'peak MB':>9}{'bias':>9}{'RMSE':>8}{'width':>8}{'covers':>8}")
    for rows in asked.rows:
        ours: float | None = None
        for name in asked.only:
            found = measured(name, rows, asked.seeds)
            ours = found["cpu_s"] if name == "e2i" else ours
            ratio = f"{ours / found['cpu_s']:11.2f}" if ours is not None else f"{'':11}"
            print(
                f"{rows:9,} {name:14}{found['cpu_s']:8.1f}{ratio}{found['wall_s']:8.1f}{found['peak_mb']:9.0f}{found['bias']:+9.4f}"
                f"{found['rmse']:8.4f}{found['width']:8.4f}{found['covers']:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
