"""Randomised cross-over: both arms in an order that chance drew."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec

SPEC = EffectSpec(treatment="t", outcome="y", randomised=True)


def trial(seed: int = 0, *, orders: tuple[str, ...] = ("10", "01"), units: int = 80, carried: float = 0.0) -> pl.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for unit in range(units):
        order = orders[unit % len(orders)]
        level, effect = 2.0 * rng.normal(), 1.0 + 0.5 * rng.normal()
        for period, arm in enumerate(map(int, order)):
            before = int(order[period - 1]) if period else 0
            rows.append((unit, period + 1, arm, level + 0.7 * period + effect * arm + carried * before + rng.normal()))
    return pl.DataFrame(rows, schema=["npi", "period", "t", "y"], orient="row")


def asked(frame: pl.DataFrame) -> CausalFinding:
    return analyse(frame, effect=SPEC, unit="npi", time="period", seed=1)


def codes(finding: CausalFinding) -> set[str]:
    return {hazard.code for hazard in finding.hazards}


def test_ab_and_ba_are_half_the_difference_of_mean_changes() -> None:
    frame = trial()
    told = asked(frame)
    wide = frame.pivot(on="period", index="npi", values=["y", "t"]).sort("npi")
    change = (wide["y_2"] - wide["y_1"]).to_numpy()
    began = wide["t_1"].to_numpy() == 1
    assert told.effect is not None
    assert told.effect.estimate == pytest.approx((change[~began].mean() - change[began].mean()) / 2.0, abs=1e-9)
    error = np.sqrt(change[~began].var(ddof=1) / (~began).sum() + change[began].var(ddof=1) / began.sum()) / 2.0
    assert told.effect.standard_error == pytest.approx(error, rel=0.02)


def test_two_periods_can_hardly_show_carry_over_and_a_person_is_told_so() -> None:
    told = asked(trial())
    assert told.verdict.name == "review"
    assert "carry_over_unseen" in codes(told)
    assert [other.estimator for other in told.alternatives] == ["difference in means, first period alone"]


@pytest.mark.parametrize("orders", [("100", "011"), ("1001", "0110")])
def test_orders_that_tell_carry_over_apart_proceed(orders: tuple[str, ...]) -> None:
    found = [asked(trial(seed, orders=orders)) for seed in range(10)]
    assert sum(told.verdict.name == "proceed" for told in found) >= 8
    covered = 0
    for told in found:
        assert told.effect is not None
        low, high = told.effect.interval()
        covered += low < 1.0 < high
    assert covered >= 8


@pytest.mark.parametrize("orders", [("100", "011"), ("1010", "0101")])
def test_an_arm_that_works_on_never_proceeds(orders: tuple[str, ...]) -> None:
    verdicts = [asked(trial(seed, orders=orders, carried=0.8)).verdict.name for seed in range(10)]
    assert "proceed" not in verdicts


def test_one_order_for_all_is_refused_in_its_own_words() -> None:
    told = asked(
        trial(orders=("01",)).with_columns(t=pl.when(pl.col("npi") == 0).then(1 - pl.col("t")).otherwise("t")).filter(pl.col("npi") > 0)
    )
    assert told.effect is None
    assert told.refusal is not None


def test_units_that_leave_after_one_arm_are_told() -> None:
    frame = trial(units=300)
    began = frame.filter((pl.col("period") == 1) & (pl.col("t") == 1))["npi"]
    gone = began.filter(pl.Series(np.random.default_rng(1).random(len(began)) < 0.3))
    told = asked(frame.filter(~((pl.col("period") == 2) & pl.col("npi").is_in(gone.implode()))))
    assert told.verdict.name == "review"
    assert any("units that began treated" in reason for reason in told.verdict.reasons)


def test_a_launched_lottery_that_ends_again_is_no_cross_over() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (unit, period, int(unit % 2 == 0 and 4 <= period < 7), unit * 0.1 + rng.normal() + (unit % 2 == 0 and 4 <= period < 7))
        for unit in range(60)
        for period in range(9)
    ]
    told = asked(pl.DataFrame(rows, schema=["npi", "period", "t", "y"], orient="row"))
    assert told.effect is not None
    assert not told.effect.estimator.startswith("cross-over")
