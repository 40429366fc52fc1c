"""Whether an effect may be told: decided from measured evidence, in words. One gate for every design.

How often it lets a wrong effect pass, and how often it blocks a right one, is measured: see docs/causal-gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from e2i.causal.hazards import Concern
from e2i.causal.specification import disagreement, disagreement_beside
from e2i.domain.disclosure import visible
from e2i.domain.effect_report import tells_estimate
from e2i.domain.evidence import BalanceRow, Effect, Hazard, Overlap, Refutation, SpecificationPoint, Verdict

SMD_REVIEW, SMD_BLOCK = 0.10, 0.25
_OUTSIDE_REVIEW = 0.02
_EFFECTIVE_REVIEW = 0.30
_FEW_PER_ARM = 100
_FOLD_REVIEW, _FOLD_BLOCK = 0.5, 1.0
_ROW_REVIEW = 0.20
_DISAGREEMENT = 3.0
_BEYOND_DOUBT = 0.01
"""a test that blocks does so below this p-value; an alarm above it asks for a person"""
_BLOCKING = frozenset(
    (
        "negative_control",
        "negative_exposure",
        "pre_period_placebo",
        "pre_period_trend",
        "pre_trend",
        "placebo_in_time",
        "placebo_previous_period",
        "placebo_leads",
    )
)
_SEES_HIDDEN_BIAS = frozenset(
    (
        "negative_control",
        "negative_exposure",
        "pre_period_placebo",
        "pre_period_placebo_adjusted",
        "pre_trend",
        "placebo_in_time",
        "pre_fit",
    )
)
_BEFORE_A_SWITCH = frozenset(("placebo_previous_period", "placebo_leads"))
"""they see what lasts, not what comes and goes together with a treatment that is on and off"""
_DIAGNOSTICS = ("fold_spread", "largest_row_share", "weighting_gap")
_REPORTED = frozenset(("hidden_confounder_bound", "confounder_benchmarks"))
_ONE_ROW_PER_UNIT = frozenset(("cross_section", "matched", "iv"))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the gate weighs. What a design does not have stays empty; `overlap` and `balance` belong to one row per unit."""

    overlap: Overlap | None = None
    balance: Sequence[BalanceRow] = ()
    refutations: Sequence[Refutation] = ()
    concerns: Sequence[Concern] = ()
    hazards: Sequence[Hazard] = ()
    specifications: Sequence[SpecificationPoint] = ()
    alternatives: Sequence[Effect] = ()
    is_randomised: bool = False
    is_dose: bool = False


def weigh(effect: Effect, evidence: Evidence) -> Verdict:
    """`block` when anything blocks, `review` when anything needs a person's eye, else `proceed`.

    Without earlier outcomes and without a negative control an effect cannot proceed unseen, unless treatment was assigned by
    chance: placebo, subset and random-cause tests pass in worlds with a hidden confounder. Bounds, benchmarks and the E-value
    are never a criterion.
    """
    judged = [refutation for refutation in evidence.refutations if not _is_reported(refutation)]
    is_adjusted = evidence.overlap is not None
    found = [
        *evidence.concerns,
        *_about_hazards(evidence.hazards),
        *([] if effect.estimand == "ATO" else _about_overlap(evidence.overlap)),
        *([] if evidence.is_randomised else _about_balance(evidence.balance)),
        *_about_effect(effect, is_dose=evidence.is_dose),
        *_about_refutations(judged),
        *_about_what_is_missing(effect, judged, is_randomised=evidence.is_randomised, is_adjusted=is_adjusted),
        *disagreement(evidence.specifications),
        *disagreement_beside(effect, evidence.alternatives),
    ]
    blocking = tuple(dict.fromkeys(concern.text for concern in found if concern.severity == "block"))
    if blocking:
        others = dict.fromkeys(concern.without_estimate or concern.text for concern in found if concern.severity == "review")
        return Verdict(name="block", reasons=(*blocking, *others))
    reviewing = tuple(dict.fromkeys(concern.text for concern in found if concern.severity == "review"))
    if reviewing:
        return Verdict(name="review", reasons=reviewing)
    passed = ", ".join(dict.fromkeys(_title(refutation).lower() for refutation in judged))
    good = "Overlap and balance are good; passed" if evidence.overlap is not None else "Passed"
    return Verdict(name="proceed", reasons=(f"{good}: {passed}." if passed else "Treatment was assigned by chance.",))


def judge(
    effect: Effect,
    *,
    overlap: Overlap | None,
    balance: Sequence[BalanceRow],
    refutations: Sequence[Refutation],
    concerns: Sequence[Concern] = (),
) -> Verdict:
    """`weigh` for a cross-section without hazards and specifications."""
    return weigh(effect, Evidence(overlap=overlap, balance=balance, refutations=refutations, concerns=concerns))


def _about_hazards(hazards: Sequence[Hazard]) -> list[Concern]:
    """An override that a person gave stays visible."""
    found = []
    for hazard in hazards:
        if hazard.action in ("block", "refuse"):
            found.append(Concern(severity="block", text=hazard.text))
        elif hazard.action == "review":
            found.append(_review(hazard.text))
        elif hazard.action == "override":
            found.append(_review(f"overridden by a person: {hazard.text}"))
    return found


