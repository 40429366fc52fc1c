"""Features: nothing from the future, the same plan the same columns, and no column twice."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from e2i.errors import SchemaMismatch
from e2i.ml.features import FeaturePlan, FeatureSettings, apply_features, plan_features
from e2i.ml.meta_features import META_FEATURES, meta_features
from e2i.ml.selection import select_features

SETTINGS = FeatureSettings(lags=(1, 3), windows=(2, 4))


def panel(units: int = 6, weeks: int = 12, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    n = units * weeks
    trx = rng.poisson(6, n)
    data = pl.DataFrame(
        {
            "npi": np.repeat(np.arange(units), weeks),
            "week": [date(2024, 1, 5) + timedelta(days=7 * week) for week in range(weeks)] * units,
            "trx": trx,
            "nrx": rng.binomial(trx, 0.4),
            "decile": np.repeat(rng.integers(1, 11, units), weeks),
        }
    )
    return data.sample(fraction=1.0, shuffle=True, seed=seed)


def planned(data: pl.DataFrame) -> FeaturePlan:
    return plan_features(data, features=["trx", "nrx", "decile"], unit="npi", time="week", settings=SETTINGS)


def test_a_panel_gets_ratios_lags_and_means_of_what_changes() -> None:
    names = [step.name for step in planned(panel()).steps]
    assert "nrx_per_trx" in names
    assert {"trx_lag_1", "trx_lag_3", "trx_mean_2", "nrx_mean_4"} <= set(names)
    assert not any(name.startswith("decile") for name in names)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), cut=st.integers(2, 10))
def test_changing_the_future_never_changes_a_past_row(seed: int, cut: int) -> None:
    data = panel(seed=seed)
    plan = planned(data)
    moment = date(2024, 1, 5) + timedelta(days=7 * cut)
    changed = data.with_columns(
        pl.when(pl.col("week") > moment).then(pl.col(name) + 1000).otherwise(pl.col(name)).alias(name) for name in ("trx", "nrx")
    )
    past = pl.col("week") <= moment
    assert_frame_equal(apply_features(data, plan).filter(past), apply_features(changed, plan).filter(past))
    without_future = apply_features(data.filter(past), plan)
    assert_frame_equal(apply_features(data, plan).filter(past), without_future)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_lags_and_means_know_neither_their_own_row_nor_other_units(seed: int) -> None:
    data = panel(seed=seed)
    plan = planned(data)
    looking_back = [step.name for step in plan.steps if step.kind in ("lag", "rolling_mean")]
    last = pl.col("week") == data["week"].max()
    own = data.with_columns(pl.when(last).then(0).otherwise(pl.col("trx")).alias("trx"))
    assert_frame_equal(*(apply_features(each, plan).filter(last).select(looking_back) for each in (data, own)))
    others = data.with_columns(pl.when(pl.col("npi") > 0).then(0).otherwise(pl.col("trx")).alias("trx"))
    first = pl.col("npi") == 0
    assert_frame_equal(apply_features(data, plan).filter(first), apply_features(others, plan).filter(first))


def test_lags_and_means_are_the_values_they_say_and_rows_keep_their_order() -> None:
    data = pl.DataFrame({"u": ["a", "b", "a", "a"], "t": [2, 1, 1, 3], "x": [20.0, 5.0, 10.0, 60.0]})
    plan = FeaturePlan.from_dict(
        {
            "steps": [
                {"name": "before", "kind": "lag", "inputs": ["x"], "periods": 1},
                {"name": "mean", "kind": "rolling_mean", "inputs": ["x"], "periods": 2},
            ],
            "selected": ["before", "mean"],
            "dropped": {},
            "unit": "u",
            "time": "t",
        }
    )
    made = apply_features(data, plan)
    assert made["x"].to_list() == [20.0, 5.0, 10.0, 60.0]
    assert made["before"].to_list() == [10.0, None, None, 20.0]
    assert made["mean"].to_list() == [10.0, None, None, 15.0]


def test_a_repeated_time_of_a_unit_is_refused() -> None:
    data = panel()
    with pytest.raises(SchemaMismatch, match="1 rows repeat"):
        apply_features(pl.concat([data, data.head(1)]), planned(data))


def test_dates_become_days_before_the_event_and_calendar_parts() -> None:
    data = pl.DataFrame({"diagnosed": [date(2024, 1, 1), None], "index": [date(2024, 3, 1), date(2024, 3, 1)], "age": [50, None]})
    plan = plan_features(data, features=["diagnosed", "age"], event_time="index")
    made = apply_features(data, plan)
    assert made["diagnosed_days_before"].to_list() == [60, None]
    assert made["diagnosed_month"].to_list() == [1, None]
    assert made["diagnosed_weekday"].to_list() == [1, None]
    assert made["n_missing"].to_list() == [0, 2]


def test_a_ratio_over_zero_is_missing() -> None:
    data = pl.DataFrame({"nrx_pre": [1, 2], "trx_pre": [4, 0]})
    made = apply_features(data, plan_features(data, features=data.columns))
    assert made["nrx_pre_per_trx_pre"].to_list() == [0.25, None]


def learnable(n: int = 3000, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(size=n)
    return pl.DataFrame(
        {
            "a": a,
            "b": b,
            "a_twin": 2 * a + 1,
            "a_like": a + rng.normal(size=n) * 0.1,
            "steady": np.where(rng.random(n) < 0.001, 1, 0),
            "noise": rng.normal(size=n),
            "specialty": rng.choice(["onc", "gp"], n),
            "y": (rng.random(n) < 1 / (1 + np.exp(-(a + 1.5 * a * b)))).astype(np.int64),
        }
    ).with_columns(field=pl.col("specialty").replace({"onc": "cancer", "gp": "general"}))


def selected(data: pl.DataFrame, maximum: int = 100, target: str = "y") -> FeaturePlan:
    features = [name for name in data.columns if name != target]
    return select_features(
        data, plan_features(data, features=features), target=target, problem_type="binary_classification", seed=0, maximum=maximum
    )


def test_constants_twins_and_near_twins_go_and_a_true_interaction_comes() -> None:
    plan = selected(learnable())
    assert set(plan.selected) == {"a", "b", "noise", "specialty", "a_x_b"}
    assert set(plan.dropped) == {"a_twin", "a_like", "steady", "field"}
    assert "nearly constant" in plan.dropped["steady"]
    assert "'specialty'" in plan.dropped["field"]


def test_pure_noise_yields_no_product() -> None:
    rng = np.random.default_rng(0)
    data = pl.DataFrame({f"x{index}": rng.normal(size=3000) for index in range(6)} | {"y": rng.integers(0, 2, 3000)})
    assert selected(data).steps == ()


def test_no_more_features_than_allowed_and_the_telling_ones_stay() -> None:
    rng = np.random.default_rng(1)
    data = learnable().with_columns(pl.Series(f"junk{index}", rng.normal(size=3000)) for index in range(20))
    plan = selected(data, maximum=6)
    assert len(plan.selected) == 6
    assert {"a", "a_x_b"} <= set(plan.selected)


def test_a_plan_survives_json_and_makes_the_same_columns_on_another_frame() -> None:
    plan = selected(learnable())
    again = FeaturePlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    other = learnable(seed=5)
    assert_frame_equal(apply_features(other, plan), apply_features(other, again))
    assert apply_features(other, plan)["a_x_b"].to_numpy() == pytest.approx((other["a"] * other["b"]).to_numpy())
    assert set(plan.selected) <= set(apply_features(other, plan).columns)


def test_applying_a_plan_twice_adds_nothing() -> None:
    data = panel()
    plan = planned(data)
    once = apply_features(data, plan)
    assert_frame_equal(apply_features(once.filter(pl.col("week") > date(2024, 2, 1)), plan), once.filter(pl.col("week") > date(2024, 2, 1)))


def test_meta_features_are_twelve_finite_numbers_in_a_fixed_order() -> None:
    data = learnable().with_columns(noise=pl.when(pl.col("noise") > 1).then(None).otherwise(pl.col("noise")))
    found = meta_features(data, features=["a", "b", "noise", "specialty"], target="y", problem_type="binary_classification", seed=0)
    assert tuple(found) == META_FEATURES
    assert len(META_FEATURES) <= 12
    assert all(np.isfinite(value) for value in found.values())
    assert found["log_rows"] == pytest.approx(np.log10(3000))
    assert found["categorical_share"] == 0.25
    assert found["missing_share"] == pytest.approx(data["noise"].null_count() / 12_000)
    assert 0.5 < found["landmark_mean"] < found["landmark_best"] < 0.8
    number = meta_features(data, features=["b", "a_like"], target="a", problem_type="regression", seed=0)
    assert number["is_regression"] == 1.0
    assert number["landmark_linear"] > 0.98


def test_a_generated_column_never_drives_out_a_given_one() -> None:
    rng = np.random.default_rng(3)
    n = 3000
    flag, level = rng.integers(0, 2, n), rng.uniform(0.9, 1.1, n)
    odds = 3.0 * flag * level + 8.0 * flag * (level - 1.0) - 1.5
    data = pl.DataFrame({"flag": flag, "level": level, "y": (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)})
    plan = selected(data)
    assert plan.selected[:2] == ("flag", "level")
    assert "flag_x_level" not in plan.selected
