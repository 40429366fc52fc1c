from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from e2i.causal.cate.calibration import calibrate, cross_fit, ranks, sorted_groups, split
from e2i.causal.cate.dr_learner import Scores, make_scores, project
from e2i.causal.cate.forest import HonestForest
from e2i.causal.cate.hierarchical import between_variance, moment_variance, pool, shrink
from e2i.causal.cate.stored import Predicted, from_bytes, to_bytes
from e2i.causal.cate.trees import Growth, bin_edges, grow, to_bins
from e2i.causal.cate.uplift import rank_gain
from e2i.causal.design import Sample
from e2i.causal.encoding import encode
from e2i.causal.estimators.doubly_robust import Fit, Propensity
from e2i.errors import SchemaMismatch, TooFewRows

SMALL = HonestForest(bags=20, trees=2)


def scores_of(effect: np.ndarray, *, cluster: np.ndarray | None = None, weights: np.ndarray | None = None) -> Scores:
    n = len(effect)
    return Scores(
        estimand="ATE",
        effect=effect,
        treated_effect=effect * 0.5,
        treatment=(np.arange(n) % 2).astype(float),
        weights=np.ones(n) if weights is None else weights / weights.mean(),
        cluster=cluster,
    )


def drawn(n: int, seed: int = 0, k: int = 3) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, k))
    return x, rng.normal(size=n), rng


