"""Rows kept by their outcome, capped outcomes, outcomes that part the arms: seen where they are, not where values end alone."""

from __future__ import annotations

import numpy as np
import polars as pl

from e2i.causal.hazards import validate
from e2i.domain.study import EffectSpec

ROWS = 1_500
SPEC = EffectSpec(treatment="t", outcome="y", confounders=("a",), pre_outcomes=("y2", "y1"))


def table(seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=ROWS)
    t = (rng.random(ROWS) < 0.5).astype(int)
    return pl.DataFrame({"a": a, "t": t, "y": a + 0.5 * t + rng.normal(size=ROWS)} | {f"y{k}": a + rng.normal(size=ROWS) for k in (2, 1)})


def counts(seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rate = np.exp(0.5 * rng.normal(size=ROWS))
    t = (rng.random(ROWS) < 0.5).astype(int)
    return pl.DataFrame({"a": np.log(rate), "t": t} | {name: rng.poisson(rate) for name in ("y", "y2", "y1")})


def found(frame: pl.DataFrame) -> set[str]:
    return {hazard.code for hazard in validate(frame, SPEC) if hazard.action != "warn"}


def test_tables_of_all_units_have_no_hazard() -> None:
    assert all(not found(make(seed)) for make in (table, counts) for seed in range(20))


def test_rows_kept_by_a_low_or_a_high_outcome_are_seen() -> None:
    assert found(table().filter(pl.col("y") > 0)) == {"kept_by_outcome"}
    assert found(table().filter(pl.col("y") < 1)) == {"kept_by_outcome"}


def test_a_table_of_writers_only_is_seen_by_the_zeros_before() -> None:
    assert found(counts().filter(pl.col("y") > 0)) == {"kept_by_outcome"}


def test_an_outcome_that_grew_or_is_on_another_scale_was_not_selected() -> None:
    assert not found(table().with_columns(pl.col("y") + 2))
    assert not found(table().with_columns(100 * pl.col("y") + 500))
    assert not found(counts().with_columns(y2=pl.col("y2").cast(pl.Float64) - 3, y1=pl.col("y1").cast(pl.Float64) - 3))


def test_an_outcome_capped_inside_its_range_is_seen_and_a_share_that_ends_at_one_is_not() -> None:
    assert found(table().with_columns(y=pl.min_horizontal(pl.col("y"), pl.lit(1.0)))) == {"outcome_capped"}
    share = (pl.col("y") / 4 + 0.5).clip(0.0, 1.0)
    assert not found(table().with_columns(y=(share * 1.4).clip(0.0, 1.0)))


def test_an_outcome_that_parts_the_arms_is_seen() -> None:
    assert "outcome_parts_arms" in found(table().with_columns(t=(pl.col("y") > 0.8).cast(pl.Int64)))
    assert "outcome_parts_arms" not in found(table().with_columns(t=(pl.col("y") + pl.col("a") / 5 > 0.8).cast(pl.Int64)))


def test_nines_among_other_values_are_seen_and_prices_that_end_on_nine_are_not() -> None:
    rng = np.random.default_rng(1)
    score = pl.Series(np.where(np.arange(ROWS) % 20 == 0, 99.0, np.round(60 + 15 * rng.normal(size=ROWS))))
    assert found(table().with_columns(y=score)) == {"missing_code"}
    assert not found(table().with_columns(y=pl.Series(10.0 * rng.integers(1, 40, ROWS) - 1)))


def test_minus_one_among_counts_is_a_code_and_among_other_negative_values_it_is_not() -> None:
    wide = counts().with_columns(y1=pl.Series(np.random.default_rng(2).poisson(8, ROWS)))
    coded = wide.with_columns(y1=pl.when(pl.int_range(pl.len()) % 25 == 0).then(-1).otherwise(pl.col("y1")))
    assert "missing_code" in found(coded)
    assert "missing_code" not in found(wide.with_columns(y1=pl.col("y1") - 3))


def test_dates_in_text_among_confounders_are_refused_and_told_how_to_be_read() -> None:
    days = pl.date_range(pl.date(2015, 1, 1), pl.date(2015, 1, 1) + pl.duration(days=ROWS - 1), eager=True)
    for form in ("%d/%m/%Y", "%b %d, %Y", "%d-%b-%Y", "%Y-%m-%d"):
        (hazard,) = validate(table().with_columns(a=days.dt.strftime(form).alias("a")), SPEC)
        assert (hazard.code, hazard.action) == ("dates_as_text", "refuse")
        assert "DATE(a, '%d/%m/%Y')" in hazard.remedy
    months = days.dt.truncate("1mo").dt.strftime("%Y-%m-%d").alias("a")
    assert "dates_as_text" not in found(table().with_columns(a=months))
