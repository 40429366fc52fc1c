"""Estimators of one row per unit: closed forms, independent libraries, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from e2i.causal.design import Identification, Sample
from e2i.causal.designs.controls import of_rows
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.aipw import AIPW, fit_many
from e2i.causal.estimators.cross_fit import cross_fit
from e2i.causal.estimators.doubly_robust import DoublyRobust, augmented_mean
from e2i.causal.estimators.least_squares import independent_columns
from e2i.causal.estimators.linear_models import logistic, poisson, ridge, sigmoid
from e2i.causal.estimators.multi_level import MultiLevel, simultaneous
from e2i.causal.estimators.nuisances import library, stack
from e2i.causal.estimators.overlap_weighted import OverlapWeighted
from e2i.causal.estimators.partially_linear import PartiallyLinear
from e2i.causal.estimators.ratio import PoissonRegression, RateRatio
from e2i.causal.estimators.unadjusted import DifferenceInMeans, RegressionAdjusted
from e2i.errors import E2IError, NotIdentified, NoVariation, PositivityViolated, TooFewRows

SPEC = Identification(design="cross_section", estimand="ATE", treatment="t", outcome="y")
ATT = replace(SPEC, estimand="ATT")
N = 400


def sample(outcome: np.ndarray, treatment: np.ndarray, matrix: np.ndarray, **others: object) -> Sample:
    width = matrix.shape[1]
    names = tuple(f"x{j}" for j in range(width))
    return Sample(
        outcome=np.asarray(outcome, dtype=float),
        treatment=np.asarray(treatment, dtype=float),
        covariates=Covariates(matrix=matrix, names=names, sources=names, is_level=(False,) * width, notes=()),
        negative_controls={},
        groups=np.arange(len(outcome)),
        rows_given=len(outcome),
        missing_treatment=0,
        missing_outcome=0,
        **others,  # type: ignore[arg-type]
    )


def world(seed: int = 0, *, n: int = N, effect: float = 1.0) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    t = (rng.random(n) < sigmoid(0.6 * x[:, 0] - 0.4 * x[:, 1])).astype(float)
    return sample(effect * t + x[:, 0] + 0.5 * x[:, 1] + rng.normal(size=n), t, x)


def counts(seed: int = 0, *, n: int = N) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    t = (rng.random(n) < sigmoid(0.5 * x[:, 0])).astype(float)
    return sample(rng.poisson(np.exp(-0.3 + 0.4 * t + 0.3 * x[:, 0])).astype(float), t, x)


@pytest.mark.parametrize("spec", [SPEC, ATT])
def test_the_adapter_gives_the_number_that_the_estimator_behind_it_gives(spec: Identification) -> None:
    data = world()
    behind = DoublyRobust(estimand=spec.average, repetitions=3)(
        data.outcome, data.treatment, data.covariates.matrix, groups=data.groups, seed=5
    )
    found = AIPW(repetitions=3).fit(data, spec, seed=5)
    assert found.estimate == pytest.approx(behind.estimate, rel=1e-12)
    assert found.standard_error == pytest.approx(behind.standard_error, rel=1e-3)
    assert found.estimand == spec.estimand


@pytest.mark.parametrize(
    "estimator",
    [AIPW(), OverlapWeighted(), PartiallyLinear(), RateRatio(), PoissonRegression(), PoissonRegression(effect="difference")],
    ids=lambda e: type(e).__name__ + getattr(e, "effect", ""),
)
def test_influence_values_carry_the_standard_error(estimator: AIPW) -> None:
    found = estimator.fit(counts(), SPEC, seed=1)
    assert found.influence is not None
    assert found.influence.shape == (N,)
    assert found.influence.mean() == pytest.approx(0.0, abs=1e-8)
    assert np.sqrt(np.mean(found.influence**2) / N) == pytest.approx(found.standard_error, rel=0.01)
    assert found.interval[0] < found.estimate < found.interval[1]


def test_several_estimators_share_nuisances_that_are_fitted_once() -> None:
    data = counts()
    together = fit_many(data, SPEC, estimators=(AIPW(), OverlapWeighted(), RateRatio()), seed=3)
    assert [each.estimate for each in together] == [
        estimator.fit(data, SPEC, seed=3).estimate for estimator in (AIPW(), OverlapWeighted(), RateRatio())
    ]


def test_the_welch_interval_is_the_textbooks() -> None:
    data = world()
    found = DifferenceInMeans().fit(data, SPEC, seed=0)
    up, down = data.outcome[data.treatment == 1], data.outcome[data.treatment == 0]
    textbook = stats.ttest_ind(up, down, equal_var=False)
    interval = textbook.confidence_interval()
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.p_value == pytest.approx(textbook.pvalue, rel=1e-9)


@pytest.mark.parametrize("has_weights", [False, True])
@pytest.mark.parametrize("estimator", [DifferenceInMeans(), RegressionAdjusted()], ids=lambda e: type(e).__name__)
def test_the_clustered_error_is_that_of_estimates_without_each_cluster(estimator: AIPW, *, has_weights: bool) -> None:
    """The jackknife by its definition; pairs and blocks across arms have as many degrees of freedom as clusters, less one."""
    weights = np.where(np.arange(N) % 3 == 0, 2.0, 0.5) if has_weights else None
    data = replace(world(), cluster=np.arange(N) // 25, weights=weights)
    count = int(data.cluster.max()) + 1
    found = estimator.fit(data, SPEC, seed=0)
    others = [estimator.fit(of_rows(data, data.cluster != number), SPEC, seed=0).estimate for number in range(count)]
    expected = float(np.sqrt((count - 1) / count * np.sum((np.array(others) - found.estimate) ** 2)))
    assert found.standard_error == pytest.approx(expected, rel=1e-8)
    assert found.interval[1] - found.estimate == pytest.approx(found.standard_error * stats.t.ppf(0.975, count - 1), rel=0.02)


def test_regression_adjustment_is_the_interacted_regression_with_hc2() -> None:
    data = world()
    centred = data.covariates.matrix - data.covariates.matrix.mean(axis=0)
    t = data.treatment
    model = sm.OLS(data.outcome, np.column_stack([np.ones(N), t, centred, t[:, None] * centred])).fit(cov_type="HC2")
    gain = centred @ model.params[6:]
    found = RegressionAdjusted().fit(data, SPEC, seed=0)
    assert found.estimate == pytest.approx(model.params[1], rel=1e-9)
    assert found.standard_error == pytest.approx(np.sqrt(model.bse[1] ** 2 + gain.var() / N), rel=0.02)
    assert found.standard_error < DifferenceInMeans().fit(data, SPEC, seed=0).standard_error


def test_regression_adjustment_of_few_rows_by_many_columns_is_refused() -> None:
    data = world(n=40)
    wide = replace(data, covariates=sample(data.outcome, data.treatment, np.random.default_rng(1).normal(size=(40, 12))).covariates)
    with pytest.raises(TooFewRows, match="Name fewer covariates"):
        RegressionAdjusted().fit(wide, SPEC, seed=0)


def test_collinear_columns_are_left_out_and_the_first_is_kept() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert independent_columns(np.column_stack([x, x @ [1.0, 2.0], np.zeros(50), x[:, 0] + 1e-3 * x[:, 1] ** 2])).tolist() == [0, 1, 4]


@pytest.mark.parametrize("clustered", [False, True])
def test_poisson_regression_is_statsmodels(clustered: bool) -> None:
    data = counts()
    design = np.column_stack([np.ones(N), data.treatment, data.covariates.matrix])
    groups = np.arange(N) // 5
    options = {"cov_type": "cluster", "cov_kwds": {"groups": groups}} if clustered else {"cov_type": "HC0"}
    model = sm.GLM(data.outcome, design, family=sm.families.Poisson()).fit(**options)
    found = PoissonRegression().fit(replace(data, cluster=groups if clustered else None), SPEC, seed=0)
    assert found.scale == "log"
    assert found.estimate == pytest.approx(model.params[1], abs=1e-8)
    assert found.standard_error == pytest.approx(model.bse[1], rel=0.01)


def test_the_marginal_rate_difference_is_statsmodels_margin() -> None:
    data = counts()
    design = np.column_stack([np.ones(N), data.treatment, data.covariates.matrix])
    model = sm.GLM(data.outcome, design, family=sm.families.Poisson()).fit(cov_type="HC0")
    up, down = design.copy(), design.copy()
    up[:, 1], down[:, 1] = 1.0, 0.0
    found = PoissonRegression(effect="difference").fit(data, SPEC, seed=0)
    assert found.estimate == pytest.approx((model.predict(up) - model.predict(down)).mean(), abs=1e-8)
    slope = (up * model.predict(up)[:, None] - down * model.predict(down)[:, None]).mean(axis=0)
    gain = model.predict(up) - model.predict(down)
    assert found.standard_error == pytest.approx(np.sqrt(slope @ model.cov_params() @ slope + gain.var() / N), rel=0.15)


def test_poisson_regression_tells_which_rows_are_silent() -> None:
    data = counts()
    quiet = (np.arange(N) % 8 == 0).astype(float)
    matrix = np.column_stack([data.covariates.matrix, quiet])
    given = sample(np.where(quiet == 1, 0.0, data.outcome), data.treatment, matrix)
    found = PoissonRegression().fit(given, SPEC, seed=0)
    assert "x3 = 1" in found.notes[0]
    loud = quiet == 0
    alone = PoissonRegression().fit(sample(data.outcome[loud], data.treatment[loud], data.covariates.matrix[loud]), SPEC, seed=0)
    assert found.estimate == pytest.approx(alone.estimate, abs=1e-7)


def test_a_ratio_and_its_logarithm_say_the_same() -> None:
    log, ratio = (PoissonRegression(effect=name).fit(counts(), SPEC, seed=0) for name in ("log", "ratio"))  # type: ignore[arg-type]
    assert ratio.scale == "ratio"
    assert ratio.estimate == pytest.approx(np.exp(log.estimate))
    assert ratio.interval == pytest.approx(tuple(np.exp(log.interval)))
    assert ratio.p_value == log.p_value


def test_weights_of_two_are_two_rows() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(100, 3)), rng.random(100)
    label = (y > 0.4).astype(float)
    signal = np.sin(x[:, 0]) + 2 * x[:, 1]
    weights = np.repeat([2.0, 1.0], 50)
    twice = np.concatenate([np.arange(50), np.arange(100)])
    pairs = [
        (logistic(x, label, penalty=1.0, weights=weights), logistic(x[twice], label[twice], penalty=1.0)),
        (poisson(x, y, penalty=0.0, weights=weights), poisson(x[twice], y[twice], penalty=0.0)),
        (ridge(x, signal, weights=weights), ridge(x[twice], signal[twice])),
    ]
    for weighted, repeated in pairs:
        assert weighted.predict(x) == pytest.approx(repeated.predict(x), abs=1e-2)
    candidates = library("continuous", seed=0)
    predictions = y[:, None] + rng.normal(size=(100, sum(candidate.columns for candidate in candidates)))
    found = stack(predictions, y, candidates=candidates, row_weights=weights).weights
    assert found == pytest.approx(stack(predictions[twice], y[twice], candidates=candidates).weights, abs=1e-2)


@pytest.mark.parametrize("estimator", [AIPW(), RegressionAdjusted(), DifferenceInMeans()], ids=lambda e: type(e).__name__)
def test_sampling_weights_bring_back_the_population(estimator: AIPW) -> None:
    """The effect is 1 + x; units with x > 0 were drawn five times as often: unweighted the mean effect is far above 1."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(9000, 2))
    x = x[rng.random(9000) < np.where(x[:, 0] > 0, 1.0, 0.2)]
    t = (rng.random(len(x)) < 0.5).astype(float)
    raw = np.where(x[:, 0] > 0, 1.0, 5.0)
    data = sample(t * (1 + x[:, 0]) + 0.3 * rng.normal(size=len(x)), t, x, weights=raw / raw.mean())
    weighted, plain = (estimator.fit(given, SPEC, seed=0) for given in (data, replace(data, weights=None)))
    assert abs(weighted.estimate - 1.0) < 3.5 * weighted.standard_error
    assert plain.estimate - 1.0 > 6 * plain.standard_error


