"""Rows copied into another arm, and units in several rows: seen by what no two units share."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.design import Sample, prepare
from e2i.causal.hazards import concerns_about_rows
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec

ROWS = 800


def table(seed: int = 4, digits: int = 6) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, ROWS)).round(digits)
    t = (rng.random(ROWS) < 0.5).astype(int)
    kind = rng.choice(["x", "y", "z"], ROWS)
    return pl.DataFrame({"a": a, "b": b, "kind": kind, "t": t, "y": a + rng.normal(size=ROWS), "place": rng.integers(0, 60, ROWS)})


def sample(frame: pl.DataFrame, **more: str) -> Sample:
    spec = EffectSpec(treatment="t", outcome="y", confounders=("a", "b", "kind"), **more)  # type: ignore[arg-type]
    return prepare(frame, identify(spec, frame))


def told(frame: pl.DataFrame, **more: str) -> list[tuple[str, str]]:
    return [(concern.severity, concern.text) for concern in concerns_about_rows(sample(frame, **more))]


def noisy(frame: pl.DataFrame, seed: int = 9) -> pl.DataFrame:
    return frame.with_columns(pl.col("y") + pl.Series(np.random.default_rng(seed).normal(size=frame.height)))


def test_a_table_of_different_units_has_no_concern_however_it_is_rounded() -> None:
    for seed in range(20):
        for digits in (6, 2, 1, 0):
            assert not told(table(seed, digits))


def test_untreated_rows_copied_from_treated_ones_block() -> None:
    treated = table().with_columns(t=pl.lit(1))
    ((severity, text),) = told(pl.concat([treated, treated.with_columns(t=pl.lit(0))]))
    assert severity == "block"
    assert text.startswith("100% of rows are equal to a row of another arm")


def test_units_in_several_rows_ask_for_their_cluster() -> None:
    ((severity, text),) = told(noisy(pl.concat([table()] * 3)))
    assert severity == "review"
    assert "`a` and `b` to the last digit" in text
    assert "`cluster`" in text


def test_units_in_several_rows_of_one_named_cluster_are_known() -> None:
    frame = table()
    own = frame.with_columns(place=pl.int_range(pl.len()))
    assert not told(noisy(pl.concat([own] * 3)), cluster="place")
    assert len(told(noisy(pl.concat([own, own.with_columns(pl.col("place") + ROWS)])), cluster="place")) == 1


def test_zeros_shared_by_many_say_nothing() -> None:
    none = pl.int_range(pl.len()) % 2 == 0
    frame = table().with_columns(pl.when(none).then(0.0).otherwise(pl.col(name)).alias(name) for name in ("a", "b"))
    assert not told(frame)
