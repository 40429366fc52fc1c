from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import prepare
from e2i.causal.encoding import encode
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec
from e2i.errors import SchemaMismatch


def test_numbers_keep_their_value_and_missing_ones_get_the_median_and_an_indicator() -> None:
    values = [1.0, None, 3.0, float("nan"), 100.0] * 10
    encoded = encode(pl.DataFrame({"x": values}), ["x"])
    assert encoded.names == ("x", "x missing")
    assert encoded.matrix[:5].tolist() == [[1, 0], [3, 1], [3, 0], [3, 1], [100, 0]]
    assert encoded.notes == ("`x`: 20 missing values set to the median",)


def test_categories_become_indicators_with_the_most_frequent_as_reference_and_rare_ones_together() -> None:
    levels = ["b"] * 60 + ["a"] * 30 + ["c"] * 3 + ["d"] * 2 + [None] * 15
    encoded = encode(pl.DataFrame({"s": levels}), ["s"])
    assert encoded.names == ("s=a", "s=(missing)", "s=(rare)")
    assert encoded.matrix.sum(axis=0).tolist() == [30, 15, 5]
    assert encoded.is_level == (True, True, True)


def test_encoding_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"s": rng.choice(["x", "y", "z"], 300), "n": rng.normal(size=300), "row": range(300)})
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    here, there = encode(frame, ["s", "n"]), encode(shuffled, ["s", "n"])
    assert here.names == there.names
    assert np.array_equal(here.matrix[shuffled["row"].to_numpy()], there.matrix)


def test_dates_count_as_days_and_lists_are_refused() -> None:
    days = [dt.date(2025, 1, 1) + dt.timedelta(days=i) for i in range(20)]
    assert np.ptp(encode(pl.DataFrame({"d": days}), ["d"]).matrix) == 19
    with pytest.raises(SchemaMismatch, match="column `l`"):
        encode(pl.DataFrame({"l": [[1], [2]]}), ["l"])


def test_constant_and_repeated_columns_are_left_out_and_named() -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0, 3.0], "same": [10.0, 20.0, 30.0], "one": [7, 7, 7]})
    encoded = encode(frame, ["x", "same", "one"])
    assert encoded.names == ("x",)
    assert encoded.notes == ("`same` repeats `x` and was left out", "`one` is constant and was left out")


def test_complete_cases_are_counted_by_what_is_missing() -> None:
    rows = 200
    rng = np.random.default_rng(1)
    treated = [None if i < 5 else i % 2 for i in range(rows)]
    nrx = [None if i % 20 == 7 else float(i) for i in range(rows)]
    frame = pl.DataFrame({"treated": treated, "nrx": nrx, "decile": rng.normal(size=rows)})
    identification = identify(EffectSpec(treatment="treated", outcome="nrx", confounders=("decile",)), frame)
    sample = prepare(frame, identification)
    assert (sample.rows_given, sample.missing_treatment, sample.missing_outcome) == (200, 5, 10)
    assert len(sample.outcome) == 185
    assert {arm.arm: arm.share for arm in sample.missing_outcomes} == pytest.approx({"treated": 10 / 98, "untreated": 0.0})


def test_two_hundred_levels_stand_alone_where_each_has_rows_enough() -> None:
    levels = [f"zip{place:03d}" for place in range(200) for _ in range(30)]
    encoded = encode(pl.DataFrame({"zip": levels}), ["zip"])
    assert len(encoded.names) == 199
    assert not any("rare" in name for name in (*encoded.names, *encoded.notes))


def test_few_rows_keep_few_levels() -> None:
    levels = [f"zip{place:03d}" for place in range(50) for _ in range(12)]
    encoded = encode(pl.DataFrame({"zip": levels}), ["zip"])
    assert len(encoded.names) == 30, "29 beside the reference, and the rare ones together"


def test_a_gap_is_remembered_where_it_was() -> None:
    values = [None if place % 5 == 0 else float(place) for place in range(100)]
    encoded = encode(pl.DataFrame({"x": values, "y": [1.0 * place for place in range(100)]}), ["x", "y"])
    ((name, missing),) = encoded.gaps
    assert name == "x"
    assert missing.tolist() == [place % 5 == 0 for place in range(100)]