@pytest.mark.parametrize("estimator", [AIPW(repetitions=1), PartiallyLinear(repetitions=1), PoissonRegression(), RegressionAdjusted()])
def test_copies_in_clusters_are_no_new_information(estimator: AIPW) -> None:
    one = counts(n=200)
    rows = np.repeat(np.arange(200), 4)
    copied = sample(one.outcome[rows], one.treatment[rows], one.covariates.matrix[rows], cluster=rows)
    honest, blind = (estimator.fit(given, SPEC, seed=1) for given in (copied, replace(copied, cluster=None)))
    assert honest.standard_error == pytest.approx(estimator.fit(one, SPEC, seed=1).standard_error, rel=0.15)
    assert honest.standard_error > 1.6 * blind.standard_error
    assert "clustered" in honest.interval_method


def test_clusters_are_never_split_between_folds() -> None:
    data = replace(world(), cluster=np.arange(N) % 40)
    folds = cross_fit(data, repetitions=2, seed=1).propensity.folds
    assert all(len(np.unique(row[data.cluster == g])) == 1 for row in folds for g in range(40))


def test_overlap_weights_balance_the_covariates() -> None:
    found = OverlapWeighted().fit(world(n=1500), SPEC, seed=2)
    assert found.estimand == "ATO"
    assert found.diagnostics["largest_smd_after"] < 0.02
    assert abs(found.estimate - 1.0) < 3.5 * found.standard_error


