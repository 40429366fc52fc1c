from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2i.causal.design import Identification, Sample
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.estimators.matched import Matched, double_difference
from e2i.causal.estimators.matching import balance_of_pairs, match_pairs
from e2i.errors import NotIdentified, PositivityViolated, TooFewRows

SPEC = Identification(design="matched", estimand="ATT", treatment="t", outcome="y")
N = 600


def world(seed: int = 0, *, pre: int = 2, strength: float = 0.7, n: int = N, noise: float = 1.0) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    specialty = rng.integers(0, 2, n).astype(float)
    t = (rng.random(n) < sigmoid(strength * x[:, 0] + 0.5 * specialty - 1.2)).astype(float)
    level = 5 + x[:, 0] + rng.normal(size=n)
    matrix = np.column_stack([x, specialty])
    names = ("x0", "x1", "x2", "specialty=b")
    return Sample(
        outcome=level + 1.5 * t + 0.3 * x[:, 0] + noise * rng.normal(size=n),
        treatment=t,
        covariates=Covariates(
            matrix=matrix, names=names, sources=("x0", "x1", "x2", "specialty"), is_level=(False, False, False, True), notes=()
        ),
        negative_controls={},
        groups=np.arange(n),
        rows_given=n,
        missing_treatment=0,
        missing_outcome=0,
        pre_outcomes={f"pre{k}": level + noise * rng.normal(size=n) for k in range(pre)},
    )


def test_the_formula_is_the_fields_own() -> None:
    assert double_difference(np.array([120.0]), np.array([100.0]), np.array([108.0]), np.array([98.0])).tolist() == [10.0]
    months = double_difference(np.array([[5.0, 7.0], [3.0, 3.0]]), np.array([[4.0], [1.0]]), np.array([[2.0, 2.0], [2.0, 1.0]]), 1.0)
    assert months.tolist() == [[0.0, 2.0], [1.0, 2.0]]


