from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from e2i.causal.panel.compressed import (
    ClusterMoments,
    CompressedRows,
    UnitSums,
    design_of,
    fit_moments,
    fit_rows,
    interact,
    two_way,
)
from e2i.errors import DataError, NoVariation, SchemaMismatch, TooFewRows


def compressed(columns: dict[str, np.ndarray], outcome: np.ndarray, cluster: np.ndarray | None = None) -> CompressedRows:
    """What the database does, in numpy."""
    keys = np.column_stack([*columns.values(), *([] if cluster is None else [cluster])])
    found, number = np.unique(keys, axis=0, return_inverse=True)
    count = np.bincount(number).astype(float)
    mean = np.bincount(number, weights=outcome) / count
    names, design = design_of({name: found[:, place] for place, name in enumerate(columns)})
    return CompressedRows(
        names=names,
        design=design,
        count=count,
        mean=mean,
        spread=np.bincount(number, weights=(outcome - mean[number]) ** 2),
        cluster=None if cluster is None else found[:, -1].astype(np.int64),
    )


def some_rows(size: int = 2_000, *, level: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 40, size)
    columns = {"treated": rng.integers(0, 2, size), "after": rng.integers(0, 2, size), "decile": rng.integers(1, 11, size)}
    noise = rng.normal(size=40)[cluster] + rng.normal(size=size) * columns["decile"]
    return columns, level + 2.0 * columns["treated"] * columns["after"] + 0.5 * columns["decile"] + noise, cluster


@pytest.mark.parametrize("level", [0.0, 1e6], ids=["mean near zero", "mean of a million"])
@pytest.mark.parametrize(("variance", "peer"), [("classical", "nonrobust"), ("HC1", "HC1"), ("cluster", "cluster")])
def test_coefficients_and_variances_are_those_of_the_uncompressed_rows(variance, peer: str, level: float) -> None:
    columns, outcome, cluster = some_rows(level=level)
    data = interact(compressed(columns, outcome, cluster if variance == "cluster" else None), "treated", "after")
    design = sm.add_constant(np.column_stack([*columns.values(), columns["treated"] * columns["after"]]).astype(float))
    expected = sm.OLS(outcome, design).fit(cov_type=peer, cov_kwds={"groups": cluster} if peer == "cluster" else {})
    found = fit_rows(data, variance=variance)
    assert len(data.count) < 1_800
    assert found.coefficients == pytest.approx(expected.params, rel=1e-8)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(expected.bse, rel=1e-8)
    assert found.names == ("constant", "treated", "after", "decile", "treated:after")


def test_the_double_difference_is_the_difference_of_four_means() -> None:
    columns, outcome, _ = some_rows()
    columns.pop("decile")
    data = interact(compressed(columns, outcome), "treated", "after")
    effect = fit_rows(data, variance="HC1").effect("treated:after", estimand="ATT")
    treated, after = (columns[name] == 1 for name in ("treated", "after"))
    cells = [outcome[(treated == t) & (after == a)].mean() for t in (True, False) for a in (True, False)]
    assert len(data.count) == 4
    assert effect.estimate == pytest.approx(cells[0] - cells[1] - cells[2] + cells[3], rel=1e-10)
    assert "HC1" in effect.interval_method
    low, high = effect.interval
    assert low < effect.estimate < high


def test_text_becomes_indicators_against_its_first_level() -> None:
    names, design = design_of({"x": np.array([1, 2, 3]), "region": np.array(["west", "east", "south"], dtype=object)})
    assert names == ("constant", "x", "region=south", "region=west")
    assert design.tolist() == [[1, 1, 0, 1], [1, 2, 0, 0], [1, 3, 1, 0]]


def test_cross_products_per_cluster_give_the_clustered_fit() -> None:
    columns, outcome, cluster = some_rows()
    design = sm.add_constant(np.column_stack(list(columns.values())).astype(float))
    parts = [design[cluster == group] for group in range(40)]
    results = [outcome[cluster == group] for group in range(40)]
    data = ClusterMoments(
        names=("constant", *columns),
        count=np.array([float(len(part)) for part in parts]),
        square=np.stack([part.T @ part for part in parts]),
        cross=np.stack([part.T @ result for part, result in zip(parts, results, strict=True)]),
        outcome_square=np.array([result @ result for result in results]),
        is_clustered=True,
    )
    expected = sm.OLS(outcome, design).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    found = fit_moments(data)
    assert found.coefficients == pytest.approx(expected.params, rel=1e-8)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(expected.bse, rel=1e-8)
    assert found.effect("treated", estimand="ATE").diagnostics["rows"] == 2_000


def test_a_two_by_two_panel_gives_the_double_difference() -> None:
    outcome = np.array([[1.0, 4.0], [2.0, 6.0], [0.0, 1.0], [3.0, 3.5]])
    treatment = np.array([[0, 1], [0, 1], [0, 0], [0, 0]], dtype=float)
    inside = treatment - treatment.mean(axis=0)
    inside -= inside.mean(axis=1, keepdims=True)
    data = UnitSums(
        periods=2,
        treatment_square=(inside**2).sum(axis=1),
        cross=(inside * outcome).sum(axis=1),
        is_treated=treatment.any(axis=1),
        cluster=np.arange(4),
    )
    found = two_way(data)
    assert found.estimate == pytest.approx(3.5 - 0.75)
    assert (found.n_treated, found.n_untreated) == (2, 2)
    assert found.influence is not None
    assert found.influence.mean() == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_fitted_is_refused() -> None:
    columns, outcome, cluster = some_rows(50)
    data = compressed(columns, outcome, cluster)
    with pytest.raises(SchemaMismatch, match="no regressor"):
        fit_rows(data, variance="HC1").effect("calls", estimand="ATE")
    with pytest.raises(SchemaMismatch, match="no regressor"):
        interact(data, "treated", "calls")
    with pytest.raises(DataError, match="without clusters"):
        fit_rows(compressed(columns, outcome), variance="cluster")
    with pytest.raises(NoVariation, match="explain"):
        fit_rows(interact(interact(data, "treated", "after"), "treated", "after"), variance="HC1")
    with pytest.raises(TooFewRows, match="one cluster"):
        fit_rows(compressed(columns, outcome, np.zeros(50)), variance="cluster")
    with pytest.raises(TooFewRows, match="4 rows"):
        fit_rows(compressed({name: values[:4] for name, values in columns.items()}, outcome[:4]), variance="HC1")
    with pytest.raises(DataError, match="not finite"):
        fit_rows(replace(data, mean=np.full(len(data.mean), np.inf)), variance="HC1")
