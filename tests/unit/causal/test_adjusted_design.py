"""A yes/no treatment that people chose: what each kind of question is judged by."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.arrays import FloatArray
from e2i.causal.estimators.doubly_robust import Propensity, support
from e2i.causal.estimators.features import make_features
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.overlap import measure_overlap, require_overlap, weights
from e2i.domain.study import EffectSpec
from e2i.errors import PositivityViolated


def drawn(seed: int, rows: int, *, steep: float = 1.0, base: float = 0.0, groups: int | None = None) -> pl.DataFrame:
    """Effect 1, two confounders, a negative control and an earlier outcome; with `groups` rows of one share a shock."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    region = np.arange(rows) % (groups or rows)
    shock, other = rng.normal(size=(2, groups or 1)) * (0.0 if groups is None else 1.0)
    place = region if groups else np.zeros(rows, dtype=int)
    treatment = (rng.random(rows) < sigmoid(base + steep * (x[:, 0] - 0.5 * x[:, 1]))).astype(int)
    mean = x[:, 0] + 0.5 * x[:, 1]
    return pl.DataFrame(
        {
            **{f"x{j}": x[:, j] for j in range(3)},
            "region": region,
            "t": treatment,
            "y": treatment + mean + shock[place] + rng.normal(size=rows),
            "control": mean + other[place] + rng.normal(size=rows),
            "before": mean + shock[place] + rng.normal(size=rows),
        }
    )


ASKED = EffectSpec(treatment="t", outcome="y", confounders=("x0", "x1", "x2"), negative_controls=("control",), pre_outcomes=("before",))


def test_an_outcome_far_from_zero_gets_the_same_verdict() -> None:
    frame = drawn(1, 1_200)
    far = frame.with_columns(pl.col("y", "control", "before") + 1e9)
    near, moved = (analyse(rows, effect=ASKED, seed=1) for rows in (frame, far))
    assert near.verdict.name == moved.verdict.name == "proceed"
    assert near.effect is not None
    assert moved.effect is not None
    assert moved.effect.estimate == pytest.approx(near.effect.estimate, abs=0.2 * near.effect.standard_error)


def test_clusters_that_the_interval_knows_are_no_reason_for_an_alarm() -> None:
    finding = analyse(drawn(2, 2_000, groups=80), effect=ASKED.model_copy(update={"cluster": "region"}), seed=1)
    failed = [each.test for each in finding.refutations if not each.passed]
    assert failed == []
    chosen = next(point for point in finding.specifications if point.is_chosen)
    assert finding.effect is not None
    assert chosen.high - chosen.low == pytest.approx(3.92 * finding.effect.standard_error, rel=0.05)


def test_overlap_weights_answer_where_inverse_weights_must_refuse() -> None:
    frame = drawn(3, 2_500, steep=4.0)
    assert analyse(frame, effect=ASKED, seed=1).effect is None
    finding = analyse(frame, effect=ASKED.model_copy(update={"estimand": "ATO"}), seed=1)
    assert finding.effect is not None
    assert finding.effect.estimand == "ATO"
    assert abs(finding.effect.estimate - 1.0) < 3 * finding.effect.standard_error
    assert max(abs(row.smd_after) for row in finding.balance) < 0.1, "balance is that of the overlap weights"


def test_matched_pairs_are_judged_by_their_own_balance_and_by_what_still_differs_within_them() -> None:
    finding = analyse(drawn(4, 1_200), effect=ASKED.model_copy(update={"design": "matched", "pre_outcomes": ()}), seed=1)
    assert finding.effect is not None
    worst = max(abs(row.smd_after) for row in finding.balance)
    assert worst == pytest.approx(finding.effect.diagnostics["largest_smd_after"])
    apart = abs(finding.effect.diagnostics["bias_adjusted_estimate"] - finding.effect.estimate) > finding.effect.standard_error
    assert apart == any("within pairs carries part" in reason for reason in finding.verdict.reasons)


