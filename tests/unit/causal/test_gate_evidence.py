"""The gate takes the evidence of any design: hazards, specifications, controls, a lottery."""

from __future__ import annotations

from dataclasses import replace

import pytest

from e2i.causal.gate import Evidence, weigh
from e2i.causal.hazards import Concern
from e2i.domain.evidence import BalanceRow, Effect, Hazard, Overlap, Refutation, SpecificationPoint

PANEL = Effect(
    estimand="ATT",
    design="did",
    estimator="Callaway-Sant'Anna",
    estimate=1.0,
    standard_error=0.1,
    n_treated=3,
    n_untreated=40,
    naive_difference=None,
    outcome_mean_untreated=3.0,
)
CROSS = replace(PANEL, design="cross_section", n_treated=500, n_untreated=500)


def passing(*tests: str) -> tuple[Refutation, ...]:
    return tuple(Refutation(test=test, passed=True, detail="fine.") for test in tests)


def failing(test: str) -> Refutation:
    return Refutation(test=test, passed=False, detail="should be zero.")


def hazard(action: str) -> Hazard:
    return Hazard(code="x", action=action, text="odd.")  # type: ignore[arg-type]


def test_a_panel_with_a_flat_past_may_be_told_without_overlap_or_balance() -> None:
    verdict = weigh(PANEL, Evidence(refutations=passing("pre_trend", "placebo_in_time")))
    assert verdict.name == "proceed"
    assert verdict.reasons == ("Passed: pre trend, placebo in time.",)


@pytest.mark.parametrize("design", ["did", "cross_section", "synthetic_control"])
def test_without_earlier_outcomes_or_controls_the_verdict_is_at_most_review(design: str) -> None:
    others = passing("placebo_treatment", "subset_stability", "placebo_in_space", "carry_over", "bias_bound")
    verdict = weigh(replace(CROSS, design=design), Evidence(refutations=others))
    assert verdict.name == "review"
    assert "hidden confounding is untested" in verdict.reasons[0]


@pytest.mark.parametrize(
    "test",
    [
        "pre_trend",
        "placebo_in_time",
        "negative_control:other",
        "negative_exposure:other",
        "pre_period_placebo:before",
        "pre_period_trend:a to b",
        "placebo_previous_period:switchers",
        "placebo_leads:next period",
    ],
)
def test_what_shows_a_wrong_effect_blocks(test: str) -> None:
    assert weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), failing(test)))).name == "block"


@pytest.mark.parametrize(
    "test",
    ["carry_over", "placebo_in_space", "bias_bound", "bootstrap", "dummy_outcome", "covariate_timing", "pre_period_placebo_adjusted:x"],
)
def test_what_only_casts_doubt_asks_for_a_person(test: str) -> None:
    assert weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), failing(test)))).name == "review"


@pytest.mark.parametrize(("p_value", "name"), [(0.001, "block"), (0.03, "review")])
def test_an_alarm_that_chance_may_have_raised_asks_for_a_person(p_value: float, name: str) -> None:
    alarm = replace(failing("negative_control:other"), p_value=p_value)
    assert weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), alarm))).name == name


def test_a_rank_test_at_its_smallest_p_value_blocks() -> None:
    alarm = replace(failing("negative_control:other"), p_value=1 / 31, smallest_p=1 / 31)
    assert weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), alarm))).name == "block"
    assert weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), replace(alarm, p_value=2 / 31)))).name == "review"


@pytest.mark.parametrize("test", ["placebo_previous_period:switchers", "placebo_leads:next period"])
def test_a_flat_past_before_each_switch_does_not_vouch_for_what_comes_and_goes_with_treatment(test: str) -> None:
    verdict = weigh(PANEL, Evidence(refutations=passing(test)))
    assert verdict.name == "review"
    assert "a cause that comes and goes with treatment" in verdict.reasons[0]


@pytest.mark.parametrize("test", ["hidden_confounder_bound", "confounder_benchmarks"])
def test_what_is_only_reported_neither_fails_nor_counts_as_evidence(test: str) -> None:
    assert weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), failing(test)))).name == "proceed"
    reported = Refutation(test="negative_control:x", passed=True, detail="", is_reported_only=True)
    assert weigh(PANEL, Evidence(refutations=(reported,))).name == "review"


