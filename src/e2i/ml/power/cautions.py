"""What a plan cannot promise: limits of transfer, statistical concerns, warnings; each from a measured fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2i.domain.trials import MarketSelection
    from e2i.ml.power.planning import Draft

_FEW_CLUSTERS = 30
_RAGGED = 0.6
_FEW_WINDOWS = 8


def limits(draft: Draft) -> tuple[str, ...]:
    """For whom and when the answer will hold."""
    spec, facts = draft.spec, draft.facts
    out = [f"The effect is that within {spec.follow_up} periods; later ones are not measured."]
    if draft.markets is not None:
        best = draft.markets.recommended
        out.append(f"It is the effect in {', '.join(best.test)}, which hold {best.volume_share:.0%} of the volume.")
    elif facts.units is not None and draft.power.planned_n < facts.units:
        out.append(f"{draft.power.planned_n} of {facts.units} units take part; drawn by chance they stand for the rest, volunteers do not.")
    return tuple(out)


def concerns(draft: Draft) -> tuple[str, ...]:
    """Where formula and data may part."""
    spec, facts, power = draft.spec, draft.facts, draft.power
    out = [*_of_clusters(draft), *_of_windows(draft)]
    if facts.smallest_stratum is not None and facts.smallest_stratum < 4 and draft.design == "stratified":
        out.append("Some strata are too small to split evenly: merge small levels.")
    if facts.outcome_type == "time_to_event":
        out.append("Size is in events under proportional hazards; the event share is that of the table's own follow-up.")
    if power.simulated is not None and not power.simulated.agrees:
        told = power.simulated
        out.append(
            f"On the own table false alarms are {told.size:.3f} (planned {told.nominal_size:g}) and power is {told.power:.3f} "
            f"(formula {told.nominal_power:.3f}): trust the simulation."
        )
    if spec.interim_looks and draft.markets is not None:
        out.append(f"{spec.interim_looks} interim looks were asked for and are not planned: test markets are read at the end alone.")
    if spec.interim_looks and power.interim_inflation > 1.1:
        out.append(f"The looks cost {power.interim_inflation - 1.0:.0%} more units.")
    return tuple(out) if draft.markets is None else (*out, *_of_markets(draft.markets))


def warnings(draft: Draft, *, removed_sentences: int) -> tuple[str, ...]:
    """What a reader must know before using the plan."""
    facts, power = draft.facts, draft.power
    out = []
    if facts.units is None:
        out.append("No table was given: every number rests on `baseline`, and threats are not measured.")
    if power.target_effect is not None and power.required_n is None:
        unit = "set of test regions" if draft.design == "geo" else "sample size"
        out.append(f"No {unit} reaches power {power.target_power:g} for an effect of {power.target_effect:g}.")
    elif power.required_n is not None and power.planned_n < power.required_n:
        out.append(f"{power.required_n} units are required and {power.planned_n} are available.")
    if power.mde is None:
        out.append("No effect that this outcome can show is detectable with these units.")
    if facts.units is not None and power.simulated is None and draft.design != "geo":
        out.append("Power was not simulated on the own table for this design.")
    if facts.period_weeks is None and facts.windows is not None:
        out.append("Periods are no dates: one period is taken as one week.")
    if removed_sentences:
        out.append(f"{removed_sentences} sentences of the language model held numbers that the plan lacks and were removed.")
    return tuple(out)


def _of_clusters(draft: Draft) -> Iterator[str]:
    facts, count = draft.facts, draft.power.planned_clusters
    if count is None:
        return
    if count < _FEW_CLUSTERS:
        yield f"{count} clusters: power rests on a t distribution with few degrees of freedom and on an uncertain ICC."
    if facts.cluster_cv > _RAGGED:
        yield f"Cluster sizes vary by {facts.cluster_cv:.0%} of their mean: a few large clusters carry the result."
    if facts.icc_upper:
        yield (
            f"{facts.clusters} clusters measured an ICC of {facts.icc:.3g}, which is uncertain: the plan takes {facts.icc_upper:.3g}, the "
            "upper end of its one-sided 80 % interval. `baseline.icc` replaces it where more is known."
        )
    elif facts.icc == 0.0 and facts.icc_upper is not None:
        yield (
            f"{facts.clusters} clusters measured an ICC of 0, and so is the upper end of its one-sided 80 % interval. So few may be "
            "alike by chance: give the `baseline.icc` of a similar outcome."
        )
    elif facts.icc == 0.0:
        yield "The ICC is taken as 0: clusters that differ at all cost power."


def _of_windows(draft: Draft) -> Iterator[str]:
    held, asked = draft.facts.windows, draft.facts.asked_windows
    if held is not None and asked is not None and held != asked and draft.markets is None:
        yield (
            f"The panel holds windows of {held[0]} and {held[1]} periods before and after, not {asked[0]} and {asked[1]}: "
            "variances are extrapolated by the fitted covariance over time."
        )


def _of_markets(markets: MarketSelection) -> Iterator[str]:
    best = markets.recommended
    if markets.mde_confirmed > best.mde:
        yield (
            f"On windows that the choice did not see the detectable effect is {markets.mde_confirmed:.4g}, not {best.mde:.4g}: "
            "the larger is planned with."
        )
    if markets.windows < _FEW_WINDOWS:
        yield f"The detectable effect rests on {markets.windows} past windows: it is uncertain itself."
