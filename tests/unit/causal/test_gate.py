from __future__ import annotations

from dataclasses import replace

import pytest

from e2i.causal.gate import judge
from e2i.causal.hazards import Concern
from e2i.domain.evidence import BalanceRow, Effect, Overlap, Refutation, Verdict

EFFECT = Effect(
    estimand="ATE",
    design="cross_section",
    estimator="x",
    estimate=1.0,
    standard_error=0.1,
    n_treated=500,
    n_untreated=500,
    naive_difference=2.0,
    outcome_mean_untreated=3.0,
    diagnostics={"fold_spread": 0.1, "largest_row_share": 0.01, "weighting_gap": 0.5},
)
OVERLAP = Overlap(
    share_outside=0.0, effective_share=0.8, propensity_auc=0.7, bin_edges=(0.0, 1.0), treated_density=(1.0,), untreated_density=(1.0,)
)
BALANCE = (
    BalanceRow(covariate="decile", smd_before=0.6, smd_after=0.02, error_after=0.03),
    BalanceRow(covariate="calls", smd_before=0.3, smd_after=-0.03, error_after=0.03),
)
TESTS = tuple(
    Refutation(test=name, passed=True, detail="fine")
    for name in ("placebo_treatment", "subset_stability", "random_common_cause", "negative_control:other", "hidden_confounder_bound")
)


def verdict(
    effect: Effect = EFFECT,
    overlap: Overlap = OVERLAP,
    balance: tuple[BalanceRow, ...] = BALANCE,
    refutations: tuple[Refutation, ...] = TESTS,
    concerns: tuple[Concern, ...] = (),
) -> Verdict:
    return judge(effect, overlap=overlap, balance=balance, refutations=refutations, concerns=concerns)


def failing(test: str) -> tuple[Refutation, ...]:
    return tuple(replace(r, passed=False, detail="should be zero.") if r.test.startswith(test) else r for r in TESTS)


def diagnosed(**values: float) -> Effect:
    return replace(EFFECT, diagnostics=EFFECT.diagnostics | values)


def balanced(smd: float, error: float = 0.03) -> tuple[BalanceRow, ...]:
    return (BALANCE[0], replace(BALANCE[1], smd_after=smd, error_after=error))


def test_an_effect_that_survives_everything_may_be_told() -> None:
    assert verdict().name == "proceed"
    assert "negative control" in verdict().reasons[0]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"balance": balanced(-0.11)}, "review"),
        ({"balance": balanced(0.26)}, "block"),
        ({"balance": balanced(0.26, error=0.2)}, "review"),
        ({"refutations": failing("negative_control")}, "block"),
        ({"refutations": failing("placebo_treatment")}, "review"),
        ({"refutations": failing("subset_stability")}, "review"),
        ({"refutations": failing("random_common_cause")}, "review"),
        ({"refutations": tuple(r for r in TESTS if not r.test.startswith("negative"))}, "review"),
        ({"refutations": tuple(r for r in TESTS if r.test != "subset_stability")}, "review"),
        ({"overlap": replace(OVERLAP, share_outside=0.03)}, "review"),
        ({"overlap": replace(OVERLAP, effective_share=0.2)}, "review"),
        ({"effect": replace(EFFECT, n_treated=60)}, "review"),
        ({"effect": diagnosed(fold_spread=0.7)}, "review"),
        ({"effect": diagnosed(fold_spread=1.4)}, "block"),
        ({"effect": diagnosed(largest_row_share=0.3)}, "review"),
        ({"effect": diagnosed(largest_row_share=0.6)}, "review"),
        ({"effect": diagnosed(weighting_gap=-3.5)}, "review"),
        ({"concerns": (Concern(severity="review", text="odd"),)}, "review"),
        ({"concerns": (Concern(severity="block", text="copies"),)}, "block"),
    ],
    ids=str,
)
def test_each_weakness_has_its_verdict(given: dict[str, object], name: str) -> None:
    found = verdict(**given)  # type: ignore[arg-type]
    assert found.name == name
    assert len(found.reasons) == 1
    assert found.reasons[0].endswith(".") or found.reasons[0] in ("odd", "copies")


def test_the_bound_on_hidden_confounding_is_never_a_criterion() -> None:
    assert verdict(refutations=failing("hidden_confounder_bound")).name == "proceed"


def test_what_blocks_is_said_before_what_needs_review() -> None:
    found = verdict(refutations=failing("negative_control"), balance=balanced(0.15))
    assert found.name == "block"
    assert found.reasons[0].startswith("Negative control failed")
    assert "unbalanced" in found.reasons[1]
