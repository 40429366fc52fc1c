"""Fairness: the measures are fairlearn's, and small groups cannot be found."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.errors import SchemaMismatch
from e2i.ml.fairness import fairness


def people(sizes: dict[str, int], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, pl.Series]:
    rng = np.random.default_rng(seed)
    names = [name for name, size in sizes.items() for _ in range(size)]
    return rng.integers(0, 2, len(names)).astype(float), rng.integers(0, 2, len(names)), pl.Series("age_group", names)


def test_differences_and_ratio_are_those_of_the_rates() -> None:
    y = np.tile([1.0, 1.0, 0.0, 0.0], 50)
    group = pl.Series("sex", ["f"] * 100 + ["m"] * 100)
    decisions = np.concatenate([np.tile([1, 1, 1, 0], 25), np.tile([1, 0, 0, 0], 25)])
    result = fairness(y, decisions, group)
    assert result.demographic_parity_difference == pytest.approx(0.75 - 0.25)
    assert result.demographic_parity_ratio == pytest.approx(0.25 / 0.75)
    assert result.equal_opportunity_difference == pytest.approx(1.0 - 0.5)
    assert {one.name: (one.n, one.selection_rate, one.tpr) for one in result.groups} == {"f": (100, 0.75, 1.0), "m": (100, 0.25, 0.5)}
    assert result.to_dict()["selection_rate[f]"] == 0.75


def test_groups_of_ten_or_fewer_are_counted_and_not_told() -> None:
    result = fairness(*people({"a": 200, "b": 150, "c": 8, "d": 7}))
    assert [group.name for group in result.groups] == ["a", "b"]
    assert result.suppressed_groups == 2


def test_a_single_small_group_takes_the_next_smallest_with_it() -> None:
    result = fairness(*people({"a": 200, "b": 150, "c": 60, "d": 7}))
    assert [group.name for group in result.groups] == ["a", "b"]
    assert result.suppressed_groups == 2
    assert not any("[c]" in name or "[d]" in name for name in result.to_dict())


def test_people_are_counted_and_not_rows() -> None:
    y, decisions, group = people({"a": 200, "b": 200, "c": 200})
    who = pl.Series(list(range(400)) + [400 + index % 6 for index in range(200)])
    result = fairness(y, decisions, group, people=who)
    assert "c" not in {one.name for one in result.groups}


def test_one_group_alone_has_no_difference() -> None:
    result = fairness(*people({"a": 200, "b": 3}))
    assert result.demographic_parity_difference is None
    assert result.to_dict() == {"suppressed_groups": 2.0}


def test_a_rate_over_ten_events_or_fewer_is_not_told() -> None:
    y, decisions, group = people({"a": 200, "b": 200})
    y[200:] = 0.0
    y[200:209] = 1.0
    result = fairness(y, decisions, group)
    assert result.equal_opportunity_difference is None
    assert [one.tpr is None for one in result.groups] == [False, True]
    assert "tpr[b]" not in result.to_dict()


def test_missing_values_are_a_group_and_nobody_selected_has_no_ratio() -> None:
    y, _, group = people({"a": 100, "b": 100})
    holes = group.to_list()
    holes[:50] = [None] * 50
    result = fairness(y, np.zeros(200, dtype=np.int64), pl.Series("age_group", holes))
    assert "(missing)" in {one.name for one in result.groups}
    assert result.demographic_parity_ratio is None
    assert result.demographic_parity_difference == 0.0


def test_a_number_with_many_values_must_be_grouped_first() -> None:
    with pytest.raises(SchemaMismatch, match="too many for groups"):
        fairness(np.zeros(100), np.zeros(100, dtype=np.int64), pl.Series("age", range(100)))