def test_overlap_weights_answer_where_inverse_weights_must_refuse() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1500, 2))
    t = (rng.random(1500) < sigmoid(4.0 * x[:, 0])).astype(float)
    data = sample(t + x[:, 0] + rng.normal(size=1500), t, x)
    with pytest.raises(PositivityViolated):
        AIPW().fit(data, SPEC, seed=0)
    found = OverlapWeighted().fit(data, SPEC, seed=0)
    assert abs(found.estimate - 1.0) < 3.5 * found.standard_error


def test_the_slope_of_a_dose_is_that_of_a_linear_regression_where_everything_is_linear() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(1200, 3))
    dose = x[:, 0] + rng.normal(size=1200)
    data = sample(0.7 * dose + 2 * x[:, 0] - x[:, 1] + rng.normal(size=1200), dose, x)
    model = sm.OLS(data.outcome, np.column_stack([np.ones(1200), dose, x])).fit()
    found = PartiallyLinear().fit(data, replace(SPEC, estimand="APE", treatment_kind="continuous"), seed=1)
    assert found.estimand == "APE"
    assert found.estimate == pytest.approx(model.params[1], abs=0.3 * model.bse[1])
    assert found.standard_error == pytest.approx(model.bse[1], rel=0.1)


def test_a_dose_that_the_covariates_decide_is_refused() -> None:
    data = world()
    settled = data.covariates.matrix[:, 0] + 1e-3 * data.covariates.matrix[:, 1] ** 3
    with pytest.raises(PositivityViolated, match="of the treatment's variance"):
        PartiallyLinear().fit(replace(data, treatment=settled), SPEC, seed=0)


