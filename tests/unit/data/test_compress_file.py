"""A file compressed by the database gives the fit of all its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from e2i.causal.panel.compressed import fit_moments, fit_rows, two_way
from e2i.causal.panel.data import Panel
from e2i.causal.panel.on_off import distributed_lags
from e2i.data.compress import LargeFile
from e2i.errors import BackendRejected, DataError, NotFound, SchemaMismatch, TooFewRows

ROWS = 200_000


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    territory, treated = rng.integers(0, 300, ROWS), rng.random(ROWS) < 0.4
    decile, region = rng.integers(1, 11, ROWS), np.array(["east", "south", "west"])[rng.integers(0, 3, ROWS)]
    access = rng.normal(size=ROWS)
    noise = rng.normal(size=300)[territory] + rng.normal(size=ROWS) * (1 + decile / 5)
    nrx = 100 + 2 * treated + 0.3 * decile + 1.5 * (region == "south") + 0.5 * access + noise
    return pl.DataFrame(
        {"territory": territory, "treated": treated, "decile": decile, "region": region, "access": access, 'nrx "new"': nrx}
    )


@pytest.fixture(scope="module", params=["parquet", "csv"])
def large(frame: pl.DataFrame, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LargeFile:
    path = tmp_path_factory.mktemp("compressed") / f"rows.{request.param}"
    if request.param == "csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return LargeFile(path=path, memory_gb=0.5)


@pytest.mark.parametrize("cluster", [None, "territory"])
def test_equal_rows_once_give_the_fit_of_200_000_rows(frame: pl.DataFrame, large: LargeFile, cluster: str | None) -> None:
    data = large.rows(outcome='nrx "new"', regressors=["treated", "decile", "region"], cluster=cluster)
    region = frame["region"].to_numpy()
    design = np.column_stack([np.ones(ROWS), frame["treated"].to_numpy(), frame["decile"].to_numpy(), region == "south", region == "west"])
    kind = {"cov_type": "HC1"} if cluster is None else {"cov_type": "cluster", "cov_kwds": {"groups": frame["territory"].to_numpy()}}
    expected = sm.OLS(frame['nrx "new"'].to_numpy(), design.astype(float)).fit(**kind)
    found = fit_rows(data, variance="HC1" if cluster is None else "cluster")
    assert len(data.count) <= 60 * (1 if cluster is None else 300)
    assert found.names == ("constant", "treated", "decile", "region=south", "region=west")
    assert found.coefficients == pytest.approx(expected.params, rel=1e-8)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(expected.bse, rel=1e-8)


@pytest.mark.parametrize("cluster", [None, "territory"])
def test_cross_products_serve_regressors_with_many_values(frame: pl.DataFrame, large: LargeFile, cluster: str | None) -> None:
    found = fit_moments(large.moments(outcome='nrx "new"', regressors=["treated", "access"], cluster=cluster))
    design = frame.select("treated", "access").cast(pl.Float64).to_numpy()
    kind = {} if cluster is None else {"cov_type": "cluster", "cov_kwds": {"groups": frame["territory"].to_numpy()}}
    expected = sm.OLS(frame['nrx "new"'].to_numpy(), sm.add_constant(design - design.mean(axis=0))).fit(**kind)
    assert found.coefficients == pytest.approx(expected.params, rel=1e-8)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(expected.bse, rel=1e-8)


def balanced(*, seed: int = 1, units: int = 400, periods: int = 20) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    unit, time = np.repeat(np.arange(units), periods), np.tile(np.arange(periods), units)
    treatment = (time >= np.array([8, 14, 99])[unit % 3]).astype(int)
    outcome = 50 + rng.normal(size=units)[unit] + np.sin(time) + 2 * treatment + rng.normal(size=len(unit))
    return pl.DataFrame({"npi": unit, "week": time, "program": treatment, "nrx": outcome, "territory": unit // 20})


@pytest.mark.parametrize("cluster", [None, "territory"])
def test_unit_sums_of_shuffled_rows_give_two_way_fixed_effects(tmp_path: Path, cluster: str | None) -> None:
    rows = balanced()
    named = rows.with_columns(pl.format("HCP {}", "npi").alias("npi"), pl.date(2024, 1, 5) + pl.duration(weeks=pl.col("week")))
    named.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(tmp_path / "panel.parquet")
    panel = Panel(
        unit=rows["npi"].to_numpy(),
        time=rows["week"].to_numpy(),
        outcome=rows["nrx"].to_numpy(),
        treatment=rows["program"].to_numpy().astype(float),
        unit_names=tuple(map(str, range(400))),
        period_names=tuple(map(str, range(20))),
        period_values=np.arange(20.0),
        cluster=np.arange(400) if cluster is None else np.arange(400) // 20,
        covariates=np.zeros((len(rows), 0)),
    )
    large = LargeFile(path=tmp_path / "panel.parquet")
    found = two_way(large.two_way(unit="npi", time="week", outcome="nrx", treatment="program", cluster=cluster))
    expected = distributed_lags(panel).cumulative(estimand="ATT")
    assert found.estimate == pytest.approx(expected.estimate, rel=1e-8)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-8)
    assert found.interval == pytest.approx(expected.interval, rel=1e-8)
    assert found.n_treated == 267


def two_way_of(rows: pl.DataFrame, path: Path, cluster: str | None = None) -> None:
    rows.write_parquet(path)
    LargeFile(path=path).two_way(unit="npi", time="week", outcome="nrx", treatment="program", cluster=cluster)


def test_gaps_duplicates_and_wandering_clusters_are_refused(tmp_path: Path) -> None:
    rows = balanced()
    path = tmp_path / "panel.parquet"
    missing = rows.with_columns(nrx=pl.when(pl.col("week") == 3, pl.col("npi") == 5).then(None).otherwise("nrx"))
    twice = rows.with_columns(week=pl.when(pl.col("week") == 3, pl.col("npi") == 5).then(4).otherwise("week"))
    for wrong in (missing, twice, rows.slice(1)):
        with pytest.raises(DataError, match="not balanced"):
            two_way_of(wrong, path)
    with pytest.raises(DataError, match="several clusters"):
        two_way_of(rows.with_columns(territory=pl.col("week") % 2), path, cluster="territory")


def test_missing_values_and_nan_leave_their_rows_out(tmp_path: Path) -> None:
    rows = pl.DataFrame({"d": [0, 1, 0, 1, None, 1, 0], "y": [1.0, 3.0, 2.0, float("nan"), 5.0, 4.0, None]})
    rows.write_parquet(tmp_path / "rows.parquet")
    data = LargeFile(path=tmp_path / "rows.parquet").rows(outcome="y", regressors=["d"])
    assert sorted(zip(data.count.tolist(), data.mean.tolist(), strict=True)) == [(2.0, 1.5), (2.0, 3.5)]
    (tmp_path / "rows.csv").write_text("d,y\n0,1\n1,3\n0,2\n1,NA\n,5\n1,4\n0,\n")
    again = LargeFile(path=tmp_path / "rows.csv").rows(outcome="y", regressors=["d"])
    assert again.count.sum() == 4


@pytest.mark.filterwarnings("error")
def test_infinite_values_are_refused(tmp_path: Path) -> None:
    rows = balanced().with_columns(nrx=pl.when(pl.col("week") == 3, pl.col("npi") == 5).then(float("inf")).otherwise("nrx"))
    rows.write_parquet(tmp_path / "rows.parquet")
    large = LargeFile(path=tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="infinite"):
        large.rows(outcome="nrx", regressors=["program"])
    for cluster in (None, "territory"):
        with pytest.raises(DataError, match="infinite"):
            large.moments(outcome="nrx", regressors=["program"], cluster=cluster)
    with pytest.raises(DataError, match="infinite"):
        large.two_way(unit="npi", time="week", outcome="nrx", treatment="program")


def test_text_deep_in_a_column_of_numbers_is_told_by_its_line_and_not_by_its_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("y,d\n" + "1,0\n2,1\n" * 15_000 + "AnnSmith,1\n")
    with pytest.raises(BackendRejected) as caught:
        LargeFile(path=path).rows(outcome="y", regressors=["d"])
    assert caught.value.what == "Conversion Error: CSV Error on Line: 30002."
    assert "AnnSmith" not in str(caught.value)


def test_files_that_cannot_be_used_are_refused(tmp_path: Path, frame: pl.DataFrame) -> None:
    path = tmp_path / "rows.parquet"
    frame.head(100).write_parquet(path)
    large = LargeFile(path=path)
    with pytest.raises(SchemaMismatch, match="Did you mean `decile`"):
        large.rows(outcome='nrx "new"', regressors=["decil"])
    with pytest.raises(SchemaMismatch, match="not numbers"):
        large.rows(outcome="region", regressors=["decile"])
    with pytest.raises(SchemaMismatch, match="not numbers"):
        large.moments(outcome="region", regressors=["decile"])
    frame.head(100).with_columns(zip=pl.int_range(100).cast(pl.String)).write_parquet(path)
    with pytest.raises(SchemaMismatch, match="more than 50 levels"):
        large.moments(outcome='nrx "new"', regressors=["zip"])
    with pytest.raises(NotFound):
        LargeFile(path=tmp_path / "other.parquet").rows(outcome="y", regressors=["d"])
    (tmp_path / "rows.dta").write_bytes(b"")
    with pytest.raises(SchemaMismatch, match="cannot be streamed"):
        LargeFile(path=tmp_path / "rows.dta").rows(outcome="y", regressors=["d"])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(BackendRejected):
        LargeFile(path=tmp_path / "broken.parquet").rows(outcome="y", regressors=["d"])
    frame.head(3).with_columns(decile=pl.lit(None, dtype=pl.Int64)).write_parquet(path)
    with pytest.raises(TooFewRows, match="no row"):
        large.rows(outcome='nrx "new"', regressors=["decile"])
    with pytest.raises(TooFewRows, match="no row"):
        large.moments(outcome='nrx "new"', regressors=["decile"])
