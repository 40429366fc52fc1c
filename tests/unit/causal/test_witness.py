from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.refute.witness import goes_with
from e2i.domain.study import EffectSpec

RNG = np.random.default_rng(4)
N = 2_000
X, HIDDEN = RNG.normal(size=N), RNG.normal(size=N)
CHANCE = sigmoid(X + 0.8 * HIDDEN)
T = (RNG.random(N) < CHANCE).astype(int)
DOSE = X + HIDDEN + RNG.normal(size=N)
FRAME = pl.DataFrame(
    {
        "x": X,
        "t": T,
        "dose": DOSE,
        "y": T + X + HIDDEN + RNG.normal(size=N),
        "y_of_dose": DOSE + X + HIDDEN + RNG.normal(size=N),
        "noise": RNG.normal(size=N),
        "lottery_ticket": RNG.integers(0, 2, N),
        "shares_hidden": HIDDEN + RNG.normal(size=N),
    }
)


def test_a_control_is_tied_by_what_is_measured_or_by_what_is_left() -> None:
    others = np.column_stack([X, HIDDEN])
    arm = T.astype(float)
    assert goes_with(X + RNG.normal(size=N), others, arm)
    assert goes_with(np.where(np.arange(N) % 2 == 0, HIDDEN, np.nan), others, arm)
    assert not goes_with(RNG.normal(size=N), others, arm)
    assert not goes_with(T + 0.0, others, arm), "what is treatment itself has nothing left to go with the outcome"
    assert not goes_with(np.full(N, np.nan), others, arm)


@pytest.mark.parametrize(("treatment", "outcome"), [("t", "y"), ("dose", "y_of_dose")])
def test_a_control_that_has_nothing_to_do_with_the_outcome_lets_nothing_pass(treatment: str, outcome: str) -> None:
    """The estimate is wrong by far; pure noise as a control must not vouch for it."""
    asked = EffectSpec(treatment=treatment, outcome=outcome, confounders=("x",), negative_controls=("noise",))
    finding = analyse(FRAME, effect=asked, seed=1)
    assert finding.verdict.name == "review"
    assert any("hidden confounding is untested" in reason for reason in finding.verdict.reasons)
    silent = next(each for each in finding.refutations if each.test == "untested_negative_control:noise")
    assert "shares no cause with it" in silent.detail


def test_an_earlier_outcome_and_an_exposure_of_pure_noise_are_no_evidence_either() -> None:
    asked = EffectSpec(treatment="t", outcome="y", confounders=("x",), pre_outcomes=("noise",), negative_exposures=("lottery_ticket",))
    finding = analyse(FRAME, effect=asked, seed=1)
    assert finding.verdict.name == "review"
    assert {each.test for each in finding.refutations} >= {"untested_pre_period_placebo:noise", "untested_negative_exposure:lottery_ticket"}


def test_a_control_that_shares_the_hidden_cause_still_blocks() -> None:
    asked = EffectSpec(treatment="t", outcome="y", confounders=("x",), negative_controls=("shares_hidden",))
    assert analyse(FRAME, effect=asked, seed=1).verdict.name == "block"
