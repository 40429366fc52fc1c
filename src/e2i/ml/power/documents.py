"""The written part: hypothesis, pre-registration, and the study file that the later analysis runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from e2i.domain.study import Study
from e2i.ml.power.monitoring import final_look

if TYPE_CHECKING:
    from e2i.domain.trials import Assignment, MonitoringPlan, RedesignStep, ValidityThreat
    from e2i.ml.power.planning import Draft

RESULTS = "experiment_results.parquet"
USUAL_ALPHA = 0.05
"""of the intervals of `e2i effect`"""


def hypothesis(draft: Draft) -> str:
    """The question as something that data can refute."""
    spec, power = draft.spec, draft.power
    size = power.target_effect if power.target_effect is not None else power.mde
    none = "zero" if power.effect_scale == "difference" else "one"
    scale = {"difference": "", "rate_ratio": "a rate ratio of ", "hazard_ratio": "a hazard ratio of "}[power.effect_scale]
    wanted = f" by {scale}{size:.3g}, or further from {none}," if size is not None else ""
    after = "by the end of the test" if draft.design == "geo" else f"within {spec.follow_up} periods of assignment"
    claim = f"Compared with no `{spec.treatment}`, `{spec.treatment}` moves `{spec.outcome}`{wanted} {after}"
    return f"{claim} (two-sided alpha {spec.alpha:g})."


def causal_dag(draft: Draft) -> tuple[str, ...]:
    """Edges; chance is the only cause of treatment, except for markets that were chosen."""
    spec = draft.spec
    history = f"{spec.outcome}_pre"
    causes = [*spec.covariates, *spec.strata, *([history] if draft.facts.windows is not None else [])]
    chosen = [f"{history} -> {spec.treatment}"] if draft.design == "geo" else [f"chance -> {spec.treatment}"]
    return (*chosen, f"{spec.treatment} -> {spec.outcome}", *(f"{cause} -> {spec.outcome}" for cause in dict.fromkeys(causes)))


def analysis_study(draft: Draft, *, name: str) -> str:
    """YAML of the study that `e2i effect` runs on the results table; its columns are named in a comment on top."""
    spec = draft.spec
    is_panel = draft.design == "geo" or draft.analysis == "double_difference"
    history = [f"{spec.outcome}_pre"] if draft.facts.windows is not None and not is_panel else []
    effect: dict[str, Any] = {"treatment": spec.treatment, "outcome": spec.outcome}
    covariates = list(dict.fromkeys([*spec.covariates, *spec.strata, *history]))
    if covariates and not is_panel:
        effect["confounders"] = covariates
    if spec.negative_controls:
        effect["negative_controls"] = list(spec.negative_controls)
    if draft.design == "cluster_rct":
        effect["cluster"] = spec.cluster or "cluster"
    effect["estimand"] = "ATT" if is_panel else "ATE"
    effect["design"] = "synthetic_control" if draft.design == "geo" else "did" if is_panel else "cross_section"
    if draft.design != "geo":
        effect["randomised"] = True
        effect["assigned_share"] = spec.treated_share
    content: dict[str, Any] = {"name": name, "description": spec.question, "data": {"source": RESULTS}, "unit": spec.unit or "unit"}
    if is_panel:
        content["time"] = spec.time
    content["effect"] = effect
    Study.model_validate(content)
    written = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return f"{_columns(draft, is_panel=is_panel)}\n# {decision(draft)}\n{written}"


def decision(draft: Draft) -> str:
    """When the later analysis shows an effect: interim looks leave less than alpha to the last one."""
    spec = draft.spec
    last = final_look(draft)
    rule = f"An effect is shown where p is at most {last.nominal_p:.4g} (|z| of {last.z_boundary:.4f} or more)"
    if draft.design == "geo":
        return "An effect is shown where `e2i effect` gives the verdict proceed and an interval without zero."
    if last.look > 1:
        rule += f" at look {last.look}, as the looks before it spend a part of alpha"
    undecided = "" if last.look == 1 and spec.alpha == USUAL_ALPHA else " The 95 % interval of `e2i effect` does not decide."
    return f"{rule}.{undecided}"


def preregistration(
    draft: Draft,
    *,
    claim: str,
    threats: tuple[ValidityThreat, ...],
    monitoring: MonitoringPlan,
    assignment: Assignment | None,
    redesigns: tuple[RedesignStep, ...],
    study: str,
) -> str:
    """Markdown. light: hypothesis, design, size, analysis; medium adds power, threats and monitoring; heavy all that is known."""
    level = draft.spec.formality
    parts = [f"# Pre-registration: {draft.spec.question}", _design(draft, claim), _size(draft), _analysis(draft)]
    if level in ("medium", "heavy"):
        parts += [_power(draft), _threats(threats), _monitoring(monitoring)]
    if level == "heavy":
        parts += [_sensitivity(draft), _redesigns(redesigns), _assignment(assignment), f"## Analysis study\n\n```yaml\n{study}```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _columns(draft: Draft, *, is_panel: bool) -> str:
    spec = draft.spec
    lines = [f"# `{RESULTS}`: {'one row per unit and period' if is_panel else 'one row per unit'}, after the experiment."]
    if is_panel:
        lines.append(f"# {spec.treatment}: 1 for treated units from the start on, else 0.")
    else:
        lines.append(f"# {spec.treatment}: 1 as assigned, whether or not it was taken up; 0 for control.")
        what = {
            "time_to_event": "1 with an event within follow-up, else 0 (the plan's size is that of a log-rank test on event times)",
            "count": f"events over {spec.follow_up} periods",
        }.get(draft.facts.outcome_type, f"over {spec.follow_up} periods after assignment")
        lines.append(f"# {spec.outcome}: {what}.")
        if draft.facts.windows is not None:
            lines.append(f"# {spec.outcome}_pre: mean over {spec.pre_periods} periods before assignment.")
    return "\n".join(lines)


def _design(draft: Draft, claim: str) -> str:
    blocks = f" Strata: {', '.join(draft.spec.strata)}." if draft.spec.strata else ""
    text = f"## Hypothesis\n\n{claim}\n\n## Design\n\n`{draft.design}`. {draft.rationale}{blocks}"
    if draft.markets is None:
        return text
    best = draft.markets.recommended
    controls = ", ".join(f"{name} ({weight:.2f})" for name, weight in sorted(best.controls.items(), key=lambda item: (-item[1], item[0])))
    return f"{text}\n\nTest regions: {', '.join(best.test)}. Controls with weights before the test: {controls}."


def _size(draft: Draft) -> str:
    power = draft.power
    unit = "test regions" if draft.design == "geo" else "units in all arms"
    rows = [f"- planned: {power.planned_n} {unit}"]
    if power.planned_clusters is not None:
        rows.append(f"- planned clusters: {power.planned_clusters}")
    if power.target_effect is not None:
        rows.append(f"- required: {power.required_n if power.required_n is not None else 'not reachable'}")
        rows.append(
            f"- effect looked for: {power.target_effect:.4g} ({power.effect_scale.replace('_', ' ')}), power {power.achieved_power:.3f}"
        )
    rows.append(f"- smallest detectable effect at power {power.target_power:g}: {'unknown' if power.mde is None else f'{power.mde:.4g}'}")
    return "## Sample size\n\n" + "\n".join(rows)


def _analysis(draft: Draft) -> str:
    spec = draft.spec
    what = {
        "difference": "difference of the arms' means",
        "ancova": "difference of the arms' means, adjusted for covariates and the pre-period",
        "double_difference": "change in treated units less change in controls",
        "paired": "mean difference within pairs",
        "log_rank": "log-rank test; hazard ratio by Cox regression",
        "geo_gap": "test regions less their synthetic control",
    }[draft.analysis]
    errors = " Errors are clustered." if draft.design == "cluster_rct" else ""
    return (
        f"## Analysis\n\nPrimary outcome: `{spec.outcome}`. Estimate: {what}.{errors} All units are analysed as assigned; "
        f"two-sided alpha {spec.alpha:g}. {decision(draft)} No other outcome or subgroup decides."
    )


def _power(draft: Draft) -> str:
    power = draft.power
    rows = [
        f"Method: {power.method}.",
        "",
        "| Input | Value |",
        "| --- | --- |",
        *(f"| {k} | {v:.4g} |" for k, v in sorted(power.inputs.items())),
    ]
    if power.curve:
        rows += ["", "| n | Power |", "| --- | --- |", *(f"| {point.n} | {point.power:.3f} |" for point in power.curve)]
    if power.simulated is not None:
        told = power.simulated
        (a, b), (c, d) = told.size_interval, told.power_interval
        rows += [
            "",
            f"Resamples of the own table: {told.simulations}.",
            f"False alarms: {told.size:.3f} ({a:.3f} to {b:.3f}; planned {told.nominal_size:g}).",
            f"Power: {told.power:.3f} ({c:.3f} to {d:.3f}; formula {told.nominal_power:.3f}).",
        ]
    return "## Power\n\n" + "\n".join(rows)


def _threats(threats: tuple[ValidityThreat, ...]) -> str:
    head = "| Threat | Likelihood | Severity | Evidence | Mitigation |\n| --- | --- | --- | --- | --- |\n"
    rows = "\n".join(
        f"| {t.threat_type.replace('_', ' ')} | {t.likelihood} | {t.severity} | {t.evidence} | {t.mitigation} |" for t in threats
    )
    return f"## Threats to validity\n\n{head}{rows}"


def _monitoring(plan: MonitoringPlan) -> str:
    head = "| Look | Information | n | z boundary | alpha spent |\n| --- | --- | --- | --- | --- |\n"
    looks = "\n".join(f"| {x.look} | {x.information:.2f} | {x.n} | {x.z_boundary:.4f} | {x.alpha_spent:.5f} |" for x in plan.looks)
    rules = "\n".join(f"- {rule.name}: {rule.threshold}. {rule.action}" for rule in plan.rules)
    return f"## Monitoring\n\nSpending: {plan.spending}.\n\n{head}{looks}\n\n{rules}"


def _sensitivity(draft: Draft) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(draft.power.sensitivity.items()))
    return f"## Sensitivity of power\n\n| If | Power |\n| --- | --- |\n{rows}" if rows else ""


def _redesigns(steps: tuple[RedesignStep, ...]) -> str:
    rows = "\n".join(f"- {each.action}: power {each.power_before:.3f} to {each.power_after:.3f}" for each in steps)
    return f"## Changes made for power\n\n{rows}" if rows else ""


def _assignment(assignment: Assignment | None) -> str:
    if assignment is None:
        return ""
    rows = "\n".join(f"| {r.covariate} | {r.treatment_mean:.4g} | {r.control_mean:.4g} | {r.smd:+.3f} |" for r in assignment.balance)
    head = "| Covariate | Treatment | Control | SMD |\n| --- | --- | --- | --- |\n"
    return f"## Assignment\n\n{assignment.method}, seed {assignment.seed}.\n\n{head}{rows}"
