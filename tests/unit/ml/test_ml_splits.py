"""Splits: shares, order in time, gaps, and one group in one split only."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2i.domain.experiments import SPLIT_SHARES, SPLITS
from e2i.errors import SchemaMismatch, TooFewRows
from e2i.ml.splits import plan_splits

START = date(2023, 1, 2)


def patients(n: int, *, days: int = 600, rate: float = 0.3, groups: int = 0, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {
        "day": [START + timedelta(days=int(day)) for day in rng.integers(0, days, n)],
        "y": (rng.random(n) < rate).astype(np.int64),
        "hcp": rng.integers(0, groups or n, n),
    }
    return pl.DataFrame(columns)


def shares(labels: np.ndarray) -> dict[str, float]:
    kept = (labels != "").sum()
    return {name: float((labels == name).sum() / kept) for name in SPLITS}


def assert_near_wished(labels: np.ndarray) -> None:
    for name, share in shares(labels).items():
        assert share == pytest.approx(SPLIT_SHARES[name], abs=0.02)


def assert_in_order(days: np.ndarray, labels: np.ndarray, gap_days: int) -> None:
    for earlier, later in pairwise(SPLITS):
        assert (days[labels == later].min() - days[labels == earlier].max()).days > gap_days


def assert_groups_undivided(frame: pl.DataFrame, labels: np.ndarray) -> None:
    pairs = pl.DataFrame({"group": frame["hcp"], "split": labels.tolist()}).filter(pl.col("split") != "").unique()
    assert pairs["group"].is_unique().all()


@settings(max_examples=25)
@given(n=st.integers(700, 3000), days=st.integers(200, 900), seed=st.integers(0, 10_000), gap=st.integers(0, 14))
def test_splits_by_time_keep_shares_order_and_gap(n: int, days: int, seed: int, gap: int) -> None:
    frame = patients(n, days=days, seed=seed)
    plan, labels = plan_splits(frame, time="day", target="y", seed=seed, gap_days=gap)
    assert plan.strategy == "chronological"
    assert_near_wished(labels)
    assert_in_order(frame["day"].to_numpy().astype("datetime64[D]").astype(object), labels, gap)
    assert plan.rows == {name: int((labels == name).sum()) for name in SPLITS}
    assert plan.gap_rows == int((labels == "").sum())


@settings(max_examples=20)
@given(n=st.integers(2000, 6000), groups=st.integers(300, 1500), seed=st.integers(0, 10_000))
def test_groups_that_reach_over_time_stay_in_one_split_and_in_order(n: int, groups: int, seed: int) -> None:
    frame = patients(n, groups=groups, rate=0.4, seed=seed)
    _, labels = plan_splits(frame, time="day", group="hcp", target="y", seed=seed)
    assert_near_wished(labels)
    assert_groups_undivided(frame, labels)
    assert_in_order(frame["day"].to_numpy().astype("datetime64[D]").astype(object), labels, 7)


@settings(max_examples=20)
@given(n=st.integers(800, 3000), groups=st.integers(100, 700), seed=st.integers(0, 10_000))
def test_groups_without_time_stay_in_one_split(n: int, groups: int, seed: int) -> None:
    frame = patients(n, groups=groups, seed=seed)
    plan, labels = plan_splits(frame, group="hcp", target="y", seed=seed)
    assert plan.strategy == "grouped"
    assert plan.gap_rows == 0
    assert_near_wished(labels)
    assert_groups_undivided(frame, labels)


@settings(max_examples=20)
@given(n=st.integers(400, 3000), rate=st.floats(0.15, 0.85), seed=st.integers(0, 10_000))
def test_random_splits_carry_the_same_share_of_events(n: int, rate: float, seed: int) -> None:
    frame = patients(n, rate=rate, seed=seed)
    plan, labels = plan_splits(frame, target="y", seed=seed)
    assert plan.strategy == "random_stratified"
    assert_near_wished(labels)
    y = frame["y"].to_numpy()
    for name in SPLITS:
        rows = labels == name
        assert abs(y[rows].sum() - y.mean() * rows.sum()) <= 2


def test_a_whole_panel_keeps_more_than_a_quarter_of_its_rows() -> None:
    units, weeks = 400, 104
    frame = pl.DataFrame(
        {
            "hcp": np.repeat(np.arange(units), weeks),
            "week": [START + timedelta(days=7 * week) for week in range(weeks)] * units,
            "nrx": np.random.default_rng(0).normal(size=units * weeks),
        }
    )
    plan, labels = plan_splits(frame, time="week", group="hcp", target="nrx", seed=1)
    assert plan.strategy == "chronological"
    assert_near_wished(labels)
    assert_groups_undivided(frame, labels)
    assert sum(plan.rows.values()) > 0.27 * frame.height


def test_weekly_rows_lose_one_week_between_splits() -> None:
    frame = pl.DataFrame({"week": [START + timedelta(days=7 * (row // 20)) for row in range(2000)], "v": np.arange(2000.0)})
    plan, _ = plan_splits(frame, time="week", target="v", seed=0)
    ends = [date.fromisoformat(plan.boundaries[f"{name}_end"]) for name in SPLITS[:-1]]
    starts = [date.fromisoformat(plan.boundaries[f"{name}_start"]) for name in SPLITS[1:]]
    assert [start - end for end, start in zip(ends, starts, strict=True)] == [timedelta(days=14)] * 3


def test_the_same_seed_gives_the_same_splits_and_another_seed_others() -> None:
    frame = patients(1000)
    first, second, third = (plan_splits(frame, target="y", seed=seed)[1] for seed in (3, 3, 4))
    assert (first == second).all()
    assert (first != third).any()


def test_datetimes_are_divided_by_day() -> None:
    frame = pl.DataFrame({"at": [datetime(2024, 1, 1) + timedelta(hours=4 * hour) for hour in range(2000)], "v": np.arange(2000.0)})  # noqa: DTZ001
    plan, labels = plan_splits(frame, time="at", target="v", seed=0)
    assert plan.strategy == "chronological"
    by_day = pl.DataFrame({"day": frame["at"].dt.date(), "split": labels.tolist()}).unique()
    assert by_day["day"].is_unique().all()


def test_time_with_few_values_is_not_used_and_the_plan_says_so() -> None:
    frame = patients(1000, days=12)
    plan, _ = plan_splits(frame, time="day", target="y", seed=0)
    assert plan.strategy == "random_stratified"
    assert "12 distinct values" in plan.boundaries["time_not_used"]


def test_rows_without_a_target_are_dropped_and_counted() -> None:
    frame = patients(1000).with_columns(y=pl.when(pl.int_range(pl.len()) < 100).then(None).otherwise(pl.col("y")))
    plan, labels = plan_splits(frame, target="y", seed=0)
    assert (labels[:100] == "").all()
    assert plan.boundaries["rows_without_a_role"] == "100"
    assert sum(plan.rows.values()) == 900


def test_forty_rows_are_too_few_and_the_error_says_how_many_are_needed() -> None:
    with pytest.raises(TooFewRows, match="200 rows"):
        plan_splits(patients(40), target="y", seed=0)


def test_one_class_is_refused() -> None:
    with pytest.raises(TooFewRows, match="one value only"):
        plan_splits(patients(1000, rate=0.0), target="y", seed=0)


def test_a_split_without_an_event_is_refused() -> None:
    with pytest.raises(TooFewRows, match="holdout split holds one class"):
        plan_splits(patients(1000).with_columns(y=pl.int_range(pl.len()) < 4), target="y", seed=0)


def test_a_few_large_groups_cannot_be_divided() -> None:
    with pytest.raises(TooFewRows, match="4 groups"):
        plan_splits(patients(1000, groups=4), group="hcp", target="y", seed=0)


def test_dates_as_text_are_refused() -> None:
    frame = patients(1000).with_columns(pl.col("day").cast(pl.String))
    with pytest.raises(SchemaMismatch, match="type String"):
        plan_splits(frame, time="day", target="y", seed=0)


def test_a_missing_column_offers_the_nearest_name() -> None:
    with pytest.raises(SchemaMismatch, match="Did you mean `day`"):
        plan_splits(patients(1000), time="days", seed=0)
