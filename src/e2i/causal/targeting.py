"""The learned policy in people and money: against present practice, everybody and nobody, and by segment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from e2i.causal.arrays import FloatArray
from e2i.causal.cate.dr_learner import Scores
from e2i.causal.cate.stored import Predicted
from e2i.causal.cate.sums import below, critical_value, freedom_of
from e2i.causal.design import Identification
from e2i.causal.groupings import Grouping, group
from e2i.causal.heterogeneity import kept_rows, usable_modifiers
from e2i.causal.policy import ask, describe, learn, mean_interval, value
from e2i.causal.segments import SegmentEffects
from e2i.domain.disclosure import visible
from e2i.domain.segments import Interval, Policy, PolicyRecommendation

OUTCOME, MONEY = "outcome", "US dollars"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What one unit of outcome is worth and what treating one person costs, in `unit`."""

    value_per_unit: float = 1.0
    cost_per_treated: float = 0.0
    unit: str = OUTCOME
    budget_share: float | None = None
    """at most this share of people is treated"""


def learn_policy(
    frame: pl.DataFrame, predicted: Predicted, segments: SegmentEffects, *, identification: Identification, terms: Terms, seed: int
) -> Policy:
    """The best tree of at most two questions about the modifiers, valued on rows that did not choose it."""
    kept = kept_rows(frame, identification)
    names = usable_modifiers(kept, identification)[0]
    scores = predicted.scores
    reward = terms.value_per_unit * scores.effect - terms.cost_per_treated
    now = terms.value_per_unit * scores.treated_effect - terms.cost_per_treated * scores.treatment
    learned = learn(reward, scores, ask(kept, names), budget_share=terms.budget_share, seed=seed)
    chosen = learned.decided.astype(np.float64)
    judged = replace(scores, weights=scores.weights * learned.judged)
    scores = judged if judged.weights.sum() > 0 else scores
    weights = scores.weights / scores.weights.sum()
    options = {"learned": (chosen * reward, chosen), "everybody": (reward, 1.0 + 0.0 * chosen), "nobody": (0.0 * reward, 0.0 * chosen)}
    options["current"] = (now, scores.treatment)
    values = [value(name, gain, share=float(weights @ who), current=now, scores=scores) for name, (gain, who) in options.items()]
    extra = chosen * scores.effect - scores.treated_effect
    return Policy(
        leaves=describe(learned, predicted.scores.weights),
        values=tuple(values),
        expected_total_lift=mean_interval(scores.weights * extra, scores, float(scores.weights.sum()), times=float(len(reward))),
        recommendations=_recommend(scores, chosen, extra, [group(kept[name]) for name in names], segments),
        unit=terms.unit,
        cost_per_treated=terms.cost_per_treated,
        budget_share=terms.budget_share,
        interval_method=f"doubly robust, each part decided by the tree of the parts before it, {critical_value(scores.cluster)[1]}",
    )


def _recommend(
    scores: Scores, chosen: FloatArray, extra: FloatArray, groupings: list[Grouping], segments: SegmentEffects
) -> tuple[PolicyRecommendation, ...]:
    """Rates and the outcome that the change brings, for every segment with an effect."""
    out, critical, freedom = [], critical_value(scores.cluster)[0], freedom_of(scores.cluster)
    for item in groupings:
        for level, effect in enumerate(segments.by_modifier[item.modifier]):
            members = item.codes == level
            weights = scores.weights * members
            if effect.status != "estimated" or not weights.sum() > 0:
                continue
            treated = int(chosen[members].sum())
            is_shown = visible(treated) is not None and visible(int(members.sum()) - treated) is not None
            lift = _total(scores, weights * extra)
            spread = (lift.high - lift.low) / 2.0
            ratio = critical * lift.estimate / spread if spread > 0 else 0.0
            out.append(
                PolicyRecommendation(
                    segment=f"{item.modifier} {item.labels[level]}",
                    current_treatment_rate=effect.treatment_rate,
                    recommended_treatment_rate=float(weights @ chosen / weights.sum()) if is_shown else None,
                    expected_incremental_outcome=lift,
                    confidence=below(ratio, freedom),
                )
            )
    return tuple(out)


def _total(scores: Scores, contributions: FloatArray) -> Interval:
    """A sum over people with its interval."""
    return mean_interval(contributions, scores, float(scores.weights.sum()), times=float(len(contributions)))