@pytest.mark.parametrize(
    ("action", "name"), [("refuse", "block"), ("block", "block"), ("review", "review"), ("override", "review"), ("warn", "proceed")]
)
def test_hazards_are_weighed_by_their_action(action: str, name: str) -> None:
    verdict = weigh(PANEL, Evidence(refutations=passing("pre_trend"), hazards=(hazard(action),)))
    assert verdict.name == name
    if action == "override":
        assert verdict.reasons == ("overridden by a person: odd.",)


def test_estimators_that_disagree_block() -> None:
    points = tuple(
        SpecificationPoint(
            estimator=name, sample="all rows", adjustment="all confounders", estimate=value, low=value - 0.2, high=value + 0.2
        )
        for name, value in (("doubly robust, stacked learners", 1.0), ("regression adjustment", -1.0))
    )
    verdict = weigh(PANEL, Evidence(refutations=passing("pre_trend"), specifications=points))
    assert verdict.name == "block"
    assert verdict.reasons[0].startswith("unreliable")


def test_a_lottery_needs_no_control() -> None:
    even = tuple(BalanceRow(covariate=f"x{j}", smd_before=0.05, smd_after=0.0, error_after=0.1) for j in range(10))
    fair = Evidence(refutations=passing("subset_stability"), balance=even, is_randomised=True)
    assert weigh(CROSS, fair).name == "proceed"


@pytest.mark.parametrize("broken", [{"estimate": float("nan")}, {"bounds": (float("nan"), 1.0)}])
def test_a_number_that_is_none_blocks(broken: dict[str, object]) -> None:
    assert weigh(replace(PANEL, **broken), Evidence(refutations=passing("pre_trend"))).name == "block"  # type: ignore[arg-type]


NAN = float("nan")
WELL = Overlap(share_outside=0.0, effective_share=0.9, propensity_auc=0.6, bin_edges=(), treated_density=(), untreated_density=())


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(overlap=replace(WELL, share_outside=NAN)),
        Evidence(overlap=replace(WELL, effective_share=NAN)),
        Evidence(balance=(BalanceRow(covariate="a", smd_before=0.1, smd_after=NAN, error_after=0.1),)),
        Evidence(refutations=(replace(failing("negative_control:other"), p_value=NAN),)),
    ],
    ids=["share outside", "information left", "balance", "p-value"],
)
def test_evidence_that_could_not_be_measured_blocks(evidence: Evidence) -> None:
    sound = (*passing("pre_trend", "subset_stability"), *evidence.refutations)
    assert weigh(CROSS, replace(evidence, refutations=sound)).name == "block"


@pytest.mark.parametrize("name", ["fold_spread", "largest_row_share", "weighting_gap"])
def test_a_diagnostic_that_could_not_be_measured_blocks(name: str) -> None:
    assert weigh(replace(PANEL, diagnostics={name: NAN}), Evidence(refutations=passing("pre_trend"))).name == "block"


def test_an_interval_without_end_is_not_waved_through() -> None:
    open_end = replace(PANEL, bounds=(0.1, float("inf")))
    assert weigh(open_end, Evidence(refutations=passing("pre_trend"))).name == "review"


def test_a_blocked_estimate_is_not_told_by_the_reasons_beside() -> None:
    bound = Refutation(test="bias_bound", passed=False, detail="more than the half of the effect that is allowed (0.352).")
    blocked = weigh(PANEL, Evidence(refutations=(failing("pre_trend"), bound)))
    assert blocked.name == "block"
    assert "Bias bound failed." in blocked.reasons
    assert not any("0.352" in reason for reason in blocked.reasons)
    assert "0.352" in weigh(PANEL, Evidence(refutations=(*passing("pre_trend"), bound))).reasons[0]


def test_the_same_reason_is_told_once() -> None:
    twice = (Concern(severity="review", text="odd."),) * 2
    assert weigh(PANEL, Evidence(refutations=passing("pre_trend"), concerns=twice)).reasons == ("odd.",)
