"""Power told from few clusters, against the power that the trial then has."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.domain.trials import ExperimentSpec
from e2i.ml.power.cautions import concerns
from e2i.ml.power.facts import intraclass_correlation, upper_intraclass_correlation
from e2i.ml.power.formulas import Clusters, Means
from e2i.ml.power.planning import Draft, draft, trial_on
from e2i.ml.power.sample import read_sample
from e2i.ml.power.solve import detectable


def practices(count: int, size: int, *, icc: float, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng([seed, count])
    cluster = np.repeat(np.arange(count), size)
    y = np.sqrt(icc) * rng.normal(size=count)[cluster] + np.sqrt(1 - icc) * rng.normal(size=len(cluster))
    return pl.DataFrame({"npi": np.arange(len(y)), "practice": cluster, "y": y})


def planned(frame: pl.DataFrame, **changes: object) -> Draft:
    asked = {"question": "does it move?", "unit": "npi", "outcome": "y", "cluster": "practice"} | changes
    return draft(ExperimentSpec.model_validate(asked), frame)


@pytest.mark.parametrize("icc", [0.02, 0.1, 0.3])
def test_twelve_clusters_rarely_promise_power_that_the_trial_will_not_have(icc: float) -> None:
    """The true power is 0.80. Planned with the measured ICC, 3 of 10 plans tell more than 0.90."""
    effect = detectable(Means(sd=1.0, clusters=Clusters(size=20, icc=icc)), 240, alpha=0.05, power=0.8)
    told = []
    for seed in range(150):
        plan = planned(practices(12, 20, icc=icc, seed=seed), minimum_detectable=effect, baseline={"sd": 1.0}, units_available=240)
        told.append(plan.power.achieved_power or 0.0)
    assert np.mean(np.array(told) > 0.9) <= 0.12
    assert 0.55 <= np.mean(told) <= 0.8


@pytest.mark.parametrize("icc", [0.0, 0.05, 0.4])
def test_the_upper_end_of_the_icc_holds_it_in_eight_of_ten_tables(icc: float) -> None:
    held = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(15), rng.integers(8, 16, size=15))
        y = np.sqrt(icc) * rng.normal(size=15)[cluster] + np.sqrt(1 - icc) * rng.normal(size=len(cluster))
        held.append(upper_intraclass_correlation(y, cluster) >= icc)
    assert np.mean(held) >= 0.74
    assert icc == 0.0 or np.mean(held) <= 0.86


def test_the_plan_says_which_icc_it_takes_and_a_given_one_or_many_clusters_stand() -> None:
    few = practices(12, 20, icc=0.0, seed=3)
    plan = planned(few, minimum_detectable=0.5)
    assert plan.facts.icc is not None
    assert plan.facts.icc_upper is not None
    assert plan.power.inputs["icc_upper"] > plan.power.inputs["icc"]
    assert plan.power.design_effect == pytest.approx(max(1.0, 1 + 19 * plan.facts.icc_upper))
    assert any("the plan takes" in text and "`baseline.icc`" in text for text in concerns(plan))
    given = planned(few, minimum_detectable=0.5, baseline={"icc": 0.01})
    assert given.power.design_effect == pytest.approx(1.19)
    many = planned(practices(60, 10, icc=0.1, seed=1), minimum_detectable=0.5)
    assert many.facts.icc_upper is None
    assert "icc_upper" not in many.power.inputs


def test_where_even_the_upper_end_is_0_the_plan_asks_for_more() -> None:
    frame = practices(12, 20, icc=0.0, seed=0).with_columns(y=pl.col("y") - pl.col("y").mean().over("practice"))
    plan = planned(frame, minimum_detectable=0.5)
    assert plan.facts.icc_upper == 0.0
    assert any("so is the upper end" in text for text in concerns(plan))


def test_the_simulation_on_the_own_table_is_held_against_the_formula_with_the_tables_own_icc() -> None:
    frame = practices(20, 15, icc=0.05, seed=2)
    plan = planned(frame, minimum_detectable=0.5)
    sample = read_sample(frame, plan.spec)
    found = trial_on(plan, sample)
    assert found is not None
    assert sample.cluster is not None
    assert plan.facts.icc == pytest.approx(intraclass_correlation(sample.y, sample.cluster))
    assert found[1] > (plan.power.achieved_power or 0.0)


def test_clusters_without_any_spread_inside_have_an_icc_of_one() -> None:
    cluster = np.repeat(np.arange(5), 4)
    assert intraclass_correlation(cluster * 1.0, cluster) == upper_intraclass_correlation(cluster * 1.0, cluster) == 1.0
    assert np.isnan(upper_intraclass_correlation(np.arange(4.0), np.zeros(4, dtype=np.int64)))