def levels_world(seed: int, *, n: int = 900) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    scores = np.column_stack([np.zeros(n), 0.5 * x[:, 0], -0.5 * x[:, 0]]) + rng.gumbel(size=(n, 3))
    t = scores.argmax(axis=1)
    return sample(np.array([0.0, 1.0, 2.0])[t] + x[:, 0] + rng.normal(size=n), t, x, levels=("none", "email", "visit"))


def test_each_level_is_compared_with_the_reference() -> None:
    found = MultiLevel().fit_many(levels_world(1), SPEC, seed=2)
    assert [each.estimator.split(", ")[1] for each in found] == ["level email against none", "level visit against none"]
    for each, truth in zip(found, (1.0, 2.0), strict=True):
        assert abs(each.estimate - truth) < 3.5 * each.standard_error
        assert "simultaneous over 2 levels" in each.interval_method


def test_simultaneous_intervals_lie_between_single_ones_and_bonferroni() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 4))
    single = DifferenceInMeans().fit(world(), SPEC, seed=0)
    estimates = tuple(replace(single, influence=column, standard_error=1.0, interval=(-1.96, 1.96), estimate=0.0) for column in own.T)
    alike = tuple(replace(each, influence=(shared + 0.01 * own)[:, k]) for k, each in enumerate(estimates))
    independent, same = (simultaneous(given, seed=1)[0].interval[1] for given in (estimates, alike))
    assert independent == pytest.approx(stats.norm.ppf(0.5 + 0.95 ** (1 / 4) / 2), abs=0.06)
    assert same == pytest.approx(1.96, abs=0.08)


