"""The effect by overlap is put on trial itself, not the effect on everybody, which the same rows cannot answer."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.arrays import FloatArray
from e2i.causal.estimators.doubly_robust import arm_means
from e2i.causal.refute.ground import functional
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec

ASKED = EffectSpec(
    treatment="t", outcome="y", confounders=("a", "b", "c"), negative_controls=("elsewhere",), pre_outcomes=("before",), estimand="ATO"
)


def _steep(n: int, *, seed: int, hidden: float = 0.0) -> pl.DataFrame:
    """Treatment is all but sure for most rows; its effect is 1."""
    rng = np.random.default_rng(seed)
    x, unseen = rng.normal(size=(n, 3)), rng.normal(size=n)
    t = (rng.random(n) < 1 / (1 + np.exp(-5.0 * x[:, 0] - hidden * unseen))).astype(float)
    level = 2.0 * x[:, 0] + x[:, 1] + hidden * unseen
    drawn = {name: level + rng.normal(size=n) for name in ("y", "before", "elsewhere")}
    return pl.DataFrame({"t": t, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2], **drawn}).with_columns(y=pl.col("y") + pl.col("t"))


def _answered(frame: pl.DataFrame, asked: EffectSpec = ASKED) -> CausalFinding:
    finding = analyse(frame, effect=asked, seed=1)
    assert finding.effect is not None
    assert finding.effect.estimand == "ATO"
    return finding


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sound_effect_by_overlap_passes_its_tests_where_hardly_anybody_had_a_choice(seed: int) -> None:
    finding = _answered(_steep(2_500, seed=seed))
    assert finding.effect is not None
    assert abs(finding.effect.estimate - 1.0) < 3 * finding.effect.standard_error
    assert [each.test for each in finding.refutations if not each.passed] == []


def test_what_the_tests_tell_is_about_the_effect_that_is_told() -> None:
    finding = _answered(_steep(2_000, seed=4))
    assert finding.effect is not None
    ranges = next(each.detail for each in finding.refutations if each.test == "bootstrap")
    found = re.search(r"95 % range is (\S+) to (\S+)\.", ranges)
    assert found is not None
    low, high = float(found[1]), float(found[2])
    assert (low + high) / 2 == pytest.approx(finding.effect.estimate, abs=finding.effect.standard_error)
    assert high - low == pytest.approx(2 * 1.96 * finding.effect.standard_error, rel=0.35)


def test_a_hidden_trait_blocks_the_effect_by_overlap_too() -> None:
    finding = _answered(_steep(2_500, seed=5, hidden=1.5))
    assert finding.verdict.name == "block"


def test_missing_confounders_do_not_move_the_effect_by_overlap_by_what_everybody_would_need() -> None:
    frame, rng = _steep(2_500, seed=6), np.random.default_rng(6)
    gaps = frame.with_columns(b=pl.when(pl.Series(rng.random(2_500) < 0.1)).then(None).otherwise(pl.col("b")))
    finding = _answered(gaps)
    assert finding.effect is not None
    assert abs(finding.effect.estimate - 1.0) < 3 * finding.effect.standard_error


def test_least_squares_with_overlap_weights_finds_the_weighted_effect() -> None:
    x, t, chance, rng = _known(40_000)
    y = x + t * (1.0 + chance) + rng.normal(size=40_000)
    truth = float(np.average(1.0 + chance, weights=chance * (1.0 - chance)))
    fast = functional(t, chance, np.column_stack([np.ones_like(x), x, chance]), estimand="ATO")
    estimate = float(fast.estimates(y))
    error = float(np.sqrt(np.sum(fast.influence(y[:, None]) ** 2))) / len(y)
    assert abs(estimate - truth) < 3 * error
    down, up = arm_means(y, t, chance, (x, x + 1.0 + chance), estimand="ATO")
    assert up[0] - down[0] == pytest.approx(estimate, abs=error)
    assert float(np.std(up[1] - down[1])) / np.sqrt(len(y)) == pytest.approx(error, rel=0.05)


def _known(n: int) -> tuple[FloatArray, FloatArray, FloatArray, np.random.Generator]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=n)
    chance = 1 / (1 + np.exp(-2.0 * x))
    return x, (rng.random(n) < chance).astype(float), chance, rng
