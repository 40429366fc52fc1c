"""Whether an effect may be told: decided from measured evidence, in words."""

from __future__ import annotations

from collections.abc import Sequence

from e2i.causal.hazards import Concern
from e2i.domain.evidence import BalanceRow, Effect, Overlap, Refutation, Verdict

SMD_REVIEW, SMD_BLOCK = 0.10, 0.25
_OUTSIDE_REVIEW = 0.02
_EFFECTIVE_REVIEW = 0.30
_FEW_PER_ARM = 100
_FOLD_REVIEW, _FOLD_BLOCK = 0.5, 1.0
_ROW_REVIEW, _ROW_BLOCK = 0.20, 0.50
_DISAGREEMENT = 3.0
_BLOCKING = ("negative_control", "placebo_treatment")
_REPORTED = "hidden_confounder_bound"


def judge(
    effect: Effect,
    *,
    overlap: Overlap,
    balance: Sequence[BalanceRow],
    refutations: Sequence[Refutation],
    concerns: Sequence[Concern] = (),
) -> Verdict:
    """`block` when anything blocks, `review` when anything needs a person's eye, else `proceed`.

    A study without a negative control cannot proceed unseen: placebo, subset and random-cause tests pass in worlds with a
    hidden confounder, a negative control does not. The bound on hidden confounding is never a criterion.
    """
    found = [
        *concerns,
        *_about_overlap(overlap),
        *_about_balance(balance),
        *_about_effect(effect),
        *_about_refutations(refutations),
    ]
    blocking = tuple(concern.text for concern in found if concern.severity == "block")
    reviewing = tuple(concern.text for concern in found if concern.severity == "review")
    if blocking:
        return Verdict(name="block", reasons=(*blocking, *reviewing))
    if reviewing:
        return Verdict(name="review", reasons=reviewing)
    passed = ", ".join(dict.fromkeys(r.test.split(":")[0].replace("_", " ") for r in refutations if r.test != _REPORTED))
    return Verdict(name="proceed", reasons=(f"Overlap and balance are good; passed: {passed}.",))


def _about_overlap(overlap: Overlap) -> list[Concern]:
    found = []
    if overlap.share_outside > _OUTSIDE_REVIEW:
        found.append(_review(f"{overlap.share_outside:.1%} of rows have a propensity outside [0.01, 0.99]."))
    if overlap.effective_share < _EFFECTIVE_REVIEW:
        found.append(_review(f"weighting leaves {overlap.effective_share:.0%} of the sample's information."))
    return found


def _about_balance(balance: Sequence[BalanceRow]) -> list[Concern]:
    worst = max(balance, key=lambda row: abs(row.smd_after), default=None)
    if worst is None or abs(worst.smd_after) <= SMD_REVIEW:
        return []
    over = sum(abs(row.smd_after) > SMD_REVIEW for row in balance)
    text = (
        f"{over} of {len(balance)} covariates stay unbalanced after weighting (|SMD| > {SMD_REVIEW}); "
        f"worst `{worst.covariate}` at {worst.smd_after:+.2f}."
    )
    return [Concern(severity="block" if abs(worst.smd_after) > SMD_BLOCK else "review", text=text)]


def _about_effect(effect: Effect) -> list[Concern]:
    found = []
    smaller = min(effect.n_treated, effect.n_untreated)
    if smaller < _FEW_PER_ARM:
        found.append(_review(f"the smaller arm has {smaller} rows."))
    spread = effect.diagnostics.get("fold_spread", 0.0)
    if spread > _FOLD_REVIEW:
        text = f"the estimate moves by {spread:.2f} standard errors when rows are divided into folds anew."
        found.append(Concern(severity="block" if spread > _FOLD_BLOCK else "review", text=text))
    single = effect.diagnostics.get("largest_row_share", 0.0)
    if single > _ROW_REVIEW:
        text = f"one row carries {single:.0%} of the estimate's variance."
        found.append(Concern(severity="block" if single > _ROW_BLOCK else "review", text=text))
    gap = effect.diagnostics.get("weighting_gap", 0.0)
    if abs(gap) > _DISAGREEMENT:
        found.append(_review(f"weighting alone and the doubly robust estimate differ by {abs(gap):.1f} standard errors."))
    return found


def _about_refutations(refutations: Sequence[Refutation]) -> list[Concern]:
    found = [
        Concern(
            severity="block" if refutation.test.startswith(_BLOCKING) else "review",
            text=f"{_title(refutation)} failed. {refutation.detail}",
        )
        for refutation in refutations
        if not refutation.passed and refutation.test != _REPORTED
    ]
    kinds = {refutation.test.split(":")[0] for refutation in refutations}
    if "negative_control" not in kinds:
        found.append(_review("no negative control outcome was tested, so hidden confounding is untested: no test here can exclude it."))
    if "subset_stability" not in kinds:
        found.append(_review("too few rows to compare two halves."))
    return found


def _title(refutation: Refutation) -> str:
    return refutation.test.split(":")[0].replace("_", " ").capitalize()


def _review(text: str) -> Concern:
    return Concern(severity="review", text=text)
