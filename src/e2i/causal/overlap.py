"""Overlap of treated and untreated units."""

from __future__ import annotations

import numpy as np

from e2i.causal.arrays import FloatArray
from e2i.causal.design import Average
from e2i.causal.encoding import Covariates
from e2i.causal.estimators.doubly_robust import support
from e2i.domain.evidence import Overlap
from e2i.errors import PositivityViolated

MAXIMUM_OUTSIDE = 0.05
MINIMUM_EFFECTIVE = 0.10
MAXIMUM_AUC = 0.99
_BINS = 25
_EXPECTED = 10.0
_ADVICE = (
    "Restrict the study to units that could have gone either way, ask for their effect (`estimand: ATO`, or `ATT` where only the "
    "untreated lack a choice), or drop confounders that decide treatment without moving the outcome."
)


def weights(treatment: FloatArray, propensity: FloatArray, estimand: Average, *, base: FloatArray | None = None) -> FloatArray:
    """Inverse propensity weights times sampling weights, each arm summing to 1. ATE: 1/e and 1/(1-e); ATT: 1 and e/(1-e)."""
    bounded = np.clip(propensity, *support(float(treatment.mean())))
    if estimand == "ATE":
        raw = np.where(treatment == 1, 1.0 / bounded, 1.0 / (1.0 - bounded))
    else:
        raw = np.where(treatment == 1, 1.0, bounded / (1.0 - bounded))
    raw = raw if base is None else raw * base
    out: FloatArray = raw / np.where(treatment == 1, raw[treatment == 1].sum(), raw[treatment == 0].sum())
    return out


def measure_overlap(treatment: FloatArray, propensity: FloatArray, estimand: Average) -> Overlap:
    """Histograms by arm, share outside the support, effective sample share, propensity AUC.

    For the ATT only propensities above the support count: untreated rows that are never treated are not compared with anybody.
    The effective share is the precision that weighting leaves: (1/n₁ + 1/n₀) / (1/ess₁ + 1/ess₀) with Kish's effective sample
    sizes; 1 in a randomised experiment.

    Parameters
    ----------
    treatment : shape (n,), 0 or 1
    propensity : shape (n,), not clipped
    """
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    treated, untreated = propensity[treatment == 1], propensity[treatment == 0]
    low, high = support(float(treatment.mean()))
    outside = (propensity > high) if estimand == "ATT" else (propensity > high) | (propensity < low)
    return Overlap(
        share_outside=float(outside.mean()),
        effective_share=_effective_share(treatment, weights(treatment, propensity, estimand)),
        propensity_auc=auc(propensity, treatment),
        bin_edges=tuple(edges.tolist()),
        treated_density=tuple(np.histogram(treated, bins=edges, density=True)[0].tolist()),
        untreated_density=tuple(np.histogram(untreated, bins=edges, density=True)[0].tolist()),
    )


def require_overlap(overlap: Overlap, *, propensity: FloatArray, estimand: Average) -> None:
    """Refuse when too many units had practically no choice.

    For the ATT only propensities above the support count: untreated rows that are never treated are not compared with anybody.

    Raises
    ------
    PositivityViolated
        More than 5 % of rows outside the support, effective share below 0.10, or propensity AUC above 0.99.
    """
    low, high = support(float(propensity.mean()))
    above, below = float((propensity > high).mean()), float((propensity < low).mean())
    outside = above if estimand == "ATT" else above + below
    where = f"[{low:.2g}, {high:.4g}]"
    if outside > MAXIMUM_OUTSIDE:
        raise PositivityViolated(
            f"{outside:.1%} of rows have a propensity outside {where} ({below:.1%} below, {above:.1%} above; at most 5 % may).",
            where="treatment",
            advice=_ADVICE,
        )
    if overlap.propensity_auc > MAXIMUM_AUC:
        raise PositivityViolated(
            f"the confounders predict treatment almost perfectly (AUC {overlap.propensity_auc:.3f}).", where="treatment", advice=_ADVICE
        )
    if overlap.effective_share < MINIMUM_EFFECTIVE:
        raise PositivityViolated(
            f"weighting leaves {overlap.effective_share:.1%} of the sample's information; {outside:.1%} of rows lie outside {where}.",
            where="treatment",
            advice=_ADVICE,
        )


def require_both_arms_in_levels(covariates: Covariates, treatment: FloatArray, estimand: Average) -> None:
    """Refuse categories in which everybody, or nobody, is treated although chance would have given at least ten of the other arm.

    Raises PositivityViolated when such levels hold more than 5 % of rows (for the ATT only all-treated levels count).
    """
    share = treatment.mean()
    lost: list[str] = []
    rows = np.zeros(len(treatment), dtype=np.bool_)
    for name, column in zip(covariates.names, covariates.matrix.T, strict=True):
        levels = np.unique(column)
        if len(levels) != 2:
            continue
        for level in levels:
            inside = column == level
            treated = int(treatment[inside].sum())
            all_treated = treated == inside.sum() and inside.sum() * (1.0 - share) >= _EXPECTED
            none_treated = treated == 0 and inside.sum() * share >= _EXPECTED and estimand == "ATE"
            if all_treated or none_treated:
                lost.append(f"{name} = {level:g} ({'all' if all_treated else 'none'} of {int(inside.sum())} treated)")
                rows |= inside
    if rows.mean() > MAXIMUM_OUTSIDE:
        raise PositivityViolated(
            f"{rows.mean():.1%} of rows belong to groups with one arm only: {'; '.join(lost[:5])}.",
            where="treatment",
            advice="Leave these groups out of the study and say so in the question.",
        )


def auc(score: FloatArray, label: FloatArray) -> float:
    """Area under the ROC curve with ties counted half."""
    ordered = np.sort(score)
    ranks = (np.searchsorted(ordered, score, side="left") + np.searchsorted(ordered, score, side="right") + 1) / 2.0
    positive = float(label.sum())
    return float((ranks[label == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(label) - positive)))


def _effective_share(treatment: FloatArray, weight: FloatArray) -> float:
    unweighted, weighted = 0.0, 0.0
    for arm in (0.0, 1.0):
        inside = weight[treatment == arm]
        unweighted += 1.0 / len(inside)
        weighted += float(np.sum(inside**2)) / float(inside.sum()) ** 2
    return unweighted / weighted
