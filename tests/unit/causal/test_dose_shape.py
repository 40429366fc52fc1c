"""One slope for all doses is told where it fits, and a person is asked where low and high doses differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.arrays import FloatArray
from e2i.domain.study import EffectSpec

N, T = 100, 12
QUESTION = EffectSpec(treatment="calls", outcome="y", negative_controls=("other",))


def panel(response: Callable[[FloatArray, FloatArray], FloatArray], *, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    usual = rng.gamma(3.0, 1.0, (N, 1))
    dose = rng.poisson(usual, (N, T)).astype(float)
    y = 10.0 + 2.0 * rng.normal(size=(N, 1)) + 0.2 * np.arange(T) + response(dose, usual) + rng.normal(size=(N, T))
    keys = {"u": np.repeat(np.arange(N), T), "t": np.tile(np.arange(T), N)}
    return pl.DataFrame(keys | {"calls": dose.ravel(), "y": y.ravel(), "other": rng.normal(size=N * T)})


def codes(frame: pl.DataFrame) -> set[str]:
    return {hazard.code for hazard in analyse(frame, effect=QUESTION, unit="u", time="t", seed=1).hazards}


@pytest.mark.parametrize(
    "response", [lambda dose, usual: 3.0 * np.log1p(dose), lambda dose, usual: 0.1 * dose**2, lambda dose, usual: np.minimum(dose, 3)]
)
def test_a_response_that_bends_asks_for_a_person(response: Callable[[FloatArray, FloatArray], FloatArray]) -> None:
    finding = analyse(panel(response, seed=1), effect=QUESTION, unit="u", time="t", seed=1)
    assert "dose_bends" in {hazard.code for hazard in finding.hazards}
    assert finding.verdict.name != "proceed"


def test_a_straight_response_is_left_alone() -> None:
    alarms = [seed for seed in range(20) if "dose_bends" in codes(panel(lambda dose, usual: 0.5 * dose, seed=seed))]
    assert len(alarms) <= 1


def test_two_doses_cannot_bend() -> None:
    frame = panel(lambda dose, usual: dose, seed=1).with_columns(calls=(pl.col("calls") > 2).cast(pl.Float64) * 3.0 + pl.lit(1.0))
    third = frame.with_columns(calls=pl.when(pl.int_range(pl.len()) == 0).then(2.0).otherwise("calls"))
    assert "dose_bends" not in codes(third)