def test_an_augmented_mean_with_constant_nuisances_is_the_arms_mean() -> None:
    data = world()
    mean, values = augmented_mean(data.outcome, data.treatment, np.full(N, 0.4), np.zeros(N))
    assert mean == pytest.approx(data.outcome[data.treatment == 1].mean())
    assert values.mean() == pytest.approx(0.0, abs=1e-12)


NAN = np.where(np.arange(N) == 3, np.nan, world().outcome)
BAD = {
    "missing outcome": (replace(world(), outcome=NAN), NotIdentified),
    "three levels": (replace(world(), treatment=np.arange(N) % 3 * 1.0), NotIdentified),
    "all treated": (replace(world(), treatment=np.ones(N)), NoVariation),
    "few treated": (replace(world(), treatment=(np.arange(N) < 4) * 1.0), TooFewRows),
    "constant outcome": (replace(world(), outcome=np.ones(N)), NoVariation),
    "negative weights": (replace(world(), weights=np.where(np.arange(N) < 5, -1.0, 1.0)), NotIdentified),
    "one cluster": (replace(world(), cluster=np.zeros(N, dtype=np.int64)), TooFewRows),
}


@pytest.mark.parametrize(
    "estimator", [AIPW(), OverlapWeighted(), DifferenceInMeans(), RegressionAdjusted()], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize(("data", "error"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_estimated_is_refused_in_words(estimator: AIPW, data: Sample, error: type[E2IError]) -> None:
    with pytest.raises(error) as refusal:
        estimator.fit(data, SPEC, seed=0)
    assert refusal.value.where
    assert refusal.value.advice


def test_without_covariates_only_randomised_assignment_is_answered() -> None:
    bare = replace(world(), covariates=sample(np.zeros(N), np.zeros(N), np.empty((N, 0))).covariates)
    with pytest.raises(NotIdentified, match="no covariate"):
        AIPW().fit(bare, SPEC, seed=0)
    assert RegressionAdjusted().fit(bare, SPEC, seed=0).estimate == pytest.approx(DifferenceInMeans().fit(bare, SPEC, seed=0).estimate)


def test_a_ratio_of_negative_outcomes_or_of_hardly_any_events_is_refused() -> None:
    with pytest.raises(NotIdentified, match="zero or more"):
        RateRatio().fit(world(), SPEC, seed=0)
    rare = replace(counts(), outcome=(np.arange(N) % 60 == 0) * 1.0)
    with pytest.raises(TooFewRows, match="positive outcome"):
        PoissonRegression().fit(rare, SPEC, seed=0)


def test_an_estimand_that_is_not_answered_is_refused() -> None:
    with pytest.raises(NotIdentified, match="LATE"):
        AIPW().fit(world(), replace(SPEC, estimand="LATE"), seed=0)