def _about_overlap(overlap: Overlap | None) -> list[Concern]:
    if overlap is None:
        return []
    if not (math.isfinite(overlap.share_outside) and math.isfinite(overlap.effective_share)):
        return [_unmeasured("overlap")]
    found = []
    if overlap.share_outside > _OUTSIDE_REVIEW:
        found.append(_review(f"{overlap.share_outside:.1%} of rows were almost sure to be treated, or not to be."))
    if overlap.effective_share < _EFFECTIVE_REVIEW:
        found.append(_review(f"weighting leaves {overlap.effective_share:.0%} of the sample's information."))
    return found


def _about_balance(balance: Sequence[BalanceRow]) -> list[Concern]:
    """Weighted arms that differ more than a tenth of a standard deviation; a block needs a difference that chance does not explain.

    The largest of k standard normal figures, of either sign, is about √(2 log 2k).
    """
    if any(math.isnan(row.smd_after) or math.isnan(row.error_after) for row in balance):
        return [_unmeasured("balance")]
    worst = max(balance, key=lambda row: abs(row.smd_after), default=None)
    if worst is None or abs(worst.smd_after) <= SMD_REVIEW:
        return []
    over = sum(abs(row.smd_after) > SMD_REVIEW for row in balance)
    text = (
        f"{over} of {len(balance)} covariates stay unbalanced after weighting (|SMD| > {SMD_REVIEW}); "
        f"worst `{worst.covariate}` at {worst.smd_after:+.2f}."
    )
    largest = math.sqrt(2.0 * math.log(2 * len(balance)))
    is_clear = any(abs(row.smd_after) > max(SMD_BLOCK, largest * row.error_after) for row in balance)
    return [Concern(severity="block" if is_clear else "review", text=text)]


def _about_effect(effect: Effect, *, is_dose: bool) -> list[Concern]:
    found = []
    low, high = effect.bounds if effect.bounds is not None else effect.interval()
    if not math.isfinite(effect.estimate) or math.isnan(low) or math.isnan(high):
        return [Concern(severity="block", text="the estimate or its interval is not a number.")]
    if math.isinf(low) or math.isinf(high):
        found.append(_review("the interval has no end: these data cannot bound the effect."))
    has_arms = effect.n_untreated > 0 and not is_dose
    smaller = min(effect.n_treated, effect.n_untreated) if has_arms else effect.n_treated + effect.n_untreated
    if effect.design in _ONE_ROW_PER_UNIT and smaller < _FEW_PER_ARM:
        what = "the smaller arm has" if has_arms else "there are"
        found.append(_review(f"{what} {smaller if visible(smaller) is not None else 'fewer than 11'} rows."))
    found += [_unmeasured(name.replace("_", " ")) for name in _DIAGNOSTICS if math.isnan(effect.diagnostics.get(name, 0.0))]
    spread = effect.diagnostics.get("fold_spread", 0.0)
    if spread > _FOLD_REVIEW:
        text = f"the estimate moves by {spread:.2f} standard errors when rows are divided into folds anew."
        found.append(Concern(severity="block" if spread > _FOLD_BLOCK else "review", text=text))
    single = effect.diagnostics.get("largest_row_share", 0.0)
    if single > _ROW_REVIEW:
        found.append(_review(f"one row carries {single:.0%} of the estimate's variance."))
    gap = effect.diagnostics.get("weighting_gap", 0.0)
    if abs(gap) > _DISAGREEMENT:
        found.append(_review(f"weighting alone and the doubly robust estimate differ by {abs(gap):.1f} standard errors."))
    return found


def _about_refutations(judged: Sequence[Refutation]) -> list[Concern]:
    found = []
    for refutation in judged:
        if refutation.passed:
            continue
        severity: Literal["block", "review"] = "block" if _kind(refutation) in _BLOCKING and _is_clear(refutation) else "review"
        failed = f"{_title(refutation)} failed."
        brief = failed if tells_estimate(refutation.test) else None
        found.append(Concern(severity=severity, text=f"{failed} {refutation.detail}", without_estimate=brief))
    return found


def _is_clear(refutation: Refutation) -> bool:
    """Beyond what chance explains: a small p-value, the smallest that a rank test can give, or one that is no number."""
    p_value, smallest = refutation.p_value, refutation.smallest_p
    if p_value is None or math.isnan(p_value):
        return True
    return p_value < _BEYOND_DOUBT or (smallest is not None and p_value <= smallest)


def _about_what_is_missing(effect: Effect, judged: Sequence[Refutation], *, is_randomised: bool, is_adjusted: bool) -> list[Concern]:
    kinds = {_kind(refutation) for refutation in judged}
    found = []
    if not kinds & _SEES_HIDDEN_BIAS and not is_randomised:
        before = (
            "the periods before a switch do not show a cause that comes and goes with treatment, and no negative control outcome was tested"
            if kinds & _BEFORE_A_SWITCH
            else "no negative control outcome was tested and no outcome before treatment"
        )
        found.append(_review(f"{before}, so hidden confounding is untested: no test here can exclude it."))
    if effect.design == "cross_section" and is_adjusted and "subset_stability" not in kinds:
        found.append(_review("too few rows to compare two halves."))
    return found


def _is_reported(refutation: Refutation) -> bool:
    return refutation.is_reported_only or _kind(refutation) in _REPORTED


def _kind(refutation: Refutation) -> str:
    return refutation.test.split(":")[0]


def _title(refutation: Refutation) -> str:
    return _kind(refutation).replace("_", " ").capitalize()


def _unmeasured(what: str) -> Concern:
    """What is not a number compares with no threshold; it must not pass for that."""
    return Concern(severity="block", text=f"the {what} could not be measured.")


def _review(text: str) -> Concern:
    return Concern(severity="review", text=text)
