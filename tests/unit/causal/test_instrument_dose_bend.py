"""A dose that an instrument moves: does one unit more do the same at low and at high doses?"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.design import prepare
from e2i.causal.estimators.dose_bend import bend_through
from e2i.causal.router import identify
from e2i.domain.study import EffectSpec

SPEC = EffectSpec(treatment="d", outcome="y", instruments=("z",), confounders=("x",))


def told(seed: int, *, shape: str, instrument: str = "normal") -> dict[str, float]:
    rng, n = np.random.default_rng(seed), 1_500
    x, hidden = rng.normal(size=n), rng.normal(size=n)
    z = {"normal": rng.normal(size=n), "levels": rng.integers(0, 5, n) * 1.0, "yes_no": rng.integers(0, 2, n) * 1.0}[instrument]
    d = 4.0 + z + 0.5 * x + hidden
    effect = {"line": d, "bent": 6.0 * np.log1p(np.maximum(d, 0.0)), "turning": -0.7 * (d - 4.0) ** 2}[shape]
    frame = pl.DataFrame({"z": z, "d": d, "x": x, "y": effect + x + 1.5 * hidden + rng.normal(size=n)})
    return bend_through(prepare(frame, identify(SPEC, frame)))


@pytest.mark.parametrize("instrument", ["normal", "levels"])
def test_a_line_is_rarely_called_bent(instrument: str) -> None:
    p_values = [told(seed, shape="line", instrument=instrument)["bend_p"] for seed in range(200)]
    assert sum(p < 0.05 for p in p_values) <= 18  # 10 expected; 18 has a chance of 1 %
    assert min(p_values) > 0.0001


def test_a_dose_that_turns_round_shows_both_slopes() -> None:
    found = told(1, shape="turning")
    assert found["bend_p"] < 1e-6
    assert found["slope_low"] == pytest.approx(0.7 * 2 * 1.5, abs=0.7)
    assert found["slope_high"] == pytest.approx(-0.7 * 2 * 1.5, abs=0.7)


def test_a_dose_that_saturates_is_told() -> None:
    assert np.median([told(seed, shape="bent")["bend_p"] for seed in range(11)]) < 0.01


def test_a_yes_no_instrument_shows_one_slope() -> None:
    assert told(0, shape="turning", instrument="yes_no") == {}