def test_a_rare_treatment_is_no_lack_of_overlap() -> None:
    rng = np.random.default_rng(5)
    x: FloatArray = rng.normal(size=20_000)
    chance = sigmoid(0.6 * x - 5.0)
    treatment = (rng.random(20_000) < chance).astype(float)
    assert treatment.mean() < 0.011
    found = measure_overlap(treatment, chance, "ATE")
    assert found.share_outside < 0.02
    require_overlap(found, propensity=chance, estimand="ATE")
    weight = weights(treatment, chance, "ATE")
    assert abs(weight[treatment == 1] @ x[treatment == 1] - x.mean()) < 4 * np.sqrt(np.sum(weight[treatment == 1] ** 2))


def test_the_support_is_the_usual_one_from_a_tenth_treated_on() -> None:
    assert support(0.1) == support(0.5) == support(0.9) == pytest.approx((0.01, 0.99))
    assert support(0.01)[0] == pytest.approx(0.001)
    assert support(0.99)[1] == pytest.approx(0.999)


def test_units_without_a_choice_are_refused_however_few_are_treated() -> None:
    rng = np.random.default_rng(6)
    never = rng.random(20_000) < 0.3
    chance = np.where(never, 0.0001, 0.02)
    treatment = (rng.random(20_000) < chance).astype(float)
    with pytest.raises(PositivityViolated, match="ATO"):
        require_overlap(measure_overlap(treatment, chance, "ATE"), propensity=chance, estimand="ATE")


def test_untreated_rows_without_a_choice_do_not_count_against_the_effect_on_the_treated() -> None:
    rng = np.random.default_rng(7)
    chance = np.where(rng.random(5_000) < 0.4, 0.001, 0.5)
    treatment = (rng.random(5_000) < chance).astype(float)
    assert measure_overlap(treatment, chance, "ATE").share_outside > 0.3
    assert measure_overlap(treatment, chance, "ATT").share_outside == 0.0


def test_the_answer_hangs_on_why_a_strong_confounder_is_missing_and_says_so() -> None:
    frame = drawn(8, 2_000)
    rng = np.random.default_rng(8)
    gone = rng.random(2_000) < 0.3
    gaps = frame.with_columns(x0=pl.when(pl.Series(gone)).then(None).otherwise(pl.col("x0")))
    finding = analyse(gaps, effect=ASKED, seed=1)
    assert finding.effect is not None
    assert abs(finding.effect.estimate - 1.0) < 2.5 * finding.effect.standard_error
    assert finding.verdict.name == "review"
    assert any("Find out why they are missing" in reason for reason in finding.verdict.reasons)


def test_the_estimate_uses_the_weights_that_balance_is_judged_by() -> None:
    rng = np.random.default_rng(9)
    x: FloatArray = rng.normal(size=20_000)
    chance = sigmoid(1.2 * x - 5.5)
    treatment = (rng.random(20_000) < chance).astype(float)
    propensity = Propensity(
        raw=chance[None], folds=np.zeros((1, 20_000), dtype=np.int64), learners={}, treated_share=float(treatment.mean())
    )
    judged = weights(treatment, chance, "ATE")[treatment == 1]
    used = 1.0 / propensity.clipped[0][treatment == 1]
    assert used / used.sum() == pytest.approx(judged)
    assert propensity.clipped.min() < 0.005, "a floor at 0.01 would leave the arms unlike"


def test_overlap_weights_are_not_judged_by_what_inverse_weights_would_do() -> None:
    frame = drawn(10, 2_000, groups=80, steep=2.5)
    finding = analyse(frame, effect=ASKED.model_copy(update={"estimand": "ATO", "cluster": "region"}), seed=1)
    assert finding.effect is not None
    assert not {"fold_spread", "weighting_gap", "weighting_estimate"} & set(finding.effect.diagnostics)
    assert finding.specifications == ()


def test_one_division_into_folds_says_nothing_about_others() -> None:
    finding = analyse(drawn(11, 5_200), effect=ASKED, seed=1)
    assert finding.effect is not None
    assert "fold_spread" not in finding.effect.diagnostics


def test_rare_levels_of_a_long_list_enter_no_products() -> None:
    rng = np.random.default_rng(12)
    place, x = rng.integers(0, 60, 2_000), rng.normal(size=(2_000, 3))
    levels = (place[:, None] == np.arange(1, 60)).astype(float)
    assert make_features(np.column_stack([x, levels])).basis.shape[1] == 62 + 6
    few = (place[:, None] == np.arange(1, 9)).astype(float)
    assert make_features(np.column_stack([x, few])).basis.shape[1] > 11 + 6