def test_the_estimate_is_the_mean_of_the_formula_over_the_pairs() -> None:
    data = world()
    pairs, _, _ = Matched().pair(data, seed=1)
    before = (data.pre_outcomes["pre0"] + data.pre_outcomes["pre1"]) / 2
    test, control = pairs.treated, pairs.untreated
    each = double_difference(data.outcome[test], before[test], data.outcome[control], before[control])
    found = Matched().fit(data, SPEC, seed=1)
    assert found.estimate == pytest.approx(each.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(each.std(ddof=1) / np.sqrt(len(each)), rel=1e-12)
    assert found.estimator == "1:1 matched test and control, double difference"
    assert found.n_treated == found.n_untreated == len(each) == found.diagnostics["pairs"]
    assert abs(found.estimate - 1.5) < 3.5 * found.standard_error
    assert np.sqrt(np.mean(found.influence**2) / N) == pytest.approx(found.standard_error, rel=0.01)


def test_without_a_pre_period_it_is_the_paired_difference() -> None:
    data = world(pre=0)
    pairs, _, _ = Matched().pair(data, seed=1)
    found = Matched().fit(data, SPEC, seed=1)
    assert found.estimate == pytest.approx((data.outcome[pairs.treated] - data.outcome[pairs.untreated]).mean())
    assert "paired difference" in found.estimator


@pytest.mark.parametrize("distance", ["propensity", "mahalanobis"])
def test_pairs_are_alike_within_cells_and_calipers_and_used_once(distance: str) -> None:
    data = world(2)
    chance = sigmoid(0.7 * data.covariates.matrix[:, 0] - 1.0)
    everyone = np.ones(N, dtype=np.bool_)
    pairs = match_pairs(data.treatment, chance, data.covariates, eligible=everyone, distance=distance, seed=3)  # type: ignore[arg-type]
    logit = np.log(chance / (1 - chance))
    assert (np.abs(logit[pairs.treated] - logit[pairs.untreated]) <= pairs.caliper).all()
    assert (data.treatment[pairs.treated] == 1).all()
    assert (data.treatment[pairs.untreated] == 0).all()
    assert len(np.unique(pairs.untreated)) == len(pairs.untreated)
    assert len(np.unique(pairs.treated)) == len(pairs.treated)
    assert pairs.exact_on == ("specialty",)
    assert np.array_equal(data.covariates.matrix[pairs.treated, 3], data.covariates.matrix[pairs.untreated, 3])
    assert len(pairs.treated) + pairs.without_partner == data.treatment.sum()
    balance = balance_of_pairs(data.covariates, data.treatment, pairs)
    assert abs(balance[0].smd_before) > 0.4
    assert abs(balance[0].smd_after) < 0.1


def test_a_category_that_would_cost_many_pairs_is_not_matched_exactly() -> None:
    data = world(2)
    lone = np.where(data.treatment == 1, np.arange(N) % 2, 0.0)
    matrix = np.column_stack([data.covariates.matrix[:, :3], lone])
    everyone = np.ones(N, dtype=np.bool_)
    covariates = replace(data.covariates, matrix=matrix)
    pairs = match_pairs(data.treatment, np.full(N, 0.3), covariates, eligible=everyone, distance="propensity", seed=3)
    assert pairs.exact_on == ()


def test_the_seed_decides_ties_only() -> None:
    data = world(3)
    one, again, other = (Matched().fit(data, SPEC, seed=seed).estimate for seed in (1, 1, 2))
    assert one == again
    assert other == pytest.approx(one, abs=3 * Matched().fit(data, SPEC, seed=1).standard_error)


def test_the_order_of_the_rows_hardly_matters() -> None:
    data = world(3)
    order = np.random.default_rng(0).permutation(N)
    shuffled = replace(
        data,
        outcome=data.outcome[order],
        treatment=data.treatment[order],
        covariates=replace(data.covariates, matrix=data.covariates.matrix[order]),
        pre_outcomes={name: values[order] for name, values in data.pre_outcomes.items()},
    )
    one, other = (Matched().fit(given, SPEC, seed=1) for given in (data, shuffled))
    assert one.estimate == pytest.approx(other.estimate, abs=1.5 * one.standard_error)


def test_treated_units_without_partner_are_told_as_a_change_of_the_question() -> None:
    found = Matched().fit(world(4, strength=1.6), SPEC, seed=1)
    assert any("no partner within the caliper: the effect is that of the matched ones" in note for note in found.notes)
    assert found.diagnostics["share_of_treated_matched"] < 1.0


def test_counts_of_ten_or_fewer_people_are_not_told() -> None:
    data = world(5)
    first = np.flatnonzero(data.treatment == 1)[:4]
    pre = data.pre_outcomes["pre0"].copy()
    pre[first] = np.nan
    found = Matched().fit(replace(data, pre_outcomes={"pre0": pre}), SPEC, seed=1)
    assert "at most 10 treated units lack a pre-period outcome and were left out" in found.notes


def test_an_ate_is_answered_for_the_treated_and_says_so() -> None:
    found = Matched().fit(world(), replace(SPEC, estimand="ATE"), seed=1)
    assert found.estimand == "ATT"
    assert "ATT, not ATE" in found.notes[0]


def test_bias_adjustment_takes_off_what_a_linear_outcome_leaves_within_pairs() -> None:
    """Without noise and with a linear outcome the adjusted pairs differ by exactly the effect (Abadie and Imbens 2011)."""
    data = world(6)
    outcome = 2.0 + data.covariates.matrix @ [1.0, -2.0, 0.5, 1.0] + 3.0 * data.treatment
    data = replace(data, outcome=outcome, pre_outcomes={})
    found = Matched(is_bias_adjusted=True).fit(data, SPEC, seed=1)
    assert found.estimate == pytest.approx(3.0, abs=1e-8)
    assert found.diagnostics["bias_adjusted_estimate"] == found.estimate
    assert abs(found.diagnostics["unadjusted_estimate"] - 3.0) > 1e-3


def test_copies_of_pairs_in_clusters_widen_the_interval() -> None:
    one = world(7, n=300)
    rows = np.repeat(np.arange(300), 4)
    many = replace(
        one,
        outcome=one.outcome[rows],
        treatment=one.treatment[rows],
        covariates=replace(one.covariates, matrix=one.covariates.matrix[rows]),
        pre_outcomes={name: values[rows] for name, values in one.pre_outcomes.items()},
        groups=np.arange(1200),
        cluster=rows,
    )
    honest, blind = (Matched().fit(given, SPEC, seed=1) for given in (many, replace(many, cluster=None)))
    assert honest.standard_error > 1.5 * blind.standard_error
    assert "clustered and paired" in honest.interval_method


def test_unlike_groups_weights_and_short_histories_are_refused() -> None:
    data = world(8, strength=6.0)
    far = replace(data.covariates, matrix=data.covariates.matrix + 40 * data.treatment[:, None])
    with pytest.raises(PositivityViolated, match="have a partner"):
        Matched().fit(replace(data, covariates=far), SPEC, seed=1)
    with pytest.raises(NotIdentified, match="sampling weights"):
        Matched().fit(replace(world(), weights=np.ones(N)), SPEC, seed=1)
    short = {"pre0": np.where(np.arange(N) % 20 == 0, 1.0, np.nan)}
    with pytest.raises(TooFewRows, match="pre-period"):
        Matched().fit(replace(world(), pre_outcomes=short), SPEC, seed=1)
