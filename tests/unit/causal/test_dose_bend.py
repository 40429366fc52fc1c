"""A dose whose effect turns round has no single slope: a person looks, and the two sides are told."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.domain.evidence import CausalFinding
from e2i.domain.study import EffectSpec


def doses(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """Symmetric; half of them zero; or with one row in a hundred fifty times as large."""
    if kind == "symmetric":
        return 5.0 + 1.4 * rng.normal(size=n)
    large = np.exp(1.0 + 0.6 * rng.normal(size=n))
    return np.where(rng.random(n) < 0.5, 0.0, large) if kind == "half zero" else np.where(rng.random(n) < 0.01, 50.0 * large, large)


def drawn_by_lot(kind: str, shape: str, seed: int, n: int = 800) -> CausalFinding:
    rng = np.random.default_rng(seed)
    dose = doses(kind, rng, n)
    told = {"line": 0.5 * dose, "turns": 0.3 * (dose - 5.0) ** 2, "saturates": 3.0 * dose / (1.0 + dose)}[shape]
    frame = pl.DataFrame({"calls": dose, "nrx": told + 1.5 * rng.normal(size=n)})
    return analyse(frame, effect=EffectSpec(treatment="calls", outcome="nrx", randomised=True), seed=seed)


def bends(finding: CausalFinding) -> list[str]:
    return [hazard.code for hazard in finding.hazards if hazard.code in ("dose_turns", "dose_bends")]


@pytest.mark.parametrize("kind", ["symmetric", "half zero", "few very large"])
def test_a_straight_effect_is_not_called_bent(kind: str) -> None:
    assert sum(bool(bends(drawn_by_lot(kind, "line", seed))) for seed in range(60)) <= 1


def test_an_effect_that_turns_round_is_reviewed_and_both_sides_are_told() -> None:
    """The average slope is zero, and "no effect" would be the wrong thing to say."""
    finding = drawn_by_lot("symmetric", "turns", 1)
    assert bends(finding) == ["dose_turns"]
    assert finding.verdict.name == "review"
    assert finding.effect is not None
    told = finding.effect.diagnostics
    assert told["slope_low"] == pytest.approx(-0.84, abs=4 * told["slope_low_se"])
    assert told["slope_high"] == pytest.approx(0.84, abs=4 * told["slope_high_se"])


@pytest.mark.parametrize("kind", ["half zero", "few very large"])
def test_an_effect_that_saturates_is_told_and_not_said_to_turn_round(kind: str) -> None:
    found = [bends(drawn_by_lot(kind, "saturates", seed)) for seed in range(10)]
    assert found.count(["dose_bends"]) >= 8
    assert ["dose_turns"] not in found


def test_with_confounders_the_bend_is_seen_too_and_curved_confounding_is_none() -> None:
    rng = np.random.default_rng(4)
    x, n = rng.normal(size=(800, 2)), 800
    dose = 5.0 + x[:, 0] + rng.normal(size=n)
    before = x[:, 0] ** 2 + x[:, 1]
    frame = pl.DataFrame({"calls": dose, "x": x[:, 0], "z": x[:, 1], "before": before + rng.normal(size=n)})
    question = EffectSpec(treatment="calls", outcome="nrx", confounders=("x", "z"), pre_outcomes=("before",))
    straight = analyse(frame.with_columns(nrx=0.5 * dose + before + rng.normal(size=n)), effect=question, seed=1)
    turns = analyse(frame.with_columns(nrx=0.3 * (dose - 5.0) ** 2 + before + rng.normal(size=n)), effect=question, seed=1)
    assert bends(straight) == []
    assert bends(turns) == ["dose_turns"]
