from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from e2i.causal.analysis import analyse
from e2i.causal.designs.controls import told_placebo
from e2i.causal.estimate import Estimate
from e2i.causal.estimators.linear_models import sigmoid
from e2i.causal.estimators.multi_level import simultaneous
from e2i.causal.refute.witness import follows, goes_with
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


def people(seed: int = 5) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=900)
    t = (rng.random(900) < 1.0 / (1.0 + np.exp(-x))).astype(int)
    scarce = np.where(np.arange(900) < 40, x, np.nan)
    return pl.DataFrame(
        {
            "x": x,
            "t": t,
            "level": np.array(["none", "low", "high"])[t + (rng.random(900) < 0.3)],
            "dose": x + rng.normal(size=900),
            "y": t + x + rng.normal(size=900),
            "nc": 5.0 * t,
            "scarce": scarce,
            "flat": np.ones(900),
            "copy": x,
        }
    ).with_columns(pl.col("scarce").fill_nan(None))


@pytest.mark.parametrize("role", ["negative_controls", "pre_outcomes"])
@pytest.mark.parametrize(("treatment", "control"), [("t", pl.col("nc")), ("dose", 2.0 * pl.col("dose"))])
def test_a_control_that_treatment_alone_decides_is_an_alarm(role: str, treatment: str, control: pl.Expr) -> None:
    frame = people().with_columns(nc=control)
    spec = EffectSpec(treatment=treatment, outcome="y", confounders=("x",)).model_copy(update={role: ("nc",)})
    finding = analyse(frame, effect=spec, seed=1)
    alarms = [test for test in finding.refutations if test.test.endswith(":nc")]
    assert [test.passed for test in alarms] == [False]
    assert finding.verdict.name == "block"


@pytest.mark.parametrize("name", ["scarce", "flat", "copy"])
def test_an_exposure_that_cannot_be_used_is_told(name: str) -> None:
    spec = EffectSpec(treatment="t", outcome="y", confounders=("x",), negative_exposures=(name,))
    finding = analyse(people(), effect=spec, seed=1)
    assert [test.test for test in finding.refutations if test.test.endswith(f":{name}")] == [f"untested_negative_exposure:{name}"]


def estimate(value: float, error: float, p_value: float | None) -> Estimate:
    return Estimate(
        estimate=value,
        standard_error=error,
        interval=(value - 2 * error, value + 2 * error),
        interval_method="normal",
        p_value=p_value,
        estimator="any",
        estimand="ATE",
        n_treated=100,
        n_untreated=100,
    )


def test_the_p_value_that_is_told_counts_the_tests() -> None:
    told = told_placebo("negative_control:nc", estimate(1.0, 0.4, 0.008), level=0.05 / 10)
    assert told.passed
    assert told.p_value == pytest.approx(0.08)
    assert not told_placebo("negative_control:nc", estimate(1.0, 0.2, 0.001), level=0.05 / 10).passed


def test_an_effect_without_spread_passes_only_at_zero() -> None:
    assert not told_placebo("negative_control:nc", estimate(1.0, 0.0, None), level=0.05).passed
    assert told_placebo("negative_control:nc", estimate(0.0, 0.0, None), level=0.05).passed


def test_p_values_of_several_levels_hold_for_all_at_once() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(5, 400))
    single = tuple(replace(estimate(0.22, 0.1, 0.028), influence=row) for row in rows)
    joint = simultaneous(single, seed=1)
    assert joint[0].p_value == pytest.approx(1.0 - (1.0 - 0.028) ** 5, abs=0.03)


@pytest.mark.parametrize("shape", ["square", "threshold", "sum"])
def test_a_control_that_the_confounders_determine_proves_nothing(shape: str) -> None:
    rng = np.random.default_rng(8)
    n = 1_500
    x, z = rng.normal(size=n), rng.normal(size=n)
    t = (rng.random(n) < 1 / (1 + np.exp(-x - z))).astype(int)
    made = {"square": np.exp(x), "threshold": (x > 0.3).astype(float), "sum": 2.0 * x - z}[shape]
    frame = pl.DataFrame({"x": x, "z": z, "t": t, "made": made, "y": t + x + z + rng.normal(size=n)}).sort("y")
    asked = EffectSpec(treatment="t", outcome="y", confounders=("x", "z"), negative_controls=("made",))
    found = analyse(frame, effect=asked, seed=1)
    assert found.verdict.name == "review"
    assert any("hidden confounding is untested" in reason for reason in found.verdict.reasons)
    told = next(each.detail for each in found.refutations if each.test == "untested_negative_control:made")
    assert "the confounders determine it" in told


def test_a_control_with_noise_of_its_own_is_heard_in_a_table_sorted_by_it() -> None:
    rng = np.random.default_rng(9)
    coarse = rng.integers(0, 3, 3_000).astype(float)
    control = np.sort(coarse + rng.normal(size=3_000))
    assert not follows(control, np.column_stack([np.sort(coarse)]))
    assert follows(np.repeat([1.0, 5.0, 2.0], 1_000), np.repeat([0.0, 1.0, 2.0], 1_000)[:, None])
