"""Monthly business metrics by brand and region, each computed from the other tables of the world."""

from __future__ import annotations

import polars as pl

from e2i.data.synthetic.story import numbered, stream

CELL = ("metric_date", "brand", "region")
SMALLEST_CELL = 11
"""cells of 1 to 10 people are not published"""
SERIES = ("metric_name", "brand", "region")


def business_metrics(weekly: pl.DataFrame, profiles: pl.DataFrame, conversions: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """TRx, NRx, NBRx, HCP_Coverage and Conversion_Rate; `target` is what planners set, 0.9 to 1.2 times the value."""
    regions = profiles.select("hcp_id", pl.col("geographic_region").alias("region"))
    scripts = weekly.with_columns(pl.col("week_end").dt.truncate("1mo").alias("metric_date")).join(regions, on="hcp_id")
    rates = conversions.with_columns(pl.col("trigger_date").dt.truncate("1mo").alias("metric_date")).join(regions, on="hcp_id")
    values = pl.concat([_volumes(scripts), _coverage(scripts), _conversion(rates)]).sort(*SERIES, "metric_date")
    factor = pl.Series(stream(seed, "business_metrics").uniform(0.9, 1.2, values.height))
    before, year_before = pl.col("value").shift(1).over(SERIES), pl.col("value").shift(12).over(SERIES)
    target = (pl.col("value") * factor).round(4)
    return values.select(
        pl.Series("metric_id", numbered("MET", values.height, digits=6)),
        "metric_date",
        pl.when(pl.col("metric_name").str.ends_with("Rx")).then(pl.lit("volume")).otherwise(pl.lit("rate")).alias("metric_type"),
        "metric_name", "brand", "region",
        pl.col("value").round(4),
        target.alias("target"),
        pl.when(target > 0).then(pl.col("value") / target).round(3).alias("achievement_rate"),
        pl.when(before > 0).then(pl.col("value") / before - 1).round(3).alias("month_over_month_change"),
        pl.when(year_before > 0).then(pl.col("value") / year_before - 1).round(3).alias("year_over_year_change"),
        "sample_size",
    )  # fmt: skip


def _volumes(scripts: pl.DataFrame) -> pl.DataFrame:
    sums = scripts.group_by(CELL).agg(pl.col("trx", "nrx", "nbrx").sum().cast(pl.Float64), pl.col("hcp_id").n_unique().alias("sample_size"))
    named = sums.rename({"trx": "TRx", "nrx": "NRx", "nbrx": "NBRx"})
    return _tidy(named.unpivot(["TRx", "NRx", "NBRx"], index=[*CELL, "sample_size"], variable_name="metric_name"))


def _coverage(scripts: pl.DataFrame) -> pl.DataFrame:
    """The share of the brand's HCPs that were called on at least once in the month."""
    called = scripts.group_by(*CELL, "hcp_id").agg((pl.col("calls").fill_null(0).sum() > 0).alias("is_called"))
    shares = called.group_by(CELL).agg(pl.col("is_called").mean().alias("value"), pl.len().alias("sample_size"))
    return _tidy(shares.with_columns(metric_name=pl.lit("HCP_Coverage")))


def _conversion(conversions: pl.DataFrame) -> pl.DataFrame:
    shares = conversions.group_by(CELL).agg(pl.col("converted").mean().alias("value"), pl.len().alias("sample_size"))
    return _tidy(shares.filter(pl.col("sample_size") >= SMALLEST_CELL).with_columns(metric_name=pl.lit("Conversion_Rate")))


def _tidy(cells: pl.DataFrame) -> pl.DataFrame:
    return cells.select(*CELL, "metric_name", pl.col("value").cast(pl.Float64), pl.col("sample_size").cast(pl.Int64))