def fitted(estimand: str, n: int = 400) -> tuple[Sample, Fit, Propensity]:
    """Nuisances that are known, not estimated."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=n)
    chance = 1 / (1 + np.exp(-0.5 * x))
    t = (rng.random(n) < chance).astype(float)
    y = x + t * (1 + x) + rng.normal(size=n)
    frame = pl.DataFrame({"x": x})
    sample = Sample(
        outcome=y,
        treatment=t,
        covariates=encode(frame, ["x"]),
        negative_controls={},
        groups=np.arange(n),
        rows_given=n,
        missing_treatment=0,
        missing_outcome=0,
    )
    propensity = Propensity(raw=np.stack([chance, chance]), folds=np.stack([split(n, None, seed=s) for s in (1, 2)]), learners={})
    untreated = np.stack([x, 0.9 * x])
    fit = Fit(
        estimand="ATT" if estimand == "ATT" else "ATE",
        estimate=0.0,
        standard_error=1.0,
        estimates=np.zeros(2),
        influence=np.zeros((2, n)),
        untreated_mean=untreated,
        treated_mean=untreated if estimand == "ATT" else np.stack([1 + 2 * x, 1 + 2 * x]),
        learners={},
    )
    return sample, fit, propensity


def test_scores_average_to_the_augmented_estimate() -> None:
    from e2i.causal.estimators.doubly_robust import arm_means

    sample, fit, propensity = fitted("ATE")
    scores = make_scores(sample, fit, propensity, seed=1)
    by_hand = []
    for r in range(2):
        pair = (fit.untreated_mean[r], fit.treated_mean[r])
        down, up = arm_means(sample.outcome, sample.treatment, propensity.clipped[r], pair, estimand="ATE")
        by_hand.append(up[0] - down[0])
    assert scores.asked.sum() / scores.mass.sum() == pytest.approx(np.mean(by_hand), rel=1e-12)


def test_scores_of_the_treated_average_to_the_effect_on_the_treated_and_still_speak_of_everybody() -> None:
    from e2i.causal.estimators.doubly_robust import arm_means

    sample, fit, propensity = fitted("ATT")
    scores = make_scores(sample, fit, propensity, seed=1)
    by_hand = []
    for r in range(2):
        pair = (fit.untreated_mean[r], fit.untreated_mean[r])
        down, up = arm_means(sample.outcome, sample.treatment, propensity.clipped[r], pair, estimand="ATT")
        by_hand.append(up[0] - down[0])
    assert scores.asked.sum() / scores.mass.sum() == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert scores.effect.mean() == pytest.approx(1.0, abs=0.3)


def test_nuisances_of_other_rows_are_refused() -> None:
    sample, fit, propensity = fitted("ATE")
    other = fitted("ATE", n=300)[0]
    with pytest.raises(SchemaMismatch, match="400 rows"):
        make_scores(other, fit, propensity, seed=1)
    assert len(sample.outcome) == 400


def test_the_projection_agrees_with_statsmodels_hc3() -> None:
    x, noise, _ = drawn(300)
    effect = 1 + x[:, 0] + noise * (1 + x[:, 1] ** 2)
    found = project(scores_of(effect), x)
    reference = sm.OLS(effect, sm.add_constant(x - x.mean(axis=0))).fit(cov_type="HC3")
    assert found.coefficients == pytest.approx(reference.params, rel=1e-4, abs=1e-4)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(reference.bse, rel=1e-3)
    assert found.interval(0)[0] < effect.mean() < found.interval(0)[1]


def test_clusters_widen_the_projection_as_in_statsmodels() -> None:
    x, noise, rng = drawn(400)
    cluster = np.repeat(np.arange(40), 10)
    effect = 1 + rng.normal(size=40)[cluster] + noise
    found = project(scores_of(effect, cluster=cluster), x)
    reference = sm.OLS(effect, sm.add_constant(x - x.mean(axis=0))).fit(
        cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
    )
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(reference.bse * np.sqrt(40 / 39), rel=1e-3)
    assert found.covariance[0, 0] > 2 * project(scores_of(effect), x).covariance[0, 0]


def test_a_tree_finds_the_step_and_fills_its_leaves_from_the_other_half_only() -> None:
    x = np.linspace(0, 1, 400)[:, None]
    target = np.where(x[:, 0] > 0.5, 1.0, 0.0)
    chooses, fills = np.arange(0, 400, 2), np.arange(1, 400, 2)
    target[fills] += 10.0
    edges = bin_edges(x)
    growth = Growth(depth=1, leaf=5, columns=1.0)
    grown = grow(to_bins(x, edges), target, np.ones(400), (chooses[None], fills[None]), growth=growth, rng=np.random.default_rng(0))
    found = grown.predict(to_bins(np.array([[0.1], [0.9]]), edges))[0]
    assert found == pytest.approx([10.0, 11.0], abs=0.05)


def test_a_tree_of_constant_columns_is_one_leaf() -> None:
    x = np.zeros((50, 2))
    edges = bin_edges(x)
    halves = (np.arange(25)[None], np.arange(25, 50)[None])
    growth = Growth(depth=3, leaf=5, columns=1.0)
    grown = grow(to_bins(x, edges), np.arange(50.0), np.ones(50), halves, growth=growth, rng=np.random.default_rng(0))
    assert (grown.column == -1).all()
    assert grown.predict(to_bins(x[:1], edges))[0, 0] == pytest.approx(np.arange(25, 50).mean())


def test_the_forest_finds_steps_curves_and_nothing_and_says_how_sure_it_is() -> None:
    x, noise, _ = drawn(3000, k=4)
    for truth in (np.where(x[:, 0] > 0, 1.0, 0.0), x[:, 0] * x[:, 1], np.full(3000, 1.0)):
        model = HonestForest(bags=50).fit(x, scores_of(truth + noise), seed=1)
        found = model.out_of_bag(x)
        assert np.sqrt(((found.estimate - truth) ** 2).mean()) < 0.3
        assert ((found.low < truth) & (truth < found.high)).mean() > 0.85
        assert (found.standard_error > 0).all()


def test_the_forest_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    x, noise, _ = drawn(300)
    one, again, other = (SMALL.fit(x, scores_of(noise), seed=s).predict(x).estimate for s in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_a_forest_keeps_clusters_whole() -> None:
    x, noise, _ = drawn(400)
    cluster = np.repeat(np.arange(40), 10)
    inside = SMALL.fit(x, scores_of(noise, cluster=cluster), seed=1).inside
    assert (inside.reshape(20, 40, 10).all(axis=2) | ~inside.reshape(20, 40, 10).any(axis=2)).all()


def test_a_forest_needs_a_hundred_rows() -> None:
    x, noise, _ = drawn(99)
    with pytest.raises(TooFewRows, match="99 rows"):
        SMALL.fit(x, scores_of(noise), seed=1)


def test_cross_fitting_never_uses_the_row_itself() -> None:
    x, noise, _ = drawn(300)
    predicted, folds = cross_fit(SMALL, x, scores_of(noise), seed=4)
    shifted = noise.copy()
    shifted[folds == 2] += 1_000.0
    again, _ = cross_fit(SMALL, x, scores_of(shifted), seed=4)
    assert (again[folds == 2] == predicted[folds == 2]).all()
    assert (again[folds != 2] != predicted[folds != 2]).all()


def test_calibration_tells_good_predictions_from_noise() -> None:
    x, noise, rng = drawn(2000)
    truth = 1 + x[:, 0]
    scores, folds = scores_of(truth + noise), split(2000, None, seed=1)
    good = calibrate(scores, truth, folds, seed=1)
    assert good.differential_prediction is not None
    assert good.differential_prediction.low < 1.0 < good.differential_prediction.high
    assert good.mean_prediction.low < 1.0 < good.mean_prediction.high
    assert good.p_value is not None
    assert good.p_value < 1e-6
    bad = calibrate(scores, rng.normal(size=2000), folds, seed=1)
    assert bad.p_value is not None
    assert bad.p_value > 0.01
    flat = calibrate(scores, np.ones(2000), folds, seed=1)
    assert flat.differential_prediction is None
    assert flat.p_value is None


def test_sorted_groups_rise_and_hold_their_raw_means() -> None:
    x, noise, _ = drawn(2000)
    truth = 1 + x[:, 0]
    rank = ranks(truth, np.zeros(2000, dtype=np.int64), seed=1)
    groups = sorted_groups(scores_of(truth + noise), rank, groups=5, seed=1)
    assert [g.estimate for g in groups] == sorted(g.estimate for g in groups)
    assert [g.low for g in groups] == sorted(g.low for g in groups)
    assert groups[4].raw_estimate == pytest.approx((truth + noise)[rank >= 0.8].mean(), abs=1e-5)
    assert sum(g.size for g in groups) == 2000


def test_pooling_reproduces_the_published_analysis_of_the_bcg_trials() -> None:
    """Thirteen trials of the BCG vaccine, log risk ratios (Viechtbauer 2010): REML 0.3132, -0.7145 (0.1798), Q 152.23."""
    y = [-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209, 0.0120, -0.4694, -1.3713, -0.3394, 0.4459, -0.0173]
    v = [0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230, 0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714]
    found = pool(np.array(y), np.sqrt(v))
    assert found.tau2 == pytest.approx(0.3132, abs=0.0015)
    assert found.tau2_dersimonian_laird == pytest.approx(0.3088, abs=0.0015)
    assert found.pooled.estimate == pytest.approx(-0.7145, abs=0.001)
    assert found.standard_error == pytest.approx(0.1798, abs=0.001)
    assert found.q == pytest.approx(152.23, rel=0.01)
    assert found.i2 == pytest.approx(0.9212, abs=0.001)


def test_the_moment_estimate_agrees_with_statsmodels() -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    rng = np.random.default_rng(5)
    errors = rng.uniform(0.1, 0.5, size=8)
    estimates = rng.normal(0, 0.5, size=8) + errors * rng.normal(size=8)
    assert moment_variance(estimates, errors) == pytest.approx(combine_effects(estimates, errors**2, method_re="dl").tau2, abs=1e-10)


def test_groups_that_agree_are_drawn_together_and_groups_that_differ_keep_their_own() -> None:
    errors = np.array([0.1, 0.1, 0.1])
    same = np.array([1.0, 1.01, 0.99])
    pooled = pool(same, errors)
    assert pooled.tau2 == 0.0
    assert pooled.i2 == 0.0
    assert shrink(same, errors, pooled)[0] == pytest.approx([1.0, 1.0, 1.0], abs=1e-9)
    apart = np.array([0.0, 5.0, 10.0])
    assert shrink(apart, errors, pool(apart, errors))[0] == pytest.approx(apart, abs=0.01)
    assert between_variance(np.array([1.0]), np.array([0.1])) == 0.0


def test_the_gain_curve_is_what_a_count_by_hand_gives() -> None:
    effect = np.array([4.0, 2.0, 0.0, -2.0])
    found = rank_gain(scores_of(effect), np.array([4.0, 3.0, 2.0, 1.0]), seed=1)
    gains = np.array([1.0, 1.5, 1.5, 1.0])
    assert found.auuc.estimate == pytest.approx(gains.mean())
    assert found.qini.estimate == pytest.approx(gains.mean() - np.array([0.25, 0.5, 0.75, 1.0]).mean() * 1.0)
    assert found.autoc.estimate == pytest.approx(np.mean(np.array([4, 3, 2, 1.0]) - 1.0))
    assert found.curve[-1].gain == pytest.approx(1.0)
    assert found.curve[0].gain == 0.0


def test_a_good_order_gains_and_a_random_one_does_not() -> None:
    x, noise, rng = drawn(3000)
    truth = x[:, 0]
    good = rank_gain(scores_of(truth + noise), truth, seed=1)
    assert good.autoc.low > 0
    assert good.qini.low > 0
    # AUTOC of a perfect order of N(0, 1) effects: the mean of the inverse Mills ratio over shares, 1 for the exponential, here 0.91.
    assert good.autoc.estimate == pytest.approx(0.91, abs=0.1)
    blind = rank_gain(scores_of(truth + noise), rng.normal(size=3000), seed=1)
    assert blind.autoc.low < 0 < blind.autoc.high


def test_predictions_survive_the_way_through_a_file() -> None:
    x, noise, _ = drawn(200)
    for cluster in (None, np.repeat(np.arange(20), 10)):
        scores = scores_of(noise, cluster=cluster)
        units = SMALL.fit(x, scores, seed=1).out_of_bag(x)
        before = Predicted(scores=scores, out_of_fold=noise, folds=split(200, None, seed=1), units=units, unit_rows=np.arange(200))
        after = from_bytes(to_bytes(before))
        assert (after.scores.effect == scores.effect).all()
        assert (after.scores.cluster is None) == (cluster is None)
        assert (after.units.low == units.low).all()
