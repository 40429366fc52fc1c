"""What could make the experiment mislead: rules over measured facts, after Shadish, Cook & Campbell (2002)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2i.domain.trials import Level, Recommendation, ValidityScore, ValidityThreat

if TYPE_CHECKING:
    from e2i.domain.trials import SimulatedPower
    from e2i.ml.power.planning import Draft

_WORTH: dict[Level, int] = {"low": 0, "medium": 1, "high": 2}
ATTRITION = 0.15
CONTAMINATION = 0.05
_FEW = 100
_FEW_CLUSTERS, _FEWEST_CLUSTERS = 12, 10


def find_threats(draft: Draft) -> tuple[ValidityThreat, ...]:
    """One threat of each kind, with the fact that sets its likelihood."""
    return tuple(rule(draft) for rule in (_selection, _confounding, _measurement, _contamination, _temporal, _attrition))


def judge(draft: Draft, threats: tuple[ValidityThreat, ...]) -> tuple[ValidityScore, Recommendation]:
    """Score and recommendation.

    weak: an open threat that is likely and severe, or power below 0.5; strong: no open threat above medium likelihood and low
    severity, power (where an effect is named) as asked and borne out on the own table, and ten clusters or more where whole clusters
    are assigned; moderate: what is between.
    """
    open_ = [_WORTH[each.likelihood] + _WORTH[each.severity] for each in threats if not each.mitigated]
    worst = max(open_, default=0)
    achieved, wanted = draft.power.achieved_power, draft.power.target_power
    is_short = achieved is not None and achieved < wanted - 1e-6
    if worst >= 4 or (achieved is not None and achieved < 0.5):
        return "weak", "redesign_needed"
    if is_short:
        return "moderate", "redesign_needed"
    power = draft.power
    is_doubtful = power.mde is None or draft.facts.units is None or _promises_too_much(power.simulated)
    is_small = power.planned_clusters is not None and power.planned_clusters < _FEWEST_CLUSTERS
    if worst >= 3 or draft.design == "geo" or is_doubtful or is_small:
        return "moderate", "proceed_with_caution"
    return "strong", "proceed"


def _promises_too_much(simulated: SimulatedPower | None) -> bool:
    """More false alarms, or less power, on the own table than the formula tells."""
    if simulated is None:
        return False
    return simulated.size_interval[0] > simulated.nominal_size or simulated.power_interval[1] < simulated.nominal_power


def _selection(draft: Draft) -> ValidityThreat:
    facts, spec = draft.facts, draft.spec
    left_out = facts.missing_covariates
    if draft.design == "geo":
        return _threat(
            "selection_bias",
            "Test regions are chosen by fit, not by chance: they may differ from others in what is to come.",
            "medium",
            "high",
            "Draw the test set by chance among candidates of like detectable effect.",
            "low",
            "the design is not randomised",
            None,
        )
    if spec.units_available is not None and facts.units is not None and spec.units_available < 0.5 * facts.units:
        share = spec.units_available / facts.units
        return _threat(
            "selection_bias",
            "Those who can be enrolled may not stand for all.",
            "medium",
            "medium",
            "Draw the enrolled units by chance from the whole list and compare them with the rest.",
            "low",
            f"{share:.0%} of the units in the table can take part",
            share,
        )
    likelihood: Level = "high" if left_out > 0.2 else "medium" if left_out > 0.05 else "low"
    return _threat(
        "selection_bias",
        "Units without known covariates are left out.",
        likelihood,
        "medium",
        "Fill in the covariates, or block on whether they are known.",
        "medium",
        "no table to measure it in" if facts.units is None else f"{left_out:.1%} of units lack a covariate",
        left_out,
    )


def _confounding(draft: Draft) -> ValidityThreat:
    power = draft.power
    text = "Chance leaves the arms unequal in what moves the outcome."
    if draft.markets is not None:
        r2 = draft.markets.recommended.pre_fit_r2
        likelihood: Level = "low" if r2 > 0.9 else "medium" if r2 > 0.6 else "high"
        return _threat(
            "confounding",
            "Test and control regions may drift apart for other reasons.",
            likelihood,
            "high",
            "Add regions or history until the controls follow the test regions.",
            "medium",
            f"the controls explain {r2:.0%} of the test regions' movement before the test",
            r2,
        )
    arms = power.planned_clusters if power.planned_clusters is not None else power.planned_n
    few = _FEW_CLUSTERS if power.planned_clusters is not None else _FEW
    is_blocked = bool(draft.spec.strata) or draft.analysis in ("ancova", "paired", "double_difference")
    unit = "clusters" if power.planned_clusters is not None else "units"
    return _threat(
        "confounding",
        text,
        "high" if arms < few / 2 else "medium" if arms < few else "low",
        "medium",
        "Block on, or adjust for, a covariate that predicts the outcome.",
        "low",
        f"{arms} {unit}: a standardised difference of {2.0 / max(arms, 1) ** 0.5:.2f} is one standard error",
        float(arms),
        is_blocked,
    )


def _measurement(draft: Draft) -> ValidityThreat:
    facts = draft.facts
    missing, top = facts.missing_outcome, facts.concentration
    if missing > 0.05:
        return _threat(
            "measurement",
            "The outcome is not known for everybody; whether it is may depend on the arm.",
            "high" if missing > 0.15 else "medium",
            "high" if missing > 0.15 else "medium",
            "Measure the outcome from a source that does not depend on the unit's cooperation.",
            "medium",
            f"{missing:.1%} of units have no outcome in the table",
            missing,
        )
    if top is not None and top > 0.2:
        return _threat(
            "measurement",
            "A few units hold much of the outcome and swing the mean.",
            "medium",
            "medium",
            "Stratify by outcome decile, or fix a cap on the outcome in the plan.",
            "low",
            f"1 % of units hold {top:.0%} of the outcome",
            top,
        )
    return _threat(
        "measurement",
        "The outcome is recorded wrongly, or restated later.",
        "low" if facts.units is not None else "medium",
        "medium",
        "Fix the data vintage in the plan and measure both arms from the same source.",
        "low",
        f"{missing:.1%} of units have no outcome in the table" if facts.units is not None else "no table to measure it in",
        missing,
    )


def _contamination(draft: Draft) -> ValidityThreat:
    facts, spec = draft.facts, draft.spec
    text = "Untreated units are reached through a shared practice, territory or colleague."
    advice = "Assign whole practices or territories."
    if draft.design == "cluster_rct":
        beyond = {name: share for name, share in facts.shared.items() if name != spec.cluster}
        leak = max(beyond.values(), default=0.0)
        if leak <= CONTAMINATION:
            return _threat(
                "contamination",
                text,
                "low",
                "high",
                advice,
                "medium",
                f"clusters `{spec.cluster or 'given'}` are assigned whole",
                0.0,
                True,
            )
    leaks = {name: share for name, share in facts.shared.items() if draft.design != "cluster_rct" or name != spec.cluster}
    if not leaks:
        return _threat(
            "contamination",
            text,
            "medium" if draft.design != "geo" else "low",
            "medium",
            "Name `shared` columns to have it measured. " + advice,
            "medium",
            "no column was named over which treatment could leak",
            None,
        )
    worst = max(sorted(leaks), key=lambda name: leaks[name])
    share = leaks[worst]
    return _threat(
        "contamination",
        text,
        "high" if share > 0.25 else "medium" if share > CONTAMINATION else "low",
        "high",
        advice,
        "medium",
        f"{share:.0%} of units share their `{worst}` with another unit",
        share,
    )


def _temporal(draft: Draft) -> ValidityThreat:
    facts = draft.facts
    text = "Season, trend or an event moves the outcome while the test runs."
    severity: Level = "high" if draft.design == "geo" else "low"
    advice = "Run both arms over the same weeks; do not read results before the planned end."
    if draft.markets is not None:
        best = draft.markets.recommended
        bias = abs(best.placebo_bias) / best.placebo_rmse if best.placebo_rmse > 0 else 0.0
        likelihood: Level = "high" if bias > 0.8 else "medium" if bias > 0.5 else "low"
        return _threat(
            "temporal",
            text,
            likelihood,
            severity,
            advice,
            "low",
            f"placebo effects in past windows lean one way by {bias:.0%} of their size",
            bias,
        )
    if facts.last_jump is not None and abs(facts.last_jump) > 3.0:
        return _threat(
            "temporal",
            text,
            "high",
            "medium",
            "Wait until the level has settled, or extend the pre-period. " + advice,
            "medium",
            f"the last quarter of the panel lies {facts.last_jump:.1f} standard errors off the trend before it",
            facts.last_jump,
        )
    trend = facts.trend
    evidence = "no panel to measure it in" if trend is None else f"the mean moved by {trend:.2f} standard deviations over the panel"
    is_moving = trend is not None and abs(trend) > 0.5
    return _threat("temporal", text, "medium" if is_moving or trend is None else "low", severity, advice, "low", evidence, trend)


def _attrition(draft: Draft) -> ValidityThreat:
    facts, expected = draft.facts, draft.spec.expected_attrition
    lost = max(facts.lost_units or 0.0, expected)
    likelihood: Level = "high" if lost > ATTRITION else "medium" if lost > 0.05 else "low"
    known = facts.lost_units is not None or expected > 0
    evidence = f"{lost:.1%} of units leave over the time of a test" if known else "no panel and no `expected_attrition` to read it from"
    return _threat(
        "attrition",
        "Units leave, and not alike in both arms.",
        likelihood if known else "medium",
        "high" if lost > ATTRITION else "medium",
        "Enrol more, analyse all as assigned, and compare who left between the arms.",
        "medium",
        evidence,
        lost if known else None,
    )


def _threat(  # noqa: PLR0917 - a row of a table
    kind: str,
    description: str,
    likelihood: Level,
    severity: Level,
    mitigation: str,
    difficulty: Level,
    evidence: str,
    measured: float | None,
    mitigated: bool = False,
) -> ValidityThreat:
    return ValidityThreat(
        threat_type=kind,  # type: ignore[arg-type]
        description=description,
        likelihood=likelihood,
        severity=severity,
        mitigation=mitigation,
        difficulty=difficulty,
        evidence=evidence,
        measured=measured,
        mitigated=mitigated,
    )
